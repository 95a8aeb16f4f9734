//! The requests of a script with an unset variable: `null`, an empty list, no body at all. They never select more than was meant.

use async_compression::tokio::bufread::GzipEncoder;
use tokio::io::AsyncReadExt;

use crate::given::{Account, Many, text};
use crate::kit::*;

async fn gzip(text: &str) -> Vec<u8> {
    let mut packed = Vec::new();
    GzipEncoder::new(text.as_bytes()).read_to_end(&mut packed).await.unwrap();
    packed
}

/// Sends a body, or what it is packed into, to a path below `/api/acme/entities`.
async fn post(world: &World, path: &str, body: &str, is_packed: bool) -> Reply {
    let bearer = format!("Bearer {}", world.key.secret);
    let mut headers =
        vec![("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body = if is_packed {
        headers.push(("content-encoding", "gzip"));
        gzip(body).await
    } else {
        body.as_bytes().to_vec()
    };
    http(world.server.addresses.http, "POST", &format!("/api/acme/entities{path}"), &headers, body)
        .await
}

/// The status of a response, and the fields and codes of its faults.
fn reported(answer: &Reply) -> (u16, String) {
    let faults = answer.json()["errors"].as_array().cloned().unwrap_or_default();
    let faults: Vec<_> = faults
        .iter()
        .map(|fault| format!("{}: {}", text(&fault["field"]), text(&fault["code"])))
        .collect();
    (answer.status, faults.join(" "))
}

async fn given() -> World {
    let world = World::start(Protocol::Rest).await;
    world.database.given_many(Many { prefix: "e", count: 12, dependents: 1, portfolio: None });
    world
}

fn nothing_started(world: &World) {
    assert_eq!(
        (
            world.database.rows("bulk_delete"),
            world.database.rows("entity WHERE deleted_at IS NULL")
        ),
        (0, 12)
    );
}

#[tokio::test]
async fn a_body_that_is_nothing_never_leaves_the_type_of_the_query() {
    let world = given().await;
    for mode in ["hard", "soft", "hard&dryRun=true"] {
        for is_packed in [false, true] {
            for body in ["null", " null\n", "[]", "", " ", "\n"] {
                let answer = post(
                    &world,
                    &format!("/_deleteByUris?entityType=HCP&mode={mode}"),
                    body,
                    is_packed,
                )
                .await;
                assert_eq!(
                    reported(&answer),
                    (400, "body: required".to_owned()),
                    "{body:?} {mode} {is_packed}"
                );
            }
            for body in ["", " ", "\r\n\t"] {
                let answer =
                    post(&world, &format!("/_delete?entityType=HCP&mode={mode}"), body, is_packed)
                        .await;
                assert_eq!(
                    reported(&answer),
                    (400, "body: required".to_owned()),
                    "{body:?} {mode} {is_packed}"
                );
            }
            let answer =
                post(&world, &format!("/_delete?entityType=HCP&mode={mode}"), "null", is_packed)
                    .await;
            assert_eq!(
                reported(&answer),
                (400, "body: invalid_type".to_owned()),
                "{mode} {is_packed}"
            );
        }
    }
    nothing_started(&world);
    // The contract's requests without a body stay valid.
    let bearer = format!("Bearer {}", world.key.secret);
    let by_type = http(
        world.server.addresses.http,
        "DELETE",
        "/api/acme/entities?entityType=HCP&mode=hard",
        &[("authorization", &bearer)],
        "",
    )
    .await;
    let ended = world.task_ended(&text(&by_type.json()["id"])).await;
    assert_eq!(Account::of(&ended).processed, 12);
}

#[tokio::test]
async fn a_body_that_must_be_there_is_asked_for_by_every_call() {
    let world = given().await;
    let bearer = format!("Bearer {}", world.key.secret);
    for (method, path) in [
        ("POST", "/v1/entities"),
        ("PATCH", "/v1/entities/e-000001"),
        ("PATCH", "/v1/removal-policy"),
    ] {
        for body in ["", "\n"] {
            let headers =
                [("authorization", bearer.as_str()), ("content-type", "application/json")];
            let answer =
                http(world.server.addresses.http, method, path, &headers, body.to_owned()).await;
            assert_eq!(
                reported(&answer),
                (400, "body: required".to_owned()),
                "{method} {path} {body:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_selector_that_is_nothing_does_not_widen_a_delete() {
    let world = given().await;
    let filter = "exists(attributes.n)";
    for (body, fields) in [
        (json!({"objects": {"filter": null, "entityType": "HCP"}}), "objects.filter"),
        (json!({"objects": {"filter": filter, "entityType": null}}), "objects.entityType"),
        (json!({"objects": {"filter": filter, "uriList": null}}), "objects.uriList"),
        (json!({"objects": {"entityType": "HCP", "excludeList": null}}), "objects.excludeList"),
        (
            json!({"objects": {"entity_type": "HCP", "exclude_list": null, "uri_list": null}}),
            "objects.excludeList objects.uriList",
        ),
        (json!({"objects": {"entityType": "HCP", "excludeList": []}}), "objects.excludeList"),
        (
            json!({"objects": {"uriList": ["e-000001"], "excludeList": []}, "allowMissingExcludes": false}),
            "objects.excludeList",
        ),
        (json!({"objects": {"filter": null}, "matchAll": true}), "objects.filter"),
        (json!({"objects": {"excludeList": null}, "matchAll": true}), "objects.excludeList"),
        (json!({"objects": null, "matchAll": true}), "objects"),
    ] {
        for query in
            ["mode=hard", "mode=hard&dryRun=true", "mode=soft", "mode=soft&dryRun=true", ""]
        {
            for is_packed in [false, true] {
                let answer =
                    post(&world, &format!("/_delete?{query}"), &body.to_string(), is_packed).await;
                let expected: Vec<_> =
                    fields.split(' ').map(|field| format!("{field}: required")).collect();
                assert_eq!(reported(&answer), (400, expected.join(" ")), "{query} {body}");
            }
        }
    }
    // Alone it is reported once, and with whatever else is wrong.
    let alone = post(&world, "/_delete?mode=hard", r#"{"objects":{"filter":null}}"#, false).await;
    assert_eq!(reported(&alone), (400, "objects.filter: required".to_owned()));
    let more = post(
        &world,
        "/_delete?mode=hard&maxObjects=-1",
        r#"{"objects":{"filter":null,"entityType":"HCP"}}"#,
        false,
    )
    .await;
    assert_eq!(
        reported(&more),
        (400, "objects.filter: required maxObjects: out_of_range".to_owned())
    );
    nothing_started(&world);
}

#[tokio::test]
async fn who_lets_excludes_be_missing_may_have_none() {
    let world = given().await;
    for body in [
        json!({"objects": {"uriList": ["e-000001"], "excludeList": []}, "allowMissingExcludes": true}),
        json!({"objects": {"uriList": ["e-000002"]}}),
    ] {
        let answer = post(&world, "/_delete?mode=hard", &body.to_string(), false).await;
        assert_eq!(answer.status, 200, "{body} {}", answer.text());
        let ended = world.task_ended(&text(&answer.json()["id"])).await;
        assert_eq!(Account::of(&ended).processed, 1, "{body}");
    }
    let body = r#"{"objects":{"entityType":"HCP","excludeList":[]},"allowMissingExcludes":true}"#;
    let looked = post(&world, "/_delete?dryRun=true", body, false).await;
    assert_eq!((looked.status, &looked.json()["preview"]["matchedCount"]), (200, &json!(10)));
    let answer = post(&world, "/_delete", body, false).await;
    assert_eq!(Account::of(&world.task_ended(&text(&answer.json()["id"])).await).processed, 10);
}
