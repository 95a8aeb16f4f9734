//! Refusals for contracts that know no problem documents: `application/json` with the member `errors` alone, unless the caller names
//! `application/problem+json` in `Accept`. Clients that are made of such a contract refuse every other member and media type.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};
use tonic::Status;

use super::accept::weighted;
use super::binding::Binding;
use super::percent::{self, UriPart};
use super::problem::{self, Problem};
use super::request_id::{self, sane_or_new};
use super::route::Router;
use crate::error::Error;

/// The form of refusals of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refusals {
    /// Problem documents.
    #[default]
    Problems,
    /// Problem documents, because the caller names them.
    ProblemsByName,
    /// The member `errors` alone.
    Plain,
}

impl Refusals {
    /// Those of a request for this path, which is still percent-encoded.
    pub fn of(paths: &PlainPaths, path: &str, headers: &HeaderMap) -> Refusals {
        if !paths.have(path) {
            return Refusals::Problems;
        }
        let named = weighted(headers, header::ACCEPT)
            .iter()
            .any(|(name, weight)| name == problem::MEDIA_TYPE && *weight > 0);
        if named { Refusals::ProblemsByName } else { Refusals::Plain }
    }

    /// The media type and the text of a refusal with this status; adds to its headers what belongs to them. A failure of the service is a problem
    /// document always.
    pub fn written(
        self,
        status: StatusCode,
        document: Map<String, Value>,
        headers: &mut HeaderMap,
    ) -> (&'static str, Vec<u8>) {
        let refusals = if status.is_client_error() { self } else { Refusals::Problems };
        if refusals != Refusals::Problems {
            headers.append(header::VARY, HeaderValue::from_static("accept"));
        }
        let (media_type, document) = match refusals {
            Refusals::Plain => ("application/json", plain(document)),
            Refusals::Problems | Refusals::ProblemsByName => (problem::MEDIA_TYPE, document.into()),
        };
        (media_type, serde_json::to_vec(&document).expect("JSON values can always be written"))
    }
}

/// The paths of these contracts: each begins with the segments of one of them.
#[derive(Debug, Default)]
pub struct PlainPaths(Vec<Vec<String>>);

impl PlainPaths {
    /// Those that the services of these routes say.
    pub fn of(router: &Router<Arc<Binding>>) -> PlainPaths {
        let mut paths: Vec<Vec<String>> = router
            .targets()
            .filter_map(|binding| binding.plain_errors.as_deref().map(segments))
            .collect();
        paths.sort();
        paths.dedup();
        PlainPaths(paths)
    }

    fn have(&self, path: &str) -> bool {
        let Some(path) = path.strip_prefix('/').filter(|_| !self.0.is_empty()) else {
            return false;
        };
        let given: Vec<_> = path
            .split('/')
            .map(|segment| percent::decode(segment, UriPart::Segment).unwrap_or_default())
            .collect();
        self.0.iter().any(|first| {
            first.len() <= given.len()
                && first.iter().zip(&given).all(|(one, other)| *one == **other)
        })
    }
}

fn segments(path: &str) -> Vec<String> {
    path.trim_matches('/').split('/').map(str::to_owned).collect()
}

/// The rest of a problem document. The field of a fault is in its message too.
fn plain(mut document: Map<String, Value>) -> Value {
    let mut errors = document.remove("errors").unwrap_or_default();
    for error in errors.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        error.retain(|name, _| ["code", "description", "message"].contains(&name.as_str()));
    }
    json!({"errors": errors})
}

/// The response to a request that is refused before it can be routed, with its headers; `base` is as in [`Problem::new`].
pub fn refusal(error: Error, headers: &HeaderMap, base: &str) -> Response<Bytes> {
    refusal_as(Refusals::Problems, error, headers, base)
}

/// The same where refusals look like this.
pub fn refusal_as(
    refusals: Refusals,
    error: Error,
    headers: &HeaderMap,
    base: &str,
) -> Response<Bytes> {
    let id = sane_or_new(headers.get(request_id::HEADER).and_then(|given| given.to_str().ok()));
    let problem = Problem::new(&Status::from(error), &id, base, &str::to_owned);
    let (status, mut headers) = (problem.status, problem.headers);
    let (media_type, text) = refusals.written(status, problem.document, &mut headers);
    let mut answer = Response::new(Bytes::from(text));
    (*answer.status_mut(), *answer.headers_mut()) = (status, headers);
    answer.headers_mut().extend([
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (
            HeaderName::from_static(request_id::HEADER),
            HeaderValue::try_from(id).expect("a sane id is fit for a header"),
        ),
    ]);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals(path: &str, accept: Option<&'static str>) -> Refusals {
        let paths = PlainPaths(vec![segments("/v1/orders")]);
        let headers = accept
            .map(|accept| (header::ACCEPT, HeaderValue::from_static(accept)))
            .into_iter()
            .collect();
        Refusals::of(&paths, path, &headers)
    }

    #[test]
    fn the_paths_of_a_contract_are_those_that_begin_as_it_says() {
        for path in [
            "/v1/orders",
            "/v1/orders/1/cancel",
            "/v1/orders/1/2/3",
            "/v1/%6Frders/1",
            "/v1/orders/",
        ] {
            assert_eq!(refusals(path, None), Refusals::Plain, "{path}");
        }
        for path in ["/v1/ordersx", "/v1", "/", "", "*", "/v2/orders", "/x/v1/orders"] {
            assert_eq!(refusals(path, None), Refusals::Problems, "{path}");
        }
        assert_eq!(
            Refusals::of(&PlainPaths::default(), "/v1/orders", &HeaderMap::new()),
            Refusals::Problems
        );
    }

    #[test]
    fn only_a_caller_that_names_problem_documents_gets_them() {
        for named in [
            "application/problem+json",
            "application/json, Application/Problem+JSON;q=0.1",
            "*/*, application/problem+json",
        ] {
            assert_eq!(refusals("/v1/orders", Some(named)), Refusals::ProblemsByName, "{named}");
        }
        for other in
            ["*/*", "application/json", "application/*", "application/problem+json;q=0", ""]
        {
            assert_eq!(refusals("/v1/orders", Some(other)), Refusals::Plain, "{other}");
        }
        assert_eq!(refusals("/v1/other", Some("application/problem+json")), Refusals::Problems);
    }

    #[test]
    fn a_fault_keeps_its_code_and_its_words() {
        let document = json!({"status": 400, "errors": [{"field": "a", "code": "c", "message": "a: m", "description": "d", "more": 1}]});
        let Value::Object(document) = document else { unreachable!() };
        assert_eq!(
            plain(document),
            json!({"errors": [{"code": "c", "message": "a: m", "description": "d"}]})
        );
    }
}
