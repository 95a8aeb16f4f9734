//! The response of a dry run. Pure.

use std::collections::HashMap;
use std::time::Duration;

use crate::bulk_delete::lists::Lists;
use crate::bulk_delete::model::NewTask;
use crate::bulk_delete::preview_queries::SelectionPreview;
use crate::db::Realm;
use crate::proto::v1;

/// About how many times longer an entity takes to be deleted, with its dependents and the written records, than to be read.
const DELETING_OVER_READING: u32 = 20;
/// The longest that a task is believed to take: a hundred years.
const FOR_EVER: f64 = 3_155_760_000.0;

/// The parts of a preview besides its counts.
#[derive(Debug, Default)]
pub struct Beside {
    /// How many entities a second recent tasks have deleted.
    pub rate: Option<f64>,
    /// How long counting took.
    pub took: Duration,
    /// The warnings: probable mistakes.
    pub warnings: Vec<v1::Warning>,
    /// The accounts of the lists of ids.
    pub lists: Lists,
    /// The token of this preview.
    pub token: String,
}

/// The response of a dry run: an empty task with its preview.
pub fn to_proto(
    found: SelectionPreview,
    realm: &Realm,
    task: &NewTask,
    beside: Beside,
) -> v1::Task {
    let Beside { rate, took, warnings, lists, token } = beside;
    let failing_by_reason: HashMap<String, i64> = found
        .failing
        .as_object()
        .into_iter()
        .flatten()
        .map(|(reason, count)| (reason.clone(), count.as_i64().unwrap_or_default()))
        .collect();
    let failing_count = failing_by_reason.values().sum();
    let deletable_count = found.matched - found.excluded - failing_count;
    let pace = task.guards.max_objects_per_second;
    let estimated = estimate(deletable_count, rate, pace, took);
    let preview = v1::BulkDeletePreview {
        matched_count: found.matched,
        deletable_count,
        failing_count,
        excluded_count: found.excluded,
        failing_by_reason,
        sample: found.sample,
        estimated_duration: prost_types::Duration::try_from(estimated).ok(),
        warnings,
        missing_excluded_count: lists.excluded.count,
        missing_excluded: lists.excluded.first,
        missing_uri_count: lists.listed.count,
        missing_uris: lists.listed.first,
        token,
        unselected_excluded_count: lists.unselected.count,
        unselected_excluded: lists.unselected.first,
    };
    v1::Task {
        name: task.name(),
        r#type: "DeleteEntitiesTask".to_owned(),
        tenant: realm.org().to_owned(),
        parameters: task
            .parameters(realm.org())
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        preview: Some(preview),
        realm_mode: v1::Mode::from(realm.mode()).into(),
        undo: task.mode.undo().to_owned(),
        ..Default::default()
    }
}

/// How long deleting so many takes: at the rate that was measured, or else by how long reading them took; and no faster than is allowed.
fn estimate(count: i64, rate: Option<f64>, pace: Option<i32>, took: Duration) -> Duration {
    if count == 0 {
        return Duration::ZERO;
    }
    let at = |rate: f64| Duration::from_secs_f64((count as f64 / rate).min(FOR_EVER));
    let measured = rate.filter(|rate| *rate > 0.0).map(at);
    let paced = pace.map(|pace| at(f64::from(pace))).unwrap_or_default();
    let estimated =
        measured.unwrap_or_else(|| took.saturating_mul(DELETING_OVER_READING)).max(paced);
    // Nobody believes the rest.
    Duration::from_millis(u64::try_from(estimated.as_millis()).unwrap_or(u64::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_counts_more_than_what_reading_takes() {
        let took = Duration::from_millis(100);
        assert_eq!(estimate(1_000, Some(500.0), None, took), Duration::from_secs(2));
        assert_eq!(estimate(1_000, None, None, took), Duration::from_secs(2));
        assert_eq!(estimate(1_000, Some(500.0), Some(100), took), Duration::from_secs(10));
        assert_eq!(estimate(1_000, Some(500.0), Some(100_000), took), Duration::from_secs(2));
        assert_eq!(estimate(0, Some(500.0), Some(1), took), Duration::ZERO);
    }

    #[test]
    fn a_rate_of_next_to_nothing_is_no_overflow() {
        assert!(
            estimate(i64::MAX, Some(f64::MIN_POSITIVE), None, Duration::MAX)
                > Duration::from_secs(1_000_000)
        );
        assert!(estimate(i64::MAX, None, Some(1), Duration::MAX) > Duration::from_secs(1_000_000));
    }
}
