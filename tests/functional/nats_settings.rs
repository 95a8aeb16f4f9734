//! The settings by which the server of NATS is reached, and by which its stream is made.

use std::time::Duration;

use crate::kit::*;
use crate::publishing::{EAGER, STREAM, assert_complete, publishing};

#[tokio::test]
async fn a_stream_that_is_there_stays_as_it_is() {
    let nats = NatsServer::start().await;
    let config = async_nats::jetstream::stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["offboard.acme.>".to_owned(), "more".to_owned()],
        max_messages: 7,
        ..Default::default()
    };
    nats.jetstream().await.create_stream(config).await.unwrap();
    let before = nats.stream(STREAM).await.unwrap().cached_info().config.clone();
    let world = publishing(&nats, &[]).await;
    world
        .call("EntityService/CreateEntity", json!({"entity": {"entity_id": "a", "type": "HCP"}}))
        .await
        .unwrap();
    assert_complete(&world.database, &nats.messages(STREAM, 1).await, "offboard");
    assert_eq!(nats.stream(STREAM).await.unwrap().cached_info().config, before);
}

#[tokio::test]
async fn no_stream_is_made_where_that_is_not_wanted() {
    let nats = NatsServer::start().await;
    let world = publishing(&nats, &["--nats-create-stream", "false"]).await;
    world
        .call("EntityService/CreateEntity", json!({"entity": {"entity_id": "a", "type": "HCP"}}))
        .await
        .unwrap();
    until("it has failed", || world.server.log().contains("no_stream")).await;
    assert!(nats.stream(STREAM).await.is_none());
    let config = async_nats::jetstream::stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["offboard.>".to_owned()],
        ..Default::default()
    };
    nats.jetstream().await.create_stream(config).await.unwrap();
    assert_complete(&world.database, &nats.messages(STREAM, 1).await, "offboard");
}

#[tokio::test]
async fn a_password_opens_the_server_and_is_logged_nowhere() {
    let nats = NatsServer::start_with(&["--user", "writer", "--pass", "hunter2hunter2"]).await;
    let url = nats.url().replace("nats://", "nats://writer:hunter2hunter2@");
    let arguments = [&["--nats-url", &url], &EAGER[..]].concat();
    let world = World::start_with(Protocol::Grpc, &arguments).await;
    let traced =
        Server::start_with(&world.database, &arguments, &[("OFFBOARD_LOG", "trace")]).await;
    until("it has talked to the server", || traced.log().contains("async_nats")).await;
    world
        .call("EntityService/CreateEntity", json!({"entity": {"entity_id": "a", "type": "HCP"}}))
        .await
        .unwrap();
    let writer = async_nats::ConnectOptions::with_user_and_password(
        "writer".to_owned(),
        "hunter2hunter2".to_owned(),
    );
    let jetstream = nats.jetstream_as(writer).await;
    for _ in 0..1500 {
        if jetstream
            .get_stream(STREAM)
            .await
            .is_ok_and(|stream| stream.cached_info().state.messages == 1)
        {
            assert!(
                !traced.log().contains("hunter2") && !world.server.log().contains("hunter2"),
                "the password was logged"
            );
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the event does not arrive");
}

#[tokio::test]
async fn bad_settings_are_named_without_being_repeated() {
    let database = database().await;
    let serve = [
        "serve",
        "--database-url",
        &database.url,
        "--grpc-addr",
        "127.0.0.1:0",
        "--http-addr",
        "127.0.0.1:0",
        "--admin-addr",
    ];
    for (arguments, reported) in [
        (
            ["--nats-url", "http://user:hunter2@host"].as_slice(),
            "--nats-url: must be one or more URLs",
        ),
        (
            &["--nats-url", "nats://127.0.0.1", "--nats-credentials-file", "/nowhere"],
            "--nats-credentials-file <FILE>': cannot be read",
        ),
        (
            &["--nats-url", "nats://127.0.0.1", "--nats-ca-file", "/nowhere"],
            "--nats-ca-file <FILE>': cannot be read",
        ),
        (
            &[
                "--nats-url",
                "nats://127.0.0.1",
                "--nats-ca-file",
                concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
            ],
            "has no certificate in PEM",
        ),
        (&["--nats-subject-prefix", "a.*"], "must be words of letters"),
    ] {
        let ended = run(&[&serve[..], &["127.0.0.1:0"], arguments].concat());
        assert_ne!(ended.code, Some(0));
        assert!(
            ended.stderr.contains(reported) && !ended.stderr.contains("hunter2"),
            "{}",
            ended.stderr
        );
    }
}

#[tokio::test]
async fn a_server_behind_tls_is_trusted_by_its_authority_alone() {
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = ["certificate.pem", "key.pem"]
        .map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=nats",
        ])
        .args([
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-out",
            &certificate,
            "-keyout",
            &key,
        ])
        .output();
    assert!(made.unwrap().status.success());
    let nats =
        NatsServer::start_with(&["--tls", "--tlscert", &certificate, "--tlskey", &key]).await;
    let url = nats.url().replace("nats://", "tls://");
    let arguments = [&["--nats-url", &url], &EAGER[..]].concat();
    let mut world = World::start_with(Protocol::Grpc, &arguments).await;
    world
        .call("EntityService/CreateEntity", json!({"entity": {"entity_id": "a", "type": "HCP"}}))
        .await
        .unwrap();
    until("it has failed", || world.server.log().contains("disconnected")).await;
    world.server.kill();
    world.server = Server::start_with(
        &world.database,
        &[&["--nats-ca-file", &certificate], &arguments[..]].concat(),
        &[],
    )
    .await;
    let trusting = async_nats::ConnectOptions::new()
        .require_tls(true)
        .add_root_certificates(certificate.into());
    let jetstream = nats.jetstream_as(trusting).await;
    for _ in 0..1500 {
        if jetstream
            .get_stream(STREAM)
            .await
            .is_ok_and(|stream| stream.cached_info().state.messages == 1)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the event does not arrive: {}", world.server.log());
}
