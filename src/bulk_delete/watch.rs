//! One caller's view of a task until its end.

use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use crate::access::Caller;
use crate::bulk_delete::model::Task;
use crate::bulk_delete::queries;
use crate::error::{Error, Result};
use crate::events::{WakeUp, Watching};

/// How often a task is told of while its status stays.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How soon it is looked at again, however much happens in the realm.
const LOOK_AFTER: Duration = Duration::from_millis(200);

struct Watch {
    on: Watching,
    caller: Caller,
    wake_up: WakeUp,
    /// What was told last, and when.
    told: Task,
    told_at: Instant,
}

/// Tells of a task as it is, and whenever it has moved, until it is over.
pub fn watch(on: Watching, caller: Caller, wake_up: WakeUp, first: Task) -> BoxStream<'static, Result<Task, Status>> {
    let watch = Watch { on, caller, wake_up, told: first.clone(), told_at: Instant::now() };
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
    /// What is told next; none behind the end.
    async fn next(&mut self) -> Result<Option<Task>> {
        let mut looked_at = self.told_at;
        while !self.told.state.is_ended() {
            self.wait(looked_at).await?;
            looked_at = Instant::now();
            let (realm, id) = (self.caller.realm.clone(), self.told.id);
            let found = self.on.db.run(move |connection| queries::get(connection, &realm, id)).await?;
            let Some(now) = found else { return Ok(None) };
            let is_due = self.told_at.elapsed() >= TELL_EVERY;
            if now.state != self.told.state || (is_due && has_moved(&self.told, &now)) {
                (self.told, self.told_at) = (now.clone(), looked_at);
                return Ok(Some(now));
            }
        }
        Ok(None)
    }

    /// Until something has happened in the realm, though not at once after the last look; or for as long as a watcher may wait for news.
    async fn wait(&mut self, looked_at: Instant) -> Result<()> {
        let news = async {
            sleep_until(looked_at + LOOK_AFTER).await;
            self.wake_up.wait().await;
        };
        tokio::select! {
            () = news => {}
            () = self.on.closing.cancelled() => {
                return Err(Error::unavailable("This replica is shutting down; watch again and another one will answer."));
            }
            () = sleep_until(looked_at + TELL_EVERY) => self.on.authenticator.check(&self.caller).await?,
        }
        Ok(())
    }
}

/// Whether there is anything to tell but the passing of time.
fn has_moved(told: &Task, now: &Task) -> bool {
    let account = |task: &Task| {
        let counts = [task.matched, task.processed, task.failed, task.excluded, task.skipped, task.unpublished];
        (counts, task.selected, task.max_objects_per_second, task.instances.len())
    };
    account(told) != account(now)
}
