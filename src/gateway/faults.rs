//! The faults of a request: those found here while it is read, and those that its service finds in the readable part.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::error::{Code, Error, Form, Left, Violations, together};

/// The faults found in a request. Clones are one and the same.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    form: Form,
    faults: Arc<Mutex<Violations>>,
    line: Arc<OnceLock<Line>>,
    failure: Arc<OnceLock<Status>>,
    unfit: Arc<OnceLock<Unfit>>,
}

/// A body that is of no kind that the route takes.
#[derive(Debug)]
struct Unfit {
    /// The header that says what it takes.
    taken: (HeaderName, HeaderValue),
    refusal: Status,
}

/// The line that a stream ends with, for its faults.
#[derive(Debug)]
struct Line {
    /// Its number in the body, if that has lines.
    number: Option<u64>,
    faults: Violations,
}

impl Faults {
    /// The form in which the service learns of the faults.
    pub fn form(&self) -> Form {
        self.form.clone()
    }

    /// Keeps the faults of a request that continues to its service.
    pub fn keep(&self, faults: &Violations) {
        if !faults.is_empty() {
            self.form.spoil();
            self.faults.lock().unwrap_or_else(PoisonError::into_inner).extend(faults);
        }
    }

    /// Returns whether there are such.
    pub fn has_faults(&self) -> bool {
        !self.faults.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Keeps why there is no message, and passes on as much as its service needs.
    pub fn end(&self, error: Error) -> Status {
        if error.code() == Code::ValidationFailed {
            self.keep(&error.into_violations());
            return Form::refusal().into();
        }
        self.fail(error)
    }

    /// Keeps the faults of a line. The message that is made of it, which is at this position of the stream, continues to the service, and
    /// nothing after it.
    pub fn end_at(&self, position: i64, number: Option<u64>, faults: Violations) {
        let _ = self.line.set(Line { number, faults });
        self.form.end_at(position);
    }

    /// The same of a line that no message can be made of.
    pub fn end_behind(&self, number: Option<u64>, error: Error) -> Status {
        if error.code() == Code::ValidationFailed {
            let _ = self.line.set(Line { number, faults: error.into_violations() });
            return Form::refusal().into();
        }
        self.fail(error)
    }

    /// Keeps what broke off the reading.
    pub fn fail(&self, error: Error) -> Status {
        let has_left = error.code() == Code::Canceled;
        let status = Status::from(error);
        let _ = self.failure.set(status.clone());
        if has_left { Left::status() } else { status }
    }

    /// Keeps that the body cannot be read, for its media type or its coding. Its service is asked all the same, since who calls is reported before.
    pub fn keep_unfit(&self, taken: (HeaderName, HeaderValue), error: Error) {
        self.form.spoil();
        let _ = self.unfit.set(Unfit { taken, refusal: error.into() });
    }

    /// The refusal of such a body, in place of its messages.
    pub fn unfit(&self) -> Option<Status> {
        let refusal = self.unfit.get()?.refusal.clone();
        let _ = self.failure.set(refusal.clone());
        Some(refusal)
    }

    /// The header that says what the route takes instead of such a body.
    pub fn taken_instead(&self) -> Option<(HeaderName, HeaderValue)> {
        self.unfit.get().map(|unfit| unfit.taken.clone())
    }

    /// Returns the failure to send for a request whose response was this one: faults of the request come before the failure of the
    /// service, or of a layer before it.
    pub fn reported(&self, answered: Status, spell: impl Fn(&str) -> String) -> Status {
        let metadata = || answered.metadata().clone().into_headers();
        match self.failure(Some(&answered), spell) {
            Some(failure) => with_metadata(failure, metadata()),
            None => answered,
        }
    }

    /// The failure of a request that was served as if all were well, with this metadata.
    pub fn instead(&self, metadata: &HeaderMap, spell: impl Fn(&str) -> String) -> Option<Status> {
        self.failure(None, spell).map(|failure| with_metadata(failure, metadata.clone()))
    }

    fn failure(&self, answered: Option<&Status>, spell: impl Fn(&str) -> String) -> Option<Status> {
        if let Some(failure) = self.failure.get() {
            return Some(failure.clone());
        }
        // The faults of the head of a stream may be found before its messages are asked for.
        if let Some(unfit) = self.unfit.get().filter(|_| {
            answered.is_some_and(|answered| answered.code() == tonic::Code::InvalidArgument)
        }) {
            return Some(unfit.refusal.clone());
        }
        let of_request =
            together(&self.faults.lock().unwrap_or_else(PoisonError::into_inner), answered, &spell);
        of_request
            .or_else(|| {
                let line = self.line.get()?;
                together(&line.faults, answered, &spell).map(|error| in_line(line.number, error))
            })
            .map(Status::from)
    }
}

/// Names the line that a fault is in.
fn in_line(number: Option<u64>, error: Error) -> Error {
    let Some(number) = number else { return error };
    Error::validation(error.into_violations().map(|mut fault| {
        fault.description.insert_str(0, &format!("line {number}: "));
        fault
    }))
}

fn with_metadata(mut fault: Status, metadata: HeaderMap) -> Status {
    *fault.metadata_mut() = MetadataMap::from_headers(metadata);
    fault
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(field: &str) -> Violations {
        let mut faults = Violations::new();
        faults.add(field, "invalid", "is wrong");
        faults
    }

    fn reported(found: &Faults, answered: Error) -> String {
        found.reported(answered.into(), str::to_owned).message().to_owned()
    }

    #[test]
    fn what_broke_off_comes_before_faults_and_those_of_a_request_before_those_of_a_line() {
        let found = Faults::default();
        assert!(found.instead(&HeaderMap::new(), str::to_owned).is_none() && !found.has_faults());
        found.end_at(3, Some(4), faults("line"));
        assert_eq!(reported(&found, Form::refusal()), "line: line 4: is wrong");
        assert!(
            found.form().ends_at(3) && !found.form().is_spoilt(),
            "what came before the line is done"
        );
        assert_eq!(reported(&found, Error::unavailable("unreachable")), "unreachable");
        found.keep(&faults("head"));
        assert_eq!(reported(&found, Form::refusal()), "head: is wrong");
        assert!(found.has_faults() && found.form().is_spoilt());
        let _ = found.end(Error::new(Code::PayloadTooLarge, "too large"));
        assert_eq!(reported(&found, Form::refusal()), "too large");
    }

    #[test]
    fn a_body_that_cannot_be_read_is_a_fault_among_others() {
        let found = Faults::default();
        found.keep(&faults("If-Match"));
        assert_eq!(
            found.end(Error::invalid("body", "invalid_json", "is not JSON")).message(),
            Form::refusal().message()
        );
        assert_eq!(
            reported(&found, Error::invalid("other", "invalid", "x")),
            "The request has 3 faults."
        );
    }
}
