//! Lists of events: pages, tokens, filters, and how long events are kept.

use std::collections::HashSet;

use diesel::connection::SimpleConnection;

use crate::kit::*;

impl World {
    /// A page of events.
    pub async fn events(&self, request: Value) -> Result<Answer, Failure> {
        self.call("EventService/ListEvents", request).await
    }

    /// Every event that a list has, read in pages of this size; the tokens are put into `request`.
    pub async fn all_events(&self, mut request: Value, size: usize) -> Vec<Value> {
        let mut events = Vec::new();
        request["page_size"] = json!(size);
        loop {
            let page = self.events(request.clone()).await.unwrap();
            let found = page.get("events").as_array().unwrap();
            assert!(found.len() <= size);
            events.extend(found.iter().cloned());
            request["page_token"] = page.get("next_page_token").clone();
            if page.get("caught_up") == true {
                return events;
            }
        }
    }
}

/// `TYPE SUBJECT` of each event.
pub fn reported(events: &[Value]) -> Vec<String> {
    let word = |event: &Value, name: &str| event[name].as_str().unwrap().to_owned();
    events
        .iter()
        .map(|event| format!("{} {}", word(event, "type"), word(event, "subject")))
        .collect()
}

/// Writes an event of the realm of `acme` in mode `test`.
pub fn insert(subject: &str) -> String {
    format!(
        "INSERT INTO event (realm_id, type, subjects, principal_id)
         SELECT id, 'entity.created', ARRAY['{subject}'], gen_random_uuid() FROM realm WHERE org = 'acme' AND mode = 'test'"
    )
}

scenario! {
    async fn events_are_listed_from_the_beginning_by_pages(world: &World) {
        world.portfolios(&["p"]).await;
        world.entities(&["a", "b", "c"]).await;
        world.attach("p", "a").await.unwrap();
        let all = world.all_events(json!({}), 1000).await;
        assert_eq!(reported(&all), [
            "portfolio.created p",
            "entity.created a",
            "entity.created b",
            "entity.created c",
            "portfolio.entity_attached p",
        ]);
        // All but the cursor, which contains the time of the request.
        let without_cursor = |events: &[Value]| -> Vec<Value> {
            let mut events = events.to_vec();
            events.iter_mut().for_each(|event| event["cursor"] = Value::Null);
            events
        };
        for size in [1, 2, 5] {
            let pages = world.all_events(json!({}), size).await;
            assert_eq!(without_cursor(&pages), without_cursor(&all), "pages of {size}");
        }
        let attached = &all[4];
        assert_eq!(attached["specversion"], "1.0");
        assert_eq!(attached["source"], "/orgs/acme/test");
        assert_eq!(attached["datacontenttype"], "application/json");
        assert_eq!(attached["data"]["entity_ids"], json!(["a"]));
        assert_eq!(attached["data"]["version"], 2);
        assert_eq!(attached["data"]["principal_id"], world.database.principal().unwrap());
        assert!(attached["time"].as_i64().unwrap() >= all[0]["time"].as_i64().unwrap());
        let row = world.database.text("SELECT id FROM event WHERE cardinality(subjects) = 3").unwrap();
        assert_eq!(all[2]["id"], format!("{row}-2"), "a row of many is one event for each");
        let ids: HashSet<&str> = all.iter().map(|event| event["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), 5);
    }

    async fn the_token_at_the_end_leads_to_what_comes_later(world: &World) {
        world.portfolios(&["p"]).await;
        let first = world.events(json!({})).await.unwrap();
        assert_eq!((reported(first.get("events").as_array().unwrap()).len(), first.get("caught_up")), (1, &json!(true)));
        let on = json!({"page_token": first.get("next_page_token")});
        let nothing = world.events(on.clone()).await.unwrap();
        assert_eq!((nothing.get("events"), nothing.get("caught_up")), (&json!([]), &json!(true)));
        world.portfolios(&["q"]).await;
        for token in [on, json!({"page_token": nothing.get("next_page_token")})] {
            assert_eq!(reported(&world.all_events(token, 10).await), ["portfolio.created q"]);
        }
    }

    async fn a_token_opens_the_list_that_it_came_from_alone(world: &World) {
        world.portfolios(&["p", "q"]).await;
        let page = world.events(json!({"page_size": 1})).await.unwrap();
        let token = page.get("next_page_token").as_str().unwrap();
        let mut tampered = token.to_owned();
        tampered.replace_range(9..10, if &token[9..10] == "A" { "B" } else { "A" });
        let cursor = page.get("events")[0]["cursor"].as_str().unwrap();
        for request in [
            json!({"page_token": tampered}),
            json!({"page_token": "nonsense"}),
            json!({"page_token": cursor}),
            json!({"page_token": token, "subject": "p"}),
            json!({"page_token": token, "types": ["entity.created"]}),
        ] {
            let refused = world.events(request.clone()).await.unwrap_err();
            assert_eq!((refused.code.as_str(), refused.faults[0].field.as_str()), ("validation_failed", "page_token"), "{request}");
            assert_eq!(refused.http.unwrap_or(400), 400);
        }
        let other = world.client("umbrella", "test", SCOPES);
        assert_eq!(other.call("EventService/ListEvents", json!({"page_token": token})).await.unwrap_err().code, "validation_failed");
        assert_eq!(reported(&world.all_events(json!({"page_token": token}), 7).await), ["portfolio.created q"]);
    }

    async fn every_fault_of_a_request_is_reported(world: &World) {
        let request = json!({"page_size": 1001, "page_token": "x", "types": ["entity.created", "entity.lost"], "subject": "a".repeat(257)});
        let faults = world.events(request).await.unwrap_err().faults;
        let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["page_size", "page_token", "types[1]", "subject"]);
    }

    async fn events_are_listed_by_type_and_subject(world: &World) {
        world.portfolios(&["p", "q"]).await;
        world.entities(&["a", "b", "c"]).await;
        world.attach("p", "a").await.unwrap();
        world.attach("q", "b").await.unwrap();
        let of = async |request: Value| reported(&world.all_events(request, 2).await);
        let types = json!(["portfolio.created", "portfolio.entity_attached"]);
        assert_eq!(of(json!({"subject": "b"})).await, ["entity.created b"]);
        assert_eq!(of(json!({"subject": "q", "types": types})).await, ["portfolio.created q", "portfolio.entity_attached q"]);
        assert_eq!(of(json!({"types": ["portfolio.created"]})).await, ["portfolio.created p", "portfolio.created q"]);
        assert_eq!(of(json!({"subject": "nobody"})).await, Vec::<String>::new());
    }

    async fn what_one_call_reads_is_bounded(world: &World) {
        world.entities(&["first"]).await;
        world.database.sql(
            "INSERT INTO event (realm_id, type, subjects, principal_id)
             SELECT r.id, 'entity.created', ARRAY['e' || n], gen_random_uuid() FROM realm r, generate_series(1, 12000) n",
        );
        world.entities(&["last"]).await;
        let page = world.events(json!({"page_size": 10, "subject": "last"})).await.unwrap();
        assert_eq!((page.get("events"), page.get("caught_up")), (&json!([]), &json!(false)), "a page may be empty before the end");
        assert_eq!(reported(&world.all_events(json!({"subject": "last"}), 10).await), ["entity.created last"]);
        assert_eq!(world.all_events(json!({}), 999).await.len(), 12_002);
    }

    async fn a_realm_sees_its_own_events_alone(world: &World) {
        world.portfolios(&["p"]).await;
        for (org, mode) in [("umbrella", "test"), ("acme", "live")] {
            let other = world.client(org, mode, SCOPES);
            let page = other.call("EventService/ListEvents", json!({})).await.unwrap();
            assert_eq!((page.get("events"), page.get("caught_up")), (&json!([]), &json!(true)), "{org} {mode}");
        }
    }

    async fn a_lister_misses_nothing_that_commits_out_of_order(world: &World) {
        let (mut early, mut late) = (world.database.connection(), world.database.connection());
        early.batch_execute("BEGIN").unwrap();
        early.batch_execute(&insert("early")).unwrap();
        late.batch_execute(&insert("late")).unwrap();
        let first = world.events(json!({})).await.unwrap();
        assert_eq!(reported(first.get("events").as_array().unwrap()), ["entity.created late"]);
        early.batch_execute("COMMIT").unwrap();
        let second = world.all_events(json!({"page_token": first.get("next_page_token")}), 10).await;
        assert_eq!(reported(&second), ["entity.created early"]);
    }
}

#[tokio::test]
async fn events_that_are_older_than_they_are_kept_are_dropped() {
    let database = database().await;
    // A week of a long time ago, one whose last events are still kept, and what came when there was no partition.
    let kept = database.text("SELECT to_char(date_trunc('week', (now() - interval '30 days') AT TIME ZONE 'UTC'), 'YYYYMMDD')").unwrap();
    database.sql(&format!(
        "SET TIME ZONE 'UTC';
         CREATE TABLE event_20200106 PARTITION OF event FOR VALUES FROM ('2020-01-06 00:00+00') TO ('2020-01-13 00:00+00');
         CREATE TABLE event_{kept} PARTITION OF event FOR VALUES FROM (to_date('{kept}', 'YYYYMMDD')) TO (to_date('{kept}', 'YYYYMMDD') + 7);
         INSERT INTO event (realm_id, type, subjects, principal_id, occurred_at)
         SELECT 1, 'entity.created', ARRAY['e'], gen_random_uuid(), at
         FROM (SELECT timestamptz '2020-01-07' UNION ALL SELECT to_date('{kept}', 'YYYYMMDD')
               UNION ALL SELECT now() - interval '1000 days' FROM generate_series(1, 6000)
               UNION ALL SELECT now() - interval '29 days' UNION ALL SELECT now()) AS events(at)"
    ));
    assert_eq!(database.rows("event_default"), 6000 + i64::from(!is_in(&database, &kept)));
    let server = Server::start(&database).await;
    until("what is old is deleted", || {
        database.events_older_than_days(40) == 0 && !database.has_table("event_20200106")
    })
    .await;
    assert_eq!(database.rows("event"), 3);
    assert!(database.has_table(&format!("event_{kept}")), "some of its events are kept");
    drop(server);
}

/// Returns whether 29 days ago was in this week.
fn is_in(database: &Database, week: &str) -> bool {
    database.count(&format!("SELECT (now() - interval '29 days' < (to_date('{week}', 'YYYYMMDD') + 7)::timestamp AT TIME ZONE 'UTC')::int"))
        == 1
}
