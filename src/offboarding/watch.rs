//! One caller's view of a request until its end.

use std::collections::VecDeque;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use tokio::time::Instant;
use tonic::Status;
use uuid::Uuid;

use crate::access::Caller;
use crate::db::Db;
use crate::error::Result;
use crate::events::{Admission, WakeUp, Watching};
use crate::offboarding::model::{Offboarding, OffboardingState};
use crate::offboarding::queries;

/// How often a request is read when nothing wakes: a postponed attempt changes it without an event.
const READ_EVERY: Duration = Duration::from_secs(2);

struct Watch {
    db: Db,
    admission: Admission,
    request_id: Uuid,
    wake_up: WakeUp,
    /// The last message.
    sent: Offboarding,
    /// The messages to send.
    ahead: VecDeque<Offboarding>,
}

/// Sends a request as it is, and each of its changes.
pub fn watch(
    on: &Watching,
    caller: Caller,
    wake_up: WakeUp,
    first: Offboarding,
) -> BoxStream<'static, Result<Offboarding, Status>> {
    let (db, admission) = (on.db.clone(), on.admission(caller));
    let watch = Watch {
        db,
        admission,
        request_id: first.id,
        wake_up,
        sent: first.clone(),
        ahead: VecDeque::new(),
    };
    let rest = stream::unfold(Some(watch), |watch| async move {
        let mut watch = watch?;
        match watch.next().await {
            Ok(Some(request)) => Some((Ok(request), Some(watch))),
            Ok(None) => None,
            Err(error) => Some((Err(error.into()), None)),
        }
    });
    stream::once(std::future::ready(Ok(first))).chain(rest).boxed()
}

impl Watch {
    /// The next message; none after the end.
    async fn next(&mut self) -> Result<Option<Offboarding>> {
        loop {
            if let Some(next) = self.ahead.pop_front() {
                self.sent = next.clone();
                return Ok(Some(next));
            }
            if !self.sent.state.is_open() {
                return Ok(None);
            }
            self.admission.wait(self.wake_up.wait(), Instant::now() + READ_EVERY).await?;
            let (realm, id) = (self.admission.caller().realm.clone(), self.request_id);
            let found = self.db.run(move |connection| queries::get(connection, &realm, id)).await?;
            // Swept by the realm's retention.
            let Some(now) = found else { return Ok(None) };
            self.ahead = between(&self.sent, now).into();
        }
    }
}

/// The states between the last message and the present one: also a start that was over before anybody read it.
fn between(sent: &Offboarding, now: Offboarding) -> Vec<Offboarding> {
    let mut steps = Vec::new();
    let ran = matches!(now.state, OffboardingState::Succeeded | OffboardingState::Failed);
    if sent.state == OffboardingState::Pending && ran {
        let running = OffboardingState::Running;
        let (error_code, error_message) = (None, None);
        steps.push(Offboarding {
            state: running,
            finished_at: None,
            removed: None,
            error_code,
            error_message,
            ..now.clone()
        });
    }
    let is_news = sent.state != now.state
        || sent.attempts != now.attempts
        || sent.next_attempt_at != now.next_attempt_at;
    if is_news {
        steps.push(now);
    }
    steps
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;

    fn request(state: OffboardingState) -> Offboarding {
        Offboarding {
            id: Uuid::nil(),
            entity_id: "e".to_owned(),
            principal_id: Uuid::nil(),
            state,
            components: Vec::new(),
            created_at: Utc::now(),
            execute_after: Utc::now(),
            started_at: Some(Utc::now()),
            finished_at: Some(Utc::now()),
            removed: None,
            error_code: None,
            error_message: None,
            attempts: 1,
            last_error_code: None,
            last_error_message: None,
            next_attempt_at: None,
        }
    }

    fn states(from: OffboardingState, to: OffboardingState) -> Vec<OffboardingState> {
        between(&request(from), request(to)).into_iter().map(|step| step.state).collect()
    }

    #[test]
    fn no_transition_is_left_out() {
        use OffboardingState::{Canceled, Failed, Pending, Running, Succeeded};
        assert_eq!(states(Pending, Pending), []);
        assert_eq!(states(Pending, Running), [Running]);
        assert_eq!(states(Pending, Succeeded), [Running, Succeeded]);
        assert_eq!(states(Pending, Failed), [Running, Failed]);
        assert_eq!(states(Pending, Canceled), [Canceled]);
        assert_eq!(states(Running, Succeeded), [Succeeded]);
    }
}
