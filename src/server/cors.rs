//! Lets pages of other origins call from a browser (the Fetch standard, section 3.3), where the operator says so. Keys travel in headers and
//! never in cookies, so no credentials are allowed for.

use axum::body::Body;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

use crate::limits::answers::{MAX_VERSION_HEADERS, VERSION_HEADERS};

/// Request headers that a page may send besides those that every page may.
const REQUEST_HEADERS: &str = "accept, accept-language, api-version, apikey, authorization, baggage, content-encoding, content-type, grpc-timeout, idempotency-key, if-match, \
     if-none-match, last-event-id, traceparent, tracestate, x-grpc-web, x-request-id, x-request-timeout, x-user-agent";
/// How the names of headers end by which clients of the contracts say which version they speak, such as `Matter-Version`. Those that we do not
/// know say nothing to us, and a browser that asks for them must not be kept from calling.
const VERSION: &str = "-version";
/// How long the names of those may be.
const MAX_NAME: usize = 64;
/// Response headers that a page may read besides those that every page may.
const RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "accept, accept-encoding, accept-patch, accept-post, allow, api-version, content-disposition, content-encoding, date, etag, \
     grpc-encoding, grpc-message, grpc-status, grpc-status-details-bin, idempotent-replayed, link, location, retry-after, vary, \
     offboard-realm, ratelimit, ratelimit-policy, www-authenticate, x-accel-buffering, x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset, x-request-id",
);
const METHODS: HeaderValue = HeaderValue::from_static("DELETE, GET, HEAD, PATCH, POST, PUT");
/// Seconds that a browser may remember the permission; none remembers it for longer.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// The origins whose pages may call from a browser.
#[derive(Clone, Debug)]
pub struct Cors {
    /// Origins such as `https://app.example.com`; `*` is all of them.
    origins: Vec<String>,
}

impl Cors {
    /// Pages of these origins may call; without any, no response has headers for other origins.
    pub fn new(origins: &[String]) -> Option<Cors> {
        (!origins.is_empty()).then(|| Cors { origins: origins.to_vec() })
    }

    /// The origin that is to be reported that it may call, if the request is from one that may.
    fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        if self.origins.iter().any(|allowed| allowed == "*") {
            return Some(HeaderValue::from_static("*"));
        }
        self.origins
            .iter()
            .any(|allowed| allowed.as_bytes() == origin.as_bytes())
            .then(|| origin.clone())
    }

    /// The response to a browser that asks whether a page may send a request. None if the request asks something else, or the page may not.
    pub fn preflight(&self, request: &Parts) -> Option<Response<Body>> {
        if request.method != Method::OPTIONS
            || !request.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        {
            return None;
        }
        let origin = self.allowed(&request.headers)?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response.headers_mut().extend([
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin),
            (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, allowed_headers(&request.headers)),
            (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
            (header::VARY, VARY),
        ]);
        Some(response)
    }

    /// Headers that a response gets: the origin that may read it, and that it differs by origin.
    pub fn headers(&self, request: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
        let mut reported = vec![(header::VARY, VARY)];
        if let Some(origin) = self.allowed(request) {
            reported.extend([
                (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin),
                (header::ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS),
            ]);
        }
        reported
    }
}

const VARY: HeaderValue = HeaderValue::from_static("origin");

/// The headers that a page may send: those that we know, and those that it asks for and that only name a version.
fn allowed_headers(request: &HeaderMap) -> HeaderValue {
    let asked = request
        .get_all(header::ACCESS_CONTROL_REQUEST_HEADERS)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let names =
        asked.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase());
    let versions = names.filter(|name| {
        name.ends_with(VERSION) && name.len() <= MAX_NAME && HeaderName::try_from(name).is_ok()
    });
    let mut allowed = REQUEST_HEADERS.to_owned();
    for (place, name) in versions.enumerate() {
        if place == MAX_VERSION_HEADERS {
            VERSION_HEADERS.reached();
            break;
        }
        allowed.push_str(", ");
        allowed.push_str(&name);
    }
    HeaderValue::try_from(allowed).expect("names of headers are fit for a header")
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn asked(method: Method, origin: &str, more: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).header("origin", origin);
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn cors(origin: &str) -> Cors {
        Cors::new(&["https://a.example".to_owned(), origin.to_owned()]).unwrap()
    }

    const PREFLIGHT: &[(&str, &str)] = &[("access-control-request-method", "PATCH")];

    #[test]
    fn a_page_of_a_named_origin_may_send_and_read() {
        let cors = cors("https://b.example");
        let answer =
            cors.preflight(&asked(Method::OPTIONS, "https://b.example", PREFLIGHT)).unwrap();
        assert_eq!(
            (answer.status(), &answer.headers()["access-control-allow-origin"]),
            (StatusCode::NO_CONTENT, &"https://b.example".parse().unwrap())
        );
        assert!(
            answer.headers()["access-control-allow-headers"]
                .to_str()
                .unwrap()
                .contains("idempotency-key")
        );
        let reported = cors.headers(&asked(Method::GET, "https://b.example", &[]).headers);
        assert!(
            reported.contains(&(
                header::ACCESS_CONTROL_ALLOW_ORIGIN,
                HeaderValue::from_static("https://b.example")
            )),
            "{reported:?}"
        );
        assert!(reported.iter().any(|(_, value)| value.to_str().unwrap().contains("etag")));
    }

    #[test]
    fn a_page_may_say_which_version_it_speaks() {
        let allowed = |asked: &str| {
            let more = [PREFLIGHT[0], ("access-control-request-headers", asked)];
            let answer = cors("*").preflight(&asked_for(&more)).unwrap();
            let allowed =
                answer.headers()["access-control-allow-headers"].to_str().unwrap().to_owned();
            allowed.split(", ").map(str::to_owned).collect::<Vec<_>>()
        };
        fn asked_for(more: &[(&str, &str)]) -> Parts {
            asked(Method::OPTIONS, "https://b.example", more)
        }
        let reported = allowed("authorization, Matter-Version,x-other");
        assert!(
            ["authorization", "api-version", "matter-version"]
                .iter()
                .all(|name| reported.iter().any(|reported| reported == name)),
            "{reported:?}"
        );
        assert!(!reported.contains(&"x-other".to_owned()));
        let known = allowed("").len();
        let many = (0..50).map(|n| format!("x{n}-version")).collect::<Vec<_>>().join(",");
        assert_eq!(allowed(&many).len(), known + MAX_VERSION_HEADERS);
        for wrong in ["a b-version", "a;-version", &format!("{}-version", "x".repeat(100))] {
            assert_eq!(allowed(wrong).len(), known, "{wrong}");
        }
    }

    #[test]
    fn a_page_of_another_origin_is_reported_nothing() {
        let cors = cors("https://b.example");
        for origin in ["https://b.example:444", "http://b.example", "https://x.b.example", "null"] {
            assert!(
                cors.preflight(&asked(Method::OPTIONS, origin, PREFLIGHT)).is_none(),
                "{origin}"
            );
            assert_eq!(
                cors.headers(&asked(Method::GET, origin, &[]).headers),
                [(header::VARY, VARY)],
                "{origin}"
            );
        }
    }

    #[test]
    fn options_that_no_browser_asks_are_left_to_the_routes() {
        assert!(cors("*").preflight(&asked(Method::OPTIONS, "https://b.example", &[])).is_none());
        assert!(
            cors("*").preflight(&asked(Method::POST, "https://b.example", PREFLIGHT)).is_none()
        );
    }

    #[test]
    fn a_star_is_every_origin() {
        let reported = cors("*").headers(&asked(Method::GET, "https://any.example", &[]).headers);
        assert!(
            reported
                .contains(&(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")))
        );
        assert!(Cors::new(&[]).is_none());
    }
}
