//! Problem documents (RFC 9457), made from a `tonic::Status` and its `google.rpc` details alone.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use crate::error::{Code, DOMAIN, MemberKind};

/// The media type of problem documents.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// An `internal` failure reveals nothing.
const INTERNAL: &str =
    "Something unexpected happened; the request id finds it in the service's log.";

/// How the names of a request are spelled for its caller.
pub trait Spelling {
    /// The path of a fault.
    fn field(&self, path: &str) -> String;
    /// A name in the description of the fault at this path.
    fn name(&self, fault: &str, name: &str) -> String;
}

impl<F: Fn(&str) -> String> Spelling for F {
    fn field(&self, path: &str) -> String {
        self(path)
    }

    fn name(&self, _: &str, name: &str) -> String {
        self(name)
    }
}

/// A failure in the form of HTTP.
#[derive(Debug)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers that belong to it.
    pub headers: HeaderMap,
    /// The members of the document.
    pub document: Map<String, Value>,
}

impl Problem {
    /// Makes the problem of a status. `base` is the prefix of the paths of the error reference, and is empty without a public URL;
    /// `spelling` is that of the caller.
    pub fn new(status: &Status, request_id: &str, base: &str, spelling: &impl Spelling) -> Problem {
        let details = status.get_error_details();
        let own = details
            .error_info()
            .filter(|info| info.domain == DOMAIN)
            .and_then(|info| Code::from_reason(&info.reason));
        let code = own.unwrap_or_else(|| match status.code() {
            // The path has a route and its method, and no service behind it.
            tonic::Code::Unimplemented => Code::NotFound,
            other => Code::from_grpc(other),
        });
        let http = StatusCode::from_u16(code.http()).expect("the catalogue contains HTTP statuses");
        let detail = detail(code, status, &details, spelling);
        let request_id = details
            .request_info()
            .map(|info| info.request_id.as_str())
            .filter(|id| !id.is_empty())
            .unwrap_or(request_id);

        let mut document = Map::new();
        document.insert("type".to_owned(), json!(format!("{base}/errors/{code}")));
        document.insert("title".to_owned(), json!(code.title()));
        document.insert("status".to_owned(), json!(code.http()));
        document.insert("code".to_owned(), json!(code.name()));
        document.insert("detail".to_owned(), json!(detail));
        document.insert("doc_url".to_owned(), json!(format!("{base}/errors#{code}")));
        document.insert("request_id".to_owned(), json!(request_id));
        document.extend(members(code, &details));
        if http.is_client_error() {
            document.insert("errors".to_owned(), errors(code, &detail, &details, spelling));
        }
        Problem { status: http, headers: headers(http, &details), document }
    }
}

/// The message of the status. That of a single fault begins with the field, in the proto spelling.
fn detail(code: Code, status: &Status, details: &ErrorDetails, spelling: &impl Spelling) -> String {
    if code == Code::Internal {
        return INTERNAL.to_owned();
    }
    let violations = details
        .bad_request()
        .map(|request| request.field_violations.as_slice())
        .unwrap_or_default();
    let sentence = match violations {
        [only] => status
            .message()
            .strip_prefix(only.field.as_str())
            .and_then(|rest| rest.strip_prefix(": "))
            .map(|rest| (&only.field, rest)),
        _ => None,
    };
    match sentence {
        Some((field, rest)) => format!(
            "{}: {}",
            spelling.field(field),
            spell_names(rest, |name| spelling.name(field, name))
        ),
        None if !violations.is_empty() => {
            spell_names(status.message(), |name| spelling.name("", name))
        }
        None if status.message().is_empty() => format!("{}.", code.title()),
        None => status.message().to_owned(),
    }
}

/// The extension members of the code, as far as the service gave them.
fn members(code: Code, details: &ErrorDetails) -> Map<String, Value> {
    let Some(info) = details.error_info() else { return Map::new() };
    let given = code.members().iter().filter_map(|(name, kind)| {
        let text = info.metadata.get(*name)?;
        let value = match kind {
            MemberKind::Text => json!(text),
            MemberKind::Integer => {
                text.parse::<i64>().map_or_else(|_| json!(text), |number| json!(number))
            }
            MemberKind::List => serde_json::from_str(text).unwrap_or_else(|_| json!([text])),
        };
        Some(((*name).to_owned(), value))
    });
    given.collect()
}

/// Every fault of the request; if there is none, the failure itself, for callers who read only this.
fn errors(code: Code, detail: &str, details: &ErrorDetails, spelling: &impl Spelling) -> Value {
    let violations = details
        .bad_request()
        .map(|request| request.field_violations.as_slice())
        .unwrap_or_default();
    if violations.is_empty() {
        return json!([{"code": code.name(), "message": code.title(), "description": detail}]);
    }
    let errors = violations.iter().map(|violation| {
        let field = spelling.field(&violation.field);
        let code = if violation.reason.is_empty() {
            "invalid".to_owned()
        } else {
            violation.reason.to_ascii_lowercase()
        };
        let description =
            spell_names(&violation.description, |name| spelling.name(&violation.field, name));
        let message = format!("{field}: {description}");
        json!({"field": field, "code": code, "message": message, "description": description})
    });
    Value::Array(errors.collect())
}

/// A sentence with the fields that stand in backticks in the spelling of the caller.
pub fn spell_names(sentence: &str, spell: impl Fn(&str) -> String) -> String {
    let is_path = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'[' | b']'))
    };
    let parts = sentence.split('`').enumerate().map(|(count, part)| match count % 2 {
        1 if is_path(part) => spell(part),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("`")
}

fn headers(status: StatusCode, details: &ErrorDetails) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    let delay = details
        .retry_info()
        .and_then(|info| info.retry_delay)
        .map(|delay| delay.as_millis().div_ceil(1000).max(1) as u64);
    let reported =
        || details.error_info().and_then(|info| info.metadata.get("retry_after")?.parse().ok());
    if let Some(seconds) = delay.or_else(reported) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    headers
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::{Error, Violation};

    fn problem(status: &Status) -> Problem {
        Problem::new(status, "req_1", "", &|path: &str| format!("<{path}>"))
    }

    #[test]
    fn the_document_has_every_member() {
        let problem = Problem::new(
            &Error::not_found("entity", "ent_1").into(),
            "req_1",
            "https://api.example.com",
            &str::to_owned,
        );
        assert_eq!(problem.status, 404);
        assert_eq!(
            Value::Object(problem.document),
            json!({
                "type": "https://api.example.com/errors/not_found",
                "title": "Not found",
                "status": 404,
                "code": "not_found",
                "detail": "No entity with id `ent_1` is visible to this token.",
                "doc_url": "https://api.example.com/errors#not_found",
                "request_id": "req_1",
                "errors": [{
                    "code": "not_found",
                    "message": "Not found",
                    "description": "No entity with id `ent_1` is visible to this token.",
                }],
            })
        );
    }

    #[test]
    fn members_are_written_by_their_kind_and_only_when_given() {
        let error = Error::new(Code::InvalidFilter, "What?")
            .with("position", 7)
            .with_list("expected", ["`,`", "`or`"])
            .with("other", "x");
        let document = problem(&error.into()).document;
        assert_eq!(
            (&document["position"], &document["expected"]),
            (&json!(7), &json!(["`,`", "`or`"]))
        );
        assert!(!document.contains_key("other"));
        let error = Error::invalid_filter("objects.filter", "What?", ["what?".to_owned()]);
        let document = problem(&error.into()).document;
        assert_eq!(
            (&document["errors"][0]["field"], document.contains_key("field")),
            (&json!("<objects.filter>"), false)
        );
        assert!(
            !problem(&Error::new(Code::InvalidFilter, "What?").into())
                .document
                .contains_key("position")
        );
    }

    #[test]
    fn every_fault_is_reported_in_the_spelling_of_the_caller() {
        let fault = |field: &str| Violation {
            field: field.to_owned(),
            code: "too_long".into(),
            description: "must be short".to_owned(),
        };
        let document =
            problem(&Error::validation([fault("a_b"), fault("c[1]")].into_iter().collect()).into())
                .document;
        assert_eq!(
            document["errors"][1],
            json!({"field": "<c[1]>", "code": "too_long", "message": "<c[1]>: must be short", "description": "must be short"})
        );
        assert_eq!(document["errors"].as_array().unwrap().len(), 2);
        let document =
            problem(&Error::validation([fault("a_b")].into_iter().collect()).into()).document;
        assert_eq!(document["detail"], "<a_b>: must be short");
        let error = Error::invalid("a", "invalid", "not with `b_c`, `d` or `E_f`");
        assert_eq!(
            problem(&error.into()).document["detail"],
            "<a>: not with `<b_c>`, `<d>` or `E_f`"
        );
    }

    #[test]
    fn headers_go_with_the_status() {
        let problem_of = |error: Error| problem(&error.into());
        assert_eq!(
            problem_of(Error::new(Code::InvalidCredentials, "No.")).headers["www-authenticate"],
            "Bearer"
        );
        let unavailable = problem_of(
            Error::new(Code::Unavailable, "Later.").retry_after(Duration::from_millis(1500)),
        );
        assert_eq!(
            (unavailable.status.as_u16(), &unavailable.headers["retry-after"]),
            (503, &HeaderValue::from_static("2"))
        );
        assert!(!unavailable.document.contains_key("errors"));
    }

    #[test]
    fn a_foreign_status_gets_the_code_that_says_it_best() {
        let document = problem(&Status::deadline_exceeded("Timeout expired")).document;
        assert_eq!(
            (&document["code"], &document["status"]),
            (&json!("deadline_exceeded"), &json!(504))
        );
    }

    #[test]
    fn an_internal_failure_leaks_nothing() {
        for status in [
            Status::unknown("SELECT secret"),
            Status::internal("secret"),
            Status::data_loss("secret"),
        ] {
            let problem = problem(&status);
            assert_eq!(problem.status, 500);
            assert!(!format!("{problem:?}").contains("secret"));
        }
    }
}
