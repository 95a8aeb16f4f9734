//! Roles that may do less than others.

use url::Url;

use crate::database_unfit::assert_refused;
use crate::kit::*;
use crate::probes::readiness;

/// A role that is dropped, with all that it was granted, before its database is.
pub struct Role<'a> {
    database: &'a Database,
    pub name: String,
    pub url: String,
}

impl<'a> Role<'a> {
    pub fn create(database: &'a Database) -> Role<'a> {
        let name = format!("role_{:016x}", rand::random::<u64>());
        database.sql(&format!("CREATE ROLE {name} LOGIN PASSWORD 'secret'"));
        let mut url = Url::parse(&database.url).unwrap();
        url.set_username(&name).unwrap();
        url.set_password(Some("secret")).unwrap();
        Role { database, name, url: url.into() }
    }

    /// One with rights on rows alone.
    pub fn with_rows(database: &'a Database) -> Role<'a> {
        let role = Role::create(database);
        let name = &role.name;
        database.sql(&format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name};
             GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {name}; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {name}"
        ));
        role
    }
}

impl Drop for Role<'_> {
    fn drop(&mut self) {
        let name = &self.name;
        self.database.sql(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}'; DROP OWNED BY {name}; DROP ROLE {name}"
        ));
    }
}

#[tokio::test]
async fn a_role_with_rights_on_rows_alone_is_ready_and_cannot_migrate() {
    let database = database().await;
    let key = Key::create(&database, "acme", "test", SCOPES);
    let role = Role::with_rows(&database);
    {
        let server = Server::start_on(&role.url, &[], &[]).await;
        readiness(&server, 200).await;
        let client = Client::new(&server, &key, Protocol::Rest);
        client
            .call(
                "EntityService/CreateEntity",
                json!({"entity": {"entity_id": "e", "type": "test"}}),
            )
            .await
            .unwrap();
        assert_eq!(
            offboard(&["migrate", "--database-url", &role.url]),
            "The schema is up to date.\n"
        );
    }
    let empty = empty_database("").await;
    let mut url = Url::parse(&role.url).unwrap();
    url.set_path(Url::parse(&empty.url).unwrap().path());
    assert_refused(
        &["migrate", "--database-url", url.as_str()],
        "The role may not change the schema",
    );
}

/// A logical copy has the rows, and sequences that are at their beginning.
#[tokio::test]
async fn sequences_that_were_not_copied_are_set_by_whoever_may_and_refused_by_others() {
    let world = World::start(Protocol::Grpc).await;
    world.entities(&["a", "b", "c"]).await;
    until("the positions are given", || world.database.last_position() > 0).await;
    let World { database, server, key, .. } = world;
    drop(server);
    let role = Role::with_rows(&database);
    let name = &role.name;
    let restart = |sequences: &[&str]| {
        sequences.iter().for_each(|name| database.sql(&format!("ALTER SEQUENCE {name} RESTART")))
    };
    for behind in [["ordinal"].as_slice(), &["event_seq", "ordinal", "lease_token", "realm_id_seq"]]
    {
        restart(behind);
        let serve: &[&str] = &[
            "serve",
            "--http-addr=127.0.0.1:0",
            "--grpc-addr=127.0.0.1:0",
            "--admin-addr=127.0.0.1:0",
        ];
        for command in
            [serve, &["migrate"], &["key", "create", "--org", "other", "--scope", "admin"]]
        {
            assert_refused(
                &[command, &["--database-url", &role.url]].concat(),
                "run `offboard migrate` with the role that owns them",
            );
        }
        assert_eq!(
            offboard(&["migrate", "--database-url", &database.url]),
            "The schema is up to date.\n"
        );
        let server = Server::start_on(&role.url, &[], &[]).await;
        readiness(&server, 200).await;
        let client = Client::new(&server, &key, Protocol::Rest);
        let created = format!("behind-{}", behind.join("-"));
        client
            .call(
                "EntityService/CreateEntity",
                json!({"entity": {"entity_id": created, "type": "test"}}),
            )
            .await
            .unwrap();
        let events =
            client.call("EventService/ListEvents", json!({"subject": created})).await.unwrap();
        assert_eq!(events.get("events").as_array().unwrap().len(), 1, "{behind:?}: {events:?}");
    }
    // So does a replica that finds itself on such a database while it runs.
    let server = Server::start_on(&role.url, &[], &[]).await;
    readiness(&server, 200).await;
    restart(&["event_seq"]);
    database.sql(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}'"
    ));
    let report = readiness(&server, 503).await;
    assert!(
        report.to_string().contains("run `offboard migrate` with the role that owns them"),
        "{report}"
    );
    offboard(&["migrate", "--database-url", &database.url]);
    readiness(&server, 200).await;
    drop(server);
    for (table, column) in [("event", "seq"), ("entity", "ordinal")] {
        assert_eq!(database.duplicates(table, column), 0, "{table}");
    }
}
