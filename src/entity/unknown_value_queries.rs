//! The SQL of finding out which values that a filter names nothing has. All of it is bounded: looks by key and by index, and some entities by key.

use std::time::{Duration, Instant};

use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment};
use diesel::sql_types::{Array, BigInt, Bool, Integer, Text};

use crate::db::statement::built;
use crate::db::{Realm, Work, statement};
use crate::entity::index::lookup_queries;
use crate::entity::unknown_value::UnknownValue;
use crate::entity::walk_queries::{Among, Entities, Went, stride};
use crate::filter::{NamedValue, Predicate, fold};
use crate::limits::requests::{VALUE_LOOK, VALUE_LOOK_ENTITIES};

/// How many entities are looked at first, and how many times more in each stride behind that.
const FIRST: i64 = 200;
const GROWTH: i64 = 8;
/// For how long at most another stride begins.
const PATIENCE: Duration = Duration::from_millis(50);
/// How many types and values of attributes are looked for.
pub(super) const MOST_VALUES: usize = 64;
/// How many portfolios tell what may have been meant.
const PORTFOLIOS: i64 = 1_000;

/// Tells which of these values nothing has. What was soft-deleted counts unless only what is `live` does, and portfolios without members where the
/// caller may see `portfolios`. Where there is no entity, nothing is unknown.
pub fn look(
    connection: &mut PgConnection,
    realm: &Realm,
    named: Vec<NamedValue>,
    (live, portfolios): (bool, bool),
) -> Work<Vec<UnknownValue>> {
    let sees_empty = portfolios;
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let (portfolios, others): (Vec<_>, Vec<_>) =
        named.into_iter().partition(|value| value.path == "portfolio" && value.condition.is_none());
    let (uris, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|value| value.path == "uri" && value.condition.is_none());
    let mut unknown = unknown_portfolios(connection, realm, portfolios, sees_empty)?;
    unknown.extend(unknown_uris(connection, realm, uris)?);
    unknown.extend(unknown_along_the_keys(connection, realm, others, live)?);
    if !unknown.is_empty() && !is_any(connection, realm, live)? {
        return Ok(Vec::new());
    }
    Ok(unknown)
}

fn told(value: NamedValue, looked_at: Option<i64>) -> UnknownValue {
    let NamedValue { path, value, condition, denied, .. } = value;
    UnknownValue { path, value, condition, denied, nearest: Vec::new(), looked_at, of_members: false }
}

/// A value as it may be spelt as a key, where a filter does not mind its case.
fn spellings(named: &[NamedValue]) -> Vec<String> {
    named.iter().flat_map(|value| [value.value.clone(), value.value.to_lowercase(), value.value.to_uppercase()]).collect()
}

/// Those of the values that are none of these, case ignored.
fn without(named: Vec<NamedValue>, known: &[(String,)]) -> Vec<NamedValue> {
    let known: std::collections::HashSet<String> = known.iter().map(|(known,)| fold(known)).collect();
    named.into_iter().filter(|value| !known.contains(&fold(&value.value))).collect()
}

fn unknown_portfolios(connection: &mut PgConnection, realm: &Realm, named: Vec<NamedValue>, empty: bool) -> Work<Vec<UnknownValue>> {
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let open = without(named.clone(), &KnownPortfolios { realm: realm.id(), ids: spellings(&named), empty }.load(connection)?);
    if open.is_empty() {
        return Ok(Vec::new());
    }
    let first: Vec<(String,)> = FirstPortfolios { realm: realm.id(), empty, limit: PORTFOLIOS }.load(connection)?;
    let near = |value: NamedValue| {
        let value = UnknownValue { of_members: !empty, ..told(value, None) };
        value.with_nearest(first.iter().map(|(id,)| id.as_str()))
    };
    Ok(without(open, &first).into_iter().map(near).collect())
}

statement! {
    /// Those of these portfolios that are there; of those without members, if they count.
    struct KnownPortfolios {
        realm: i32 as Integer,
        ids: Vec<String> as Array<Text>,
        empty: bool as Bool,
    } -> (Text,),
    "SELECT p.id FROM portfolio p WHERE p.realm_id = {realm} AND p.id = ANY({ids}) AND ({empty} OR p.entity_count > 0)"
}

statement! {
    /// Some portfolios, by key; those without members, if they count.
    struct FirstPortfolios {
        realm: i32 as Integer,
        empty: bool as Bool,
        limit: i64 as BigInt,
    } -> (Text,),
    "SELECT p.id
     FROM (SELECT f.id, f.entity_count FROM portfolio f WHERE f.realm_id = {realm} ORDER BY f.id LIMIT {limit}) p
     WHERE {empty} OR p.entity_count > 0"
}

fn unknown_uris(connection: &mut PgConnection, realm: &Realm, named: Vec<NamedValue>) -> Work<Vec<UnknownValue>> {
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let known: Vec<(String,)> = KnownEntities { realm: realm.id(), ids: spellings(&named) }.load(connection)?;
    Ok(without(named, &known).into_iter().map(|value| told(value, None)).collect())
}

statement! {
    /// Those of these entities that are there, also soft-deleted.
    struct KnownEntities {
        realm: i32 as Integer,
        ids: Vec<String> as Array<Text>,
    } -> (Text,),
    "SELECT e.id FROM entity e WHERE e.realm_id = {realm} AND e.id = ANY({ids})"
}

/// How far a look along the keys went.
pub(super) struct Looked {
    /// How many entities were looked at.
    pub at: i64,
    /// Whether those are all that there are.
    pub ended: bool,
}

/// Goes along the keys in strides, as long as anything is open. `tried` are the conditions of what is open, and with what holds for one of the entities
/// `stays` tells whether it stays open.
pub(super) fn along_the_keys<T>(
    connection: &mut PgConnection,
    realm: &Realm,
    (among, condition): (Among<'_>, Option<&Predicate>),
    open: &mut Vec<T>,
    tried: impl Fn(&T) -> Vec<Predicate>,
    stays: impl Fn(&mut T, &[bool]) -> bool,
) -> Work<Looked> {
    let (mut after, mut limit, since) = (String::new(), FIRST, Instant::now());
    let mut looked = Looked { at: 0, ended: false };
    while !open.is_empty() && !looked.ended && looked.at < VALUE_LOOK_ENTITIES as i64 && since.elapsed() < PATIENCE {
        let each: Vec<Vec<Predicate>> = open.iter().map(&tried).collect();
        let entities = Entities { realm, among, condition, after: &after, limit };
        let Went { read, last, has, .. } = stride(connection, entities, &each.concat())?;
        let (mut has, mut counts) = (has.as_slice(), each.iter().map(Vec::len));
        open.retain_mut(|one| {
            let (own, rest) = has.split_at(counts.next().unwrap_or_default().min(has.len()));
            has = rest;
            stays(one, own)
        });
        looked.at += read;
        looked.ended = read < limit;
        after = last.unwrap_or(after);
        limit *= GROWTH;
    }
    if !open.is_empty() && !looked.ended {
        VALUE_LOOK.reached();
    }
    Ok(looked)
}

/// Types, values of attributes and what asks for more than a value: by an index where one is in use, and else along the keys, as far as the look goes.
fn unknown_along_the_keys(connection: &mut PgConnection, realm: &Realm, mut named: Vec<NamedValue>, live: bool) -> Work<Vec<UnknownValue>> {
    named.truncate(MOST_VALUES);
    let (indexed, mut open) = by_index(connection, realm, named)?;
    let mut unknown: Vec<UnknownValue> = indexed.into_iter().map(|value| told(value, None)).collect();
    let among = Among { live, ..Among::default() };
    let tried = |value: &NamedValue| vec![value.holds.clone()];
    let Looked { at: looked_at, ended } =
        along_the_keys(connection, realm, (among, None), &mut open, tried, |_, has| has != [true].as_slice())?;
    if open.is_empty() {
        return Ok(unknown);
    }
    let met = if open.iter().any(|value| value.path == "type") {
        // What was soft-deleted counts, and is not named.
        let among = Among { live: true, ..among };
        let entities = Entities { realm, among, condition: None, after: "", limit: looked_at };
        Types { entities }.load::<(String,)>(connection)?
    } else {
        Vec::new()
    };
    for value in open {
        let is_type = value.path == "type";
        let value = told(value, (!ended).then_some(looked_at));
        let value = if is_type { value.with_nearest(met.iter().map(|(name,)| name.as_str())) } else { value };
        // What was not met on a part of the way may be behind it. Another spelling that was met makes it likely that this one is wrong.
        if ended || !value.nearest.is_empty() {
            unknown.push(value);
        }
    }
    Ok(unknown)
}

/// Those of the values that an index knows nothing of, and those that no index can tell about.
fn by_index(connection: &mut PgConnection, realm: &Realm, named: Vec<NamedValue>) -> Work<(Vec<NamedValue>, Vec<NamedValue>)> {
    if named.iter().all(|value| value.lookups.is_empty()) {
        return Ok((Vec::new(), named));
    }
    let (mut unknown, mut open) = (Vec::new(), Vec::new());
    for value in named {
        match lookup_queries::is_any(connection, realm, &value.lookups)? {
            Some(true) => {}
            Some(false) => unknown.push(value),
            None => open.push(value),
        }
    }
    Ok((unknown, open))
}

fn is_any(connection: &mut PgConnection, realm: &Realm, live: bool) -> Work<bool> {
    let (is_any,): (bool,) = AnyEntity { realm: realm.id(), live, limit: VALUE_LOOK_ENTITIES as i64 }.get_result(connection)?;
    Ok(is_any)
}

statement! {
    /// Whether there is an entity that counts, as far as this look goes.
    struct AnyEntity {
        realm: i32 as Integer,
        live: bool as Bool,
        limit: i64 as BigInt,
    } -> (Bool,),
    "SELECT EXISTS (
        SELECT
        FROM (SELECT e.deleted_at FROM entity e WHERE e.realm_id = {realm} ORDER BY e.id LIMIT {limit}) e
        WHERE NOT ({live} AND e.deleted_at IS NOT NULL)
     )"
}

/// The types of some entities.
struct Types<'a> {
    entities: Entities<'a>,
}

impl QueryFragment<Pg> for Types<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        out.push_sql("SELECT DISTINCT e.type FROM ");
        self.entities.walk(&mut out)?;
        out.push_sql(" WHERE e.counts");
        Ok(())
    }
}

built!(Types<'_> => (Text,));

#[cfg(test)]
mod forms {
    use super::*;
    use crate::db::checked::{Form, forms};
    use crate::entity::walk_queries::forms::each;

    forms!(Types, || each(|said, entities| vec![Form::of(said, &Types { entities })]));
}
