//! Values of a filter that are compared otherwise than they look: they are reported wherever a filter is read, and prevent the start of a
//! hard delete.

use crate::given::{Account, Many, text};
use crate::kit::*;

const START: &str = "BulkDeleteService/StartBulkDelete";

/// The date that was meant by a year, and a number that is written as a text.
const YEAR: &str = "exists(uri) and not lt(attributes.Closed, 2015)";
const FORM: &str = "gt(attributes.Staff, '1,000')";

fn suspect(warnings: &Value) -> Vec<String> {
    let own = |warning: &&Value| warning["code"] == "suspect_value";
    warnings
        .as_array()
        .unwrap()
        .iter()
        .filter(own)
        .map(|warning| text(&warning["message"]))
        .collect()
}

impl World {
    /// Three that say when they were closed, and how many work there.
    async fn given_closed(&self) {
        for (name, closed, staff) in [
            ("a", json!("2014-05-01"), json!(5)),
            ("b", json!(["2016-01-01"]), json!(2_000)),
            ("c", json!(null), json!("50")),
        ] {
            self.given_entity(name, json!({"attributes": {"Closed": closed, "Staff": staff}}))
                .await;
        }
    }
}

/// Without workers, so that nothing goes between the previews.
async fn refused_by(protocol: Protocol) {
    let world = World::start_with(protocol, &["--roles", "grpc,gateway"]).await;
    world.given_closed().await;
    for (filter, members, reported) in [
        (
            YEAR,
            [
                json!(["lt(attributes.Closed, '2015')"]),
                json!(["attributes.Closed"]),
                json!(["2015-01-01"]),
            ],
            "no entity has a number at `attributes.Closed`, so `lt(attributes.Closed, '2015')` is true for none, and excludes nothing; a date is written as `2015-01-01`",
        ),
        (
            "gt(attributes.Staff, '2015-01-01')",
            [json!(["gt(attributes.Staff, '2015-01-01')"]), json!(["attributes.Staff"]), json!([])],
            "no entity has a date at `attributes.Staff`, so `gt(attributes.Staff, '2015-01-01')` is true for none",
        ),
        (
            FORM,
            [json!(["1,000"]), json!(["attributes.Staff"]), json!(["1000"])],
            "`1,000` is compared with `attributes.Staff` as a text; a number is written as `1000`",
        ),
    ] {
        let request = |more: Value| {
            let mut request = json!({"mode": "hard", "spec": {"objects": {"filter": filter}}});
            request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            request
        };
        let refusal = world.refused(START, request(json!({}))).await;
        assert_eq!(
            (refusal.code.as_str(), refusal.http.unwrap_or(400)),
            ("suspect_value", 400),
            "{filter}: {refusal:#?}"
        );
        assert_eq!(
            ["values", "attributes", "meant"].map(|name| refusal
                .members
                .get(name)
                .cloned()
                .unwrap_or(json!([]))),
            members,
            "{filter}"
        );
        assert!(refusal.message.contains(reported), "{filter}: {}", refusal.message);
        assert_eq!((refusal.faults.len(), refusal.faults[0].code.as_str()), (1, "suspect_value"));
        // A caller who only reads, or keeps the data, is warned.
        let looked = world.done(START, request(json!({"dry_run": true}))).await;
        assert_eq!(suspect(looked.get("preview.warnings")), [reported], "{filter}");
        let soft = world.done(START, request(json!({"mode": "soft"}))).await;
        assert_eq!(suspect(soft.get("warnings")), [reported], "{filter}");
    }
}

#[tokio::test]
async fn by_grpc_a_hard_delete_that_compares_otherwise_than_it_looks_is_refused() {
    refused_by(Protocol::Grpc).await;
}

#[tokio::test]
async fn by_rest_a_hard_delete_that_compares_otherwise_than_it_looks_is_refused() {
    refused_by(Protocol::Rest).await;
}

scenario! {
    async fn who_means_it_says_so(world: &World) {
        world.given_closed().await;
        let by_request = json!({"mode": "hard", "spec": {"objects": {"filter": FORM}}, "allow_suspect_values": true});
        let done = world.bulk_delete(by_request).await;
        assert_eq!((Account::of(&done).processed, done.get("parameters.allowSuspectValues")), (3, &json!("true")));
        world.given_closed().await;
        let by_body = json!({"mode": "hard", "spec": {"objects": {"filter": YEAR}, "allow_suspect_values": true}});
        assert_eq!(Account::of(&world.bulk_delete(by_body).await).processed, 3);
        let both = json!({"mode": "hard", "spec": {"objects": {"filter": YEAR}, "allow_suspect_values": true}, "allow_suspect_values": false});
        assert_eq!(world.refused(START, both).await.code, "validation_failed");
    }

    /// Nothing that can be compared with a number, a date or a text: what denies it would exclude nobody.
    async fn what_is_there_and_empty_can_be_compared_with_nothing(world: &World) {
        for (name, empty) in [("a", json!(null)), ("b", json!([])), ("c", json!({})), ("d", json!([null]))] {
            world.given_entity(name, json!({"type": "sus", "attributes": {"Nul": empty, "Nest": {"Nul": empty}, "Deep": [{"Nul": empty}]}})).await;
        }
        for path in ["Nul", "Nest.Nul", "Deep.Nul"] {
            for value in ["5", "'2015-01-01'", "Bonn"] {
                let condition = format!("not lt(attributes.{path}, {value})");
                let objects = json!({"filter": format!("equals(type, sus) and {condition}")});
                let looked = world.done(START, json!({"mode": "hard", "spec": {"objects": objects}, "dry_run": true})).await;
                let reported = suspect(looked.get("preview.warnings"));
                assert!(matches!(reported.as_slice(), [reported] if reported.ends_with("and excludes nothing")), "{condition}: {reported:?}");
                let refusal = world.refused(START, json!({"mode": "hard", "spec": {"objects": objects}})).await;
                assert_eq!(refusal.code, "suspect_value", "{condition}");
            }
        }
        assert_eq!(world.database.entities_not_deleted(), 4);
    }

    async fn what_is_written_as_numbers_and_dates_are_elsewhere_is_suspect(world: &World) {
        world.given_closed().await;
        for value in ["１０００", "−5", "٥", "NaN", "1k", "1000 EUR", "15-01-01", "-P1D"] {
            let objects = json!({"filter": format!("exists(uri) and not gt(attributes.Staff, '{value}')")});
            let refusal = world.refused(START, json!({"mode": "hard", "spec": {"objects": objects}})).await;
            assert_eq!((refusal.code.as_str(), &refusal.members["values"]), ("suspect_value", &json!([value])), "{value}");
        }
    }

    /// A value that some can be compared with is not suspect, nor is one that nobody has or another type has.
    async fn what_can_be_compared_is_not_suspect(world: &World) {
        world.given_closed().await;
        world.given_entity("other", json!({"type": "HCO", "attributes": {"Closed": 2016, "Beds": "many"}})).await;
        for (objects, reported) in [
            (json!({"filter": "lt(attributes.Closed, 2015)"}), 0),
            (json!({"filter": "lt(attributes.Closed, '2015-01-01') and not range(attributes.Staff, 1, 10)"}), 0),
            (json!({"filter": "gt(attributes.Beds, a)"}), 0),
            (json!({"filter": "lt(attributes.Closed, 2015)", "entity_type": "HCP"}), 1),
            (json!({"filter": "equals(type, HCP) and lt(attributes.Closed, 2015)"}), 1),
            (json!({"filter": "inSameAttributeValue(gt(attributes.Nobody.Has, 5))"}), 0),
        ] {
            let looked = world.done(START, json!({"mode": "hard", "spec": {"objects": objects}, "dry_run": true})).await;
            assert_eq!(suspect(looked.get("preview.warnings")).len(), reported, "{objects}");
        }
        let listed = async |filter: &str| suspect(world.done("EntityService/ListEntities", json!({"filter": filter})).await.get("warnings"));
        assert_eq!(listed("not gt(attributes.Beds, 3)").await.len(), 1, "what is denied");
        assert_eq!(listed("gt(attributes.Beds, 3)").await.len(), 1, "an empty page");
        assert!(listed("gt(attributes.Beds, 3) or exists(uri)").await.is_empty());
        // Whoever may not read entities is not reported what they have, but for what the filter itself shows.
        let blind = world.client("acme", "test", &["entities:delete", "entities:delete_hard"]);
        let soft = |filter: &str| json!({"spec": {"objects": {"filter": filter}}, "max_objects_per_second": 1});
        assert!(suspect(blind.call(START, soft("gt(attributes.Beds, 3)")).await.unwrap().get("warnings")).is_empty());
        assert_eq!(suspect(blind.call(START, soft("gt(attributes.Beds, '1,000')")).await.unwrap().get("warnings")).len(), 1);
    }

    /// The first thousands are taken as typical of the others.
    async fn in_a_large_realm_it_is_a_refusal_too(world: &World) {
        world.database.given_many(Many { prefix: "e", count: 15_000, dependents: 0, portfolio: None });
        world.database.sql(r#"UPDATE entity SET attributes = '{"Closed": "2014-05-01"}'"#);
        let request = json!({"mode": "hard", "spec": {"objects": {"filter": "lt(attributes.Closed, 2015)"}}});
        for _ in 0..3 {
            let refusal = world.refused(START, request.clone()).await;
            assert_eq!(refusal.code, "suspect_value");
            assert!(refusal.message.contains("none of the first 14,600 entities has a number"), "{}", refusal.message);
        }
        assert_eq!(world.database.rows("bulk_delete"), 0);
    }
}
