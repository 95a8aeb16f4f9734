//! Completes the responses that the HTTP library makes itself for bytes that are not a request: a status, and nothing else.
//!
//! It has no hook for that. So those bytes are recognised by when they are written, which is outside of any response, and others are sent
//! instead. Where a client sends such bytes after a request and does not read the response to that, the library may write both at once;
//! then its own bytes stay.

use bytes::Bytes;
use http::{Response, StatusCode};

use super::heads::{Begun, Heads, LengthFault};

/// Returns the response that replaces a status alone, which may be about a length.
pub type Refuse = Box<dyn Fn(StatusCode, bool, Begun) -> Response<Bytes> + Send>;

/// Something that is not a request, and the status by which the HTTP library refuses it.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// The status.
    pub status: StatusCode,
    /// True if it is refused for its `Content-Length`.
    pub is_length: bool,
    /// True if it is the beginning of TLS.
    pub is_tls: bool,
    /// The part of the response that has arrived.
    pub begun: Begun,
}

/// The refusal of a connection, of which there is one at most: the library closes after it.
pub struct Refusal {
    refuse: Refuse,
    /// The rest of our response to be sent, once the library has written its own.
    ours: Option<Bytes>,
}

impl Refusal {
    /// Responds by `refuse`.
    pub fn new(refuse: Refuse) -> Self {
        Refusal { refuse, ours: None }
    }

    /// Returns whether the written bytes stay here: because they are a refusal, or come after one. Asked of bytes outside of any response;
    /// `heads` has the received ones.
    pub fn replaces(&mut self, written: &[u8], heads: &Heads) -> bool {
        if self.ours.is_none() {
            self.ours = refused(written).map(|status| {
                // A head that is too large, and a length, are all the same to the library.
                let (status, is_length) = match (status, heads.length_fault()) {
                    (
                        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::BAD_REQUEST,
                        Some(LengthFault::TooLarge),
                    ) => (StatusCode::PAYLOAD_TOO_LARGE, true),
                    (StatusCode::BAD_REQUEST, Some(LengthFault::NoLength)) => (status, true),
                    (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, _)
                        if heads.are_at_first_line() =>
                    {
                        (StatusCode::URI_TOO_LONG, false)
                    }
                    _ => (status, false),
                };
                text((self.refuse)(status, is_length, heads.begun()), date(written))
            });
        }
        self.ours.is_some()
    }

    /// Returns whether there was one.
    pub fn is_made(&self) -> bool {
        self.ours.is_some()
    }

    /// The rest to be sent.
    pub fn left(&mut self) -> Option<&mut Bytes> {
        self.ours.as_mut().filter(|left| !left.is_empty())
    }
}

/// The status of the refusal that begins here.
fn refused(written: &[u8]) -> Option<StatusCode> {
    let rest = written.strip_prefix(b"HTTP/1.1 ").or_else(|| written.strip_prefix(b"HTTP/1.0 "))?;
    StatusCode::from_bytes(rest.get(..3)?).ok().filter(StatusCode::is_client_error)
}

/// The line of the head that reports the time, which the library keeps for all connections.
fn date(written: &[u8]) -> &[u8] {
    let mut lines = written.split_inclusive(|byte| *byte == b'\n');
    lines
        .find(|line| line.get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"date:")))
        .unwrap_or_default()
}

/// The response as it is written to the connection, which ends with it.
fn text(answer: Response<Bytes>, date: &[u8]) -> Bytes {
    let (head, body) = answer.into_parts();
    let reason = head.status.canonical_reason().unwrap_or_default();
    let mut text = format!("HTTP/1.1 {} {reason}\r\n", head.status.as_str()).into_bytes();
    for (name, value) in &head.headers {
        text.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    text.extend_from_slice(date);
    text.extend(
        format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()).into_bytes(),
    );
    text.extend_from_slice(&body);
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBRARY: &[u8] =
        b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: Sun, 29 Nov 2026 17:00:00 GMT\r\n\r\n";

    fn refusal() -> Refusal {
        Refusal::new(Box::new(|status, _, _| {
            let answer = Response::builder()
                .status(status)
                .header("x-request-id", "req_1")
                .body(Bytes::from_static(b"why"));
            answer.expect("headers that are fit")
        }))
    }

    #[test]
    fn what_the_library_says_is_replaced_once_with_its_status_and_time() {
        let mut refusal = refusal();
        assert!(
            !refusal.is_made() && refusal.replaces(LIBRARY, &Heads::default()) && refusal.is_made()
        );
        let reported =
            String::from_utf8(refusal.left().expect("something is sent").to_vec()).expect("text");
        assert!(
            reported.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\nx-request-id: req_1\r\ndate: Sun, 29 Nov"),
            "{reported}"
        );
        assert!(
            reported.ends_with("\r\ncontent-length: 3\r\nconnection: close\r\n\r\nwhy"),
            "{reported}"
        );
        assert!(refusal.replaces(b"more", &Heads::default()), "nothing comes behind it");
        *refusal.left().expect("all of it") = Bytes::new();
        assert!(
            refusal.left().is_none()
                && refusal.replaces(LIBRARY, &Heads::default())
                && refusal.left().is_none(),
            "once"
        );
    }

    #[test]
    fn a_first_line_that_is_too_long_is_a_long_target() {
        let mut refusal = refusal();
        let mut heads = Heads::default();
        heads.say_twice(b"GET /");
        assert!(refusal.replaces(LIBRARY, &heads));
        assert!(
            refusal
                .left()
                .expect("something is sent")
                .starts_with(b"HTTP/1.1 414 URI Too Long\r\n")
        );
    }

    #[test]
    fn a_length_is_distinguished_from_a_head_that_is_too_large() {
        for (length, begins) in [("18446744073709551615", "HTTP/1.1 413 "), ("+5", "HTTP/1.1 431 ")]
        {
            let (mut refusal, mut heads) = (refusal(), Heads::default());
            heads.say_twice(
                format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n").as_bytes(),
            );
            assert!(refusal.replaces(LIBRARY, &heads));
            assert!(
                refusal.left().expect("something is sent").starts_with(begins.as_bytes()),
                "{begins}"
            );
        }
    }

    #[test]
    fn what_is_no_refusal_passes() {
        for other in [
            b"HTTP/1.1 100 Continue\r\n\r\n".as_slice(),
            b"HTTP/1.1 200 OK\r\n",
            b"\0\0\x12\x04\0\0\0\0\0",
            b"HTTP/1.1 ",
            b"",
        ] {
            let mut refusal = refusal();
            assert!(
                !refusal.replaces(other, &Heads::default()) && !refusal.is_made(),
                "{}",
                String::from_utf8_lossy(other)
            );
        }
    }
}
