//! The effect of a removal, and what blocks it. Pure.

use std::time::Duration;

use serde_json::Value as Json;

use crate::entity::model::State;
use crate::filter::{EntityRecord, Filter};
use crate::offboarding::model::by_plural;
use crate::offboarding::preview_queries::Outlook;
use crate::proto::v1;

/// The response for an entity in this state.
pub fn preview(entity_id: String, outlook: Outlook) -> v1::RemovalPreview {
    let blockers = blockers(&entity_id, &outlook);
    v1::RemovalPreview {
        entity_id,
        removable: !blockers.iter().any(|blocker| blocker.blocking),
        blockers,
        dependents: by_plural(&outlook.dependents).into_iter().collect(),
        components: outlook.components.iter().map(ToString::to_string).collect(),
        portfolio_id: outlook.portfolio_id,
        default_grace_period: Duration::try_from_secs_f64(outlook.default_grace)
            .ok()
            .and_then(|grace| grace.try_into().ok()),
    }
}

fn blockers(entity_id: &str, outlook: &Outlook) -> Vec<v1::RemovalBlocker> {
    let mut blockers = Vec::new();
    let mut add = |code: &str, message: String, blocking: bool, job_id: Option<String>| {
        blockers.push(v1::RemovalBlocker { code: code.to_owned(), message, blocking, job_id });
    };
    if outlook.state == State::Onboarding {
        add("onboarding", "The entity is still onboarding.".to_owned(), true, None);
    }
    if let Some(reason) = &outlook.hold_reason {
        add("on_hold", format!("The entity is on hold: {reason}"), true, None);
    }
    if let Some(request) = outlook.live_request {
        add(
            "offboarding",
            "The entity is being offboarded already.".to_owned(),
            true,
            Some(request.to_string()),
        );
    }
    for task in outlook
        .tasks
        .as_array()
        .into_iter()
        .flatten()
        .filter(|task| takes(task, entity_id, outlook))
    {
        let id = task["id"].as_str().map(str::to_owned);
        add(
            "bulk_delete",
            "A bulk delete that is under way selects the entity.".to_owned(),
            false,
            id,
        );
    }
    blockers
}

/// Returns whether the filter of a task selects the entity; a task without one does.
fn takes(task: &Json, entity_id: &str, outlook: &Outlook) -> bool {
    let record = EntityRecord {
        id: entity_id,
        r#type: &outlook.type_,
        state: outlook.state.as_str(),
        portfolio_id: outlook.portfolio_id.as_deref(),
        created_at: outlook.created_at,
        updated_at: outlook.updated_at,
        crosswalks: outlook.crosswalks.into(),
        attributes: outlook.attributes.view(),
    };
    task["filter"]
        .as_str()
        .is_none_or(|filter| Filter::parse(filter).is_ok_and(|filter| filter.matches(&record)))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::proto::object::Struct;

    fn outlook() -> Outlook {
        Outlook {
            type_: "HCP".to_owned(),
            state: State::Active,
            hold_reason: None,
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
            crosswalks: 0,
            attributes: Struct::from_json(&json!({"Name": "Ann"})),
            components: Vec::new(),
            portfolio_id: None,
            dependents: json!({"task": 2}),
            live_request: None,
            tasks: json!([]),
            default_grace: 60.0,
        }
    }

    fn codes(outlook: Outlook) -> (Vec<String>, bool) {
        let preview = preview("e".to_owned(), outlook);
        (preview.blockers.into_iter().map(|blocker| blocker.code).collect(), preview.removable)
    }

    #[test]
    fn every_blocker_is_reported() {
        assert_eq!(codes(outlook()), (vec![], true));
        let both = Outlook {
            state: State::Onboarding,
            hold_reason: Some("audit".to_owned()),
            ..outlook()
        };
        assert_eq!(codes(both), (vec!["onboarding".to_owned(), "on_hold".to_owned()], false));
        let leaving =
            Outlook { state: State::Offboarding, live_request: Some(Uuid::nil()), ..outlook() };
        assert_eq!(codes(leaving), (vec!["offboarding".to_owned()], false));
    }

    #[test]
    fn a_bulk_delete_counts_where_its_filter_holds_and_does_not_keep_a_removal() {
        let filter =
            |text: Json| Outlook { tasks: json!([{"id": "t", "filter": text}]), ..outlook() };
        assert_eq!(codes(filter(json!(null))), (vec!["bulk_delete".to_owned()], true));
        assert_eq!(
            codes(filter(json!("equals(attributes.Name, ann)"))),
            (vec!["bulk_delete".to_owned()], true)
        );
        assert_eq!(codes(filter(json!("equals(attributes.Name, 'bob')"))), (vec![], true));
        assert_eq!(
            codes(filter(json!("equals(state, active) and lt(createdTime, '2001-01-01')"))),
            (vec!["bulk_delete".to_owned()], true)
        );
        assert_eq!(
            codes(filter(json!("gt(crosswalks_count, 0) or exists(portfolio)"))),
            (vec![], true)
        );
    }

    #[test]
    fn the_usual_kinds_are_always_counted() {
        let preview = preview("e".to_owned(), outlook());
        assert_eq!(preview.dependents["tasks"], 2);
        assert_eq!(preview.dependents["assessments"], 0);
        assert_eq!(preview.default_grace_period.unwrap().seconds, 60);
    }
}
