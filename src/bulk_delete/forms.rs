//! The selections that tasks can have, for the test of all SQL.

use chrono::Utc;
use uuid::Uuid;

use crate::bulk_delete::bound::Bound;
use crate::bulk_delete::selector::Selector;
use crate::db::checked::realm;
use crate::entity::index::lookup_queries::Candidates;
use crate::filter::Filter;
use crate::task::model::{DeleteMode, TaskKind};
use crate::task::work::ClaimedSlice;

pub(super) const MODES: [DeleteMode; 2] = [DeleteMode::Soft, DeleteMode::Hard];

/// Every bound that a selection may have.
pub(super) fn bounds() -> [Bound; 3] {
    [Bound::None, Bound::Ordinal(1), Bound::Moment(Utc::now())]
}

/// A filter that indexes can serve, with every kind of value.
pub(super) fn filter() -> Filter {
    Filter::parse("equals(attributes.a, x) and startsWith(attributes.b, y) and gt(created_at, '2024-01-01') and regexp(type, 'a+')")
        .expect("a filter")
}

/// Every kind of selector, with words for it.
pub(super) fn selectors() -> Vec<(String, Selector)> {
    let mut all = Vec::new();
    for mode in MODES {
        for bound in bounds() {
            let said = |what: &str| format!("{mode:?} {bound:?} {what}");
            let filter = filter();
            all.push((said("listed"), Selector::new(mode, true, None, None, bound)));
            for entity_type in [None, Some("T")] {
                let filtered = Selector::new(mode, false, Some(&filter), entity_type, bound);
                all.push((said("all"), Selector::new(mode, false, None, entity_type, bound)));
                all.push((
                    said("among candidates"),
                    filtered.clone().among(Candidates::of_every_kind()),
                ));
                all.push((said("filtered"), filtered));
            }
        }
    }
    all
}

/// A slice that a worker has claimed.
pub(super) fn claim() -> ClaimedSlice {
    ClaimedSlice {
        realm: realm(),
        task_id: Uuid::nil(),
        slice: 0,
        token: 0,
        attempts: 0,
        part: None,
        kind: TaskKind::Delete,
        mode: Some(DeleteMode::Soft),
        fix: false,
        filter: None,
        entity_type: None,
        listed: false,
        check_attributes: false,
        planned: true,
        asked_at: Utc::now(),
        ordinal: None,
        limited: false,
    }
}
