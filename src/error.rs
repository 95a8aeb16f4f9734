//! Every failure of a call: one enum of codes, and one error that carries a code with the details for the caller.
//!
//! A `tonic::Status` made from an [`Error`] has all of it as `google.rpc` details, so that gRPC callers, and the gateway, which makes
//! problem documents (RFC 9457) of nothing else, read one and the same thing. The cause stays here: it is logged, and never sent.

mod advice;
mod code;
mod cut;
mod fault;
mod form;
mod left;
mod nearest;
mod panic;
mod together;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use tonic_types::{ErrorDetails, StatusExt};

pub use crate::limits::faults::MAX_FIELD_CHARACTERS;
use crate::limits::faults::MAX_LIST_BYTES;

pub use code::{Code, METADATA, MemberKind};
pub use cut::{cut, cut_at};
pub use fault::{FAULT_COUNT, Violation, Violations};
pub use form::Form;
pub use left::{LEFT, Left};
pub use nearest::{nearest, nearest_of};
pub use panic::panic_text;
pub use together::{together, with_others};

/// The `domain` of every `google.rpc.ErrorInfo` (AIP-193).
pub const DOMAIN: &str = "offboard";

/// A failure, with what the caller may know of it and what only the log may.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    code: Code,
    message: String,
    metadata: BTreeMap<&'static str, String>,
    violations: Violations,
    resource: Option<(&'static str, String)>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of everything that can fail with an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure with a message for the caller: a whole sentence, which reveals no causes.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            code,
            message: cut::cut_message(message.into()),
            metadata: BTreeMap::new(),
            violations: Violations::new(),
            resource: None,
            retry_after: None,
            source: None,
        }))
    }

    /// Something unexpected. The cause is for the log.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Error::new(
            Code::Internal,
            "Something unexpected happened; the request id finds it in the service's log.",
        )
        .caused_by(cause)
    }

    /// The service cannot respond for now; the caller may try again after a second.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Error::new(Code::Unavailable, message).retry_after(Duration::from_secs(1))
    }

    /// The resource does not exist, or the caller may not see it. `kind` is its name in the API: `entity`, `portfolio`, ...
    pub fn not_found(kind: &'static str, id: &str) -> Self {
        let id = cut(id);
        let mut error = Error::new(
            Code::NotFound,
            format!("No {} with id `{id}` is visible to this token.", kind.replace('_', " ")),
        )
        .with("resource_type", kind)
        .with("resource_name", &id);
        error.0.resource = Some((kind, id.into_owned()));
        error
    }

    /// The request has these faults.
    pub fn validation(violations: Violations) -> Self {
        let count = violations.count();
        let message = match violations.as_slice() {
            [only] if count == 1 => format!("{}: {}", only.field, only.description),
            _ => format!("The request has {count} faults."),
        };
        let mut error = Error::new(Code::ValidationFailed, message);
        if count > 1 {
            error = error.with(FAULT_COUNT, count);
        }
        error.at(violations)
    }

    /// The request has this one fault.
    pub fn invalid(
        field: impl Into<String>,
        code: &'static str,
        description: impl Into<String>,
    ) -> Self {
        let mut violations = Violations::new();
        violations.add(field, code, description);
        Error::validation(violations)
    }

    /// The filter at this path cannot be used: a message for people, and a description of each of its faults.
    pub fn invalid_filter(
        field: &str,
        message: impl Into<String>,
        described: impl IntoIterator<Item = String>,
    ) -> Self {
        let mut violations = Violations::new();
        for description in described {
            violations.add(field, Code::InvalidFilter.name(), description);
        }
        Error::new(Code::InvalidFilter, message).with("field", field).at(violations)
    }

    /// Adds where in the request the causes lie, if there may be many.
    pub fn at(mut self, places: Violations) -> Self {
        self.0.violations = places;
        self
    }

    /// The same failure with all its faults at this path.
    pub fn moved_to(mut self, field: &str) -> Self {
        let faults = std::mem::take(&mut self.0.violations);
        self.0.violations = faults.map(|fault| Violation { field: field.to_owned(), ..fault });
        self.with("field", field)
    }

    /// The first of several failures of one request, with the faults of all of them; none where there are none.
    pub fn of_all(failures: impl IntoIterator<Item = Error>) -> Option<Error> {
        let mut failures = failures.into_iter();
        let mut first = failures.next()?;
        failures.for_each(|failure| first.0.violations.append(&failure));
        Some(first)
    }

    /// Adds a value to the metadata: an extension member of the code, or a value that is in the message. One that is long is [`cut`].
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.0.metadata.insert(name, cut(&value.to_string()).into_owned());
        self
    }

    /// Adds a text of ours to the metadata that is of no use in part, such as a cursor; its length is for us to know.
    pub fn with_whole(mut self, name: &'static str, text: String) -> Self {
        self.0.metadata.insert(name, text);
        self
    }

    /// Adds a list of values to the metadata, as many as fit, each [`cut`] if it is long; adds nothing for an empty list.
    pub fn with_list<T: ToString>(
        self,
        name: &'static str,
        values: impl IntoIterator<Item = T>,
    ) -> Self {
        let mut values = values.into_iter().peekable();
        if values.peek().is_some() { self.with_choices(name, values) } else { self }
    }

    /// The same of what the caller may choose from: that there is nothing says something too.
    pub fn with_choices<T: ToString>(
        mut self,
        name: &'static str,
        values: impl IntoIterator<Item = T>,
    ) -> Self {
        let mut bytes = 0;
        let values = values.into_iter().map(|value| cut(&value.to_string()).into_owned());
        let values = values.take_while(|value| {
            bytes += value.len();
            bytes <= MAX_LIST_BYTES
        });
        let list = serde_json::Value::Array(values.map(serde_json::Value::String).collect());
        self.0.metadata.insert(name, list.to_string());
        self
    }

    /// Adds when the caller may try again.
    pub fn retry_after(mut self, delay: Duration) -> Self {
        let seconds = delay.as_millis().div_ceil(1000).max(1);
        self.0.retry_after = Some(delay);
        self.with("retry_after", seconds)
    }

    /// Adds the cause, for the log alone.
    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(cause.into());
        self
    }

    /// The same failure for another caller, without its cause: that is logged once.
    pub fn without_cause(&self) -> Self {
        let Inner { code, message, metadata, violations, resource, retry_after, source: _ } =
            &*self.0;
        Error(Box::new(Inner {
            code: *code,
            message: message.clone(),
            metadata: metadata.clone(),
            violations: violations.clone(),
            resource: resource.clone(),
            retry_after: *retry_after,
            source: None,
        }))
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The message for the caller.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// A value of the metadata.
    pub fn member(&self, name: &str) -> Option<&str> {
        self.0.metadata.get(name).map(String::as_str)
    }

    /// The faults of the request.
    pub fn violations(&self) -> &[Violation] {
        self.0.violations.as_slice()
    }

    /// The faults of the request, for another error.
    pub fn into_violations(self) -> Violations {
        self.0.violations
    }

    /// The cause and its causes in one line, for the log.
    pub fn cause_chain(&self) -> Option<String> {
        let mut cause: &dyn std::error::Error = self.0.source.as_deref()?;
        let mut chain = cause.to_string();
        while let Some(next) = cause.source() {
            chain.push_str(": ");
            chain.push_str(&next.to_string());
            cause = next;
        }
        Some(one_line(&chain))
    }
}

/// A text of several lines, such as libpq's, in one.
pub fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code, self.0.message)?;
        for violation in self.violations() {
            write!(f, "; {}: {}", violation.field, violation.description)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|cause| cause as _)
    }
}

impl From<Error> for tonic::Status {
    /// Logs what the caller must not see, and sends the rest as `google.rpc` details.
    fn from(error: Error) -> tonic::Status {
        match (error.code(), error.cause_chain()) {
            (Code::Internal, cause) => {
                tracing::error!(code = %error.code(), cause = cause.as_deref().unwrap_or("none"), "call failed")
            }
            (_, Some(cause)) => tracing::warn!(code = %error.code(), cause, "call failed"),
            (_, None) => {}
        }
        let Inner { code, message, metadata, violations, resource, retry_after, .. } = *error.0;
        let mut metadata: HashMap<String, String> =
            metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        if violations.left_out() > 0 {
            metadata
                .entry(FAULT_COUNT.to_owned())
                .or_insert_with(|| violations.count().to_string());
        }
        let mut details = ErrorDetails::with_error_info(code.reason(), DOMAIN, metadata);
        if !violations.is_empty() {
            let left =
                (violations.left_out() > 0).then(|| Violation::left_out(violations.left_out()));
            let violations =
                violations.into_iter().chain(left).map(|violation| tonic_types::FieldViolation {
                    field: violation.field,
                    description: violation.description,
                    reason: violation.code.to_ascii_uppercase(),
                    localized_message: None,
                });
            details.set_bad_request(violations.collect::<Vec<_>>());
        }
        if let Some((kind, id)) = resource {
            details.set_resource_info(kind, id, "", "");
        }
        if code.grpc() == tonic::Code::FailedPrecondition {
            details.set_precondition_failure(vec![tonic_types::PreconditionViolation::new(
                code.reason(),
                DOMAIN,
                message.clone(),
            )]);
        }
        if retry_after.is_some() {
            details.set_retry_info(retry_after);
        }
        tonic::Status::with_error_details(code.grpc(), message, details)
    }
}

#[cfg(test)]
mod tests;
