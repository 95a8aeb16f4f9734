//! The values that functions of order compare with: numbers, dates or texts. Where the attribute has others, the function matches otherwise than it was meant:
//! `lt(attributes.Closed, 2015)` where the attribute has dates, or `gt(attributes.Rank, ten)` where it has numbers.

use super::Filter;
use super::candidates::AttributePath;
use super::named::visit;
use super::shape::{Shape, ShapeCounts};
use super::suspect::{SuspectValue, by_form};
use super::syntax::{Bounds, Call, Scale};

/// A function of order over an attribute.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The condition, as it is written in a filter.
    pub condition: String,
    /// The path of the attribute.
    pub path: String,
    /// The attribute.
    pub attribute: AttributePath,
    /// The values that it is compared with.
    pub with: With,
    /// True if the filter matches those that do not meet it.
    pub denied: bool,
    /// Its values, and of which kind each is.
    pub values: Vec<(String, Shape)>,
    /// Those of the values that are written as neither a number nor a date, and look as if something of the kind was meant.
    pub by_form: Vec<SuspectValue>,
}

/// The operand of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum With {
    /// Numbers. One that looks like a year is written so as a date.
    Numbers(Option<String>),
    /// Dates.
    Dates,
    /// Texts, which numbers and booleans are compared as too.
    Texts,
}

/// The fault of a comparison, by the values of the attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// It looks like something that it is not written as.
    Form(SuspectValue),
    /// Nobody has a value that can be compared.
    None,
    /// So few have one.
    Few(i64),
    /// This value is of another kind than those of the attribute.
    OtherKind(String),
}

impl Filter {
    /// Its functions of order over attributes, each once.
    pub fn comparisons(&self) -> Vec<Comparison> {
        let mut comparisons: Vec<Comparison> = Vec::new();
        visit(self.root(), false, &mut |call, denied| {
            if let Some(comparison) = Comparison::of(call, denied)
                && !comparisons
                    .iter()
                    .any(|other| other.condition == comparison.condition && other.denied == denied)
            {
                comparisons.push(comparison);
            }
        });
        comparisons
    }
}

impl Comparison {
    fn of(call: &Call, denied: bool) -> Option<Comparison> {
        let test = call.function.test;
        if !call.path.is_attribute() || !test.is_order() {
            return None;
        }
        let with = match Bounds::of(test, &call.values).scale() {
            Scale::Number => With::Numbers(call.values.iter().find_map(|value| year(&value.text))),
            Scale::Moment => With::Dates,
            Scale::Text => With::Texts,
        };
        Some(Comparison {
            condition: call.to_string(),
            path: call.path.to_string(),
            attribute: AttributePath::of(&call.path),
            by_form: if with == With::Texts { by_form(call) } else { Vec::new() },
            with,
            denied,
            values: call
                .values
                .iter()
                .map(|value| (value.text.clone(), Shape::of(value)))
                .collect(),
        })
    }

    /// Its faults where the attribute has these values.
    pub fn mismatches(&self, counts: &ShapeCounts) -> Vec<Mismatch> {
        let shape = match self.with {
            With::Numbers(_) => Shape::Number,
            With::Dates => Shape::Date,
            With::Texts => return self.mismatches_of_texts(counts),
        };
        if counts.count(shape) == 0 {
            return if counts.present > 0 { vec![Mismatch::None] } else { Vec::new() };
        }
        if counts.is_rare(shape) { vec![Mismatch::Few(counts.count(shape))] } else { Vec::new() }
    }

    fn mismatches_of_texts(&self, counts: &ShapeCounts) -> Vec<Mismatch> {
        // A month is compared with months as it is meant.
        let is_right = |suspect: &&SuspectValue| suspect.is_month && counts.has(Shape::Month);
        let by_form: Vec<Mismatch> = self
            .by_form
            .iter()
            .filter(|suspect| !is_right(suspect))
            .cloned()
            .map(Mismatch::Form)
            .collect();
        if !by_form.is_empty() {
            return by_form;
        }
        if counts.valued == 0 {
            return if counts.present > 0 { vec![Mismatch::None] } else { Vec::new() };
        }
        // Texts are compared with every text.
        if counts.has(Shape::Text) {
            return Vec::new();
        }
        let others = self.values.iter().filter(|(_, shape)| !counts.has(*shape));
        others.map(|(value, _)| Mismatch::OtherKind(value.clone())).collect()
    }
}

/// A number that may be a year, as a date.
fn year(text: &str) -> Option<String> {
    let is_year = text.len() == 4
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && matches!(text.as_bytes(), [b'1', b'9', ..] | [b'2', b'0', ..]);
    is_year.then(|| format!("{text}-01-01"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(filter: &str) -> Vec<String> {
        let shown = |Comparison { condition, path, with, denied, .. }| {
            let with = match with {
                With::Numbers(None) => "numbers".to_owned(),
                With::Numbers(Some(date)) => format!("numbers or {date}"),
                With::Dates => "dates".to_owned(),
                With::Texts => "texts".to_owned(),
            };
            format!("{}{condition} {path} {with}", if denied { "not " } else { "" })
        };
        Filter::parse(filter).unwrap().comparisons().into_iter().map(shown).collect()
    }

    #[test]
    fn functions_of_order_over_attributes_are_reported_with_what_they_compare() {
        assert_eq!(
            reported("lt(attributes.Closed, 2015)"),
            ["lt(attributes.Closed, '2015') attributes.Closed numbers or 2015-01-01"]
        );
        assert_eq!(
            reported("not gte(attributes.Rank, 5)"),
            ["not gte(attributes.Rank, '5') attributes.Rank numbers"]
        );
        let ranges = "range(attributes.A.B, '2015-01-01', '2016-01-01') and inSameAttributeValue(range(attributes.C.D, 1, 2))";
        assert_eq!(
            reported(ranges),
            [
                "range(attributes.A.B, '2015-01-01', '2016-01-01') attributes.A.B dates",
                "range(attributes.C.D, '1', '2') attributes.C.D numbers"
            ]
        );
        assert_eq!(reported("gt(attributes.A, 1) or gt(attributes.A, 1)").len(), 1);
        assert_eq!(
            reported("not lt(attributes.A, b)"),
            ["not lt(attributes.A, 'b') attributes.A texts"]
        );
        assert_eq!(
            reported(
                "gt(attributes.A.count, 1) or gt(createdTime, 0) or gt(attributes, 1) or equals(attributes.A, 1)"
            ),
            [""; 0]
        );
    }

    /// The mismatches where so many entities have numbers, dates, months, versions, booleans and texts.
    fn mismatches(filter: &str, shapes: [i64; 6]) -> Vec<Mismatch> {
        let valued = shapes.iter().sum();
        let [comparison] = Filter::parse(filter).unwrap().comparisons().try_into().unwrap();
        comparison.mismatches(&ShapeCounts { shapes, valued, present: valued })
    }

    #[test]
    fn a_text_is_suspect_where_the_attribute_holds_only_numbers() {
        let numbers = [1_500, 0, 0, 0, 0, 3];
        for value in
            ["ten", "1OO", "l00", "zzz", "-", "1/2", "0x10", "(5000)", "5000-6000", "...", "true"]
        {
            assert_eq!(
                mismatches(&format!("lt(attributes.Rank, '{value}')"), numbers),
                [Mismatch::OtherKind(value.to_owned())],
                "{value}"
            );
        }
        assert_eq!(
            mismatches("range(attributes.Rank, 1, max)", numbers),
            [Mismatch::OtherKind("max".to_owned())]
        );
        assert!(mismatches("lt(attributes.Rank, ten)", [1_500, 0, 0, 0, 0, 20]).is_empty());
        assert!(mismatches("lt(attributes.Rank, 10)", numbers).is_empty());
    }

    #[test]
    fn what_is_no_month_is_suspect_where_the_attribute_holds_only_months() {
        let months = [0, 0, 1_499, 0, 0, 0];
        for value in ["2019-13", "2019-Q1"] {
            assert_eq!(
                mismatches(&format!("lt(attributes.A, '{value}')"), months),
                [Mismatch::OtherKind(value.to_owned())],
                "{value}"
            );
        }
        assert!(mismatches("lt(attributes.A, '2019-01')", months).is_empty());
        assert!(mismatches("range(attributes.A, '2019-01', '2020-01')", months).is_empty());
        let reported = mismatches("lt(attributes.A, '2019-01')", [0, 5, 0, 0, 0, 0]);
        assert!(matches!(reported.as_slice(), [Mismatch::Form(_)]), "{reported:?}");
        assert_eq!(mismatches("lt(attributes.A, '2019-01-01')", months), [Mismatch::None]);
    }

    #[test]
    fn a_number_is_suspect_where_most_values_are_none() {
        assert_eq!(
            mismatches("not gt(attributes.Version, 2)", [18, 0, 0, 1_982, 0, 0]),
            [Mismatch::Few(18)]
        );
        assert!(mismatches("gt(attributes.A, 2)", [50, 0, 0, 0, 0, 50]).is_empty());
        assert_eq!(mismatches("gt(attributes.A, 2)", [0, 0, 0, 0, 0, 5]), [Mismatch::None]);
        assert!(mismatches("gt(attributes.A, 2)", [0; 6]).is_empty());
    }
}
