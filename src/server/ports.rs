//! The addresses of the listeners, for a caller at the wrong one. Their ports are reported and no host: that is the caller's own name for
//! this host.

use std::net::SocketAddr;

use http::{HeaderMap, Method, Request, StatusCode, Version, header};
use tonic::Status;

use super::layers::REFLECTION;
use super::listener::Unreadable;
use crate::error::{Code, Error};
use crate::gateway;
use crate::limits::answers::{HEADERS, URI_BYTES};
use crate::limits::requests::MESSAGE_BYTES;

/// Where a running service is reached. A listener that is not among its roles has no address.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// gRPC.
    pub grpc: Option<SocketAddr>,
    /// REST.
    pub http: Option<SocketAddr>,
    /// Probes and metrics.
    pub admin: SocketAddr,
}

/// Which listener this is, and where the others are.
#[derive(Clone, Debug)]
pub struct Port {
    sentence: String,
}

impl Port {
    /// The listener of REST.
    pub fn rest(addresses: &Addresses) -> Self {
        Port::named("REST", grpc(addresses).into_iter().collect())
    }

    /// The listener of gRPC.
    pub fn grpc(addresses: &Addresses, public_url: Option<&str>) -> Self {
        Port::named("gRPC", rest(addresses, public_url).into_iter().collect())
    }

    /// The listener of probes and metrics.
    pub fn admin(addresses: &Addresses, public_url: Option<&str>) -> Self {
        Port::named(
            "admin",
            rest(addresses, public_url).into_iter().chain(grpc(addresses)).collect(),
        )
    }

    fn named(name: &str, others: Vec<String>) -> Self {
        let others =
            if others.is_empty() { String::new() } else { format!("; {}", others.join(", and ")) };
        Port { sentence: format!("This is the {name} port{others}.") }
    }

    /// Says which it is, and where the others are.
    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    /// The failure of a gRPC call of this path at a listener of another protocol.
    pub fn not_grpc(&self, path: &str) -> Status {
        // Clients take this status from reflection for its own absence, and say nothing of the port.
        if path.starts_with(REFLECTION) {
            return Error::new(Code::UnsupportedMediaType, &*self.sentence).into();
        }
        Status::unimplemented(&*self.sentence)
    }

    /// The failure of a request that speaks another protocol than this listener.
    pub fn misdirected(&self, request: &Request<impl Sized>) -> Error {
        // gRPC refuses other media types by this status, as its specification says.
        let is_a_call = request.version() == Version::HTTP_2 && *request.method() == Method::POST;
        Error::new(
            if is_a_call { Code::UnsupportedMediaType } else { Code::NotFound },
            &*self.sentence,
        )
    }

    /// The failure of bytes that are not a request.
    pub fn unreadable(&self, unreadable: &Unreadable) -> Error {
        match unreadable.status {
            StatusCode::URI_TOO_LONG => {
                URI_BYTES.reached();
                gateway::uri_too_long()
            }
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                HEADERS.reached();
                gateway::headers_too_large()
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                MESSAGE_BYTES.reached();
                Error::new(
                    Code::PayloadTooLarge,
                    "The body is longer, by its `Content-Length`, than any that is taken.",
                )
            }
            _ if unreadable.is_length => {
                let description = "must be a number of bytes, in digits alone, and given once";
                Error::invalid("Content-Length", "invalid", description)
            }
            _ if unreadable.is_tls => {
                let message = format!(
                    "{} It speaks no TLS: use `http`, or the address of what speaks TLS before it.",
                    self.sentence
                );
                Error::new(Code::ValidationFailed, message)
            }
            _ => {
                let message = format!(
                    "This is not a valid request of HTTP/1.1 or HTTP/2: its first line, a header, or how its body ends. {}",
                    self.sentence
                );
                Error::new(Code::ValidationFailed, message)
            }
        }
    }
}

fn rest(addresses: &Addresses, public_url: Option<&str>) -> Option<String> {
    let address = addresses.http?;
    Some(public_url.map_or_else(
        || format!("REST is on port {}", address.port()),
        |url| format!("REST is at {url}"),
    ))
}

fn grpc(addresses: &Addresses) -> Option<String> {
    addresses.grpc.map(|address| format!("gRPC is on port {}", address.port()))
}

/// Returns whether these are the headers of a gRPC call; gRPC-Web is another protocol.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let media_type =
        headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
    media_type.starts_with(b"application/grpc") && !media_type.starts_with(b"application/grpc-web")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::listener::Begun;

    fn addresses(grpc: bool, http: bool) -> Addresses {
        let at = |port: u16| SocketAddr::from(([10, 1, 2, 3], port));
        Addresses { grpc: grpc.then(|| at(50051)), http: http.then(|| at(8080)), admin: at(9464) }
    }

    #[test]
    fn a_listener_says_what_it_is_and_where_others_are_and_no_address() {
        let both = addresses(true, true);
        assert_eq!(Port::rest(&both).sentence(), "This is the REST port; gRPC is on port 50051.");
        assert_eq!(Port::rest(&addresses(false, true)).sentence(), "This is the REST port.");
        assert_eq!(
            Port::grpc(&both, None).sentence(),
            "This is the gRPC port; REST is on port 8080."
        );
        let public = Some("https://api.example.com");
        assert_eq!(
            Port::grpc(&both, public).sentence(),
            "This is the gRPC port; REST is at https://api.example.com."
        );
        assert_eq!(
            Port::grpc(&addresses(true, false), public).sentence(),
            "This is the gRPC port."
        );
        assert_eq!(
            Port::admin(&both, None).sentence(),
            "This is the admin port; REST is on port 8080, and gRPC is on port 50051."
        );
    }

    #[test]
    fn each_protocol_is_refused_in_its_words() {
        let port = Port::rest(&addresses(true, true));
        let unreadable = |status, is_length, is_tls| Unreadable {
            status,
            is_length,
            is_tls,
            begun: Begun::default(),
        };
        let code = |status, is_tls| port.unreadable(&unreadable(status, false, is_tls)).code();
        let length = |status| port.unreadable(&unreadable(status, true, false));
        assert_eq!(length(StatusCode::PAYLOAD_TOO_LARGE).code(), Code::PayloadTooLarge);
        assert_eq!(length(StatusCode::BAD_REQUEST).violations()[0].field, "Content-Length");
        assert_eq!(code(StatusCode::URI_TOO_LONG, false), Code::UriTooLong);
        assert_eq!(code(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, false), Code::HeadersTooLarge);
        let tls = port.unreadable(&unreadable(StatusCode::BAD_REQUEST, false, true));
        assert!(tls.message().contains("no TLS"), "{tls}");
        let request =
            |version, method| Request::builder().version(version).method(method).body(()).unwrap();
        assert_eq!(
            port.misdirected(&request(Version::HTTP_2, Method::POST)).code(),
            Code::UnsupportedMediaType
        );
        assert_eq!(port.misdirected(&request(Version::HTTP_2, Method::GET)).code(), Code::NotFound);
        assert_eq!(
            port.misdirected(&request(Version::HTTP_11, Method::POST)).code(),
            Code::NotFound
        );
    }
}
