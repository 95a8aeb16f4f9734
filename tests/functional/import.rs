//! Imports: by either protocol and from the command line, with an account of every line.

use std::path::Path;

use crate::entities::events;
use crate::kit::*;

/// All that is stored of entities and their dependents, in one word.
fn digest(database: &Database) -> Option<String> {
    let rows = "SELECT e::text AS row FROM entity e UNION ALL SELECT d::text FROM dependent d UNION ALL SELECT p::text FROM portfolio p";
    database.text(&format!("SELECT md5(string_agg(row, '' ORDER BY row)) FROM ({rows}) AS rows"))
}

pub fn counts(account: &Value) -> [i64; 4] {
    ["received", "created", "existing", "failed"].map(|name| account[name].as_i64().unwrap())
}

/// The results of the lines that were refused.
fn refused(account: &Value) -> Vec<&Value> {
    account["results"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|result| result["outcome"] == "failed")
        .collect()
}

/// The outcome of each line, in the order of the lines.
fn outcomes(account: &Value) -> Vec<&str> {
    let results = account["results"].as_array().unwrap().iter().zip(1..);
    results
        .map(|(result, line)| {
            (result["line"] == line).then(|| result["outcome"].as_str().unwrap()).unwrap()
        })
        .collect()
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
        assert_eq!(outcomes(&first), ["created"; 1201]);
        assert_eq!(first["results"][1200], json!({"line": 1201, "entity_id": "e1200", "outcome": "created", "error": null, "soft_deleted": false, "different": false}));
        let stored = world.database.text("SELECT (SELECT count(*) FROM entity) || ' ' || (SELECT count(*) FROM dependent)");
        assert_eq!(stored.as_deref(), Some("1201 1201"));
        let fund = world.call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"})).await.unwrap();
        assert_eq!(fund.json["entity_count"], 601);
        let reported = "SELECT sum(cardinality(subjects)) FROM event WHERE type = 'entity.created'";
        assert_eq!(world.database.count(reported), 1201, "every entity is reported of once");
        assert!(world.database.events_of("entity.created") > 1, "in more than one batch");

        let order = "SELECT string_agg(id, ',' ORDER BY attached_at, id) = string_agg(id, ',' ORDER BY id) FROM entity WHERE portfolio_id = 'p'";
        assert_eq!(world.database.text(order).as_deref(), Some("true"), "members joined in the order of the stream");

        let (before, reported_before) = (digest(&world.database), events(&world.database));
        let second = world.import(&entities).await;
        assert_eq!(counts(&second), [1201, 0, 1201, 0], "{second}");
        assert_eq!((digest(&world.database), events(&world.database)), (before, reported_before));
    }

    async fn what_is_there_and_is_not_the_same_is_reported(world: &World) {
        let whole = json!({
            "entity_id": "e", "type": "T", "attributes": {"n": 1.50, "of": ["a", {"b": null}]}, "crosswalks": [{"system": "crm"}],
            "components": ["0190a1b2-0000-7000-8000-000000000001"], "dependents": [{"kind": "task", "id": "t"}],
        });
        let with = |name: &str, value: Value| {
            let mut entity = whole.clone();
            entity[name] = value;
            entity
        };
        let entities = [
            whole.clone(),
            with("attributes", json!({"of": ["a", {"b": null}], "n": 1.5})),
            with("type", json!("U")),
            with("attributes", json!({"n": 1.5})),
            with("crosswalks", json!([])),
            with("components", json!([])),
            with("dependents", json!([])),
        ];
        let account = world.import(&entities).await;
        assert_eq!((counts(&account), &account["different"]), ([7, 1, 6, 0], &json!(4)), "{account}");
        let reported: Vec<_> = account["results"].as_array().unwrap().iter().map(|result| result["different"].as_bool().unwrap()).collect();
        assert_eq!(reported, [false, false, true, true, true, true, false], "what an update cannot change is not compared");
        let again = world.import(&entities[2..3]).await;
        assert_eq!((&again["different"], &again["results"][0]["outcome"]), (&json!(1), &json!("existing")));
        let entity = world.call("EntityService/GetEntity", json!({"entity_id": "e"})).await.unwrap();
        assert_eq!((&entity.json["type"], &entity.json["version"]), (&json!("T"), &json!(1)));
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
        assert_eq!(outcomes(&account), ["created", "failed", "failed", "existing", "created"]);
        let failures = refused(&account);
        let reported: Vec<_> = failures.iter().map(|failure| (failure["entity_id"].as_str().unwrap(), failure["error"]["code"].as_str().unwrap())).collect();
        assert_eq!(reported, [("no/good", "validation_failed"), ("homeless", "not_found")]);
        let message = failures[0]["error"]["message"].as_str().unwrap();
        for part in ["entity_id", "type", "dependents[0].kind"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(failures[1]["error"]["message"].as_str().unwrap().contains("`nowhere`"), "{account}");
        assert_eq!(world.database.ids_and_types().as_deref(), Some("good1T,good2T"));
        assert_eq!(events(&world.database), "entity.created good1,good2");
    }

    async fn every_line_has_a_result_also_across_batches_that_share_ids(world: &World) {
        let ids: Vec<usize> = (0..1700).map(|n| if n >= 1100 { n - 1100 } else { n }).collect();
        let entities: Vec<Value> = ids.iter().zip(1..).map(|(id, line)| json!({"entity_id": format!("e{id}"), "type": format!("L{line}")})).collect();
        let account = world.import(&entities).await;
        assert_eq!(counts(&account), [1700, 1100, 600, 0]);
        let expected = [vec!["created"; 1100], vec!["existing"; 600]].concat();
        assert_eq!(outcomes(&account), expected);
        let first = "SELECT count(*) FROM entity WHERE type = 'L' || (substr(id, 2)::int + 1)";
        assert_eq!(world.database.count(first), 1100, "of two lines with one id the first counts");
        assert_eq!(counts(&world.import(&[]).await), [0, 0, 0, 0]);
    }

    async fn a_caller_may_ask_for_the_refused_alone(world: &World) {
        let entity = |n: usize| json!({"entity_id": format!("b{n}"), "type": if n == 7 { "" } else { "T" }});
        let requests: Vec<Value> = (0..20).map(|n| json!({"entity": entity(n), "failures_only": true})).collect();
        let account = world.client.import_requests(&requests, "?failures_only=true", &[]).await.unwrap().json;
        assert_eq!(counts(&account), [20, 19, 0, 1]);
        let results: Vec<_> = account["results"].as_array().unwrap().iter().map(|result| (&result["line"], &result["entity_id"])).collect();
        assert_eq!(results, [(&json!(8), &json!("b7"))]);
    }

    async fn a_stream_with_an_idempotency_key_has_the_same_results_again(world: &World) {
        let entities: Vec<Value> = (0..1300).map(|n| json!({"type": "T", "attributes": {"n": n}})).collect();
        let key = [("idempotency-key", "an import")];
        // Ids are generated, so without the key a second sending would make everything twice.
        let first = world.client.import_with(&entities[..700], &key).await.unwrap();
        assert_eq!((counts(&first.json), first.header("idempotent-replayed")), ([700, 700, 0, 0], None));
        let again = world.client.import_with(&entities[..700], &key).await.unwrap();
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert_eq!(again.json, first.json);
        // A stream that was cut off: what is whole of it is known, and the rest is done. The batch that the cut has changed is another request.
        let reused = world.client.import_with(&entities, &key).await.unwrap_err();
        assert_eq!(reused.code, "idempotency_key_reused");
        assert_eq!(world.database.rows("entity"), 700);

        let key = [("idempotency-key", "another import")];
        world.client.import_with(&entities[..1000], &key).await.unwrap();
        let whole = world.client.import_with(&entities, &key).await.unwrap();
        assert_eq!((counts(&whole.json), whole.header("idempotent-replayed")), ([1300, 1300, 0, 0], Some("true")), "its first batch was");
        assert_eq!(world.database.rows("entity"), 2000);
    }

    async fn the_demo_file_is_imported_whole_by_every_way_there_is(world: &World) {
        let lines = std::fs::read_to_string(demo_file()).unwrap();
        let entities: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(entities.len(), 2000);
        let dependents: usize = entities.iter().map(|entity| entity["dependents"].as_array().map_or(0, Vec::len)).sum();
        assert_eq!(counts(&world.import(&entities).await), [2000, 2000, 0, 0]);
        assert_eq!(world.database.rows("entity"), 2000);
        assert_eq!(world.database.rows("dependent"), i64::try_from(dependents).unwrap());

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
        assert_eq!(world.database.count(worlds), 2000, "offline writes what the service wrote");
        assert_eq!(world.database.open_keys_named("offline import"), 0);
    }
}

impl World {
    async fn import(&self, entities: &[Value]) -> Value {
        self.client.import(entities).await.unwrap().json
    }
}

#[tokio::test]
async fn numbers_that_are_written_otherwise_are_other_for_an_import_as_for_an_update() {
    let world = World::start(Protocol::Rest).await;
    let bearer = format!("Bearer {}", world.key.secret);
    let entity = |n: &str| {
        format!(
            r#"{{"entity_id":"e","type":"T","attributes":{{"n":{n}}},"crosswalks":[{{"n":[{n}]}}]}}"#
        )
    };
    let send = async |method: &str, path: &str, media_type: &str, body: String| {
        let headers = [("authorization", bearer.as_str()), ("content-type", media_type)];
        http(world.server.addresses.http, method, path, &headers, body).await
    };
    assert_eq!(send("POST", "/v1/entities", "application/json", entity("1.10")).await.status, 201);
    let different = async |line: String| {
        let answer = send("POST", "/v1/entities:import", "application/x-ndjson", line).await.text();
        serde_json::from_str::<Value>(answer.lines().next().unwrap()).unwrap()["result"]["different"].as_bool().unwrap()
    };
    assert!(!different(entity("1.10")).await && !different(entity("11.0e-1")).await);
    assert!(different(entity("1.1")).await);
    assert!(
        different(
            r#"{"entity_id":"e","type":"T","attributes":{"n":1.10},"crosswalks":[{"n":[1.1]}]}"#
                .to_owned()
        )
        .await
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), entity("1.100")).unwrap();
    let server = format!("http://{}", world.server.addresses.grpc);
    let reported = run(&[
        "import",
        file.path().to_str().unwrap(),
        "--server",
        &server,
        "--key",
        &world.key.secret,
    ]);
    assert!(reported.stdout.contains("1 of them with other contents"), "{reported:?}");
    let update = send(
        "PATCH",
        "/v1/entities/e",
        "application/json",
        r#"{"attributes":{"n":1.1}}"#.to_owned(),
    )
    .await;
    assert_eq!(update.json()["version"], json!(2), "{}", update.text());
}

#[tokio::test]
async fn a_portfolio_is_joined_offline_as_with_a_key() {
    let world = World::start(Protocol::Grpc).await;
    world.portfolios(&["p"]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "{\"entity_id\":\"a\",\"type\":\"T\",\"portfolio_id\":\"p\"}\n{\"entity_id\":\"b\",\"type\":\"T\",\"portfolio_id\":\"none\"}\n",
    )
    .unwrap();
    let offline = [
        "import",
        file.path().to_str().unwrap(),
        "--offline",
        "--org",
        "acme",
        "--database-url",
        &world.database.url,
    ];
    let ended = run(&offline);
    assert!(ended.stdout.contains("2 read, 1 created, 0 there before, 1 refused."), "{ended:?}");
    assert!(ended.stderr.contains("line 2 (b): No portfolio with id `none`"), "{ended:?}");
    assert_eq!(world.database.member_ids("p").as_deref(), Some("a"));
}
