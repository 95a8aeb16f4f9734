//! Numbers of any size, kept to the last digit by every way in and out; and limits that are measured as JSON.

use std::path::Path;

use offboard::proto::v1::ExactValue;
use offboard::proto::v1::exact_value::Kind;

use crate::kit::*;

/// Numbers that no double represents exactly, as they are sent and as they are returned.
pub const SENT: &str = r#"{"big":9007199254740993,"dec":1234567890.123456789,"deep":[{"n":-123456789012345678901234567890}],"scale":[1.10,1.50e1,-0.0],"vast":1e400}"#;
const REPORTED: &str = r#"{"big":9007199254740993,"dec":1234567890.123456789,"deep":[{"n":-123456789012345678901234567890}],"scale":[1.10,15.0,0.0],"vast":1e400}"#;

async fn rest(world: &World, method: &str, path: &str, body: &str) -> Reply {
    let bearer = format!("Bearer {}", world.key.secret);
    let kind = if path.ends_with(":import") { "application/x-ndjson" } else { "application/json" };
    let headers = [("authorization", bearer.as_str()), ("content-type", kind)];
    http(world.server.addresses.http, method, path, &headers, body.to_owned()).await
}

/// The response to a request that is good.
pub async fn good(world: &World, method: &str, path: &str, body: &str) -> String {
    let reply = rest(world, method, path, body).await;
    assert!(
        (200..300).contains(&reply.status),
        "{method} {path}: {} {}",
        reply.status,
        reply.text()
    );
    reply.text()
}

pub fn holds(answer: &str, member: &str, object: &str) {
    let part = format!("\"{member}\":{object}");
    assert!(answer.contains(&part), "{part} in {answer}");
}

#[tokio::test]
async fn numbers_are_kept_to_the_last_digit_by_every_way_of_rest() {
    let world = &World::start(Protocol::Rest).await;
    let entity = |id: &str| {
        format!(
            r#"{{"entity_id":"{id}","type":"T","attributes":{SENT},"crosswalks":[{SENT}],"dependents":[{{"kind":"task","id":"t","data":{SENT}}}]}}"#
        )
    };
    holds(&good(world, "POST", "/v1/entities", &entity("a")).await, "attributes", REPORTED);
    let batch = format!(r#"{{"requests":[{{"entity":{}}}]}}"#, entity("b"));
    good(world, "POST", "/v1/entities:batchCreate", &batch).await;
    good(world, "POST", "/v1/entities:import", &entity("c")).await;
    for id in ["a", "b", "c"] {
        holds(&good(world, "GET", &format!("/v1/entities/{id}"), "").await, "attributes", REPORTED);
        holds(
            &good(world, "GET", &format!("/v1/entities/{id}/dependents/task/t"), "").await,
            "data",
            REPORTED,
        );
    }
    let stored = |what: &str| {
        world.database.count(&format!("SELECT count(*) FROM {what} = '{SENT}'::jsonb"))
    };
    assert_eq!(
        (
            stored("entity WHERE attributes"),
            stored("entity WHERE crosswalks -> 0"),
            stored("dependent WHERE data")
        ),
        (3, 3, 3)
    );
    for list in ["/v1/entities", "/v1/entities:batchGet?entity_ids=a&entity_ids=b&entity_ids=c"] {
        assert_eq!(good(world, "GET", list, "").await.matches(REPORTED).count(), 3, "{list}");
    }
    assert_eq!(
        good(world, "GET", "/v1/entities/a/dependents", "").await.matches(REPORTED).count(),
        1
    );

    // Members that a patch does not name stay as they are, and those it names are exact too.
    let patched =
        good(world, "PATCH", "/v1/entities/a", r#"{"attributes":{"deep":{"m":0.10},"dec":null}}"#)
            .await;
    let merged =
        r#"{"big":9007199254740993,"deep":{"m":0.10},"scale":[1.10,15.0,0.0],"vast":1e400}"#;
    holds(&patched, "attributes", merged);
    let replace = format!(r#"{{"attributes":{SENT},"replace_attributes":true}}"#);
    holds(&good(world, "PATCH", "/v1/entities/a", &replace).await, "attributes", REPORTED);
    // One more in the last digit is a change, and the same again is not.
    let version = |answer: String| {
        answer
            .split("\"version\":")
            .nth(1)
            .unwrap()
            .split(',')
            .next()
            .unwrap()
            .parse::<i64>()
            .unwrap()
    };
    let step = async |number: &str| {
        version(
            good(
                world,
                "PATCH",
                "/v1/entities/a",
                &format!(r#"{{"attributes":{{"big":{number}}}}}"#),
            )
            .await,
        )
    };
    let (first, second, third) = (
        step("9007199254740993").await,
        step("9007199254740992").await,
        step("9007199254740992").await,
    );
    assert_eq!((second - first, third - second), (1, 0));

    let put = format!(r#"{{"data":{{"one":1.0,"two":{SENT}}}}}"#);
    holds(&good(world, "PUT", "/v1/entities/a/dependents/task/u", &put).await, "two", REPORTED);
    let portfolio = format!(r#"{{"portfolio_id":"p","name":"Fund","metadata":{SENT}}}"#);
    holds(&good(world, "POST", "/v1/portfolios", &portfolio).await, "metadata", REPORTED);
    holds(&good(world, "GET", "/v1/portfolios", "").await, "metadata", REPORTED);
    let portfolio = r#"{"metadata":{"n":0.1234567890123456789}}"#;
    holds(
        &good(world, "PATCH", "/v1/portfolios/p", portfolio).await,
        "metadata",
        r#"{"n":0.1234567890123456789}"#,
    );
}

#[tokio::test]
async fn a_number_that_the_database_cannot_hold_is_refused_where_it_stands() {
    let world = &World::start(Protocol::Rest).await;
    for number in [
        "1e400000",
        "-1e1000",
        "1e-400000",
        "1e99999999999999999999",
        &"7".repeat(1_001),
        &format!("0.{}", "3".repeat(1_001)),
    ] {
        let refused = rest(
            world,
            "POST",
            "/v1/entities",
            &format!(r#"{{"type":"T","attributes":{{"a":[0,{{"b":{number}}}]}}}}"#),
        )
        .await;
        let fault = &refused.json()["errors"][0];
        assert_eq!(
            (refused.status, &fault["field"], &fault["code"]),
            (400, &json!("attributes.a[1].b"), &json!("out_of_range")),
            "{number}"
        );
        assert!(fault["description"].as_str().unwrap().contains("1,000 digits"), "{fault}");
    }
    for number in ["1e999", "-1e-1000", &"7".repeat(1_000)] {
        let answer = good(
            world,
            "POST",
            "/v1/entities",
            &format!(r#"{{"type":"T","attributes":{{"a":{number}}}}}"#),
        )
        .await;
        holds(&answer, "attributes", &format!("{{\"a\":{number}}}"));
    }
    // A megabyte of numbers that are short as they are sent and long as they are stored.
    let bomb = format!(r#"{{"type":"T","attributes":{{"a":[{}1]}}}}"#, "1e999,".repeat(100_000));
    let refused = rest(world, "POST", "/v1/entities", &bomb).await;
    assert_eq!((refused.status, &refused.json()["errors"][0]["code"]), (400, &json!("too_long")));
}

pub fn number(double: f64, text: &str) -> ExactValue {
    ExactValue { kind: Some(Kind::NumberValue(double)), exact_number: text.to_owned() }
}

/// Numbers of which doubles represent the first half alone.
const LARGE: &str = "123456789012345678901234567891";
const NEGATIVE: &str = "-123456789012345678901234567891";

scenario! {
    async fn filters_compare_numbers_to_the_last_digit(world: &World) {
        world.call("AttributeIndexService/CreateAttributeIndex", json!({"attribute": "n"})).await.unwrap();
        world.call_until("AttributeIndexService/GetAttributeIndex", json!({"attribute": "n"}), |index| index["state"] == "ready").await;
        let numbers = ["9007199254740992", "9007199254740993", "9007199254740993.0", "9007199254740993.5", "9007199254740994", LARGE, NEGATIVE];
        let lines: Vec<String> = ["a", "b", "c", "d", "e", "f", "g"].iter().zip(numbers)
            .map(|(id, number)| format!(r#"{{"entity_id":"{id}","type":"T","attributes":{{"n":{number},"m":[{{"n":{number}}}]}}}}"#)).collect();
        good(world, "POST", "/v1/entities:import", &lines.join("\n")).await;
        for path in ["n", "m.n"] {
            for (function, found) in [
                ("equals(PATH, 9007199254740993)", "bc"),
                ("equals(PATH, 9007199254740993.50)", "d"),
                ("in(PATH, 9007199254740992, 123456789012345678901234567891)", "af"),
                ("gt(PATH, 9007199254740993)", "def"),
                ("lte(PATH, 9007199254740993)", "abcg"),
                ("range(PATH, 9007199254740992.5, 9007199254740993.25)", "bc"),
                ("gt(PATH, 123456789012345678901234567890.5)", "f"),
                ("lt(PATH, '-123456789012345678901234567890')", "g"),
                ("equals(PATH, 123456789012345678901234567890)", ""),
                ("startsWith(PATH, '900719925474099')", "abcde"),
                ("not equals(PATH, 9007199254740992)", "bcdefg"),
            ] {
                let filter = function.replace("PATH", &format!("attributes.{path}"));
                let page = world.call("EntityService/ListEntities", json!({"filter": filter})).await.unwrap();
                let ids: String = page.get("entities").as_array().unwrap().iter().map(|entity| entity["id"].as_str().unwrap()).collect();
                assert_eq!(ids, found, "{filter}");
            }
        }
    }

    async fn limits_are_measured_as_json(world: &World) {
        // Many small numbers, and a text for the last byte: `{"a":[1,1],"p":"xx"}`.
        let object = |bytes: usize| {
            let count = (bytes - 14) / 2;
            let object = json!({"a": vec![1; count], "p": "x".repeat(bytes - 14 - 2 * count)});
            assert_eq!(object.to_string().len(), bytes);
            object
        };
        let faults = |answer: Result<Answer, Failure>| answer.err().map(|failure| failure.faults.iter().map(|fault| (fault.field.clone(), fault.code.clone())).collect::<Vec<_>>());
        let too_long = |field: &str| Some(vec![(field.to_owned(), "too_long".to_owned())]);
        let portfolio = |bytes: usize| json!({"portfolio_id": format!("p{bytes}"), "name": "Fund", "metadata": object(bytes)});
        for bytes in [40_012, 64 << 10] {
            world.call("PortfolioService/CreatePortfolio", portfolio(bytes)).await.unwrap();
            world.call("PortfolioService/UpdatePortfolio", json!({"portfolio_id": "p40012", "metadata": object(bytes)})).await.unwrap();
        }
        let larger = (64 << 10) + 1;
        assert_eq!(faults(world.call("PortfolioService/CreatePortfolio", portfolio(larger)).await), too_long("metadata"));
        let update = json!({"portfolio_id": "p40012", "metadata": object(larger)});
        assert_eq!(faults(world.call("PortfolioService/UpdatePortfolio", update).await), too_long("metadata"));

        // 240,000 bytes of JSON are more than 1 MiB as a message.
        let wide = || json!({"a": vec![1; 120_000]});
        let entity = json!({"entity": {"entity_id": "a", "type": "T", "attributes": wide()}});
        world.call("EntityService/CreateEntity", entity).await.unwrap();
        world.call("EntityService/PutDependent", json!({"entity_id": "a", "kind": "task", "dependent_id": "t", "data": wide()})).await.unwrap();
        world.call("EntityService/UpdateEntity", json!({"entity_id": "a", "entity": {"crosswalks": [wide()]}})).await.unwrap();
        // Of all bytes but one, and of one more, with characters that JSON escapes.
        let text = |bytes: usize| json!({"t": format!("{}{}", "\n".repeat(1_000), "x".repeat(bytes - 2_000 - 8))});
        assert_eq!(text(5_000).to_string().len(), 5_000);
        let most = 1 << 20;
        let dependent = |data: Value| json!({"entity_id": "a", "kind": "task", "dependent_id": "t", "data": data});
        world.call("EntityService/PutDependent", dependent(text(most))).await.unwrap();
        assert_eq!(faults(world.call("EntityService/PutDependent", dependent(text(most + 1))).await), too_long("data"));
        let update = |object: Value| json!({"entity_id": "a", "entity": {"attributes": object, "replace_attributes": true}});
        world.call("EntityService/UpdateEntity", update(text(most))).await.unwrap();
        let refused = faults(world.call("EntityService/UpdateEntity", update(text(most + 1))).await).unwrap();
        assert_eq!(refused[0].1, "too_long");
        // One byte more by a merge.
        let merge = |attributes: Value| json!({"entity_id": "a", "entity": {"attributes": attributes}});
        assert_eq!(faults(world.call("EntityService/UpdateEntity", merge(json!({"u": 1}))).await).unwrap()[0].1, "too_long");
        world.call("EntityService/UpdateEntity", merge(json!({"t": "short"}))).await.unwrap();
    }
}

/// A file of one line.
fn file(line: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), line).unwrap();
    file
}

fn path(file: &Path) -> &str {
    file.to_str().unwrap()
}

#[tokio::test]
async fn a_line_of_a_file_is_read_as_a_post_is() {
    let world = &World::start(Protocol::Rest).await;
    let server = format!("http://{}", world.server.addresses.grpc);
    let what = |realm: &str| {
        format!(
            "SELECT string_agg(concat_ws(' ', e.type, e.state, e.attributes, e.components, e.crosswalks, d.kind, d.data), ';') FROM entity e
             JOIN realm r ON r.id = e.realm_id LEFT JOIN dependent d ON d.realm_id = e.realm_id AND d.entity_id = e.id WHERE r.org || r.mode = '{realm}'"
        )
    };
    for line in [
        r#"{"entityId":"e","type":"T"}"#,
        r#"{"entity_id":"e","type":"T","state":"onboarding"}"#,
        r#"{"entity_id":"e","type":"T","state":"ENTITY_STATE_ONBOARDING","attributes":null,"components":null,"crosswalks":null,"dependents":null,"portfolioId":null}"#,
        r#"{"entity_id":"e","type":"T","attributes":{"a":123456789012345678901234567890,"b":1234567890.123456789,"c":1.10}}"#,
        r#"{"entity_id":"e","type":"T","crosswalks":[{"n":9007199254740993}],"dependents":[{"kind":"task","id":"t","data":{"n":0.1234567890123456789}}]}"#,
        r#" {"entity_id":"e","type":"T","dependents":[{"kind":"task"}]} "#,
        // The values that a POST refuses.
        r#"{"entity_id":"e","type":"T","type":"U"}"#,
        r#"{"entity_id":"e","entityId":"f","type":"T"}"#,
        r#"{"entity_id":"e","type":"T","attributes":{"a":1,"a":2}}"#,
        r#"{"entity_id":"e","type":"T","attributes":{"a":1e400000}}"#,
        r#"{"entity_id":"e","type":"T","attributes":{"a":"\u0000"}}"#,
        r#"{"entity_id":"e","type":"T","crosswalks":[{"a\u0000":1}],"dependents":[{"kind":"task","data":{"a":["\u0000"]}}]}"#,
        r#"{"entity_id":"e","type":"T","state":"Onboarding","typo":1}"#,
        r#"{"entity_id":"e","type":1}"#,
        r#""e""#,
        r#"{"entity_id":"e""#,
        "\u{feff}{\"entity_id\":\"e\",\"type\":\"T\"}",
    ] {
        world.database.sql("TRUNCATE entity, dependent");
        let posted = rest(world, "POST", "/v1/entities", line).await;
        let stored = world.database.text(&what("acmetest"));
        world.database.sql("TRUNCATE entity, dependent");
        let file = file(&format!("{line}\n"));
        let online =
            run(&["import", path(file.path()), "--server", &server, "--key", &world.key.secret]);
        // Ids that are generated differ, and are not compared.
        assert_eq!(world.database.text(&what("acmetest")), stored, "{line}: {online:?}");
        assert_eq!(
            online.code == Some(0),
            posted.status == 201,
            "{line}: {online:?} {}",
            posted.text()
        );
        let offline = run(&[
            "import",
            path(file.path()),
            "--offline",
            "--live",
            "--org",
            "acme",
            "--database-url",
            &world.database.url,
        ]);
        assert_eq!(world.database.text(&what("acmelive")), stored, "{line}: {offline:?}");
        assert_eq!(offline.code, online.code, "{line}: {offline:?}");
        if posted.status == 400 {
            for fault in posted.json()["errors"].as_array().unwrap() {
                let reported = format!(
                    "{}: {}",
                    fault["field"].as_str().unwrap(),
                    fault["description"].as_str().unwrap()
                );
                assert!(
                    online.stderr.contains(&reported) && offline.stderr.contains(&reported),
                    "{line}: {reported} in {online:?}"
                );
            }
        }
    }
}
