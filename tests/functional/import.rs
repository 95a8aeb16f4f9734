//! Imports: by either door and from the command line, with an account of every line.

use std::path::Path;

use crate::entities::events;
use crate::kit::*;

/// All that is stored of entities and their dependents, in one word.
fn digest(database: &Database) -> Option<String> {
    let rows = "SELECT e::text AS row FROM entity e UNION ALL SELECT d::text FROM dependent d UNION ALL SELECT p::text FROM portfolio p";
    database.text(&format!("SELECT md5(string_agg(row, '' ORDER BY row)) FROM ({rows}) AS rows"))
}

fn counts(account: &Value) -> [i64; 4] {
    ["received", "created", "existing", "failed"].map(|name| account[name].as_i64().unwrap())
}

fn demo_file() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/entities.ndjson").to_str().unwrap().to_owned()
}

scenario! {
    async fn a_second_import_of_the_same_changes_nothing(world: &World) {
        world.call("PortfolioService/CreatePortfolio", json!({"portfolio_id": "p", "name": "Fund"})).await.unwrap();
        let portfolio = |n: usize| if n.is_multiple_of(2) { json!("p") } else { json!("") };
        let entities: Vec<Value> = (0..1201)
            .map(|n| json!({"entity_id": format!("e{n:04}"), "type": "T", "portfolio_id": portfolio(n), "dependents": [{"kind": "task", "id": "t"}]}))
            .collect();
        let first = world.import(&entities).await;
        assert_eq!(counts(&first), [1201, 1201, 0, 0], "{first}");
        assert_eq!(first["failures"], json!([]));
        let stored = world.database.text("SELECT (SELECT count(*) FROM entity) || ' ' || (SELECT count(*) FROM dependent)");
        assert_eq!(stored.as_deref(), Some("1201 1201"));
        let fund = world.call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"})).await.unwrap();
        assert_eq!(fund.json["entity_count"], 601);
        let told = "SELECT sum(cardinality(subjects)) FROM event WHERE type = 'entity.created'";
        assert_eq!(world.database.count(told), 1201, "every entity is told of once");
        assert!(world.database.count("SELECT count(*) FROM event WHERE type = 'entity.created'") > 1, "in more than one batch");

        let (before, told_before) = (digest(&world.database), events(&world.database));
        let second = world.import(&entities).await;
        assert_eq!(counts(&second), [1201, 0, 1201, 0], "{second}");
        assert_eq!((digest(&world.database), events(&world.database)), (before, told_before));
    }

    async fn what_is_wrong_is_counted_and_named_and_the_rest_goes_on(world: &World) {
        let account = world
            .import(&[
                json!({"entity_id": "good1", "type": "T"}),
                json!({"entity_id": "no/good", "type": "", "dependents": [{"kind": "Upper"}]}),
                json!({"entity_id": "homeless", "type": "T", "portfolio_id": "nowhere"}),
                json!({"entity_id": "good1", "type": "Other"}),
                json!({"entity_id": "good2", "type": "T"}),
            ])
            .await;
        assert_eq!(counts(&account), [5, 2, 1, 2], "{account}");
        let failures = account["failures"].as_array().unwrap();
        let told: Vec<_> = failures.iter().map(|failure| (failure["line"].as_i64().unwrap(), failure["entity_id"].as_str().unwrap(), failure["code"].as_str().unwrap())).collect();
        assert_eq!(told, [(2, "no/good", "validation_failed"), (3, "homeless", "not_found")]);
        let message = failures[0]["message"].as_str().unwrap();
        for part in ["entity_id", "type", "dependents[0].kind"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(failures[1]["message"].as_str().unwrap().contains("`nowhere`"), "{account}");
        assert_eq!(world.database.text("SELECT string_agg(id || type, ',' ORDER BY id) FROM entity").as_deref(), Some("good1T,good2T"));
        assert_eq!(events(&world.database), "entity.created good1,good2");
    }

    async fn an_import_names_a_hundred_failures_and_counts_them_all(world: &World) {
        let bad: Vec<Value> = (0..150).map(|n| json!({"entity_id": format!("b{n}"), "type": ""})).collect();
        let account = world.import(&bad).await;
        assert_eq!(counts(&account), [150, 0, 0, 150]);
        let lines: Vec<_> = account["failures"].as_array().unwrap().iter().map(|failure| failure["line"].as_i64().unwrap()).collect();
        assert_eq!(lines, (1..=100).collect::<Vec<_>>());
        let nothing = world.import(&[]).await;
        assert_eq!(counts(&nothing), [0, 0, 0, 0]);
    }

    async fn the_demo_file_is_imported_whole_by_every_way_there_is(world: &World) {
        let lines = std::fs::read_to_string(demo_file()).unwrap();
        let entities: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(entities.len(), 2000);
        let dependents: usize = entities.iter().map(|entity| entity["dependents"].as_array().map_or(0, Vec::len)).sum();
        assert_eq!(counts(&world.import(&entities).await), [2000, 2000, 0, 0]);
        assert_eq!(world.database.count("SELECT count(*) FROM entity"), 2000);
        assert_eq!(world.database.count("SELECT count(*) FROM dependent"), i64::try_from(dependents).unwrap());

        let before = digest(&world.database);
        let account = |printed: String| counts(&serde_json::from_str(&printed).unwrap());
        let server = format!("http://{}", world.server.addresses.grpc);
        let online = offboard(&["import", &demo_file(), "--server", &server, "--key", &world.key.secret, "--json"]);
        assert_eq!(account(online), [2000, 0, 2000, 0]);
        let offline = ["import", &demo_file(), "--offline", "--org", "acme", "--database-url", &world.database.url, "--json"];
        assert_eq!(account(offboard(&offline)), [2000, 0, 2000, 0]);
        assert_eq!(digest(&world.database), before, "the three ways make the same of a line");

        let live = [offline.as_slice(), &["--live"]].concat();
        assert_eq!(account(offboard(&live)), [2000, 2000, 0, 0]);
        let worlds = "SELECT count(*) FROM (SELECT id, type, state, attributes, crosswalks, components FROM entity GROUP BY 1, 2, 3, 4, 5, 6 HAVING count(*) = 2) t";
        assert_eq!(world.database.count(worlds), 2000, "offline writes what the door wrote");
        assert_eq!(world.database.count("SELECT count(*) FROM api_key WHERE name = 'offline import' AND revoked_at IS NULL"), 0);
    }
}

impl World {
    async fn import(&self, entities: &[Value]) -> Value {
        self.client.import(entities).await.unwrap().json
    }
}

#[tokio::test]
async fn a_line_that_is_no_entity_at_all_ends_an_import_by_rest_and_is_named() {
    let world = World::start(Door::Rest).await;
    let bearer = format!("Bearer {}", world.key.secret);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/x-ndjson")];
    let send = async |body: &'static str| http(world.server.addresses.http, "POST", "/v1/entities:import", &headers, body).await;
    let broken = send("{\"entity_id\":\"a\",\"type\":\"T\"}\n\n{\"entity_id\":\n").await;
    assert_eq!(broken.status, 400, "{}", broken.text());
    let described = broken.json()["errors"][0]["description"].as_str().unwrap().to_owned();
    assert!(described.starts_with("line 3: "), "{described}");
    let unknown = send("{\"entity_id\":\"a\",\"typo\":\"T\"}\n").await;
    assert_eq!((unknown.status, &unknown.json()["errors"][0]["field"]), (400, &json!("typo")), "{}", unknown.text());
    // Blank lines and a missing last end of line are nothing wrong.
    let good = send("\r\n{\"entity_id\":\"a\",\"type\":\"T\"}\r\n\n{\"entity_id\":\"b\",\"type\":\"T\"}").await;
    assert_eq!((good.status, counts(&good.json())), (200, [2, 2, 0, 0]), "{}", good.text());
}

#[tokio::test]
async fn the_command_tells_of_bad_lines_and_fails() {
    let world = World::start(Door::Grpc).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{\"entity_id\":\"a\",\"type\":\"T\"}\nnot JSON\n{\"entity_id\":\"b/c\",\"type\":\"T\"}\n").unwrap();
    let path = file.path().to_str().unwrap();
    let server = format!("http://{}", world.server.addresses.grpc);
    let ended = run(&["import", path, "--server", &server, "--key", &world.key.secret]);
    assert_eq!((ended.code, ended.stdout.trim()), (Some(1), "3 read, 1 created, 0 there before, 2 refused."), "{ended:?}");
    assert!(ended.stderr.contains("line 2:") && ended.stderr.contains("b/c"), "{}", ended.stderr);

    let wrong_key = run(&["import", path, "--server", &server, "--key", "sk_test_wrong"]);
    assert_eq!(wrong_key.code, Some(1));
    assert!(wrong_key.stderr.contains("credential") && wrong_key.stderr.lines().count() == 1, "{}", wrong_key.stderr);
    let no_file = run(&["import", "/nowhere.ndjson", "--server", &server, "--key", &world.key.secret]);
    assert_eq!(no_file.code, Some(1));
    assert!(no_file.stderr.contains("/nowhere.ndjson"), "{}", no_file.stderr);
}
