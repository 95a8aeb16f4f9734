//! Values that a filter names and nothing has: misspelt, as a rule. Pure.

use crate::error::{Code, Error, Violations, nearest_of};
use crate::limits::thousands;
use crate::proto::v1;

/// How many values are listed that may have been meant.
const VALUES_LISTED: usize = 3;
/// The part of the sentence about a value that is for a filter that denies it alone.
pub const EXCLUDES_NOTHING: [&str; 2] = [", so it excludes nothing", ", so it may exclude nothing"];

/// A value that nothing has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownValue {
    /// Where it was searched for: `type`, `uri`, `portfolio` or the path of an attribute.
    pub path: String,
    /// The value.
    pub value: String,
    /// The condition that names it, if it asks for more than this value.
    pub condition: Option<String>,
    /// True if the filter negates it, so as to exclude those that have it.
    pub denied: bool,
    /// The values that may have been meant, the likeliest first.
    pub nearest: Vec<String>,
    /// How many entities were read; none if it is nowhere at all.
    pub entities_read: Option<i64>,
    /// Whether it is a portfolio of which the caller knows by its members alone.
    pub of_members: bool,
}

impl UnknownValue {
    /// Adds what may have been meant, of these.
    pub fn with_nearest<'a>(self, known: impl IntoIterator<Item = &'a str>) -> Self {
        // A type in full is found by its last part.
        let (mut last_parts, mut whole) = (Vec::new(), Vec::new());
        for known in known {
            whole.push(known);
            last_parts.extend(known.rsplit_once('/').map(|(_, last)| (last, known)));
        }
        let wanted = self.value.rsplit_once('/').map_or(self.value.as_str(), |(_, last)| last);
        let mut nearest: Vec<&str> = nearest_of(&self.value, whole, VALUES_LISTED);
        for near in nearest_of(wanted, last_parts.iter().map(|(last, _)| *last), VALUES_LISTED) {
            nearest.extend(
                last_parts.iter().filter(|(last, _)| *last == near).map(|(_, whole)| *whole),
            );
        }
        let mut reported: Vec<String> = Vec::new();
        for near in nearest {
            if reported.len() < VALUES_LISTED && !reported.iter().any(|reported| reported == near) {
                reported.push(near.to_owned());
            }
        }
        UnknownValue { nearest: reported, ..self }
    }

    /// The same for who may not see what there is.
    pub fn without_nearest(self) -> Self {
        UnknownValue { nearest: Vec::new(), ..self }
    }

    /// The fault, as a sentence without its stop.
    pub fn sentence(&self) -> String {
        let UnknownValue { path, value, .. } = self;
        let nobody = self.entities_read.map_or_else(
            || "no entity".to_owned(),
            |count| format!("none of the first {} entities", thousands(count)),
        );
        let what = match (path.as_str(), &self.condition) {
            (_, Some(condition)) => format!("{nobody} meets `{condition}`"),
            ("portfolio", _) if self.of_members => {
                format!("{nobody} is in the portfolio `{value}`")
            }
            ("portfolio", _) => format!("there is no portfolio `{value}`"),
            ("type", _) => format!("{nobody} has the type `{value}`"),
            ("uri", _) => format!("there is no entity `{value}`"),
            (path, _) => format!("{nobody} has `{value}` at `{path}`"),
        };
        let so = match (self.denied, self.entities_read) {
            (false, _) => "",
            (true, None) => EXCLUDES_NOTHING[0],
            (true, Some(_)) => EXCLUDES_NOTHING[1],
        };
        let meant: Vec<_> = self.nearest.iter().map(|value| format!("`{value}`")).collect();
        let hint = if meant.is_empty() {
            String::new()
        } else {
            format!("; did you mean {}?", meant.join(" or "))
        };
        format!("{what}{so}{hint}")
    }

    /// The same as a warning.
    pub fn warning(&self) -> v1::Warning {
        v1::Warning { code: Code::UnknownValue.name().to_owned(), message: self.sentence() }
    }
}

/// The refusal of a task whose filter, at `field` of the request, denies values that nothing has.
pub fn refusal(unknown: &[&UnknownValue], field: &str) -> Error {
    let mut places = Violations::new();
    unknown.iter().for_each(|value| places.add(field, Code::UnknownValue.name(), value.sentence()));
    let sentences: Vec<String> = unknown.iter().map(|value| value.sentence()).collect();
    Error::new(Code::UnknownValue, format!("Nothing was started: {}", sentences.join("; ")))
        .with_list(
            "values",
            unknown.iter().map(|value| value.condition.as_ref().unwrap_or(&value.value)),
        )
        .with_list("paths", unknown.iter().map(|value| &value.path))
        .with_list("nearest", unknown.iter().flat_map(|value| &value.nearest))
        .at(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(path: &str, value: &str, denied: bool) -> UnknownValue {
        let (path, value) = (path.to_owned(), value.to_owned());
        UnknownValue {
            path,
            value,
            condition: None,
            denied,
            nearest: Vec::new(),
            entities_read: None,
            of_members: false,
        }
    }

    #[test]
    fn what_is_nowhere_is_reported_with_what_may_have_been_meant() {
        let types = ["company", "configuration/entityTypes/HCP", "configuration/entityTypes/HCO"];
        let reported = |value: UnknownValue| value.with_nearest(types).sentence();
        assert_eq!(
            reported(unknown("type", "compny", true)),
            "no entity has the type `compny`, so it excludes nothing; did you mean `company`?"
        );
        assert_eq!(
            reported(unknown("type", "HCP", false)),
            "no entity has the type `HCP`; did you mean `configuration/entityTypes/HCP` or `configuration/entityTypes/HCO`?"
        );
        assert_eq!(
            unknown("portfolio", "p", true).sentence(),
            "there is no portfolio `p`, so it excludes nothing"
        );
        let of_members = UnknownValue { of_members: true, ..unknown("portfolio", "p", false) };
        assert_eq!(of_members.sentence(), "no entity is in the portfolio `p`");
        let some = UnknownValue { entities_read: Some(14_600), ..unknown("type", "compny", true) };
        assert_eq!(
            some.sentence(),
            "none of the first 14,600 entities has the type `compny`, so it may exclude nothing"
        );
        assert_eq!(
            unknown("attributes.A", "x", true).sentence(),
            "no entity has `x` at `attributes.A`, so it excludes nothing"
        );
    }
}
