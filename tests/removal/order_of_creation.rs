//! A task takes the entities that existed when it was asked for, whatever the clock of the database said then and later.

use crate::given::{Account, Many, id, text};
use crate::kit::*;

/// The clock was an hour ahead when these were created.
fn created_ahead(database: &Database, ids: &str) {
    database.sql(&format!(
        "UPDATE entity SET created_at = created_at + interval '1 hour' WHERE id LIKE '{ids}'"
    ));
}

/// The clock has stepped back by an hour before these were created.
fn created_behind(database: &Database, ids: &str) {
    database.sql(&format!(
        "UPDATE entity SET created_at = created_at - interval '1 hour' WHERE id LIKE '{ids}'"
    ));
}

async fn on_a_clock_that_steps(protocol: Protocol) {
    let mut world = World::start_with(protocol, &["--roles", "grpc,gateway"]).await;
    world.database.given_many(Many { prefix: "old", count: 20, dependents: 1, portfolio: None });
    created_ahead(&world.database, "old%");
    let dry = world
        .done("BulkDeleteService/StartBulkDelete", json!({"entity_type": "HCP", "dry_run": true}))
        .await;
    assert_eq!(dry.get("preview.matched_count"), 20);
    let listed = ["old-000001", "old-000002", "new-000001"];
    let tasks = [
        world.schedule(json!({"uris": listed, "mode": "hard"})).await,
        world.schedule(json!({"entity_type": "HCP", "mode": "soft", "expected_count": 20})).await,
        world
            .schedule(
                json!({"mode": "hard", "spec": {"objects": {"filter": "exists(attributes.n)"}}}),
            )
            .await,
    ];
    world.database.given_many(Many { prefix: "new", count: 5, dependents: 1, portfolio: None });
    created_behind(&world.database, "new%");
    let previewed =
        world.done("RemovalService/PreviewRemoval", json!({"entity_id": "new-000002"})).await;
    assert!(
        !previewed.json.to_string().contains(&tasks[1]),
        "no task that was asked for before means it: {}",
        previewed.json
    );
    world.server = Server::start_with(&world.database, &[], &[]).await;
    world.client = world.through(protocol);
    let accounts = [(3, 2, 1), (18, 18, 0), (18, 18, 0)];
    for (task, (matched, processed, failed)) in tasks.iter().zip(accounts) {
        let ended = world.task_ended(task).await;
        assert_eq!(
            Account::of(&ended),
            Account { matched, processed, failed, ..Account::default() },
            "{:#}",
            ended.json
        );
    }
    assert_eq!(world.failures(&tasks[0]).await, ["new-000001: not_found"]);
    assert_eq!(
        world.database.rows("entity WHERE id LIKE 'new%' AND deleted_at IS NULL"),
        5,
        "they were created later"
    );
    assert_eq!(world.database.rows("entity"), 5);
    world.database.assert_sound();
}

#[tokio::test]
async fn by_grpc_an_entity_created_later_stays() {
    on_a_clock_that_steps(Protocol::Grpc).await;
}

#[tokio::test]
async fn by_rest_an_entity_created_later_stays() {
    on_a_clock_that_steps(Protocol::Rest).await;
}

/// An entity under an id that another one had is another one.
#[tokio::test]
async fn who_comes_again_under_the_same_id_was_created_later() {
    let mut world = World::start_with(Protocol::Grpc, &["--roles", "grpc,gateway"]).await;
    for entity in ["again", "stays"] {
        world.given_entity(entity, json!({})).await;
    }
    let task = world.schedule(json!({"entity_type": "HCP", "mode": "hard"})).await;
    world.database.sql("DELETE FROM entity WHERE id = 'again'");
    world.given_entity("again", json!({})).await;
    created_behind(&world.database, "again");
    world.server = Server::start_with(&world.database, &[], &[]).await;
    world.client = world.through(Protocol::Grpc);
    let ended = world.task_ended(&task).await;
    assert_eq!(Account::of(&ended), Account { matched: 1, processed: 1, ..Account::default() });
    assert!(world.sees("again").await && !world.sees("stays").await);
}

/// A task without a number is one of before the upgrade: it means what it meant then, and nothing that came after the upgrade.
#[tokio::test]
async fn a_task_of_before_the_upgrade_goes_on_by_the_clock() {
    let mut world = World::start_with(Protocol::Rest, &["--roles", "grpc,gateway"]).await;
    for prefix in ["meant", "later", "after"] {
        world.database.given_many(Many { prefix, count: 4, dependents: 0, portfolio: None });
    }
    world.database.sql(
        "UPDATE entity SET ordinal = NULL WHERE id NOT LIKE 'after%';
         UPDATE entity SET created_at = created_at + interval '1 hour' WHERE id LIKE 'later%'",
    );
    let task = world.schedule(json!({"entity_type": "HCP", "mode": "hard"})).await;
    world.database.sql("UPDATE bulk_delete SET ordinal = NULL");
    world.server = Server::start_with(&world.database, &[], &[]).await;
    world.client = world.through(Protocol::Rest);
    let ended = world.task_ended(&task).await;
    assert_eq!(Account::of(&ended), Account { matched: 4, processed: 4, ..Account::default() });
    assert_eq!(world.database.rows("entity WHERE id LIKE 'meant%'"), 0);
    // A new one means all that is there.
    let ended = world.bulk_delete(json!({"entity_type": "HCP", "mode": "hard"})).await;
    assert_eq!(Account::of(&ended).processed, 8, "{}", text(ended.get("id")));
    assert!(!id(&ended).is_empty());
}
