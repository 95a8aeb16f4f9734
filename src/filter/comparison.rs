//! The operands of functions of order: numbers, dates or texts. Where no record has such a value at the path the function is true for none,
//! and its negation for all, which is seldom meant: `lt(attributes.Closed, 2015)` if the attribute contains dates.

use super::Filter;
use super::candidates::AttributePath;
use super::function::{FUNCTIONS, Test};
use super::named::visit;
use super::predicate::Predicate;
use super::sql::predicate;
use super::syntax::{Bounds, Call, Node, Scale};

/// A function of order over an attribute.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The condition, as it is written in a filter.
    pub condition: String,
    /// The path of the attribute.
    pub path: String,
    /// Its operand.
    pub with: With,
    /// True if the filter matches those that do not meet it.
    pub denied: bool,
    /// True if an entity has a value at the path that can be compared with these, as a condition on `e`.
    pub comparable: Predicate,
    /// True if it has anything there, be it empty.
    pub present: Predicate,
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

impl Filter {
    /// Its functions of order over attributes, each once.
    pub fn comparisons(&self) -> Vec<Comparison> {
        let mut comparisons: Vec<Comparison> = Vec::new();
        visit(self.root(), false, &mut |call, denied| {
            if let Some(comparison) = Comparison::of(call, denied)
                && !comparisons.iter().any(|other| other.condition == comparison.condition && other.denied == denied)
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
        let value = call.values.first().filter(|_| call.path.is_attribute() && test.is_order())?;
        let with = match Bounds::of(test, &call.values).scale() {
            Scale::Number => With::Numbers(call.values.iter().find_map(|value| year(&value.text))),
            Scale::Moment => With::Dates,
            Scale::Text => With::Texts,
        };
        let tried = |test: Test, values| {
            let function = FUNCTIONS.iter().find(|function| function.test == test)?;
            Some(Node::Call(Call { function, path: call.path.clone(), values, pattern: None }))
        };
        // Comparable values are all on one side of any value.
        let sides = [Test::Less, Test::GreaterOrEqual].map(|test| tried(test, vec![value.clone()]));
        Some(Comparison {
            condition: call.to_string(),
            path: call.path.to_string(),
            with,
            denied,
            comparable: predicate(&Node::Or(sides.into_iter().collect::<Option<_>>()?)),
            present: AttributePath::of_names(call.path.names.clone())?.presence(),
        })
    }
}

/// A number that may be a year, as a date.
fn year(text: &str) -> Option<String> {
    let is_year =
        text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_digit()) && matches!(text.as_bytes(), [b'1', b'9', ..] | [b'2', b'0', ..]);
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
        assert_eq!(reported("lt(attributes.Closed, 2015)"), ["lt(attributes.Closed, '2015') attributes.Closed numbers or 2015-01-01"]);
        assert_eq!(reported("not gte(attributes.Rank, 5)"), ["not gte(attributes.Rank, '5') attributes.Rank numbers"]);
        let ranges = "range(attributes.A.B, '2015-01-01', '2016-01-01') and inSameAttributeValue(range(attributes.C.D, 1, 2))";
        assert_eq!(
            reported(ranges),
            [
                "range(attributes.A.B, '2015-01-01', '2016-01-01') attributes.A.B dates",
                "range(attributes.C.D, '1', '2') attributes.C.D numbers"
            ]
        );
        assert_eq!(reported("gt(attributes.A, 1) or gt(attributes.A, 1)").len(), 1);
        assert_eq!(reported("not lt(attributes.A, b)"), ["not lt(attributes.A, 'b') attributes.A texts"]);
        assert_eq!(reported("gt(attributes.A.count, 1) or gt(createdTime, 0) or gt(attributes, 1) or equals(attributes.A, 1)"), [""; 0]);
    }

    #[test]
    fn what_can_be_compared_lies_on_one_side_of_a_value() {
        let [comparison] = Filter::parse("range(attributes.A, 5, 7)").unwrap().comparisons().try_into().unwrap();
        let sides = Filter::parse("lt(attributes.A, 5) or gte(attributes.A, 5)").unwrap().predicate();
        assert_eq!(comparison.comparable.sql(), sides.sql());
    }
}
