//! The rules for the framing of an HTTP/1.1 request, so that no proxy can read it differently (RFC 9112, sections 3.2 and 6.1).

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Version, header};

use super::listener::Arrival;
use crate::error::{Code, Error};

/// Fails where two servers could disagree on the target of a request, or on where it ends. The connection is then to be closed.
pub fn check(request: &Parts) -> Result<(), Error> {
    if request.version > Version::HTTP_11 {
        return Ok(());
    }
    host(request)?;
    body(request)
}

fn host(request: &Parts) -> Result<(), Error> {
    let mut hosts = request.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version < Version::HTTP_11 => Ok(()),
        (None, _) => Err(refusal("A request of HTTP/1.1 must have the header `Host`.")),
        (Some(_), Some(_)) => Err(refusal("A request must have one header `Host`.")),
        (Some(host), None) if is_authority(host) => Ok(()),
        (Some(_), None) => {
            Err(refusal("The header `Host` must be a name or an address, and may have a port."))
        }
    }
}

fn is_authority(host: &HeaderValue) -> bool {
    host.is_empty()
        || Authority::try_from(host.as_bytes())
            .is_ok_and(|authority| !authority.as_str().contains('@'))
}

/// If there is a `Content-Length` besides, hyper has removed it.
fn body(request: &Parts) -> Result<(), Error> {
    let mut codings = request.headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(refusal(
            "`Transfer-Encoding` must be `chunked` alone; what is compressed is named by `Content-Encoding`.",
        ));
    }
    if request.extensions.get::<Arrival>().is_some_and(Arrival::is_confusing) {
        return Err(refusal(
            "A request must have `Content-Length` or `Transfer-Encoding`, and not both.",
        ));
    }
    Ok(())
}

fn refusal(message: &str) -> Error {
    Error::new(Code::ValidationFailed, message)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn is_fine(version: Version, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap().into_parts().0).is_ok()
    }

    #[test]
    fn a_request_names_one_host() {
        for host in ["x", "x:80", "[::1]:80", "127.0.0.1", ""] {
            assert!(is_fine(Version::HTTP_11, &[("host", host)]), "{host}");
        }
        for host in ["a b", "x@y", "x/y"] {
            assert!(!is_fine(Version::HTTP_11, &[("host", host)]), "{host}");
        }
        assert!(
            !is_fine(Version::HTTP_11, &[])
                && !is_fine(Version::HTTP_11, &[("host", "x"), ("host", "x")])
        );
        assert!(
            is_fine(Version::HTTP_10, &[])
                && !is_fine(Version::HTTP_10, &[("host", "x"), ("host", "y")])
        );
        assert!(is_fine(Version::HTTP_2, &[]), "there it is not a header");
    }

    #[test]
    fn a_body_ends_where_all_agree_that_it_does() {
        let with = |headers: &[(&str, &str)]| {
            is_fine(Version::HTTP_11, &[&[("host", "x")], headers].concat())
        };
        assert!(
            with(&[("transfer-encoding", "chunked")])
                && with(&[("transfer-encoding", "Chunked")])
                && with(&[("content-length", "3")])
        );
        for coding in ["gzip, chunked", "gzip", "chunked, chunked", "identity", "\tchunked", ""] {
            assert!(!with(&[("transfer-encoding", coding)]), "{coding}");
        }
        assert!(!with(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]));
    }
}
