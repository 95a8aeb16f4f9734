//! The base of the scenarios of removal: existing entities, calls that must succeed, and the conditions that must be true whatever
//! happened.

use std::fmt::Write as _;

use crate::kit::*;

/// Calls that must succeed, and what was left behind.
impl World {
    /// Creates a portfolio.
    pub async fn given_portfolio(&self, id: &str) {
        self.done("PortfolioService/CreatePortfolio", json!({"portfolio_id": id, "name": id}))
            .await;
    }

    /// Creates an active entity of the type `HCP`, with more members.
    pub async fn given_entity(&self, id: &str, more: Value) {
        let mut entity = json!({"entity_id": id, "type": "HCP"});
        entity.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.done("EntityService/CreateEntity", json!({"entity": entity})).await;
    }

    /// Calls a method that must succeed.
    pub async fn done(&self, method: &str, request: Value) -> Answer {
        let answer = self.call(method, request.clone()).await;
        answer.unwrap_or_else(|failure| panic!("{method} {request} failed: {failure:#?}"))
    }

    /// Calls a method that must fail.
    pub async fn refused(&self, method: &str, request: Value) -> Failure {
        match self.call(method, request.clone()).await {
            Ok(answer) => panic!("{method} {request} succeeded: {answer:#?}"),
            Err(failure) => failure,
        }
    }

    /// Starts the removal job of an entity.
    pub async fn remove(&self, entity: &str) -> Answer {
        self.done("RemovalService/RemoveEntity", json!({"entity_id": entity})).await
    }

    /// Asks for an offboarding that can be called off for this long, such as `3600s`.
    pub async fn offboard(&self, entity: &str, grace: &str) -> Answer {
        self.done(
            "OffboardingService/RequestOffboarding",
            json!({"entity_id": entity, "grace_period": grace}),
        )
        .await
    }

    /// The offboarding request, as it stands.
    pub async fn request(&self, id: &str) -> Answer {
        self.done("OffboardingService/GetOffboardingRequest", json!({"offboarding_request_id": id}))
            .await
    }

    /// The removal job, once it has ended in this status.
    pub async fn job_ended(&self, id: &str, status: &str) -> Answer {
        let request = json!({"job_id": id});
        let over = |job: &Value| {
            ["succeeded", "failed", "canceled"].contains(&job["status"].as_str().unwrap())
        };
        let job = self.call_until("RemovalService/GetRemovalJob", request, over).await;
        assert_eq!(job.get("status"), status, "{:#}", job.json);
        job
    }

    /// Starts a bulk delete and returns its id.
    pub async fn schedule(&self, request: Value) -> String {
        id(&self.done("BulkDeleteService/StartBulkDelete", request).await)
    }

    /// The bulk delete, once it has ended. Its account must be exact.
    pub async fn task_ended(&self, id: &str) -> Answer {
        let over = |task: &Value| !task["end_time"].is_null();
        let task = self.call_until("BulkDeleteService/GetTask", json!({"task_id": id}), over).await;
        let account = Account::of(&task);
        assert_eq!(
            account.processed + account.failed + account.excluded + account.skipped,
            account.matched,
            "{:#}",
            task.json
        );
        task
    }

    /// Starts a bulk delete and waits for its end.
    pub async fn bulk_delete(&self, request: Value) -> Answer {
        self.task_ended(&self.schedule(request).await).await
    }

    /// Each entity that a bulk delete could not delete, as `ID: reason`; read in pages of 1,000.
    pub async fn failures(&self, task: &str) -> Vec<String> {
        let page = self
            .done("BulkDeleteService/ListTaskFailures", json!({"task_id": task, "page_size": 1000}))
            .await;
        let failures = page.get("failures").as_array().unwrap().clone();
        failures
            .iter()
            .map(|failure| format!("{}: {}", text(&failure["entity_id"]), text(&failure["reason"])))
            .collect()
    }

    /// Returns whether the caller sees the entity.
    pub async fn sees(&self, entity: &str) -> bool {
        match self.call("EntityService/GetEntity", json!({"entity_id": entity})).await {
            Ok(_) => true,
            Err(failure) => {
                assert_eq!(failure.code, "not_found");
                false
            }
        }
    }

    /// The state of an entity that is visible.
    pub async fn state(&self, entity: &str) -> String {
        text(self.done("EntityService/GetEntity", json!({"entity_id": entity})).await.get("state"))
    }
}

/// The accounts of a bulk delete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub matched: i64,
    pub processed: i64,
    pub failed: i64,
    pub excluded: i64,
    pub skipped: i64,
}

impl Account {
    pub fn of(task: &Answer) -> Account {
        let number = |name: &str| task.get("current_state")[name].as_i64().unwrap();
        Account {
            matched: number("number_of_matched_objects"),
            processed: number("number_of_processed_objects"),
            failed: number("objects_failed_to_delete_count"),
            excluded: number("number_of_excluded_objects"),
            skipped: number("number_of_skipped_objects"),
        }
    }
}

/// The `id` of a response.
pub fn id(answer: &Answer) -> String {
    text(answer.get("id"))
}

/// A JSON string.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a text")).to_owned()
}

/// By REST the status is this one.
#[track_caller]
pub fn assert_status(answer: &Answer, status: u16) {
    assert!(answer.http.is_none_or(|http| http == status), "expected {status}: {answer:#?}");
}

/// Many cheap entities of the type `HCP`, made by SQL.
#[derive(Clone, Copy, Debug)]
pub struct Many<'a> {
    /// Their ids are this, `-`, and their number in six digits.
    pub prefix: &'a str,
    pub count: i64,
    /// How many dependents each has.
    pub dependents: i64,
    /// The portfolio they are members of.
    pub portfolio: Option<&'a str>,
}

impl Database {
    /// The realm of `acme` in mode `test`.
    pub fn realm(&self) -> i64 {
        self.count("SELECT id FROM realm WHERE org = 'acme' AND mode = 'test'")
    }

    /// Makes entities whose attribute `n` is their number.
    pub fn given_many(&self, many: Many<'_>) {
        let Many { prefix, count, dependents, portfolio } = many;
        let realm = self.realm();
        let (folio, attached) =
            portfolio.map_or(("NULL".to_owned(), "NULL"), |id| (format!("'{id}'"), "now()"));
        let mut sql = format!(
            "INSERT INTO entity (realm_id, id, incarnation, type, state, attributes, portfolio_id, attached_at)
             SELECT {realm}, '{prefix}-' || lpad(n::text, 6, '0'), gen_random_uuid(), 'HCP', 'active', jsonb_build_object('n', n), {folio},
                    {attached}
             FROM generate_series(1, {count}) n;
             INSERT INTO dependent (realm_id, entity_id, kind, id)
             SELECT {realm}, '{prefix}-' || lpad(n::text, 6, '0'), (ARRAY['assessment', 'task', 'note'])[1 + d % 3], d::text
             FROM generate_series(1, {count}) n, generate_series(1, {dependents}) d;"
        );
        if portfolio.is_some() {
            write!(sql, "UPDATE portfolio SET entity_count = entity_count + {count} WHERE realm_id = {realm} AND id = {folio};").unwrap();
        }
        self.sql(&sql);
    }

    /// Puts an entity on hold.
    pub fn hold(&self, entity: &str) {
        self.sql(&format!(
            "UPDATE entity SET hold_reason = 'audit', hold_placed_by = gen_random_uuid(), hold_placed_at = now(), version = version + 1
             WHERE id = '{entity}'"
        ));
    }

    /// The types of the events about a subject, in order.
    pub fn history(&self, subject: &str) -> String {
        let query = format!(
            "SELECT string_agg(type, ' ' ORDER BY seq) FROM event WHERE '{subject}' = ANY(subjects)"
        );
        self.text(&query).unwrap_or_default()
    }

    /// The conditions that must be true whatever happened, once nothing is at work any more.
    pub fn assert_sound(&self) {
        let never = [
            ("a dependent without its entity", "dependent d WHERE NOT EXISTS (SELECT FROM entity e WHERE (e.realm_id, e.id) = (d.realm_id, d.entity_id))"),
            (
                "a portfolio that miscounts its members",
                "portfolio p WHERE p.entity_count <> (SELECT count(*) FROM entity e
                 WHERE (e.realm_id, e.portfolio_id) = (p.realm_id, p.id) AND e.deleted_at IS NULL)",
            ),
            ("a link of what was soft-deleted", "entity e WHERE e.deleted_at IS NOT NULL AND e.portfolio_id IS NOT NULL"),
            (
                "a portfolio whose version has no event for each step",
                "portfolio p WHERE p.version <> 1 + (SELECT count(*) FROM event v
                 WHERE v.realm_id = p.realm_id AND v.subjects = ARRAY[p.id] AND v.type LIKE 'portfolio.%' AND v.type <> 'portfolio.created')",
            ),
            (
                "a portfolio whose events are not in the order of its versions",
                "(SELECT (data ->> 'version')::int8 - row_number() OVER (PARTITION BY realm_id, subjects ORDER BY seq) AS ahead
                  FROM event WHERE type LIKE 'portfolio.%' AND type <> 'portfolio.deleted' AND data ? 'version') t WHERE ahead <> 0",
            ),
            ("a tombstone beside its living entity", "tombstone t JOIN entity e ON e.incarnation = t.incarnation"),
            (
                "a tombstone that no event or more than one shows",
                "tombstone t LEFT JOIN (
                     SELECT v.realm_id, s.id, coalesce(v.data ->> 'incarnation', v.data ->> 'bulk_delete_id') AS cause, count(*) AS times
                     FROM event v, unnest(v.subjects) s(id)
                     WHERE v.type IN ('entity.offboarded', 'entity.deleted')
                     GROUP BY 1, 2, 3) v
                 ON v.realm_id = t.realm_id AND v.id = t.entity_id
                    AND v.cause = CASE t.job_kind WHEN 'offboarding' THEN t.incarnation ELSE t.job_id END::text
                 WHERE v.times IS DISTINCT FROM 1",
            ),
            (
                "an entity that leaves without an open request",
                "entity e WHERE e.state = 'offboarding' AND NOT EXISTS (SELECT FROM offboarding_request r
                 WHERE (r.realm_id, r.entity_id, r.incarnation) = (e.realm_id, e.id, e.incarnation) AND r.status IN ('pending', 'running'))",
            ),
            (
                "a success without a tombstone",
                "offboarding_request r WHERE r.status = 'succeeded' AND NOT EXISTS (SELECT FROM tombstone t WHERE t.job_id = r.id)",
            ),
            (
                "a task whose tombstones are not what it counts as processed",
                "bulk_delete b WHERE b.mode = 'hard' AND (SELECT count(*) FROM tombstone t WHERE t.job_id = b.id)
                 <> (SELECT sum(s.processed) FROM bulk_delete_slice s WHERE s.bulk_delete_id = b.id)",
            ),
            (
                "a task whose failures are not what it counts as failed",
                "bulk_delete b WHERE (SELECT count(*) FROM bulk_delete_failure f WHERE f.bulk_delete_id = b.id)
                 <> (SELECT sum(s.failed) FROM bulk_delete_slice s WHERE s.bulk_delete_id = b.id)",
            ),
        ];
        for (what, from) in never {
            assert_eq!(self.rows(from), 0, "there is {what}");
        }
    }
}
