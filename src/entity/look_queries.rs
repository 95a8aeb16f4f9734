//! The SQL of the look for what a filter names: its attributes, its values and the kinds of values that it compares with, in one pass along the keys.
//!
//! Nearly every question is answered by the first stride. What is left is looked for to the end where it must be known, or as far as a bound.

use std::time::{Duration, Instant};

use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment};
use diesel::sql_types::{Jsonb, Text};

use crate::db::statement::built;
use crate::db::{Realm, Work};
use crate::entity::index::lookup_queries;
use crate::entity::look::{Looked, OfAttribute, OfPath, OfValue, Reach, Unchecked};
use crate::entity::suspect_value::Suspect;
use crate::entity::unknown::{self, AttributeCheck, Names, Rare, Unknown};
use crate::entity::unknown_queries::{FIRST, names};
use crate::entity::unknown_value::UnknownValue;
use crate::entity::unknown_value_queries::{is_any, look_up, reported};
use crate::entity::walk_queries::{Among, Entities, Question, Went, stride};
use crate::filter::{AttributePath, Comparison, Filter, Held, NamedValue, Predicate};
use crate::limits::requests::{ATTRIBUTE_LOOK, ATTRIBUTE_WALK, VALUE_LOOK};
use crate::proto::object::Struct;

/// How many values, and how many paths, are looked for along the keys.
const MOST: usize = 64;
/// How many times more entities are looked at in each stride than in the one before.
const GROWTH: i64 = 8;

/// What is to be looked for.
pub struct Asking<'a> {
    /// The filter; there may be values without one.
    pub filter: Option<&'a Filter>,
    /// The values that it names, as far as they are looked for.
    pub named: Vec<NamedValue>,
    /// Which of its comparisons are told beside what the form of their values tells.
    pub compared: &'a dyn Fn(&Comparison) -> bool,
    /// The entities that may have its attributes.
    pub among: Among<'a>,
    /// The type that they are of, as the caller knows it.
    pub of_type: Option<&'a str>,
    /// Whether values of what was soft-deleted do not count.
    pub live_values: bool,
    /// Whether the caller may see portfolios, those without members among them.
    pub sees_portfolios: bool,
    /// Whether its attributes are looked for.
    pub with_attributes: bool,
    /// Whether what a hard delete must know is looked for to the end.
    pub is_far: bool,
    /// How long another stride begins.
    pub patience: Duration,
}

/// Looks for all of it. Where there is no entity that counts nothing is unknown.
pub fn look(connection: &mut PgConnection, realm: &Realm, asking: Asking<'_>) -> Work<Looked> {
    let since = Instant::now();
    let mut pass = Pass::begin(connection, realm, &asking)?;
    pass.walk(connection, realm, &asking, since)?;
    pass.walk_for_more(connection, realm, &asking, since)?;
    let attributes = pass.attributes_seen(connection, realm, &asking)?;
    let mut looked =
        Looked { attributes, unchecked: std::mem::take(&mut pass.too_many), ..Looked::default() };
    pass.values_seen(connection, realm, &asking, &mut looked)?;
    pass.suspects_seen(connection, realm, &asking, &mut looked)?;
    Ok(looked)
}

/// The questions of a look.
#[derive(Default)]
struct Pass {
    condition: Option<Predicate>,
    attributes: Vec<OfAttribute>,
    values: Vec<OfValue>,
    paths: Vec<OfPath>,
    unknown: Vec<UnknownValue>,
    /// The values that are looked for behind those, so that no statement asks too much.
    more: Vec<OfValue>,
    too_many: Vec<Unchecked>,
    reach: Reach,
    /// The key before the first stride in which an entity counts.
    first_met: Option<String>,
}

impl Pass {
    fn begin(connection: &mut PgConnection, realm: &Realm, asking: &Asking<'_>) -> Work<Pass> {
        let denied = asking.filter.map(Filter::denied_attributes).unwrap_or_default();
        let attributes = asking
            .filter
            .filter(|_| asking.with_attributes)
            .map(Filter::attributes)
            .unwrap_or_default()
            .into_iter()
            .map(|path| OfAttribute {
                denied: denied.contains(&path),
                path,
                count: 0,
                is_indexed: false,
                reach: Reach::default(),
            });
        let (unknown, open) =
            look_up(connection, realm, asking.named.clone(), asking.sees_portfolios)?;
        let is_needed = |named: &NamedValue| asking.is_far && named.denied;
        let mut values: Vec<OfValue> = open
            .into_iter()
            .map(|named| OfValue {
                is_far: is_needed(&named),
                named,
                is_met: false,
                reach: Reach::default(),
            })
            .collect();
        // What a hard delete must know comes first.
        values.sort_by_key(|value| !value.is_far);
        let mut paths =
            OfPath::of(asking.filter.map(Filter::comparisons).unwrap_or_default(), asking.is_far);
        let more = values.split_off(values.len().min(MOST));
        let too_many = paths
            .split_off(paths.len().min(MOST))
            .iter()
            .flat_map(|path| unchecked_path(path, asking))
            .collect();
        Ok(Pass {
            condition: asking.filter.and_then(Filter::type_condition),
            attributes: attributes.collect(),
            values,
            paths,
            unknown,
            more,
            too_many,
            reach: Reach::default(),
            first_met: None,
        })
    }

    /// Goes along the keys in strides until all is answered, or there was too little time.
    fn walk(
        &mut self,
        connection: &mut PgConnection,
        realm: &Realm,
        asking: &Asking<'_>,
        since: Instant,
    ) -> Work<()> {
        let (mut after, mut limit) = (String::new(), FIRST);
        while !self.is_answered() {
            let begun = Instant::now();
            let (read, last) = self.stride(connection, realm, asking, (&after, limit))?;
            if self.reach.ended {
                break;
            }
            if limit == FIRST {
                self.ask_the_indexes(connection, realm)?;
            }
            after = last.unwrap_or(after);
            let left = asking.patience.saturating_sub(since.elapsed());
            if left.is_zero() && !self.is_answered() {
                ATTRIBUTE_LOOK.reached();
                break;
            }
            // No stride takes much longer than there is time.
            let in_time =
                read as f64 * left.as_secs_f64() / begun.elapsed().as_secs_f64().max(1e-6);
            limit = (limit * GROWTH).min(ATTRIBUTE_WALK).min((in_time as i64).max(FIRST));
        }
        if self.values.iter().any(|value| !value.is_met && !value.reach.ended)
            || self.paths.iter().any(OfPath::is_unchecked)
        {
            VALUE_LOOK.reached();
        }
        Ok(())
    }

    /// Goes along the keys again for the values that were too many for one pass, some at a time, as long as there is time.
    fn walk_for_more(
        &mut self,
        connection: &mut PgConnection,
        realm: &Realm,
        asking: &Asking<'_>,
        since: Instant,
    ) -> Work<()> {
        let mut more = std::mem::take(&mut self.more);
        while !more.is_empty() {
            let rest = more.split_off(more.len().min(MOST));
            let mut pass = Pass { values: std::mem::replace(&mut more, rest), ..Pass::default() };
            if since.elapsed() < asking.patience {
                pass.walk(connection, realm, asking, since)?;
            }
            self.values.append(&mut pass.values);
        }
        Ok(())
    }

    fn is_answered(&self) -> bool {
        self.attributes.iter().all(OfAttribute::is_answered)
            && self.values.iter().all(OfValue::is_answered)
            && self.paths.iter().all(OfPath::is_answered)
    }

    /// One stride: how many entities it read, and the last of them.
    fn stride(
        &mut self,
        connection: &mut PgConnection,
        realm: &Realm,
        asking: &Asking<'_>,
        (after, limit): (&str, i64),
    ) -> Work<(i64, Option<String>)> {
        let mut attributes: Vec<&mut OfAttribute> =
            self.attributes.iter_mut().filter(|of| !of.is_answered()).collect();
        let mut values: Vec<&mut OfValue> =
            self.values.iter_mut().filter(|of| !of.is_answered()).collect();
        let mut paths: Vec<&mut OfPath> =
            self.paths.iter_mut().filter(|of| !of.is_answered()).collect();
        let of_attributes = attributes.iter().map(|of| Question {
            holds: of.path.presence(),
            counting: true,
            live: false,
        });
        let of_values = values.iter().map(|of| Question {
            holds: of.named.holds.clone(),
            counting: false,
            live: asking.live_values,
        });
        let questions: Vec<Question> = of_attributes.chain(of_values).collect();
        let shapes: Vec<Predicate> = paths.iter().map(|of| of.attribute.shapes()).collect();
        let entities = Entities {
            realm,
            among: asking.among,
            condition: self.condition.as_ref(),
            after,
            limit,
            shapes: shapes.as_slice(),
        };
        let Went { read, last, counted, counts } =
            stride(connection, entities, &questions, asking.live_values)?;
        if counted > 0 && self.first_met.is_none() {
            self.first_met = Some(after.to_owned());
        }
        let reach = Reach {
            read: self.reach.read + read,
            counted: self.reach.counted + counted,
            ended: read < limit,
        };
        self.reach = reach;
        let (of_questions, of_shapes) = counts.split_at(questions.len().min(counts.len()));
        let mut of_questions = of_questions.iter().copied();
        attributes
            .iter_mut()
            .for_each(|of| of.take(of_questions.next().unwrap_or_default(), reach));
        values.iter_mut().for_each(|of| of.take(of_questions.next().unwrap_or_default(), reach));
        paths
            .iter_mut()
            .zip(of_shapes.chunks(Held::COUNTS))
            .for_each(|(of, counts)| of.take(counts, reach));
        Ok((read, last))
    }

    /// An index tells at once of an attribute that few have.
    fn ask_the_indexes(&mut self, connection: &mut PgConnection, realm: &Realm) -> Work<()> {
        let open: Vec<AttributePath> =
            self.attributes.iter().filter(|of| !of.is_known()).map(|of| of.path.clone()).collect();
        if !open.is_empty() {
            let indexed = lookup_queries::with_values(connection, realm, &open)?;
            self.attributes
                .iter_mut()
                .for_each(|of| of.is_indexed |= indexed.contains(&of.path.canonical));
        }
        Ok(())
    }

    /// The attributes that no entity has, or next to none where far more have one that is spelt much like it.
    fn attributes_seen(
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
            if !of.is_known() && of.reach.ended {
                seen.unknown.push(unknown(named.nearest(&of.path), None));
            } else if let Some((near, count)) =
                self.far_more_common(connection, realm, asking, (of, &named))?
            {
                let rare = Rare {
                    count: of.count,
                    nearest: count,
                    of: (of.reach.counted, of.reach.ended),
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
            .map(|path| Question { holds: path.presence(), counting: true, live: false })
            .collect();
        let limit = of.reach.read;
        let entities = Entities {
            realm,
            among: asking.among,
            condition: self.condition.as_ref(),
            after: "",
            limit,
            shapes: &[],
        };
        let Went { counts, .. } = stride(connection, entities, &questions, false)?;
        let common = alike.into_iter().zip(counts).find(|(_, count)| of.is_far_rarer_than(*count));
        Ok(common.map(|(path, count)| (path.canonical, count)))
    }

    fn values_seen(
        &mut self,
        connection: &mut PgConnection,
        realm: &Realm,
        asking: &Asking<'_>,
        looked: &mut Looked,
    ) -> Work<()> {
        let open: Vec<&OfValue> = self.values.iter().filter(|of| !of.is_met).collect();
        let known = if open.iter().any(|of| of.named.path == "type") {
            // What was soft-deleted counts, and is not named.
            let among = Among { live: true, ..Among::default() };
            let entities = Entities {
                realm,
                among,
                condition: None,
                after: "",
                limit: self.reach.read,
                shapes: &[],
            };
            Types { entities }.load::<(String,)>(connection)?
        } else {
            Vec::new()
        };
        looked.values = std::mem::take(&mut self.unknown);
        for of in open {
            let value = reported(of.named.clone(), (!of.reach.ended).then_some(of.reach.read));
            let is_type = of.named.path == "type";
            let value = if is_type {
                value.with_nearest(known.iter().map(|(name,)| name.as_str()))
            } else {
                value
            };
            // What was not met on a part of the way may be behind it. Another spelling that was met makes it likely that this one is wrong.
            if of.reach.ended || !value.nearest.is_empty() {
                looked.values.push(value);
            } else {
                looked.unchecked.push(unchecked_value(&of.named, asking));
            }
        }
        let unknown = &looked.attributes.unknown;
        let is_of = |path: &str| unknown.iter().any(|unknown| unknown::is_of(path, unknown));
        looked.values.retain(|value| !is_of(&value.path));
        looked.unchecked.retain(|unchecked| !is_of(&unchecked.path));
        // Where no entity counts nothing is deleted, whatever is excluded.
        if self.reach.ended && self.first_met.is_none() {
            looked.values.retain(|value| !value.denied);
        }
        if !looked.values.is_empty() && !is_any(connection, realm, asking.live_values)? {
            looked.values.clear();
        }
        Ok(())
    }

    fn suspects_seen(
        &self,
        connection: &mut PgConnection,
        realm: &Realm,
        asking: &Asking<'_>,
        looked: &mut Looked,
    ) -> Work<()> {
        let Some(filter) = asking.filter else { return Ok(()) };
        looked.suspects.extend(Suspect::variables(filter));
        for path in &self.paths {
            let example = if path.asks_for_an_example() {
                self.example(connection, realm, asking, path)?
            } else {
                None
            };
            for suspect in path.suspects(example.as_deref(), asking.of_type, asking.compared) {
                let is_variable = looked
                    .suspects
                    .iter()
                    .any(|other| (&other.what, &other.path) == (&suspect.what, &suspect.path));
                if !is_variable {
                    looked.suspects.push(suspect);
                }
            }
            let is_unknown = looked
                .attributes
                .unknown
                .iter()
                .any(|unknown| unknown.attribute == path.attribute.canonical);
            if path.is_unchecked() && !is_unknown {
                looked.unchecked.extend(unchecked_path(path, asking));
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
        let Some(mask) = path.held.most().map(Held::mask) else { return Ok(None) };
        let shapes = [path.attribute.shapes()];
        let limit = path.reach.read;
        let entities = Entities {
            realm,
            among: asking.among,
            condition: self.condition.as_ref(),
            after: "",
            limit,
            shapes: &shapes,
        };
        let found: Option<(Struct,)> =
            (Example { entities, mask }).get_result(connection).optional()?;
        Ok(found.and_then(|(attributes,)| path.attribute.some_value(attributes.view())))
    }
}

fn unchecked_value(named: &NamedValue, asking: &Asking<'_>) -> Unchecked {
    let what = named.condition.as_ref().unwrap_or(&named.value).clone();
    Unchecked { what, path: named.path.clone(), is_needed: asking.is_far && named.denied }
}

fn unchecked_path<'a>(
    path: &'a OfPath,
    asking: &'a Asking<'_>,
) -> impl Iterator<Item = Unchecked> + 'a {
    let reported = path.comparisons.iter().filter(|comparison| (asking.compared)(comparison));
    reported.map(|comparison| Unchecked {
        what: comparison.condition.clone(),
        path: comparison.path.clone(),
        is_needed: asking.is_far,
    })
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

    forms!(Types, || each(|said, entities| vec![Form::of(said, &Types { entities })]));
    forms!(Example, || each(|said, entities| {
        let shapes = [AttributePath::parse("A.B").expect("a path").shapes()];
        vec![Form::of(
            said,
            &Example { entities: Entities { shapes: &shapes, ..entities }, mask: 1 },
        )]
    }));
}
