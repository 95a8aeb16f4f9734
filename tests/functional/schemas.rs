//! Schemas that are not as this binary would make them: of others, or of a newer one.

use crate::database_unfit::assert_refused;
use crate::kit::*;
use crate::probes::{is_ready_for, readiness};

const LISTENERS: [&str; 3] =
    ["--http-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"];

#[tokio::test]
async fn a_schema_with_tables_of_others_is_left_alone() {
    let database = empty_database("").await;
    database.sql("CREATE TABLE users (id int); CREATE VIEW everyone AS SELECT * FROM users; CREATE SCHEMA mine");
    let url = ["--database-url", database.url.as_str()];
    let refusal = "The schema `public` of the database has tables, views or sequences of others (`everyone`, `users`) and no migration of offboard";
    for command in [
        [["serve"].as_slice(), &LISTENERS].concat(),
        [["serve", "--migrate"].as_slice(), &LISTENERS].concat(),
        vec!["migrate"],
    ] {
        assert_refused(&[command.as_slice(), &url].concat(), refusal);
    }
    assert_eq!(database.tables_in(&["public", "mine"]), 1, "nothing was begun");
    // Another schema is another matter, and so is a wish.
    let own = format!("{}?options=-csearch_path%3Dmine", database.url);
    assert!(offboard(&["migrate", "--database-url", &own]).starts_with("Applied "));
    assert!(
        offboard(&[["migrate", "--into-existing"].as_slice(), &url].concat())
            .starts_with("Applied ")
    );
    assert_eq!(offboard(&[["migrate"].as_slice(), &url].concat()), "The schema is up to date.\n");
    readiness(&Server::start(&database).await, 200).await;
}

#[tokio::test]
async fn views_sequences_and_migrations_of_others_are_distinguished_from_ours() {
    const NOTES: &str =
        "CREATE TABLE __diesel_schema_migrations (version varchar(50) PRIMARY KEY, run_on timestamp NOT NULL DEFAULT now());
        INSERT INTO __diesel_schema_migrations (version) VALUES";
    for (others, reported) in [
        (
            "CREATE VIEW everyone AS SELECT 1".to_owned(),
            "has tables, views or sequences of others (`everyone`)",
        ),
        (
            "CREATE SEQUENCE numbers".to_owned(),
            "has tables, views or sequences of others (`numbers`)",
        ),
        (
            format!("{NOTES} ('00000000000000'), ('20210101000000')"),
            "has migrations of another application and no migration of offboard",
        ),
        (
            format!("{NOTES} ('00000000000001'), ('00000000000002')"),
            "and have the numbers of offboard's",
        ),
    ] {
        let database = empty_database("").await;
        database.sql(&others);
        let url = ["--database-url", database.url.as_str()];
        for command in [[["serve"].as_slice(), &LISTENERS].concat(), vec!["migrate"]] {
            assert_refused(&[command.as_slice(), &url].concat(), reported);
        }
        let sharing = [["migrate", "--into-existing"].as_slice(), &url].concat();
        if others.contains("00000000000001") {
            assert_refused(&sharing, reported);
        } else {
            assert!(offboard(&sharing).starts_with("Applied "), "{reported}");
            // Migrations that others have recorded beside ours do not make the schema newer.
            assert_eq!(
                offboard(&[["migrate"].as_slice(), &url].concat()),
                "The schema is up to date.\n"
            );
        }
    }
}

#[tokio::test]
async fn a_schema_that_is_not_there_is_reported_by_its_name() {
    let database = empty_database("").await;
    let url = format!("{}?options=-csearch_path%3Dmine", database.url);
    for command in [[["serve"].as_slice(), &LISTENERS].concat(), vec!["migrate"]] {
        assert_refused(
            &[command.as_slice(), &["--database-url", &url]].concat(),
            "has no schema that `search_path` names (mine)",
        );
    }
    database.sql("CREATE SCHEMA mine");
    assert!(offboard(&["migrate", "--database-url", &url]).starts_with("Applied "));
    let server = Server::start_on(&url, &[], &[]).await;
    readiness(&server, 200).await;
    database.sql("ALTER SCHEMA mine RENAME TO yours");
    assert_eq!(readiness(&server, 503).await["checks"][1]["reason"], "schema_absent");
}

#[tokio::test]
async fn a_schema_with_tables_of_others_may_be_shared_by_a_server() {
    let database = empty_database("").await;
    database.sql("CREATE TABLE users (id int)");
    let server = Server::start_with(&database, &["--into-existing"], &[]).await;
    let reported = readiness(&server, 503).await;
    assert_eq!(reported["checks"][1]["reason"], "schema_foreign", "{reported}");
    offboard(&["migrate", "--into-existing", "--database-url", &database.url]);
    readiness(&server, 200).await;
}

#[tokio::test]
async fn a_schema_that_a_newer_binary_has_made_is_used_and_reported() {
    let database = database().await;
    let known = database.text("SELECT max(version) FROM __diesel_schema_migrations").unwrap();
    database.sql("INSERT INTO __diesel_schema_migrations (version) VALUES ('00000000000999')");
    let sentence = format!(
        "the schema is newer than this offboard {}: its last migration is 00000000000999, and the last that this version knows is {known}",
        env!("CARGO_PKG_VERSION")
    );
    let server = Server::start(&database).await;
    assert!(server.log().contains(&sentence), "{}", server.log());
    let reported = readiness(&server, 200).await;
    assert_eq!(
        reported["checks"][1],
        json!({"name": "database", "ok": true, "reason": "schema_ahead", "detail": sentence})
    );
    let ended = run(&["migrate", "--database-url", &database.url]);
    assert_eq!(
        (ended.code, ended.stdout),
        (Some(0), format!("Nothing was changed: {sentence}.\n"))
    );
    let migrating = Server::start_with(&database, &["--migrate"], &[]).await;
    assert!(migrating.log().contains(&sentence), "{}", migrating.log());
    is_ready_for(&server, "ready", 1).await;
}

#[tokio::test]
async fn a_migration_waits_for_who_has_locked_the_table_of_migrations() {
    use diesel::connection::SimpleConnection;
    let database = database().await;
    let mut held = database.connection();
    held.batch_execute("BEGIN; LOCK TABLE __diesel_schema_migrations IN ACCESS EXCLUSIVE MODE")
        .unwrap();
    let url = database.url.clone();
    let migrating = std::thread::spawn(move || run(&["migrate", "--database-url", &url]));
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert!(!migrating.is_finished(), "{:?}", migrating.join().unwrap());
    held.batch_execute("ROLLBACK").unwrap();
    let ended = migrating.join().unwrap();
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "The schema is up to date.\n"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("it is tried again"), "{}", ended.stderr);
}
