//! Adds the headers that every response has, whichever layer made it: the id of the request, the version of the API, and how often the key
//! may still call.
//!
//! Most responses have these headers from the layers within. This completes those that were made before: refusals of a layer further out,
//! of a listener, or of bytes that are not a request at all.

use std::net::IpAddr;

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request, Response};
use tonic::body::Body;

use super::RateLimit;
use super::around::{Around, Inner};
use super::auth::{caller_address, credential};
use super::request_id::HEADER as REQUEST_ID;
use crate::access::{ApiVersion, Authenticator, Caller};
use crate::gateway::request_id::sane_or_new;

/// The header that reports the version of the API.
pub const API_VERSION: HeaderName = HeaderName::from_static("api-version");
/// One of the headers that report the limit of calls: where it is, the others are.
const RATE_LIMIT: &str = "x-ratelimit-limit";

/// Completes responses. Clones are one and the same.
#[derive(Clone)]
pub struct CommonHeaders {
    authenticator: Authenticator,
    calls: RateLimit,
}

/// The parts of a request that decide these headers.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    request_id: Option<HeaderValue>,
    version: Option<HeaderValue>,
    secret: Option<String>,
    address: Option<IpAddr>,
}

impl Asked {
    /// By a request.
    pub fn by(headers: &HeaderMap, extensions: &Extensions) -> Self {
        Asked {
            request_id: headers.get(REQUEST_ID).cloned(),
            version: headers.get(API_VERSION).cloned(),
            secret: credential(headers).ok().map(str::to_owned),
            address: caller_address(extensions),
        }
    }
}

impl CommonHeaders {
    /// By the keys that `authenticator` remembers, and their remaining `calls`.
    pub fn new(authenticator: Authenticator, calls: RateLimit) -> Self {
        CommonHeaders { authenticator, calls }
    }

    /// Adds the headers that a response lacks. A call with a key that is remembered counts, if it has not yet; without a key, the response
    /// shows the limit of an unused key.
    pub fn complete(&self, asked: &Asked, answer: &mut HeaderMap) {
        if !answer.contains_key(REQUEST_ID) {
            let id = sane_or_new(asked.request_id.as_ref().and_then(|given| given.to_str().ok()));
            answer.extend(HeaderValue::try_from(id).ok().map(|id| (REQUEST_ID, id)));
        }
        let (has_version, has_limit) =
            (answer.contains_key(API_VERSION), answer.contains_key(RATE_LIMIT));
        if has_version && has_limit {
            return;
        }
        let caller = asked
            .secret
            .as_ref()
            .and_then(|secret| self.authenticator.remembered(secret, asked.address));
        if !has_version {
            let version = spoken(asked.version.as_ref(), caller.as_ref());
            answer.extend(
                HeaderValue::try_from(version.to_string())
                    .ok()
                    .map(|version| (API_VERSION, version)),
            );
        }
        if !has_limit {
            answer.extend(self.calls.report(caller.map(|caller| caller.key_id)));
        }
    }
}

/// The version that a request names, or else that of its key, or the latest.
fn spoken(named: Option<&HeaderValue>, caller: Option<&Caller>) -> ApiVersion {
    let named = named.and_then(|named| ApiVersion::parse(named.to_str().ok()?).ok());
    named.or(caller.map(|caller| caller.api_version)).unwrap_or_else(ApiVersion::latest)
}

impl Around for CommonHeaders {
    async fn around<S: Inner>(
        self,
        request: Request<Body>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error> {
        let asked = Asked::by(request.headers(), request.extensions());
        let mut answer = inner.call(request).await?;
        self.complete(&asked, answer.headers_mut());
        Ok(answer)
    }
}
