//! Values of another kind than those that entities have, names that hardly any entity has, and values that are denied and that nothing has: a hard delete is
//! refused for each, however often it is asked for, and for all of them at once.

use crate::given::{Many, text};
use crate::kit::*;

const START: &str = "BulkDeleteService/StartBulkDelete";

/// Packages of two registries: their versions, and of those of one their ranks and the months of their last releases.
fn given(world: &World) {
    world.database.given_many(Many { prefix: "e", count: 2_000, dependents: 0, portfolio: None });
    world.database.sql(
        "UPDATE entity e
         SET attributes = jsonb_build_object('Name', e.id, 'Version', CASE WHEN n % 100 = 0 THEN '1.5' ELSE format('%s.4.1', n % 12) END,
                'Registry', CASE WHEN n % 4 = 0 THEN 'npm' ELSE 'pypi' END, 'Keyword', jsonb_build_array('x', 'y'))
            || CASE WHEN n % 4 = 0 THEN '{}'
               ELSE jsonb_build_object('Rank', n, 'LastRelease', format('20%s-%s', 10 + n % 10, lpad((1 + n % 12)::text, 2, '0'))) END
         FROM (SELECT f.id, right(f.id, 6)::int AS n FROM entity f) f
         WHERE f.id = e.id",
    );
}

async fn refusal(world: &World, filter: &str) -> Failure {
    world.refused(START, json!({"mode": "hard", "spec": {"objects": {"filter": filter}}})).await
}

async fn warned(world: &World, filter: &str) -> Vec<(String, String)> {
    let request = json!({"mode": "hard", "spec": {"objects": {"filter": filter}}, "dry_run": true});
    let previewed = world.done(START, request).await;
    let warnings = previewed.get("preview.warnings").as_array().unwrap().clone();
    warnings.iter().map(|warning| (text(&warning["code"]), text(&warning["message"]))).collect()
}

/// Without workers, so that nothing goes between the previews.
#[tokio::test]
async fn a_value_of_another_kind_than_entities_have_is_refused_each_time() {
    let world = World::start_with(Protocol::Rest, &["--roles", "grpc,gateway"]).await;
    given(&world);
    for (filter, reported) in [
        ("gt(attributes.Rank, '$MIN_RANK')", "looks like a variable"),
        ("lt(attributes.Rank, ten)", "entities have only numbers there"),
        ("lt(attributes.Rank, 1OO)", "entities have only numbers there"),
        ("lt(attributes.Rank, '-')", "entities have only numbers there"),
        ("lt(attributes.Rank, '1/2')", "`1/2` is compared with `attributes.Rank` as a text"),
        ("lt(attributes.Rank, 0x10)", "entities have only numbers there"),
        ("lt(attributes.Rank, '(5000)')", "entities have only numbers there"),
        ("lt(attributes.Rank, '5000-6000')", "entities have only numbers there"),
        ("range(attributes.Rank, 1, 'max')", "`max` is compared with"),
        ("not gt(attributes.Rank, abc)", "entities have only numbers there"),
        ("not gte(attributes.LastRelease, '2019-01-01')", "they have texts such as `20"),
        ("lt(attributes.LastRelease, 'v2019')", "`v2019` is compared with"),
        ("lt(attributes.LastRelease, '$CUTOFF')", "looks like a variable"),
        ("lt(attributes.LastRelease, '2019-13')", "entities have only texts such as `20"),
        ("lt(attributes.LastRelease, '2019-Q1')", "entities have only texts such as `20"),
        ("lt(attributes.LastRelease, '2023/07')", "entities have texts such as `20"),
        ("range(attributes.LastRelease, '2019-01-01', '2020-13')", "the two ends are of two kinds"),
        ("range(attributes.LastRelease, 2019, '2020-01')", "the two ends are of two kinds"),
        ("lt(attributes.Version, '2.0.0')", "`10.0.0` lies before `2.0.0`"),
        ("lt(attributes.Version, 'v2')", "`10.0.0` lies before `2.0.0`"),
        ("not gt(attributes.Version, 2)", "20 of 2,000 have a number at `attributes.Version`"),
        ("equals(attributes.Name, '${NAME}')", "looks like a variable"),
    ] {
        for _ in 0..2 {
            let refusal = refusal(&world, filter).await;
            assert_eq!(
                (refusal.code.as_str(), refusal.faults.len() < 3),
                ("suspect_value", true),
                "{filter}: {refusal:#?}"
            );
            assert!(refusal.message.contains(reported), "{filter}: {}", refusal.message);
        }
        let warnings = warned(&world, filter).await;
        assert!(
            warnings.iter().all(|(code, _)| code == "suspect_value")
                && warnings[0].1.contains(reported),
            "{filter}: {warnings:?}"
        );
    }
    for filter in [
        "lt(attributes.LastRelease, '2019-01')",
        "range(attributes.Rank, 1, 50)",
        "gt(attributes.Name, m)",
        "not gt(attributes.Rank, 7)",
    ] {
        assert_eq!(warned(&world, filter).await, [], "{filter}");
    }
    assert_eq!(world.database.rows("bulk_delete"), 0);
}

#[tokio::test]
async fn a_denied_value_that_nothing_has_is_refused_and_searched_for_as_it_is_compared() {
    let world = World::start_with(Protocol::Rest, &["--roles", "grpc,gateway"]).await;
    given(&world);
    for (filter, reported) in [
        (
            "not equals(attributes.Registry, pypii)",
            "no entity has `pypii` at `attributes.Registry`, so it excludes nothing",
        ),
        (
            "not fullText(attributes, azzure)",
            "no entity meets `fullText(attributes, 'azzure')`, so it excludes nothing",
        ),
        (
            "not equalsCaseSensitive(uri, 'E-000001')",
            "there is no entity `E-000001`, so it excludes nothing",
        ),
        (
            "exists(uri) and not equals(type, HPC)",
            "no entity has the type `HPC`, so it excludes nothing; did you mean `HCP`?",
        ),
    ] {
        for _ in 0..2 {
            let refusal = refusal(&world, filter).await;
            assert_eq!(
                (refusal.code.as_str(), refusal.faults[0].code.as_str()),
                ("unknown_value", "unknown_value"),
                "{filter}"
            );
            assert!(refusal.message.contains(reported), "{filter}: {}", refusal.message);
        }
        assert_eq!(
            warned(&world, filter).await,
            [("unknown_value".to_owned(), reported.to_owned())],
            "{filter}"
        );
    }
    let many: Vec<String> = (0..100).map(|n| format!("e-{:06}", 1 + n * 20)).collect();
    for filter in [
        "not equals(uri, 'E-000001')".to_owned(),
        "not equalsCaseSensitive(uri, 'e-000001')".to_owned(),
        "not equals(attributes.Registry, NPM)".to_owned(),
        format!("not in(attributes.Name, {})", many.join(", ")),
    ] {
        assert_eq!(warned(&world, &filter).await, [], "{filter}");
    }
    let refused =
        refusal(&world, &format!("not in(attributes.Name, {}, nobody)", many.join(", "))).await;
    assert_eq!(
        (refused.code.as_str(), &refused.members["values"]),
        ("unknown_value", &json!(["nobody"]))
    );
    // It is searched for to the end, however many there are.
    world.database.given_many(Many { prefix: "f", count: 15_000, dependents: 0, portfolio: None });
    assert_eq!(
        refusal(&world, "not equals(attributes.Registry, pypii)").await.code,
        "unknown_value"
    );
    world.database.sql("UPDATE entity SET attributes = attributes || '{\"Registry\": \"pypii\"}' WHERE id = 'f-015000'");
    assert_eq!(warned(&world, "not equals(attributes.Registry, pypii)").await, []);
    let allowed = json!({"mode": "hard", "spec": {"objects": {"filter": "not equals(attributes.Registry, nobody)"}}, "allow_suspect_values": true});
    world.done(START, allowed).await;
}

#[tokio::test]
async fn one_stray_name_does_not_hide_a_misspelt_one() {
    let world = World::start_with(Protocol::Rest, &["--roles", "grpc,gateway"]).await;
    given(&world);
    world.database.sql(
        "UPDATE entity SET attributes = attributes || '{\"Naem\": \"x\"}' WHERE id = 'e-000700'",
    );
    let reported = "only 1 of 2,000 entities have the attribute `Naem`, and 2,000 have `Name`; did you mean `Name`?";
    for filter in ["missing(attributes.Naem)", "not equals(attributes.Naem, y)"] {
        let refusal = refusal(&world, filter).await;
        assert_eq!(
            (refusal.code.as_str(), &refusal.members["nearest"]),
            ("unknown_attribute", &json!(["Name"])),
            "{filter}"
        );
        assert!(refusal.message.contains(reported), "{filter}: {}", refusal.message);
        assert!(
            warned(&world, filter)
                .await
                .contains(&("unknown_attribute".to_owned(), reported.to_owned())),
            "{filter}"
        );
        let listed = world.done("EntityService/ListEntities", json!({"filter": filter})).await;
        assert!(text(&listed.get("warnings")[0]["message"]).contains("`Naem`"), "{filter}");
    }
    assert_eq!(warned(&world, "exists(attributes.Naem)").await, []);
    assert_eq!(warned(&world, "missing(attributes.Rank)").await, []);
    for path in ["Naem.City", "Keywrd.City", "'Name '", "' Name'", "'Na me'", "'Name.'"] {
        let refusal = refusal(&world, &format!("missing(attributes.{path})")).await;
        let meant = if path.starts_with('K') { "Keyword" } else { "Name" };
        assert_eq!(
            (refusal.code.as_str(), &refusal.members["nearest"][0]),
            ("unknown_attribute", &json!(meant)),
            "{path}: {refusal:#?}"
        );
    }
    let typed = json!({"mode": "hard", "spec": {"objects": {"filter": "missing(attributes.Xyzzy)", "entity_type": "HCP"}}});
    let refused = world.refused(START, typed).await;
    assert!(
        refused.message.contains("no entity of the type `HCP` has the attribute `Xyzzy`"),
        "{}",
        refused.message
    );
}

scenario! {
    async fn all_that_is_wrong_with_a_hard_delete_is_reported_at_once(world: &World) {
        given(world);
        let filter = "missing(attributes.Naem) or lt(attributes.Rank, ten) or not equals(attributes.Registry, pypii)";
        let request = json!({"mode": "hard", "spec": {"objects": {"filter": filter, "exclude_list": ["nobody"]}}});
        let refusal = world.refused(START, request).await;
        assert_eq!(refusal.code, "unknown_attribute", "{refusal:#?}");
        let codes: Vec<&str> = refusal.faults.iter().map(|fault| fault.code.as_str()).collect();
        assert_eq!(codes, ["unknown_attribute", "suspect_value", "unknown_value", "missing_excludes"]);
        let list = json!({"mode": "hard", "spec": {"objects": {"filter": "exists(uri)", "exclude_list": ["nobody"]}}});
        let refusal = world.refused(START, list).await;
        assert_eq!((refusal.code.as_str(), refusal.faults.len()), ("missing_excludes", 1));
        assert!(refusal.faults[0].field.ends_with("objects.exclude_list"), "{refusal:#?}");
    }

    async fn whoever_fixes_the_filter_sends_it_again_with_the_same_key(world: &World) {
        given(world);
        for (n, (slip, code)) in [
            ("missing(attributes.Naem)", "unknown_attribute"),
            ("lt(attributes.Rank, ten)", "suspect_value"),
            ("not equals(attributes.Registry, pypii)", "unknown_value"),
            ("not equals(type, HPC)", "unknown_value"),
        ].into_iter().enumerate() {
            let key = [("idempotency-key", format!("fixed-{n}"))];
            let key = key.each_ref().map(|(name, value)| (*name, value.as_str()));
            let request = |filter: &str| json!({"mode": "hard", "spec": {"objects": {"filter": filter}}});
            for _ in 0..2 {
                let refusal = world.client.call_with(START, request(slip), &key).await.unwrap_err();
                assert_eq!(refusal.code, code, "{slip}: {refusal:#?}");
            }
            world.client.call_with(START, request("equals(uri, nobody)"), &key).await.unwrap();
        }
    }
}
