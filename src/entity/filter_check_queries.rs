//! The SQL of the search for what a filter names: its attributes, its values and the kinds of values that it compares with, in one pass along the keys.
//!
//! Nearly every question is decided by the first batch. What is left is searched for to the end where it must be known, or as far as a bound.

mod seen_queries;

use std::time::{Duration, Instant};

use diesel::pg::PgConnection;

use crate::db::{Realm, Work};
use crate::entity::filter_check::{FilterCheck, OfAttribute, OfPath, OfValue, Scanned, Unchecked};
use crate::entity::index::lookup_queries;
use crate::entity::unknown_queries::FIRST;
use crate::entity::unknown_value::UnknownValue;
use crate::entity::unknown_value_queries::look_up;
use crate::entity::walk_queries::{Among, Entities, Question, Went, walk};
use crate::filter::{AttributePath, Comparison, Filter, NamedValue, Predicate, ShapeCounts};
use crate::limits::requests::{ATTRIBUTE_LOOK, ATTRIBUTE_WALK, VALUE_LOOK};

/// How many values, and how many paths, are searched for along the keys.
const MOST: usize = 64;
/// How many times more entities are read in each batch than in the one before.
const GROWTH: i64 = 8;

/// The subjects of a check.
pub struct Asking<'a> {
    /// The filter; there may be values without one.
    pub filter: Option<&'a Filter>,
    /// The values that it names, as far as they are searched for.
    pub named: Vec<NamedValue>,
    /// Which of its comparisons are suspects beside what the form of their values shows.
    pub compared: &'a dyn Fn(&Comparison) -> bool,
    /// The entities that may have its attributes.
    pub among: Among<'a>,
    /// The type that they are of, as the caller knows it.
    pub of_type: Option<&'a str>,
    /// Whether values of what was soft-deleted do not count.
    pub undeleted_values: bool,
    /// Whether the caller may see portfolios, those without members among them.
    pub sees_portfolios: bool,
    /// Whether its attributes are searched for.
    pub with_attributes: bool,
    /// Whether what a hard delete must know is searched for to the end.
    pub is_far: bool,
    /// How long another batch begins.
    pub patience: Duration,
}

impl<'a> Asking<'a> {
    /// The next entities behind a key, of which those count that may have its attributes and meet this condition.
    fn entities<'b>(
        &self,
        realm: &'b Realm,
        condition: Option<&'b Predicate>,
        (after, limit): (&'b str, i64),
        shapes: &'b [Predicate],
    ) -> Entities<'b>
    where
        'a: 'b,
    {
        Entities { realm, among: self.among, condition, after, limit, shapes }
    }
}

/// Searches for all of it. Where there is no entity that counts nothing is unknown.
pub fn check_filter(
    connection: &mut PgConnection,
    realm: &Realm,
    asking: Asking<'_>,
) -> Work<FilterCheck> {
    let since = Instant::now();
    let mut scan = FilterScan::begin(connection, realm, &asking)?;
    scan.walk(connection, realm, &asking, since)?;
    scan.walk_for_more(connection, realm, &asking, since)?;
    let attributes = scan.attributes_seen(connection, realm, &asking)?;
    let mut check = FilterCheck {
        attributes,
        unchecked: std::mem::take(&mut scan.too_many),
        ..FilterCheck::default()
    };
    scan.values_seen(connection, realm, &asking, &mut check)?;
    scan.suspects_seen(connection, realm, &asking, &mut check)?;
    Ok(check)
}

/// The questions of a check, and how far they are answered.
#[derive(Default)]
struct FilterScan {
    condition: Option<Predicate>,
    attributes: Vec<OfAttribute>,
    values: Vec<OfValue>,
    paths: Vec<OfPath>,
    unknown: Vec<UnknownValue>,
    /// The values that are searched for behind those, so that no statement asks too much.
    more: Vec<OfValue>,
    too_many: Vec<Unchecked>,
    scanned: Scanned,
    /// The key before the first batch in which an entity counts.
    first_met: Option<String>,
}

impl FilterScan {
    fn begin(
        connection: &mut PgConnection,
        realm: &Realm,
        asking: &Asking<'_>,
    ) -> Work<FilterScan> {
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
                scanned: Scanned::default(),
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
                scanned: Scanned::default(),
            })
            .collect();
        // The facts that a hard delete must know come first.
        values.sort_by_key(|value| !value.is_far);
        let mut paths =
            OfPath::of(asking.filter.map(Filter::comparisons).unwrap_or_default(), asking.is_far);
        let more = values.split_off(values.len().min(MOST));
        let too_many = paths
            .split_off(paths.len().min(MOST))
            .iter()
            .flat_map(|path| unchecked_path(path, asking))
            .collect();
        Ok(FilterScan {
            condition: asking.filter.and_then(Filter::type_condition),
            attributes: attributes.collect(),
            values,
            paths,
            unknown,
            more,
            too_many,
            scanned: Scanned::default(),
            first_met: None,
        })
    }

    /// Reads along the keys in batches until all is decided, or there was too little time.
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
            let (read, last) = self.batch(connection, realm, asking, (&after, limit))?;
            if self.scanned.ended {
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
            // No batch takes much longer than there is time.
            let in_time =
                read as f64 * left.as_secs_f64() / begun.elapsed().as_secs_f64().max(1e-6);
            limit = (limit * GROWTH).min(ATTRIBUTE_WALK).min((in_time as i64).max(FIRST));
        }
        if self.values.iter().any(|value| !value.is_met && !value.scanned.ended)
            || self.paths.iter().any(OfPath::is_unchecked)
        {
            VALUE_LOOK.reached();
        }
        Ok(())
    }

    /// Reads along the keys again for the values that were too many for one pass, some at a time, as long as there is time.
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
            let mut scan =
                FilterScan { values: std::mem::replace(&mut more, rest), ..FilterScan::default() };
            if since.elapsed() < asking.patience {
                scan.walk(connection, realm, asking, since)?;
            }
            self.values.append(&mut scan.values);
        }
        Ok(())
    }

    fn is_answered(&self) -> bool {
        self.attributes.iter().all(OfAttribute::is_answered)
            && self.values.iter().all(OfValue::is_answered)
            && self.paths.iter().all(OfPath::is_answered)
    }

    /// One batch: how many entities it read, and the last of them.
    fn batch(
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
            predicate: of.path.presence(),
            counting: true,
            undeleted: false,
        });
        let of_values = values.iter().map(|of| Question {
            predicate: of.named.predicate.clone(),
            counting: false,
            undeleted: asking.undeleted_values,
        });
        let questions: Vec<Question> = of_attributes.chain(of_values).collect();
        let shapes: Vec<Predicate> = paths.iter().map(|of| of.attribute.shapes()).collect();
        let entities = asking.entities(realm, self.condition.as_ref(), (after, limit), &shapes);
        let Went { read, last, counted, counts } =
            walk(connection, entities, &questions, asking.undeleted_values)?;
        if counted > 0 && self.first_met.is_none() {
            self.first_met = Some(after.to_owned());
        }
        let scanned = Scanned {
            read: self.scanned.read + read,
            counted: self.scanned.counted + counted,
            ended: read < limit,
        };
        self.scanned = scanned;
        let (of_questions, of_shapes) = counts.split_at(questions.len().min(counts.len()));
        let mut of_questions = of_questions.iter().copied();
        attributes
            .iter_mut()
            .for_each(|of| of.take(of_questions.next().unwrap_or_default(), scanned));
        values.iter_mut().for_each(|of| of.take(of_questions.next().unwrap_or_default(), scanned));
        paths
            .iter_mut()
            .zip(of_shapes.chunks(ShapeCounts::COUNTS))
            .for_each(|(of, counts)| of.take(counts, scanned));
        Ok((read, last))
    }

    /// An index decides at once on an attribute that few have.
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
