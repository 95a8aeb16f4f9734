//! Clients that send what no library would.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The first bytes of a client of HTTP/2: the preface, and settings that change nothing.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// The types of frames.
pub const HEADERS: u8 = 1;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const GO_AWAY: u8 = 7;

/// A connection on which something was sent.
pub async fn sent(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(bytes).await.unwrap();
    connection
}

/// Reads until the server closes the connection, in whatever way; fails after half a minute.
pub async fn closed(connection: &mut TcpStream, what: &str) -> Vec<u8> {
    let mut read = Vec::new();
    let ended = timeout(Duration::from_secs(30), connection.read_to_end(&mut read)).await;
    assert!(ended.is_ok(), "{what}: the connection stays open");
    read
}

/// The frame of this type, with these flags, on this stream.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The headers of a request: `GET` or `POST` (by their numbers in HPACK's table, 2 and 3) of a path, and more.
pub fn head(method: u8, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let mut block = vec![0x80 | method, 0x86];
    block.extend([&[0x04], text(path).as_slice(), &[0x01], text("x").as_slice()].concat());
    for (name, value) in more {
        block.extend([&[0x00], text(name).as_slice(), text(value).as_slice()].concat());
    }
    block
}

/// Reads frames until there is one that is searched for; none, where the server closes the connection before. Fails after half a minute.
pub async fn frame_until(
    connection: &mut TcpStream,
    found: impl Fn(u8, u32) -> bool,
) -> Option<(u8, Vec<u8>)> {
    let reading = async {
        loop {
            let mut head = [0; 9];
            connection.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            connection.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            if found(head[3], stream) {
                return Some((head[3], payload));
            }
        }
    };
    timeout(Duration::from_secs(30), reading)
        .await
        .expect("the server says something within half a minute")
}
