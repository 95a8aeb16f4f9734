//! The dependencies of watches, and the reasons that end a watch early.

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::access::{Authenticator, CHECK_KEY, Caller};
use crate::db::Db;
use crate::error::{Error, Result};
use crate::events::Hub;

/// The dependencies of every watch.
#[derive(Clone)]
pub struct Watching {
    /// The database.
    pub db: Db,
    /// Wakes when something happened in the realm.
    pub hub: Hub,
    /// Knows when the caller's key ends.
    pub authenticator: Authenticator,
    /// Cancelled when the process takes no more calls.
    pub closing: CancellationToken,
}

impl Watching {
    /// The admission of a caller that has just called.
    pub fn admission(&self, caller: Caller) -> Admission {
        Admission {
            authenticator: self.authenticator.clone(),
            closing: self.closing.clone(),
            caller,
            checked: Instant::now(),
        }
    }
}

/// The conditions of a watch: a valid key, and a process that takes calls.
pub struct Admission {
    authenticator: Authenticator,
    closing: CancellationToken,
    caller: Caller,
    /// When the key was last found good.
    checked: Instant,
}

impl Admission {
    /// The caller who is admitted.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Fails when the watch is to end. Checks the key every few seconds, so it may be called as often as there is news.
    pub async fn check(&mut self) -> Result<()> {
        if self.closing.is_cancelled() {
            let message = "This replica is shutting down; watch again, from the last cursor if there is one, and another one will respond.";
            return Err(Error::unavailable(message));
        }
        if self.checked.elapsed() >= CHECK_KEY {
            self.authenticator.check(&self.caller).await?;
            self.checked = Instant::now();
        }
        Ok(())
    }

    /// Waits for news, though not for longer than `until`, and checks. Returns whether there was any.
    pub async fn wait(&mut self, news: impl Future<Output = ()>, until: Instant) -> Result<bool> {
        let is_news = tokio::select! {
            () = news => true,
            () = self.closing.cancelled() => false,
            () = sleep_until(until.min(self.checked + CHECK_KEY)) => false,
        };
        self.check().await?;
        Ok(is_news)
    }
}
