//! Where a request comes from.
//!
//! Anybody can write a header. So a header is believed as far as proxies that are trusted have written it: each of them adds whom it was called by
//! at the end, and it is read from there, up to the first address that is not one of theirs. That is the client; what stands before it is the
//! client's own word, and is not read. The PROXY protocol says the same of a whole connection. Pure.

mod forwarded;

use std::net::IpAddr;
use std::sync::Arc;

use http::{Extensions, HeaderMap, HeaderName, header};
use ipnet::IpNet;

use self::forwarded::Hop;
use crate::access::canonical;
use crate::config::{self, ForwardedHeader};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client that a connection or a request comes from: among the extensions of every request of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address; none where a trusted proxy does not say it, or not so that it can be read.
    pub address: Option<IpAddr>,
    /// The address that limits count it by: its own, or that of the last proxy before it that is known.
    pub counted: IpAddr,
}

impl Client {
    /// A client at this address.
    pub fn at(address: IpAddr) -> Client {
        let address = address.to_canonical();
        Client { address: Some(address), counted: address }
    }

    /// One that calls by this proxy, from nobody knows where.
    pub fn unknown(proxy: IpAddr) -> Client {
        Client { address: None, counted: proxy.to_canonical() }
    }

    /// That of a request.
    pub fn of(extensions: &Extensions) -> Option<Client> {
        extensions.get::<Client>().copied()
    }
}

/// The proxies that are believed. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Proxies {
    trusted: Arc<[IpNet]>,
    header: ForwardedHeader,
    /// True if their connections begin with the PROXY protocol.
    pub sends_proxy_protocol: bool,
}

impl Proxies {
    /// Those of the settings.
    pub fn new(settings: &config::Proxies) -> Proxies {
        Proxies {
            trusted: settings.trusted_proxies.iter().copied().map(canonical).collect(),
            header: settings.header(),
            sends_proxy_protocol: settings.proxy_protocol,
        }
    }

    /// None.
    pub fn none() -> Proxies {
        Proxies {
            trusted: Arc::default(),
            header: ForwardedHeader::None,
            sends_proxy_protocol: false,
        }
    }

    /// Returns whether a connection from this address begins with the PROXY protocol.
    pub fn announces(&self, address: IpAddr) -> bool {
        self.sends_proxy_protocol && self.trusts(address)
    }

    /// The client of a request with these headers, on a connection from there.
    pub fn client(&self, connection: Client, headers: &HeaderMap) -> Client {
        let Some(nearest) = connection.address.filter(|address| self.trusts(*address)) else {
            return connection;
        };
        match self.header {
            ForwardedHeader::None => connection,
            ForwardedHeader::XForwardedFor => {
                self.walk(nearest, forwarded::x_forwarded_for(headers.get_all(X_FORWARDED_FOR)))
            }
            ForwardedHeader::Forwarded => {
                self.walk(nearest, forwarded::forwarded(headers.get_all(header::FORWARDED)))
            }
        }
    }

    /// Goes from the nearest proxy to the first address that is not one of a proxy. Where all are, the farthest is the client.
    fn walk(&self, nearest: IpAddr, hops: impl Iterator<Item = Hop>) -> Client {
        let mut last = nearest;
        for hop in hops {
            match hop {
                Hop::Address(address) if self.trusts(address) => last = address,
                Hop::Address(address) => return Client::at(address),
                Hop::Unknown => return Client::unknown(last),
            }
        }
        Client::at(last)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests;
