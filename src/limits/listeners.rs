//! Limits of connections, and of callers who show no key.

use std::num::NonZeroU32;

use super::{Limit, Value};

/// Connections of a listener at once.
pub static CONNECTIONS: Limit = Limit {
    name: "connections",
    bounds: "Connections at once at the gRPC listener, and as many at the HTTP listener; fewer where the process may open fewer files",
    value: Value::Setting("max-connections"),
    past: "the connection gives way on which nobody has shown a valid key and that is idle the longest, or the next one like it; else one on which nobody has called for 5 seconds; where there is none, the new one is closed at once",
};

/// For how many seconds a caller with a key may do nothing before its connection gives way to others.
pub const IDLE_SECONDS_WITH_KEY: u64 = 5;

/// Connections of a listener from one address at once.
pub static CONNECTIONS_PER_ADDRESS: Limit = Limit {
    name: "connections_per_address",
    bounds: "Connections at once from one IPv4 address or one IPv6 network of 64 bits, at each listener",
    value: Value::Setting("max-connections-per-address"),
    past: "one of the same address gives way, as for `connections`",
};

/// Connections of a realm at once.
pub static CONNECTIONS_PER_REALM: Limit = Limit {
    name: "connections_per_realm",
    bounds: "Connections at once of one realm, the one whose key was shown on them last, at each listener; fewer when others have some too, so that places are left",
    value: Value::Setting("max-connections-per-realm"),
    past: "one of the same realm gives way on which nobody has called for 5 seconds; where there is none, the call is refused with `rate_limit_exceeded` (429) and `Retry-After`, and its connection is as one without a key",
};

/// How many connections of the admin listener there may be.
pub const ADMIN_CONNECTIONS_AT_MOST: usize = 256;
/// How many of them from one address.
pub const ADMIN_CONNECTIONS_PER_ADDRESS_AT_MOST: usize = 64;

/// Connections of the admin listener at once.
pub static ADMIN_CONNECTIONS: Limit = Limit {
    name: "admin_connections",
    bounds: "Connections at once at the admin listener, a quarter of them from one address",
    value: Value::Fixed(ADMIN_CONNECTIONS_AT_MOST as u64, "connections"),
    past: "the connection that is idle the longest is closed",
};

/// Open files.
pub static OPEN_FILES: Limit = Limit {
    name: "open_files",
    bounds: "Open files of the process, a limit of the operating system; the admin listener keeps some in reserve",
    value: Value::Fixed(RESERVED_FILES as u64, "files in reserve"),
    past: "new connections wait until a file is closed, which is logged; probes are answered",
};

/// How many files the admin listener keeps in reserve.
pub const RESERVED_FILES: usize = 8;

/// Streams of a connection.
pub static STREAMS: Limit = Limit {
    name: "connection_streams",
    bounds: "Calls at once on one HTTP/2 connection",
    value: Value::Setting("max-streams-per-connection"),
    past: "clients wait before they begin the next call; one that does not gets `REFUSED_STREAM`",
};

/// What a caller may send ahead on one HTTP/2 stream, in bytes: what the protocol itself begins with.
pub const STREAM_WINDOW_BYTES: u32 = 65_535;

/// What a caller may send ahead.
pub static STREAM_WINDOW: Limit = Limit {
    name: "stream_window",
    bounds: "Bytes that a caller may send on an HTTP/2 stream before the service has read them",
    value: Value::Fixed(STREAM_WINDOW_BYTES as u64, "bytes"),
    past: "clients wait",
};

/// How many bytes of an answer are buffered for a stream.
pub const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// What is buffered of an answer.
pub static SEND_BUFFER: Limit = Limit {
    name: "send_buffer",
    bounds: "Bytes of an answer that are ready for an HTTP/2 stream whose caller does not read",
    value: Value::Fixed(SEND_BUFFER_BYTES as u64, "bytes"),
    past: "the call waits for its caller",
};

/// How large the head of an HTTP/1.1 request may be, and with it the buffer of a connection.
pub const HEAD_BYTES_AT_MOST: usize = 64 * 1024;

/// The head of a request.
pub static HEAD_BYTES: Limit = Limit {
    name: "head_bytes",
    bounds: "Bytes of the request line and the headers of a request",
    value: Value::Fixed(HEAD_BYTES_AT_MOST as u64, "bytes"),
    past: "`headers_too_large` (431) or `uri_too_long` (414), and the connection is closed; over HTTP/2 `header_list` holds in its place",
};

/// How large the headers of an HTTP/2 request may be, each with 32 bytes more than it has (RFC 9113, section 6.5.2): above what is taken, so that what is
/// too large is refused with a reason. Memory that nobody with a key has asked for is measured by it, so it is no larger.
pub const HEADER_LIST_BYTES_AT_MOST: u32 = 96 * 1024;

/// The headers of an HTTP/2 request.
pub static HEADER_LIST: Limit = Limit {
    name: "header_list",
    bounds: "Bytes of the headers of an HTTP/2 request as its library counts them, the path among them; what is below and past `uri_bytes`, `headers` or `header_bytes` is refused by those",
    value: Value::Fixed(HEADER_LIST_BYTES_AT_MOST as u64, "bytes"),
    past: "a 431 without a body and a request id, from the library, which does not count it",
};

/// How many streams that were canceled before the service took them up a connection may have.
pub const CANCELED_STREAMS_AT_MOST: usize = 4096;

/// Streams that were canceled at once.
pub static CANCELED_STREAMS: Limit = Limit {
    name: "canceled_streams",
    bounds: "Calls that are canceled on one HTTP/2 connection before the service has taken them up",
    value: Value::Fixed(CANCELED_STREAMS_AT_MOST as u64, "calls"),
    past: "the connection is closed with `ENHANCE_YOUR_CALM`",
};

/// How many calls a client may cancel on one connection, in this time.
pub const CANCELED_CALLS_AT_MOST: u32 = 4096;
/// The time for them, in seconds.
pub const CANCELED_CALLS_SECONDS: u64 = 10;

/// Calls that were canceled.
pub static CANCELED_CALLS: Limit = Limit {
    name: "canceled_calls",
    bounds: "Calls that are canceled on one HTTP/2 connection in 10 seconds, whether the service has taken them up or not",
    value: Value::Fixed(CANCELED_CALLS_AT_MOST as u64, "calls"),
    past: "the connection is closed",
};

/// How many empty frames a connection may have: what the HTTP library takes.
pub const EMPTY_FRAMES_AT_MOST: u32 = 100;

/// Empty frames.
pub static EMPTY_FRAMES: Limit = Limit {
    name: "empty_frames",
    bounds: "Frames of bodies that hold nothing and are not the last, on one HTTP/2 connection",
    value: Value::Fixed(EMPTY_FRAMES_AT_MOST as u64, "frames"),
    past: "the connection is closed with `ENHANCE_YOUR_CALM`, by the library, which does not count it",
};

/// How many streams a connection may make the protocol itself reset.
pub const STREAM_ERRORS_AT_MOST: usize = 16_384;

/// Streams that ended by a fault of the client.
pub static STREAM_ERRORS: Limit = Limit {
    name: "stream_errors",
    bounds: "Streams that one HTTP/2 connection makes the service reset, or refuse, in its life",
    value: Value::Fixed(STREAM_ERRORS_AT_MOST as u64, "streams"),
    past: "the connection is closed with `ENHANCE_YOUR_CALM`",
};

/// How long the head of a request may take.
pub static HEAD_TIME: Limit = Limit {
    name: "head_time",
    bounds: "Time from the first byte of a request to the end of its headers, and from the opening of a connection to its first request's",
    value: Value::Setting("head-timeout"),
    past: "the connection is closed",
};

/// How long a connection may be idle.
pub static IDLE_TIME: Limit = Limit {
    name: "idle_time",
    bounds: "Time without a call on a connection",
    value: Value::Setting("idle-timeout"),
    past: "the connection is closed, with `GOAWAY` by HTTP/2",
};

/// How long a connection may be idle on which nobody has shown a valid key.
pub static IDLE_TIME_WITHOUT_KEY: Limit = Limit {
    name: "idle_time_without_key",
    bounds: "Time without a call on a connection of which no call had a valid key, where it is shorter than `idle_time`; not at the admin listener",
    value: Value::Setting("idle-timeout-without-key"),
    past: "the connection is closed, with `GOAWAY` by HTTP/2",
};

/// How long a caller may take to read what is sent to it, in seconds.
pub const UNREAD_SECONDS: u64 = 60;

/// How many bytes must be taken in that time of what is ready to be sent, unless all of it is.
pub const LEAST_SENT_BYTES: usize = 64 << 10;

/// How long nothing is read.
pub static UNREAD_TIME: Limit = Limit {
    name: "unread_time",
    bounds: "Time in which a caller reads less than 64 KiB of what is sent to it, unless it reads all that there is",
    value: Value::Fixed(UNREAD_SECONDS, "seconds"),
    past: "the connection is closed",
};

/// How many bytes of a refused request are read.
pub const DISCARDED_BYTES_AT_MOST: usize = 64 << 20;
/// For how many seconds.
pub const DISCARDED_SECONDS: u64 = 30;

/// What is thrown away of the body of a refused request.
pub static DISCARDED_BYTES: Limit = Limit {
    name: "discarded_bytes",
    bounds: "Bytes of a request of HTTP/1.1, or of REST over HTTP/2, that are read and thrown away once it has its answer, for at most 30 seconds (over HTTP/2 the answer of a refusal is held back for 2 of them at most), so that a client \
             that is still sending finds the answer",
    value: Value::Fixed(DISCARDED_BYTES_AT_MOST as u64, "bytes"),
    past: "the connection, or the stream, is closed, and the answer may be lost",
};

/// Reflection at once.
pub static REFLECTION_STREAMS: Limit = Limit {
    name: "reflection_streams",
    bounds: "Streams of reflection at once, a quarter of them from one address",
    value: Value::Setting("max-reflection-streams"),
    past: "`unavailable`",
};

/// How long a stream of reflection may take, in seconds.
pub const REFLECTION_SECONDS: u64 = 60;

/// How long reflection takes.
pub static REFLECTION_TIME: Limit = Limit {
    name: "reflection_time",
    bounds: "Time of one stream of reflection",
    value: Value::Fixed(REFLECTION_SECONDS, "seconds"),
    past: "`deadline_exceeded`",
};

/// How many bytes reflection may tell an address within a minute.
pub const REFLECTION_BYTES_AT_MOST: NonZeroU32 = NonZeroU32::new(16 << 20).expect("it is not zero");

/// What reflection tells.
pub static REFLECTION_BYTES: Limit = Limit {
    name: "reflection_bytes",
    bounds: "Bytes that reflection tells one address within a minute; all that it has to tell is a quarter of a mebibyte",
    value: Value::Fixed(REFLECTION_BYTES_AT_MOST.get() as u64, "bytes"),
    past: "the stream ends with `rate_limit_exceeded`",
};

/// How many bytes of pages an address may be sent within a minute.
pub const PAGE_BYTES_AT_MOST: NonZeroU32 = NonZeroU32::new(16 << 20).expect("it is not zero");

/// Pages that are sent.
pub static PAGE_BYTES: Limit = Limit {
    name: "page_bytes",
    bounds: "Bytes that one address is sent within a minute of what needs no key by REST: `/openapi.json`, `/docs`, `/errors`; as they are sent, compressed or not",
    value: Value::Fixed(PAGE_BYTES_AT_MOST.get() as u64, "bytes"),
    past: "`rate_limit_exceeded` (429) with `Retry-After`",
};

/// How many watches of health there may be.
pub const HEALTH_WATCHES_AT_MOST: usize = 256;

/// How long a watch of health stays once the listeners close, in milliseconds.
pub const HEALTH_FAREWELL_MILLIS: u64 = 100;

/// The end of watches of health.
pub static HEALTH_FAREWELL: Limit = Limit {
    name: "health_farewell",
    bounds: "Time that a watch of gRPC health stays once the listeners close, to tell that nothing serves any more",
    value: Value::Fixed(HEALTH_FAREWELL_MILLIS, "milliseconds"),
    past: "the watch ends with `unavailable`",
};

/// Watches of health at once.
pub static HEALTH_WATCHES: Limit = Limit {
    name: "health_watches",
    bounds: "Watches of gRPC health at once, an eighth of them from one address",
    value: Value::Fixed(HEALTH_WATCHES_AT_MOST as u64, "watches"),
    past: "`unavailable`",
};

/// How long a watch of health may take, in seconds.
pub const HEALTH_WATCH_SECONDS: u64 = 3600;

/// How long a watch of health takes.
pub static HEALTH_WATCH_TIME: Limit = Limit {
    name: "health_watch_time",
    bounds: "Time of one watch of gRPC health",
    value: Value::Fixed(HEALTH_WATCH_SECONDS, "seconds"),
    past: "`deadline_exceeded`; clients watch again",
};

/// How many checks of health there may be.
pub const HEALTH_CHECKS_AT_MOST: usize = 1024;
/// How long one may take, in seconds.
pub const HEALTH_CHECK_SECONDS: u64 = 5;

/// Checks of health at once.
pub static HEALTH_CHECKS: Limit = Limit {
    name: "health_checks",
    bounds: "Checks of gRPC health at once, a quarter of them from one address, for at most 5 seconds each",
    value: Value::Fixed(HEALTH_CHECKS_AT_MOST as u64, "checks"),
    past: "`unavailable`",
};

/// How many keys that were not seen before may wait to be looked up.
pub const KEY_LOOKUPS_AT_MOST: usize = 256;

/// Keys that are looked up.
pub static KEY_LOOKUPS: Limit = Limit {
    name: "key_lookups",
    bounds: "Keys, not seen at this replica lately, that wait to be looked up; at most a quarter of the pool looks them up at once",
    value: Value::Fixed(KEY_LOOKUPS_AT_MOST as u64, "keys"),
    past: "`unavailable`; callers with keys that are known are not concerned",
};

/// How many calls may wait for a key to be looked up.
pub const CALLS_BEFORE_AUTHENTICATION_AT_MOST: usize = 1024;

/// Calls whose key is being looked up.
pub static CALLS_BEFORE_AUTHENTICATION: Limit = Limit {
    name: "calls_before_authentication",
    bounds: "Calls that wait for a key to be looked up that was not seen at this replica lately",
    value: Value::Fixed(CALLS_BEFORE_AUTHENTICATION_AT_MOST as u64, "calls"),
    past: "`unavailable`; callers with keys that are known are not concerned",
};

/// All of them.
pub const ALL: &[&Limit] = &[
    &CONNECTIONS,
    &CONNECTIONS_PER_ADDRESS,
    &CONNECTIONS_PER_REALM,
    &ADMIN_CONNECTIONS,
    &OPEN_FILES,
    &STREAMS,
    &STREAM_WINDOW,
    &SEND_BUFFER,
    &HEAD_BYTES,
    &HEADER_LIST,
    &CANCELED_STREAMS,
    &CANCELED_CALLS,
    &EMPTY_FRAMES,
    &STREAM_ERRORS,
    &HEAD_TIME,
    &IDLE_TIME,
    &IDLE_TIME_WITHOUT_KEY,
    &UNREAD_TIME,
    &DISCARDED_BYTES,
    &REFLECTION_STREAMS,
    &REFLECTION_TIME,
    &REFLECTION_BYTES,
    &PAGE_BYTES,
    &HEALTH_WATCHES,
    &HEALTH_FAREWELL,
    &HEALTH_WATCH_TIME,
    &HEALTH_CHECKS,
    &KEY_LOOKUPS,
    &CALLS_BEFORE_AUTHENTICATION,
];
