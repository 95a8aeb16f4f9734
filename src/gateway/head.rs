//! Limits of the request line and the headers, below those of the HTTP library, which responds without a document.

use http::request::Parts;

use crate::error::{Code, Error, Result};
use crate::limits::answers::{
    HEADER_BYTES, HEADERS, MAX_HEADER_BYTES, MAX_HEADERS, MAX_URI_BYTES, URI_BYTES,
};

/// Fails if the target of a request or its headers are too long.
pub fn check(request: &Parts) -> Result<()> {
    let target = request.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > MAX_URI_BYTES {
        URI_BYTES.reached();
        return Err(uri_too_long());
    }
    if request.headers.len() > MAX_HEADERS {
        HEADERS.reached();
        return Err(headers_too_large());
    }
    let bytes: usize =
        request.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > MAX_HEADER_BYTES {
        HEADER_BYTES.reached();
        return Err(headers_too_large());
    }
    Ok(())
}

/// The refusal of a request whose path and query are too long.
pub fn uri_too_long() -> Error {
    let message = format!(
        "The path and the query are longer than {MAX_URI_BYTES} bytes together. Send a long filter in a body."
    );
    Error::new(Code::UriTooLong, message).with("limit_bytes", MAX_URI_BYTES)
}

/// The refusal of a request with too many or too long headers.
pub fn headers_too_large() -> Error {
    let message = format!(
        "The request has more than {MAX_HEADERS} headers, or more than {MAX_HEADER_BYTES} bytes of them."
    );
    Error::new(Code::HeadersTooLarge, message)
        .with("limit_bytes", MAX_HEADER_BYTES)
        .with("limit_headers", MAX_HEADERS)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn code(uri: &str, headers: &[(String, String)]) -> Option<Code> {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        check(&request.body(()).unwrap().into_parts().0).err().map(|error| error.code())
    }

    #[test]
    fn a_request_is_taken_up_to_each_limit_and_refused_past_it() {
        let longest = format!("/{}", "x".repeat(MAX_URI_BYTES - 1));
        assert_eq!(
            (code(&longest, &[]), code(&format!("{longest}x"), &[])),
            (None, Some(Code::UriTooLong))
        );
        let many =
            |count| (0..count).map(|n| (format!("x-{n}"), String::new())).collect::<Vec<_>>();
        assert_eq!(
            (code("/", &many(MAX_HEADERS)), code("/", &many(MAX_HEADERS + 1))),
            (None, Some(Code::HeadersTooLarge))
        );
        let large = |bytes| [("x".to_owned(), "y".repeat(bytes))];
        assert_eq!(
            (code("/", &large(MAX_HEADER_BYTES - 1)), code("/", &large(MAX_HEADER_BYTES))),
            (None, Some(Code::HeadersTooLarge))
        );
    }
}
