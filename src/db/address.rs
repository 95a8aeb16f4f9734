//! Checks the address of a database before libpq does: libpq's messages repeat what it does not understand, and where a password has
//! letters that belong to a URL, that is the password.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str};

use crate::error::cut;

/// The characters that are percent-encoded in a segment of a path, and in the host of a URL: all but the unreserved characters (RFC 3986, section 2.3).
pub const RESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The fault of an address that is not valid. Nothing of it is repeated: what is wrong may be the password.
const FORM: &str = "is not a valid Postgres URL: write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with `/`, `@`, `?` and `%` in a password as %2F, %40, %3F and %25";

/// The parameters that name files which libpq reads when it connects, and would not find before.
const FILES: [&str; 4] = ["sslrootcert", "sslcert", "sslkey", "sslcrl"];

/// The parameters that are whole numbers; libpq reads some of them only once it is connected.
const NUMBERS: [&str; 6] = [
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
];

/// The faults of an address, if that can be known without connecting.
pub fn fault(text: &str) -> Option<String> {
    if !is_address(text) {
        return Some(FORM.to_owned());
    }
    let query = match text.split_once("://") {
        Some((_, rest)) => rest.split_once('?').map_or("", |(_, query)| query),
        None => text,
    };
    let pairs = query
        .split(|letter: char| letter == '&' || letter.is_whitespace())
        .filter_map(|pair| pair.split_once('='));
    let is_whole =
        |value: &str| value.is_empty() || value.trim_matches('\'').parse::<i32>().is_ok();
    if let Some((name, value)) =
        pairs.clone().find(|(name, value)| NUMBERS.contains(name) && !is_whole(value))
    {
        return Some(format!(
            "gives `{name}` the value {}, which is not a whole number",
            cut(value)
        ));
    }
    // The roots of the system are asked for by a word.
    let named = pairs.filter(|(name, value)| {
        FILES.contains(name) && !value.is_empty() && *value != "system" && !value.contains('\'')
    });
    let unreadable = |(name, value): (&str, &str)| {
        let path = percent_decode_str(value).decode_utf8_lossy().into_owned();
        let error = std::fs::File::open(&path).err()?;
        Some(format!("names the file {} by `{name}`, which cannot be read: {error}", cut(&path)))
    };
    named.filter_map(unreadable).next()
}

/// Returns whether this is a URL that libpq reads as it was meant, or a connection string of words and values.
fn is_address(text: &str) -> bool {
    match text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
        Some(rest) => is_url(rest),
        None => text.trim().is_empty() || is_words(text),
    }
}

/// An address for people: hosts and database, and nothing that may be secret.
pub fn shown(text: &str) -> String {
    let given = "given by `--database-url`".to_owned();
    if let Some(rest) =
        text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"))
    {
        let address = rest.split_once('?').map_or(rest, |(address, _)| address);
        let (authority, name) = address.split_once('/').unwrap_or((address, ""));
        let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
        return match (hosts, name) {
            ("", "") => given,
            ("", name) => format!("`{name}`"),
            (hosts, "") => format!("at {hosts}"),
            (hosts, name) => format!("`{name}` at {hosts}"),
        };
    }
    // Of words and values, only those that are plain.
    let word = |name: &str| {
        text.split_whitespace()
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
            .filter(|value| !value.contains('\''))
    };
    match (word("dbname"), word("host")) {
        (Some(name), Some(host)) if !text.contains('\'') => format!("`{name}` at {host}"),
        _ => given,
    }
}

/// The part after `postgresql://`.
fn is_url(rest: &str) -> bool {
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = address.split_once('/').unwrap_or((address, ""));
    let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    // The user part ends at the first `@`, and the path is one name: further ones belong to the password.
    !user.contains('@')
        && hosts.split(',').all(is_host)
        && !path.contains(['@', '/', ':'])
        && query.split('&').all(|pair| {
            pair.is_empty() || pair.split_once('=').is_some_and(|(name, _)| is_name(name))
        })
        && is_encoded(rest)
}

/// A name or a number, with a port or without.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, "")) => (name, ""),
            Some((name, port)) => (name, port.strip_prefix(':').unwrap_or("?")),
            None => return false,
        },
        None => host.split_once(':').unwrap_or((host, "")),
    };
    name.chars().all(|letter| letter.is_alphanumeric() || "-._:%".contains(letter))
        && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns whether every percent sign begins a byte.
fn is_encoded(text: &str) -> bool {
    text.split('%')
        .skip(1)
        .all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()))
}

/// `host=h dbname=d`; the rest is for libpq to read.
fn is_words(text: &str) -> bool {
    text.split_once('=').is_some_and(|(word, _)| is_name(word.trim()))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::{fault, is_address, shown};

    #[test]
    fn a_number_that_is_none_is_named() {
        for good in [
            "postgresql://h/d?connect_timeout=10&keepalives_idle=",
            "host=h connect_timeout='3' keepalives=0",
        ] {
            assert_eq!(fault(good), None, "{good}");
        }
        for bad in [
            "postgresql://h/d?connect_timeout=abc",
            "host=h tcp_user_timeout=1s",
            "postgresql://h/d?x=y&keepalives_count=1.5",
        ] {
            assert!(
                fault(bad).is_some_and(|reported| reported.contains("not a whole number")),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        for good in [
            format!("postgresql://h/d?sslmode=verify-full&sslrootcert={here}"),
            "postgresql://h/d?sslrootcert=system&sslcert=".to_owned(),
            format!("host=h sslrootcert={here} sslmode=require"),
        ] {
            assert_eq!(fault(&good), None, "{good}");
        }
        for bad in [
            "postgresql://u:hunter2@h/d?sslmode=require&sslrootcert=/no%20where",
            "host=h password=hunter2 sslkey=/nowhere",
        ] {
            let reported = fault(bad).unwrap_or_default();
            assert!(
                reported.contains("where by `ssl")
                    && reported.contains("cannot be read")
                    && !reported.contains("hunter2"),
                "{reported}"
            );
        }
    }

    #[test]
    fn an_address_is_shown_without_what_may_be_secret() {
        for (address, reported) in [
            (
                "postgresql://me:pass@db.example:5432/offboard?sslmode=require&password=pass",
                "`offboard` at db.example:5432",
            ),
            ("postgres://db.example", "at db.example"),
            ("postgresql:///offboard?host=/run/postgresql&password=pass", "`offboard`"),
            ("host=db.example dbname=offboard password=pass", "`offboard` at db.example"),
            ("password='host=pass dbname=pass' user=me", "given by `--database-url`"),
            ("", "given by `--database-url`"),
        ] {
            assert_eq!(shown(address), reported, "{address}");
        }
    }

    #[test]
    fn an_address_that_libpq_takes_is_one() {
        for good in [
            "postgresql://",
            "postgresql:///d?host=/var/run/postgresql&port=5433",
            "postgres://app@h/d",
            "postgresql://app:100%25%40%2F@db.example.com:5432/d?sslmode=require&options=-c%20search_path%3Dx",
            "postgresql://app:p!$*()~+;='@h1:1,h2:2/d?target_session_attrs=read-write",
            "postgresql://app:pw@[::1]:5432/d",
            "postgresql://app:a:b#[c]@h/d?application_name=a b",
            "postgresql://%2Fvar%2Frun/d",
            "host=h dbname=d password='a b'",
            "user = app",
            "",
        ] {
            assert!(is_address(good), "{good}");
        }
    }

    #[test]
    fn an_address_whose_password_would_be_taken_for_something_else_is_none() {
        for bad in [
            "postgres://app:hunter2/xyz@127.0.0.1:5/app",
            "postgres://app:100%hunter2@h/d",
            "postgres://app:a@hunter2@h/d",
            "postgres://app:hunter2?x@h/d",
            "postgres://app:hunter2/xyz@h/d",
            "postgres://app:hunter2?x=y@h:5/d/e",
            "postgresql:/app:hunter2@127.0.0.1:5432/app",
            "mysql://app:hunter2@h/d?x=y",
            "app:hunter2@h/d",
            "postgres://h:port/d",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
