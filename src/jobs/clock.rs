//! Recalls work when the clock of the database steps back: work that is scheduled by the clock, a lease of a dead worker or a wait before
//! another try, would otherwise stand still until the clock is where it was.
//!
//! A worker renews its lease by the clock as it is, and continues. Tokens fence leases whatever their times are, so work that is taken up
//! too early is never done twice.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use diesel::pg::PgConnection;

use crate::db::outage::warn_of;
use crate::db::{Db, Work};
use crate::jobs::clock_queries;

/// How often the clock is read.
const READ_EVERY: Duration = Duration::from_secs(1);
/// By how much the clock has to step, at least: it is read over a network, and clocks are made to go slower when they are ahead.
const STEP: Duration = Duration::from_secs(1);
/// So long after a step every worker has renewed its lease.
const RENEWED: Duration = Duration::from_secs(2);
/// How often waits are checked that are too long for any work, whether or not a step was seen.
const EVERY: Duration = Duration::from_secs(300);
/// Longer than any lease and any wait before another try is meant to be.
const TOO_LONG: Duration = Duration::from_secs(3600);

/// Makes work ready that is scheduled later than so long from now, and returns how much there was.
pub type Recall = fn(&mut PgConnection, Duration) -> Work<usize>;

/// Watches the clock of the database until it is dropped. When it has stepped back, and every so often, work is recalled that waits for longer
/// than it can be meant to. Any number of processes may do so side by side.
pub async fn watch_clock(db: Db, lease: Duration, recalls: Vec<(&'static str, Recall)>) {
    let (mut clock, mut recalled) = (Clock::default(), None::<Instant>);
    loop {
        let asked = Instant::now();
        match db.run(clock_queries::read).await {
            Ok(now) => {
                let step = clock.step(now, asked, Instant::now());
                if let Some(step) = step {
                    tracing::warn!(
                        seconds = step.as_secs_f64(),
                        "the clock of the database has stepped back"
                    );
                    tokio::time::sleep(RENEWED).await;
                }
                if step.is_some() || recalled.is_none_or(|at| at.elapsed() >= EVERY) {
                    recall(&db, bound(step, lease), &recalls).await;
                    recalled = Some(Instant::now());
                }
            }
            Err(error) => tracing::debug!(%error, "cannot read the clock of the database"),
        }
        tokio::time::sleep(READ_EVERY).await;
    }
}

/// How long work may wait that was put off before a step of this size, or before one that nobody has seen.
fn bound(step: Option<Duration>, lease: Duration) -> Duration {
    step.unwrap_or(TOO_LONG).min(TOO_LONG).max(lease * 2)
}

async fn recall(db: &Db, bound: Duration, recalls: &[(&'static str, Recall)]) {
    for (what, recall) in recalls {
        let recall = *recall;
        match db.transaction(move |connection| recall(connection, bound)).await {
            Ok(0) => {}
            Ok(count) => tracing::warn!(
                what,
                count,
                "work was due impossibly late, as after a step of the clock; it is due now"
            ),
            Err(error) => warn_of!(error, what, "cannot recall what is due too late"),
        }
    }
}

/// The last reading of a clock, and when the response arrived, by a clock that does not step.
#[derive(Debug, Default)]
struct Clock(Option<(DateTime<Utc>, Instant)>);

impl Clock {
    /// By how much the clock has stepped back since it was last read, if it has. An answer may be long on its way: between two readings there is at
    /// least the time from the answer to one until the next is asked for, and no more than that counts.
    fn step(&mut self, now: DateTime<Utc>, asked: Instant, answered: Instant) -> Option<Duration> {
        let (before, then) = self.0.replace((now, answered))?;
        let expected = before + asked.saturating_duration_since(then);
        (expected - now).to_std().ok().filter(|step| *step >= STEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_step_back_is_seen_and_a_step_forward_is_none() {
        let (mut read, start, noon) = (Clock::default(), Instant::now(), DateTime::UNIX_EPOCH);
        let mut clock = |now, at| read.step(now, at, at);
        assert_eq!(clock(noon, start), None, "nothing is known before the first reading");
        assert_eq!(clock(noon + seconds(10), start + seconds(10)), None);
        assert_eq!(clock(noon - seconds(50), start + seconds(10)), Some(seconds(60)));
        assert_eq!(clock(noon - seconds(49), start + seconds(11)), None, "it is seen once");
        assert_eq!(clock(noon + seconds(86_400), start + seconds(12)), None);
        let slower = noon + seconds(86_400) + Duration::from_millis(400);
        assert_eq!(
            clock(slower, start + seconds(13)),
            None,
            "a clock that is made to go slower has not stepped"
        );
    }

    #[test]
    fn an_answer_that_is_late_is_no_step() {
        let (mut clock, start, noon) = (Clock::default(), Instant::now(), DateTime::UNIX_EPOCH);
        clock.step(noon, start, start);
        assert_eq!(clock.step(noon + seconds(1), start + seconds(1), start + seconds(9)), None);
        assert_eq!(clock.step(noon + seconds(10), start + seconds(10), start + seconds(10)), None);
    }

    #[test]
    fn whoever_may_be_at_work_is_left_alone() {
        assert_eq!(bound(Some(seconds(60)), seconds(15)), seconds(60));
        assert_eq!(
            bound(Some(seconds(5)), seconds(15)),
            seconds(30),
            "a lease that was renewed is not recalled"
        );
        assert_eq!(bound(Some(seconds(86_400)), seconds(15)), TOO_LONG);
        assert_eq!(bound(None, seconds(15)), TOO_LONG);
        assert_eq!(bound(None, seconds(7_200)), seconds(14_400));
    }
}
