//! Attributes of a filter that no entity has: misspelt, as a rule. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::error::{Code, Error, Violations, nearest, nearest_of};
use crate::filter::{AttributePath, ENTITY};
use crate::limits::requests::{ATTRIBUTE_LOOK_MILLIS, ATTRIBUTE_NAMES, SUGGESTED_NAMES};
use crate::limits::thousands;
use crate::proto::object::{Object, View};
use crate::proto::v1;

/// How long a list searches for the attributes of its filter.
pub const LIST_PATIENCE: Duration = Duration::from_millis(ATTRIBUTE_LOOK_MILLIS.1);
/// How many names are listed that may have been meant.
const NAMES_LISTED: usize = 3;
/// What a filter writes behind the name of a list to count its elements.
const COUNT: &str = "count";
/// How deep names are searched for.
const DEEPEST: usize = 8;

/// An attribute that no entity has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Its path, as it is written behind `attributes.`.
    pub attribute: String,
    /// The attributes that may have been meant, the likeliest first.
    pub nearest: Vec<String>,
    /// The type of which no entity has it, if one is meant.
    pub of_type: Option<String>,
    /// How few have it, if any has.
    pub rare: Option<Rare>,
}

/// How few entities have an attribute, and how many the one that may have been meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rare {
    /// How many have it.
    pub count: i64,
    /// How many have the nearest one.
    pub nearest: i64,
    /// How many were read, and whether those are all.
    pub of: (i64, bool),
}

/// The result of the search for the attributes of a filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttributeCheck {
    /// No entity has these.
    pub unknown: Vec<Unknown>,
    /// There was no time to find out about these.
    pub unchecked: Vec<String>,
}

/// The attributes that some entities have.
#[derive(Debug, Default)]
pub struct Names(BTreeSet<Vec<String>>);

impl Names {
    /// Adds those of an entity.
    pub fn add(&mut self, attributes: Object<'_>) {
        self.walk(View::Object(attributes), &mut Vec::new());
    }

    fn walk(&mut self, value: View<'_>, path: &mut Vec<String>) {
        match value {
            View::Object(object) if path.len() < DEEPEST => {
                for (name, value) in object.members() {
                    path.push(name.to_owned());
                    if self.0.len() < SUGGESTED_NAMES {
                        self.0.insert(path.clone());
                        if self.0.len() == SUGGESTED_NAMES {
                            ATTRIBUTE_NAMES.reached();
                        }
                    }
                    self.walk(value, path);
                    path.pop();
                }
            }
            View::List(list) => list.elements().for_each(|element| self.walk(element, path)),
            _ => {}
        }
    }

    /// The attributes that a misspelt one may mean: those with a similar name, and those with the same name elsewhere.
    pub fn nearest(&self, unknown: &AttributePath) -> Vec<String> {
        let elsewhere = self.0.iter().filter(|names| match (names.last(), unknown.names.last()) {
            (Some(one), Some(other)) => one.to_lowercase() == other.to_lowercase(),
            _ => false,
        });
        let elsewhere = elsewhere.filter_map(|names| AttributePath::of_names(names.clone()));
        let alike = self.alike(unknown).into_iter().chain(elsewhere).map(|path| path.canonical);
        let mut reported = Vec::new();
        for path in self.count_of(unknown).into_iter().chain(alike) {
            if !reported.contains(&path) && reported.len() < NAMES_LISTED {
                reported.push(path);
            }
        }
        reported
    }

    /// The count of an attribute that is there, where its name is misspelt.
    fn count_of(&self, unknown: &AttributePath) -> Option<String> {
        let (last, counted) = unknown.names.split_last()?;
        let is_meant = nearest(last, [COUNT]).is_some() && self.0.contains(counted);
        let counted = is_meant.then(|| AttributePath::of_names(counted.to_vec()))??;
        Some(format!("{}.{COUNT}", counted.canonical))
    }

    /// The names that are spelt much like an attribute, as a whole, or by the first of its names that is not there.
    pub fn alike(&self, unknown: &AttributePath) -> Vec<AttributePath> {
        let names = &unknown.names;
        let spelt: Vec<String> = self.0.iter().map(|names| names.join(".")).collect();
        let as_a_whole =
            nearest_of(&names.join("."), spelt.iter().map(String::as_str), NAMES_LISTED);
        let as_a_whole = as_a_whole
            .into_iter()
            .filter_map(|near| self.0.iter().find(|names| names.join(".") == near))
            .cloned();
        let there =
            (0..names.len()).rev().filter(|known| *known == 0 || self.0.contains(&names[..*known]));
        // A name that exists up to this step may be a slip as well.
        let by_step = there
            .map(|known| self.alike_by_step(names, known))
            .find(|alike| !alike.is_empty())
            .unwrap_or_default();
        as_a_whole
            .chain(by_step)
            .filter(|path| path != names)
            .filter_map(AttributePath::of_names)
            .collect()
    }

    /// The same by one of the names, before which so many are there.
    fn alike_by_step(&self, names: &[String], known: usize) -> Vec<Vec<String>> {
        // An invisible character, such as a blank, is as good as not there.
        let plain = |name: &str| name.chars().filter(|c| c.is_alphanumeric()).collect::<String>();
        let siblings = self.0.iter().filter(|path| {
            path.len() == known + 1
                && path[..known] == names[..known]
                && path[known] != names[known]
        });
        let siblings: Vec<(String, &str)> =
            siblings.map(|path| (plain(&path[known]), path[known].as_str())).collect();
        let near = nearest_of(
            &plain(&names[known]),
            siblings.iter().map(|(plain, _)| plain.as_str()),
            NAMES_LISTED,
        );
        let steps = near
            .into_iter()
            .flat_map(|near| siblings.iter().filter(move |(plain, _)| plain == near));
        let path = |(_, name): &(String, &str)| {
            let step: Vec<String> =
                names[..known].iter().cloned().chain([(*name).to_owned()]).collect();
            let whole: Vec<String> = step.iter().chain(&names[known + 1..]).cloned().collect();
            // Behind the step the names may be misspelt as well.
            if self.0.contains(&whole) { whole } else { step }
        };
        steps.map(path).collect()
    }
}

impl Unknown {
    /// The same for callers that may not read entities.
    pub fn without_names(self) -> Unknown {
        Unknown { nearest: Vec::new(), ..self }
    }

    /// The fault, as a sentence without its stop.
    pub fn sentence(&self) -> String {
        let Unknown { attribute, nearest, of_type, rare } = self;
        let meant: Vec<_> = nearest.iter().map(|name| format!("`{name}`")).collect();
        let property =
            ENTITY.properties.iter().find(|own| own.name().eq_ignore_ascii_case(attribute));
        let hint = match (property, meant.is_empty()) {
            (Some(property), _) => {
                format!("; the property `{}` is written without `attributes.`", property.name())
            }
            (None, true) => String::new(),
            (None, false) => format!("; did you mean {}?", meant.join(" or ")),
        };
        let of_type =
            of_type.as_ref().map(|name| format!(" of the type `{name}`")).unwrap_or_default();
        let Some(Rare { count, nearest, of: (of, is_all) }) = rare else {
            return format!("no entity{of_type} has the attribute `{attribute}`{hint}");
        };
        let (count, of, others) = (thousands(*count), thousands(*of), thousands(*nearest));
        let first = if *is_all { "" } else { "the first " };
        let others =
            meant.first().map(|name| format!(", and {others} have {name}")).unwrap_or_default();
        format!(
            "only {count} of {first}{of} entities{of_type} have the attribute `{attribute}`{others}{hint}"
        )
    }
}

/// Whether a path is that of an attribute that no entity has: its name is listed, and its values say no more.
pub fn is_of(path: &str, unknown: &Unknown) -> bool {
    path.strip_prefix("attributes.") == Some(unknown.attribute.as_str())
}

/// The refusal of a task whose filter, at `field` of the request, names attributes that no entity has.
pub fn refusal(unknown: &[Unknown], field: &str) -> Error {
    let mut places = Violations::new();
    for attribute in unknown {
        places.add(field, "unknown_attribute", attribute.sentence());
    }
    let sentences: Vec<_> = unknown.iter().map(Unknown::sentence).collect();
    let message = format!("Nothing was started: {}", sentences.join("; "));
    Error::new(Code::UnknownAttribute, message)
        .with_list("attributes", unknown.iter().map(|attribute| &attribute.attribute))
        .with_list("nearest", unknown.iter().flat_map(|attribute| &attribute.nearest))
        .with_list(
            "types",
            unknown
                .iter()
                .filter_map(|attribute| attribute.of_type.as_ref())
                .collect::<BTreeSet<_>>(),
        )
        .at(places)
}

/// The same, as warnings of a dry run or a list.
pub fn warnings(seen: AttributeCheck) -> Vec<v1::Warning> {
    let unknown = seen.unknown.iter().map(|attribute| v1::Warning {
        code: Code::UnknownAttribute.name().to_owned(),
        message: attribute.sentence(),
    });
    let unchecked = seen.unchecked.iter().map(|attribute| v1::Warning {
        code: "unchecked_attribute".to_owned(),
        message: format!(
            "there was no time to find out whether any entity has the attribute `{attribute}`"
        ),
    });
    unknown.chain(unchecked).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::proto::object::Struct;

    fn add(names: &mut Names, attributes: serde_json::Value) {
        names.add(Struct::from_json(&attributes).view());
    }

    fn unknown(names: &[&str]) -> AttributePath {
        AttributePath::of_names(names.iter().map(|name| (*name).to_owned()).collect()).unwrap()
    }

    #[test]
    fn what_was_meant_is_spelt_alike_or_is_elsewhere() {
        let mut names = Names::default();
        add(
            &mut names,
            json!({"Name": "x", "Registry": "pypi", "Address": [{"City": "Bonn"}, [{"Zip": 1}]]}),
        );
        add(&mut names, json!({"Nome": null, "First name": 1}));
        assert_eq!(names.nearest(&unknown(&["Naem"])), ["Name", "Nome"]);
        assert_eq!(names.nearest(&unknown(&["registy"])), ["Registry"]);
        assert_eq!(names.nearest(&unknown(&["Address", "Ctiy"]))[0], "Address.City");
        assert_eq!(names.nearest(&unknown(&["zip"])), ["Address.Zip"]);
        assert_eq!(names.nearest(&unknown(&["first name"])), ["'First name'"]);
        assert!(names.nearest(&unknown(&["Frobnication"])).is_empty());
        for count in ["Count", "COUNT", "cuont"] {
            assert_eq!(names.nearest(&unknown(&["Address", count]))[0], "Address.count");
        }
        for path in
            [&["Naem", "City"][..], &["Name "], &[" Name"], &["Na me"], &["Name."], &["\u{a0}Name"]]
        {
            assert_eq!(names.nearest(&unknown(path))[0], "Name", "{path:?}");
        }
        assert_eq!(names.nearest(&unknown(&["Adress", "City"]))[0], "Address.City");
        assert_eq!(names.nearest(&unknown(&["Adress", "Town"])), ["Address"]);
        assert_eq!(names.nearest(&unknown(&["Address", "City "]))[0], "Address.City");
    }

    #[test]
    fn every_unknown_attribute_is_reported() {
        let reported = |attribute: &str, nearest: &[&str]| Unknown {
            attribute: attribute.to_owned(),
            nearest: nearest.iter().map(|name| (*name).to_owned()).collect(),
            of_type: None,
            rare: None,
        };
        let error =
            refusal(&[reported("Naem", &["Name"]), reported("Xyz", &[])], "spec.objects.filter");
        assert_eq!((error.violations().len(), error.member("nearest")), (2, Some(r#"["Name"]"#)));
        assert!(
            error.message().contains("no entity has the attribute `Naem`; did you mean `Name`?"),
            "{error}"
        );
        let of_type = Unknown { of_type: Some("company".to_owned()), ..reported("Naem", &[]) };
        assert_eq!(of_type.sentence(), "no entity of the type `company` has the attribute `Naem`");
        assert_eq!(
            reported("Type", &["Typ"]).sentence(),
            "no entity has the attribute `Type`; the property `type` is written without `attributes.`"
        );
        let rare = Unknown {
            rare: Some(Rare { count: 1, nearest: 2_000, of: (2_000, true) }),
            ..reported("Naem", &["Name"])
        };
        assert_eq!(
            rare.sentence(),
            "only 1 of 2,000 entities have the attribute `Naem`, and 2,000 have `Name`; did you mean `Name`?"
        );
        let seen = AttributeCheck {
            unknown: vec![reported("Naem", &["Name"])],
            unchecked: vec!["Rare".to_owned()],
        };
        assert_eq!(
            warnings(seen).iter().map(|warning| warning.code.as_str()).collect::<Vec<_>>(),
            ["unknown_attribute", "unchecked_attribute"]
        );
    }

    #[test]
    fn names_are_bounded() {
        let mut names = Names::default();
        let wide: serde_json::Map<_, _> =
            (0..SUGGESTED_NAMES + 10).map(|n| (format!("a{n}"), json!(1))).collect();
        add(&mut names, wide.into());
        assert_eq!(names.0.len(), SUGGESTED_NAMES);
    }
}
