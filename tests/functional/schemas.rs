//! Schemas that are not as this binary would make them: of others, or of a newer one.

use crate::database_unfit::assert_refused;
use crate::kit::*;
use crate::probes::{is_ready_for, readiness};

const LISTENERS: [&str; 3] = ["--http-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"];

#[tokio::test]
async fn a_schema_with_tables_of_others_is_left_alone() {
    let database = empty_database("").await;
    database.sql("CREATE TABLE users (id int); CREATE VIEW everyone AS SELECT * FROM users; CREATE SCHEMA mine");
    let url = ["--database-url", database.url.as_str()];
    let refusal = "The schema `public` of the database has tables (`users`) and no migration of offboard";
    for command in [[["serve"].as_slice(), &LISTENERS].concat(), [["serve", "--migrate"].as_slice(), &LISTENERS].concat(), vec!["migrate"]]
    {
        assert_refused(&[command.as_slice(), &url].concat(), refusal);
    }
    assert_eq!(database.count("SELECT count(*) FROM pg_tables WHERE schemaname IN ('public', 'mine')"), 1, "nothing was begun");
    // Another schema is another matter, and so is a wish.
    let own = format!("{}?options=-csearch_path%3Dmine", database.url);
    assert!(offboard(&["migrate", "--database-url", &own]).starts_with("Applied "));
    assert!(offboard(&[["migrate", "--into-existing"].as_slice(), &url].concat()).starts_with("Applied "));
    assert_eq!(offboard(&[["migrate"].as_slice(), &url].concat()), "The schema is up to date.\n");
    readiness(&Server::start(&database).await, 200).await;
}

#[tokio::test]
async fn a_schema_with_tables_of_others_may_be_shared_by_a_server() {
    let database = empty_database("").await;
    database.sql("CREATE TABLE users (id int)");
    let server = Server::start_with(&database, &["--into-existing"], &[]).await;
    let told = readiness(&server, 503).await;
    assert_eq!(told["checks"][1]["reason"], "schema_foreign", "{told}");
    offboard(&["migrate", "--into-existing", "--database-url", &database.url]);
    readiness(&server, 200).await;
}

#[tokio::test]
async fn a_schema_that_a_newer_binary_has_made_is_used_and_told() {
    let database = database().await;
    let known = database.text("SELECT max(version) FROM __diesel_schema_migrations").unwrap();
    database.sql("INSERT INTO __diesel_schema_migrations (version) VALUES ('99999999999999')");
    let sentence = format!(
        "the schema is newer than this offboard {}: its last migration is 99999999999999, and the last that is known here is {known}",
        env!("CARGO_PKG_VERSION")
    );
    let server = Server::start(&database).await;
    assert!(server.log().contains(&sentence), "{}", server.log());
    let told = readiness(&server, 200).await;
    assert_eq!(told["checks"][1], json!({"name": "database", "ok": true, "reason": "schema_ahead", "detail": sentence}));
    let ended = run(&["migrate", "--database-url", &database.url]);
    assert_eq!((ended.code, ended.stdout), (Some(0), format!("Nothing was changed: {sentence}.\n")));
    let migrating = Server::start_with(&database, &["--migrate"], &[]).await;
    assert!(migrating.log().contains(&sentence), "{}", migrating.log());
    is_ready_for(&server, "ready", 1).await;
}
