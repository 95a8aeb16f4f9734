//! How fast a task is, and how long it will take. Pure.

use chrono::{DateTime, TimeDelta, Utc};

use crate::task::model::Task;

/// How many seconds one sample counts.
const SAMPLE: i64 = 10;
/// How many samples, besides the one that is being counted, the rate of now is made of.
const LATELY: i64 = 2;
const HOUR: f64 = 3600.0;

/// The rates of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Objects read a second, over the last 20 to 30 seconds at work; 0 when it is not at work.
    pub now: f64,
    /// Objects processed a second of the last hour: of the part of it between the task's start and its end.
    pub last_hour: f64,
    /// Objects processed for each second that it was at work.
    pub throughput: f64,
    /// How many seconds the rest takes at the rate of now; none where that is not known.
    pub remaining: Option<f64>,
}

impl Rates {
    /// The rates of a task.
    pub fn of(task: &Task) -> Rates {
        let at_work = task.state.is_at_work();
        let lately = task.working_since.zip(task.started_at).map_or(0.0, |(since, started)| {
            // A sample counts as a whole, with its objects from before a pause.
            seconds(task.now - sample_of(since).max(started).max(lately_from(task.now)))
        });
        let now = if at_work { per_second(task.met_lately, lately) } else { 0.0 };
        let until = task.ended_at.unwrap_or(task.now);
        let in_hour = task.started_at.map_or(0.0, |started| {
            seconds(until - started.max(task.now - TimeDelta::hours(1))).min(HOUR)
        });
        let left = task.selected.map(|selected| (selected - task.matched).max(0) as f64);
        Rates {
            now,
            last_hour: per_second(task.processed_in_hour, in_hour),
            throughput: per_second(task.processed, task.worked),
            // A rate that is limited was limited otherwise, or not at all, a moment ago.
            remaining: left.filter(|_| now > 0.0).map(|left| {
                left / now.min(task.max_objects_per_second.map_or(f64::INFINITY, f64::from))
            }),
        }
    }
}

/// Where the samples of lately begin.
fn lately_from(now: DateTime<Utc>) -> DateTime<Utc> {
    sample_of(now) - TimeDelta::seconds(LATELY * SAMPLE)
}

/// Where the sample begins that a moment is in.
fn sample_of(moment: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp(moment.timestamp().div_euclid(SAMPLE) * SAMPLE, 0).unwrap_or(moment)
}

fn seconds(span: TimeDelta) -> f64 {
    span.as_seconds_f64().max(0.0)
}

/// Nothing is known of a rate over no time at all.
fn per_second(count: i64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::task::model::TaskKind;
    use crate::task::state::TaskState;

    /// A task that began so many seconds before a moment that is 5 seconds into a sample.
    fn task(started_before: i64) -> Task {
        let now = DateTime::from_timestamp(1_000_005, 0).unwrap();
        let started = now - TimeDelta::seconds(started_before);
        Task {
            id: Uuid::nil(),
            kind: TaskKind::Delete,
            state: TaskState::Processing,
            name: String::new(),
            entity_type: None,
            parameters: serde_json::Value::Null,
            principal_id: Uuid::nil(),
            updated_by: Uuid::nil(),
            selected: Some(10_000),
            instances: Vec::new(),
            created_at: started,
            started_at: Some(started),
            paused_at: None,
            ended_at: None,
            now,
            matched: 4_000,
            processed: 3_000,
            failed: 1_000,
            excluded: 0,
            skipped: 0,
            first_failures: Vec::new(),
            unpublished: 0,
            worked: started_before as f64,
            working_since: Some(started),
            max_objects_per_second: None,
            met_lately: 4_000,
            processed_in_hour: 3_000,
            error_code: None,
            error_message: None,
            mail: None,
            lists: None,
            findings: serde_json::Value::Null,
        }
    }

    #[test]
    fn a_task_that_has_just_begun_is_measured_from_its_start() {
        let rates = Rates::of(&task(4));
        assert_eq!(
            rates,
            Rates { now: 1_000.0, last_hour: 750.0, throughput: 750.0, remaining: Some(6.0) }
        );
    }

    #[test]
    fn the_rate_of_now_is_that_of_the_samples_of_lately() {
        let rates = Rates::of(&task(5_000));
        assert_eq!(
            rates.now,
            4_000.0 / 25.0,
            "two samples of ten seconds and the five seconds of this one"
        );
        assert_eq!(rates.last_hour, 3_000.0 / 3_600.0);
        assert_eq!(rates.throughput, 3_000.0 / 5_000.0);
    }

    #[test]
    fn pauses_do_not_count() {
        let paused =
            Task { state: TaskState::Paused, worked: 10.0, working_since: None, ..task(1_000) };
        assert_eq!(
            Rates::of(&paused),
            Rates { now: 0.0, last_hour: 3.0, throughput: 300.0, remaining: None }
        );
        let resumed = task(1_000);
        // Five seconds into the sample: its objects may be from before the pause.
        let resumed = Task {
            working_since: Some(resumed.now - TimeDelta::seconds(2)),
            met_lately: 500,
            ..resumed
        };
        assert_eq!((Rates::of(&resumed).now, Rates::of(&resumed).remaining), (100.0, Some(60.0)));
    }

    #[test]
    fn the_rest_takes_as_long_as_the_limit_has_it() {
        let limited = Task { max_objects_per_second: Some(100), ..task(4) };
        assert_eq!((Rates::of(&limited).now, Rates::of(&limited).remaining), (1_000.0, Some(60.0)));
    }

    #[test]
    fn what_is_over_has_no_rate_of_now_and_its_last_hour_passes() {
        let over = task(1_000);
        let over = Task {
            state: TaskState::Completed,
            ended_at: Some(over.now - TimeDelta::seconds(900)),
            working_since: None,
            ..over
        };
        assert_eq!(
            (Rates::of(&over).now, Rates::of(&over).last_hour, Rates::of(&over).remaining),
            (0.0, 30.0, None)
        );
        let long_ago = task(9_000);
        let ended_at = Some(long_ago.now - TimeDelta::hours(2));
        let long_ago = Task {
            state: TaskState::Completed,
            ended_at,
            working_since: None,
            processed_in_hour: 0,
            ..long_ago
        };
        assert_eq!(Rates::of(&long_ago).last_hour, 0.0);
    }

    #[test]
    fn nothing_is_said_of_what_is_not_known() {
        let unplanned = Task { selected: None, ..task(4) };
        assert_eq!(Rates::of(&unplanned).remaining, None);
        let stuck = Task { met_lately: 0, ..task(400) };
        assert_eq!(Rates::of(&stuck).remaining, None);
        let scheduled = Task {
            state: TaskState::Scheduled,
            started_at: None,
            working_since: None,
            worked: 0.0,
            ..task(4)
        };
        assert_eq!(Rates::of(&scheduled), Rates::default());
    }
}
