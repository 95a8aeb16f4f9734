//! The services and the one stack of layers in front of them, for both protocols.

use std::num::NonZeroU32;
use std::time::Duration;

use http::{Request, Response};
use prost_reflect::DescriptorPool;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tower::layer::layer_fn;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt};

use super::drain::Drain;
use super::layers::{
    AddressRate, AroundLayer, Auth, Authorize, Bodies, Closing, CommonHeaders, Deadline, Failures,
    Forms, Idempotency, Keyless, Load, Methods, Panics, RateLimit, RequestIds, Responses, Scopes,
    Share, Trace, UnknownHeaders, Version,
};
use crate::access::{AccessService, Authenticator, Quota};
use crate::bulk_delete::BulkDeleteService;
use crate::config::Shares;
use crate::db::Db;
use crate::entity::{AttributeIndexService, EntityService};
use crate::events::{EventService, Hub, Watching};
use crate::jobs::Traffic;
use crate::limits::memory::BodyMemory;
use crate::limits::responses::ResponseMemory;
use crate::offboarding::{OffboardingService, RemovalService};
use crate::portfolio::PortfolioService;
use crate::proto::DESCRIPTOR_SET;
use crate::proto::v1::access_service_server::AccessServiceServer;
use crate::proto::v1::attribute_index_service_server::AttributeIndexServiceServer;
use crate::proto::v1::bulk_delete_service_server::BulkDeleteServiceServer;
use crate::proto::v1::entity_service_server::EntityServiceServer;
use crate::proto::v1::event_service_server::EventServiceServer;
use crate::proto::v1::offboarding_service_server::OffboardingServiceServer;
use crate::proto::v1::portfolio_service_server::PortfolioServiceServer;
use crate::proto::v1::removal_service_server::RemovalServiceServer;
use crate::shares::Budget;

/// The stack as a service.
pub type Stack = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// The limits that the stack enforces, and the link for callers that exceed them.
#[derive(Clone)]
pub struct Limits {
    /// The largest message, in bytes.
    pub message_bytes: usize,
    /// The memory for bodies.
    pub bodies: BodyMemory,
    /// The memory for responses.
    pub responses: ResponseMemory,
    /// How often each key and each realm may call.
    pub calls: RateLimit,
    /// How often each address may call a second without a valid key.
    pub address_failures: Option<NonZeroU32>,
    /// The most calls with a key at once.
    pub concurrent_calls: usize,
    /// The shares that one realm and one key have of calls and streams.
    pub shares: Shares,
    /// The most streams of reflection at once.
    pub reflection_streams: usize,
    /// True if reflection is for callers with a key.
    pub reflection_needs_key: bool,
    /// The longest a call may take.
    pub request_timeout: Duration,
    /// How much is kept of the calls of a realm.
    pub kept: Quota,
    /// Where callers reach the REST listener, for links to what a failure means.
    pub public_url: Option<String>,
}

/// The dependencies of services besides the database: most serve the streams that do not end by themselves.
#[derive(Clone)]
pub struct Streams {
    /// Wakes them.
    pub hub: Hub,
    /// Knows when the keys of their callers end.
    pub authenticator: Authenticator,
    /// Cancelled when the process takes no more calls.
    pub closing: CancellationToken,
    /// True if there is a mail server.
    pub sends_mail: bool,
    /// How many keys a realm may have that have not ended.
    pub keys_per_realm: u32,
}

/// The capabilities as gRPC services.
pub fn services(db: &Db, streams: &Streams, message_bytes: usize) -> Routes {
    let Streams { hub, authenticator, closing, sends_mail, keys_per_realm } = streams.clone();
    let watching = Watching {
        db: db.clone(),
        hub,
        authenticator: authenticator.clone(),
        closing: closing.clone(),
    };
    let events = EventService::new(watching.clone());
    macro_rules! limited {
        ($server:ident, $service:expr) => {
            $server::new($service)
                .max_decoding_message_size(message_bytes)
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Zstd)
                .send_compressed(CompressionEncoding::Gzip)
                .send_compressed(CompressionEncoding::Zstd)
        };
    }
    Routes::new(limited!(
        EntityServiceServer,
        EntityService::new(db.clone(), authenticator.clone(), closing)
    ))
    .add_service(limited!(AttributeIndexServiceServer, AttributeIndexService::new(db.clone())))
    .add_service(limited!(PortfolioServiceServer, PortfolioService::new(db.clone(), authenticator)))
    .add_service(limited!(RemovalServiceServer, RemovalService::new(db.clone())))
    .add_service(limited!(OffboardingServiceServer, OffboardingService::new(watching.clone())))
    .add_service(limited!(BulkDeleteServiceServer, BulkDeleteService::new(watching, sends_mail)))
    .add_service(limited!(EventServiceServer, events))
    .add_service(limited!(AccessServiceServer, AccessService::new(db.clone(), keys_per_realm)))
}

/// Reflection in both versions that clients speak: `grpcurl` and others ask for v1 first, older ones know v1alpha alone.
pub fn reflection(routes: Routes) -> Result<Routes, tonic_reflection::server::Error> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .include_reflection_service(false)
            .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(
                tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
            )
    };
    Ok(routes.add_service(builder().build_v1()?).add_service(builder().build_v1alpha()?))
}

/// The shares of calls and of streams, which together are all calls at once.
fn share(limits: &Limits, methods: Methods) -> Share {
    let streams_at_once = limits.shares.max_concurrent_streams;
    let calls_at_once = limits.concurrent_calls.saturating_sub(streams_at_once);
    let (realm, key) = limits.shares.calls(calls_at_once);
    let calls = Budget::new(calls_at_once, realm, key);
    let (realm, key) = limits.shares.streams();
    let streams = Budget::new(streams_at_once, realm, key);
    Share::new(methods, calls, streams, limits.shares.stream_silence_timeout)
}

impl Limits {
    /// The layers that complete failures and responses.
    pub fn courtesy(&self, authenticator: &Authenticator) -> (CommonHeaders, Failures) {
        let reported = CommonHeaders::new(authenticator.clone(), self.calls.clone());
        (reported, Failures::new(self.message_bytes, self.public_url.as_deref()))
    }
}

/// The stack that every call passes, from the outside in; `layers` explains the order.
pub fn layers(
    limits: &Limits,
    authenticator: Authenticator,
    descriptors: &DescriptorPool,
    drain: &Drain,
    traffic: Traffic,
) -> impl Layer<Routes, Service = Stack> + Clone + Send + Sync + 'static {
    let methods = Methods::served();
    let scopes = Scopes::declared(descriptors);
    let (reported, failures) = limits.courtesy(&authenticator);
    let layers = ServiceBuilder::new()
        .layer(AroundLayer(RequestIds))
        .layer(AroundLayer(reported))
        .layer(AroundLayer(Trace::new(methods.clone())))
        .layer(AroundLayer(failures))
        .layer(AroundLayer(Panics))
        .layer(AroundLayer(Closing::new(methods.clone(), drain.listeners(), drain.calls())))
        .layer(AroundLayer(Keyless::new(methods.clone(), limits.reflection_streams)))
        .layer(AroundLayer(Deadline::new(methods.clone(), limits.request_timeout)))
        .layer(AroundLayer(AddressRate::new(
            methods.clone(),
            authenticator.clone(),
            limits.address_failures,
        )))
        .layer(AroundLayer(Auth::new(authenticator, scopes.clone(), limits.reflection_needs_key)))
        .layer(AroundLayer(Load::new(limits.concurrent_calls, traffic)))
        .layer(AroundLayer(limits.calls.clone()))
        .layer(AroundLayer(Version))
        .layer(AroundLayer(Authorize))
        .layer(AroundLayer(share(limits, methods.clone())))
        .layer(AroundLayer(Idempotency::new(limits.kept)))
        .layer(AroundLayer(Bodies::new(limits.bodies.clone(), limits.message_bytes)))
        .layer(AroundLayer(Responses::new(limits.responses.clone(), methods.clone())))
        .layer(AroundLayer(UnknownHeaders(scopes)))
        .layer(AroundLayer(Forms::new(methods)))
        .into_inner();
    layer_fn(move |routes: Routes| {
        BoxCloneSyncService::new(layers.layer(routes.prepare()).map_err(BoxError::from))
    })
}
