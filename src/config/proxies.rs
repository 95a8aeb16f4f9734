//! Settings of the proxies between callers and the service.

use clap::{Args, ValueEnum};
use ipnet::IpNet;

use super::parse::trusted;

/// The proxies that are believed where a caller comes from, and how they say so.
#[derive(Args, Clone, Debug)]
pub struct Proxies {
    /// Networks of the proxies that are believed where their callers come from, such as 10.1.0.0/16; several with commas. By default none: a caller comes from where its connection does. Name the proxies alone, and not networks that callers are in
    #[arg(long, env = "OFFBOARD_TRUSTED_PROXIES", value_delimiter = ',', value_parser = trusted, value_name = "CIDR")]
    pub trusted_proxies: Vec<IpNet>,

    /// Header in which trusted proxies say where a request comes from; every one of them must set it or add to it, and any other header is not read [default: x-forwarded-for, or none with --proxy-protocol]
    #[arg(long, env = "OFFBOARD_FORWARDED_HEADER", value_enum)]
    pub forwarded_header: Option<ForwardedHeader>,

    /// Each connection of a trusted proxy to the gRPC and the HTTP listener begins with the PROXY protocol, version 2, and is closed where it does not; other connections have none
    #[arg(long, env = "OFFBOARD_PROXY_PROTOCOL")]
    pub proxy_protocol: bool,
}

/// The header in which proxies say where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`
    XForwardedFor,
    /// `Forwarded` (RFC 7239)
    Forwarded,
    /// No header
    None,
}

impl Proxies {
    /// The header that is read.
    pub fn header(&self) -> ForwardedHeader {
        let unless_said = if self.proxy_protocol {
            ForwardedHeader::None
        } else {
            ForwardedHeader::XForwardedFor
        };
        self.forwarded_header.unwrap_or(unless_said)
    }
}
