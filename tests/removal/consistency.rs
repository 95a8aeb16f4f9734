//! The findings of a consistency check, which of them it repairs, and which it only reports.

use std::collections::BTreeMap;

use crate::given::{Account, Many, id, text};
use crate::kit::*;

const CHECK: &str = "BulkDeleteService/CheckConsistency";
const FINDINGS: &str = "BulkDeleteService/ListTaskFindings";

impl World {
    /// Checks, and waits for the end. Everything read was processed.
    pub async fn check(&self, request: Value) -> Answer {
        let task = self.task_ended(&id(&self.done(CHECK, request).await)).await;
        let account = Account::of(&task);
        assert_eq!(
            account,
            Account {
                matched: account.processed,
                processed: account.processed,
                ..Account::default()
            }
        );
        task
    }

    /// Each finding of a check as `KIND SUBJECT`, and whether it was repaired; read in pages of 1,000.
    pub async fn findings(&self, task: &Answer) -> BTreeMap<String, bool> {
        let (mut found, mut token) = (BTreeMap::new(), String::new());
        loop {
            let page = self
                .done(
                    FINDINGS,
                    json!({"task_id": id(task), "page_size": 1000, "page_token": token}),
                )
                .await;
            for finding in page.get("findings").as_array().unwrap() {
                assert!(
                    finding["time"].is_i64() && !text(&finding["detail"]).is_empty(),
                    "{finding}"
                );
                found.insert(
                    format!("{} {}", text(&finding["kind"]), text(&finding["subject"])),
                    finding["mended"] == true,
                );
            }
            token = text(page.get("next_page_token"));
            if token.is_empty() {
                return found;
            }
        }
    }

    /// A check that repairs has nothing to repair and reports nothing.
    pub async fn assert_clean(&self) {
        let task = self.check(json!({})).await;
        assert_eq!(self.findings(&task).await, BTreeMap::new());
        assert_eq!(
            (task.get("status"), task.get("current_state.findings")),
            (&json!("completed"), &json!({})),
            "{:#}",
            task.json
        );
    }
}

/// The findings of a check, by kind, and how many of them were repaired.
pub fn reported(task: &Answer) -> (Value, i64) {
    let mended = task.get("current_state.number_of_mended_findings").as_i64().unwrap();
    (task.get("current_state.findings").clone(), mended)
}

/// All that a check may change.
pub fn stored(database: &Database) -> String {
    let tables = ["entity", "dependent", "portfolio", "offboarding_request", "tombstone"];
    let rows =
        tables.map(|table| format!("SELECT t::text AS row FROM {table} t")).join(" UNION ALL ");
    database
        .text(&format!("SELECT string_agg(row, E'\\n' ORDER BY row) FROM ({rows}) AS rows"))
        .unwrap()
}

/// Dependents of `ghost`, which is not there.
fn given_orphans(database: &Database, count: i64) {
    database.sql(&format!(
        "INSERT INTO dependent (realm_id, entity_id, kind, id)
         SELECT {}, 'ghost', 'task', n::text FROM generate_series(1, {count}) n",
        database.realm()
    ));
}

/// One request whose entity was removed while it waits, one while it was at work, and one whose entity is not in `offboarding`.
async fn given_orphan_requests(world: &World) -> [String; 3] {
    let mut requests = Vec::new();
    for entity in ["waiting", "at_work", "returned"] {
        world.given_entity(entity, json!({})).await;
        requests.push(id(&world.offboard(entity, "3600s").await));
    }
    world.database.sql(
        "DELETE FROM entity WHERE id IN ('waiting', 'at_work');
         UPDATE entity SET state = 'active' WHERE id = 'returned';
         UPDATE offboarding_request
         SET status = 'running', started_at = now(), due_at = now() + interval '1 hour', lease_token = 1, lease_owner = 'nobody'
         WHERE entity_id = 'at_work'",
    );
    requests.try_into().unwrap()
}

scenario! {
    async fn findings_are_reported_and_stay_until_they_are_repaired(world: &World) {
        let database = &world.database;
        for portfolio in ["more", "less", "right"] {
            world.given_portfolio(portfolio).await;
            database.given_many(Many { prefix: portfolio, count: 5, dependents: 1, portfolio: Some(portfolio) });
        }
        database.sql("UPDATE portfolio SET entity_count = entity_count + 2 WHERE id = 'more'");
        database.sql("UPDATE portfolio SET entity_count = 0 WHERE id = 'less'");
        given_orphans(database, 3);
        world.given_entity("stuck", json!({})).await;
        database.sql("UPDATE entity SET state = 'offboarding' WHERE id = 'stuck'");
        let [waiting, at_work, returned] = given_orphan_requests(world).await;
        let kinds = json!({"orphan_dependent": 3, "portfolio_count": 2, "stuck_offboarding": 1, "orphan_request": 3});
        let mut subjects: BTreeMap<String, bool> = ["more", "less"].map(|id| (format!("portfolio_count {id}"), false)).into();
        subjects.insert("orphan_dependent ghost".to_owned(), false);
        subjects.insert("stuck_offboarding stuck".to_owned(), false);
        subjects.extend([&waiting, &at_work, &returned].map(|id| (format!("orphan_request {id}"), false)));

        let before = stored(database);
        let report = world.check(json!({"fix": false})).await;
        assert_eq!(reported(&report), (kinds.clone(), 0));
        assert_eq!(report.get("status"), "completed_with_errors");
        assert_eq!((report.get("name"), report.get("type")), (&json!("Check Consistency"), &json!("CheckConsistencyTask")));
        assert_eq!(report.get("parameters"), &json!({"tenantId": "acme", "fix": "false"}));
        assert_eq!(report.get("current_state.number_of_selected_objects"), report.get("current_state.number_of_matched_objects"));
        assert_eq!(world.findings(&report).await, subjects);
        assert_eq!(stored(database), before, "a report changes nothing");

        let repair = world.check(json!({})).await;
        assert_eq!(reported(&repair), (kinds, 9));
        assert_eq!(repair.get("status"), "completed", "nothing is left that should not be");
        subjects.values_mut().for_each(|mended| *mended = true);
        assert_eq!(world.findings(&repair).await, subjects);

        assert_eq!(database.rows("dependent WHERE entity_id = 'ghost'"), 0);
        assert_eq!(database.rows("dependent"), 15, "no other dependent was touched");
        for portfolio in ["more", "less", "right"] {
            let folio = world.done("PortfolioService/GetPortfolio", json!({"portfolio_id": portfolio})).await;
            let version = if portfolio == "right" { 1 } else { 2 };
            assert_eq!((folio.get("entity_count"), folio.get("version")), (&json!(5), &json!(version)), "{portfolio}");
        }
        assert_eq!(database.history("more"), "portfolio.created portfolio.updated");
        assert_eq!(world.state("stuck").await, "active");
        assert_eq!(database.history("stuck"), "entity.created entity.offboarding_canceled");
        for (request, status) in [(&waiting, "canceled"), (&at_work, "failed"), (&returned, "canceled")] {
            let ended = world.request(request).await;
            assert_eq!(ended.get("status"), status);
            let failed = status == "failed";
            assert_eq!(ended.get("error").is_null(), !failed);
            assert!(!failed || ended.get("error.code") == "not_found");
        }
        assert_eq!(database.history("at_work"), "entity.created entity.offboarding_requested entity.offboarding_failed");
        assert_eq!(world.state("returned").await, "active");
        database.assert_sound();
        world.assert_clean().await;
    }

    async fn a_finding_that_cannot_be_repaired_is_reported_by_each_check(world: &World) {
        let database = &world.database;
        for entity in ["traceless", "untold", "kept"] {
            world.given_entity(entity, json!({})).await;
            world.job_ended(&id(&world.remove(entity).await), "succeeded").await;
        }
        database.given_many(Many { prefix: "hard", count: 5, dependents: 0, portfolio: None });
        database.given_many(Many { prefix: "soft", count: 5, dependents: 1, portfolio: None });
        let spec = |prefix: &str| json!({"objects": {"filter": format!("startsWith(uri, {prefix})")}});
        world.bulk_delete(json!({"mode": "hard", "spec": spec("hard")})).await;
        world.bulk_delete(json!({"mode": "soft", "spec": spec("soft")})).await;
        world.assert_clean().await;

        let request = database.text("SELECT id FROM offboarding_request WHERE entity_id = 'traceless'").unwrap();
        database.sql(
            "DELETE FROM tombstone WHERE entity_id IN ('traceless', 'hard-000002');
             DELETE FROM event WHERE type = 'entity.offboarded' AND subjects = ARRAY['untold'];
             UPDATE event SET subjects = array_remove(subjects, 'hard-000003') WHERE type = 'entity.deleted';
             UPDATE entity SET deleted_at = NULL, deleted_by = NULL WHERE id = 'soft-000004'",
        );
        let expected: BTreeMap<String, bool> = ["traceless", "untold", "hard-000002", "hard-000003", "soft-000004"]
            .map(|entity| (format!("event_mismatch {entity}"), false))
            .into_iter()
            .chain([(format!("orphan_request {request}"), false)])
            .collect();
        let before = stored(database);
        for _ in 0..2 {
            let task = world.check(json!({"fix": true})).await;
            assert_eq!(reported(&task), (json!({"event_mismatch": 5, "orphan_request": 1}), 0));
            assert_eq!(task.get("status"), "completed_with_errors");
            assert_eq!(world.findings(&task).await, expected);
            assert_eq!(stored(database), before);
        }
    }

    async fn a_wrong_request_changes_nothing_and_every_fault_is_reported(world: &World) {
        let refused = world.refused(CHECK, json!({"max_objects_per_second": 0, "send_mail": "a@b.example"})).await;
        let fields: Vec<_> = refused.faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!((refused.code.as_str(), fields), ("validation_failed", vec!["send_mail", "max_objects_per_second"]));
        assert_eq!(world.refused(CHECK, json!({"tenant": "umbrella"})).await.code, "not_found");
        assert_eq!(world.database.rows("bulk_delete"), 0);
        let task = world.check(json!({})).await;
        for (request, field) in [(json!({"page_size": 1001}), "page_size"), (json!({"page_token": "!"}), "page_token")] {
            let mut request = request;
            request["task_id"] = json!(id(&task));
            assert_eq!(world.refused(FINDINGS, request).await.faults[0].field, field);
        }
    }
}

/// A soft-deleted entity keeps its dependents, also when its id is that of another realm's orphans.
#[tokio::test]
async fn what_another_realm_has_is_neither_found_nor_touched() {
    let world = World::start(Protocol::Rest).await;
    let database = &world.database;
    world.client("umbrella", "test", SCOPES);
    world.given_portfolio("p").await;
    database.given_many(Many { prefix: "e", count: 3, dependents: 2, portfolio: Some("p") });
    database.sql(
        "INSERT INTO dependent (realm_id, entity_id, kind, id)
         SELECT r.id, e.id, 'task', '1' FROM realm r, entity e WHERE r.org = 'umbrella';
         INSERT INTO portfolio (realm_id, id, name, entity_count) SELECT id, 'p', 'p', 7 FROM realm WHERE org = 'umbrella'",
    );
    world.bulk_delete(json!({"entity_type": "HCP", "mode": "soft"})).await;
    let before = stored(database);
    world.assert_clean().await;
    assert_eq!(stored(database), before);
}

/// Tombstones that a policy had removed are not missed, also not when the policy has become another.
#[tokio::test]
async fn what_was_swept_by_policy_is_no_finding() {
    let world = World::start(Protocol::Grpc).await;
    let database = &world.database;
    for entity in ["old", "young"] {
        world.given_entity(entity, json!({})).await;
        world.job_ended(&id(&world.remove(entity).await), "succeeded").await;
    }
    let policy = async |policy: Value| {
        world
            .done(
                "RemovalService/UpdateRemovalPolicy",
                json!({"policy": policy, "update_mask": "tombstoneRetention"}),
            )
            .await
    };
    policy(json!({"tombstone_retention": "86400s"})).await;
    database.sql(
        "UPDATE event SET occurred_at = occurred_at - interval '3 days' WHERE type = 'entity.offboarded' AND subjects = ARRAY['old'];
         UPDATE offboarding_request SET finished_at = finished_at - interval '3 days' WHERE entity_id = 'old';
         DELETE FROM tombstone WHERE entity_id = 'old'",
    );
    world.assert_clean().await;
    policy(json!({"tombstone_retention": "864000s"})).await;
    world.assert_clean().await;
    database.sql("DELETE FROM tombstone WHERE entity_id = 'young'");
    assert_eq!(
        reported(&world.check(json!({})).await).0,
        json!({"event_mismatch": 1, "orphan_request": 1})
    );
}

/// Removals are matched with their events one by one: of an entity that was removed, added again and removed again, both.
#[tokio::test]
async fn entities_that_were_added_again_are_distinguished() {
    let world = World::start(Protocol::Grpc).await;
    let database = &world.database;
    for _ in 0..2 {
        world.given_entity("e", json!({})).await;
        world.job_ended(&id(&world.remove("e").await), "succeeded").await;
    }
    world.given_entity("e", json!({})).await;
    world.bulk_delete(json!({"uris": ["e"], "mode": "soft"})).await;
    world.bulk_delete(json!({"uris": ["e"], "mode": "hard"})).await;
    world.given_entity("e", json!({})).await;
    world.assert_clean().await;
    let first = "(SELECT job_id FROM tombstone ORDER BY removed_at LIMIT 1)";
    database.sql(&format!("DELETE FROM tombstone WHERE job_id = {first}"));
    assert_eq!(
        reported(&world.check(json!({})).await).0,
        json!({"event_mismatch": 1, "orphan_request": 1})
    );
}

#[tokio::test]
async fn all_findings_are_counted_and_ten_thousand_are_kept() {
    let world = World::start_with(Protocol::Rest, &["--bulk-workers", "2"]).await;
    given_orphans(&world.database, 12_000);
    let report = world.check(json!({"fix": false})).await;
    assert_eq!(reported(&report), (json!({"orphan_dependent": 12_000}), 0));
    assert_eq!(world.database.rows("bulk_delete_finding"), 10_000);
    assert_eq!(world.findings(&report).await.len(), 1, "all of them are of one entity");
    let (mut count, mut token) = (0, String::new());
    loop {
        let page = world
            .done(FINDINGS, json!({"task_id": id(&report), "page_size": 999, "page_token": token}))
            .await;
        count += page.get("findings").as_array().unwrap().len();
        token = text(page.get("next_page_token"));
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(count, 10_000, "each is on one page");
    assert_eq!(
        reported(&world.check(json!({})).await).1,
        12_000,
        "what is not kept is mended all the same"
    );
    world.assert_clean().await;
}

/// Above 50,000 entities what goes by their ids is cut into slices, which two workers share.
#[tokio::test]
async fn a_large_realm_is_cut_and_each_row_is_checked_once() {
    let world = World::start_with(Protocol::Grpc, &["--bulk-workers", "2"]).await;
    let database = &world.database;
    database.given_many(Many { prefix: "e", count: 60_000, dependents: 1, portfolio: None });
    database.sql("ANALYZE; DELETE FROM entity WHERE id IN ('e-000001', 'e-030000', 'e-060000')");
    database.sql("UPDATE entity SET state = 'offboarding' WHERE id IN ('e-000002', 'e-045000')");
    let task = world.check(json!({})).await;
    assert_eq!(reported(&task), (json!({"orphan_dependent": 3, "stuck_offboarding": 2}), 5));
    assert_eq!(Account::of(&task).matched, 60_000 + 59_997);
    assert_eq!(
        database.rows("bulk_delete_slice WHERE done AND part IN ('dependents', 'entities')"),
        8
    );
    assert_eq!(
        database.rows("bulk_delete_slice WHERE part IN ('dependents', 'entities') AND matched = 0"),
        0
    );
    world.assert_clean().await;
}
