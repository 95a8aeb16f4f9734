//! Authenticates the caller, and checks whether the key may call the method.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request, Response};
use prost_reflect::{DescriptorPool, Value};
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;

use super::around::{Around, Inner};
use super::refuse;
use crate::access::{Authenticator, Caller, Scope};
use crate::error::{Code, Error};
use crate::limits::listeners::IDLE_SECONDS_WITH_KEY;
use crate::server::client::Client;
use crate::server::listener::Arrival;

/// The option of a method that names the scope it needs.
const REQUIRED_SCOPE: &str = "offboard.v1.required_scope";
/// The realm of the key in the response: `acme/live`. A caller that finds nothing may have used the wrong one.
pub const REALM: &str = "offboard-realm";
/// How soon a caller may come again whose realm has its share of connections: then an idle one gives way.
const AFTER_CONNECTIONS: Duration = Duration::from_secs(IDLE_SECONDS_WITH_KEY);
/// How the paths of reflection begin, in both versions.
pub const REFLECTION: &str = "/grpc.reflection.";

/// The scope that each method needs, by path, as its proto declares it.
#[derive(Clone, Debug)]
pub struct Scopes(Arc<HashMap<String, Option<Scope>>>);

impl Scopes {
    /// Those of the services in the descriptors.
    pub fn declared(descriptors: &DescriptorPool) -> Self {
        let option = descriptors.get_extension_by_name(REQUIRED_SCOPE);
        let mut scopes = HashMap::new();
        for method in
            descriptors.services().flat_map(|service| service.methods().collect::<Vec<_>>())
        {
            let scope = option.as_ref().and_then(|option| {
                match method.options().get_extension(option).as_ref() {
                    Value::String(name) => Scope::parse(name),
                    _ => None,
                }
            });
            scopes.insert(
                format!("/{}/{}", method.parent_service().full_name(), method.name()),
                scope,
            );
        }
        Scopes(Arc::new(scopes))
    }

    /// Returns whether a method changes something: it needs another scope than one to read.
    pub fn changes(&self, path: &str) -> bool {
        self.0.get(path).is_some_and(|scope| scope.is_some_and(|scope| !scope.only_reads()))
    }

    /// Methods that declare no scope that there is; nobody can call them.
    pub fn undeclared(&self) -> Vec<&str> {
        self.0.iter().filter(|(_, scope)| scope.is_none()).map(|(path, _)| path.as_str()).collect()
    }
}

/// Puts a [`Caller`] among the extensions of each request to our own services, or refuses it. Health needs no key, and reflection none
/// unless it is set to ask for one; a method that does not exist is left to be refused as such. [`Authorize`] checks the scopes of the
/// key.
#[derive(Clone)]
pub struct Auth {
    authenticator: Authenticator,
    scopes: Scopes,
    reflection_needs_key: bool,
}

impl Auth {
    /// Authenticates by `authenticator` and asks for `scopes`, and for any key where `reflection_needs_key`.
    pub fn new(authenticator: Authenticator, scopes: Scopes, reflection_needs_key: bool) -> Self {
        Auth { authenticator, scopes, reflection_needs_key }
    }

    /// The requirements of the method at this path, if it needs a key at all.
    fn asks(&self, path: &str) -> Option<Asks> {
        match self.scopes.0.get(path) {
            Some(Some(scope)) => Some(Asks::Scope(*scope)),
            Some(None) => Some(Asks::Impossible),
            None => {
                (self.reflection_needs_key && path.starts_with(REFLECTION)).then_some(Asks::Key)
            }
        }
    }

    async fn admit(
        &self,
        presented: Result<String, Error>,
        address: Option<IpAddr>,
        asks: Asks,
    ) -> Result<Caller, Error> {
        if asks == Asks::Impossible {
            return Err(Error::new(Code::PermissionDenied, "Nobody may call this method."));
        }
        self.authenticator.authenticate(&presented?, address).await
    }
}

impl Around for Auth {
    async fn around<S: Inner>(
        self,
        mut request: Request<Body>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error> {
        let Some(asks) = self.asks(request.uri().path()) else { return inner.call(request).await };
        let presented = credential(request.headers()).map(str::to_owned);
        let address = caller_address(request.extensions());
        match self.admit(presented, address, asks).await {
            Ok(caller) => {
                if let Some(arrival) = request.extensions().get::<Arrival>()
                    && arrival.prove(caller.realm.id()).is_err()
                {
                    let message = "The organisation of this key has as many connections as it may; call on those that it has, or close some.";
                    return Ok(refuse(
                        Error::new(Code::RateLimitExceeded, message).retry_after(AFTER_CONNECTIONS),
                    ));
                }
                let realm = HeaderValue::try_from(format!(
                    "{}/{}",
                    caller.realm.org(),
                    caller.realm.mode()
                ))
                .ok();
                request.extensions_mut().insert(caller);
                request.extensions_mut().insert(asks);
                let mut answer = inner.call(request).await?;
                if let Some(realm) = realm {
                    answer.headers_mut().insert(REALM, realm);
                }
                Ok(answer)
            }
            Err(error) => {
                if error.code() != Code::Unavailable
                    && let Some(arrival) = request.extensions().get::<Arrival>()
                {
                    arrival.disprove();
                }
                Ok(refuse(error))
            }
        }
    }
}

/// The requirements of a method.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// A key with a scope.
    Scope(Scope),
    /// A key, whatever it may do.
    Key,
    /// A scope that does not exist.
    Impossible,
}

/// Refuses callers whose key lacks the scope of the method. It comes after the limit of calls, so that refused calls count, and their
/// responses have the same headers as every other.
#[derive(Clone, Copy)]
pub struct Authorize;

impl Around for Authorize {
    async fn around<S: Inner>(
        self,
        request: Request<Body>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error> {
        let refusal =
            match (request.extensions().get::<Asks>(), request.extensions().get::<Caller>()) {
                (Some(Asks::Scope(scope)), Some(caller)) => caller.require(*scope).err(),
                _ => None,
            };
        match refusal {
            Some(error) => Ok(refuse(error)),
            None => inner.call(request).await,
        }
    }
}

/// The credential of the caller: `Authorization: Bearer SECRET` or `apikey: SECRET`; both, if they are the same. Two different credentials
/// are refused: one proxy on the way may have used the first and another the second.
pub(super) fn credential(headers: &HeaderMap) -> Result<&str, Error> {
    let bearer = only(headers, http::header::AUTHORIZATION)?.map(bearer).transpose()?;
    let apikey = only(headers, HeaderName::from_static("apikey"))?
        .map(|value| readable(value, "apikey").map(str::trim))
        .transpose()?;
    match (bearer, apikey) {
        (Some(bearer), Some(apikey)) if bearer != apikey => Err(invalid(
            "The headers `authorization` and `apikey` present two credentials; send one.",
        )),
        (Some(secret), _) | (None, Some(secret)) => Ok(secret),
        (None, None) => Err(Error::new(
            Code::AuthenticationRequired,
            "Send a key as `Authorization: Bearer KEY` or `apikey: KEY`.",
        )),
    }
}

fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&HeaderValue>, Error> {
    let mut values = headers.get_all(&name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => {
            Err(invalid(format!("The header `{name}` is given twice; send one credential.")))
        }
        (value, None) => Ok(value),
    }
}

fn bearer(value: &HeaderValue) -> Result<&str, Error> {
    let value = readable(value, "authorization")?;
    let (scheme, secret) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(invalid("The header `authorization` must be `Bearer` and a key."));
    }
    Ok(secret.trim())
}

fn readable<'v>(value: &'v HeaderValue, name: &str) -> Result<&'v str, Error> {
    value.to_str().map_err(|_| invalid(format!("The header `{name}` is not readable.")))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidCredentials, message)
}

/// The address that a key is tried from: the client's, where that is known.
pub(super) fn caller_address(extensions: &Extensions) -> Option<IpAddr> {
    match Client::of(extensions) {
        Some(client) => client.address,
        None => peer(extensions),
    }
}

/// The address that limits count the call by: the client's, or that of the last proxy before it that is known.
pub(super) fn peer(extensions: &Extensions) -> Option<IpAddr> {
    let over_http = extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    over_http.or_else(|| {
        extensions
            .get::<TcpConnectInfo>()
            .and_then(TcpConnectInfo::remote_addr)
            .map(|address| address.ip())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_ours_declares_a_scope_that_there_is() {
        let descriptors = DescriptorPool::decode(crate::proto::DESCRIPTOR_SET).unwrap();
        let scopes = Scopes::declared(&descriptors);
        assert_eq!(scopes.undeclared(), Vec::<&str>::new());
        assert_eq!(
            scopes.0["/offboard.v1.BulkDeleteService/StartBulkDelete"],
            Some(Scope::EntitiesDelete)
        );
    }

    #[test]
    fn a_key_is_taken_from_either_header() {
        let headers = |name: &'static str, value: &str| {
            HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())])
        };
        let code = |headers: &HeaderMap| {
            credential(headers).map(str::to_owned).map_err(|error| error.code())
        };
        assert_eq!(code(&headers("authorization", "bearer sk")), Ok("sk".to_owned()));
        assert_eq!(code(&headers("apikey", "sk")), Ok("sk".to_owned()));
        assert_eq!(code(&headers("authorization", "Basic eDp5")), Err(Code::InvalidCredentials));
        assert_eq!(code(&HeaderMap::new()), Err(Code::AuthenticationRequired));
    }

    #[test]
    fn who_presents_two_credentials_is_refused() {
        let code = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            credential(&headers).map(str::to_owned).map_err(|error| error.code())
        };
        let (one, other) = (("authorization", "Bearer sk_1"), ("authorization", "Bearer sk_2"));
        assert_eq!(
            code(&[one, ("apikey", "sk_1")]),
            Ok("sk_1".to_owned()),
            "one credential, said twice"
        );
        for two in [
            vec![one, other],
            vec![one, one],
            vec![one, ("apikey", "sk_2")],
            vec![("apikey", "sk_1"), ("apikey", "sk_1")],
        ] {
            assert_eq!(code(&two), Err(Code::InvalidCredentials), "{two:?}");
        }
        assert_eq!(
            code(&[("authorization", "Basic x"), ("apikey", "sk_1")]),
            Err(Code::InvalidCredentials)
        );
    }
}
