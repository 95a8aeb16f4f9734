//! Deadlines, down to the statements, and the ends of connections.

use std::net::SocketAddr;

use diesel::connection::SimpleConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kit::*;

const RUNNING: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'offboard' AND state <> 'idle' AND query LIKE '%portfolio%'";

scenario! {
    async fn a_call_whose_deadline_has_passed_leaves_no_statement_running(world: &World) {
        // Neither of the other bounds would end the statement while the test waits.
        let world = World::start_with(world.door, &["--db-lock-timeout=600", "--db-statement-timeout=600"]).await;
        world.portfolios(&["p"]).await;
        let mut held = world.database.connection();
        held.batch_execute("BEGIN; LOCK TABLE portfolio IN ACCESS EXCLUSIVE MODE").unwrap();
        let late = world.client.call_with("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"}), &[("grpc-timeout", "50m")]).await;
        assert_eq!(late.unwrap_err().code, "deadline_exceeded");
        until("the statement is given up", || world.database.count(RUNNING) == 0).await;
        held.batch_execute("ROLLBACK").unwrap();
        world.call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"})).await.unwrap();
    }

    async fn a_stream_ends_by_the_deadline_of_its_caller(world: &World) {
        let failure = watch_until_it_fails(world).await;
        assert!(failure.contains("deadline_exceeded") || failure.contains("DeadlineExceeded"), "{failure}");
    }
}

/// Watches events of which there are none, with a deadline, and tells how the stream ended.
async fn watch_until_it_fails(world: &World) -> String {
    let bearer = format!("authorization: Bearer {}", world.key.secret);
    match world.door {
        Door::Grpc => {
            let address = world.server.addresses.grpc.to_string();
            let arguments = ["-H", &bearer, "-H", "grpc-timeout: 500m", "-d", "{}", &address, "offboard.v1.EventService/WatchEvents"];
            grpcurl(&arguments).unwrap_err()
        }
        Door::Rest => {
            let url = format!("http://{}/v1/events:watch", world.server.addresses.http);
            curl(&["-H", &bearer, "-H", "x-request-timeout: 0.5", &url]).text()
        }
    }
}

/// Reads the frames of a silent HTTP/2 connection until the server closes it, and tells their types.
async fn frames_of_a_silent_client(address: SocketAddr) -> Vec<u8> {
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").await.unwrap();
    let mut bytes = Vec::new();
    // A reset ends it as well.
    let _ = connection.read_to_end(&mut bytes).await;
    let mut types = Vec::new();
    let mut rest = bytes.as_slice();
    while let [a, b, c, kind, _, _, _, _, _, after @ ..] = rest {
        types.push(*kind);
        rest = &after[usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap()..];
    }
    types
}

const PING: u8 = 6;
const GOAWAY: u8 = 7;

#[tokio::test]
async fn an_old_connection_is_closed_in_good_order() {
    let world = World::start_with(Door::Grpc, &["--grpc-max-connection-age=0.3", "--grpc-keepalive-interval=0"]).await;
    let frames = frames_of_a_silent_client(world.server.addresses.grpc).await;
    assert!(frames.contains(&GOAWAY), "{frames:?}");
    for _ in 0..5 {
        world.call("PortfolioService/ListPortfolios", json!({})).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    }
}

#[tokio::test]
async fn a_connection_at_which_nobody_is_any_more_is_closed() {
    let arguments = ["--grpc-max-connection-age=0", "--grpc-keepalive-interval=0.3", "--grpc-keepalive-timeout=0.3"];
    let world = World::start_with(Door::Grpc, &arguments).await;
    let frames = frames_of_a_silent_client(world.server.addresses.grpc).await;
    assert!(frames.contains(&PING), "{frames:?}");
}
