//! The commands that call a service, and the way there: a key goes by TLS where the URL says so.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::kit::*;

/// The arguments of commands that call a service, but for where that is.
const COMMANDS: &[&[&str]] = &[
    &["bulk-delete", "list"],
    &["bulk-delete", "preview", "--all"],
    &["bulk-delete", "watch", "01a20145-adb2-702f-bd05-1cd20d52015a"],
    &["import", "demo/entities.ndjson"],
    &["key", "list"],
    &["removal-policy", "get"],
];

/// Runs a command off this thread, on which the way to the server is.
async fn run_aside(arguments: &[&str]) -> Ended {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let run = move || run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test]
async fn a_service_behind_tls_is_called_by_its_https_url() {
    let world = World::start(Protocol::Grpc).await;
    let front = TlsFront::before(world.server.addresses.grpc).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{\"entity_id\":\"a\",\"type\":\"T\"}\n").unwrap();
    let path = file.path().to_str().unwrap();
    let (url, key) = (front.url(), world.key.secret.as_str());
    let there = ["--server", &url, "--key", key, "--server-ca-file", TlsFront::CA_FILE];
    let imported = run_aside(&[["import", path].as_slice(), &there].concat()).await;
    assert_eq!(
        (imported.code, imported.stdout.as_str()),
        (Some(0), "acme (test): 1 read, 1 created, 0 there before, 0 refused.\n"),
        "{imported:?}"
    );
    let previewed =
        run_aside(&[["bulk-delete", "preview", "--all"].as_slice(), &there].concat()).await;
    assert!(
        previewed.code == Some(0)
            && previewed.stdout.starts_with("1 entity of acme (test) selected.\n"),
        "{previewed:?}"
    );
    let watched =
        run_aside(&[["bulk-delete", "start", "--all", "--yes"].as_slice(), &there].concat()).await;
    assert!(
        watched.code == Some(0) && watched.stdout.contains("completed: 1 entity deleted"),
        "{watched:?}"
    );

    // The system knows nothing of who made the certificate.
    let stranger = run_aside(&["bulk-delete", "list", "--server", &url, "--key", key]).await;
    assert_eq!((stranger.code, stranger.stdout.as_str()), (Some(1), ""), "{stranger:?}");
    let reported = format!("offboard: {url} cannot be reached. (");
    assert!(
        stranger.stderr.starts_with(&reported) && stranger.stderr.contains("certificate"),
        "{}",
        stranger.stderr
    );
}

#[test]
fn a_key_never_leaves_for_an_https_url_without_tls() {
    for command in COMMANDS {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = std::thread::spawn(move || {
            let (mut caller, _) = listener.accept().unwrap();
            // The response of a plain server to another protocol.
            let mut bytes = vec![0; 1 << 16];
            let length = caller.read(&mut bytes).unwrap();
            caller.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").unwrap();
            bytes.truncate(length);
            caller.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let url = format!("https://{address}");
        let ended = run(&[
            command,
            ["--server", &url, "--key", "sk_test_sesame", "--server-ca-file", TlsFront::CA_FILE]
                .as_slice(),
        ]
        .concat());
        // Whoever was not called does not wait for ever.
        drop(TcpStream::connect(address));
        let heard = heard.join().unwrap();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{command:?}: {ended:?}");
        assert!(
            ended.stderr.starts_with("offboard: ") && ended.stderr.lines().count() == 1,
            "{command:?}: {}",
            ended.stderr
        );
        // A handshake record of TLS (RFC 8446, section 5.1), where HTTP/2 would begin with `PRI`.
        assert_eq!(
            heard.first(),
            Some(&0x16),
            "{command:?} sent {}",
            String::from_utf8_lossy(&heard)
        );
        assert!(!String::from_utf8_lossy(&heard).contains("sesame"));
    }
}

#[test]
fn a_url_that_says_neither_http_nor_https_is_wrong_usage() {
    for command in COMMANDS {
        for url in ["127.0.0.1:50051", "ftp://127.0.0.1", "grpcs://127.0.0.1", ""] {
            let ended = run(&[command, ["--server", url, "--key", "k"].as_slice()].concat());
            assert_eq!(
                (ended.code, ended.stdout.as_str()),
                (Some(2), ""),
                "{command:?} {url}: {ended:?}"
            );
            assert!(ended.stderr.contains("--server"), "{command:?} {url}: {}", ended.stderr);
        }
    }
    let away = run(&[
        "bulk-delete",
        "list",
        "--key",
        "k",
        "--server",
        "https://127.0.0.1:1",
        "--server-ca-file",
        "/nowhere.pem",
    ]);
    assert!(
        away.code == Some(1)
            && away.stderr.contains("--server-ca-file: /nowhere.pem cannot be read"),
        "{away:?}"
    );
    let plain = run(&[
        "bulk-delete",
        "list",
        "--key",
        "k",
        "--server",
        "http://127.0.0.1:1",
        "--server-ca-file",
        TlsFront::CA_FILE,
    ]);
    assert!(
        plain.code == Some(1) && plain.stderr.contains("--server-ca-file: needs an https URL"),
        "{plain:?}"
    );
}

#[tokio::test]
async fn traces_and_metrics_go_to_an_https_collector_by_tls() {
    let database = database().await;
    let collector = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = TlsFront::before(collector.local_addr().unwrap()).await;
    let (sender, preface) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut exporter, _) = collector.accept().await.unwrap();
        let mut bytes = [0; 14];
        tokio::io::AsyncReadExt::read_exact(&mut exporter, &mut bytes).await.unwrap();
        sender.send(bytes).unwrap();
        // It gets no response, and is not hung up on.
        std::future::pending::<()>().await;
    });
    let environment = [("SSL_CERT_FILE", TlsFront::CA_FILE)];
    let mut server =
        Server::start_with(&database, &[&format!("--otlp-endpoint={}", front.url())], &environment)
            .await;
    http(server.addresses.http, "GET", "/v1/entities", &[], "").await;
    assert_eq!(server.terminate().await.code(), Some(0));
    assert_eq!(&preface.await.unwrap(), b"PRI * HTTP/2.0");
}
