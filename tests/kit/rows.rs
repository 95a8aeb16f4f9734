//! What assertions ask of the database, by name.

use serde_json::Value;

use super::postgres::Database;

/// Events.
impl Database {
    /// The number of events of a type.
    pub fn events_of(&self, kind: &str) -> i64 {
        self.count(&format!("SELECT count(*) FROM event WHERE type = '{kind}'"))
    }

    /// The number of events of a type with this subject and no other.
    pub fn events_of_subject(&self, kind: &str, subject: &str) -> i64 {
        self.count(&format!(
            "SELECT count(*) FROM event WHERE type = '{kind}' AND subjects = '{{{subject}}}'"
        ))
    }

    /// The number of subjects of all events of a type.
    pub fn subjects_of(&self, kind: &str) -> i64 {
        self.count(&format!("SELECT sum(cardinality(subjects)) FROM event WHERE type = '{kind}'"))
    }

    /// The number of subjects of all events.
    pub fn event_subjects(&self) -> i64 {
        self.count("SELECT coalesce(sum(subject_count), 0) FROM event")
    }

    /// The number of transactions that wrote events of a type.
    pub fn transactions_of(&self, kind: &str) -> i64 {
        self.count(&format!("SELECT count(DISTINCT xid) FROM event WHERE type = '{kind}'"))
    }

    /// The number of events that happened more than this many days ago.
    pub fn events_older_than_days(&self, days: u32) -> i64 {
        self.count(&format!(
            "SELECT count(*) FROM event WHERE occurred_at < now() - interval '{days} days'"
        ))
    }

    /// The last position that an event has got.
    pub fn last_position(&self) -> i64 {
        self.count("SELECT position FROM event_sequencer")
    }

    /// Why each history began, in their order, with commas.
    pub fn histories(&self) -> Option<String> {
        self.text("SELECT string_agg(reason, ',' ORDER BY number) FROM event_history")
    }

    /// The number of events that could not be published.
    pub fn events_not_published(&self) -> i64 {
        self.count("SELECT coalesce(sum(events), 0) FROM publisher_failure")
    }

    /// The codes with which a publisher has refused events, with commas.
    pub fn publisher_failures(&self) -> Option<String> {
        self.text("SELECT string_agg(DISTINCT error_code, ',') FROM publisher_failure")
    }

    /// The id of an event of the transaction that began last.
    pub fn event_of_the_last_transaction(&self) -> Option<String> {
        self.text("SELECT id FROM event ORDER BY xid DESC LIMIT 1")
    }

    /// The number of publishers that nobody has and whose time has come.
    pub fn free_publishers(&self) -> i64 {
        self.count("SELECT count(*) FROM publisher WHERE lease_owner IS NULL AND due_at <= now()")
    }

    /// The cursor of the only publisher.
    pub fn publisher_cursor(&self) -> Option<String> {
        self.text("SELECT cursor FROM publisher")
    }
}

/// Entities.
impl Database {
    /// The number of entities of a type.
    pub fn entities_of(&self, kind: &str) -> i64 {
        self.count(&format!("SELECT count(*) FROM entity WHERE type = '{kind}'"))
    }

    /// The number of entities whose ids begin so.
    pub fn entities_with_prefix(&self, prefix: &str) -> i64 {
        self.count(&format!("SELECT count(*) FROM entity WHERE id LIKE '{prefix}%'"))
    }

    /// True if the registry has an entity with this id, in any realm.
    pub fn has_entity(&self, id: &str) -> bool {
        self.count(&format!("SELECT count(*) FROM entity WHERE id = '{id}'")) > 0
    }

    /// The number of entities that no soft delete has deleted.
    pub fn entities_not_deleted(&self) -> i64 {
        self.count("SELECT count(*) FROM entity WHERE deleted_at IS NULL")
    }

    /// The number of entities that a soft delete has deleted.
    pub fn entities_deleted(&self) -> i64 {
        self.count("SELECT count(*) FROM entity WHERE deleted_at IS NOT NULL")
    }

    /// The number of entities that are held.
    pub fn held(&self) -> i64 {
        self.count("SELECT count(*) FROM entity WHERE hold_reason IS NOT NULL")
    }

    /// The ids of entities, in their order, with commas.
    pub fn entity_ids(&self) -> Option<String> {
        self.text("SELECT string_agg(id, ',' ORDER BY id) FROM entity")
    }

    /// The ids of entities, in their order, each with its type behind it, with commas.
    pub fn ids_and_types(&self) -> Option<String> {
        self.text("SELECT string_agg(id || type, ',' ORDER BY id) FROM entity")
    }

    /// The ids of entities, each with its state behind it, with nothing between them.
    pub fn ids_and_states(&self) -> Option<String> {
        self.text("SELECT string_agg(id || state, '' ORDER BY id) FROM entity")
    }

    /// The number of incarnations of an id that left a tombstone.
    pub fn removed_incarnations(&self, id: &str) -> i64 {
        self.count(&format!(
            "SELECT count(DISTINCT incarnation) FROM tombstone WHERE entity_id = '{id}'"
        ))
    }

    /// The ids of the entities of all dependents, with blanks.
    pub fn owners_of_dependents(&self) -> Option<String> {
        self.text("SELECT string_agg(entity_id, ' ' ORDER BY entity_id) FROM dependent")
    }

    /// The versions of entities, in the order of their ids, with nothing between them.
    pub fn entity_versions(&self) -> Option<String> {
        self.text("SELECT string_agg(version::text, '' ORDER BY id) FROM entity")
    }

    /// The id of the only entity of a type.
    pub fn id_of_type(&self, kind: &str) -> Option<String> {
        self.text(&format!("SELECT id FROM entity WHERE type = '{kind}'"))
    }

    /// The incarnation of an entity.
    pub fn incarnation(&self, id: &str) -> Option<String> {
        self.text(&format!("SELECT incarnation FROM entity WHERE id = '{id}'"))
    }

    /// An attribute of the only entity, as it is stored.
    pub fn attribute(&self, name: &str) -> Option<String> {
        self.text(&format!("SELECT attributes->'{name}' FROM entity"))
    }

    /// The crosswalks of the only entity.
    pub fn crosswalks(&self) -> Option<String> {
        self.text("SELECT crosswalks FROM entity")
    }

    /// The number of dependents of a kind that have an id.
    pub fn dependents_with_an_id(&self, kind: &str) -> i64 {
        self.count(&format!("SELECT count(*) FROM dependent WHERE kind = '{kind}' AND id <> ''"))
    }

    /// Kind, id and data of all dependents; without the id where they are of this kind.
    pub fn dependents_with_ids_but_of(&self, kind: &str) -> Value {
        let rows = self.text(&format!(
            "SELECT jsonb_agg(jsonb_build_array(kind, CASE kind WHEN '{kind}' THEN '' ELSE id END, data) ORDER BY kind, id) FROM dependent"
        ));
        serde_json::from_str(&rows.unwrap()).unwrap()
    }
}

/// Portfolios.
impl Database {
    /// The number of entities that are in a portfolio.
    pub fn members(&self) -> i64 {
        self.count("SELECT count(*) FROM entity WHERE portfolio_id IS NOT NULL")
    }

    /// The number of entities that are in this portfolio.
    pub fn members_of(&self, portfolio: &str) -> i64 {
        self.count(&format!("SELECT count(*) FROM entity WHERE portfolio_id = '{portfolio}'"))
    }

    /// The ids of the entities that are in this portfolio, with commas.
    pub fn member_ids(&self, portfolio: &str) -> Option<String> {
        self.text(&format!(
            "SELECT string_agg(id, ',') FROM entity WHERE portfolio_id = '{portfolio}'"
        ))
    }

    /// What the only portfolio says its number of members is.
    pub fn entity_count(&self) -> i64 {
        self.count("SELECT entity_count FROM portfolio")
    }

    /// What this portfolio says its number of members is.
    pub fn entity_count_of(&self, portfolio: &str) -> i64 {
        self.count(&format!("SELECT entity_count FROM portfolio WHERE id = '{portfolio}'"))
    }

    /// What all portfolios say their numbers of members are, as one sum.
    pub fn entity_counts(&self) -> i64 {
        self.count("SELECT coalesce(sum(entity_count), 0) FROM portfolio")
    }

    /// The number of portfolios with this name.
    pub fn portfolios_named(&self, name: &str) -> i64 {
        self.count(&format!("SELECT count(*) FROM portfolio WHERE name = '{name}'"))
    }

    /// The sum of the versions of all portfolios.
    pub fn portfolio_versions(&self) -> i64 {
        self.count("SELECT sum(version) FROM portfolio")
    }
}

/// Attribute indexes.
impl Database {
    /// The number of rows that an entity has in attribute indexes.
    pub fn index_rows_of_entity(&self, entity: &str) -> i64 {
        self.count(&format!("SELECT count(*) FROM attribute_index WHERE entity_id = '{entity}'"))
    }

    /// The number of rows of one attribute.
    pub fn index_rows_of(&self, attribute: &str) -> i64 {
        self.count(&format!("SELECT count(*) FROM attribute_index WHERE attribute = '{attribute}'"))
    }

    /// The number of rows that an entity has in the index of an attribute.
    pub fn index_rows(&self, entity: &str, attribute: &str) -> i64 {
        self.count(&format!(
            "SELECT count(*) FROM attribute_index WHERE entity_id = '{entity}' AND attribute = '{attribute}'"
        ))
    }

    /// The phase of the only index.
    pub fn index_phase(&self) -> Option<String> {
        self.text("SELECT phase FROM attribute_declaration")
    }

    /// The phase of the only index with the entity that it has come to behind it, and the number of entities that are done.
    pub fn index_progress(&self) -> Option<String> {
        self.text("SELECT phase || cursor_id || ' ' || entities_done FROM attribute_declaration")
    }

    /// The number of indexes that are ready.
    pub fn ready_indexes(&self) -> i64 {
        self.count("SELECT count(*) FROM attribute_declaration WHERE state = 'ready'")
    }

    /// The number of indexes that wait for transactions.
    pub fn waiting_indexes(&self) -> i64 {
        self.count("SELECT count(*) FROM attribute_declaration WHERE cardinality(waits_for) > 0")
    }

    /// The number of indexes that go, and wait for transactions.
    pub fn retiring_indexes_that_wait(&self) -> i64 {
        self.count("SELECT count(*) FROM attribute_declaration WHERE phase = 'retiring' AND cardinality(waits_for) > 0")
    }
}

/// Offboarding requests and tasks.
impl Database {
    /// The number of offboarding requests in a status.
    pub fn requests_in(&self, status: &str) -> i64 {
        self.count(&format!("SELECT count(*) FROM offboarding_request WHERE status = '{status}'"))
    }

    /// The number of offboarding requests that are not over.
    pub fn open_requests(&self) -> i64 {
        self.count(
            "SELECT count(*) FROM offboarding_request WHERE status IN ('pending', 'running')",
        )
    }

    /// The number of offboarding requests whose entity no other one with its id has followed.
    pub fn requests_not_followed(&self) -> i64 {
        self.count("SELECT count(*) FROM offboarding_request WHERE NOT followed")
    }

    /// The number of tasks that have ended.
    pub fn ended_tasks(&self) -> i64 {
        self.count("SELECT count(*) FROM bulk_delete WHERE ended_at IS NOT NULL")
    }

    /// The number of tasks that have not ended.
    pub fn open_tasks(&self) -> i64 {
        self.count("SELECT count(*) FROM bulk_delete WHERE ended_at IS NULL")
    }

    /// A key of `acme` in mode `test` that nobody has.
    pub fn given_key(&self, id: &str) {
        self.sql(&format!(
            "INSERT INTO api_key (realm_id, id, principal_id, secret_sha256, secret_prefix, scopes)
             SELECT id, '{id}', gen_random_uuid(), sha256('{id}'), 'sk_test_', '{{entities:read}}'
             FROM realm WHERE org = 'acme' AND mode = 'test'"
        ));
    }

    /// A paused task of `acme` in mode `test` that no worker takes up.
    pub fn given_task(&self, id: &str) {
        self.sql(&format!(
            "WITH task AS (
                 INSERT INTO bulk_delete (realm_id, id, name, mode, status, entity_type, principal_id, api_key_id, updated_by, paused_at)
                 SELECT id, '{id}', 'T', 'soft', 'paused', 'Nothing', gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), now()
                 FROM realm WHERE org = 'acme' AND mode = 'test'
                 RETURNING realm_id, id)
             INSERT INTO bulk_delete_slice (realm_id, bulk_delete_id, slice, due_at) SELECT realm_id, id, 0, 'infinity' FROM task"
        ));
    }
}

/// Keys, records of calls, and all of it.
impl Database {
    /// The number of rows of a table, or of some of them: `entity WHERE state = 'active'`.
    pub fn rows(&self, from: &str) -> i64 {
        self.count(&format!("SELECT count(*) FROM {from}"))
    }

    /// A digest of each table that has what callers have changed: what is the same before and after is unchanged.
    pub fn contents(&self) -> Vec<Option<String>> {
        let tables = [
            "access_policy",
            "attribute_declaration",
            "attribute_index",
            "bulk_delete",
            "dependent",
            "entity",
            "event",
            "idempotency_key",
            "offboarding_request",
            "portfolio",
            "removal_policy",
        ];
        let digest = |table: &str| {
            self.text(&format!(
                "SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t"
            ))
        };
        tables.map(digest).to_vec()
    }

    /// The number of rows of a table beyond the first one of each value of a column.
    pub fn duplicates(&self, table: &str, column: &str) -> i64 {
        self.count(&format!("SELECT count(*) - count(DISTINCT {column}) FROM {table}"))
    }

    /// True if there is a table of this name.
    pub fn has_table(&self, name: &str) -> bool {
        self.text(&format!("SELECT to_regclass('{name}')")).is_some()
    }

    /// The number of tables in these schemas.
    pub fn tables_in(&self, schemas: &[&str]) -> i64 {
        let schemas = schemas.join("', '");
        self.count(&format!("SELECT count(*) FROM pg_tables WHERE schemaname IN ('{schemas}')"))
    }

    /// The principal of the only key.
    pub fn principal(&self) -> Option<String> {
        self.text("SELECT principal_id FROM api_key")
    }

    /// The principal of a key.
    pub fn principal_of(&self, key: &str) -> Option<String> {
        self.text(&format!("SELECT principal_id::text FROM api_key WHERE id = '{key}'"))
    }

    /// The version of the API that the only key is pinned to.
    pub fn api_version(&self) -> Option<String> {
        self.text("SELECT api_version FROM api_key")
    }

    /// The number of keys with this name that are not revoked.
    pub fn open_keys_named(&self, name: &str) -> i64 {
        self.count(&format!(
            "SELECT count(*) FROM api_key WHERE name = '{name}' AND revoked_at IS NULL"
        ))
    }

    /// The number of records under an idempotency key.
    pub fn records_under(&self, key: &str) -> i64 {
        self.count(&format!("SELECT count(*) FROM idempotency_key WHERE key = '{key}'"))
    }

    /// Ends the sessions of a role; their number.
    pub fn end_sessions_of(&self, role: &str) -> i64 {
        self.count(&format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{role}'"
        ))
    }

    /// The number of statements that wait for a lock.
    pub fn waiting_for_locks(&self) -> i64 {
        self.waiting_for_locks_by("")
    }

    /// The number of statements with this in their text that wait for a lock.
    pub fn waiting_for_locks_by(&self, text: &str) -> i64 {
        self.count(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%{text}%'"
        ))
    }
}
