//! The questions about entities for a filter, and when each question is decided. Pure.

use crate::entity::suspect_value::{Evidence, Suspect};
use crate::entity::unknown::AttributeCheck;
use crate::entity::unknown_value::UnknownValue;
use crate::error::{Code, Error, Violations};
use crate::filter::{AttributePath, Comparison, Mismatch, NamedValue, ShapeCounts};
use crate::limits::requests::VALUE_LOOK_ENTITIES;
use crate::proto::v1;

/// Where so many entities were read, they are taken as typical of the others.
const ENOUGH: i64 = VALUE_LOOK_ENTITIES as i64;
/// An attribute that one in so many entities has, or fewer, may be a slip of the data.
const RARE: i64 = 100;
/// That so many entities have an attribute is not an accident, if it is more than one in [`RARE`].
const COMMON: i64 = 3;
/// So many values of an attribute suffice to decide of which kinds they are.
const VALUES: i64 = 20;
/// The code of what was not checked.
const UNCHECKED: &str = "unchecked_value";

/// How far a check has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scanned {
    /// How many entities were read.
    pub read: i64,
    /// How many of them count.
    pub counted: i64,
    /// Whether those are all that there are.
    pub ended: bool,
}

/// Whether entities have an attribute.
#[derive(Clone, Debug)]
pub struct OfAttribute {
    /// The attribute.
    pub path: AttributePath,
    /// Whether a condition matches who does not have it.
    pub denied: bool,
    /// How many have it.
    pub count: i64,
    /// Whether an index knows of one that has it.
    pub is_indexed: bool,
    /// How far that was counted.
    pub scanned: Scanned,
}

impl OfAttribute {
    /// Whether an entity has it.
    pub fn is_known(&self) -> bool {
        self.count > 0 || self.is_indexed
    }

    /// Takes up that so many more have it.
    pub fn take(&mut self, count: i64, scanned: Scanned) {
        self.count += count;
        self.scanned = scanned;
    }

    /// Whether no more entities need to be read.
    pub fn is_answered(&self) -> bool {
        let is_common = self.count >= COMMON && self.count * RARE > self.scanned.counted;
        self.scanned.ended
            || self.is_known() && (!self.denied || is_common || self.scanned.read >= ENOUGH)
    }

    /// Whether so few have it that those may be slips.
    pub fn is_rare(&self) -> bool {
        self.denied && self.scanned.counted >= RARE && self.count * RARE <= self.scanned.counted
    }

    /// Whether so many have another one that it may be the right one.
    pub fn is_far_rarer_than(&self, other: i64) -> bool {
        other >= 10 * self.count.max(1) && other * 10 >= self.scanned.counted
    }
}

/// Whether entities have a value, or meet a condition.
#[derive(Clone, Debug)]
pub struct OfValue {
    /// The value.
    pub named: NamedValue,
    /// Whether it is searched for to the end.
    pub is_far: bool,
    /// Whether an entity has it.
    pub is_met: bool,
    /// How far it was searched for.
    pub scanned: Scanned,
}

impl OfValue {
    /// Takes up whether it was found.
    pub fn take(&mut self, count: i64, scanned: Scanned) {
        self.is_met |= count > 0;
        self.scanned = scanned;
    }

    /// Whether no more entities need to be read.
    pub fn is_answered(&self) -> bool {
        self.is_met || self.scanned.ended || !self.is_far && self.scanned.read >= ENOUGH
    }
}

/// Which kinds of values entities have at a path.
#[derive(Clone, Debug)]
pub struct OfPath {
    /// The attribute.
    pub attribute: AttributePath,
    /// The comparisons with it.
    pub comparisons: Vec<Comparison>,
    /// Whether entities are read to the end where there are few values.
    pub is_far: bool,
    /// The kinds that were found.
    pub shape_counts: ShapeCounts,
    /// How far it was checked.
    pub scanned: Scanned,
}

impl OfPath {
    /// The paths of these comparisons, each once.
    pub fn of(comparisons: Vec<Comparison>, is_far: bool) -> Vec<OfPath> {
        let mut paths: Vec<OfPath> = Vec::new();
        for comparison in comparisons {
            match paths.iter_mut().find(|path| path.attribute == comparison.attribute) {
                Some(path) => path.comparisons.push(comparison),
                None => paths.push(OfPath {
                    attribute: comparison.attribute.clone(),
                    comparisons: vec![comparison],
                    is_far,
                    shape_counts: ShapeCounts::default(),
                    scanned: Scanned::default(),
                }),
            }
        }
        paths
    }

    /// Takes up what more entities have there.
    pub fn take(&mut self, counts: &[i64], scanned: Scanned) {
        self.shape_counts.add(counts);
        self.scanned = scanned;
    }

    /// Whether no more entities need to be read.
    pub fn is_answered(&self) -> bool {
        let (is_enough, valued) = (self.scanned.read >= ENOUGH, self.shape_counts.valued);
        let is_suspect = self
            .comparisons
            .iter()
            .any(|comparison| !comparison.mismatches(&self.shape_counts).is_empty());
        self.scanned.ended
            || is_enough && (!self.is_far || valued >= RARE || valued > 0 && !is_suspect)
            || !is_suspect && valued >= VALUES
    }

    /// Whether nothing is known of its values.
    pub fn is_unchecked(&self) -> bool {
        !self.scanned.ended && (!self.is_answered() || self.shape_counts.valued == 0)
    }

    /// Whether what most have there shows what was meant instead.
    pub fn asks_for_an_example(&self) -> bool {
        self.comparisons
            .iter()
            .any(|comparison| !comparison.mismatches(&self.shape_counts).is_empty())
    }

    /// The suspect comparisons, with a value that most have there; `is_reported` says of which comparisons, beside what their form shows.
    pub fn suspects(
        &self,
        example: Option<&str>,
        of_type: Option<&str>,
        is_reported: &dyn Fn(&Comparison) -> bool,
    ) -> Vec<Suspect> {
        let evidence =
            if self.scanned.ended { Evidence::Entities } else { Evidence::Some(self.scanned.read) };
        let mut suspects = Vec::new();
        for comparison in &self.comparisons {
            for mismatch in comparison.mismatches(&self.shape_counts) {
                if matches!(mismatch, Mismatch::Form(_)) || is_reported(comparison) {
                    suspects.push(Suspect::of(
                        comparison,
                        &mismatch,
                        &self.shape_counts,
                        (evidence, of_type),
                        example,
                    ));
                }
            }
        }
        suspects
    }
}

/// What was found out about a filter.
#[derive(Clone, Debug, Default)]
pub struct FilterCheck {
    /// Its findings about the attributes of the filter.
    pub attributes: AttributeCheck,
    /// The values that nothing has.
    pub values: Vec<UnknownValue>,
    /// The values that are not compared as they look.
    pub suspects: Vec<Suspect>,
    /// The values and conditions of which not all was checked.
    pub unchecked: Vec<Unchecked>,
}

/// A value or a condition of which not all was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unchecked {
    /// The value, or the condition.
    pub what: String,
    /// The path that it is about.
    pub path: String,
    /// Whether a hard delete must know.
    pub is_needed: bool,
}

impl Unchecked {
    /// The fault, as a sentence without its stop.
    pub fn sentence(&self) -> String {
        format!(
            "not all entities were looked at to find out whether `{}` fits what they have at `{}`",
            self.what, self.path
        )
    }

    /// The same as a warning.
    pub fn warning(&self) -> v1::Warning {
        v1::Warning { code: UNCHECKED.to_owned(), message: self.sentence() }
    }
}

/// The refusal of a task for which there was too little time to check, with the filter at `field` of the request.
pub fn inconclusive(unchecked: &[&Unchecked], field: &str) -> Error {
    let mut places = Violations::new();
    unchecked.iter().for_each(|unchecked| places.add(field, UNCHECKED, unchecked.sentence()));
    let sentences: Vec<String> = unchecked.iter().map(|unchecked| unchecked.sentence()).collect();
    Error::new(Code::SuspectValue, format!("Nothing was started: {}", sentences.join("; ")))
        .with_list("values", unchecked.iter().map(|unchecked| &unchecked.what))
        .with_list("attributes", unchecked.iter().map(|unchecked| &unchecked.path))
        .at(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Filter;

    fn scanned(read: i64, ended: bool) -> Scanned {
        Scanned { read, counted: read, ended }
    }

    #[test]
    fn an_attribute_that_next_to_nobody_has_is_searched_for_until_that_is_known() {
        let path = AttributePath::parse("Naem").unwrap();
        let mut of = OfAttribute {
            path,
            denied: true,
            count: 0,
            is_indexed: false,
            scanned: Scanned::default(),
        };
        of.take(1, scanned(200, false));
        assert!(!of.is_answered() && of.is_rare());
        of.take(0, scanned(ENOUGH, false));
        assert!(
            of.is_answered()
                && of.is_rare()
                && of.is_far_rarer_than(ENOUGH)
                && !of.is_far_rarer_than(9)
        );
        let asked_for =
            OfAttribute { denied: false, count: 1, scanned: scanned(200, false), ..of.clone() };
        assert!(asked_for.is_answered() && !asked_for.is_rare());
        let common = OfAttribute { count: 3, scanned: scanned(200, false), ..of };
        assert!(common.is_answered() && !common.is_rare());
    }

    #[test]
    fn a_value_that_must_be_known_is_searched_for_to_the_end() {
        let [named] = Filter::parse("not equals(attributes.A, x)")
            .unwrap()
            .named_values()
            .try_into()
            .unwrap();
        let mut of = OfValue { named, is_far: true, is_met: false, scanned: Scanned::default() };
        of.take(0, scanned(ENOUGH, false));
        assert!(!of.is_answered() && OfValue { is_far: false, ..of.clone() }.is_answered());
        of.take(2, scanned(2 * ENOUGH, false));
        assert!(of.is_answered() && of.is_met);
    }

    #[test]
    fn what_fits_the_first_values_is_answered_and_what_does_not_is_checked_on() {
        let of =
            |filter: &str| OfPath::of(Filter::parse(filter).unwrap().comparisons(), true).remove(0);
        let mut fits = of("lt(attributes.A, 5)");
        fits.take(&[200, 0, 0, 0, 0, 0, 200, 200], scanned(200, false));
        assert!(fits.is_answered() && !fits.is_unchecked());
        let mut differs = of("lt(attributes.A, ten)");
        differs.take(&[200, 0, 0, 0, 0, 0, 200, 200], scanned(200, false));
        assert!(!differs.is_answered() && differs.is_unchecked());
        differs.take(&[0; 8], scanned(ENOUGH, false));
        assert!(differs.is_answered() && !differs.is_unchecked());
        assert_eq!(differs.suspects(None, None, &|_| true).len(), 1);
    }
}
