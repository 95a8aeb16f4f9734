//! Telemetry as a process has it: started once, read by a scrape, and sent to a collector.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body_util::BodyExt;
use offboard::server::layers::{AroundLayer, Methods, Trace, refuse};
use offboard::telemetry::{self, LogFormat, Options, PoolState, PublisherLag, Telemetry};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::body::Body;
use tower::{Layer, ServiceExt};

const TRACE_ID: [u8; 16] = [
    0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c,
];
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A process has one telemetry, so this is one test.
#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_scraped_and_exported() {
    let (collector, mut exports) = collector().await;
    let options = Options {
        log_filter: "error".into(),
        log_format: LogFormat::Json,
        log_queue_bytes: 1 << 20,
        otlp_endpoint: Some(format!("http://{collector}")),
        service_instance: "replica-1".into(),
    };
    let telemetry = telemetry::init(&options).expect("telemetry starts");
    assert_eq!(
        telemetry::init(&options).expect_err("once is enough").to_string(),
        "telemetry is started already"
    );

    do_everything_once().await;
    every_metric_is_scraped(&telemetry);
    telemetry.shutdown(Instant::now() + Duration::from_secs(5)).await;

    let mut received = Vec::new();
    while let Ok(export) = exports.try_recv() {
        received.push(export);
    }
    let exported = |path: &str, content: &[u8]| {
        received.iter().any(|(to, body)| {
            to.contains(path) && body.windows(content.len()).any(|window| window == content)
        })
    };
    assert!(
        exported("TraceService/Export", b"offboard.v1.EntityService/GetEntity"),
        "the span of the call"
    );
    assert!(exported("TraceService/Export", &TRACE_ID), "in the trace of its caller");
    assert!(exported("TraceService/Export", b"db.pool.wait"));
    assert!(exported("TraceService/Export", b"replica-1"));
    assert!(exported("MetricsService/Export", b"rpc.server.call.duration"));
    assert!(!exported("", b"hunter2"), "a secret was exported");
}

async fn do_everything_once() {
    telemetry::http_request(&http::Method::GET, "/v1/entities/{id}", 200, Duration::from_millis(1));
    telemetry::http_request(
        &http::Method::from_bytes(b"INVENTED").expect("a token"),
        "",
        404,
        Duration::from_millis(1),
    );
    telemetry::observe_pool(|| PoolState { used: 3, idle: 2, waiting: 1, max: 8 });
    telemetry::waiting_for_pool(async {}).await;
    telemetry::statement("SELECT", None, Duration::from_millis(1));
    telemetry::job_claimed("bulk_delete");
    telemetry::job_finished("bulk_delete", "succeeded");
    telemetry::lease_lost("bulk_delete");
    telemetry::entities_deleted("hard", 5);
    telemetry::chunk("bulk_delete", 7, Duration::from_millis(1));
    telemetry::events_published("nats", 11);
    telemetry::publish_failed("nats", "timeout");
    telemetry::observe_publisher("nats", || PublisherLag { events: 13, seconds: 1.5 });

    let service = tower::service_fn(async |_: Request<Body>| {
        Ok::<Response<Body>, Infallible>(refuse(offboard::error::Error::not_found("entity", "e-1")))
    });
    let request = Request::post("/offboard.v1.EntityService/GetEntity")
        .header("traceparent", TRACEPARENT)
        .header("authorization", "Bearer hunter2")
        .body(Body::empty())
        .expect("a request");
    AroundLayer(Trace::new(Methods::served()))
        .layer(service)
        .oneshot(request)
        .await
        .expect("infallible");
}

fn every_metric_is_scraped(telemetry: &Telemetry) {
    let text = telemetry.prometheus_text();
    for series in [
        r#"rpc_server_call_duration_seconds_count{rpc_method="offboard.v1.EntityService/GetEntity",rpc_response_status_code="NOT_FOUND",rpc_system_name="grpc"} 1"#,
        r#"http_server_request_duration_seconds_count{http_request_method="GET",http_response_status_code="200",http_route="/v1/entities/{id}"} 1"#,
        r#"http_server_request_duration_seconds_count{http_request_method="_OTHER",http_response_status_code="404"} 1"#,
        r#"db_client_connection_count{db_client_connection_pool_name="offboard",db_client_connection_state="used"} 3"#,
        r#"db_client_connection_count{db_client_connection_pool_name="offboard",db_client_connection_state="idle"} 2"#,
        r#"db_client_connection_pending_requests{db_client_connection_pool_name="offboard"} 1"#,
        r#"db_client_connection_max{db_client_connection_pool_name="offboard"} 8"#,
        r#"db_client_connection_wait_time_seconds_count{db_client_connection_pool_name="offboard"} 1"#,
        r#"db_client_operation_duration_seconds_count{db_operation_name="SELECT",db_system_name="postgresql"} 1"#,
        r#"offboard_jobs_claimed_total{offboard_job_kind="bulk_delete"} 1"#,
        r#"offboard_jobs_finished_total{offboard_job_kind="bulk_delete",offboard_job_outcome="succeeded"} 1"#,
        r#"offboard_jobs_leases_lost_total{offboard_job_kind="bulk_delete"} 1"#,
        r#"offboard_entities_deleted_total{offboard_delete_mode="hard"} 5"#,
        r#"offboard_chunk_duration_seconds_count{offboard_job_kind="bulk_delete"} 1"#,
        r#"offboard_chunk_objects_total{offboard_job_kind="bulk_delete"} 7"#,
        r#"offboard_publisher_events_total{offboard_publisher_name="nats"} 11"#,
        r#"offboard_publisher_failures_total{error_type="timeout",offboard_publisher_name="nats"} 1"#,
        r#"offboard_publisher_lag{offboard_publisher_name="nats"} 13"#,
        r#"offboard_publisher_lag_time_seconds{offboard_publisher_name="nats"} 1.5"#,
        r#"service_instance_id="replica-1""#,
    ] {
        assert!(text.contains(series), "{series} is not in:\n{text}");
    }
}

/// An OTLP collector that takes everything and reports what it got: the path and the bytes of each export.
async fn collector() -> (SocketAddr, mpsc::UnboundedReceiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (sender, receiver) = mpsc::unbounded_channel();
    let export = move |request: axum::extract::Request| {
        let sender = sender.clone();
        async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            let _ = sender.send((path, body.to_vec()));
            let message = http_body_util::Full::new(bytes::Bytes::from_static(&[0; 5]));
            let trailers = http::HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                http::HeaderValue::from_static("0"),
            )]);
            let body = axum::body::Body::new(
                message.with_trailers(std::future::ready(Some(Ok(trailers)))),
            );
            Response::builder()
                .header("content-type", "application/grpc")
                .body(body)
                .expect("a response")
        }
    };
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(export)).await });
    (address, receiver)
}
