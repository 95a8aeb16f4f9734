//! The SQL of finding out which attributes of a filter no entity has.

use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment};
use diesel::sql_types::{BigInt, Integer, Jsonb};

use crate::db::statement::built;
use crate::db::{Realm, Work};
use crate::entity::index::lookup_queries;
use crate::entity::unknown::Names;
use crate::entity::walk_queries::{Among, Entities, Question, Went, walk};
use crate::filter::{AttributePath, Filter, Predicate};
use crate::limits::requests::{ATTRIBUTE_NAMES_ENTITIES, ATTRIBUTE_WALK, SUGGESTING_ENTITIES};
use crate::proto::object::Struct;

/// How many entities are read first: nearly every attribute that there is at all is found here.
pub(super) const FIRST: i64 = 200;
/// The largest of those that are read for names that may have been meant, in bytes.
const LARGEST_NAMING: i32 = 16 << 10;

/// Returns which attributes of the filter none of these entities has. Reads along the keys to the end, or until each attribute was found. Where there is no such
/// entity, nothing is unknown.
pub fn unknown_attributes(
    connection: &mut PgConnection,
    realm: &Realm,
    (filter, among): (&Filter, Among<'_>),
) -> Work<Vec<String>> {
    let mut known: Vec<String> = Vec::new();
    let (mut after, mut limit, mut is_met) = (String::new(), FIRST, false);
    loop {
        let (met, counts, last) =
            find_attributes(connection, realm, (filter, among), &known, (&after, limit))?;
        known.extend(met);
        is_met |= counts;
        let open = filter
            .attributes()
            .into_iter()
            .filter(|attribute| !known.contains(&attribute.canonical));
        let open: Vec<AttributePath> = open.collect();
        let Some(last) = last.filter(|_| !open.is_empty()) else {
            return Ok(if is_met {
                open.into_iter().map(|attribute| attribute.canonical).collect()
            } else {
                Vec::new()
            });
        };
        if limit == FIRST {
            // An index decides at once on an attribute that few have.
            known.extend(lookup_queries::with_values(connection, realm, &open)?);
        }
        (after, limit) = (last, (limit * 8).min(ATTRIBUTE_WALK));
    }
}

/// Reads only the next entities, for attributes of the filter that are not among `known`: returns those found there, whether an entity was
/// found that counts, and the last key unless there are no more.
pub fn find_attributes(
    connection: &mut PgConnection,
    realm: &Realm,
    (filter, among): (&Filter, Among<'_>),
    known: &[String],
    (after, limit): (&str, i64),
) -> Work<(Vec<String>, bool, Option<String>)> {
    let open: Vec<AttributePath> = filter
        .attributes()
        .into_iter()
        .filter(|attribute| !known.contains(&attribute.canonical))
        .collect();
    if open.is_empty() {
        return Ok((Vec::new(), true, None));
    }
    let questions: Vec<Question> = open
        .iter()
        .map(|attribute| Question {
            predicate: attribute.presence(),
            counting: true,
            undeleted: false,
        })
        .collect();
    let condition = filter.type_condition();
    let entities =
        Entities { realm, among, condition: condition.as_ref(), after, limit, shapes: &[] };
    let Went { read, last, counted, counts } = walk(connection, entities, &questions, false)?;
    let seen = open
        .into_iter()
        .zip(counts)
        .filter(|(_, count)| *count > 0)
        .map(|(attribute, _)| attribute.canonical);
    Ok((seen.collect(), counted > 0, last.filter(|_| read == limit)))
}

/// The names that some entities have, from the first on behind this key that counts.
pub(super) fn names(
    connection: &mut PgConnection,
    realm: &Realm,
    (among, condition): (Among<'_>, Option<&Predicate>),
    after: &str,
) -> Work<Names> {
    // Soft-deleted entities count, and are not named.
    let among = Among { undeleted: true, ..among };
    let entities = Entities { realm, among, condition, after, limit: ATTRIBUTE_WALK, shapes: &[] };
    let mut names = Names::default();
    let naming = (Naming { entities }).load::<(Struct,)>(connection)?;
    if naming.len() as i64 == SUGGESTING_ENTITIES {
        ATTRIBUTE_NAMES_ENTITIES.reached();
    }
    for (attributes,) in naming {
        names.add(attributes.view());
    }
    Ok(names)
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
