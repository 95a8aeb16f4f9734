//! Attributes of a filter that no entity has: misspelt, as a rule. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::error::{Code, Error, Violations, nearest_of};
use crate::filter::{AttributePath, NamedValue};
use crate::limits::requests::{ATTRIBUTE_LOOK_MILLIS, ATTRIBUTE_NAMES, SUGGESTED_NAMES};
use crate::proto::object::{Object, View};
use crate::proto::v1;

/// How long a list looks for the attributes of its filter.
pub const LIST_PATIENCE: Duration = Duration::from_millis(ATTRIBUTE_LOOK_MILLIS.1);
/// How many names are reported that may have been meant.
const REPORTED: usize = 3;
/// How deep names are looked for.
const DEEPEST: usize = 8;

/// An attribute that no entity has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Its path, as it is written behind `attributes.`.
    pub attribute: String,
    /// The attributes that may have been meant, the likeliest first.
    pub nearest: Vec<String>,
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
        let spelt: Vec<String> =
            self.0.iter().filter_map(|names| AttributePath::of_names(names.clone())).map(|path| path.canonical).collect();
        let like = nearest_of(&unknown.canonical, spelt.iter().map(String::as_str), REPORTED).into_iter().map(str::to_owned);
        let elsewhere = self.0.iter().filter(|names| match (names.last(), unknown.names.last()) {
            (Some(one), Some(other)) => one.to_lowercase() == other.to_lowercase(),
            _ => false,
        });
        let elsewhere = elsewhere.filter_map(|names| AttributePath::of_names(names.clone())).map(|path| path.canonical);
        let mut reported = Vec::new();
        for name in like.chain(elsewhere) {
            if !reported.contains(&name) && reported.len() < REPORTED {
                reported.push(name);
            }
        }
        reported
    }
}

impl Unknown {
    /// The same for callers that may not read entities.
    pub fn without_names(self) -> Unknown {
        Unknown { nearest: Vec::new(), ..self }
    }

    /// The fault, as a sentence without its stop.
    pub fn sentence(&self) -> String {
        let meant: Vec<_> = self.nearest.iter().map(|name| format!("`{name}`")).collect();
        let hint = if meant.is_empty() { String::new() } else { format!("; did you mean {}?", meant.join(" or ")) };
        format!("no entity has the attribute `{}`{hint}", self.attribute)
    }
}

/// Those of the values that are not of an attribute that no entity has: of that its name is reported, and its values say no more.
pub fn values_of_known(mut named: Vec<NamedValue>, unknown: &[Unknown]) -> Vec<NamedValue> {
    let is_of = |value: &NamedValue, unknown: &Unknown| value.path.strip_prefix("attributes.") == Some(unknown.attribute.as_str());
    named.retain(|value| !unknown.iter().any(|unknown| is_of(value, unknown)));
    named
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
        .at(places)
}

/// The same, as warnings of a dry run or a list.
pub fn warnings(seen: AttributeCheck) -> Vec<v1::Warning> {
    let unknown =
        seen.unknown.iter().map(|attribute| v1::Warning { code: Code::UnknownAttribute.name().to_owned(), message: attribute.sentence() });
    let unchecked = seen.unchecked.iter().map(|attribute| v1::Warning {
        code: "unchecked_attribute".to_owned(),
        message: format!("there was no time to find out whether any entity has the attribute `{attribute}`"),
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
        add(&mut names, json!({"Name": "x", "Registry": "pypi", "Address": [{"City": "Bonn"}, [{"Zip": 1}]]}));
        add(&mut names, json!({"Nome": null, "First name": 1}));
        assert_eq!(names.nearest(&unknown(&["Naem"])), ["Name", "Nome"]);
        assert_eq!(names.nearest(&unknown(&["registy"])), ["Registry"]);
        assert_eq!(names.nearest(&unknown(&["Address", "Ctiy"]))[0], "Address.City");
        assert_eq!(names.nearest(&unknown(&["zip"])), ["Address.Zip"]);
        assert_eq!(names.nearest(&unknown(&["first name"])), ["'First name'"]);
        assert!(names.nearest(&unknown(&["Frobnication"])).is_empty());
    }

    #[test]
    fn every_unknown_attribute_is_reported() {
        let reported = |attribute: &str, nearest: &[&str]| Unknown {
            attribute: attribute.to_owned(),
            nearest: nearest.iter().map(|name| (*name).to_owned()).collect(),
        };
        let error = refusal(&[reported("Naem", &["Name"]), reported("Xyz", &[])], "spec.objects.filter");
        assert_eq!((error.violations().len(), error.member("nearest")), (2, Some(r#"["Name"]"#)));
        assert!(error.message().contains("no entity has the attribute `Naem`; did you mean `Name`?"), "{error}");
        let seen = AttributeCheck { unknown: vec![reported("Naem", &["Name"])], unchecked: vec!["Rare".to_owned()] };
        assert_eq!(
            warnings(seen).iter().map(|warning| warning.code.as_str()).collect::<Vec<_>>(),
            ["unknown_attribute", "unchecked_attribute"]
        );
    }

    #[test]
    fn names_are_bounded() {
        let mut names = Names::default();
        let wide: serde_json::Map<_, _> = (0..SUGGESTED_NAMES + 10).map(|n| (format!("a{n}"), json!(1))).collect();
        add(&mut names, wide.into());
        assert_eq!(names.0.len(), SUGGESTED_NAMES);
    }
}
