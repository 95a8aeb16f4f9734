//! The attributes, values and kinds of values that a check has found, with the SQL that it executes after its batches.

use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment};
use diesel::sql_types::{Jsonb, Text};

use super::{Asking, FilterScan, unchecked_path};
use crate::db::statement::built;
use crate::db::{Realm, Work};
use crate::entity::filter_check::{FilterCheck, OfAttribute, OfPath, OfValue, Unchecked};
use crate::entity::suspect_value::Suspect;
use crate::entity::unknown::{self, AttributeCheck, Names, Rare, Unknown};
use crate::entity::unknown_queries::names;
use crate::entity::unknown_value_queries::{is_any, unknown_value};
use crate::entity::walk_queries::{Among, Entities, Question, Went, walk};
use crate::filter::{NamedValue, ShapeCounts};
use crate::proto::object::Struct;

impl FilterScan {
    /// The attributes that no entity has, or next to none where far more have one that is spelt much like it.
    pub(super) fn attributes_seen(
        &self,
        connection: &mut PgConnection,
        realm: &Realm,
        asking: &Asking<'_>,
    ) -> Work<AttributeCheck> {
        let Some(first_met) = &self.first_met else {
            let unchecked = self
                .attributes
                .iter()
                .filter(|of| !of.is_answered())
                .map(|of| of.path.canonical.clone());
            return Ok(AttributeCheck {
                unchecked: unchecked.collect(),
                ..AttributeCheck::default()
            });
        };
        let mut seen = AttributeCheck::default();
        let mut known: Option<Names> = None;
        for of in self.attributes.iter().filter(|of| of.is_rare() || !of.is_known()) {
            let named = match known.take() {
                Some(known) => known,
                None => {
                    names(connection, realm, (asking.among, self.condition.as_ref()), first_met)?
                }
            };
            let unknown = |nearest, rare| Unknown {
                attribute: of.path.canonical.clone(),
                nearest,
                of_type: asking.of_type.map(str::to_owned),
                rare,
            };
            if !of.is_known() && of.scanned.ended {
                seen.unknown.push(unknown(named.nearest(&of.path), None));
            } else if let Some((near, count)) =
                self.far_more_common(connection, realm, asking, (of, &named))?
            {
                let rare = Rare {
                    count: of.count,
                    nearest: count,
                    of: (of.scanned.counted, of.scanned.ended),
                };
                seen.unknown.push(unknown(vec![near], Some(rare)));
            } else if !of.is_known() {
                seen.unchecked.push(of.path.canonical.clone());
            }
            known = Some(named);
        }
        Ok(seen)
    }

    /// The attribute that is spelt much like this one and that far more have, and how many.
    fn far_more_common(
        &self,
        connection: &mut PgConnection,
        realm: &Realm,
        asking: &Asking<'_>,
        (of, names): (&OfAttribute, &Names),
    ) -> Work<Option<(String, i64)>> {
        let alike = names.alike(&of.path);
        if !of.is_rare() || alike.is_empty() {
            return Ok(None);
        }
        let questions: Vec<Question> = alike
            .iter()
            .map(|path| Question { predicate: path.presence(), counting: true, undeleted: false })
            .collect();
        let limit = of.scanned.read;
        let entities = asking.entities(realm, self.condition.as_ref(), ("", limit), &[]);
        let Went { counts, .. } = walk(connection, entities, &questions, false)?;
        let common = alike.into_iter().zip(counts).find(|(_, count)| of.is_far_rarer_than(*count));
        Ok(common.map(|(path, count)| (path.canonical, count)))
    }

    /// The values that no entity has, and those that were not searched for to the end.
    pub(super) fn values_seen(
        &mut self,
        connection: &mut PgConnection,
        realm: &Realm,
        asking: &Asking<'_>,
        check: &mut FilterCheck,
    ) -> Work<()> {
        let open: Vec<&OfValue> = self.values.iter().filter(|of| !of.is_met).collect();
        let known = if open.iter().any(|of| of.named.path == "type") {
            // Soft-deleted entities count, and are not named.
            let among = Among { undeleted: true, ..Among::default() };
            let entities = Entities {
                realm,
                among,
                condition: None,
                after: "",
                limit: self.scanned.read,
                shapes: &[],
            };
            Types { entities }.load::<(String,)>(connection)?
        } else {
            Vec::new()
        };
        check.values = std::mem::take(&mut self.unknown);
        for of in open {
            let value =
                unknown_value(of.named.clone(), (!of.scanned.ended).then_some(of.scanned.read));
            let is_type = of.named.path == "type";
            let value = if is_type {
                value.with_nearest(known.iter().map(|(name,)| name.as_str()))
            } else {
                value
            };
            // A value that was not found on a part of the way may be behind it. Another spelling that was found makes it likely that this one is wrong.
            if of.scanned.ended || !value.nearest.is_empty() {
                check.values.push(value);
            } else {
                check.unchecked.push(unchecked_value(&of.named, asking));
            }
        }
        let unknown = &check.attributes.unknown;
        let is_of = |path: &str| unknown.iter().any(|unknown| unknown::is_of(path, unknown));
        check.values.retain(|value| !is_of(&value.path));
        check.unchecked.retain(|unchecked| !is_of(&unchecked.path));
        // Where no entity counts nothing is deleted, whatever is excluded.
        if self.scanned.ended && self.first_met.is_none() {
            check.values.retain(|value| !value.denied);
        }
        if !check.values.is_empty() && !is_any(connection, realm, asking.undeleted_values)? {
            check.values.clear();
        }
        Ok(())
    }

    /// The comparisons with values of another kind than most entities have there.
    pub(super) fn suspects_seen(
        &self,
        connection: &mut PgConnection,
        realm: &Realm,
        asking: &Asking<'_>,
        check: &mut FilterCheck,
    ) -> Work<()> {
        let Some(filter) = asking.filter else { return Ok(()) };
        check.suspects.extend(Suspect::variables(filter));
        for path in &self.paths {
            let example = if path.asks_for_an_example() {
                self.example(connection, realm, asking, path)?
            } else {
                None
            };
            for suspect in path.suspects(example.as_deref(), asking.of_type, asking.compared) {
                let is_variable = check
                    .suspects
                    .iter()
                    .any(|other| (&other.what, &other.path) == (&suspect.what, &suspect.path));
                if !is_variable {
                    check.suspects.push(suspect);
                }
            }
            let is_unknown = check
                .attributes
                .unknown
                .iter()
                .any(|unknown| unknown.attribute == path.attribute.canonical);
            if path.is_unchecked() && !is_unknown {
                check.unchecked.extend(unchecked_path(path, asking));
            }
        }
        Ok(())
    }

    /// A value of the kind that most have at a path.
    fn example(
        &self,
        connection: &mut PgConnection,
        realm: &Realm,
        asking: &Asking<'_>,
        path: &OfPath,
    ) -> Work<Option<String>> {
        let Some(mask) = path.shape_counts.most().map(ShapeCounts::mask) else { return Ok(None) };
        let shapes = [path.attribute.shapes()];
        let limit = path.scanned.read;
        let entities = asking.entities(realm, self.condition.as_ref(), ("", limit), &shapes);
        let found: Option<(Struct,)> =
            (Example { entities, mask }).get_result(connection).optional()?;
        Ok(found.and_then(|(attributes,)| path.attribute.some_value(attributes.view())))
    }
}

fn unchecked_value(named: &NamedValue, asking: &Asking<'_>) -> Unchecked {
    let what = named.condition.as_ref().unwrap_or(&named.value).clone();
    Unchecked { what, path: named.path.clone(), is_needed: asking.is_far && named.denied }
}

/// The attributes of the first entity that has a value of this kind.
struct Example<'a> {
    entities: Entities<'a>,
    mask: i32,
}

impl QueryFragment<Pg> for Example<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        out.push_sql("SELECT e.attributes FROM ");
        self.entities.walk(&mut out)?;
        out.push_sql(" WHERE e.counts AND (e.k0 & ");
        out.push_bind_param::<diesel::sql_types::Integer, _>(&self.mask)?;
        out.push_sql(") <> 0 ORDER BY e.id LIMIT 1");
        Ok(())
    }
}

built!(Example<'_> => (Jsonb,));

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
    use crate::filter::AttributePath;

    forms!(Types, || each(|said, entities| vec![Form::of(said, &Types { entities })]));
    forms!(Example, || each(|said, entities| {
        let shapes = [AttributePath::parse("A.B").expect("a path").shapes()];
        vec![Form::of(
            said,
            &Example { entities: Entities { shapes: &shapes, ..entities }, mask: 1 },
        )]
    }));
}
