//! The traces of a removal: a canary is in every field of an entity and of its dependents, the entity is removed in each way, and then
//! everything is searched for the canaries that must not be there any more.

use crate::kit::*;
use crate::probes::probe;

/// Words that are planted, each in one place. They are ids' characters, so that they may stand anywhere.
fn canary(place: &str) -> String {
    format!("canary-{place}")
}

const ATTACHED: &str = "0190feed-0000-7000-8000-00000000cafe";

/// The places where canaries may be found afterwards, and why. `docs/erasure.md` has the same list in words, with how long each is kept.
const MAY_REMAIN: &[(&str, &str)] = &[
    // The id of an entity outlives it: tombstones, requests, failures and events name what was removed.
    ("tombstone", "canary-id"),
    ("event", "canary-id"),
    ("offboarding_request", "canary-id"),
    ("bulk_delete", "canary-id"),
    // A slice keeps the ids between which it worked.
    ("bulk_delete_slice", "canary-id"),
    // And what hung on it, where an event reports its change.
    ("event", "canary-hung"),
    // So does its type.
    ("tombstone", "canary-type"),
    // A bulk delete shows what it was asked for.
    ("bulk_delete", "canary-type"),
    ("event", "canary-type"),
    ("bulk_delete", "canary-filter"),
    // An event of a membership names the portfolio, which is still there.
    ("event", "canary-portfolio"),
    ("portfolio", "canary-portfolio"),
    // The caller's own names: a call's record is removed after 24 hours.
    ("idempotency_key", "canary-key"),
    ("idempotency_key", "canary-portfolio"),
    ("idempotency_subject", "canary-portfolio"),
    ("idempotency_subject", "canary-key"),
    // An attribute that is declared as indexed keeps its name.
    ("attribute_declaration", "canary-attribute"),
    ("event", "canary-attribute"),
    // The parts of an entity are ids of things elsewhere; the request shows them for as long as it is kept.
    ("offboarding_request", ATTACHED),
];

/// Each place where a canary may be left: the tables, and the responses.
fn found_in_tables(world: &World) -> Vec<(String, String)> {
    let tables = world
        .database
        .text("SELECT string_agg(relname, ' ') FROM pg_class WHERE relkind IN ('r', 'p', 'm') AND NOT relispartition AND relnamespace = 'public'::regnamespace")
        .unwrap();
    let mut found = Vec::new();
    for table in tables.split(' ') {
        // Binary data is searched as text, too.
        let columns = world
            .database
            .text(&format!(
                "SELECT string_agg(CASE WHEN data_type = 'bytea' THEN format('encode(%I, ''escape'')', column_name) ELSE format('%I::text', column_name) END, ', ')
                 FROM information_schema.columns WHERE table_schema = 'public' AND table_name = '{table}'"
            ))
            .unwrap();
        let rows = world
            .database
            .text(&format!("SELECT string_agg(concat_ws(' ', {columns}), chr(10)) FROM {table}"));
        found.extend(
            canaries(&rows.unwrap_or_default()).into_iter().map(|word| (table.to_owned(), word)),
        );
    }
    found
}

/// Columns of which Postgres may keep samples of what is removed, until it samples again: ids, types and what callers call their own things.
const SAMPLED: &[&str] = &[
    "entity.id",
    "entity.type",
    "entity.components",
    "entity.portfolio_id",
    "dependent.entity_id",
    "dependent.id",
    "attribute_index.entity_id",
    "attribute_index.attribute",
    "attribute_declaration.attribute",
    "attribute_declaration.path",
    "attribute_declaration.cursor_value",
    "portfolio.id",
    "tombstone.entity_id",
    "tombstone.type",
    "event.subjects",
    "event.data",
    "idempotency_key.key",
    "idempotency_subject.subject",
    "idempotency_subject.dependent",
    "idempotency_subject.key",
    "bulk_delete.entity_type",
    "bulk_delete_slice.cursor_id",
];

/// The columns of which Postgres' own statistics have a canary, each with it.
fn found_in_statistics(world: &World) -> Vec<(String, String)> {
    let columns = "SELECT string_agg(tablename || '.' || attname, ' ') FROM pg_stats WHERE schemaname = 'public'";
    let mut found = Vec::new();
    for column in world.database.text(columns).unwrap().split(' ') {
        let (table, name) = column.split_once('.').unwrap();
        let sampled = world.database.text(&format!(
            "SELECT concat_ws(' ', most_common_vals::text, histogram_bounds::text, most_common_elems::text)
             FROM pg_stats WHERE schemaname = 'public' AND tablename = '{table}' AND attname = '{name}'"
        ));
        // A partition is sampled like its table.
        let table =
            if table.starts_with("event_") && table != "event_position" { "event" } else { table };
        found.extend(
            canaries(&sampled.unwrap_or_default())
                .into_iter()
                .map(|word| (format!("{table}.{name}"), word)),
        );
    }
    found
}

fn canaries(text: &str) -> Vec<String> {
    let mut found: Vec<String> = text
        .match_indices("canary-")
        .map(|(at, _)| {
            text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect()
        })
        .collect();
    if text.contains(ATTACHED) {
        found.push(ATTACHED.to_owned());
    }
    found.sort();
    found.dedup();
    found
}

/// A canary wherever a caller can put one.
async fn plant(world: &World) {
    let id = canary("id");
    let headers = |name: &str| {
        vec![
            ("idempotency-key".to_owned(), format!("{}-{name}", canary("key"))),
            ("x-request-id".to_owned(), format!("{}-{name}", canary("request"))),
        ]
    };
    world
        .call(
            "PortfolioService/CreatePortfolio",
            json!({"portfolio_id": canary("portfolio"), "name": "P"}),
        )
        .await
        .unwrap();
    // Nothing is sampled of what is there once.
    let other = json!({"entity": {
        "entity_id": "other", "type": "other", "attributes": {"canary_attribute": "other"}, "crosswalks": [{"source": "other"}],
        "dependents": [{"kind": "assessment", "id": "other", "data": {"x": "other"}}],
    }});
    let _ = world.call("EntityService/CreateEntity", other).await;
    let create = json!({"entity": {
        "entity_id": id, "type": canary("type"), "state": "onboarding", "portfolio_id": canary("portfolio"),
        "attributes": {"canary_attribute": canary("value"), canary("name"): {"deep": [canary("deep")]}},
        "crosswalks": [{"source": canary("crosswalk")}], "components": [ATTACHED],
        "dependents": [{"kind": "assessment", "id": canary("hung-assessment"), "data": {"x": canary("data")}}],
    }});
    let mut calls = vec![
        ("EntityService/CreateEntity", create),
        ("EntityService/CompleteOnboarding", json!({"entity_id": id})),
        (
            "EntityService/UpdateEntity",
            json!({"entity_id": id, "entity": {"attributes": {"patched": canary("patched")}}}),
        ),
        ("EntityService/PlaceHold", json!({"entity_id": id, "reason": canary("reason")})),
        ("EntityService/ReleaseHold", json!({"entity_id": id})),
        (
            "PortfolioService/DetachEntity",
            json!({"entity_id": id, "portfolio_id": canary("portfolio")}),
        ),
        (
            "PortfolioService/AttachEntity",
            json!({"entity_id": id, "portfolio_id": canary("portfolio")}),
        ),
    ];
    for kind in ["task", "data_override", "note"] {
        calls.push(("EntityService/PutDependent", json!({"entity_id": id, "kind": kind, "dependent_id": canary(&format!("hung-{}", kind.replace('_', "-"))), "data": {"x": canary("more")}})));
    }
    for (place, (method, request)) in calls.into_iter().enumerate() {
        let headers = headers(&format!("{place}"));
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        world
            .client
            .call_with(method, request, &headers)
            .await
            .unwrap_or_else(|failure| panic!("{method}: {failure:#?}"));
    }
    // It follows the rows that it finds, and keeps its position while it lasts.
    let attribute = json!({"attribute": canary("attribute").replace('-', "_")});
    world.call("AttributeIndexService/CreateAttributeIndex", attribute.clone()).await.unwrap();
    world
        .call_until("AttributeIndexService/GetAttributeIndex", attribute, |index| {
            index["state"] == "ready"
        })
        .await;
}

async fn remove(world: &World, way: &str) {
    let id = canary("id");
    if way.starts_with("offboarding") {
        let (method, get, name) = match way {
            "offboarding by A" => {
                ("RemovalService/RemoveEntity", "RemovalService/GetRemovalJob", "job_id")
            }
            _ => (
                "OffboardingService/RequestOffboarding",
                "OffboardingService/GetOffboardingRequest",
                "offboarding_request_id",
            ),
        };
        let asked = world
            .client
            .call_with(
                method,
                json!({"entity_id": id}),
                &[("idempotency-key", "canary-key-remove")],
            )
            .await
            .unwrap();
        let over = |answer: &Value| {
            answer["status"].as_str().is_some_and(|status| status.eq_ignore_ascii_case("succeeded"))
        };
        world.call_until(get, json!({name: asked.json["id"]}), over).await;
        return;
    }
    let objects = match way {
        "hard by type" => json!({"entity_type": canary("type")}),
        "hard by list" => json!({"uri_list": [format!("entities/{id}")]}),
        _ => {
            json!({"filter": format!("equals(attributes.canary_attribute, '{}') or equals(attributes.x, '{}')", canary("value"), canary("filter"))})
        }
    };
    let start =
        json!({"spec": {"objects": objects}, "mode": "hard", "allow_unknown_attributes": true});
    let task = world
        .client
        .call_with(
            "BulkDeleteService/StartBulkDelete",
            start,
            &[("idempotency-key", "canary-key-remove")],
        )
        .await
        .unwrap();
    world
        .call_until("BulkDeleteService/GetTask", json!({"task_id": task.json["id"]}), |task| {
            task["status"].as_str().is_some_and(|status| status.eq_ignore_ascii_case("completed"))
        })
        .await;
}

/// All that can be read by any call, as text.
async fn reported(world: &World) -> String {
    let mut reported = String::new();
    let id = canary("id");
    let reads = [
        ("EntityService/ListEntities", json!({})),
        ("EntityService/GetEntity", json!({"entity_id": id})),
        ("EntityService/ListDependents", json!({"entity_id": id})),
        ("EntityService/ListTombstones", json!({})),
        ("PortfolioService/ListPortfolios", json!({})),
        ("PortfolioService/ListPortfolioEntities", json!({"portfolio_id": canary("portfolio")})),
        ("RemovalService/ListRemovalJobs", json!({})),
        ("OffboardingService/ListOffboardingRequests", json!({})),
        ("BulkDeleteService/ListTaskHistory", json!({})),
        ("EventService/ListEvents", json!({"page_size": 1000})),
    ];
    for (method, request) in reads {
        reported.push_str(&match world.call(method, request).await {
            Ok(answer) => answer.json.to_string(),
            Err(failure) => failure.reported().to_string(),
        });
    }
    reported
}

scenario! {
    async fn what_is_removed_is_nowhere_but_where_it_is_said_to_be(world: &World) {
        plant(world).await;
        let before: Vec<String> = found_in_tables(world).into_iter().map(|(_, word)| word).collect();
        for planted in ["value", "name", "deep", "crosswalk", "hung-assessment", "data", "patched", "hung-task", "more", "type", "id"] {
            assert!(before.contains(&canary(planted)), "the search finds {planted}: {before:?}");
        }
        let ways = ["offboarding by A", "offboarding by D", "hard by filter", "hard by type", "hard by list"];
        for (round, way) in ways.into_iter().enumerate() {
            if round > 0 {
                world.database.sql("DELETE FROM idempotency_key; DELETE FROM idempotency_subject; DELETE FROM event; DELETE FROM bulk_delete; DELETE FROM offboarding_request; DELETE FROM portfolio; DELETE FROM attribute_declaration");
                plant(world).await;
            }
            // As it does by itself now and then.
            world.database.sql("ANALYZE");
            assert!(found_in_statistics(world).iter().any(|(column, _)| column == "entity.id"), "the search finds what is sampled");
            remove(world, way).await;
            for (column, word) in found_in_statistics(world) {
                assert!(SAMPLED.contains(&column.as_str()), "{way} leaves {word} in the statistics of {column}");
            }
            let by_filter = *"hard by filter" == *way;
            for (table, word) in found_in_tables(world) {
                let known = MAY_REMAIN.iter().any(|(place, prefix)| *place == table && word.replace('_', "-").starts_with(prefix));
                // A filter keeps what its author wrote.
                let written = by_filter && ["bulk_delete", "idempotency_key"].contains(&table.as_str()) && word == canary("value");
                let asked = table == "idempotency_key" && ["canary-id", "canary-type", "canary-filter", ATTACHED].iter().any(|asked| word.starts_with(asked));
                assert!(known || written || asked, "{way} leaves {word} in {table}");
            }
            let allowed = ["canary-id", "canary-type", "canary-portfolio", "canary-filter", "canary-attribute", ATTACHED];
            let is_allowed = |word: &str| word.starts_with("canary-hung") || allowed.contains(&word.replace('_', "-").as_str());
            for word in canaries(&reported(world).await) {
                let written = by_filter && word == canary("value");
                assert!(written || is_allowed(&word), "{way}: {word} is reported");
            }
        }
        for word in canaries(&world.server.log()) {
            // The ids that callers give their requests are how the log is read; a path of REST is not a part of it.
            assert!(word.starts_with("canary-request"), "{word} is in the log");
        }
        assert_eq!(canaries(&probe(&world.server, "/metrics").await.text()), Vec::<String>::new());
    }
}
