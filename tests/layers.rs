//! The layers around a real service of the gRPC library.

use std::time::Duration;

use offboard::jobs::Traffic;
use offboard::server::layers::{
    AroundLayer, Closing, Deadline, Failures, Keyless, Load, Methods, Panics, RequestIds, Trace,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::ServiceBuilder;

/// The whole stack in front of a real listener of tonic, as `serve` has it, and in process, as the gateway has it.
#[tokio::test(flavor = "multi_thread")]
async fn one_stack_fits_the_listener_and_the_gateway() {
    let methods = Methods::served();
    let closing = CancellationToken::new();
    let stack = ServiceBuilder::new()
        .layer(AroundLayer(RequestIds))
        .layer(AroundLayer(Trace::new(methods.clone())))
        .layer(AroundLayer(Failures::new(4 << 20, None)))
        .layer(AroundLayer(Panics))
        .layer(AroundLayer(Closing::new(
            methods.clone(),
            closing.clone(),
            CancellationToken::new(),
        )))
        .layer(AroundLayer(Keyless::new(methods.clone(), 8)))
        .layer(AroundLayer(Deadline::new(methods, Duration::from_secs(60))))
        .layer(AroundLayer(Load::new(8, Traffic::default())));
    let (_reporter, health) = tonic_health::server::health_reporter();

    let mut in_process =
        HealthClient::new(stack.service(tonic::service::Routes::new(health.clone())));
    let answer = in_process.check(HealthCheckRequest::default()).await.expect("serving");
    assert!(answer.metadata().contains_key("x-request-id"));

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().layer(stack.into_inner()).add_service(health);
    let serving = tokio::spawn(
        server.serve_with_incoming_shutdown(incoming, closing.clone().cancelled_owned()),
    );

    let channel = tonic::transport::Channel::from_shared(format!("http://{address}"))
        .expect("an address")
        .connect()
        .await
        .expect("listening");
    let mut over_the_wire = HealthClient::new(channel);
    let answer = over_the_wire.check(HealthCheckRequest::default()).await.expect("serving");
    assert!(answer.metadata().contains_key("x-request-id"));
    let unknown = over_the_wire
        .check(HealthCheckRequest { service: "nothing".into() })
        .await
        .expect_err("there is none");
    let details = tonic_types::StatusExt::get_error_details(&unknown);
    assert_eq!(details.error_info().expect("info").reason, "NOT_FOUND");
    assert_eq!(
        unknown.metadata().get("x-request-id").expect("an id"),
        details.request_info().expect("info").request_id.as_str()
    );

    drop(over_the_wire);
    closing.cancel();
    serving.await.expect("no panic").expect("an orderly end");
}
