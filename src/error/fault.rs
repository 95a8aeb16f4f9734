//! The faults of a request, as many as a response reports.

use std::borrow::Cow;

use super::{Error, Result, cut_at};
use crate::limits::faults::{
    FAULTS, MAX_DESCRIPTION_CHARACTERS, MAX_FAULT_BYTES, MAX_FAULTS, MAX_FIELD_CHARACTERS,
};

/// One fault of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where: a path of proto names from the top of the request message, such as `entity.dependents[2].kind`. The gateway turns it into the
    /// spelling of its contract.
    pub field: String,
    /// The kind of fault, in lower snake case: `required`, `invalid`, `too_long`, `unknown_field`, ...
    pub code: Cow<'static, str>,
    /// A sentence for people.
    pub description: String,
}

/// Collects the faults of a request, so that the caller learns of all of them at once, as long as they are not too many or too long: past a
/// number and past a sum of bytes they are only counted.
#[derive(Debug, Default, Clone)]
pub struct Violations {
    reported: Vec<Violation>,
    /// How many bytes the reported faults take in a response.
    bytes: usize,
    left: usize,
}

impl Violations {
    /// None so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fault.
    pub fn add(
        &mut self,
        field: impl Into<String>,
        code: impl Into<Cow<'static, str>>,
        description: impl Into<String>,
    ) {
        // After one fault was left out, all further ones are.
        if self.left > 0 || self.reported.len() >= MAX_FAULTS {
            return self.leave(1);
        }
        let violation = Violation {
            field: cut_at(field.into(), MAX_FIELD_CHARACTERS),
            code: code.into(),
            description: cut_at(description.into(), MAX_DESCRIPTION_CHARACTERS),
        };
        let bytes = self.bytes + violation.reported_bytes();
        if bytes > MAX_FAULT_BYTES {
            return self.leave(1);
        }
        self.bytes = bytes;
        self.reported.push(violation);
    }

    /// Adds the faults of an error.
    pub fn append(&mut self, error: &Error) {
        self.extend(&error.0.violations);
    }

    /// Adds all of these.
    pub fn extend(&mut self, others: &Violations) {
        for violation in &others.reported {
            self.add(
                violation.field.as_str(),
                violation.code.clone(),
                violation.description.as_str(),
            );
        }
        self.leave(others.left);
    }

    /// The same faults, each as `change` makes it.
    pub fn map(self, mut change: impl FnMut(Violation) -> Violation) -> Violations {
        let mut changed = Violations::new();
        for Violation { field, code, description } in self.reported.into_iter().map(&mut change) {
            changed.add(field, code, description);
        }
        changed.left += self.left;
        changed
    }

    /// Keeps the reported faults for which this is true; the number of unreported ones stays.
    pub fn filter(self, is_kept: impl Fn(&Violation) -> bool) -> Violations {
        let mut kept = Violations::new();
        for Violation { field, code, description } in self.reported.into_iter().filter(is_kept) {
            kept.add(field, code, description);
        }
        kept.left += self.left;
        kept
    }

    /// Returns whether there is no fault.
    pub fn is_empty(&self) -> bool {
        self.reported.is_empty()
    }

    /// The reported faults so far.
    pub fn as_slice(&self) -> &[Violation] {
        &self.reported
    }

    /// Fails with `validation_failed` if there was any fault.
    pub fn check(self) -> Result<(), Error> {
        if self.is_empty() { Ok(()) } else { Err(Error::validation(self)) }
    }

    /// True once further faults are only counted.
    pub fn is_full(&self) -> bool {
        self.reported.len() >= MAX_FAULTS || self.bytes >= MAX_FAULT_BYTES
    }

    fn leave(&mut self, faults: usize) {
        if self.left == 0 && faults > 0 {
            FAULTS.reached();
        }
        self.left += faults;
    }

    /// Fails with all faults, those of a part that was read apart among them. Where it alone is wrong it fails by its own code.
    pub fn check_with<T>(mut self, part: Result<T>) -> Result<T> {
        match part {
            Ok(part) => self.check().map(|()| part),
            Err(error)
                if self.is_empty() || error.code().grpc() != tonic::Code::InvalidArgument =>
            {
                Err(error)
            }
            Err(error) => {
                self.append(&error);
                Err(Error::validation(self))
            }
        }
    }

    /// How many faults are not reported.
    pub fn left_out(&self) -> usize {
        self.left
    }

    /// How many faults there were, reported or not.
    pub fn count(&self) -> usize {
        self.reported.len() + self.left
    }
}

/// The bytes around the values of a fault in a problem document.
const FAULT_FRAME: &str = r#"{"field":"","code":"","message":": ","description":""},"#;

/// How many bytes a text takes in JSON.
fn json_bytes(text: &str) -> usize {
    let escaped = text.bytes().map(|byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        ..0x20 => 6,
        _ => 1,
    });
    escaped.sum()
}

impl IntoIterator for Violations {
    type Item = Violation;
    type IntoIter = std::vec::IntoIter<Violation>;

    /// The reported faults.
    fn into_iter(self) -> Self::IntoIter {
        self.reported.into_iter()
    }
}

impl FromIterator<Violation> for Violations {
    fn from_iter<I: IntoIterator<Item = Violation>>(violations: I) -> Self {
        let mut collected = Violations::new();
        for Violation { field, code, description } in violations {
            collected.add(field, code, description);
        }
        collected
    }
}

/// The metadata with the number of faults, reported or not.
pub const FAULT_COUNT: &str = "fault_count";

impl Violation {
    /// How many bytes it takes in a problem document, which has the path and the description twice, each once alone and once in a sentence.
    fn reported_bytes(&self) -> usize {
        2 * (json_bytes(&self.field) + json_bytes(&self.description))
            + self.code.len()
            + FAULT_FRAME.len()
    }

    /// The entry in place of faults that are not reported.
    pub fn left_out(count: usize) -> Violation {
        let description =
            format!("there are {count} more faults, which do not fit into the response");
        Violation { field: String::new(), code: "too_many".into(), description }
    }
}
