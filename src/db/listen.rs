//! `LISTEN`: learning at once that there is something to do.
//!
//! diesel hands out notifications that have arrived, but cannot wait for one, so a thread of its own reads the socket every few
//! milliseconds. That costs one system call a time and keeps one driver, with one way to read a database URL and to speak TLS.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::db::backoff::pause;
use crate::db::options::Options;
use crate::db::outage::{self, Opener};
use crate::db::reserved_connection::ReservedConnection;
use crate::error::one_line;
use crate::telemetry::Seldom;

/// The one channel; the payload names the topic.
pub const CHANNEL: &str = "offboard";

const READ_EVERY: Duration = Duration::from_millis(10);
const TEST_EVERY: Duration = Duration::from_secs(5);
/// Pauses between attempts to connect, the first and the longest.
const RECONNECT_AFTER: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How long the test of the connection may take.
const TEST_TIME: Duration = Duration::from_secs(3);

/// Topics and who waits on them. A wake-up is a hint: it may come for nothing, and a lost one is made good by polling.
#[derive(Clone, Default)]
pub struct Topics(Arc<HashMap<&'static str, watch::Sender<()>>>);

impl Topics {
    /// These topics.
    pub fn new(names: impl IntoIterator<Item = &'static str>) -> Self {
        Topics(Arc::new(names.into_iter().map(|name| (name, watch::Sender::new(()))).collect()))
    }

    /// The wake-ups of a topic from now on. Each subscriber has every one: one of them may have no use for it. A topic that is not listened to
    /// never wakes.
    pub fn subscribe(&self, topic: &str) -> WakeUps {
        WakeUps(self.0.get(topic).map(watch::Sender::subscribe))
    }

    fn wake(&self, topic: &str) {
        if let Some(sender) = self.0.get(topic) {
            sender.send_replace(());
        }
    }

    /// Wakes every topic: after a reconnect nobody knows what was missed.
    fn wake_all(&self) {
        self.0.values().for_each(|sender| sender.send_replace(()));
    }
}

/// The wake-ups of a topic.
pub struct WakeUps(Option<watch::Receiver<()>>);

impl WakeUps {
    /// Waits for the next one; those that came since the last wait count as one.
    pub async fn next(&mut self) {
        let woken = match &mut self.0 {
            Some(receiver) => receiver.changed().await.is_ok(),
            None => false,
        };
        if !woken {
            std::future::pending().await
        }
    }
}

/// Listens in a thread of its own until `stop`, over a connection at this place; reconnects when that is lost.
pub fn spawn(
    reserved: ReservedConnection,
    topics: Topics,
    stop: CancellationToken,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let options = Options { statement_timeout: TEST_TIME, ..reserved.options().clone() };
    std::thread::Builder::new().name("listen".to_owned()).spawn(move || {
        let (mut after, mut refusals) = (RECONNECT_AFTER.0, Seldom::default());
        while !stop.is_cancelled() {
            match reserved.open(&options, &stop) {
                Ok(mut session) => match listen(&mut session.connection, &topics, &stop) {
                    Ok(()) => {}
                    Err(Ended::Lost(error)) => {
                        after = RECONNECT_AFTER.0;
                        tracing::info!(
                            cause = one_line(&error.to_string()),
                            "lost the connection that listens for wake-ups"
                        );
                    }
                    // A standby lets nobody listen, and may be one for long.
                    Err(Ended::Refused(error)) => {
                        if let Some(times) = refusals.report() {
                            tracing::warn!(
                                cause = one_line(&error.to_string()),
                                times,
                                "cannot listen for wake-ups"
                            );
                        }
                    }
                },
                Err(error) => outage::failed(Opener::Listener, error),
            }
            pause(after, &stop);
            after = (after * 2).min(RECONNECT_AFTER.1);
        }
    })
}

/// Why nothing is listened to any more.
enum Ended {
    /// It never was.
    Refused(diesel::result::Error),
    /// The connection was lost.
    Lost(diesel::result::Error),
}

fn listen(
    connection: &mut PgConnection,
    topics: &Topics,
    stop: &CancellationToken,
) -> Result<(), Ended> {
    outage::succeeded(Opener::Listener);
    connection.batch_execute(&format!("LISTEN {CHANNEL}")).map_err(Ended::Refused)?;
    wait_for_wake_ups(connection, topics, stop).map_err(Ended::Lost)
}

fn wait_for_wake_ups(
    connection: &mut PgConnection,
    topics: &Topics,
    stop: &CancellationToken,
) -> diesel::QueryResult<()> {
    topics.wake_all();
    let mut tested = Instant::now();
    while !stop.is_cancelled() {
        for notification in connection.notifications_iter() {
            topics.wake(&notification?.payload);
        }
        // A peer that vanished without a word shows only when it is spoken to.
        if tested.elapsed() > TEST_EVERY {
            connection.batch_execute("SELECT 1")?;
            tested = Instant::now();
        }
        pause(READ_EVERY, stop);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn each_subscriber_has_every_wake_up() {
        let topics = Topics::new(["work"]);
        let (mut one, mut other) = (topics.subscribe("work"), topics.subscribe("work"));
        assert!(one.next().now_or_never().is_none());
        topics.wake("work");
        topics.wake("work");
        assert!(one.next().now_or_never().is_some() && other.next().now_or_never().is_some());
        assert!(one.next().now_or_never().is_none(), "those that came meanwhile were one");
        assert!(topics.subscribe("play").next().now_or_never().is_none());
    }
}
