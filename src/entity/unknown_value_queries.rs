//! The SQL of finding out which values that a filter names nothing has. All of it is bounded: lookups by key and by index, and some entities by key.

use std::collections::HashSet;

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Text};

use crate::db::{Realm, Work, statement};
use crate::entity::index::lookup_queries;
use crate::entity::unknown_value::UnknownValue;
use crate::filter::{NamedValue, fold};
use crate::limits::requests::VALUE_LOOK_ENTITIES;

/// How many portfolios are read for what may have been meant.
const PORTFOLIOS: i64 = 1_000;

/// Those of these values that nothing has, as far as keys and indexes show, and those that must be searched for along the keys. Portfolios without members
/// count where the caller may see portfolios.
pub(super) fn look_up(
    connection: &mut PgConnection,
    realm: &Realm,
    named: Vec<NamedValue>,
    sees_portfolios: bool,
) -> Work<(Vec<UnknownValue>, Vec<NamedValue>)> {
    let (portfolios, others): (Vec<_>, Vec<_>) =
        named.into_iter().partition(|value| value.path == "portfolio" && value.condition.is_none());
    let (uris, others): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|value| value.path == "uri" && value.condition.is_none());
    let mut unknown = unknown_portfolios(connection, realm, portfolios, sees_portfolios)?;
    let (unknown_uris, spelt_otherwise) = unknown_uris(connection, realm, uris)?;
    unknown.extend(unknown_uris);
    let (indexed, mut open) = by_index(connection, realm, others)?;
    unknown.extend(indexed.into_iter().map(|value| unknown_value(value, None)));
    open.extend(spelt_otherwise);
    Ok((unknown, open))
}

/// The same, as nothing that was read has it.
pub(super) fn unknown_value(value: NamedValue, entities_read: Option<i64>) -> UnknownValue {
    let NamedValue { path, value, condition, denied, .. } = value;
    UnknownValue {
        path,
        value,
        condition,
        denied,
        nearest: Vec::new(),
        entities_read,
        of_members: false,
    }
}

/// A value as it may be spelt as a key: as it is, and in lower and upper case where the function does not mind.
fn spellings(named: &[NamedValue]) -> Vec<String> {
    let of = |value: &NamedValue| {
        let others =
            (!value.is_exact).then(|| [value.value.to_lowercase(), value.value.to_uppercase()]);
        std::iter::once(value.value.clone()).chain(others.into_iter().flatten()).collect::<Vec<_>>()
    };
    named.iter().flat_map(of).collect()
}

/// Those of the values that are none of these, as their functions compare.
fn without(named: Vec<NamedValue>, known: &[(String,)]) -> Vec<NamedValue> {
    let folded: HashSet<String> = known.iter().map(|(known,)| fold(known)).collect();
    let exact: HashSet<&str> = known.iter().map(|(known,)| known.as_str()).collect();
    let is_known = |value: &NamedValue| {
        if value.is_exact {
            exact.contains(value.value.as_str())
        } else {
            folded.contains(&fold(&value.value))
        }
    };
    named.into_iter().filter(|value| !is_known(value)).collect()
}

fn unknown_portfolios(
    connection: &mut PgConnection,
    realm: &Realm,
    named: Vec<NamedValue>,
    empty: bool,
) -> Work<Vec<UnknownValue>> {
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let mut open = without(
        named.clone(),
        &KnownPortfolios { realm: realm.id(), ids: spellings(&named), empty }.load(connection)?,
    );
    if open.iter().any(|value| !value.is_exact) {
        let ids = open.iter().map(|value| value.value.to_lowercase()).collect();
        open = without(
            open,
            &KnownPortfoliosIgnoringCase { realm: realm.id(), ids, empty }.load(connection)?,
        );
    }
    if open.is_empty() {
        return Ok(Vec::new());
    }
    let first: Vec<(String,)> =
        FirstPortfolios { realm: realm.id(), empty, limit: PORTFOLIOS }.load(connection)?;
    let near = |value: NamedValue| {
        let value = UnknownValue { of_members: !empty, ..unknown_value(value, None) };
        value.with_nearest(first.iter().map(|(id,)| id.as_str()))
    };
    Ok(open.into_iter().map(near).collect())
}

statement! {
    /// Those of these portfolios that exist.
    struct KnownPortfolios {
        realm: i32 as Integer,
        ids: Vec<String> as Array<Text>,
        empty: bool as Bool,
    } -> (Text,),
    "SELECT p.id FROM portfolio p WHERE p.realm_id = {realm} AND p.id = ANY({ids}) AND ({empty} OR p.entity_count > 0)"
}

statement! {
    /// Those of these portfolios that are there in any case; these are in lower case.
    struct KnownPortfoliosIgnoringCase {
        realm: i32 as Integer,
        ids: Vec<String> as Array<Text>,
        empty: bool as Bool,
    } -> (Text,),
    "SELECT p.id
     FROM portfolio p
     WHERE p.realm_id = {realm} AND lower(p.id COLLATE \"C\") = ANY({ids}) AND ({empty} OR p.entity_count > 0)"
}

statement! {
    /// Some portfolios, by key.
    struct FirstPortfolios {
        realm: i32 as Integer,
        empty: bool as Bool,
        limit: i64 as BigInt,
    } -> (Text,),
    "SELECT p.id
     FROM (SELECT f.id, f.entity_count FROM portfolio f WHERE f.realm_id = {realm} ORDER BY f.id LIMIT {limit}) p
     WHERE {empty} OR p.entity_count > 0"
}

/// Those of the ids that are of no entity, and those that may be spelt in another case.
fn unknown_uris(
    connection: &mut PgConnection,
    realm: &Realm,
    named: Vec<NamedValue>,
) -> Work<(Vec<UnknownValue>, Vec<NamedValue>)> {
    if named.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let known: Vec<(String,)> =
        KnownEntities { realm: realm.id(), ids: spellings(&named) }.load(connection)?;
    let (exact, open): (Vec<_>, Vec<_>) =
        without(named, &known).into_iter().partition(|value| value.is_exact);
    Ok((exact.into_iter().map(|value| unknown_value(value, None)).collect(), open))
}

statement! {
    /// Those of these entities that exist, also soft-deleted.
    struct KnownEntities {
        realm: i32 as Integer,
        ids: Vec<String> as Array<Text>,
    } -> (Text,),
    "SELECT e.id FROM entity e WHERE e.realm_id = {realm} AND e.id = ANY({ids})"
}

/// Those of the values that an index knows nothing of, and those that no index can decide.
fn by_index(
    connection: &mut PgConnection,
    realm: &Realm,
    named: Vec<NamedValue>,
) -> Work<(Vec<NamedValue>, Vec<NamedValue>)> {
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

/// Whether there is an entity that counts.
pub(super) fn is_any(connection: &mut PgConnection, realm: &Realm, undeleted: bool) -> Work<bool> {
    let (is_any,): (bool,) =
        AnyEntity { realm: realm.id(), undeleted, limit: VALUE_LOOK_ENTITIES as i64 }
            .get_result(connection)?;
    Ok(is_any)
}

statement! {
    /// True if there is an entity that counts, as far as this reads.
    struct AnyEntity {
        realm: i32 as Integer,
        undeleted: bool as Bool,
        limit: i64 as BigInt,
    } -> (Bool,),
    "SELECT EXISTS (
        SELECT
        FROM (SELECT e.deleted_at FROM entity e WHERE e.realm_id = {realm} ORDER BY e.id LIMIT {limit}) e
        WHERE NOT ({undeleted} AND e.deleted_at IS NOT NULL)
     )"
}
