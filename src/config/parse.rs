//! Reads the values of settings.

use std::time::Duration;

/// An origin as browsers send it, or a star.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let is_origin = text == "*"
        || !text.contains('*')
            && url::Url::parse(text).is_ok_and(|url| url.origin().is_tuple() && url.origin().ascii_serialization() == text);
    is_origin.then(|| text.to_owned()).ok_or_else(|| "must be `*` or as https://app.example.com, without a path".to_owned())
}

/// One or more tokens of a NATS subject, without wildcards.
pub(super) fn subject_prefix(text: &str) -> Result<String, String> {
    let is_token = |token: &str| !token.is_empty() && token.bytes().all(is_plain);
    let is_prefix = text.len() <= 128 && text.split('.').all(is_token);
    is_prefix.then(|| text.to_owned()).ok_or_else(|| "must be words of letters, digits, `_` and `-` with points between them".to_owned())
}

/// The name of a JetStream stream.
pub(super) fn stream_name(text: &str) -> Result<String, String> {
    let is_name = (1..=128).contains(&text.len()) && text.bytes().all(is_plain);
    is_name.then(|| text.to_owned()).ok_or_else(|| "must be up to 128 letters, digits, `_` and `-`".to_owned())
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// A number of seconds, with decimals if need be.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    parsed
        .filter(|duration| *duration <= Duration::from_secs(86_400))
        .ok_or_else(|| "must be a number of seconds from 0 to 86400".to_owned())
}

/// The same, but for none.
pub(super) fn some_seconds(text: &str) -> Result<Duration, String> {
    seconds(text).and_then(|time| if time.is_zero() { Err("must be more than 0 seconds".to_owned()) } else { Ok(time) })
}

/// The URL by which others reach a service: of HTTP, and nothing behind its path.
pub(super) fn public_url(text: &str) -> Result<String, String> {
    let is_one = |url: &url::Url| {
        let is_http = matches!(url.scheme(), "http" | "https") && url.has_host();
        is_http && url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none()
    };
    // What reads URLs would mend `https:host`.
    let has_slashes = text.split_once("://").is_some_and(|(_, rest)| !rest.starts_with('/'));
    let url = url::Url::parse(text).ok().filter(|url| has_slashes && is_one(url));
    url.map(|_| text.to_owned())
        .ok_or_else(|| "must be as https://api.example.com/offboard: with http or https, and nothing behind its path".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{origin, public_url, seconds, some_seconds, stream_name, subject_prefix};
    use std::time::Duration;

    #[test]
    fn seconds_may_have_decimals_and_are_bounded() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for bad in ["-1", "x", "", "NaN", "1e9"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        assert!(seconds("0").is_ok() && some_seconds("0").is_err() && some_seconds("0.001").is_ok());
    }

    #[test]
    fn a_public_url_is_whole() {
        for good in ["https://api.example.com", "http://10.0.0.1:8080/", "https://api.example.com/offboard/"] {
            assert_eq!(public_url(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "api.example.com",
            "api.example.com:8080",
            "/offboard",
            "ftp://host",
            "https:host",
            "https://",
            "https:///x",
            "https://h/?a",
            "https://h/#a",
            "https://u:p@h",
        ] {
            assert!(public_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_origin_is_as_browsers_send_it() {
        for good in ["*", "https://app.example.com", "http://localhost:3000"] {
            assert!(origin(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "app.example.com",
            "https://app.example.com/",
            "https://App.example.com",
            "https://app.example.com:443",
            "null",
            "https://*",
        ] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn subjects_and_streams_have_no_wildcards_and_no_empty_words() {
        assert_eq!((subject_prefix("a.b-C_1").is_ok(), stream_name("OFF-BOARD_2").is_ok()), (true, true));
        for bad in ["", ".", "a.", "a..b", "a.*", ">", "a b", "é"] {
            assert!(subject_prefix(bad).is_err() && stream_name(bad).is_err(), "{bad}");
        }
        assert!(stream_name("a.b").is_err());
    }
}
