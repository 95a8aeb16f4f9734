//! Finds the version of the API that a call speaks, and tells it.

use http::{HeaderValue, Request, Response};
use tonic::body::Body;

use super::around::{Around, Inner};
use super::refuse;
use super::told::API_VERSION as HEADER;
use crate::access::{ApiVersion, Caller};

/// Puts the [`ApiVersion`] of the call among its extensions: the one that the call names, or the one that its key is pinned to. Every answer
/// tells it. A version that there is not is refused.
#[derive(Clone)]
pub struct Version;

impl Around for Version {
    async fn around<S: Inner>(self, mut request: Request<Body>, mut inner: S) -> Result<Response<Body>, S::Error> {
        let Some(pinned) = request.extensions().get::<Caller>().map(|caller| caller.api_version) else { return inner.call(request).await };
        let version = match request.headers().get(HEADER) {
            Some(named) => ApiVersion::parse(named.to_str().unwrap_or_default()),
            None => Ok(pinned),
        };
        let answered = *version.as_ref().unwrap_or(&pinned);
        let mut response = match version {
            Ok(version) => {
                request.extensions_mut().insert(version);
                inner.call(request).await?
            }
            Err(error) => refuse(error),
        };
        if let Ok(version) = HeaderValue::try_from(answered.to_string()) {
            response.headers_mut().insert(HEADER, version);
        }
        Ok(response)
    }
}
