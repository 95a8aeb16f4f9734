//! How long each stage of a connection may take.

use std::time::Duration;

use crate::limits::Limit;
use crate::limits::listeners::{IDLE_TIME, IDLE_TIME_WITHOUT_KEY};

/// How long each stage of a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the first byte of a request to the end of its head; and from the opening of the connection.
    pub head: Duration,
    /// Without a request; for ever, if none.
    pub idle: Option<Duration>,
    /// The same where nobody has shown a valid key on the connection; as with one, if none.
    pub idle_without_key: Option<Duration>,
    /// Without the peer reading anything that is sent to it.
    pub unread: Duration,
}

impl Patience {
    /// How often the activity of a connection is checked.
    pub(super) fn look(&self) -> Duration {
        self.head.min(self.unread).min(self.idle(false).0.unwrap_or(self.head))
    }

    /// How long a connection may be idle on which somebody has or has not shown a valid key, and the limit that says so.
    pub(super) fn idle(&self, is_proven: bool) -> (Option<Duration>, &'static Limit) {
        match self.idle_without_key {
            Some(time) if !is_proven && self.idle.is_none_or(|idle| time < idle) => {
                (Some(time), &IDLE_TIME_WITHOUT_KEY)
            }
            _ => (self.idle, &IDLE_TIME),
        }
    }
}
