//! Clients at the wrong port: each gets an error of its own protocol, with the right port.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};

use offboard::proto::v1::GetPortfolioRequest;
use offboard::proto::v1::portfolio_service_client::PortfolioServiceClient;
use tonic::transport::Endpoint;
use tonic_types::StatusExt;

use crate::keyless::reflect;
use crate::kit::*;
use crate::raw::*;

/// The status that the gRPC library makes of this port's response.
async fn called(address: SocketAddr) -> tonic::Status {
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    PortfolioServiceClient::new(channel)
        .get_portfolio(GetPortfolioRequest::default())
        .await
        .unwrap_err()
}

/// A request of REST over HTTP/2, and its response.
async fn over_http2(address: SocketAddr, method: &str, path: &str) -> Reply {
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let body = http_body_util::Full::new(bytes::Bytes::from_static(b"{}"));
    let request = http::Request::builder()
        .method(method)
        .uri(format!("http://{address}{path}"))
        .header("content-type", "application/json");
    let answer = client.request(request.body(body).unwrap()).await.unwrap();
    let (head, body) = answer.into_parts();
    let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes().to_vec();
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    Reply { status: head.status.as_u16(), headers: headers.collect(), body }
}

#[tokio::test]
async fn grpc_at_another_port_is_reported_where_grpc_is() {
    let world = World::start(Protocol::Rest).await;
    let Addresses { grpc, http, admin } = world.server.addresses;
    for (address, name) in [(http, "REST"), (admin, "admin")] {
        let status = called(address).await;
        assert_eq!(status.code(), tonic::Code::Unimplemented, "{status:?}");
        assert!(status.message().starts_with(&format!("This is the {name} port; ")), "{status:?}");
        assert!(
            status.message().contains(&format!("gRPC is on port {}", grpc.port())),
            "{status:?}"
        );
        assert!(!status.message().contains("127.0.0.1"), "no address: {status:?}");
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "METHOD_NOT_ALLOWED");
        // A status that a client takes for "there is no reflection" would hide the hint.
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        let reflected = reflect(channel, None).await.unwrap_err();
        assert_eq!(
            (reflected.code(), reflected.message()),
            (tonic::Code::InvalidArgument, status.message()),
            "{name}"
        );
        assert!(!details.request_info().unwrap().request_id.is_empty());
        assert!(ends_with_its_headers(address).await, "{name}: grpc-go takes no other answer");
    }
}

/// Returns whether the response of a call whose request continues is over with its headers.
async fn ends_with_its_headers(address: SocketAddr) -> bool {
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let frame = http_body::Frame::data(bytes::Bytes::from_static(&[0; 5]));
    let first = futures::stream::iter([Ok::<_, std::io::Error>(frame)]);
    let body = http_body_util::StreamBody::new(futures::StreamExt::chain(
        first,
        futures::stream::pending(),
    ));
    let request =
        http::Request::post(format!("http://{address}/offboard.v1.PortfolioService/GetPortfolio"));
    let answer = client
        .request(request.header("content-type", "application/grpc").body(body).unwrap())
        .await
        .unwrap();
    http_body::Body::is_end_stream(answer.body())
}

#[tokio::test]
async fn rest_at_the_grpc_port_is_reported_where_rest_is() {
    let world = World::start(Protocol::Grpc).await;
    let Addresses { grpc, http, admin } = world.server.addresses;
    let sentence = format!("This is the gRPC port; REST is on port {}.", http.port());
    let plain =
        crate::kit::http(grpc, "GET", "/v1/portfolios", &[("x-request-id", "mine")], "").await;
    let (read, written) = (
        over_http2(grpc, "GET", "/v1/portfolios").await,
        over_http2(grpc, "POST", "/v1/portfolios").await,
    );
    for (reply, status) in [(&plain, 404), (&read, 404), (&written, 415)] {
        assert_eq!(
            (reply.status, reply.json()["detail"].as_str()),
            (status, Some(sentence.as_str())),
            "{reply:?}"
        );
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        for name in ["api-version", "x-ratelimit-limit", "x-request-id", "x-content-type-options"] {
            assert!(reply.header(name).is_some(), "{name}: {reply:?}");
        }
    }
    assert_eq!(plain.header("x-request-id"), Some("mine"));
    let probed = crate::kit::http(admin, "GET", "/v1/portfolios", &[], "").await;
    assert!(
        probed.json()["detail"]
            .as_str()
            .unwrap()
            .contains(&format!("REST is on port {}, and gRPC is on port", http.port())),
        "{probed:?}"
    );
}

#[tokio::test]
async fn who_is_reached_by_another_name_says_that() {
    let world =
        World::start_with(Protocol::Grpc, &["--public-url=https://api.example.com/offboard"]).await;
    let reply = crate::kit::http(world.server.addresses.grpc, "GET", "/", &[], "").await;
    assert_eq!(
        reply.json()["detail"],
        "This is the gRPC port; REST is at https://api.example.com/offboard."
    );
    assert!(!reply.text().contains(&world.server.addresses.http.port().to_string()), "{reply:?}");
    assert!(
        reply.json()["type"]
            .as_str()
            .unwrap()
            .starts_with("https://api.example.com/offboard/errors/"),
        "{reply:?}"
    );
}

#[tokio::test]
async fn tls_at_a_port_without_it_is_reported_so_and_logged_now_and_then() {
    let world = World::start(Protocol::Rest).await;
    let Addresses { grpc, http, admin } = world.server.addresses;
    // A record of a handshake, which contains a greeting; what it says does not matter.
    let hello = [b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03".as_slice(), &[7; 190]].concat();
    for address in [http, grpc, admin] {
        for _ in 0..5 {
            let answer =
                String::from_utf8(closed(&mut sent(address, &hello).await, "TLS").await).unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 400 ") && answer.contains("It speaks no TLS"),
                "{answer}"
            );
        }
    }
    assert_eq!(
        world.server.log().matches("a client speaks TLS").count(),
        3,
        "once for each listener"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_explains_a_wrong_port() {
    let world = World::start(Protocol::Grpc).await;
    let Addresses { grpc, http, admin } = world.server.addresses;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{\"entity_id\":\"a\",\"type\":\"T\"}\n").unwrap();
    let path = file.path().to_str().unwrap();
    // Something that responds to every connection in HTTP/1.1, as other services do.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = other.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in other.incoming() {
            std::thread::spawn(move || {
                let mut connection = connection.unwrap();
                let _ = connection.read(&mut [0; 4096]);
                let _ = connection.write_all(
                    b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                );
                // Unread bytes would reset the connection, and the response with it.
                let _ = connection.shutdown(Shutdown::Write);
                let _ = std::io::copy(&mut connection, &mut std::io::sink());
            });
        }
    });
    let right = format!("gRPC is on port {}", grpc.port());
    for (scheme, address, reported) in [
        ("http", http, right.as_str()),
        ("http", admin, &right),
        ("http", elsewhere, "speaks no gRPC"),
        ("https", grpc, "speaks no TLS"),
    ] {
        let server = format!("{scheme}://{address}");
        for command in [["import", path].as_slice(), &["bulk-delete", "list"]] {
            let ended =
                run(&[command, &["--server", &server, "--key", &world.key.secret]].concat());
            assert_eq!(ended.code, Some(1), "{command:?} {server}: {ended:?}");
            assert!(ended.stderr.contains(reported), "{command:?} {server}: {}", ended.stderr);
        }
    }
    for address in [http, grpc] {
        for live in [["--live"].as_slice(), &[]] {
            let ended =
                run(&[["healthcheck", "--admin-addr", &address.to_string()].as_slice(), live]
                    .concat());
            assert!(
                ended.code == Some(1)
                    && ended.stderr.contains("`--admin-addr` takes the port of probes"),
                "{ended:?}"
            );
        }
    }
}
