//! How long the caller of the present work waits. No statement is to run for longer.

use std::future::Future;
use std::time::{Duration, Instant};

use crate::error::{Code, Error};

tokio::task_local! {
    static DEADLINE: Instant;
}

/// Does work for a caller that waits until then: every [`Db::run`](super::Db::run) in it ends its statements by that time.
pub async fn until<T>(deadline: Instant, work: impl Future<Output = T>) -> T {
    DEADLINE.scope(deadline, work).await
}

/// The same for work that is not async, such as waiting for the next message of a stream.
pub fn until_sync<T>(deadline: Instant, work: impl FnOnce() -> T) -> T {
    DEADLINE.sync_scope(deadline, work)
}

/// The deadline of the present work, if it has one.
pub(super) fn current() -> Option<Instant> {
    DEADLINE.try_with(|deadline| *deadline).ok()
}

/// How long a statement may run for a caller that waits until `deadline`, and never for longer than `longest`.
///
/// The time is cut to three significant binary digits, at most an eighth of it, so that callers who give the same time find the session as
/// the last one left it: setting it in Postgres costs a round trip.
pub(super) fn allowance(deadline: Option<Instant>, longest: Duration) -> Result<Duration, Error> {
    let Some(deadline) = deadline else { return Ok(longest) };
    let left = deadline.saturating_duration_since(Instant::now()).as_millis();
    // 0 would be no limit at all.
    if left == 0 {
        return Err(Error::new(Code::DeadlineExceeded, "The deadline of the call has passed."));
    }
    let unit = 1_u128 << left.ilog2().saturating_sub(3);
    let cut = Duration::from_millis(u64::try_from(left - left % unit).unwrap_or(u64::MAX));
    Ok(if longest.is_zero() { cut } else { cut.min(longest) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(60);

    #[test]
    fn a_statement_has_no_more_time_than_is_left_and_not_much_less() {
        for millis in [1_u64, 2, 9, 45, 990, 4_990, 59_990] {
            let allowed = allowance(
                Some(Instant::now() + Duration::from_millis(millis) + Duration::from_micros(900)),
                LONGEST,
            )
            .unwrap();
            let millis = millis as f64;
            let allowed = allowed.as_millis() as f64;
            assert!(
                allowed <= millis && allowed >= (millis - 1.0) * 0.875,
                "{allowed} of {millis}"
            );
        }
        assert_eq!(allowance(Some(Instant::now() + LONGEST * 10), LONGEST).unwrap(), LONGEST);
        assert_eq!(allowance(None, LONGEST).unwrap(), LONGEST);
    }

    #[test]
    fn nothing_is_begun_for_a_caller_who_has_left() {
        assert_eq!(
            allowance(Some(Instant::now()), LONGEST).unwrap_err().code(),
            Code::DeadlineExceeded
        );
    }

    #[tokio::test]
    async fn the_deadline_is_known_within_the_work_alone() {
        let deadline = Instant::now() + LONGEST;
        assert_eq!(until(deadline, async { current() }).await, Some(deadline));
        assert_eq!((until_sync(deadline, current), current()), (Some(deadline), None));
    }
}
