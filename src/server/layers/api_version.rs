//! Finds the version of the API that a call asks for, and adds it to the response.

use http::{HeaderValue, Request, Response};
use tonic::body::Body;

use super::around::{Around, Inner};
use super::common_headers::API_VERSION as HEADER;
use crate::access::{ApiVersion, Caller};
use crate::error::{Error, Form};

/// Puts the [`ApiVersion`] of the call among its extensions: the one that the call names, or the one that its key is pinned to. Every
/// response has it. A version that does not exist is a fault of the request.
#[derive(Clone)]
pub struct Version;

impl Around for Version {
    async fn around<S: Inner>(
        self,
        mut request: Request<Body>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error> {
        let Some(pinned) = request.extensions().get::<Caller>().map(|caller| caller.api_version)
        else {
            return inner.call(request).await;
        };
        let version = named(&request).unwrap_or_else(|error| {
            Form::of(request.extensions_mut()).note(&error.into_violations());
            None
        });
        let answered = version.unwrap_or(pinned);
        request.extensions_mut().insert(answered);
        let mut response = inner.call(request).await?;
        if let Ok(version) = HeaderValue::try_from(answered.to_string()) {
            response.headers_mut().insert(HEADER, version);
        }
        Ok(response)
    }
}

fn named(request: &Request<Body>) -> Result<Option<ApiVersion>, Error> {
    let mut given = request.headers().get_all(HEADER).iter();
    match (given.next(), given.next()) {
        (Some(_), Some(_)) => Err(Error::invalid("Api-Version", "duplicate", "is given twice")),
        (named, _) => {
            named.map(|named| ApiVersion::parse(named.to_str().unwrap_or_default())).transpose()
        }
    }
}
