//! The way to a running service.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use http::Uri;
use prost_reflect::DescriptorPool;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::config::roots_fault;
use crate::error::{Error, Result};
use crate::gateway::{Bodies, request_id};
use crate::proto::DESCRIPTOR_SET;
use crate::server::layers::auth::REALM;

/// How long a service may take to accept a connection, and again to agree on TLS.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a service is, and how its certificate is checked.
#[derive(Args, Clone, Debug)]
pub struct Server {
    /// Where the service speaks gRPC; at an https URL by TLS
    #[arg(long, env = "OFFBOARD_SERVER", default_value = "http://127.0.0.1:50051", value_name = "URL", value_parser = url)]
    pub server: String,

    /// File with root certificates that the service is checked by at an https URL, instead of those of the system
    #[arg(long, env = "OFFBOARD_SERVER_CA_FILE", value_name = "FILE")]
    server_ca_file: Option<PathBuf>,
}

impl Server {
    /// A service of this process.
    pub fn here(address: SocketAddr) -> Server {
        Server { server: format!("http://{address}"), server_ca_file: None }
    }

    /// The service at this URL, checked by these certificates at an https URL, or by those of the system.
    pub fn at(server: String, server_ca_file: Option<PathBuf>) -> Server {
        Server { server, server_ca_file }
    }

    /// True if the connection uses TLS.
    pub fn is_tls(&self) -> bool {
        has_scheme(&self.server, &["https"])
    }

    /// Connects.
    pub async fn connect(&self) -> Result<Channel> {
        self.endpoint()?.connect().await.map_err(|error| self.unreachable(error))
    }

    /// The endpoint. An https URL uses TLS, an http URL does not.
    pub fn endpoint(&self) -> Result<Endpoint> {
        let endpoint = Endpoint::from_shared(self.server.clone())
            .map_err(|error| self.unreachable(error))?
            .connect_timeout(PATIENCE);
        if !self.is_tls() {
            return match &self.server_ca_file {
                Some(_) => Err(Error::invalid(
                    "--server-ca-file",
                    "invalid",
                    format!("needs an https URL, which {} is not", self.server),
                )),
                None => Ok(endpoint),
            };
        }
        let tls = ClientTlsConfig::new().timeout(PATIENCE);
        let tls = match &self.server_ca_file {
            Some(file) => tls.ca_certificate(certificates(file)?),
            None => {
                if let Some((variable, fault)) = roots_fault() {
                    return Err(Error::invalid(
                        variable,
                        "invalid",
                        format!("{fault}; {} is checked by it", self.server),
                    ));
                }
                tls.with_native_roots()
            }
        };
        endpoint.tls_config(tls).map_err(|error| self.unreachable(error))
    }

    /// The failure of a connection.
    pub fn unreachable(&self, error: tonic::transport::Error) -> Error {
        if self.is_tls() && causes(&error).any(|cause| cause.contains("InvalidContentType")) {
            let message = format!(
                "What listens at {} speaks no TLS: write http for https, or give the address of what speaks TLS before it.",
                self.server
            );
            return Error::unavailable(message).caused_by(error);
        }
        Error::unavailable(format!("{} cannot be reached.", self.server)).caused_by(error)
    }
}

/// Explains a response that is not gRPC: it comes from another port of the service, from an older version, or from another server.
const NO_GRPC: &str = "What listens there speaks no gRPC. `--server` takes the port of gRPC, 50051 unless it was set otherwise.";

/// The same where the connection ended, as it does when the service is stopped too.
const CLOSED: &str = "The connection was closed without a response: the service has stopped, or what listens there speaks no gRPC. `--server` takes the port of gRPC, 50051 unless it was \
                      set otherwise.";

/// The message for a failed call: that of the service, or that the response is not from one.
pub fn failure_text(status: &Status) -> String {
    let is_foreign = |words: &str| {
        let signs = [
            "h2 protocol error",
            "http2 error",
            "invalid compression flag",
            "grpc-status header missing",
            "invalid content type",
        ];
        signs.iter().any(|sign| words.contains(sign))
    };
    let source = std::error::Error::source(status);
    if is_foreign(status.message())
        || source.is_some_and(|source| causes(source).any(|cause| is_foreign(&cause)))
    {
        return NO_GRPC.to_owned();
    }
    if ["operation was canceled", "transport error"]
        .iter()
        .any(|end| status.message().contains(end))
    {
        return CLOSED.to_owned();
    }
    let message = if status.message().is_empty() {
        format!("The service returned {}.", status.code())
    } else {
        status.message().to_owned()
    };
    // The id by which an operator finds a failure that the caller cannot fix.
    let is_faulty = matches!(
        status.code(),
        Code::Internal
            | Code::Unknown
            | Code::DataLoss
            | Code::Unavailable
            | Code::DeadlineExceeded
    );
    match id_of(status).filter(|_| is_faulty) {
        Some(id) => format!("{message} Its request id is {id}."),
        None => message,
    }
}

/// The id by which the service knows a call that failed.
fn id_of(status: &Status) -> Option<String> {
    let reported =
        status.get_details_request_info().map(|info| info.request_id).filter(|id| !id.is_empty());
    reported.or_else(|| Some(status.metadata().get(request_id::HEADER)?.to_str().ok()?.to_owned()))
}

/// The realm of the key, from the response: `acme (live)`.
pub fn realm_of(metadata: &MetadataMap) -> Option<String> {
    let (org, mode) = realm(metadata)?;
    Some(format!("{org} ({mode})"))
}

/// The same as the organisation and its mode.
pub fn realm(metadata: &MetadataMap) -> Option<(&str, &str)> {
    metadata.get(REALM)?.to_str().ok()?.rsplit_once('/')
}

/// An error and its causes, in words.
fn causes<'e>(error: &'e (dyn std::error::Error + 'static)) -> impl Iterator<Item = String> + 'e {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string)
}

/// The credential that a caller sends with each call.
pub fn credential(secret: &str) -> Result<MetadataValue<Ascii>> {
    format!("Bearer {secret}")
        .parse()
        .map_err(|_| Error::invalid("--key", "invalid", "must be the secret of a key"))
}

/// A request with the credential of a key.
pub fn request<T>(message: T, key: &str) -> Result<Request<T>> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", credential(key)?);
    Ok(request)
}

/// The reader of the bodies that REST takes for the RPC of this full name.
pub fn bodies_of(rpc: &str) -> Result<Bodies> {
    let descriptors = DescriptorPool::decode(DESCRIPTOR_SET).map_err(Error::internal)?;
    let bodies = Bodies::of(&descriptors, rpc).map_err(Error::internal)?;
    bodies.ok_or_else(|| Error::internal(format!("{rpc} has a route")))
}

/// Reads the URL of a service.
pub fn url(text: &str) -> Result<String, String> {
    if has_scheme(text, &["http", "https"]) {
        Ok(text.to_owned())
    } else {
        Err("must be http://HOST:PORT or https://HOST:PORT".to_owned())
    }
}

fn has_scheme(url: &str, known: &[&str]) -> bool {
    url.parse().is_ok_and(|uri: Uri| {
        uri.host().is_some() && uri.scheme_str().is_some_and(|scheme| known.contains(&scheme))
    })
}

fn certificates(file: &Path) -> Result<Certificate> {
    let wrong = |fault: String| {
        Error::invalid("--server-ca-file", "invalid", format!("{} {fault}", file.display()))
    };
    let pem = std::fs::read(file).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
        return Err(wrong("has no certificate in PEM".to_owned()));
    }
    Ok(Certificate::from_pem(pem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_scheme_that_is_known_and_a_host() {
        for good in [
            "http://127.0.0.1:50051",
            "https://api.example.com",
            "http://[::1]:50051",
            "HTTPS://api.example.com:443/",
        ] {
            assert_eq!(url(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            " ",
            "127.0.0.1:50051",
            "localhost:50051",
            "grpc://host:1",
            "ftp://host",
            "https:host",
            "https://",
        ] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_only_the_service_can_mend_is_reported_with_its_request_id() {
        let mut status = Status::internal("Something went wrong.");
        status.metadata_mut().insert("x-request-id", "req_1".parse().unwrap());
        assert_eq!(failure_text(&status), "Something went wrong. Its request id is req_1.");
        let mut refused = Status::not_found("No task.");
        *refused.metadata_mut() = status.metadata().clone();
        assert_eq!(
            (failure_text(&refused), failure_text(&Status::internal("x"))),
            ("No task.".to_owned(), "x".to_owned())
        );
    }

    #[test]
    fn roots_are_for_tls_alone() {
        let server = |url: &str| Server {
            server: url.to_owned(),
            server_ca_file: Some("/nowhere/roots.pem".into()),
        };
        let reported =
            |url: &str| server(url).endpoint().unwrap_err().violations()[0].description.clone();
        assert_eq!(reported("http://host:1"), "needs an https URL, which http://host:1 is not");
        assert!(reported("https://host:1").starts_with("/nowhere/roots.pem cannot be read: "));
        assert!(server("HTTPS://host").is_tls() && !server("http://host").is_tls());
    }
}
