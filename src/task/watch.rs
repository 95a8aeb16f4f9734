//! One caller's view of a task until its end.

use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use crate::access::Caller;
use crate::db::Db;
use crate::error::Result;
use crate::events::{Admission, WakeUp, Watching};
use crate::task::model::Task;
use crate::task::queries;

/// How often a task is sent while its status stays.
const SEND_EVERY: Duration = Duration::from_secs(1);
/// How soon it is read again, however much happens in the realm.
const READ_AFTER: Duration = Duration::from_millis(200);

struct Watch {
    db: Db,
    admission: Admission,
    wake_up: WakeUp,
    /// The last message, and when it was sent.
    sent: Task,
    sent_at: Instant,
}

/// Sends a task as it is, and whenever it has moved, until it has ended.
pub fn watch(
    on: &Watching,
    caller: Caller,
    wake_up: WakeUp,
    first: Task,
) -> BoxStream<'static, Result<Task, Status>> {
    let watch = Watch {
        db: on.db.clone(),
        admission: on.admission(caller),
        wake_up,
        sent: first.clone(),
        sent_at: Instant::now(),
    };
    let rest = stream::unfold(Some(watch), |watch| async move {
        let mut watch = watch?;
        match watch.next().await {
            Ok(Some(task)) => Some((Ok(task), Some(watch))),
            Ok(None) => None,
            Err(error) => Some((Err(error.into()), None)),
        }
    });
    stream::once(std::future::ready(Ok(first))).chain(rest).boxed()
}

impl Watch {
    /// The next message; none after the end.
    async fn next(&mut self) -> Result<Option<Task>> {
        let mut read_at = self.sent_at;
        while !self.sent.state.is_ended() {
            let wake_up = &mut self.wake_up;
            let news = async move {
                // Not at once after the last reading.
                sleep_until(read_at + READ_AFTER).await;
                wake_up.wait().await;
            };
            self.admission.wait(news, read_at + SEND_EVERY).await?;
            read_at = Instant::now();
            let (realm, id) = (self.admission.caller().realm.clone(), self.sent.id);
            let found = self.db.run(move |connection| queries::get(connection, &realm, id)).await?;
            let Some(now) = found else { return Ok(None) };
            let is_due = self.sent_at.elapsed() >= SEND_EVERY;
            if now.state != self.sent.state || (is_due && has_moved(&self.sent, &now)) {
                (self.sent, self.sent_at) = (now.clone(), read_at);
                return Ok(Some(now));
            }
        }
        Ok(None)
    }
}

/// Returns whether there is anything to send but the passing of time.
fn has_moved(sent: &Task, now: &Task) -> bool {
    let account = |task: &Task| {
        let counts = [
            task.matched,
            task.processed,
            task.failed,
            task.excluded,
            task.skipped,
            task.unpublished,
        ];
        (counts, task.selected, task.max_objects_per_second, task.instances.len())
    };
    account(sent) != account(now)
}
