//! The SQL of walking the keys of entities, a batch at a time, to find which parts of a filter any of them matches.

use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment};
use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text};

use crate::db::statement::built;
use crate::db::{Realm, Work};
use crate::filter::{MASKS, Predicate};

/// Which entities of a realm count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Among<'a> {
    /// Those of one of these types; all, if it is not set.
    pub types: Option<&'a [String]>,
    /// Not those that were soft-deleted.
    pub undeleted: bool,
}

/// The next entities of a realm by key, each with whether it counts.
#[derive(Clone, Copy)]
pub(super) struct Entities<'a> {
    /// The realm.
    pub realm: &'a Realm,
    /// Which count.
    pub among: Among<'a>,
    /// The condition of those that count.
    pub condition: Option<&'a Predicate>,
    /// The key before the first; the empty one is before all.
    pub after: &'a str,
    /// How many.
    pub limit: i64,
    /// Whole numbers that are made of each, by the names `k0`, `k1` and so on.
    pub shapes: &'a [Predicate],
}

/// A question about each entity.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// The condition.
    pub predicate: Predicate,
    /// Whether those alone are asked that count.
    pub counting: bool,
    /// Whether those alone are asked that were not soft-deleted.
    pub undeleted: bool,
}

/// The result of a batch along the keys.
pub(super) struct Went {
    /// How many entities were read.
    pub read: i64,
    /// The key of the last.
    pub last: Option<String>,
    /// How many of them count.
    pub counted: i64,
    /// For each question, of how many it is true; and for each of the shapes and each mask, how many that count and are undeleted where that is asked for
    /// have one of its bits.
    pub counts: Vec<i64>,
}

/// Reads along some keys, and returns for each question of how many of the entities there it is true, and which shapes they have. `undeleted_shapes` says
/// whether those of what was soft-deleted do not count.
pub(super) fn walk(
    connection: &mut PgConnection,
    entities: Entities<'_>,
    questions: &[Question],
    undeleted_shapes: bool,
) -> Work<Went> {
    let (read, last, counted, counts) =
        WalkBatch { entities, questions, undeleted_shapes }.get_result(connection)?;
    Ok(Went { read, last, counted, counts })
}

impl Entities<'_> {
    pub(super) fn walk<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("(SELECT e.id, e.type, e.portfolio_id, e.attributes, (");
        out.push_sql(if self.among.undeleted { "e.deleted_at IS NULL" } else { "TRUE" });
        if let Some(types) = &self.among.types {
            out.push_sql(" AND e.type = ANY(");
            out.push_bind_param::<Array<Text>, _>(types)?;
            out.push_sql(")");
        }
        if let Some(condition) = self.condition {
            out.push_sql(" AND ");
            condition.walk_ast(out.reborrow())?;
        }
        out.push_sql(") AS counts, e.deleted_at IS NULL AS undeleted");
        for (n, shape) in self.shapes.iter().enumerate() {
            out.push_sql(", ");
            shape.walk_ast(out.reborrow())?;
            out.push_sql(&format!(" AS k{n}"));
        }
        out.push_sql(" FROM entity e WHERE e.realm_id = ");
        out.push_bind_param::<Integer, _>(self.realm.id_ref())?;
        out.push_sql(" AND e.id > ");
        out.push_bind_param::<Text, _>(&self.after)?;
        out.push_sql(" ORDER BY e.id LIMIT ");
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql(") e");
        Ok(())
    }
}

/// How many entities were read, the last of them, how many of them count, and of how many each question is true.
struct WalkBatch<'a> {
    entities: Entities<'a>,
    questions: &'a [Question],
    undeleted_shapes: bool,
}

impl QueryFragment<Pg> for WalkBatch<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        out.push_sql("SELECT count(*), max(e.id), count(*) FILTER (WHERE e.counts), ARRAY[");
        let mut separator = "";
        for Question { predicate, counting, undeleted } in self.questions {
            out.push_sql(separator);
            separator = ", ";
            out.push_sql("count(*) FILTER (WHERE ");
            out.push_sql(if *counting { "e.counts AND " } else { "" });
            out.push_sql(if *undeleted { "e.undeleted AND " } else { "" });
            predicate.walk_ast(out.reborrow())?;
            out.push_sql(")");
        }
        let undeleted = if self.undeleted_shapes { "e.undeleted AND " } else { "" };
        for n in 0..self.entities.shapes.len() {
            for mask in MASKS {
                out.push_sql(&format!(
                    "{separator}count(*) FILTER (WHERE e.counts AND {undeleted}(e.k{n} & {mask}) <> 0)"
                ));
                separator = ", ";
            }
        }
        out.push_sql("]::int8[] FROM ");
        self.entities.walk(&mut out)
    }
}

built!(WalkBatch<'_> => (BigInt, Nullable<Text>, BigInt, Array<BigInt>));

#[cfg(test)]
pub(super) mod forms {
    use super::*;
    use crate::db::checked::{Form, forms, realm};
    use crate::filter::{AttributePath, Filter};

    /// Applies `form` to every kind of entities.
    pub(in crate::entity) fn each(form: fn(&str, Entities<'_>) -> Vec<Form>) -> Vec<Form> {
        let (realm, types) = (realm(), ["T".to_owned()]);
        let condition = Filter::parse("equals(type, T)").expect("a filter").type_condition();
        let mut all = Vec::new();
        for types in [None, Some(types.as_slice())] {
            for condition in [None, condition.as_ref()] {
                for undeleted in [false, true] {
                    let among = Among { types, undeleted };
                    let said = format!(
                        "types {} condition {} undeleted {undeleted}",
                        types.is_some(),
                        condition.is_some()
                    );
                    all.extend(form(
                        &said,
                        Entities {
                            realm: &realm,
                            among,
                            condition,
                            after: "",
                            limit: 1,
                            shapes: &[],
                        },
                    ));
                }
            }
        }
        all
    }

    forms!(WalkBatch, || each(|said, entities| {
        let filter = Filter::parse("equals(attributes.a, x) and exists(attributes.b.c) and equals(type, T) and lt(attributes.d, 5)")
            .expect("a filter");
        let presences: Vec<Predicate> =
            filter.attributes().iter().map(AttributePath::presence).collect();
        let values: Vec<Predicate> =
            filter.named_values().into_iter().map(|value| value.predicate).collect();
        let shapes: Vec<Predicate> =
            filter.attributes().iter().map(AttributePath::shapes).collect();
        let form = |predicate: Vec<Predicate>, counting, shapes| {
            let questions: Vec<Question> = predicate
                .into_iter()
                .map(|predicate| Question { predicate, counting, undeleted: !counting })
                .collect();
            Form::of(
                said,
                &WalkBatch {
                    entities: Entities { shapes, ..entities },
                    questions: &questions,
                    undeleted_shapes: counting,
                },
            )
        };
        vec![
            form(presences, true, [].as_slice()),
            form(values, false, shapes.as_slice()),
            form(Vec::new(), true, shapes.as_slice()),
        ]
    }));
}
