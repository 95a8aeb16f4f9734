//! Callers that come by proxies: by headers and by the PROXY protocol, through both protocols, calls and streams.

use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::key_management::create;
use crate::kit::*;
use crate::raw::{closed, sent};

const CALL: &str = "EntityService/ListEntities";
const PROTOCOLS: [Protocol; 2] = [Protocol::Grpc, Protocol::Rest];

/// The PROXY protocol, version 2, of a connection from there; of the proxy itself, from nowhere.
fn announced(client: Option<&str>) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    match client.map(|text| text.parse::<IpAddr>().unwrap()) {
        None => bytes.extend([0x20, 0, 0, 0]),
        Some(IpAddr::V4(address)) => {
            bytes.extend([0x21, 0x11, 0, 12]);
            bytes.extend(address.octets());
            bytes.extend([127, 0, 0, 1, 0x30, 0x39, 0, 80]);
        }
        Some(IpAddr::V6(address)) => {
            bytes.extend([0x21, 0x21, 0, 36]);
            bytes.extend(address.octets());
            bytes.extend([0; 16]);
            bytes.extend([0x30, 0x39, 0, 80]);
        }
    }
    bytes
}

/// A proxy that begins each connection with these bytes, to be dropped with the test's runtime.
async fn proxy(target: SocketAddr, first: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut caller, _)) = listener.accept().await {
            let first = first.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(target).await.ok()?;
                server.write_all(&first).await.ok()?;
                copy_bidirectional(&mut caller, &mut server).await.ok()
            });
        }
    });
    address
}

/// The client by proxies that say that it comes from there.
async fn from(world: &World, client: &Client, address: Option<&str>) -> Client {
    let of = async |target| proxy(target, announced(address)).await;
    let Addresses { grpc, http, admin } = world.server.addresses;
    client.by(Addresses { grpc: of(grpc).await, http: of(http).await, admin })
}

/// A key of acme that is for use from there alone.
async fn bound(world: &World, client: &Client, networks: &[&str]) -> Client {
    let request = json!({"scopes": ["entities:read", "events:read"], "allowed": networks});
    let (_, secret) = create(client, request).await;
    world.client.with_secret(&secret)
}

#[tokio::test]
async fn the_configured_header_of_a_trusted_proxy_says_where_a_call_comes_from() {
    for protocol in PROTOCOLS {
        for (setting, name, other, of) in [
            ("x-forwarded-for", "x-forwarded-for", "forwarded", ["", ""]),
            ("forwarded", "forwarded", "x-forwarded-for", ["for=\"", "\""]),
        ] {
            let header = format!("--forwarded-header={setting}");
            let arguments = ["--trusted-proxies=127.0.0.0/8,10.9.0.0/16", &header];
            let world = World::start_with(protocol, &arguments).await;
            let listed = bound(&world, &world.client, &["198.51.100.0/24", "2001:db8::/32"]).await;
            let said = |address: &str| format!("{}{address}{}", of[0], of[1]);
            let admitted = async |value: &str| {
                listed.call_with(CALL, json!({}), &[(name, value)]).await.is_ok()
            };
            for address in ["198.51.100.7", "198.51.100.7:4711", "[2001:db8::7]:80"] {
                assert!(admitted(&said(address)).await, "{address}");
            }
            assert!(admitted(&format!("{}, {}", said("198.51.100.7"), said("10.9.1.1"))).await);
            for stranger in ["192.0.2.1", "unknown", "_hidden", "[::1]", "127.0.0.1", "x"] {
                // What a client says itself stands before what the proxy says of it.
                let value = format!("{}, {}", said("198.51.100.7"), said(stranger));
                let is_proxy = stranger == "127.0.0.1";
                assert_eq!(admitted(&value).await, is_proxy, "{value}");
                assert!(!admitted(&said(stranger)).await, "{stranger}");
            }
            assert!(!admitted(&said("198.51.100.7\"")).await && !admitted("").await);
            let value = ["198.51.100.7", "for=198.51.100.7"][usize::from(other == "forwarded")];
            let both = [(other, value), (name, &said("192.0.2.1"))];
            assert!(listed.call_with(CALL, json!({}), &both).await.is_err(), "one is read");
            assert!(listed.call_with(CALL, json!({}), &both[..1]).await.is_err());
            let log = world.server.log();
            for address in ["198.51.100.7", "2001:db8::7", "192.0.2.1", "unknown"] {
                let field = format!("\"client.address\":\"{address}\"");
                assert!(log.contains(&field), "{field}");
            }
        }
    }
}

#[tokio::test]
async fn who_would_lock_itself_out_is_told_the_address_that_its_proxy_says() {
    for protocol in PROTOCOLS {
        let world = World::start_with(protocol, &["--trusted-proxies=127.0.0.1"]).await;
        let change = json!({"allowed": ["127.0.0.0/8"]});
        let by = [("x-forwarded-for", "198.51.100.7")];
        let policy = "AccessService/UpdateAccessPolicy";
        let refused = world.client.call_with(policy, change.clone(), &by).await.unwrap_err();
        assert_eq!(&refused.members["caller_address"], &json!("198.51.100.7"));
        let by = [("x-forwarded-for", "_hidden")];
        let refused = world.client.call_with(policy, change, &by).await.unwrap_err();
        assert_eq!(
            (refused.code.as_str(), refused.members.get("caller_address")),
            ("caller_excluded", None)
        );
    }
}

#[tokio::test]
async fn the_proxy_protocol_says_where_a_connection_comes_from() {
    for protocol in PROTOCOLS {
        let arguments = ["--trusted-proxies=127.0.0.0/8", "--proxy-protocol"];
        let world = World::start_with(protocol, &arguments).await;
        let proxied = from(&world, &world.client, None).await;
        let listed = bound(&world, &proxied, &["198.51.100.0/24", "2001:db8::/32"]).await;
        let local = bound(&world, &proxied, &["127.0.0.0/8"]).await;
        for (address, is_listed, is_local) in [
            (Some("198.51.100.7"), true, false),
            (Some("::ffff:198.51.100.7"), true, false),
            (Some("2001:db8::7"), true, false),
            (Some("192.0.2.1"), false, false),
            (None, false, true),
        ] {
            for (client, is) in [(&listed, is_listed), (&local, is_local)] {
                let client = from(&world, client, address).await;
                // No header is read, whatever it says.
                let headers = [("x-forwarded-for", "198.51.100.7")];
                let outcome = client.call_with(CALL, json!({}), &headers).await;
                assert_eq!(outcome.is_ok(), is, "{address:?}");
                assert_eq!(client.call(CALL, json!({})).await.is_ok(), is, "{address:?}");
            }
        }
        assert!(world.server.log().contains("\"client.address\":\"2001:db8::7\""));
        let mut stream = from(&world, &listed, Some("198.51.100.7"))
            .await
            .stream("EventService/WatchEvents", json!({}), &[])
            .await
            .unwrap();
        let policy = json!({"allowed": ["127.0.0.0/8"]});
        proxied.call("AccessService/UpdateAccessPolicy", policy).await.unwrap();
        let failure = loop {
            match stream.next().await {
                Some(Ok(_)) => {}
                Some(Err(failure)) => break failure,
                None => panic!("it ends as if nothing had happened"),
            }
        };
        assert_eq!(failure.code, "address_not_allowed", "the realm's list excludes it now");
    }
}

#[tokio::test]
async fn a_connection_of_a_proxy_that_does_not_say_whose_it_is_is_closed() {
    let arguments = ["--trusted-proxies=127.0.0.1", "--proxy-protocol", "--head-timeout=1"];
    let world = World::start_with(Protocol::Rest, &arguments).await;
    let request = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let address = world.server.addresses.http;
    let whole = announced(Some("198.51.100.7"));
    let long = [&whole[..14], &[0xff, 0xff], &[0; 5000]].concat();
    let of_datagrams = [&whole[..13], &[0x12], &whole[14..]].concat();
    for first in [
        &b""[..],
        &whole[..27],
        &whole[..16],
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        &long,
        &of_datagrams,
    ] {
        let mut connection = sent(address, first).await;
        if !first.is_empty() && first.len() != 27 && first.len() != 16 {
            let _ = connection.write_all(request).await;
        }
        let read = closed(&mut connection, &format!("{first:?}")).await;
        assert!(read.is_empty(), "nothing is said: {}", String::from_utf8_lossy(&read));
    }
    let mut connection = sent(address, &[&whole[..], request].concat()).await;
    let mut read = String::new();
    connection.read_to_string(&mut read).await.unwrap();
    assert!(read.starts_with("HTTP/1.1 200"), "{read}");
    let metrics = get(world.server.addresses.admin, "/metrics").await.expect("probes have none");
    for limit in ["proxy_header_time", "proxy_header_bytes"] {
        assert!(metrics.contains(limit), "{limit}");
    }
    assert!(world.server.log().contains("closed a connection of a trusted proxy"));
}

#[tokio::test]
async fn who_is_no_trusted_proxy_begins_with_its_call() {
    let arguments = ["--trusted-proxies=192.0.2.1", "--proxy-protocol"];
    let world = World::start_with(Protocol::Rest, &arguments).await;
    world.call(CALL, json!({})).await.unwrap();
    let grpc = world.through(Protocol::Grpc);
    grpc.call(CALL, json!({})).await.unwrap();
    let listed = bound(&world, &world.client, &["198.51.100.0/24"]).await;
    let by = [("x-forwarded-for", "198.51.100.7")];
    assert!(listed.call_with(CALL, json!({}), &by).await.is_err());
    let mut connection = sent(
        world.server.addresses.http,
        &[&announced(Some("198.51.100.7")), &b"GET / HTTP/1.1\r\n\r\n"[..]].concat(),
    )
    .await;
    let read = closed(&mut connection, "what is no request").await;
    assert!(!read.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn connections_by_a_proxy_count_with_their_clients() {
    let arguments =
        ["--trusted-proxies=127.0.0.1", "--proxy-protocol", "--max-connections-per-address=2"];
    let world = World::start_with(Protocol::Rest, &arguments).await;
    let http = world.server.addresses.http;
    let open = async |client: &str| {
        let mut connection = sent(http, &announced(Some(client))).await;
        connection.write_all(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        let read = connection.read_exact(&mut first).await;
        (connection, read.is_ok() && first == *b"HTTP/1.1 200")
    };
    // One host has two; a third of it closes the first, and those of others stay.
    let (mut first, is_open) = open("198.51.100.7").await;
    assert!(is_open);
    let mut others = Vec::new();
    for host in 1..6 {
        let (connection, is_open) = open(&format!("203.0.113.{host}")).await;
        assert!(is_open, "{host}: the proxy has more than two");
        others.push(connection);
    }
    let (_second, is_open) = open("198.51.100.7").await;
    assert!(is_open);
    let (_third, is_open) = open("198.51.100.7").await;
    assert!(is_open);
    closed(&mut first, "the first of the host").await;
    for connection in &mut others {
        connection
            .write_all(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let read = closed(connection, "one that was asked to close").await;
        let text = String::from_utf8_lossy(&read);
        assert!(text.contains("HTTP/1.1 200"), "the connection of another is there");
    }
}

#[tokio::test]
async fn settings_of_proxies_that_cannot_be_are_refused_together() {
    let ended = run(&[
        "serve",
        "--database-url",
        "postgresql://127.0.0.1:1/x",
        "--proxy-protocol",
        "--forwarded-header=forwarded",
    ]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for flag in ["--proxy-protocol", "--forwarded-header"] {
        assert!(ended.stderr.contains(&format!("{flag}: needs --trusted-proxies")), "{ended:?}");
    }
    let many: Vec<String> = (0..65).map(|host| format!("10.0.0.{host}")).collect();
    let many = format!("--trusted-proxies={}", many.join(","));
    let ended = run(&["serve", "--database-url", "postgresql://127.0.0.1:1/x", &many]);
    assert!(ended.stderr.contains("at most 64 networks"), "{ended:?}");
    for bad in ["0.0.0.0/0", "10.0.0.1/8", "lb.example.com"] {
        let ended = run(&["serve", &format!("--trusted-proxies={bad}")]);
        assert_eq!(ended.code, Some(2), "{bad}: {ended:?}");
    }
}
