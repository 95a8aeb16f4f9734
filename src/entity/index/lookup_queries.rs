//! The SQL that finds, by the indexes of a realm, the entities that may match a filter.
//!
//! Use it in the transaction of the query that uses its result: an index that is dropped is emptied only when the transactions that may
//! have seen it in use are over.

use std::collections::HashSet;

use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment};
use diesel::sql_types::{Array, BigInt, Integer, Text};

use crate::db::statement::built;
use crate::db::{Realm, Work, statement};
use crate::filter::{AttributePath, Filter, Keys, Lookup};

/// How many conditions of a filter are tried for the one with the fewest candidates.
const TRIED: usize = 8;

/// The ids of all entities of a realm that may match a filter, as a query: `SELECT entity_id ...`, some of them more than once. Lookups in indexes
/// that were ready when they were chosen.
#[derive(Clone, Debug)]
pub struct Candidates {
    realm: i32,
    lookups: Vec<Lookup>,
}

/// Chooses the lookups that find the fewest candidates. None if no index can say anything, or there are more than `at_most`: then it is as well to
/// read all entities.
pub fn choose(
    connection: &mut PgConnection,
    realm: &Realm,
    filter: Option<&Filter>,
    at_most: i64,
) -> Work<Option<Candidates>> {
    let Some(filter) = filter.filter(|filter| !filter.candidates(&|_| true).is_empty()) else {
        return Ok(None);
    };
    let ready = ready(connection, realm)?;
    let mut chosen = None;
    let mut most = at_most;
    for lookups in filter.candidates(&|attribute| ready.contains(attribute)).into_iter().take(TRIED)
    {
        let candidates = Candidates { realm: realm.id(), lookups };
        let (count,): (i64,) =
            Count { candidates: &candidates, limit: most + 1 }.get_result(connection)?;
        if count <= most {
            (chosen, most) = (Some(candidates), count - 1);
        }
        if most < 0 {
            break;
        }
    }
    Ok(chosen)
}

impl Candidates {
    /// Returns whether all of its indexes are still in use.
    pub fn are_ready(&self, connection: &mut PgConnection, realm: &Realm) -> Work<bool> {
        let ready = ready(connection, realm)?;
        Ok(self.lookups.iter().all(|lookup| ready.contains(&lookup.attribute)))
    }
}

/// Returns whether an entity may match one of these lookups. None if an index that they use is not ready, or there are none.
pub fn is_any(
    connection: &mut PgConnection,
    realm: &Realm,
    lookups: &[Lookup],
) -> Work<Option<bool>> {
    let ready = ready(connection, realm)?;
    if lookups.is_empty() || !lookups.iter().all(|lookup| ready.contains(&lookup.attribute)) {
        return Ok(None);
    }
    let candidates = Candidates { realm: realm.id(), lookups: lookups.to_vec() };
    let (count,): (i64,) = Count { candidates: &candidates, limit: 1 }.get_result(connection)?;
    Ok(Some(count > 0))
}

/// Those of the attributes of which an index that is in use has a value.
pub fn with_values(
    connection: &mut PgConnection,
    realm: &Realm,
    attributes: &[AttributePath],
) -> Work<HashSet<String>> {
    let attributes = attributes.iter().map(|attribute| attribute.canonical.as_str()).collect();
    let found: Vec<(String,)> =
        AttributesWithValues { realm: realm.id(), attributes }.load(connection)?;
    Ok(found.into_iter().map(|(attribute,)| attribute).collect())
}

statement! {
    /// A lookup in each index that is in use.
    struct AttributesWithValues<'a> {
        realm: i32 as Integer,
        attributes: Vec<&'a str> as Array<Text>,
    } -> (Text,),
    "SELECT d.attribute
     FROM attribute_declaration d
     WHERE d.realm_id = {realm} AND d.state = 'ready' AND d.attribute = ANY({attributes})
       AND EXISTS (SELECT FROM attribute_index a WHERE a.realm_id = d.realm_id AND a.attribute = d.attribute)"
}

fn ready(connection: &mut PgConnection, realm: &Realm) -> Work<HashSet<String>> {
    let ready: Vec<(String,)> = ReadyAttributes { realm: realm.id() }.load(connection)?;
    Ok(ready.into_iter().map(|(attribute,)| attribute).collect())
}

statement! {
    /// The attributes whose indexes are in use.
    struct ReadyAttributes { realm: i32 as Integer } -> (Text,),
    "SELECT d.attribute FROM attribute_declaration d WHERE d.realm_id = {realm} AND d.state = 'ready'"
}

impl QueryFragment<Pg> for Candidates {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        for (n, lookup) in self.lookups.iter().enumerate() {
            out.push_sql(if n == 0 { "" } else { " UNION ALL " });
            out.push_sql("SELECT a.entity_id FROM attribute_index a WHERE a.realm_id = ");
            out.push_bind_param::<Integer, _>(&self.realm)?;
            out.push_sql(" AND a.attribute = ");
            out.push_bind_param::<Text, _>(&lookup.attribute)?;
            match &lookup.keys {
                Keys::OneOf(keys) => {
                    out.push_sql(" AND a.value = ANY(");
                    out.push_bind_param::<Array<Text>, _>(keys)?;
                    out.push_sql(")");
                }
                Keys::Between { from, below } => {
                    out.push_sql(" AND a.value >= ");
                    out.push_bind_param::<Text, _>(from)?;
                    out.push_sql(" AND a.value < ");
                    out.push_bind_param::<Text, _>(below)?;
                }
            }
        }
        Ok(())
    }
}

built!(Candidates);

/// Counts candidates up to a limit.
struct Count<'a> {
    candidates: &'a Candidates,
    limit: i64,
}

impl QueryFragment<Pg> for Count<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        out.push_sql("SELECT count(*) FROM (SELECT 1 FROM (");
        self.candidates.walk_ast(out.reborrow())?;
        out.push_sql(") c LIMIT ");
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql(") few");
        Ok(())
    }
}

built!(Count<'_> => (BigInt,));

#[cfg(test)]
mod forms {
    use super::*;
    use crate::db::checked::{Form, forms};

    impl Candidates {
        /// Candidates by each kind of lookup.
        pub(crate) fn of_every_kind() -> Candidates {
            let lookup = |keys| Lookup { attribute: "a".to_owned(), keys };
            let between = Keys::Between { from: "a".to_owned(), below: "b".to_owned() };
            Candidates {
                realm: 1,
                lookups: vec![lookup(Keys::OneOf(vec!["a".to_owned()])), lookup(between)],
            }
        }
    }

    forms!(Count, || vec![Form::of(
        "candidates",
        &Count { candidates: &Candidates::of_every_kind(), limit: 1 }
    )]);
}
