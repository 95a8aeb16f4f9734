//! Which headers of a request become metadata of the call, and which metadata of the response become headers.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::misspelt;
use crate::error::Violations;

/// The metadata by which a service sets the HTTP status of a success: 200, 201, 202 or 204.
const HTTP_CODE: &str = "x-http-code";

/// The headers of a request that a service gets, and the misspelt ones. All others stay outside, so that nobody can forge the metadata
/// between layers.
const PASSED_ON: [&str; 13] = [
    "accept-language",
    "api-version",
    "apikey",
    "authorization",
    "baggage",
    "forwarded",
    "idempotency-key",
    "last-event-id",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-forwarded-for",
    "x-real-ip",
];

/// The metadata of a response that are of the transport and not of the service.
const KEPT_BACK: [&str; 10] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    HTTP_CODE,
];

/// The rule for `X-Request-Timeout`.
pub const SECONDS: &str = "must be a number of seconds above 0, such as `2.5`";
/// The same of `Grpc-Timeout`.
pub const UNITS: &str = "must be 1 to 8 digits and one of the units H, M, S, m, u, n";

/// The metadata of a call, and the faults of its headers.
pub fn to_metadata(headers: &HeaderMap) -> (HeaderMap, Violations) {
    let mut metadata = HeaderMap::with_capacity(headers.len());
    for name in PASSED_ON {
        for value in headers.get_all(name) {
            metadata.append(HeaderName::from_static(name), value.clone());
        }
    }
    for (name, value) in
        headers.iter().filter(|(name, _)| misspelt::fault_of(name.as_str()).is_some())
    {
        metadata.insert(name.clone(), value.clone());
    }
    let mut faults = Violations::new();
    if let Some(timeout) = timeout(headers, &mut faults) {
        metadata.insert("grpc-timeout", timeout);
    }
    (metadata, faults)
}

/// The headers of a response, and the HTTP status that the service asks for. Services know the paths of the API; callers find it below
/// `base_path`.
pub fn from_metadata(metadata: &HeaderMap, base_path: &str) -> (HeaderMap, Option<StatusCode>) {
    let mut headers = HeaderMap::with_capacity(metadata.len());
    for (name, value) in metadata {
        let text = name.as_str();
        if !text.starts_with("grpc-") && !text.ends_with("-bin") && !KEPT_BACK.contains(&text) {
            headers.append(name, value.clone());
        }
    }
    let location = headers
        .get(header::LOCATION)
        .and_then(|path| path.to_str().ok())
        .filter(|path| path.starts_with('/'));
    if let Some(location) =
        location.and_then(|path| HeaderValue::try_from(format!("{base_path}{path}")).ok())
    {
        headers.insert(header::LOCATION, location);
    }
    let code =
        metadata.get(HTTP_CODE).and_then(|value| StatusCode::from_bytes(value.as_bytes()).ok());
    (headers, code.filter(StatusCode::is_success))
}

/// The same of a response of many messages.
pub fn of_stream(metadata: &HeaderMap, base_path: &str) -> (HeaderMap, StatusCode) {
    let (mut headers, status) = from_metadata(metadata, base_path);
    // A header that reverse proxies understand, nginx and those like it: pass on each message as it comes.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    (headers, status.unwrap_or(StatusCode::OK))
}

/// The deadline of the caller, in the form of gRPC: `X-Request-Timeout`, or else `Grpc-Timeout`.
fn timeout(headers: &HeaderMap, faults: &mut Violations) -> Option<HeaderValue> {
    let in_seconds = only(headers, "x-request-timeout", "X-Request-Timeout", faults).map(|given| {
        let timeout = in_seconds(given);
        if timeout.is_none() {
            faults.add("X-Request-Timeout", "invalid", SECONDS);
        }
        timeout
    });
    let in_units = only(headers, "grpc-timeout", "Grpc-Timeout", faults).map(|given| {
        if grpc_timeout(given).is_none() {
            faults.add("Grpc-Timeout", "invalid", UNITS);
            return None;
        }
        Some(given.clone())
    });
    in_seconds.or(in_units).flatten()
}

/// The value of a header that may be given once.
fn only<'h>(
    headers: &'h HeaderMap,
    name: &str,
    reported: &str,
    faults: &mut Violations,
) -> Option<&'h HeaderValue> {
    let mut given = headers.get_all(name).iter();
    let first = given.next();
    if given.next().is_some() {
        faults.add(reported, "duplicate", "is given twice");
        return None;
    }
    first
}

/// The time that `X-Request-Timeout` says.
pub fn request_timeout(given: &HeaderValue) -> Option<Duration> {
    let seconds =
        given.to_str().ok()?.trim().parse().ok().filter(|seconds: &f64| *seconds > 0.0)?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn in_seconds(given: &HeaderValue) -> Option<HeaderValue> {
    let timeout = request_timeout(given)?;
    // At most eight digits: milliseconds last for more than a day, seconds for three years.
    let text = match timeout.as_millis().max(1) {
        millis @ ..=99_999_999 => format!("{millis}m"),
        millis => format!("{}S", (millis / 1000).min(99_999_999)),
    };
    Some(HeaderValue::try_from(text).expect("digits and a letter are fit for a header"))
}

/// The time that `Grpc-Timeout` says: at most 8 digits and a unit, as the specification of gRPC over HTTP/2 has it.
pub fn grpc_timeout(given: &HeaderValue) -> Option<Duration> {
    let given = given.to_str().ok()?;
    let (digits, unit) = given.split_at(given.len().checked_sub(1)?);
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn only_known_headers_reach_the_service() {
        let given = headers(&[
            ("authorization", "Bearer x"),
            ("x-http-code", "204"),
            ("x-offboard-realm", "1"),
            ("cookie", "c"),
            ("te", "trailers"),
            ("if-match", "\"1\""),
        ]);
        assert_eq!(to_metadata(&given).0, headers(&[("authorization", "Bearer x")]));
        let misspelt = headers(&[("if_match", "\"1\""), ("idempotence-key", "k")]);
        assert_eq!(to_metadata(&misspelt).0, misspelt, "those who refuse them see them");
    }

    #[test]
    fn a_timeout_is_reported_in_the_form_of_grpc() {
        let reported = |name, value| {
            let (metadata, faults) = to_metadata(&headers(&[(name, value)]));
            let reported =
                metadata.get("grpc-timeout").map(|timeout| timeout.to_str().unwrap().to_owned());
            assert_eq!(reported.is_none(), faults.count() == 1, "{name}: {value}");
            reported
        };
        assert_eq!(reported("x-request-timeout", "2.5").as_deref(), Some("2500m"));
        assert_eq!(reported("x-request-timeout", "0.0001").as_deref(), Some("1m"));
        assert_eq!(reported("x-request-timeout", "100000").as_deref(), Some("100000S"));
        assert_eq!(reported("grpc-timeout", "3S").as_deref(), Some("3S"));
        for (name, value) in [
            ("x-request-timeout", "0"),
            ("x-request-timeout", "-1"),
            ("x-request-timeout", "NaN"),
            ("x-request-timeout", "inf"),
            ("grpc-timeout", "3"),
            ("grpc-timeout", "123456789S"),
            ("grpc-timeout", "S"),
        ] {
            assert_eq!(reported(name, value), None, "{name}: {value}");
        }
        let faults =
            |given: &[(&'static str, &'static str)]| to_metadata(&headers(given)).1.count();
        assert_eq!(
            faults(&[("x-request-timeout", "0"), ("grpc-timeout", "S")]),
            2,
            "one hides no other"
        );
    }

    #[test]
    fn a_timeout_is_read_as_the_specification_has_it() {
        let read = |given: &str| grpc_timeout(&HeaderValue::from_bytes(given.as_bytes()).unwrap());
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("3M"), Some(Duration::from_secs(180)));
        assert_eq!(read("99999999u"), Some(Duration::from_micros(99_999_999)));
        for wrong in ["", "S", "1", "+1S", "100000000S", "1x", "1é", "-1S"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_location_is_reported_as_callers_reach_it() {
        for (given, reported) in
            [("/v1/x", "/base/v1/x"), ("https://other.example/x", "https://other.example/x")]
        {
            assert_eq!(
                from_metadata(&headers(&[("location", given)]), "/base").0["location"],
                reported
            );
        }
    }

    #[test]
    fn metadata_of_the_transport_stay_inside() {
        let given = headers(&[
            ("location", "/x"),
            ("x-http-code", "202"),
            ("grpc-status", "0"),
            ("content-type", "application/grpc"),
            ("a-bin", "AA"),
        ]);
        assert_eq!(
            from_metadata(&given, ""),
            (headers(&[("location", "/x")]), Some(StatusCode::ACCEPTED))
        );
        assert_eq!(from_metadata(&headers(&[("x-http-code", "500")]), "").1, None);
    }
}
