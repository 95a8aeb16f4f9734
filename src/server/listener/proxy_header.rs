//! The PROXY protocol, version 2: what a proxy says of a connection, before its first byte.
//!
//! It is read from trusted proxies alone, whole and before anything else; without it, or if it is malformed, the connection is closed. See
//! <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>.

use std::io;
use std::net::IpAddr;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::limits::proxies::{PROXY_HEADER_BYTES, PROXY_HEADER_BYTES_AT_MOST};
use crate::server::client::Client;

/// The bytes before those whose number they say.
const START: usize = 16;
/// Where the version and the command are.
const COMMAND: usize = 12;
/// Version 2, command `LOCAL`: the proxy calls by itself, such as to see whether anyone is there.
const LOCAL: u8 = 0x20;

const V2: ParseConfig = ParseConfig { include_tlvs: false, allow_v1: false, allow_v2: true };

/// Reads it from a connection of this proxy, and not a byte more, and returns the client.
pub async fn read(stream: &mut (impl AsyncRead + Unpin), proxy: IpAddr) -> io::Result<Client> {
    let mut start = [0; START];
    stream.read_exact(&mut start).await?;
    let whole = START + usize::from(u16::from_be_bytes([start[START - 2], start[START - 1]]));
    // What is not the protocol does not say how long it is.
    let begins =
        matches!(ProxyHeader::parse(&start, V2), Ok(_) | Err(proxy_header::Error::BufferTooShort));
    if !begins {
        return Err(malformed("it does not begin as the PROXY protocol does"));
    }
    if whole > PROXY_HEADER_BYTES_AT_MOST {
        PROXY_HEADER_BYTES.reached();
        return Err(malformed("its PROXY protocol is too long"));
    }
    let mut bytes = start.to_vec();
    bytes.resize(whole, 0);
    stream.read_exact(&mut bytes[START..]).await?;
    client(&bytes, proxy).ok_or_else(|| malformed("its PROXY protocol is malformed"))
}

/// The client of these bytes; none if they are malformed.
fn client(bytes: &[u8], proxy: IpAddr) -> Option<Client> {
    let (header, length) = ProxyHeader::parse(bytes, V2).ok()?;
    if length != bytes.len() {
        return None;
    }
    match header.proxied_address() {
        Some(address) if address.protocol == Protocol::Stream => {
            Some(Client::at(address.source.ip()))
        }
        Some(_) => None,
        None if bytes[COMMAND] == LOCAL => Some(Client::at(proxy)),
        // It speaks for somebody, and does not say whom.
        None => Some(Client::unknown(proxy)),
    }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::*;

    use super::*;

    const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    /// The bytes with this command and family, and behind them.
    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        bytes.extend([command, family]);
        bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    fn v4() -> Vec<u8> {
        vec![198, 51, 100, 7, 10, 0, 0, 2, 0, 80, 1, 187]
    }

    fn v6(source: [u8; 16]) -> Vec<u8> {
        [&source[..], &[0; 16], &[0, 80, 1, 187]].concat()
    }

    /// What is read of these bytes, and how many are left.
    fn read_of(bytes: &[u8]) -> (Option<Client>, usize) {
        let mut rest = bytes;
        let client = read(&mut rest, PROXY).now_or_never().expect("bytes are there or not");
        (client.ok(), rest.len())
    }

    #[test]
    fn the_client_is_whom_a_proxy_names_and_nothing_behind_it_is_read() {
        let mapped = std::net::Ipv4Addr::new(198, 51, 100, 7).to_ipv6_mapped().octets();
        let far = "2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap();
        let at = |address: IpAddr| Some(Client::at(address));
        let named = at([198, 51, 100, 7].into());
        for (bytes, client) in [
            (header(0x21, 0x11, &v4()), named),
            (header(0x21, 0x11, &[v4(), vec![4, 0, 2, 0, 0]].concat()), named),
            (header(0x21, 0x21, &v6(mapped)), named),
            (header(0x21, 0x21, &v6(far.octets())), at(far.into())),
            (header(0x20, 0x00, &[]), at(PROXY)),
            (header(0x20, 0x11, &v4()), at(PROXY)),
            (header(0x21, 0x00, &[]), Some(Client::unknown(PROXY))),
            (header(0x21, 0x31, &[7; 216]), Some(Client::unknown(PROXY))),
        ] {
            assert_eq!(read_of(&bytes), (client, 0), "{bytes:?}");
            let with_call = [&bytes[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(read_of(&with_call), (client, 18), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_malformed_names_nobody() {
        for bytes in [
            b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            b"PROXY TCP4 198.51.100.7 10.0.0.2 80 443\r\n".to_vec(),
            header(0x11, 0x11, &v4()),
            header(0x22, 0x11, &v4()),
            header(0x21, 0x51, &v4()),
            header(0x21, 0x13, &v4()),
            header(0x21, 0x12, &v4()),
            header(0x21, 0x11, &v4()[..11]),
            header(0x21, 0x21, &v4()),
            header(0x21, 0x11, &v4())[..27].to_vec(),
            header(0x21, 0x11, &vec![1; PROXY_HEADER_BYTES_AT_MOST]),
            header(0x21, 0x11, &v4())[..15].to_vec(),
            Vec::new(),
        ] {
            assert_eq!(read_of(&bytes).0, None, "{bytes:?}");
        }
        let long = header(0x21, 0x11, &[v4(), vec![0; PROXY_HEADER_BYTES_AT_MOST - 28]].concat());
        assert!(read_of(&long).0.is_some(), "as long as it may be");
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_a_client_or_in_none(
            start in prop::collection::vec(any::<u8>(), 0..4),
            command: u8,
            family: u8,
            rest in prop::collection::vec(any::<u8>(), 0..300),
            cut in 0..400_usize,
        ) {
            let mut bytes = header(command, family, &rest);
            bytes.truncate(cut.max(1));
            let (client, left) = read_of(&bytes);
            prop_assert!(client.is_none() || left == 0);
            let noise = [start, bytes].concat();
            read_of(&noise);
        }
    }
}
