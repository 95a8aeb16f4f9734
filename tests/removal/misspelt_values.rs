//! Values in a filter that no entity has: a negated condition on one excludes nothing. They are reported, and states that do not exist are
//! refused.

use crate::given::{Account, Many, id, text};
use crate::kit::*;

const START: &str = "BulkDeleteService/StartBulkDelete";

fn warned(warnings: &Value) -> Vec<String> {
    let is_of_values = |warning: &&Value| {
        ["unknown_value", "suspect_value"].iter().any(|code| warning["code"] == *code)
    };
    warnings
        .as_array()
        .unwrap()
        .iter()
        .filter(is_of_values)
        .map(|warning| text(&warning["message"]))
        .collect()
}

impl World {
    /// Some entities of two types, in two portfolios.
    async fn given_registry(&self) {
        for portfolio in ["fund-i", "Bridge"] {
            self.given_portfolio(portfolio).await;
        }
        for (name, kind, portfolio, registry) in [
            ("a", "company", "fund-i", "pypi"),
            ("b", "company", "fund-i", "npm"),
            ("C", "person", "Bridge", "npm"),
        ] {
            let attributes = json!({"registry": registry, "Tags": [{"Name": registry}]});
            self.given_entity(
                name,
                json!({"type": kind, "portfolio_id": portfolio, "attributes": attributes}),
            )
            .await;
        }
    }

    /// The warnings of a dry run, a task and two lists, which are the same.
    async fn warned_everywhere(&self, filter: &str) -> Vec<String> {
        let spec = json!({"objects": {"filter": filter}});
        let previewed =
            self.done(START, json!({"mode": "soft", "spec": spec, "dry_run": true})).await;
        let reported = warned(previewed.get("preview.warnings"));
        let listed = self.done("EntityService/ListEntities", json!({"filter": filter})).await;
        assert_eq!(warned(listed.get("warnings")), reported, "{filter}");
        let members = self
            .done(
                "PortfolioService/ListPortfolioEntities",
                json!({"portfolio_id": "fund-i", "filter": filter}),
            )
            .await;
        assert_eq!(warned(members.get("warnings")), reported, "{filter}");
        // It waits: this replica has no workers.
        let task = self.done(START, json!({"mode": "soft", "spec": spec})).await;
        assert_eq!(warned(task.get("warnings")), reported, "{filter}");
        let later = self.done("BulkDeleteService/GetTask", json!({"task_id": id(&task)})).await;
        assert_eq!(later.get("warnings"), &json!([]), "{filter}: in the answer to the start alone");
        reported
    }
}

/// One world for all filters, without workers, so that nothing goes between the previews.
async fn reported_by(protocol: Protocol) {
    let world = World::start_with(protocol, &["--roles", "grpc,gateway"]).await;
    world.given_registry().await;
    for (filter, reported) in [
        (
            "exists(uri) and not equals(type, compny)",
            Some(
                "no entity has the type `compny`, so it excludes nothing; did you mean `company`?",
            ),
        ),
        (
            "not in(type, 'company, persn')",
            Some("no entity has the type `persn`, so it excludes nothing; did you mean `person`?"),
        ),
        (
            "not (equals(attributes.registry, npm) or equals(portfolioId, fund-j))",
            Some("there is no portfolio `fund-j`, so it excludes nothing; did you mean `fund-i`?"),
        ),
        (
            "not equals(attributes.registry, 'pypii')",
            Some("no entity has `pypii` at `attributes.registry`, so it excludes nothing"),
        ),
        (
            "not inSameAttributeValue(equals(attributes.Tags.Name, x))",
            Some("no entity has `x` at `attributes.Tags.Name`, so it excludes nothing"),
        ),
        (
            "not listEquals(uri, entities/a, nobody)",
            Some("there is no entity `nobody`, so it excludes nothing"),
        ),
        (
            "not startsWith(attributes.registry, pypii)",
            Some(
                "no entity meets `startsWith(attributes.registry, 'pypii')`, so it excludes nothing",
            ),
        ),
        (
            "not contains(type, 'compny')",
            Some(
                "no entity meets `contains(type, 'compny')`, so it excludes nothing; did you mean `company`?",
            ),
        ),
        (
            "not startsWith(uri, 'entities/x')",
            Some("no entity meets `startsWith(uri, 'entities/x')`, so it excludes nothing"),
        ),
        (
            "not regexp(portfolio, 'fond-.')",
            Some("no entity meets `regexp(portfolio, 'fond-.')`, so it excludes nothing"),
        ),
        (
            "gt(attributes.registry, '1,000')",
            Some(
                "`1,000` is compared with `attributes.registry` as a text; a number is written as `1000`; entities have texts such as `npm` there",
            ),
        ),
        (
            "not lt(attributes.registry, '2015/01/01')",
            Some(
                "`2015/01/01` is compared with `attributes.registry` as a text; entities have texts such as `npm` there",
            ),
        ),
        (
            "not (startsWith(type, COMP) or contains(portfolio, 'UND') or regexp(uri, 'entities/.') or fullText(attributes, npm))",
            None,
        ),
        ("range(attributes.registry, a, z) or gt(attributes.registry, o)", None),
        (
            "not gte(attributes.registry, 1000)",
            Some(
                "no entity has a number at `attributes.registry`, so `gte(attributes.registry, '1000')` is true for none, and excludes nothing; they have texts such as `npm` there",
            ),
        ),
        ("equals(type, compny)", Some("no entity has the type `compny`; did you mean `company`?")),
        ("exists(uri) and not not equals(attributes.registry, pypii)", None),
        (
            "not in(type, 'COMPANY, person') and not in(portfolio, FUND-I, bridge) and not in(uri, 'A,entities/c')",
            None,
        ),
        (
            "not in(attributes.registry, 'PyPI, npm') and not equalsCaseSensitive(attributes.registry, pypi)",
            None,
        ),
        ("equals(attributes.registry, pypii)", None),
    ] {
        let reported: Vec<String> = reported.into_iter().map(str::to_owned).collect();
        assert_eq!(world.warned_everywhere(filter).await, reported, "{filter}");
    }
}

#[tokio::test]
async fn by_grpc_a_value_of_nothing_is_reported_wherever_a_filter_is_read() {
    reported_by(Protocol::Grpc).await;
}

#[tokio::test]
async fn by_rest_a_value_of_nothing_is_reported_wherever_a_filter_is_read() {
    reported_by(Protocol::Rest).await;
}

scenario! {
    /// Nothing can be misspelt where there is nothing.
    async fn an_empty_realm_knows_no_misspelt_values(world: &World) {
        let done = world.bulk_delete(json!({"spec": {"objects": {"filter": "not equals(type, compny) and not equals(portfolio, p)"}}})).await;
        assert_eq!(Account::of(&done), Account::default());
        let listed = world.done("EntityService/ListEntities", json!({"filter": "not equals(type, compny)"})).await;
        assert_eq!(listed.get("warnings"), &json!([]));
    }

    async fn a_type_of_nothing_is_reported_and_starts(world: &World) {
        world.given_registry().await;
        let request = |entity_type: &str| json!({"mode": "hard", "spec": {"objects": {"entity_type": entity_type}}});
        let mut dry = request("compny");
        dry["dry_run"] = json!(true);
        let reported = ["no entity has the type `compny`; did you mean `company`?"];
        let previewed = world.done(START, dry).await;
        assert_eq!((warned(previewed.get("preview.warnings")), previewed.get("preview.matched_count")), (reported.map(str::to_owned).to_vec(), &json!(0)));
        let task = world.done(START, request("compny")).await;
        assert_eq!(warned(task.get("warnings")), reported);
        assert_eq!(Account::of(&world.task_ended(&id(&task)).await), Account::default());
        assert!(warned(world.done(START, request("person")).await.get("warnings")).is_empty());
        // Whoever may not read entities learns nothing of them.
        let blind = world.client("acme", "test", &["entities:delete", "entities:delete_hard"]);
        assert_eq!(blind.call(START, request("compny")).await.unwrap().get("warnings"), &json!([]));
    }

    /// An index knows of values that no search along the keys would meet.
    async fn in_a_large_realm_an_index_knows_of_values_and_a_like_type_is_reported(world: &World) {
        world.database.given_many(Many { prefix: "e", count: 30_000, dependents: 0, portfolio: None });
        let warnings_of = async |filter: &str| {
            let listed = world.done("EntityService/ListEntities", json!({"filter": filter, "page_size": 1})).await;
            warned(listed.get("warnings"))
        };
        assert!(warnings_of("not equals(attributes.n, nobody)").await.is_empty(), "not all was read");
        let [reported] = warnings_of("not equals(type, HCPP)").await.try_into().expect("one warning");
        // How far a search goes is a matter of how fast it goes.
        assert!(reported.starts_with("none of the first ") && reported.ends_with(" entities has the type `HCPP`, so it may exclude nothing; did you mean `HCP`?"), "{reported}");
        assert!(warnings_of("not equals(type, elsewhere)").await.is_empty());
        world.done("AttributeIndexService/CreateAttributeIndex", json!({"attribute": "n"})).await;
        world.call_until("AttributeIndexService/GetAttributeIndex", json!({"attribute": "n"}), |index| index["state"] == "ready").await;
        assert_eq!(warnings_of("not in(attributes.n, 30000, 30001, x)").await, ["no entity has `30001` at `attributes.n`, so it excludes nothing", "no entity has `x` at `attributes.n`, so it excludes nothing"]);
    }

    async fn a_state_that_there_is_not_is_refused_wherever_a_filter_is_read(world: &World) {
        world.given_registry().await;
        for (list, property, wrong, meant) in [
            ("EntityService/ListEntities", "state", "actve", "active"),
            ("OffboardingService/ListOffboardingRequests", "status", "Cancelled", "canceled"),
            ("RemovalService/ListRemovalJobs", "status", "pendin", "pending"),
            ("BulkDeleteService/ListTasks", "status", "COMPLETE", "completed"),
            ("BulkDeleteService/ListTasks", "mode", "hardd", "hard"),
            ("EntityService/ListTombstones", "jobKind", "bulkdelete", "bulk_delete"),
            ("AttributeIndexService/ListAttributeIndexes", "state", "redy", "ready"),
        ] {
            let refusal = world.refused(list, json!({"filter": format!("not equals({property}, {wrong})")})).await;
            assert_eq!(refusal.code, "invalid_filter", "{list}: {refusal:#?}");
            assert!(refusal.message.contains(&format!("is never `{wrong}`; did you mean `{meant}`?")), "{list}: {}", refusal.message);
            world.done(list, json!({"filter": format!("not in({property}, {}, {meant})", meant.to_uppercase())})).await;
        }
        for filter in ["not equals(state, actve)", "equals(state, actve)"] {
            let refusal = world.refused(START, json!({"spec": {"objects": {"filter": filter}}, "dry_run": true})).await;
            assert_eq!((refusal.code.as_str(), &refusal.members["expected"]), ("invalid_filter", &json!(["`onboarding`", "`active`", "`offboarding`"])));
        }
    }

    async fn a_number_that_counts_no_milliseconds_is_no_time(world: &World) {
        world.given_registry().await;
        for (filter, reported) in [
            ("gt(createdTime, 2026)", "the year is written as `2026-01-01`"),
            ("lt(updatedTime, 1767225600)", "as seconds it would be `2026-01-01T00:00:00Z` or `1767225600000`"),
            ("range(createdTime, 0, 1767225600)", "as seconds it would be `2026-01-01T00:00:00Z`"),
            ("lt(createdTime, '1767225600000000')", "as microseconds it would be `2026-01-01T00:00:00Z`"),
        ] {
            let by_task = world.refused(START, json!({"spec": {"objects": {"filter": filter}}, "dry_run": true})).await;
            let by_list = world.refused("EntityService/ListEntities", json!({"filter": filter})).await;
            for refusal in [by_task, by_list] {
                assert_eq!(refusal.code, "invalid_filter", "{filter}: {refusal:#?}");
                assert!(refusal.message.contains(reported), "{filter}: {}", refusal.message);
            }
        }
        for filter in ["gt(createdTime, 0)", "gt(createdTime, 1767225600000)", "gte(createdTime, '2026-01-01') and exists(uri)"] {
            world.done("EntityService/ListEntities", json!({"filter": filter})).await;
        }
    }

    async fn what_is_excluded_and_not_selected_anyway_is_reported(world: &World) {
        world.given_registry().await;
        let objects = [
            (json!({"filter": "equals(attributes.registry, npm)", "exclude_list": ["a", "b"]}), json!(["a"])),
            (json!({"entity_type": "person", "exclude_list": ["a", "entities/b"]}), json!(["a", "b"])),
            (json!({"uri_list": ["a", "C"], "exclude_list": ["b", "C"]}), json!(["b"])),
            (json!({"filter": "exists(uri)", "exclude_list": ["a", "C"]}), json!([])),
        ];
        for (objects, unselected) in objects {
            let count = json!(unselected.as_array().unwrap().len());
            let spec = json!({"objects": objects});
            let previewed = world.done(START, json!({"spec": spec, "dry_run": true})).await;
            let preview = (previewed.get("preview.unselected_excluded_count"), previewed.get("preview.unselected_excluded"));
            assert_eq!(preview, (&count, &unselected), "{spec}");
            // A warning is not a fault, and prevents no start.
            let task = world.done(START, json!({"mode": "hard", "spec": spec, "max_objects_per_second": 1})).await;
            assert_eq!((task.get("lists.unselected_excluded_count"), task.get("lists.unselected_excluded")), (&count, &unselected), "{spec}");
            world.done("BulkDeleteService/StopTask", json!({"task_id": id(&task)})).await;
            world.task_ended(&id(&task)).await;
            world.database.sql("DELETE FROM dependent; DELETE FROM entity; UPDATE portfolio SET entity_count = 0");
            for (name, kind, registry) in [("a", "company", "pypi"), ("b", "company", "npm"), ("C", "person", "npm")] {
                world.given_entity(name, json!({"type": kind, "attributes": {"registry": registry}})).await;
            }
        }
    }
}
