//! `offboard import`: what the command says of what it did, and before it does it.

use crate::kit::*;

#[tokio::test]
async fn the_command_reports_of_bad_lines_and_fails() {
    let world = World::start(Protocol::Grpc).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let lines = [
        "",
        "{\"entity_id\":\"a\",\"type\":\"T\"}",
        "not JSON",
        "{\"entity_id\":\"b/c\",\"type\":\"T\"}",
        "{\"entity_id\":\"d/e\",\"typo\":1}",
        "{\"id\":\"d\",\"type\":\"T\"}",
    ];
    std::fs::write(file.path(), lines.join("\n")).unwrap();
    let path = file.path().to_str().unwrap();
    let server = format!("http://{}", world.server.addresses.grpc);
    let ended = run(&["import", path, "--server", &server, "--key", &world.key.secret]);
    assert_eq!(
        (ended.code, ended.stdout.trim()),
        (Some(1), "acme (test): 5 read, 1 created, 0 there before, 4 refused."),
        "{ended:?}"
    );
    for reported in [
        "line 3: ",
        "line 4 (b/c): ",
        "line 5: typo: is not known here",
        "; entity_id: must",
        "; type: must",
        "line 6: id",
    ] {
        assert!(ended.stderr.contains(reported), "no {reported} in {}", ended.stderr);
    }
    assert!(ended.stderr.contains("`entity_id`"), "{}", ended.stderr);
    // The realm of the entities is reported, and soft-deleted ones are distinguished from existing ones.
    world.call("BulkDeleteService/StartBulkDelete", json!({"uris": ["a"]})).await.unwrap();
    until("the entity is removed", || world.database.entities_not_deleted() == 0).await;
    std::fs::write(
        file.path(),
        "{\"entity_id\":\"a\",\"type\":\"T\"}\n{\"entity_id\":\"e\",\"type\":\"T\"}\n",
    )
    .unwrap();
    let again = run(&["import", path, "--server", &server, "--key", &world.key.secret]);
    assert_eq!(
        again.stdout.trim(),
        "acme (test): 2 read, 1 created, 1 there before (1 of them soft-deleted), 0 refused.",
        "{again:?}"
    );
    std::fs::write(
        file.path(),
        "{\"entity_id\":\"a\",\"type\":\"T\"}\n{\"entity_id\":\"e\",\"type\":\"Other\"}\n",
    )
    .unwrap();
    let differs = run(&["import", path, "--server", &server, "--key", &world.key.secret]);
    let reported = "0 created, 2 there before (1 of them soft-deleted, 1 of them with other contents, which stay as they are), 0 refused.";
    assert!(differs.stdout.trim().ends_with(reported), "{differs:?}");
    let third = run(&["import", path, "--server", &server, "--key", &world.key.secret, "--json"]);
    let account: Value = serde_json::from_str(&third.stdout).unwrap();
    let expected = json!({"received": 2, "created": 0, "existing": 2, "soft_deleted": 1, "different": 1, "failed": 0, "without_entity_id": 0, "org": "acme", "mode": "test"});
    assert_eq!(account, expected);

    let wrong_key = run(&["import", path, "--server", &server, "--key", "sk_test_wrong"]);
    assert_eq!(wrong_key.code, Some(1));
    assert!(
        wrong_key.stderr.contains("credential") && wrong_key.stderr.lines().count() == 1,
        "{}",
        wrong_key.stderr
    );
    let no_file =
        run(&["import", "/nowhere.ndjson", "--server", &server, "--key", &world.key.secret]);
    assert_eq!(no_file.code, Some(1));
    assert!(no_file.stderr.contains("/nowhere.ndjson"), "{}", no_file.stderr);
}

#[tokio::test]
async fn the_command_says_what_an_import_sent_again_would_create_again() {
    let world = World::start(Protocol::Grpc).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let (path, server) =
        (file.path().to_str().unwrap(), format!("http://{}", world.server.addresses.grpc));
    let import = |flags: &[&str]| {
        run(&[&["import", path, "--server", &server, "--key", &world.key.secret], flags].concat())
    };
    std::fs::write(
        file.path(),
        "{\"type\":\"T\"}\n{\"entity_id\":\"a\",\"type\":\"T\"}\n{\"type\":\"T\"}\n",
    )
    .unwrap();
    let ended = import(&[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(
        ended.stderr.trim(),
        "2 lines had no `entity_id`; importing them again creates them again"
    );
    let account: Value = serde_json::from_str(&import(&["--json"]).stdout).unwrap();
    assert_eq!((&account["created"], &account["without_entity_id"]), (&json!(2), &json!(2)));
    std::fs::write(file.path(), "{\"entity_id\":\"a\",\"type\":\"T\"}\n").unwrap();
    assert_eq!(import(&[]).stderr, "");
}

#[tokio::test]
async fn the_command_says_what_a_document_of_many_lines_must_be_instead() {
    let world = World::start(Protocol::Grpc).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let (path, server) =
        (file.path().to_str().unwrap(), format!("http://{}", world.server.addresses.grpc));
    for (text, reported) in [
        ("[\n  {\"entity_id\":\"a\",\"type\":\"T\"}\n]\n", "one entity a line, not an array"),
        ("\n [{\"entity_id\":\"a\",\"type\":\"T\"}]", "one entity a line, not an array"),
        ("{\n  \"entity_id\": \"a\",\n  \"type\": \"T\"\n}\n", "one entity a line, each whole"),
    ] {
        std::fs::write(file.path(), text).unwrap();
        let ended = run(&["import", path, "--server", &server, "--key", &world.key.secret]);
        assert_eq!(ended.code, Some(1), "{text}: {ended:?}");
        assert!(
            ended.stderr.contains(reported) && ended.stderr.lines().count() == 1,
            "{text}: {}",
            ended.stderr
        );
    }
    assert_eq!(world.database.rows("entity"), 0);
}

#[tokio::test]
async fn the_command_names_the_realm_before_it_imports_into_a_live_one() {
    let world = World::start(Protocol::Grpc).await;
    let live = Key::create(&world.database, "acme", "live", &["entities:write"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{\"entity_id\":\"a\",\"type\":\"T\"}\n").unwrap();
    let (path, server) =
        (file.path().to_str().unwrap(), format!("http://{}", world.server.addresses.grpc));
    let online = run(&["import", path, "--server", &server, "--key", &live.secret]);
    let offline = run(&[
        "import",
        path,
        "--offline",
        "--org",
        "acme",
        "--live",
        "--database-url",
        &world.database.url,
    ]);
    for ended in [online, offline] {
        assert!(
            ended.code == Some(0) && ended.stderr.contains("Importing into acme (live).\n"),
            "{ended:?}"
        );
    }
    let test = run(&["import", path, "--server", &server, "--key", &world.key.secret]);
    assert_eq!((test.code, test.stderr.as_str()), (Some(0), ""));
}
