//! The activity of a connection: noted by its socket and its requests, and read to decide how long that may take.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::client_frames::ClientFrames;
use super::patience::Patience;

use crate::limits::Limit;
use crate::limits::listeners::{
    CANCELED_CALLS, CANCELED_CALLS_AT_MOST, CANCELED_CALLS_SECONDS, HEAD_TIME,
    IDLE_SECONDS_WITH_KEY, IDLE_TIME, LEAST_SENT_BYTES, UNREAD_TIME,
};

/// When to check again, or the limit that was exceeded.
#[derive(Debug)]
pub enum NextCheck {
    /// Nothing, for now.
    At(Instant),
    /// This limit was reached.
    Over(&'static Limit),
}

/// In what order connections give way to others, and since when each is so. The fields of each are compared as they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GivesWay {
    /// Nobody has shown a key on it, and no request is on it.
    Idle(Instant),
    /// Nobody has shown a key on it.
    Busy(Instant),
    /// Nobody has called on it for a while.
    IdleWithKey(Instant),
}

/// The first bytes of an HTTP/2 connection: its preface, and the head of the settings that must follow (RFC 9113, section 3.4).
const PREFACE: u64 = 24 + 9;

/// The activity of a connection. Times are milliseconds since it was opened, plus one; 0 is never.
#[derive(Debug)]
pub struct Activity {
    opened: Instant,
    received: AtomicU64,
    is_http2: AtomicBool,
    is_tls: AtomicBool,
    is_confusing: AtomicBool,
    has_ended: AtomicBool,
    is_answering: AtomicBool,
    /// True if the last key that was shown, or none where one is needed, was valid.
    is_proven: AtomicBool,
    requests: AtomicUsize,
    /// How many of them are of callers with a valid key.
    requests_with_key: AtomicUsize,
    head_since: AtomicU64,
    /// Since when the headers of a request have been arriving by HTTP/2.
    frame_head_since: AtomicU64,
    /// When the last request began or, where none is left, ended.
    since: AtomicU64,
    unread_since: AtomicU64,
    /// How many bytes were read since then.
    read: AtomicUsize,
    none_left: Notify,
    cut: Notify,
    sent: Mutex<Sent>,
}

/// What the client has sent by HTTP/2.
#[derive(Debug)]
struct Sent {
    frames: ClientFrames,
    /// The number of the request whose headers are arriving.
    head: Option<u64>,
    /// How many calls it has canceled since this time.
    canceled: u32,
    since: u64,
}

impl Activity {
    /// Of a connection that is opened now.
    pub fn new() -> Self {
        Activity {
            opened: Instant::now(),
            received: AtomicU64::new(0),
            is_http2: AtomicBool::new(false),
            is_tls: AtomicBool::new(false),
            is_confusing: AtomicBool::new(false),
            is_answering: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            is_proven: AtomicBool::new(false),
            requests: AtomicUsize::new(0),
            requests_with_key: AtomicUsize::new(0),
            head_since: AtomicU64::new(0),
            frame_head_since: AtomicU64::new(0),
            since: AtomicU64::new(0),
            unread_since: AtomicU64::new(0),
            read: AtomicUsize::new(0),
            none_left: Notify::new(),
            cut: Notify::new(),
            sent: Mutex::new(Sent {
                frames: ClientFrames::new(),
                head: None,
                canceled: 0,
                since: 0,
            }),
        }
    }

    fn now(&self) -> u64 {
        self.opened.elapsed().as_millis() as u64 + 1
    }

    fn at(&self, time: u64, after: Duration) -> Instant {
        self.opened + Duration::from_millis(time.saturating_sub(1)) + after
    }

    /// These bytes were received; none is the end.
    pub fn received(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            self.has_ended.store(true, Relaxed);
            return;
        }
        if self.received.fetch_add(bytes.len() as u64, Relaxed) == 0 {
            // No method of HTTP/1.1 is called so, and a shorter beginning waits for more in either protocol.
            self.is_http2.store(bytes.starts_with(b"PRI "), Relaxed);
            // A record of a handshake (RFC 8446, section 5.1); no method of HTTP begins so.
            self.is_tls.store(bytes.starts_with(b"\x16\x03"), Relaxed);
        }
        if self.requests.load(Relaxed) == 0 && self.head_since.load(Relaxed) == 0 {
            self.head_since.store(self.now(), Relaxed);
        }
        self.follow_frames(bytes);
    }

    /// Notes when headers begin, and has the connection closed where the client cancels too many calls.
    fn follow_frames(&self, bytes: &[u8]) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let more = sent.frames.follow(bytes);
        let head = sent.frames.head();
        if head != sent.head {
            sent.head = head;
            self.frame_head_since.store(head.map_or(0, |_| self.now()), Relaxed);
        }
        if more == 0 {
            return;
        }
        let now = self.now();
        if now - sent.since > CANCELED_CALLS_SECONDS * 1000 {
            (sent.canceled, sent.since) = (0, now);
        }
        sent.canceled += more;
        if sent.canceled > CANCELED_CALLS_AT_MOST {
            CANCELED_CALLS.reached();
            self.cut();
        }
    }

    /// Something was to be sent, and so much of it was taken or, if none, none. A little now and then does not prolong the time in which it must be read.
    pub fn sent(&self, taken: Option<usize>) {
        let is_unread = self.is_unread();
        match taken {
            None if !is_unread => {
                self.read.store(0, Relaxed);
                self.unread_since.store(self.now(), Relaxed);
            }
            Some(bytes)
                if is_unread && self.read.fetch_add(bytes, Relaxed) + bytes >= LEAST_SENT_BYTES =>
            {
                self.unread_since.store(0, Relaxed);
            }
            _ => {}
        }
    }

    /// A request of this protocol has begun.
    pub fn begin(&self, is_http2: bool) {
        // The preface may have come in pieces too small to know it by.
        if is_http2 && !self.is_http2() {
            self.is_http2.store(true, Relaxed);
        }
        self.requests.fetch_add(1, Relaxed);
        self.is_answering.store(true, Relaxed);
        self.head_since.store(0, Relaxed);
        self.since.store(self.now(), Relaxed);
    }

    /// The caller of a request has shown a valid key.
    pub fn prove(&self) {
        self.requests_with_key.fetch_add(1, Relaxed);
        self.is_proven.store(true, Relaxed);
    }

    /// A caller was refused for want of a valid key. What others showed before counts no longer, unless they still wait for their responses: returns
    /// whether it does not.
    pub fn disprove(&self) -> bool {
        let is_alone = self.requests_with_key.load(Relaxed) == 0;
        if is_alone {
            self.is_proven.store(false, Relaxed);
        }
        is_alone
    }

    /// How soon it gives way to another connection: the least of all is the first. None where it does not.
    pub fn gives_way(&self) -> Option<GivesWay> {
        let since = self.at(self.since.load(Relaxed), Duration::ZERO);
        let is_idle = || since.elapsed() >= Duration::from_secs(IDLE_SECONDS_WITH_KEY);
        match (self.is_proven.load(Relaxed), self.is_busy()) {
            (false, false) => Some(GivesWay::Idle(since)),
            (false, true) => Some(GivesWay::Busy(since)),
            (true, false) => is_idle().then_some(GivesWay::IdleWithKey(since)),
            (true, true) => None,
        }
    }

    /// A request is over, its response included; its caller had shown a valid key, or none.
    pub fn end(&self, with_key: bool) {
        if with_key {
            self.requests_with_key.fetch_sub(1, Relaxed);
        }
        if self.requests.fetch_sub(1, Relaxed) == 1 {
            self.since.store(self.now(), Relaxed);
            self.none_left.notify_one();
        }
    }

    /// Returns whether requests are being served.
    pub fn is_busy(&self) -> bool {
        self.requests.load(Relaxed) > 0
    }

    /// All that was written so far is on its way.
    pub fn flushed(&self) {
        self.unread_since.store(0, Relaxed);
        if !self.is_busy() {
            self.is_answering.store(false, Relaxed);
        }
    }

    /// Returns whether the written bytes belong to the response of a request.
    pub fn is_answering(&self) -> bool {
        self.is_answering.load(Relaxed)
    }

    /// A head that was received says twice how its body ends.
    pub fn confuse(&self) {
        self.is_confusing.store(true, Relaxed);
    }

    /// Returns whether [`Activity::confuse`] was called.
    pub fn is_confusing(&self) -> bool {
        self.is_confusing.load(Relaxed)
    }

    /// Returns whether it begins as TLS does.
    pub fn is_tls(&self) -> bool {
        self.is_tls.load(Relaxed)
    }

    /// Returns whether something waits to be read by the peer.
    pub fn is_unread(&self) -> bool {
        self.unread_since.load(Relaxed) > 0
    }

    /// Returns whether it speaks HTTP/2, as far as is known.
    pub fn is_http2(&self) -> bool {
        self.is_http2.load(Relaxed)
    }

    /// Returns whether the peer has closed its side.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Relaxed)
    }

    /// Waits until a request is over that was the last: one of now, or one that was over since this was waited for.
    pub async fn none_left(&self) {
        self.none_left.notified().await;
    }

    /// Has the connection closed, whatever it is doing.
    pub fn cut(&self) {
        self.cut.notify_one();
    }

    /// Waits for [`Activity::cut`].
    pub async fn is_cut(&self) {
        self.cut.notified().await;
    }

    /// The limit that is exceeded now, or when to check again.
    pub fn due(&self, patience: &Patience) -> NextCheck {
        let now = Instant::now();
        let (ends, limit) = self.ends(patience);
        match ends {
            Some(ends) if ends <= now => NextCheck::Over(limit),
            Some(ends) => NextCheck::At(ends.min(now + patience.look())),
            None => NextCheck::At(now + patience.look()),
        }
    }

    fn ends(&self, patience: &Patience) -> (Option<Instant>, &'static Limit) {
        let unread = self.unread_since.load(Relaxed);
        if unread > 0 {
            return (Some(self.at(unread, patience.unread)), &UNREAD_TIME);
        }
        // Nothing else may come between the frames of one head, so the other requests of the connection are no excuse.
        let frame_head = self.frame_head_since.load(Relaxed);
        if frame_head > 0 {
            return (Some(self.at(frame_head, patience.head)), &HEAD_TIME);
        }
        if self.is_busy() {
            return (None, &IDLE_TIME);
        }
        let (head, since) = (self.head_since.load(Relaxed), self.since.load(Relaxed));
        // HTTP/2 says more than requests; once it has begun, its requests come whole or not at all.
        let has_begun = self.is_http2() && self.received.load(Relaxed) >= PREFACE;
        if head > 0 && !has_begun {
            return (Some(self.at(head, patience.head)), &HEAD_TIME);
        }
        if since == 0 && !has_begun {
            return (Some(self.at(0, patience.head)), &HEAD_TIME);
        }
        let (time, limit) = patience.idle(self.is_proven.load(Relaxed));
        (time.map(|time| self.at(since, time)), limit)
    }
}

#[cfg(test)]
mod tests;
