//! The SQL of finding out which attributes of a filter no entity has.

use std::time::{Duration, Instant};

use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment};
use diesel::sql_types::{BigInt, Integer, Jsonb};

use crate::db::statement::built;
use crate::db::{Realm, Work};
use crate::entity::index::lookup_queries;
use crate::entity::suspect_value::Suspect;
use crate::entity::unknown::{self, LIST_PATIENCE, Names, Seen, Unknown};
use crate::entity::unknown_value::UnknownValue;
use crate::entity::walk_queries::{Among, Entities, Went, stride};
use crate::entity::{suspect_value_queries, unknown_value_queries};
use crate::filter::{AttributePath, Filter, Predicate};
use crate::limits::requests::{ATTRIBUTE_LOOK, ATTRIBUTE_NAMES_ENTITIES, ATTRIBUTE_WALK, SUGGESTING_ENTITIES};
use crate::proto::object::Struct;
use crate::proto::v1;

/// How many entities are looked at first: nearly every attribute that there is at all is found here.
const FIRST: i64 = 200;
/// The largest of those that tell the names that may have been meant, in bytes.
const LARGEST_NAMING: i32 = 16 << 10;

/// Tells which attributes of the filter none of these entities has. Goes along the keys until each attribute was met, so that it reads little
/// where nothing is misspelt; and no longer than `patience`, if there is any. Where there is no such entity, nothing is unknown.
pub fn look(connection: &mut PgConnection, realm: &Realm, filter: &Filter, among: Among<'_>, patience: Option<Duration>) -> Work<Seen> {
    let mut open = filter.attributes();
    let since = Instant::now();
    let condition = filter.type_condition();
    let (mut after, mut limit, mut first_met) = (String::new(), FIRST, None);
    while !open.is_empty() {
        let presences: Vec<Predicate> = open.iter().map(AttributePath::presence).collect();
        let entities = Entities { realm, among, condition: condition.as_ref(), after: &after, limit };
        let Went { read, last, met, has } = stride(connection, entities, &presences)?;
        if met && first_met.is_none() {
            first_met = Some(after.clone());
        }
        let mut has = has.into_iter();
        open.retain(|_| !has.next().unwrap_or_default());
        let (Some(last), true) = (last, read == limit) else { break };
        after = last;
        if limit == FIRST && !open.is_empty() {
            // An index tells at once of an attribute that few have.
            let indexed = lookup_queries::with_values(connection, realm, &open)?;
            open.retain(|attribute| !indexed.contains(&attribute.canonical));
        }
        if patience.is_some_and(|patience| since.elapsed() >= patience) {
            ATTRIBUTE_LOOK.reached();
            return Ok(Seen { unchecked: open.into_iter().map(|attribute| attribute.canonical).collect(), ..Seen::default() });
        }
        limit = (limit * 8).min(ATTRIBUTE_WALK);
    }
    let Some(first_met) = first_met.filter(|_| !open.is_empty()) else { return Ok(Seen::default()) };
    // What was soft-deleted counts, and is not named.
    let naming = Among { live: true, ..among };
    let entities = Entities { realm, among: naming, condition: condition.as_ref(), after: &first_met, limit: ATTRIBUTE_WALK };
    let mut names = Names::default();
    let naming = (Naming { entities }).load::<(Struct,)>(connection)?;
    if naming.len() as i64 == SUGGESTING_ENTITIES {
        ATTRIBUTE_NAMES_ENTITIES.reached();
    }
    for (attributes,) in naming {
        names.add(attributes.view());
    }
    let unknown = open.into_iter().map(|path| Unknown { nearest: names.nearest(&path), attribute: path.canonical });
    Ok(Seen { unknown: unknown.collect(), ..Seen::default() })
}

/// Looks at the next entities only, for attributes of the filter that are not among `known`: tells which were met there, whether an entity was met
/// that counts, and the last key unless there are no more.
pub fn look_on(
    connection: &mut PgConnection,
    realm: &Realm,
    (filter, among): (&Filter, Among<'_>),
    known: &[String],
    (after, limit): (&str, i64),
) -> Work<(Vec<String>, bool, Option<String>)> {
    let open: Vec<AttributePath> = filter.attributes().into_iter().filter(|attribute| !known.contains(&attribute.canonical)).collect();
    if open.is_empty() {
        return Ok((Vec::new(), true, None));
    }
    let presences: Vec<Predicate> = open.iter().map(AttributePath::presence).collect();
    let condition = filter.type_condition();
    let entities = Entities { realm, among, condition: condition.as_ref(), after, limit };
    let Went { read, last, met, has } = stride(connection, entities, &presences)?;
    let seen = open.into_iter().zip(has).filter(|(_, has)| *has).map(|(attribute, _)| attribute.canonical);
    Ok((seen.collect(), met, last.filter(|_| read == limit)))
}

/// What a list warns of that begins with this page: names and values of its filter that no live entity has, and what it
/// compares otherwise than it looks, as far as a short look tells. A page
/// that is not empty says enough of the values that are asked for, and those that are denied are looked for alone. Portfolios without members count where
/// the caller may see `portfolios`.
pub fn warnings(
    connection: &mut PgConnection,
    realm: &Realm,
    (filter, portfolios): (Option<&Filter>, bool),
    (is_first, is_empty): (bool, bool),
) -> Work<Vec<v1::Warning>> {
    let Some(filter) = filter.filter(|_| is_first) else { return Ok(Vec::new()) };
    let among = Among { live: true, ..Among::default() };
    let Seen { unknown, .. } = look(connection, realm, filter, among, Some(LIST_PATIENCE))?;
    let mut named = unknown::values_of_known(filter.named_values(), &unknown);
    named.retain(|value| value.denied || is_empty);
    let mut warnings = unknown::warnings(Seen { unknown, ..Seen::default() });
    let values = unknown_value_queries::look(connection, realm, named, (true, portfolios))?;
    warnings.extend(values.iter().map(UnknownValue::warning));
    warnings.extend(Suspect::by_form(filter).map(|suspect| suspect.warning()));
    let suspects = suspect_value_queries::look(connection, realm, filter, among, |comparison| comparison.denied || is_empty)?;
    warnings.extend(suspects.iter().map(Suspect::warning));
    Ok(warnings)
}

/// The attributes of some of the entities, none of them large: of all that have the same names, one.
struct Naming<'a> {
    entities: Entities<'a>,
}

impl QueryFragment<Pg> for Naming<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        out.push_sql("SELECT f.attributes FROM (SELECT min(e.id) AS id FROM ");
        self.entities.walk(&mut out)?;
        out.push_sql(" WHERE e.counts AND pg_column_size(e.attributes) <= ");
        out.push_bind_param::<Integer, _>(&LARGEST_NAMING)?;
        out.push_sql(" GROUP BY ARRAY(SELECT jsonb_object_keys(e.attributes)) LIMIT ");
        out.push_bind_param::<BigInt, _>(&SUGGESTING_ENTITIES)?;
        out.push_sql(") s JOIN entity f ON f.id = s.id AND f.realm_id = ");
        out.push_bind_param::<Integer, _>(self.entities.realm.id_ref())
    }
}

built!(Naming<'_> => (Jsonb,));

#[cfg(test)]
mod forms {
    use super::*;
    use crate::db::checked::{Form, forms};
    use crate::entity::walk_queries::forms::each;

    forms!(Naming, || each(|said, entities| vec![Form::of(said, &Naming { entities })]));
}
