//! Ports for programs that cannot be asked which one they took.

use std::net::TcpListener;

/// Below those that the system gives to whoever asks for any, and so to servers that start at the same time.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port of this machine that is free now.
pub fn free_port() -> u16 {
    let any = || PORTS.start + rand::random::<u16>() % (PORTS.end - PORTS.start);
    std::iter::repeat_with(any)
        .take(1_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a port is free")
}
