//! Fetches the keys of an issuer: one request, without redirects, bounded in bytes and in time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use crate::access::tokens::jwks::KeySet;
use crate::limits::tokens::{JWKS_BYTES, JWKS_BYTES_AT_MOST, JWKS_FETCH_SECONDS, JWKS_TIME};

/// How long a fetch may take, from the first look for its host to the last byte.
const FETCH_TIME: Duration = Duration::from_secs(JWKS_FETCH_SECONDS);
/// The most bytes of the head of a response.
const HEAD_BYTES: usize = 64 << 10;

/// Where the keys of an issuer are fetched.
#[derive(Clone)]
pub struct Address {
    uri: Uri,
    /// The root certificates that its server is checked by, in PEM; else those of the system.
    roots: Option<Vec<u8>>,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl Address {
    /// This address. Whether it may be one of plain HTTP is for whoever reads it to decide.
    pub fn new(uri: Uri, roots: Option<Vec<u8>>) -> Result<Address, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let is_plain = uri.scheme_str() == Some("http");
        let config = match &roots {
            Some(pem) => config.with_root_certificates(certificates(pem)?),
            // Nothing is checked there, and the system may have none.
            None if is_plain => config.with_root_certificates(RootCertStore::empty()),
            None => config.with_native_roots().map_err(|error| {
                format!("cannot be checked by the root certificates of the system: {error}")
            })?,
        };
        let connector = HttpsConnectorBuilder::new().with_tls_config(config.with_no_client_auth());
        let connector = if is_plain { connector.https_or_http() } else { connector.https_only() };
        let connector = connector.enable_http1().build();
        // One request in minutes: no connection is kept for the next.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .http1_max_buf_size(HEAD_BYTES)
            .build(connector);
        Ok(Address { uri, roots, client })
    }

    /// Fetches the keys that are there now, or says what is wrong with what is there instead.
    pub async fn fetch(&self) -> Result<KeySet, String> {
        match timeout(FETCH_TIME, self.ask()).await {
            Ok(text) => KeySet::parse(&text?),
            Err(_) => {
                JWKS_TIME.reached();
                Err(format!("takes longer than {JWKS_FETCH_SECONDS} seconds"))
            }
        }
    }

    async fn ask(&self) -> Result<Bytes, String> {
        let request = Request::get(self.uri.clone())
            .header(ACCEPT, "application/jwk-set+json, application/json")
            .header(ACCEPT_ENCODING, "identity")
            .header(USER_AGENT, concat!("offboard/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let response = self.client.request(request).await.map_err(|error| chain(&error))?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            return Err(format!("responds with the status {}", head.status.as_u16()));
        }
        check_type(&head.headers)?;
        match Limited::new(body, JWKS_BYTES_AT_MOST).collect().await {
            Ok(read) => Ok(read.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                JWKS_BYTES.reached();
                Err(format!("responds with more than {JWKS_BYTES_AT_MOST} bytes"))
            }
            Err(error) => Err(chain(error.as_ref())),
        }
    }

    #[cfg(test)]
    pub(super) fn example() -> Address {
        let pem = include_bytes!("../../../tests/kit/tls/localhost.crt");
        Address::new(Uri::from_static("https://localhost/keys"), Some(pem.to_vec())).unwrap()
    }
}

/// Fails unless the response is JSON as it is: a page that says that something is wrong is not.
fn check_type(headers: &HeaderMap) -> Result<(), String> {
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err("responds with a compressed body, which was not asked for".to_owned());
    }
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    let kind = kind.trim().to_ascii_lowercase();
    let is_json =
        kind == "application/json" || kind.starts_with("application/") && kind.ends_with("+json");
    if is_json { Ok(()) } else { Err(format!("responds with the media type {kind:?}, not JSON")) }
}

/// The root certificates in a file in PEM, of which there must be one and all must be readable.
pub(super) fn certificates(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let added = certificate
            .map_err(|error| error.to_string())
            .and_then(|found| roots.add(found).map_err(|error| error.to_string()));
        added.map_err(|error| format!("has a certificate that cannot be read: {error}"))?;
    }
    if roots.is_empty() { Err("has no certificate in PEM".to_owned()) } else { Ok(roots) }
}

/// An error with its causes, which say more than it does.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    crate::error::one_line(&text)
}

impl PartialEq for Address {
    fn eq(&self, other: &Address) -> bool {
        self.uri == other.uri && self.roots == other.roots
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.uri)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_taken_and_pages_are_not() {
        let check = |name: http::HeaderName, value: &str| {
            let json = (CONTENT_TYPE, "application/json".parse().unwrap());
            let mut headers = HeaderMap::from_iter([json]);
            headers.insert(name, value.parse().unwrap());
            check_type(&headers)
        };
        for good in ["application/json", "Application/JWK-Set+JSON; charset=utf-8"] {
            assert_eq!(check(CONTENT_TYPE, good), Ok(()), "{good}");
        }
        for bad in ["text/html", "text/plain", "", "text/x+json", "application/jsonp"] {
            assert!(check(CONTENT_TYPE, bad).is_err(), "{bad}");
        }
        assert!(
            check(CONTENT_ENCODING, "gzip").is_err() && check(CONTENT_ENCODING, "identity").is_ok()
        );
    }

    #[test]
    fn an_address_is_the_same_where_its_server_is_checked_by_the_same() {
        let one = Address::example();
        let uri = |text: &'static str| Uri::from_static(text);
        assert_eq!(one, Address::new(uri("https://localhost/keys"), one.roots.clone()).unwrap());
        assert_ne!(one, Address::new(uri("https://localhost/other"), one.roots.clone()).unwrap());
        assert!(
            Address::new(uri("https://localhost/keys"), Some(b"no certificate".to_vec())).is_err()
        );
    }
}
