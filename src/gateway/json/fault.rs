//! The faults of a value of a JSON document.

use crate::proto::object;

/// How it is said where a member belongs that was given elsewhere.
pub const BELONGS: &str = "belongs";

/// The faults of a value: a code and a sentence.
#[derive(Debug)]
pub struct Fault {
    /// The code of the violation.
    pub code: &'static str,
    /// A sentence for people.
    pub description: String,
}

impl Fault {
    pub(super) fn new(code: &'static str, description: impl Into<String>) -> Self {
        Fault { code, description: description.into() }
    }

    /// A list is empty that must not be.
    pub fn empty() -> Self {
        Fault::new("required", "must have at least one member")
    }

    /// A whole body is nothing that must be something.
    pub fn no_body(is_list: bool) -> Self {
        if is_list { Fault::empty() } else { Fault::new("required", "must be given") }
    }

    /// A guard is named and is nothing.
    pub fn no_guard() -> Self {
        Fault::new(
            "required",
            "must have a value, or be left out: it guards the request, which would run without the guard",
        )
    }

    /// There is no such member; this one is similar.
    pub(super) fn unknown(meant: Option<&str>) -> Self {
        let hint = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
        Fault::new("unknown_field", format!("is not known here{hint}"))
    }

    /// There is a member of this name elsewhere.
    pub(super) fn misplaced(name: &str, place: &str) -> Self {
        Fault::new("unknown_field", format!("is not known here; `{name}` {BELONGS} {place}"))
    }
}

impl From<object::Fault> for Fault {
    fn from(fault: object::Fault) -> Self {
        Fault::new(fault.code(), fault.description())
    }
}
