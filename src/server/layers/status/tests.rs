use bytes::Bytes;
use http::HeaderValue;
use http_body_util::Full;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tonic_types::ErrorDetails;
use tower::{Layer, ServiceExt};

use super::*;
use crate::server::layers::testing::{answering, ended_by, health, ok, request};
use crate::server::layers::{AroundLayer, RequestIds, refuse};

const LIMIT: usize = 64;

async fn call<S>(service: S, mut request: Request<Body>) -> Response<Body>
where
    S: Inner<Error = std::convert::Infallible> + Clone + Sync,
{
    request.headers_mut().insert("x-request-id", HeaderValue::from_static("req-1"));
    AroundLayer(RequestIds)
        .layer(AroundLayer(Failures::new(LIMIT, Some("https://api.example.com/"))).layer(service))
        .oneshot(request)
        .await
        .expect("infallible")
}

fn status(headers: &HeaderMap) -> (Status, ErrorDetails) {
    let status = Status::from_header_map(headers).expect("a status");
    let details = status.get_error_details();
    assert_eq!(details.request_info().map(|info| info.request_id.as_str()), Some("req-1"));
    (status, details)
}

fn reason(details: &ErrorDetails) -> &str {
    &details.error_info().expect("every failure has one").reason
}

/// A call of a real method of a real service, with these bytes for its message.
fn check(message: &[u8]) -> Request<Body> {
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).expect("short").to_be_bytes());
    framed.extend(message);
    let mut request = request("/grpc.health.v1.Health/Check");
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    *request.body_mut() = Body::new(Full::new(Bytes::from(framed)));
    request
}

#[tokio::test]
async fn a_failure_of_ours_keeps_its_details_and_gains_the_request_id() {
    let answer =
        call(answering(|| refuse(Error::not_found("entity", "e-1"))), request("/a.B/C")).await;
    let (status, details) = status(answer.headers());
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(reason(&details), "NOT_FOUND");
    assert_eq!(details.resource_info().expect("kept").resource_name, "e-1");
    assert_eq!(
        details.help().expect("a link").links[0].url,
        "https://api.example.com/errors/not_found"
    );
}

#[tokio::test]
async fn a_caller_that_leaves_is_no_fault_of_the_service() {
    let answer = call(answering(|| Status::internal(GONE).into_http()), request("/a.B/C")).await;
    let (status, details) = status(answer.headers());
    assert_eq!((status.code(), reason(&details)), (Code::Cancelled, "CANCELED"));
}

#[test]
fn of_very_many_faults_those_that_fit_are_reported() {
    let faults = |count: usize| {
        let fault = |n| FieldViolation {
            field: format!("requests[{n}].entity.type"),
            description: "x".repeat(60),
            ..Default::default()
        };
        let mut details = ErrorDetails::with_bad_request((0..count).map(fault).collect::<Vec<_>>());
        shorten(&mut details);
        details.bad_request().expect("faults").field_violations.clone()
    };
    assert_eq!(faults(20).len(), 20);
    let reported = faults(1_000);
    assert!((40..60).contains(&reported.len()), "{}", reported.len());
    let last = reported.last().expect("one");
    assert_eq!(
        (
            last.reason.as_str(),
            last.description.contains(&format!("{} more", 1_001 - reported.len()))
        ),
        ("TOO_MANY", true)
    );
}

#[tokio::test]
async fn a_success_is_left_alone() {
    let answer = call(answering(ok), request("/a.B/C")).await;
    let body = answer.into_body().collect().await.expect("a body");
    let trailers = body.trailers().expect("trailers");
    assert_eq!(trailers.len(), 1);
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test]
async fn a_failure_in_the_middle_of_a_stream_is_completed_in_the_trailers() {
    let mut trailers = HeaderMap::new();
    Status::from(Error::unavailable("The database is unreachable."))
        .add_header(&mut trailers)
        .expect("a header");
    let answer = call(answering(move || ended_by(trailers.clone())), request("/a.B/C")).await;
    let body = answer.into_body().collect().await.expect("a body");
    let (status, details) = status(body.trailers().expect("trailers"));
    assert_eq!(status.message(), "The database is unreachable.");
    assert!(details.retry_info().is_some());
}

#[tokio::test]
async fn a_method_that_does_not_exist_is_unimplemented() {
    let (_, health) = health().await;
    for path in ["/no.Such/Thing", "/grpc.health.v1.Health/Nothing"] {
        let answer = call(health.clone(), request(path)).await;
        let (status, details) = status(answer.headers());
        assert_eq!(status.code(), Code::Unimplemented);
        assert_eq!(status.message(), "There is no such method.");
        assert_eq!(reason(&details), "METHOD_NOT_ALLOWED");
    }
}

#[tokio::test]
async fn a_message_that_is_compressed_otherwise_is_unimplemented() {
    let (_, health) = health().await;
    let mut deflated = check(b"");
    deflated.headers_mut().insert("grpc-encoding", HeaderValue::from_static("deflate"));
    let answer = call(health, deflated).await;
    let (status, details) = status(answer.headers());
    assert_eq!((status.code(), reason(&details)), (Code::Unimplemented, "METHOD_NOT_ALLOWED"));
    assert!(status.message().contains("deflate"), "{}", status.message());
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_the_callers_fault() {
    let (_, health) = health().await;
    let mut empty = check(b"");
    *empty.body_mut() = Body::empty();
    for request in [check(&[0xff; 3]), empty] {
        let answer = call(health.clone(), request).await;
        let (status, details) = status(answer.headers());
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(reason(&details), "VALIDATION_FAILED");
        assert!(!status.message().contains("Protobuf"));
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_names_the_limit() {
    let (_, server) = tonic_health::server::health_reporter();
    let small = Routes::new(limited(server, LIMIT));
    let answer = call(small, check(&[0; 2 * LIMIT])).await;
    let (status, details) = status(answer.headers());
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(reason(&details), "PAYLOAD_TOO_LARGE");
    assert_eq!(details.error_info().expect("info").metadata["limit_bytes"], "64");
}

fn limited<T: tonic_health::pb::health_server::Health>(
    server: HealthServer<T>,
    limit: usize,
) -> HealthServer<T> {
    server.max_decoding_message_size(limit)
}

#[tokio::test]
async fn an_unknown_failure_reports_nothing_of_our_insides() {
    for foreign in [
        Status::internal("/srv/secret.rs broke"),
        Status::unknown("/srv/secret.rs"),
        Status::data_loss("/srv/secret.rs"),
    ] {
        let foreign = move || {
            Status::with_details(foreign.code(), foreign.message(), Bytes::new()).into_http()
        };
        let answer = call(answering(foreign), request("/a.B/C")).await;
        assert!(!format!("{answer:?}").contains("secret"));
        let (status, details) = status(answer.headers());
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(reason(&details), "INTERNAL");
    }
}

#[tokio::test]
async fn what_a_library_says_of_the_request_is_kept() {
    let answer = call(
        answering(|| Status::not_found("service not registered").into_http()),
        request("/a.B/C"),
    )
    .await;
    let (status, details) = status(answer.headers());
    assert_eq!(status.message(), "service not registered");
    assert_eq!(reason(&details), "NOT_FOUND");
}
