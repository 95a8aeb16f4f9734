//! The SQL of going along the keys of entities, some at a time, to see what of a filter holds for any of them.

use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment};
use diesel::sql_types::{Array, BigInt, Bool, Integer, Nullable, Text};

use crate::db::statement::built;
use crate::db::{Realm, Work};
use crate::filter::Predicate;

/// Which entities of a realm count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Among<'a> {
    /// Those of one of these types; all, if it is not set.
    pub types: Option<&'a [String]>,
    /// Not those that were soft-deleted.
    pub live: bool,
}

/// The next entities of a realm by key, each with whether it counts.
#[derive(Clone, Copy)]
pub(super) struct Entities<'a> {
    /// Whose.
    pub realm: &'a Realm,
    /// Which count.
    pub among: Among<'a>,
    /// What holds for those that count.
    pub condition: Option<&'a Predicate>,
    /// The key before the first; the empty one is before all.
    pub after: &'a str,
    /// How many.
    pub limit: i64,
}

/// What a stride along the keys came to.
pub(super) struct Went {
    /// How many entities were read.
    pub read: i64,
    /// The key of the last.
    pub last: Option<String>,
    /// Whether one of them counts.
    pub met: bool,
    /// For each presence, whether it holds for one that counts.
    pub has: Vec<bool>,
}

/// Goes along some keys, and tells for each presence whether it holds for one of the entities there.
pub(super) fn stride(connection: &mut PgConnection, entities: Entities<'_>, presences: &[Predicate]) -> Work<Went> {
    let (read, last, met, has) = Stride { entities, presences }.get_result(connection)?;
    Ok(Went { read, last, met, has })
}

impl Entities<'_> {
    pub(super) fn walk<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("(SELECT e.id, e.type, e.portfolio_id, e.attributes, (");
        out.push_sql(if self.among.live { "e.deleted_at IS NULL" } else { "TRUE" });
        if let Some(types) = &self.among.types {
            out.push_sql(" AND e.type = ANY(");
            out.push_bind_param::<Array<Text>, _>(types)?;
            out.push_sql(")");
        }
        if let Some(condition) = self.condition {
            out.push_sql(" AND ");
            condition.walk_ast(out.reborrow())?;
        }
        out.push_sql(") AS counts FROM entity e WHERE e.realm_id = ");
        out.push_bind_param::<Integer, _>(self.realm.id_ref())?;
        out.push_sql(" AND e.id > ");
        out.push_bind_param::<Text, _>(&self.after)?;
        out.push_sql(" ORDER BY e.id LIMIT ");
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql(") e");
        Ok(())
    }
}

/// How many entities were read, the last of them, whether any of them counts, and for each presence whether it holds for one of those.
struct Stride<'a> {
    entities: Entities<'a>,
    presences: &'a [Predicate],
}

impl QueryFragment<Pg> for Stride<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        out.push_sql("SELECT count(*), max(e.id), coalesce(bool_or(e.counts), FALSE), ARRAY[");
        for (n, presence) in self.presences.iter().enumerate() {
            out.push_sql(if n == 0 { "coalesce(bool_or(e.counts AND " } else { ", coalesce(bool_or(e.counts AND " });
            presence.walk_ast(out.reborrow())?;
            out.push_sql("), FALSE)");
        }
        out.push_sql("] FROM ");
        self.entities.walk(&mut out)
    }
}

built!(Stride<'_> => (BigInt, Nullable<Text>, Bool, Array<Bool>));

#[cfg(test)]
pub(super) mod forms {
    use super::*;
    use crate::db::checked::{Form, forms, realm};
    use crate::filter::{AttributePath, Filter};

    /// What `form` makes of every kind of entities.
    pub(in crate::entity) fn each(form: fn(&str, Entities<'_>) -> Vec<Form>) -> Vec<Form> {
        let (realm, types) = (realm(), ["T".to_owned()]);
        let condition = Filter::parse("equals(type, T)").expect("a filter").type_condition();
        let mut all = Vec::new();
        for types in [None, Some(types.as_slice())] {
            for condition in [None, condition.as_ref()] {
                for live in [false, true] {
                    let among = Among { types, live };
                    let said = format!("types {} condition {} live {live}", types.is_some(), condition.is_some());
                    all.extend(form(&said, Entities { realm: &realm, among, condition, after: "", limit: 1 }));
                }
            }
        }
        all
    }

    forms!(Stride, || each(|said, entities| {
        let filter = Filter::parse("equals(attributes.a, x) and exists(attributes.b.c) and equals(type, T)").expect("a filter");
        let presences: Vec<Predicate> = filter.attributes().iter().map(AttributePath::presence).collect();
        let values: Vec<Predicate> = filter.named_values().into_iter().map(|value| value.holds).collect();
        [presences, values].map(|presences| Form::of(said, &Stride { entities, presences: &presences })).into()
    }));
}
