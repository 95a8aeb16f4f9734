//! Values of a filter that are probably not compared as they were meant. Pure.

use crate::error::{Code, Error, Violations};
use crate::filter::{Comparison, Filter, Meant, Mismatch, Shape, ShapeCounts, SuspectValue, With};
use crate::limits::thousands;
use crate::proto::v1;

/// How it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// By the form of the value.
    Form,
    /// By what all entities have that count.
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
    /// The same without what entities have, for who may not see that; none if it is the same.
    without_example: Option<Box<Suspect>>,
    /// How it is known.
    pub evidence: Evidence,
}

impl Suspect {
    /// The variables that were not replaced by their values.
    pub fn variables(filter: &Filter) -> impl Iterator<Item = Suspect> {
        filter
            .variables()
            .into_iter()
            .map(|value| Suspect::by_form(value, &ShapeCounts::default(), None))
    }

    /// One that a filter compares as a text though it looks like something else, with the kinds of its values and an example of them.
    fn by_form(
        SuspectValue { path, value, meant, .. }: SuspectValue,
        counts: &ShapeCounts,
        example: Option<&str>,
    ) -> Suspect {
        let other = example.filter(|_| {
            counts.most().is_some_and(|most| !matches!(most, Shape::Date | Shape::Number))
        });
        let as_text = format!("`{value}` is compared with `{path}` as a text");
        let (sentence, meant) = match meant {
            Meant::Number(number) => {
                (format!("{as_text}; a number is written as `{number}`"), Some(number))
            }
            Meant::Date(_) if other.is_some() => (as_text, None),
            Meant::Date(Some(date)) => {
                (format!("{as_text}; a date is written as `{date}`"), Some(date))
            }
            Meant::Date(None) => (format!("{as_text}; a date is written as `YYYY-MM-DD`"), None),
            Meant::NoNumber => (format!("{as_text}; no number is written so"), None),
            Meant::OtherEnd => (format!("{as_text}; the two ends are of two kinds"), None),
            Meant::Version => (
                format!(
                    "{as_text}, character by character, so `10.0.0` lies before `2.0.0`: versions have no order here"
                ),
                None,
            ),
            Meant::Variable => (
                format!("`{value}` looks like a variable that was not replaced by its value"),
                None,
            ),
        };
        let hint = other
            .map(|example| format!("; entities have texts such as `{example}` there"))
            .unwrap_or_default();
        Suspect {
            what: value,
            path,
            meant,
            sentence: format!("{sentence}{hint}"),
            without_example: None,
            evidence: Evidence::Form,
        }
    }

    /// The fault of a comparison by what the entities that count have at its path, of which most have an `example`. They are those `of_type`.
    pub fn of(
        comparison: &Comparison,
        mismatch: &Mismatch,
        counts: &ShapeCounts,
        evidence: (Evidence, Option<&str>),
        example: Option<&str>,
    ) -> Suspect {
        let without_example = example.map(|_| {
            Box::new(Suspect::with_evidence(comparison, mismatch, counts, evidence, None))
        });
        Suspect {
            without_example,
            ..Suspect::with_evidence(comparison, mismatch, counts, evidence, example)
        }
    }

    /// The same without a value that entities have.
    pub fn without_example(self) -> Suspect {
        self.without_example.map_or(Suspect { without_example: None, ..self }, |other| *other)
    }

    fn with_evidence(
        comparison: &Comparison,
        mismatch: &Mismatch,
        counts: &ShapeCounts,
        (evidence, of_type): (Evidence, Option<&str>),
        example: Option<&str>,
    ) -> Suspect {
        let Comparison { condition, path, with, denied, .. } = comparison;
        let kind = match with {
            With::Numbers(_) => "number",
            With::Dates => "date",
            With::Texts => "text",
        };
        let most = counts.most();
        let meant = match with {
            With::Numbers(date) if matches!(most, None | Some(Shape::Date)) => date.clone(),
            _ => None,
        };
        let advice = meant.as_ref().map(|date| format!("; a date is written as `{date}`"));
        let texts = example
            .filter(|_| !matches!(most, None | Some(Shape::Number | Shape::Date | Shape::Boolean)));
        let hint = advice
            .or_else(|| texts.map(|text| format!("; they have texts such as `{text}` there")))
            .unwrap_or_default();
        let entities = of_type
            .map_or_else(|| "entities".to_owned(), |name| format!("entities of the type `{name}`"));
        let (what, sentence) = match mismatch {
            Mismatch::Form(value) => return Suspect::by_form(value.clone(), counts, example),
            Mismatch::None => {
                let (nobody, never) = match (evidence, of_type) {
                    (Evidence::Some(count), _) => (
                        format!("none of the first {} {entities}", thousands(count)),
                        "may be true for none",
                    ),
                    (_, Some(name)) => {
                        (format!("no entity of the type `{name}`"), "is true for none")
                    }
                    (_, None) => ("no entity".to_owned(), "is true for none"),
                };
                let so = match (denied, evidence) {
                    (false, _) => "",
                    (true, Evidence::Some(_)) => ", and may exclude nothing",
                    (true, _) => ", and excludes nothing",
                };
                (
                    condition,
                    format!(
                        "{nobody} has a {kind} at `{path}`, so `{condition}` {never}{so}{hint}"
                    ),
                )
            }
            Mismatch::Few(count) => {
                let first = if let Evidence::Some(read) = evidence {
                    format!(", among the first {}", thousands(read))
                } else {
                    String::new()
                };
                let so = if *denied { ", and excludes none of the others" } else { "" };
                let (count, all) = (thousands(*count), thousands(counts.valued));
                let sentence = format!(
                    "{count} of {all} have a {kind} at `{path}`{first}, so `{condition}` is true for none of the others{so}{hint}"
                );
                (condition, sentence)
            }
            Mismatch::OtherKind(value) => {
                let others = match (most, example) {
                    (Some(Shape::Month | Shape::Version | Shape::Text), Some(example)) => {
                        format!("only texts such as `{example}`")
                    }
                    (most, _) => format!("only {}", most.map_or("other values", Shape::plural)),
                };
                (
                    value,
                    format!(
                        "`{value}` is compared with `{path}` as a text, character by character, and {entities} have {others} there"
                    ),
                )
            }
        };
        Suspect {
            what: what.clone(),
            path: path.clone(),
            meant,
            sentence,
            without_example: None,
            evidence,
        }
    }

    /// The same as a warning.
    pub fn warning(&self) -> v1::Warning {
        v1::Warning { code: Code::SuspectValue.name().to_owned(), message: self.sentence.clone() }
    }
}

/// The refusal of a task whose filter, at `field` of the request, has such values.
pub fn refusal(suspects: &[&Suspect], field: &str) -> Error {
    let mut places = Violations::new();
    suspects
        .iter()
        .for_each(|suspect| places.add(field, Code::SuspectValue.name(), suspect.sentence.clone()));
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

    /// The mismatches where so many entities have numbers, dates, months, versions, booleans and texts.
    fn suspects(
        filter: &str,
        shapes: [i64; 6],
        evidence: Evidence,
        example: Option<&str>,
    ) -> Vec<(String, Option<String>)> {
        let [comparison] = Filter::parse(filter).unwrap().comparisons().try_into().unwrap();
        let valued = shapes.iter().sum();
        let counts = ShapeCounts { shapes, valued, present: valued.max(1) };
        let suspect =
            |mismatch| Suspect::of(&comparison, mismatch, &counts, (evidence, None), example);
        comparison
            .mismatches(&counts)
            .iter()
            .map(suspect)
            .map(|suspect| (suspect.sentence, suspect.meant))
            .collect()
    }

    #[test]
    fn what_has_nothing_to_be_compared_with_is_reported() {
        for (filter, shapes, evidence, example, sentence) in [
            (
                "lt(attributes.Closed, 2015)",
                [0, 3, 0, 0, 0, 0],
                Evidence::Entities,
                None,
                "no entity has a number at `attributes.Closed`, so `lt(attributes.Closed, '2015')` is true for none; a date is written as `2015-01-01`",
            ),
            (
                "not gt(attributes.Staff, '2015-01-01')",
                [3, 0, 0, 0, 0, 0],
                Evidence::Entities,
                Some("5"),
                "no entity has a date at `attributes.Staff`, so `gt(attributes.Staff, '2015-01-01')` is true for none, and excludes nothing",
            ),
            (
                "not gt(attributes.Staff, 5)",
                [0; 6],
                Evidence::Some(14_600),
                None,
                "none of the first 14,600 entities has a number at `attributes.Staff`, so `gt(attributes.Staff, '5')` may be true for none, and may exclude nothing",
            ),
            (
                "lt(attributes.Released, '2019-01-01')",
                [0, 0, 9, 0, 0, 0],
                Evidence::Entities,
                Some("2018-09"),
                "no entity has a date at `attributes.Released`, so `lt(attributes.Released, '2019-01-01')` is true for none; they have texts such as `2018-09` there",
            ),
            (
                "not gt(attributes.Version, 2)",
                [18, 0, 0, 1_982, 0, 0],
                Evidence::Entities,
                Some("1.2.3"),
                "18 of 2,000 have a number at `attributes.Version`, so `gt(attributes.Version, '2')` is true for none of the others, and excludes none of the others; they have texts such as `1.2.3` there",
            ),
            (
                "gt(attributes.Rank, '$MIN')",
                [1_500, 0, 0, 0, 0, 0],
                Evidence::Entities,
                Some("7"),
                "`$MIN` is compared with `attributes.Rank` as a text, character by character, and entities have only numbers there",
            ),
            (
                "gt(attributes.Released, '2019/07')",
                [0, 0, 9, 0, 0, 0],
                Evidence::Entities,
                Some("2018-09"),
                "`2019/07` is compared with `attributes.Released` as a text; entities have texts such as `2018-09` there",
            ),
        ] {
            let [(said, _)] = suspects(filter, shapes, evidence, example).try_into().unwrap();
            assert_eq!(said, sentence, "{filter}");
        }
        assert_eq!(
            suspects("lt(attributes.A, '2023/07')", [0, 4, 0, 0, 0, 0], Evidence::Entities, None)
                [0]
            .1
            .as_deref(),
            Some("2023-07-01")
        );
        assert_eq!(
            suspects(
                "lt(attributes.A, 2015)",
                [0, 0, 4, 0, 0, 0],
                Evidence::Entities,
                Some("2015-01")
            )[0]
            .1,
            None
        );
    }

    #[test]
    fn a_refusal_reports_each() {
        let filter = Filter::parse("equals(attributes.A, '$A') or equals(type, '<b>')").unwrap();
        let suspects: Vec<Suspect> = Suspect::variables(&filter).collect();
        let error = refusal(&suspects.iter().collect::<Vec<_>>(), "spec.objects.filter");
        assert_eq!((error.code(), error.violations().len()), (Code::SuspectValue, 2));
        assert_eq!(
            (error.member("meant"), error.member("values")),
            (None, Some(r#"["$A","<b>"]"#))
        );
        assert!(
            error
                .message()
                .contains("`$A` looks like a variable that was not replaced by its value"),
            "{error}"
        );
    }
}
