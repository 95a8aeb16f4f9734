//! Limits of connections, and of callers without a key.

use std::num::NonZeroU32;

use super::limits;

/// For how many seconds a caller with a key may do nothing before its connection gives way to others.
pub const IDLE_SECONDS_WITH_KEY: u64 = 5;

/// How many connections of the admin listener there may be.
pub const ADMIN_CONNECTIONS_AT_MOST: usize = 256;
/// How many of them from one address.
pub const ADMIN_CONNECTIONS_PER_ADDRESS_AT_MOST: usize = 64;

/// How many files the admin listener keeps in reserve.
pub const RESERVED_FILES: usize = 8;

/// The bytes that a caller may send ahead on one HTTP/2 stream: the initial window of the protocol itself.
pub const STREAM_WINDOW_BYTES: u32 = 65_535;

/// How many bytes of a response are buffered for a stream.
pub const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// How large the head of an HTTP/1.1 request may be, and with it the buffer of a connection.
pub const HEAD_BYTES_AT_MOST: usize = 64 * 1024;

/// How large the headers of an HTTP/2 request may be, each with 32 bytes more than it has (RFC 9113, section 6.5.2): above what is taken, so that what is
/// too large is refused with a reason. Memory that nobody with a key has asked for is measured by it, so it is no larger.
pub const HEADER_LIST_BYTES_AT_MOST: u32 = 96 * 1024;

/// How many streams that were canceled before the service took them up a connection may have.
pub const CANCELED_STREAMS_AT_MOST: usize = 4096;

/// How many calls a client may cancel on one connection, in this time.
pub const CANCELED_CALLS_AT_MOST: u32 = 4096;
/// The time for them, in seconds.
pub const CANCELED_CALLS_SECONDS: u64 = 10;

/// How many empty frames a connection may have: what the HTTP library takes.
pub const EMPTY_FRAMES_AT_MOST: u32 = 100;

/// How many streams a connection may make the protocol itself reset.
pub const STREAM_ERRORS_AT_MOST: usize = 16_384;

/// How long a caller may take to read what is sent to it, in seconds.
pub const UNREAD_SECONDS: u64 = 60;

/// How many bytes must be taken in that time of what is ready to be sent, unless all of it is.
pub const LEAST_SENT_BYTES: usize = 64 << 10;

/// How many bytes of a refused request are read.
pub const DISCARDED_BYTES_AT_MOST: usize = 64 << 20;
/// For how many seconds.
pub const DISCARDED_SECONDS: u64 = 30;

/// How many bytes of the rest of a request a refusal by HTTP/1.1 waits for.
pub const AWAITED_REST_BYTES: u64 = 64 << 10;

/// How long a stream of reflection may take, in seconds.
pub const REFLECTION_SECONDS: u64 = 60;

/// How many bytes reflection may send to an address within a minute.
pub const REFLECTION_BYTES_AT_MOST: NonZeroU32 = NonZeroU32::new(16 << 20).expect("it is not zero");

/// How many bytes of pages an address may be sent within a minute.
pub const PAGE_BYTES_AT_MOST: NonZeroU32 = NonZeroU32::new(16 << 20).expect("it is not zero");

/// How many watches of health there may be.
pub const HEALTH_WATCHES_AT_MOST: usize = 256;

/// How long a watch of health stays once the listeners close, in milliseconds.
pub const HEALTH_FAREWELL_MILLIS: u64 = 100;

/// How long a watch of health may take, in seconds.
pub const HEALTH_WATCH_SECONDS: u64 = 3600;

/// How many checks of health there may be.
pub const HEALTH_CHECKS_AT_MOST: usize = 1024;
/// How long one may take, in seconds.
pub const HEALTH_CHECK_SECONDS: u64 = 5;

/// How many keys that were not seen before may wait to be looked up.
pub const KEY_LOOKUPS_AT_MOST: usize = 256;

/// How many keys are kept in memory, so that their calls need no lookup.
pub const CACHED_KEYS_AT_MOST: usize = 10_000;

/// How many calls may wait for a key to be looked up.
pub const CALLS_BEFORE_AUTHENTICATION_AT_MOST: usize = 1024;

limits! {
    CONNECTIONS "connections" {
        bounds: "Connections at once at the gRPC listener, and as many at the HTTP listener; fewer where the process may open fewer files",
        value: Setting("max-connections"),
        past: "the connection that never showed a valid key and has been idle the longest is closed; else one without a call for 5 seconds; else the new one",
    }
    CONNECTIONS_PER_ADDRESS "connections_per_address" {
        bounds: "Connections at once from one IPv4 address or one IPv6 network of 64 bits, at each listener",
        value: Setting("max-connections-per-address"),
        past: "one of the same address gives way, as for `connections`",
    }
    CONNECTIONS_PER_REALM "connections_per_realm" {
        bounds: "Connections at once of one realm, the one whose key was shown on them last, at each listener; fewer when others have some too, so that some stay free",
        value: Setting("max-connections-per-realm"),
        past: "one of the same realm without a call for 5 seconds is closed; where there is none, the call is refused with `rate_limit_exceeded` (429) and `Retry-After`, and its connection is as one without a key",
    }
    ADMIN_CONNECTIONS "admin_connections" {
        bounds: "Connections at once at the admin listener, a quarter of them from one address",
        value: Fixed(ADMIN_CONNECTIONS_AT_MOST as u64, "connections"),
        past: "the connection that is idle the longest is closed",
    }
    OPEN_FILES "open_files" {
        bounds: "Open files of the process, a limit of the operating system; the admin listener keeps some in reserve",
        value: Fixed(RESERVED_FILES as u64, "files in reserve"),
        past: "new connections wait until a file is closed, which is logged; probes are still served",
    }
    STREAMS "connection_streams" {
        bounds: "Calls at once on one HTTP/2 connection",
        value: Setting("max-streams-per-connection"),
        past: "clients wait before they begin the next call; one that does not gets `REFUSED_STREAM`",
    }
    STREAM_WINDOW "stream_window" {
        bounds: "Bytes that a caller may send on an HTTP/2 stream before the service has read them",
        value: Fixed(STREAM_WINDOW_BYTES as u64, "bytes"),
        past: "clients wait",
    }
    SEND_BUFFER "send_buffer" {
        bounds: "Bytes of a response that are ready for an HTTP/2 stream whose caller does not read",
        value: Fixed(SEND_BUFFER_BYTES as u64, "bytes"),
        past: "the call waits for its caller",
    }
    HEAD_BYTES "head_bytes" {
        bounds: "Bytes of the request line and the headers of a request",
        value: Fixed(HEAD_BYTES_AT_MOST as u64, "bytes"),
        past: "`headers_too_large` (431) or `uri_too_long` (414), and the connection is closed; over HTTP/2 `header_list` is the limit instead",
    }
    HEADER_LIST "header_list" {
        bounds: "Bytes of the headers of an HTTP/2 request as its library counts them, the path among them; what is below and past `uri_bytes`, `headers` or `header_bytes` is refused by those",
        value: Fixed(HEADER_LIST_BYTES_AT_MOST as u64, "bytes"),
        past: "a 431 without a body and a request id, from the library, which does not count it; a head that is much larger ends the connection with `ENHANCE_YOUR_CALM`",
    }
    CANCELED_STREAMS "canceled_streams" {
        bounds: "Calls that are canceled on one HTTP/2 connection before the service has taken them up",
        value: Fixed(CANCELED_STREAMS_AT_MOST as u64, "calls"),
        past: "the connection is closed with `ENHANCE_YOUR_CALM`",
    }
    CANCELED_CALLS "canceled_calls" {
        bounds: "Calls that are canceled on one HTTP/2 connection in 10 seconds, whether the service has taken them up or not",
        value: Fixed(CANCELED_CALLS_AT_MOST as u64, "calls"),
        past: "the connection is closed",
    }
    EMPTY_FRAMES "empty_frames" {
        bounds: "Empty frames of bodies that are not the last, on one HTTP/2 connection",
        value: Fixed(EMPTY_FRAMES_AT_MOST as u64, "frames"),
        past: "the connection is closed with `ENHANCE_YOUR_CALM`, by the library, which does not count it",
    }
    STREAM_ERRORS "stream_errors" {
        bounds: "Streams that one HTTP/2 connection makes the service reset, or refuse, in its life",
        value: Fixed(STREAM_ERRORS_AT_MOST as u64, "streams"),
        past: "the connection is closed with `ENHANCE_YOUR_CALM`",
    }
    HEAD_TIME "head_time" {
        bounds: "Time from the first byte of a request to the end of its headers, and from the opening of a connection to its first request's",
        value: Setting("head-timeout"),
        past: "the connection is closed",
    }
    IDLE_TIME "idle_time" {
        bounds: "Time without a call on a connection",
        value: Setting("idle-timeout"),
        past: "the connection is closed, with `GOAWAY` by HTTP/2",
    }
    IDLE_TIME_WITHOUT_KEY "idle_time_without_key" {
        bounds: "Time without a call on a connection of which no call had a valid key, where it is shorter than `idle_time`; not at the admin listener",
        value: Setting("idle-timeout-without-key"),
        past: "the connection is closed, with `GOAWAY` by HTTP/2",
    }
    UNREAD_TIME "unread_time" {
        bounds: "Time in which a caller reads less than 64 KiB of what is sent to it, unless it reads all that there is",
        value: Fixed(UNREAD_SECONDS, "seconds"),
        past: "the connection is closed",
    }
    DISCARDED_BYTES "discarded_bytes" {
        bounds: "Bytes of a request of HTTP/1.1, or of REST over HTTP/2, that are read and thrown away once it has its response, for at most 30 seconds (over HTTP/2 the response of a refusal is delayed for 2 of them at most), so that a client \
                 that is still sending finds the answer",
        value: Fixed(DISCARDED_BYTES_AT_MOST as u64, "bytes"),
        past: "the connection, or the stream, is closed, and the response may be lost",
    }
    AWAITED_REST "awaited_rest" {
        bounds: "Bytes of the rest of a request that a refusal by HTTP/1.1 waits for, for a quarter of a second, so that the connection can be used again",
        value: Fixed(AWAITED_REST_BYTES, "bytes"),
        past: "the refusal says `connection: close`",
    }
    REFLECTION_STREAMS "reflection_streams" {
        bounds: "Streams of reflection at once, a quarter of them from one address",
        value: Setting("max-reflection-streams"),
        past: "`unavailable`",
    }
    REFLECTION_TIME "reflection_time" {
        bounds: "Time of one stream of reflection",
        value: Fixed(REFLECTION_SECONDS, "seconds"),
        past: "`deadline_exceeded`",
    }
    REFLECTION_BYTES "reflection_bytes" {
        bounds: "Bytes that reflection sends to one address within a minute; all that it can send is a quarter of a mebibyte",
        value: Fixed(REFLECTION_BYTES_AT_MOST.get() as u64, "bytes"),
        past: "the stream ends with `rate_limit_exceeded`",
    }
    PAGE_BYTES "page_bytes" {
        bounds: "Bytes that one address is sent within a minute of what needs no key by REST: `/openapi.json`, `/docs`, `/errors`; as they are sent, compressed or not",
        value: Fixed(PAGE_BYTES_AT_MOST.get() as u64, "bytes"),
        past: "`rate_limit_exceeded` (429) with `Retry-After`",
    }
    HEALTH_WATCHES "health_watches" {
        bounds: "Watches of gRPC health at once, an eighth of them from one address",
        value: Fixed(HEALTH_WATCHES_AT_MOST as u64, "watches"),
        past: "`unavailable`",
    }
    HEALTH_FAREWELL "health_farewell" {
        bounds: "Time that a watch of gRPC health stays once the listeners close, to report that nothing is served any more",
        value: Fixed(HEALTH_FAREWELL_MILLIS, "milliseconds"),
        past: "the watch ends with `unavailable`",
    }
    HEALTH_WATCH_TIME "health_watch_time" {
        bounds: "Time of one watch of gRPC health",
        value: Fixed(HEALTH_WATCH_SECONDS, "seconds"),
        past: "`deadline_exceeded`; clients watch again",
    }
    HEALTH_CHECKS "health_checks" {
        bounds: "Checks of gRPC health at once, a quarter of them from one address, for at most 5 seconds each",
        value: Fixed(HEALTH_CHECKS_AT_MOST as u64, "checks"),
        past: "`unavailable`",
    }
    KEY_LOOKUPS "key_lookups" {
        bounds: "Keys, not used at this replica lately, that wait to be looked up; at most a quarter of the pool looks them up at once",
        value: Fixed(KEY_LOOKUPS_AT_MOST as u64, "keys"),
        past: "`unavailable`; callers whose keys are in the cache are not affected",
    }
    CALLS_BEFORE_AUTHENTICATION "calls_before_authentication" {
        bounds: "Calls that wait for the lookup of a key that was not used at this replica lately",
        value: Fixed(CALLS_BEFORE_AUTHENTICATION_AT_MOST as u64, "calls"),
        past: "`unavailable`; callers whose keys are in the cache are not affected",
    }
    CACHED_KEYS "cached_keys" {
        bounds: "Secrets of keys, used within a minute, that are in the cache of one replica",
        value: Fixed(CACHED_KEYS_AT_MOST as u64, "secrets"),
        past: "Calls with further ones look their key up",
    }
}
