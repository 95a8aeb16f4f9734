//! Rows that the database itself refuses to have changed: each costs itself, and is named with a reason; the rest goes.

use crate::given::{Account, Many, id, text};
use crate::kit::*;

/// A trigger that refuses what has one of these ids, with a message that nobody may see.
fn refuse(database: &Database, when: &str, table: &str, ids: &str) {
    database.sql(&format!(
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no room at /srv/secret'; END $$;
         CREATE TRIGGER refuse {when} ON {table} FOR EACH ROW WHEN ({ids}) EXECUTE FUNCTION refuse()"
    ));
}

scenario! {
    async fn two_of_many_that_a_trigger_refuses_are_named_and_the_rest_is_removed(world: &World) {
        const COUNT: i64 = 2_502;
        world.given_portfolio("p").await;
        world.database.given_many(Many { prefix: "e", count: COUNT, dependents: 2, portfolio: Some("p") });
        refuse(&world.database, "BEFORE DELETE", "entity", "OLD.id IN ('e-000700', 'e-002502')");
        refuse(&world.database, "BEFORE DELETE", "dependent", "OLD.entity_id = 'e-001251'");
        let ended = world.bulk_delete(json!({"entity_type": "HCP", "mode": "hard"})).await;
        assert_eq!(ended.get("status"), "completed_with_errors");
        assert_eq!(Account::of(&ended), Account { matched: COUNT, processed: COUNT - 3, failed: 3, ..Account::default() });
        let reason = "refused_by_database";
        let expected = ["e-000700", "e-001251", "e-002502"].map(|id| format!("{id}: {reason}"));
        assert_eq!(world.failures(&id(&ended)).await, expected);
        let page = world.done("BulkDeleteService/ListTaskFailures", json!({"task_id": id(&ended)})).await;
        assert!(!page.json.to_string().contains("secret") && !ended.json.to_string().contains("secret"), "{}", page.json);
        assert!(text(&page.get("failures")[0]["message"]).contains("refused"), "{}", page.json);
        assert!(world.server.log().contains("no room at /srv/secret"), "the log has the cause");
        assert!(!world.server.log().contains("slice failed"), "nothing was put off for them");
        assert_eq!((world.database.rows("entity"), world.database.rows("dependent")), (3, 6));
        world.database.assert_sound();
        world.database.sql("DROP FUNCTION refuse CASCADE");
        let rest = world.bulk_delete(json!({"entity_type": "HCP", "mode": "hard"})).await;
        assert_eq!(Account::of(&rest), Account { matched: 3, processed: 3, ..Account::default() });
        world.database.assert_sound();
    }

    async fn where_all_are_refused_all_are_named(world: &World) {
        world.given_portfolio("p").await;
        world.database.given_many(Many { prefix: "e", count: 700, dependents: 0, portfolio: Some("p") });
        world.database.given_many(Many { prefix: "f", count: 700, dependents: 0, portfolio: None });
        // A row of a portfolio that does not change costs its members.
        refuse(&world.database, "BEFORE UPDATE", "portfolio", "OLD.id = 'p'");
        let by_filter = json!({"mode": "soft", "spec": {"objects": {"filter": "not(in(attributes.n, '1,2'))", "exclude_list": ["f-000003"]}}});
        let ended = world.bulk_delete(by_filter).await;
        assert_eq!(Account::of(&ended), Account { matched: 1396, processed: 697, failed: 698, excluded: 1, skipped: 0 });
        let mut listed: Vec<String> = (1..=20).map(|n| format!("e-{n:06}")).chain((1..=2).map(|n| format!("f-{n:06}"))).collect();
        listed.push("nobody".to_owned());
        let ended = world.bulk_delete(json!({"mode": "hard", "uris": listed})).await;
        assert_eq!(Account::of(&ended), Account { matched: 23, processed: 2, failed: 21, ..Account::default() });
        let failures = world.failures(&id(&ended)).await;
        assert_eq!((failures[0].as_str(), failures[20].as_str()), ("e-000001: refused_by_database", "nobody: not_found"));
        world.database.assert_sound();
    }

    async fn a_finding_that_cannot_be_repaired_stays_and_the_rest_is_repaired(world: &World) {
        world.database.sql(&format!(
            "INSERT INTO dependent (realm_id, entity_id, kind, id) SELECT {}, 'ghost-' || n, 'task', '1' FROM generate_series(1, 30) n",
            world.database.realm()
        ));
        refuse(&world.database, "BEFORE DELETE", "dependent", "OLD.entity_id = 'ghost-17'");
        let ended = world.task_ended(&id(&world.done("BulkDeleteService/CheckConsistency", json!({})).await)).await;
        assert_eq!(ended.get("status"), "completed_with_errors");
        assert_eq!(ended.get("current_state.findings"), &json!({"orphan_dependent": 30}));
        assert_eq!(ended.get("current_state.number_of_mended_findings"), 29);
        assert_eq!(world.database.owners_of_dependents().as_deref(), Some("ghost-17"));
    }

    async fn a_line_that_the_database_refuses_does_not_end_an_import(world: &World) {
        world.given_portfolio("p").await;
        refuse(&world.database, "BEFORE INSERT", "entity", "NEW.id = 'e0613'");
        refuse(&world.database, "BEFORE INSERT", "dependent", "NEW.entity_id = 'e0042'");
        let entities: Vec<Value> = (0..1_100)
            .map(|n| json!({"entity_id": format!("e{n:04}"), "type": "T", "portfolio_id": "p", "dependents": [{"kind": "task", "id": "t"}]}))
            .collect();
        let account = world.client.import(&entities).await.unwrap().json;
        assert_eq!([&account["received"], &account["created"], &account["existing"], &account["failed"]], [1_100, 1_098, 0, 2]);
        let failed: Vec<_> = account["results"].as_array().unwrap().iter().filter(|result| result["outcome"] == "failed").collect();
        let reported: Vec<_> = failed.iter().map(|line| (text(&line["entity_id"]), text(&line["error"]["code"]))).collect();
        assert_eq!(reported, ["e0042", "e0613"].map(|id| (id.to_owned(), "refused_by_database".to_owned())));
        assert!(!account.to_string().contains("secret") && world.server.log().contains("no room at /srv/secret"));
        assert_eq!(world.database.entity_count_of("p"), 1_098);
        world.database.assert_sound();
    }
}

/// A statement that fails whatever it is about counts no entity as failed: it is tried again later.
#[tokio::test]
async fn a_statement_that_cannot_be_run_at_all_is_no_fault_of_an_entity() {
    let world = World::start_with(Protocol::Grpc, &["--poll-interval", "0.05"]).await;
    world.database.given_many(Many { prefix: "e", count: 50, dependents: 0, portfolio: None });
    world.database.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$;
         CREATE TRIGGER refuse BEFORE DELETE ON dependent FOR EACH STATEMENT EXECUTE FUNCTION refuse()",
    );
    let task = world.schedule(json!({"entity_type": "HCP", "mode": "hard"})).await;
    until("the slice has failed", || world.server.log().contains("slice failed")).await;
    assert_eq!(
        (world.database.rows("bulk_delete_failure"), world.database.rows("entity")),
        (0, 50)
    );
    world.database.sql("DROP FUNCTION refuse CASCADE");
    let ended = world.task_ended(&task).await;
    assert_eq!(Account::of(&ended), Account { matched: 50, processed: 50, ..Account::default() });
    world.database.assert_sound();
}

scenario! {
    async fn a_single_removal_that_a_trigger_refuses_ends_as_one_of_many_does(world: &World) {
        for entity in ["a", "b", "c"] {
            world.given_entity(entity, json!({})).await;
        }
        refuse(&world.database, "BEFORE DELETE", "entity", "OLD.id = 'b'");
        for entity in ["a", "b", "c"] {
            world.call("RemovalService/RemoveEntity", json!({"entity_id": entity})).await.unwrap();
        }
        let open = "SELECT count(*) FROM offboarding_request WHERE status IN ('pending', 'running')";
        until("all are over", || world.database.count(open) == 0).await;
        let reported = world.database.text("SELECT string_agg(concat_ws(' ', entity_id, status, error_code, attempts), ', ' ORDER BY entity_id) FROM offboarding_request");
        assert_eq!(reported.as_deref(), Some("a succeeded 1, b failed refused_by_database 1, c succeeded 1"));
        assert_eq!(world.database.ids_and_states().as_deref(), Some("bactive"));
        assert!(world.server.log().contains("no room at /srv/secret"), "the log has the cause");
        world.database.assert_sound();
    }

    async fn a_call_that_a_trigger_refuses_is_reported_by_a_code_of_its_own(world: &World) {
        world.given_portfolio("p").await;
        world.given_entity("a", json!({})).await;
        world.call("PortfolioService/AttachEntity", json!({"portfolio_id": "p", "entity_id": "a"})).await.unwrap();
        refuse(&world.database, "BEFORE UPDATE", "entity", "OLD.id = 'a'");
        for (method, request) in [
            ("RemovalService/RemoveEntity", json!({"entity_id": "a"})),
            ("PortfolioService/DetachEntity", json!({"portfolio_id": "p", "entity_id": "a"})),
            ("EntityService/UpdateEntity", json!({"entity_id": "a", "entity": {"attributes": {"n": 1}}})),
        ] {
            let refused = world.call(method, request).await.unwrap_err();
            assert_eq!(refused.code, "refused_by_database", "{method}: {refused:?}");
            assert!(refused.http.is_none_or(|status| status == 409) && !format!("{refused:?}").contains("secret"), "{method}: {refused:?}");
        }
        assert_eq!(world.database.text("SELECT state || portfolio_id FROM entity").as_deref(), Some("activep"));
        world.database.assert_sound();
    }
}

/// What fails whatever it is about ends no request: it is tried again.
#[tokio::test]
async fn a_removal_whose_statement_cannot_be_run_at_all_is_tried_again() {
    let world = World::start_with(Protocol::Grpc, &["--poll-interval", "0.05"]).await;
    world.given_entity("a", json!({})).await;
    world.database.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$;
         CREATE TRIGGER refuse BEFORE DELETE ON dependent FOR EACH STATEMENT EXECUTE FUNCTION refuse()",
    );
    world.call("RemovalService/RemoveEntity", json!({"entity_id": "a"})).await.unwrap();
    let put_off = "SELECT count(*) FROM offboarding_request WHERE status = 'running' AND last_error_code IS NOT NULL";
    until("it is put off", || world.database.count(put_off) == 1).await;
    world.database.sql("DROP FUNCTION refuse CASCADE");
    until("it was removed", || world.database.rows("entity") == 0).await;
    world.database.assert_sound();
}
