//! Reads the values of settings.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use async_nats::rustls::RootCertStore;
use async_nats::rustls::pki_types::CertificateDer;
use async_nats::rustls::pki_types::pem::PemObject;
use ipnet::IpNet;
use tracing_subscriber::filter::EnvFilter;

/// The most of anything that is counted: calls, streams, connections. More than a machine has, and less than what counts them can.
pub(super) const MANY: usize = 1_000_000;

/// A whole number of this range.
pub(super) fn whole<T>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static,
{
    move |text: &str| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            format!("must be a whole number from {} to {}", range.start(), range.end())
        })
    }
}

/// The address of a listener. A name may resolve to several addresses, so it is not accepted.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "must be an IP address and a port, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080"
            .to_owned()
    })
}

/// A network of proxies. An address without the length of its prefix is the network of that address alone.
pub(super) fn trusted(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    match network {
        Ok(network) if network != network.trunc() => {
            Err(format!("must have no bits behind its prefix, such as {}", network.trunc()))
        }
        Ok(network) if network.prefix_len() == 0 => {
            Err("must not be all addresses there are: everybody would say where they come from"
                .to_owned())
        }
        Ok(network) => Ok(network),
        Err(_) => {
            Err("must be an address, or one and the length of its prefix, such as 10.1.0.0/16"
                .to_owned())
        }
    }
}

/// The URL of a collector of OpenTelemetry.
pub(super) fn otlp_url(text: &str) -> Result<String, String> {
    let is_one = |url: url::Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    let has_slashes = text.split_once("://").is_some_and(|(_, rest)| !rest.starts_with('/'));
    let is_url = has_slashes && url::Url::parse(text).is_ok_and(is_one);
    is_url
        .then(|| text.to_owned())
        .ok_or_else(|| "must be as http://localhost:4317 or https://collector:4317".to_owned())
}

/// A filter of log lines. A single word that is not a level would be taken for a target, and nothing else would be logged.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    const FORM: &str = "must be as `info`, `debug` or `info,offboard::jobs=debug`";
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    for word in
        text.split(',').map(str::trim).filter(|word| !word.contains(['=', '[', ']', '{', '}']))
    {
        if !is_level(word) {
            return Err(format!(
                "{FORM}; `{word}` is not a level ({}); a target is written with one: `{word}=info`",
                LEVELS.join(", ")
            ));
        }
    }
    EnvFilter::builder()
        .parse(text)
        .map(|_| text.to_owned())
        .map_err(|error| format!("{FORM}: {error}"))
}

/// A file that can be read.
pub(super) fn file(text: &str) -> Result<PathBuf, String> {
    std::fs::read(text)
        .map(|_| PathBuf::from(text))
        .map_err(|error| format!("cannot be read: {error}"))
}

/// A file of root certificates in PEM.
pub(super) fn certificates(text: &str) -> Result<PathBuf, String> {
    let pem = std::fs::read(text).map_err(|error| format!("cannot be read: {error}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let added = certificate
            .map_err(|error| error.to_string())
            .and_then(|found| roots.add(found).map_err(|error| error.to_string()));
        added.map_err(|error| format!("has a certificate that cannot be read: {error}"))?;
    }
    if roots.is_empty() {
        Err("has no certificate in PEM".to_owned())
    } else {
        Ok(PathBuf::from(text))
    }
}

/// Returns the faults of the root certificates that replace those of the system, by the variable that names them. The library that loads
/// them for a connection skips unreadable ones, and then trusts nobody.
pub fn roots_fault() -> Option<(&'static str, String)> {
    let named = |variable| {
        std::env::var_os(variable)
            .map(|paths| std::env::split_paths(&paths).collect::<Vec<_>>())
            .unwrap_or_default()
    };
    let of_file = |path: &Path| match std::fs::read(path) {
        Ok(pem) => {
            let mut roots = RootCertStore::empty();
            let is_one =
                |certificate: Result<_, _>| certificate.is_ok_and(|found| roots.add(found).is_ok());
            let has_one = CertificateDer::pem_slice_iter(&pem).any(is_one);
            (!has_one).then(|| "has no certificate in PEM".to_owned())
        }
        Err(error) => Some(format!("cannot be read: {error}")),
    };
    let of_folder =
        |path: &Path| std::fs::read_dir(path).err().map(|error| format!("cannot be read: {error}"));
    let reported = |path: &Path, fault: String| format!("names {}, which {fault}", path.display());
    // One file, as what reads it takes it.
    let file = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let file = file.and_then(|path| Some(("SSL_CERT_FILE", reported(&path, of_file(&path)?))));
    file.or_else(|| {
        named("SSL_CERT_DIR")
            .into_iter()
            .find_map(|path| Some(("SSL_CERT_DIR", reported(&path, of_folder(&path)?))))
    })
}

/// An origin as browsers send it, or a star.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let is_origin = text == "*"
        || !text.contains('*')
            && url::Url::parse(text).is_ok_and(|url| {
                url.origin().is_tuple() && url.origin().ascii_serialization() == text
            });
    is_origin
        .then(|| text.to_owned())
        .ok_or_else(|| "must be `*` or as https://app.example.com, without a path".to_owned())
}

/// One or more tokens of a NATS subject, without wildcards.
pub(super) fn subject_prefix(text: &str) -> Result<String, String> {
    let is_token = |token: &str| !token.is_empty() && token.bytes().all(is_plain);
    let is_prefix = text.len() <= 128 && text.split('.').all(is_token);
    is_prefix.then(|| text.to_owned()).ok_or_else(|| {
        "must be words of letters, digits, `_` and `-` with points between them".to_owned()
    })
}

/// The name of a JetStream stream.
pub(super) fn stream_name(text: &str) -> Result<String, String> {
    let is_name = (1..=128).contains(&text.len()) && text.bytes().all(is_plain);
    is_name
        .then(|| text.to_owned())
        .ok_or_else(|| "must be up to 128 letters, digits, `_` and `-`".to_owned())
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// The longest time that a setting may be.
const A_DAY: Duration = Duration::from_secs(86_400);
/// The shortest, but for none: the database counts in milliseconds, and takes less for none.
const A_MILLISECOND: Duration = Duration::from_millis(1);

fn read_seconds(text: &str) -> Option<Duration> {
    text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

/// A number of seconds, with decimals if need be, or 0.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let parsed =
        read_seconds(text).filter(|time| time.is_zero() || (A_MILLISECOND..=A_DAY).contains(time));
    parsed.ok_or_else(|| "must be 0 or a number of seconds from 0.001 to 86400".to_owned())
}

/// A number of seconds, from so many milliseconds on.
pub(super) fn seconds_from(
    milliseconds: u64,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    let least = Duration::from_millis(milliseconds);
    move |text: &str| {
        let parsed = read_seconds(text).filter(|time| (least..=A_DAY).contains(time));
        parsed.ok_or_else(|| {
            format!("must be a number of seconds from {} to 86400", least.as_secs_f64())
        })
    }
}

/// A number of seconds, and not 0.
pub(super) fn some_seconds(text: &str) -> Result<Duration, String> {
    seconds_from(A_MILLISECOND.as_millis() as u64)(text)
}

/// The URL by which others reach a service: of HTTP, and nothing behind its path.
pub(super) fn public_url(text: &str) -> Result<String, String> {
    let is_one = |url: &url::Url| {
        let is_http = matches!(url.scheme(), "http" | "https") && url.has_host();
        is_http
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    };
    // The URL parser would repair `https:host`.
    let has_slashes = text.split_once("://").is_some_and(|(_, rest)| !rest.starts_with('/'));
    let url = url::Url::parse(text).ok().filter(|url| has_slashes && is_one(url));
    url.map(|_| text.to_owned())
        .ok_or_else(|| "must be as https://api.example.com/offboard: with http or https, and nothing behind its path".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{
        address, certificates, file, log_filter, origin, otlp_url, public_url, seconds,
        seconds_from, some_seconds, stream_name, subject_prefix, trusted, whole,
    };
    use std::time::Duration;

    #[test]
    fn seconds_may_have_decimals_and_are_bounded() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for bad in ["-1", "x", "", "NaN", "1e9", "0.0009", "1e-9"] {
            assert!(seconds(bad).is_err() && some_seconds(bad).is_err(), "{bad}");
        }
        assert_eq!(
            seconds_from(500)("0.4"),
            Err("must be a number of seconds from 0.5 to 86400".to_owned())
        );
        assert!(
            seconds("0").is_ok() && some_seconds("0").is_err() && some_seconds("0.001").is_ok()
        );
    }

    #[test]
    fn a_public_url_is_whole() {
        for good in [
            "https://api.example.com",
            "http://10.0.0.1:8080/",
            "https://api.example.com/offboard/",
        ] {
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
        assert_eq!(
            (subject_prefix("a.b-C_1").is_ok(), stream_name("OFF-BOARD_2").is_ok()),
            (true, true)
        );
        for bad in ["", ".", "a.", "a..b", "a.*", ">", "a b", "é"] {
            assert!(subject_prefix(bad).is_err() && stream_name(bad).is_err(), "{bad}");
        }
        assert!(stream_name("a.b").is_err());
    }

    #[test]
    fn a_number_outside_its_range_is_reported_the_range() {
        assert_eq!(whole(1..=1000_u32)("7"), Ok(7));
        for bad in ["0", "1001", "-1", "1.5", "x", ""] {
            assert_eq!(
                whole(1..=1000_u32)(bad),
                Err("must be a whole number from 1 to 1000".to_owned()),
                "{bad}"
            );
        }
    }

    #[test]
    fn an_address_has_no_name() {
        assert!(address("0.0.0.0:0").is_ok() && address("[::1]:80").is_ok());
        for bad in ["localhost:0", "127.0.0.1", ":8080", "8080", ""] {
            assert!(address(bad).is_err_and(|fault| fault.contains("127.0.0.1:8080")), "{bad}");
        }
    }

    #[test]
    fn proxies_are_networks_and_not_everybody() {
        for (good, network) in [
            ("10.1.0.0/16", "10.1.0.0/16"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("2001:db8::1", "2001:db8::1/128"),
        ] {
            assert_eq!(trusted(good).map(|network| network.to_string()), Ok(network.to_owned()));
        }
        for bad in ["", "0.0.0.0/0", "::/0", "10.1.0.1/16", "10.0.0.0/33", "proxy", "10.0.0.0/8 "] {
            assert!(trusted(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_collector_has_a_scheme_and_a_host() {
        for good in ["http://localhost:4317", "HTTPS://collector", "http://[::1]:4317/"] {
            assert!(otlp_url(good).is_ok(), "{good}");
        }
        for bad in
            ["", "foo", "localhost:4317", "grpc://host:4317", "http:host", "http://", "http:///x"]
        {
            assert!(otlp_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_log_filter_has_levels_and_targets_with_levels() {
        for good in [
            "info",
            "WARN",
            "info,offboard::jobs=debug",
            "off",
            "hyper=trace",
            "info,h2=off",
            "offboard[span]=debug",
        ] {
            assert!(log_filter(good).is_ok(), "{good}");
        }
        for bad in ["warning", "verbose", "info,debgu", "offboard=loud", "", " ", "info,"] {
            assert!(log_filter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files_are_read() {
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert!(
            file(here).is_ok()
                && file("/nowhere").is_err_and(|fault| fault.starts_with("cannot be read"))
        );
        assert!(
            certificates(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kit/tls/localhost.crt"))
                .is_ok()
        );
        assert_eq!(certificates(here), Err("has no certificate in PEM".to_owned()));
        assert!(certificates("/nowhere").is_err_and(|fault| fault.starts_with("cannot be read")));
    }
}
