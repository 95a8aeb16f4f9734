//! Limits of what proxies say of their callers.

use super::limits;

/// How many networks of trusted proxies there may be.
pub const TRUSTED_NETWORKS_AT_MOST: usize = 64;

/// How many bytes of a header that says where a request comes from are read.
pub const FORWARDED_BYTES_AT_MOST: usize = 4 << 10;

/// How many proxies such a header may name.
pub const FORWARDED_HOPS_AT_MOST: usize = 32;

/// How many bytes the PROXY protocol may have before a connection.
pub const PROXY_HEADER_BYTES_AT_MOST: usize = 4 << 10;

limits! {
    TRUSTED_NETWORKS "trusted_proxies" {
        bounds: "Networks in `--trusted-proxies`",
        value: Fixed(TRUSTED_NETWORKS_AT_MOST as u64, "networks"),
        past: "the service does not start",
    }
    FORWARDED_BYTES "forwarded_bytes" {
        bounds: "Bytes that are read of the header in which trusted proxies say where a request comes from, beginning with what the last of them has said",
        value: Fixed(FORWARDED_BYTES_AT_MOST as u64, "bytes"),
        past: "the caller's address is not known, so that no list of networks admits it; it counts with the last proxy that is known",
    }
    FORWARDED_HOPS "forwarded_hops" {
        bounds: "Proxies that such a header names one after the other",
        value: Fixed(FORWARDED_HOPS_AT_MOST as u64, "proxies"),
        past: "As for its bytes",
    }
    PROXY_HEADER_BYTES "proxy_header_bytes" {
        bounds: "Bytes of the PROXY protocol before the first request of a connection of a trusted proxy",
        value: Fixed(PROXY_HEADER_BYTES_AT_MOST as u64, "bytes"),
        past: "the connection is closed",
    }
    PROXY_HEADER_TIME "proxy_header_time" {
        bounds: "Time from the opening of such a connection to the end of its PROXY protocol",
        value: Setting("head-timeout"),
        past: "the connection is closed",
    }
}
