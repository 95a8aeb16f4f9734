//! Filters that name attributes which no entity has: misspelt, as a rule. None of them starts a task unless it is said to.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};

use crate::given::{Account, Many, id, text};
use crate::kit::*;

const START: &str = "BulkDeleteService/StartBulkDelete";

/// Every function with what stands behind its path.
const CALLS: &[(&str, &str)] = &[
    ("equals", ", x"),
    ("equalsCaseSensitive", ", x"),
    ("startsWith", ", x"),
    ("containsWordStartingWith", ", x"),
    ("fullText", ", x"),
    ("contains", ", x"),
    ("regexp", ", 'x.*'"),
    ("in", ", 'x,y'"),
    ("listEquals", ", x, y"),
    ("listEqualsCaseSensitive", ", x, y"),
    ("range", ", 1, 2"),
    ("gt", ", 1"),
    ("gte", ", 1"),
    ("lt", ", 1"),
    ("lte", ", 1"),
    ("exists", ""),
    ("missing", ""),
];

/// Where a condition may stand.
const POSITIONS: &[&str] = &[
    "{}",
    "not {}",
    "{} and exists(attributes.Registry)",
    "exists(attributes.Registry) and not {}",
    "equals(type, HCP) and {}",
    "missing(attributes.Registry) or {}",
    "exists(uri) and (exists(attributes.Registry) or not {})",
    "not (not ({} or missing(portfolio)))",
];

/// The attributes of the entities, as filters write them.
const ATTRIBUTES: &[&[&str]] = &[
    &["LastName"],
    &["Registry"],
    &["Rank"],
    &["Address", "City"],
    &["Address", "Postcode"],
    &["First name"],
    &["Levels", "Deep", "Deeper"],
];

fn given(world: &World) {
    world.database.given_many(Many { prefix: "e", count: 12, dependents: 0, portfolio: None });
    world.database.sql(
        r#"UPDATE entity SET attributes = '{"LastName": "Ives", "Registry": "pypi", "Rank": 3, "Address": [{"City": "Bonn", "Postcode": "1"}], "First name": "Ada",
           "Levels": {"Deep": [[{"Deeper": null}]]}}'"#,
    );
}

/// A name with one slip of the fingers, of a kind and at a place that the number says, or with a blank that is too many.
fn slip(name: &str, n: usize) -> String {
    match n % 23 {
        20 => return format!("{name} "),
        21 => return format!(" {name}"),
        22 => return format!("{} {}", &name[..2], &name[2..]),
        _ => {}
    }
    let mut letters: Vec<char> = name.chars().collect();
    let at = 1 + (n / 5) % (letters.len() - 2);
    match n % 5 {
        0 => letters.swap(at, at + 1),
        1 => drop(letters.remove(at)),
        2 => letters.insert(at, 'q'),
        3 => letters[at] = 'q',
        _ => {
            letters[0] = if letters[0].is_uppercase() {
                letters[0].to_ascii_lowercase()
            } else {
                letters[0].to_ascii_uppercase()
            }
        }
    }
    letters.into_iter().collect()
}

fn path(names: &[String]) -> String {
    let quoted =
        |name: &String| if name.contains(' ') { format!("'{name}'") } else { name.clone() };
    names.iter().map(quoted).collect::<Vec<_>>().join(".")
}

/// The filter of a number, and the attribute that it means.
fn filter(n: usize) -> (String, String) {
    let meant: Vec<String> =
        ATTRIBUTES[n % ATTRIBUTES.len()].iter().map(|name| (*name).to_owned()).collect();
    let mut names = meant.clone();
    let wrong = (n / 3) % names.len();
    for more in 0.. {
        names[wrong] = slip(&meant[wrong], n / 7 + more);
        if names != meant {
            break;
        }
    }
    let (function, values) = CALLS[n % CALLS.len()];
    // A count takes numbers alone.
    let counted = matches!(function, "gt" | "lte" | "range") && n.is_multiple_of(2);
    let call = format!(
        "{function}(attributes.{}{}{values})",
        path(&names),
        if counted { ".count" } else { "" }
    );
    let call = if names.len() > 1 && n.is_multiple_of(11) {
        format!(
            "inSameAttributeValue({call} or exists(attributes.{}))",
            path(&[&names[..names.len() - 1], &["City".to_owned()]].concat())
        )
    } else {
        call
    };
    (POSITIONS[(n / 2) % POSITIONS.len()].replacen("{}", &call, 1), path(&meant))
}

/// The whole of what is refused: every function, every position, every slip.
#[tokio::test]
async fn a_thousand_slips_start_nothing_and_each_is_reported_what_was_meant() {
    let world = World::start(Protocol::Rest).await;
    given(&world);
    let known: BTreeSet<_> = CALLS.iter().map(|(name, _)| *name).collect();
    let functions: BTreeSet<_> =
        offboard::filter::FUNCTIONS.iter().map(|function| function.name).collect();
    assert_eq!(functions.difference(&known).copied().collect::<Vec<_>>(), ["inSameAttributeValue"]);
    let mut met = BTreeSet::new();
    let filters: Vec<_> = (0..1_000).map(filter).collect();
    met.extend(filters.iter().map(|(text, _)| text.clone()));
    assert!(met.len() > 900, "only {} differ", met.len());
    let mut refusals = stream::iter(filters)
        .map(|(text, meant)| {
            let world = &world;
            async move {
                let request = json!({"mode": "hard", "spec": {"objects": {"filter": text}}});
                (world.call(START, request).await, text, meant)
            }
        })
        .buffer_unordered(4);
    while let Some((answer, text, meant)) = refusals.next().await {
        let refusal = answer.expect_err(&text);
        assert_eq!(
            (refusal.code.as_str(), refusal.http),
            ("unknown_attribute", Some(400)),
            "{text}: {refusal:#?}"
        );
        let nearest = refusal.members["nearest"].as_array().unwrap();
        assert!(nearest.contains(&json!(meant)), "{text} means {meant}: {nearest:?}");
        assert!(refusal.message.contains(&format!("`{meant}`")), "{text}: {}", refusal.message);
    }
    assert_eq!(
        (
            world.database.rows("bulk_delete"),
            world.database.rows("entity WHERE deleted_at IS NULL")
        ),
        (0, 12)
    );
}

scenario! {
    async fn every_unknown_attribute_is_refused_by_name_unless_it_is_allowed(world: &World) {
        given(world);
        let filter = json!({"objects": {"filter": "missing(attributes.Naem) and not equals(attributes.Registy, pypi)"}});
        for mode in ["soft", "hard"] {
            let refusal = world.call(START, json!({"mode": mode, "spec": filter})).await.unwrap_err();
            assert_eq!((refusal.code.as_str(), refusal.http.unwrap_or(400)), ("unknown_attribute", 400));
            assert_eq!((&refusal.members["attributes"], &refusal.members["nearest"]), (&json!(["Naem", "Registy"]), &json!(["Registry"])));
            let places: BTreeSet<_> = refusal.faults.iter().map(|fault| fault.field.trim_start_matches("spec.")).collect();
            assert_eq!((refusal.faults.len(), places), (2, BTreeSet::from(["objects.filter"])));
        }
        assert_eq!(world.database.rows("bulk_delete"), 0);
        // A dry run reports what a task would do, and warns.
        let looked = world.done(START, json!({"mode": "hard", "spec": filter, "dry_run": true})).await;
        assert_eq!(looked.get("preview.matched_count"), 12);
        let warned: Vec<_> = looked.get("preview.warnings").as_array().unwrap().iter().map(|warning| text(&warning["message"])).collect();
        assert_eq!(warned, ["no entity has the attribute `Naem`", "no entity has the attribute `Registy`; did you mean `Registry`?"]);
        // A caller who means it says so, beside the body or in it.
        let mut in_body = filter.clone();
        in_body["allow_unknown_attributes"] = json!(true);
        let started = world.done(START, json!({"mode": "soft", "spec": in_body, "expected_count": 12})).await;
        assert_eq!(started.get("parameters.allowUnknownAttributes"), "true");
        assert_eq!(Account::of(&world.task_ended(&id(&started)).await).processed, 12);
        // What is soft-deleted counts, and nobody is shown its names.
        for mode in ["soft", "hard"] {
            let refusal = world.refused(START, json!({"mode": mode, "spec": filter})).await;
            assert_eq!((refusal.code.as_str(), refusal.members.get("nearest")), ("unknown_attribute", None));
        }
        let again = world.bulk_delete(json!({"mode": "hard", "spec": filter, "allow_unknown_attributes": true})).await;
        assert_eq!(Account::of(&again).processed, 12);
    }

    async fn a_name_that_few_have_is_found_behind_many_that_have_others(world: &World) {
        world.database.given_many(Many { prefix: "a", count: 300, dependents: 0, portfolio: None });
        world.given_entity("z", json!({"type": "HCP", "attributes": {"LastName": "Ives", "Large": [1e300]}})).await;
        world.database.sql("UPDATE entity SET attributes = jsonb_set(attributes, '{Large}', '1e400') WHERE id = 'z'");
        let spec = json!({"objects": {"filter": "missing(attributes.LastNmae)"}});
        let refusal = world.refused(START, json!({"mode": "hard", "spec": spec})).await;
        assert_eq!((refusal.code.as_str(), &refusal.members["nearest"]), ("unknown_attribute", &json!(["LastName"])));
        let looked = world.done(START, json!({"mode": "hard", "spec": spec, "dry_run": true})).await;
        assert!(text(&looked.get("preview.warnings")[0]["message"]).contains("`LastName`"));
    }

    /// Attributes of other types alone are not those of the type.
    async fn an_attribute_counts_for_the_type_that_is_deleted(world: &World) {
        given(world);
        world.given_entity("other", json!({"type": "HCO", "attributes": {"Beds": 3}})).await;
        for objects in [
            json!({"filter": "missing(attributes.Beds)", "entity_type": "HCP"}),
            json!({"filter": "equals(type, HCP) and missing(attributes.Beds)"}),
            json!({"filter": "missing(attributes.Beds) and in(type, 'HCP,configuration/entityTypes/HCP')"}),
        ] {
            assert_eq!(world.refused(START, json!({"spec": {"objects": objects}})).await.code, "unknown_attribute", "{objects}");
        }
        for objects in [
            json!({"filter": "missing(attributes.Beds)"}),
            json!({"filter": "missing(attributes.Beds)", "entity_type": "HCO"}),
            json!({"filter": "equals(type, HCP) or missing(attributes.Beds)"}),
        ] {
            world.done(START, json!({"spec": {"objects": objects}, "max_objects": 100})).await;
        }
    }

    /// Nothing can be misspelt where there is nothing, nor erased.
    async fn an_empty_realm_and_a_type_without_entities_take_every_filter(world: &World) {
        let filter = json!({"objects": {"filter": "not equals(attributes.Any, x)"}});
        assert_eq!(Account::of(&world.bulk_delete(json!({"mode": "hard", "spec": filter})).await), Account::default());
        given(world);
        let of_type = json!({"objects": {"filter": "not equals(attributes.Any, x)", "entity_type": "Nothing"}});
        assert_eq!(Account::of(&world.bulk_delete(json!({"mode": "hard", "spec": of_type})).await), Account::default());
    }

    /// One that few have, behind many others, is an attribute like any; as is one that is empty, or was soft-deleted.
    async fn a_rare_attribute_is_known(world: &World) {
        world.database.given_many(Many { prefix: "e", count: 2_500, dependents: 0, portfolio: None });
        world.database.sql(r#"UPDATE entity SET attributes = attributes || '{"Rare": null, "Nested": {"Rarer": [[{"Rarest": ""}]]}}' WHERE id = 'e-002500'"#);
        for filter in ["exists(attributes.Rare)", "exists(attributes.Nested.Rarer.Rarest)"] {
            let done = world.bulk_delete(json!({"spec": {"objects": {"filter": filter}}})).await;
            assert_eq!(Account::of(&done), Account::default(), "{filter}");
        }
        assert_eq!(world.refused(START, json!({"spec": {"objects": {"filter": "exists(attributes.Nested.Rare)"}}})).await.code, "unknown_attribute");
        world.database.sql("UPDATE entity SET deleted_at = now(), deleted_by = gen_random_uuid() WHERE id = 'e-002500'");
        world.done(START, json!({"mode": "hard", "spec": {"objects": {"filter": "exists(attributes.Rare)"}}})).await;
    }

    async fn a_list_warns_of_what_no_entity_has(world: &World) {
        given(world);
        let warned = async |filter: &str| {
            let page = world.done("EntityService/ListEntities", json!({"filter": filter})).await;
            page.get("warnings").as_array().unwrap().iter().map(|warning| text(&warning["message"])).collect::<Vec<_>>()
        };
        assert_eq!(warned("missing(attributes.Registy)").await, ["no entity has the attribute `Registy`; did you mean `Registry`?"]);
        assert!(warned("missing(attributes.Registry)").await.is_empty() && warned("exists(uri)").await.is_empty());
        world.given_portfolio("p").await;
        let page = world.done("PortfolioService/ListPortfolioEntities", json!({"portfolio_id": "p", "filter": "exists(attributes.Rnak)"})).await;
        assert_eq!(page.get("warnings").as_array().unwrap()[0]["code"], "unknown_attribute");
    }
}

/// A fault that there was no time to find at the start is found before anything is deleted.
#[tokio::test]
async fn a_worker_finds_out_what_the_start_had_no_time_for() {
    let mut world = World::start_with(Protocol::Grpc, &["--roles", "grpc,gateway"]).await;
    given(&world);
    let request = json!({"mode": "hard", "allow_unknown_attributes": true, "spec": {"objects": {"filter": "missing(attributes.Registy)"}}});
    let task = world.schedule(request).await;
    world.database.sql("UPDATE bulk_delete SET check_attributes = true");
    world.server = Server::start_with(&world.database, &[], &[]).await;
    world.client = Client::new(&world.server, &world.key, Protocol::Grpc);
    let ended = world.task_ended(&task).await;
    assert_eq!(
        (ended.get("status"), ended.get("error_code")),
        (&json!("failed"), &json!("unknown_attribute"))
    );
    assert!(text(ended.get("error_message")).contains("no entity has"), "{:#}", ended.json);
    assert_eq!(world.database.rows("entity"), 12);
}
