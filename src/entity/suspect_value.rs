//! Values of a filter that are probably not compared as they were meant. Pure.

use crate::error::{Code, Error, Violations};
use crate::filter::{Comparison, Filter, Meant, SuspectValue, With};
use crate::proto::v1;

/// How it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// By the form of the value.
    Form,
    /// No entity that counts has a value that can be compared with it.
    Entities,
    /// So many were read, and there are more.
    Some(i64),
}

/// A value that is probably not compared as it was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The value, or the whole condition.
    pub what: String,
    /// The path of the attribute that it is compared with.
    pub path: String,
    /// The right way to write the probable meaning, if that is clear.
    pub meant: Option<String>,
    /// The fault, as a sentence without its stop.
    pub sentence: String,
    /// How it is known.
    pub evidence: Evidence,
}

impl Suspect {
    /// Those that a filter compares as texts though they look like something else.
    pub fn by_form(filter: &Filter) -> impl Iterator<Item = Suspect> {
        filter.suspect_values().into_iter().map(|SuspectValue { path, value, meant }| {
            let (hint, meant) = match meant {
                Meant::Number(number) => (format!("a number is written as `{number}`"), Some(number)),
                Meant::Date => ("a date is written as `2015-01-01`".to_owned(), Some("2015-01-01".to_owned())),
                Meant::NoNumber => ("no number is written so".to_owned(), None),
                Meant::OtherEnd => ("both ends of a range must be numbers, or both dates".to_owned(), None),
            };
            let sentence = format!("`{value}` is compared with `{path}` as a text; {hint}");
            Suspect { what: value, path, meant, sentence, evidence: Evidence::Form }
        })
    }

    /// A comparison that no entity has a value for.
    pub fn by_entities(comparison: &Comparison, evidence: Evidence) -> Suspect {
        let Comparison { condition, path, with, denied, .. } = comparison;
        let (nobody, never) = match evidence {
            Evidence::Some(count) => (format!("none of the first {count} entities"), "may be true for none"),
            _ => ("no entity".to_owned(), "is true for none"),
        };
        let kind = match with {
            With::Numbers(_) => "number",
            With::Dates => "date",
            With::Texts => "text",
        };
        let so = match (denied, evidence) {
            (false, _) => "",
            (true, Evidence::Some(_)) => ", and may exclude nothing",
            (true, _) => ", and excludes nothing",
        };
        let meant = match with {
            With::Numbers(date) => date.clone(),
            With::Dates | With::Texts => None,
        };
        let hint = meant.as_ref().map(|date| format!("; a date is written as `{date}`")).unwrap_or_default();
        let sentence = format!("{nobody} has a {kind} at `{path}`, so `{condition}` {never}{so}{hint}");
        Suspect { what: condition.clone(), path: path.clone(), meant, sentence, evidence }
    }

    /// The same as a warning.
    pub fn warning(&self) -> v1::Warning {
        v1::Warning { code: Code::SuspectValue.name().to_owned(), message: self.sentence.clone() }
    }

    /// Returns whether it is beyond doubt that it is compared so.
    pub fn is_sure(&self) -> bool {
        !matches!(self.evidence, Evidence::Some(_))
    }
}

/// The refusal of a task whose filter, at `field` of the request, has such values.
pub fn refusal(suspects: &[&Suspect], field: &str) -> Error {
    let mut places = Violations::new();
    suspects.iter().for_each(|suspect| places.add(field, Code::SuspectValue.name(), suspect.sentence.clone()));
    let sentences: Vec<&str> = suspects.iter().map(|suspect| suspect.sentence.as_str()).collect();
    Error::new(Code::SuspectValue, format!("Nothing was started: {}", sentences.join("; ")))
        .with_list("values", suspects.iter().map(|suspect| &suspect.what))
        .with_list("attributes", suspects.iter().map(|suspect| &suspect.path))
        .with_list("meant", suspects.iter().filter_map(|suspect| suspect.meant.as_ref()))
        .at(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_nothing_to_be_compared_with_is_reported() {
        let reported = |filter: &str, evidence| {
            let [comparison] = Filter::parse(filter).unwrap().comparisons().try_into().unwrap();
            Suspect::by_entities(&comparison, evidence).sentence
        };
        assert_eq!(
            reported("lt(attributes.Closed, 2015)", Evidence::Entities),
            "no entity has a number at `attributes.Closed`, so `lt(attributes.Closed, '2015')` is true for none; a date is written as `2015-01-01`"
        );
        assert_eq!(
            reported("not gt(attributes.Staff, '2015-01-01')", Evidence::Entities),
            "no entity has a date at `attributes.Staff`, so `gt(attributes.Staff, '2015-01-01')` is true for none, and excludes nothing"
        );
        assert_eq!(
            reported("not gt(attributes.Staff, 5)", Evidence::Some(14_600)),
            "none of the first 14600 entities has a number at `attributes.Staff`, so `gt(attributes.Staff, '5')` may be true for none, and may exclude nothing"
        );
    }

    #[test]
    fn a_refusal_reports_each() {
        let filter = Filter::parse("gt(attributes.A, '1,000') or lt(attributes.B, '2015/01/01')").unwrap();
        let suspects: Vec<Suspect> = Suspect::by_form(&filter).collect();
        let error = refusal(&suspects.iter().collect::<Vec<_>>(), "spec.objects.filter");
        assert_eq!((error.code(), error.violations().len()), (Code::SuspectValue, 2));
        assert_eq!(error.member("meant"), Some(r#"["1000","2015-01-01"]"#));
        assert!(error.message().contains("`1,000` is compared with `attributes.A` as a text; a number is written as `1000`"), "{error}");
    }
}
