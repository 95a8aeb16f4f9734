//! The gRPC listener, as tools and libraries meet it.

use offboard::proto::v1::GetPortfolioRequest;
use offboard::proto::v1::portfolio_service_client::PortfolioServiceClient;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};
use tonic_reflection::pb::v1alpha;
use tonic_types::StatusExt;

use crate::kit::*;

fn channel(server: &Server) -> Channel {
    Endpoint::from_shared(format!("http://{}", server.addresses.grpc)).unwrap().connect_lazy()
}

#[tokio::test]
async fn grpcurl_lists_describes_and_calls() {
    let world = World::start(Protocol::Grpc).await;
    let address = world.server.addresses.grpc.to_string();
    let listed = grpcurl(&[&address, "list"]).unwrap();
    for service in [
        "EntityService",
        "PortfolioService",
        "RemovalService",
        "OffboardingService",
        "BulkDeleteService",
    ] {
        assert!(
            listed.lines().any(|line| line == format!("offboard.v1.{service}")),
            "{service} is not in {listed}"
        );
    }
    assert!(listed.contains("grpc.health.v1.Health"), "{listed}");
    let described =
        grpcurl(&[&address, "describe", "offboard.v1.PortfolioService.DetachEntity"]).unwrap();
    assert!(described.contains("rpc DetachEntity ( .offboard.v1.DetachEntityRequest ) returns ( .offboard.v1.Portfolio )"), "{described}");
    let described = grpcurl(&[&address, "describe", "offboard.v1.NewEntity"]).unwrap();
    assert!(described.contains("google.protobuf.Struct attributes"), "{described}");

    let header = format!("authorization: Bearer {}", world.key.secret);
    let call = |method: &str, request: &str| {
        grpcurl(&["-H", &header, "-d", request, &address, &format!("offboard.v1.{method}")])
    };
    let created =
        call("PortfolioService/CreatePortfolio", r#"{"portfolio_id": "p", "name": "Fund"}"#)
            .unwrap();
    assert_eq!(serde_json::from_str::<Value>(&created).unwrap()["mode"], "MODE_TEST");
    let missing = call("PortfolioService/GetPortfolio", r#"{"portfolio_id": "q"}"#).unwrap_err();
    assert!(
        missing.contains("NotFound")
            && missing.contains("google.rpc.ErrorInfo")
            && missing.contains("google.rpc.RequestInfo"),
        "{missing}"
    );
    let health = grpcurl(&[
        "-d",
        r#"{"service": "offboard.v1.PortfolioService"}"#,
        &address,
        "grpc.health.v1.Health/Check",
    ])
    .unwrap();
    assert_eq!(serde_json::from_str::<Value>(&health).unwrap(), json!({"status": "SERVING"}));
}

#[tokio::test]
async fn reflection_is_spoken_in_the_old_version_as_well() {
    use v1alpha::server_reflection_request::MessageRequest;
    use v1alpha::server_reflection_response::MessageResponse;

    let world = World::start(Protocol::Grpc).await;
    let mut client =
        v1alpha::server_reflection_client::ServerReflectionClient::new(channel(&world.server));
    let ask = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers =
        client.server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list of services");
    };
    assert!(
        list.service.iter().any(|service| service.name == "offboard.v1.EntityService"),
        "{list:?}"
    );
}

#[tokio::test]
async fn a_method_that_is_not_there_is_unimplemented_in_the_words_of_the_catalogue() {
    let world = World::start(Protocol::Grpc).await;
    for path in ["/offboard.v1.PortfolioService/BurnPortfolio", "/offboard.v1.NoService/Get", "/x"]
    {
        let mut grpc = tonic::client::Grpc::new(channel(&world.server));
        grpc.ready().await.unwrap();
        let codec: tonic_prost::ProstCodec<GetPortfolioRequest, GetPortfolioRequest> =
            tonic_prost::ProstCodec::default();
        let request = tonic::Request::new(GetPortfolioRequest::default());
        let status = grpc.unary(request, path.parse().unwrap(), codec).await.unwrap_err();
        let details = status.get_error_details();
        assert_eq!(
            (status.code(), details.error_info().unwrap().domain.as_str()),
            (tonic::Code::Unimplemented, "offboard"),
            "{path}"
        );
        assert_eq!(details.error_info().unwrap().reason, "METHOD_NOT_ALLOWED", "{path}");
        assert!(!details.request_info().unwrap().request_id.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn messages_may_be_compressed_both_ways() {
    let world = World::start(Protocol::Grpc).await;
    let name = "x".repeat(256);
    world
        .call("PortfolioService/CreatePortfolio", json!({"portfolio_id": "p", "name": name}))
        .await
        .unwrap();
    for (encoding, word) in
        [(CompressionEncoding::Gzip, "gzip"), (CompressionEncoding::Zstd, "zstd")]
    {
        let mut client = PortfolioServiceClient::new(channel(&world.server))
            .send_compressed(encoding)
            .accept_compressed(encoding);
        let mut request = tonic::Request::new(GetPortfolioRequest {
            portfolio_id: "p".to_owned(),
            ..Default::default()
        });
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {}", world.key.secret).parse().unwrap());
        let answer = client.get_portfolio(request).await.unwrap();
        assert_eq!(answer.metadata().get("grpc-encoding").unwrap(), word);
        assert_eq!(answer.into_inner().name, name);
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_the_callers_fault() {
    let world = World::start(Protocol::Grpc).await;
    // A string that says it is longer than the message.
    let frame = [0, 0, 0, 0, 2, 0x0a, 0x7f];
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let request = http::Request::post(format!(
        "http://{}/offboard.v1.PortfolioService/GetPortfolio",
        world.server.addresses.grpc
    ))
    .header("content-type", "application/grpc")
    .header("te", "trailers")
    .header("authorization", format!("Bearer {}", world.key.secret))
    .body(http_body_util::Full::new(bytes::Bytes::copy_from_slice(&frame)))
    .unwrap();
    let response = client.request(request).await.unwrap();
    let status =
        tonic::Status::from_header_map(response.headers()).expect("the status is in the head");
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "VALIDATION_FAILED");
}

#[tokio::test]
async fn a_process_opens_only_the_listeners_of_its_roles() {
    let database = database().await;
    let server =
        run(&["serve", "--database-url", &database.url, "--roles=", "--admin-addr=127.0.0.1:0"]);
    assert_eq!(server.code, Some(2), "no role is wrong usage: {server:?}");
    let key = Key::create(&database, "acme", "test", SCOPES);
    let server = Server::start_with(&database, &["--roles=grpc,gateway"], &[]).await;
    let client = Client::new(&server, &key, Protocol::Rest);
    client
        .call("EntityService/CreateEntity", json!({"entity": {"entity_id": "e", "type": "T"}}))
        .await
        .unwrap();
    let job = client.call("RemovalService/RemoveEntity", json!({"entity_id": "e"})).await.unwrap();
    assert_eq!(job.json["status"], "pending");
    assert!(!server.log().contains("jobs"), "nobody works here");
    assert_eq!(database.requests_in("pending"), 1);
}
