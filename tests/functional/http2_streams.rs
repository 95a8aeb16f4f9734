//! The streams of one HTTP/2 connection: how many there are, and what those that are canceled cost.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kit::*;
use crate::listeners::{listeners, under_way};
use crate::raw::*;

#[tokio::test]
async fn a_connection_has_a_number_of_streams_and_windows_for_small_messages() {
    let world = World::start(Protocol::Grpc).await;
    for (address, _) in listeners(&world.server) {
        let mut connection = sent(address, PREFACE).await;
        let (_, settings) = frame_until(&mut connection, |kind, _| kind == SETTINGS).await.unwrap();
        let value = |id: u16| {
            let setting = settings.chunks(6).find(|setting| setting[..2] == id.to_be_bytes());
            setting.map(|setting| u32::from_be_bytes(setting[2..].try_into().unwrap()))
        };
        let streams = value(3).expect("a number of streams");
        assert!((16..=200).contains(&streams), "{address}: {streams}");
        assert!(value(4).unwrap_or(65_535) <= 65_535, "{address}");
    }
}

/// So many requests, each canceled at once.
fn canceled(first: u32, count: u32) -> Vec<u8> {
    let block = head(2, "/v1/entities", &[]);
    let pair = |n| {
        let stream = first + 2 * n;
        [frame(HEADERS, 0x5, stream, &block), frame(RESET, 0, stream, &[0, 0, 0, 8])].concat()
    };
    (0..count).flat_map(pair).collect()
}

#[tokio::test]
async fn calls_that_are_canceled_by_the_hundred_cost_others_on_the_connection_nothing() {
    let world = World::start(Protocol::Grpc).await;
    for protocol in [Protocol::Grpc, Protocol::Rest] {
        let mut connection = under_way(&world, protocol).await;
        connection.write_all(&canceled(3, 2000)).await.unwrap();
        connection.write_all(&frame(HEADERS, 0x5, 5001, &head(2, "/nothing", &[]))).await.unwrap();
        let reported = frame_until(&mut connection, |kind, stream| {
            kind == GO_AWAY || kind == HEADERS && stream == 5001
        })
        .await;
        assert_eq!(
            reported.map(|(kind, payload)| (
                kind,
                String::from_utf8_lossy(&payload).contains("too_many")
            )),
            Some((HEADERS, false)),
            "{protocol:?}"
        );
    }
}

#[tokio::test]
async fn a_flood_of_canceled_calls_is_cut_off() {
    let world = World::start(Protocol::Grpc).await;
    for protocol in [Protocol::Grpc, Protocol::Rest] {
        let connection = under_way(&world, protocol).await;
        let (mut reader, mut writer) = connection.into_split();
        let flood = tokio::spawn(async move {
            for part in 0..100 {
                if writer.write_all(&canceled(3 + part * 40_000, 20_000)).await.is_err() {
                    return true;
                }
            }
            false
        });
        let mut read = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(60), reader.read_to_end(&mut read))
            .await
            .expect("it is cut off");
        drop(reader);
        assert!(
            flood.await.unwrap() || read.windows(15).any(|window| window == b"too_many_resets"),
            "{protocol:?}"
        );
        // The next connection is served.
        world.through(protocol).call("EntityService/ListEntities", json!({})).await.unwrap();
    }
}

#[tokio::test]
async fn calls_that_are_canceled_when_they_were_taken_up_are_a_flood_too() {
    let world = World::start(Protocol::Grpc).await;
    for protocol in [Protocol::Grpc, Protocol::Rest] {
        let (mut reader, mut writer) = under_way(&world, protocol).await.into_split();
        // So few at once that none waits to be taken up.
        let flood = tokio::spawn(async move {
            for part in 0..60 {
                if writer.write_all(&canceled(3 + part * 200, 100)).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            std::future::pending::<()>().await;
        });
        let mut read = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(60), reader.read_to_end(&mut read))
            .await
            .expect("it is cut off");
        flood.abort();
        world.through(protocol).call("EntityService/ListEntities", json!({})).await.unwrap();
    }
}
