//! Which keys a filter asks for, and which an entity has.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::filter::EntityRecord;
use crate::proto::object::Struct;

impl Keys {
    /// Returns whether a key is one of them.
    fn contains(&self, key: &str) -> bool {
        match self {
            Keys::OneOf(keys) => keys.iter().any(|one| one == key),
            Keys::Between { from, below } => from.as_str() <= key && key < below.as_str(),
        }
    }
}

fn path(text: &str) -> AttributePath {
    AttributePath::parse(text).unwrap()
}

fn candidates(filter: &str, indexed: &[&str]) -> Vec<Vec<String>> {
    let lookups =
        Filter::parse(filter).unwrap().candidates(&|attribute| indexed.contains(&attribute));
    lookups
        .iter()
        .map(|union| union.iter().map(|lookup| lookup.attribute.clone()).collect())
        .collect()
}

#[test]
fn a_path_has_one_spelling() {
    for (text, canonical, names) in [
        ("LastName", "LastName", vec!["LastName"]),
        ("Address.City", "Address.City", vec!["Address", "City"]),
        ("\"Address\".'City'", "Address.City", vec!["Address", "City"]),
        ("'First name'", "'First name'", vec!["First name"]),
        ("'a.b'.c", "'a.b'.c", vec!["a.b", "c"]),
    ] {
        let path = path(text);
        assert_eq!(
            (path.canonical.as_str(), path.names),
            (canonical, names.into_iter().map(str::to_owned).collect()),
            "{text}"
        );
    }
    for wrong in ["", " ", "a b", "a)", "a) and exists(attributes.b", "a, b", "'a", "a..b", ".a"] {
        assert!(AttributePath::parse(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn only_what_every_match_needs_is_looked_up() {
    let one = vec![vec!["a".to_owned()]];
    assert_eq!(candidates("equals(attributes.a, x)", &["a"]), one);
    assert_eq!(candidates("equals(attributes.a, x)", &["b"]), Vec::<Vec<String>>::new());
    assert_eq!(
        candidates(
            "equals(type, T) and in(attributes.a, x, y) and exists(attributes.b)",
            &["a", "b"]
        ),
        one
    );
    assert_eq!(
        candidates("equals(attributes.a, x) or equals(type, T)", &["a"]),
        Vec::<Vec<String>>::new()
    );
    assert_eq!(
        candidates("equals(attributes.a, x) or startsWith(attributes.b, y)", &["a", "b"]),
        [["a", "b", "b"]]
    );
    assert_eq!(
        candidates("equals(attributes.a, x) and startsWith(attributes.b.c, y)", &["a", "b.c"]),
        [vec!["a"], vec!["b.c", "b.c"]]
    );
    for nothing in [
        "not equals(attributes.a, x)",
        "missing(attributes.a)",
        "exists(attributes.a)",
        "equals(uri, a)",
    ] {
        assert_eq!(candidates(nothing, &["a"]), Vec::<Vec<String>>::new(), "{nothing}");
    }
}

#[test]
fn keys_of_numbers_sort_as_the_numbers_do() {
    let numbers = [
        f64::NEG_INFINITY,
        -1e300,
        -2.5,
        -2.0,
        -1e-300,
        0.0,
        5e-324,
        0.1,
        2.0,
        10.0,
        1e21,
        f64::MAX,
    ];
    let keys = numbers.map(number_key);
    assert!(keys.is_sorted());
    assert_eq!(number_key(-0.0), number_key(0.0));
    let from_two_to_ten = numbers_between(2.0, 10.0);
    assert_eq!(
        numbers
            .map(|number| from_two_to_ten.contains(&number_key(number)))
            .iter()
            .filter(|within| **within)
            .count(),
        2
    );
    assert!(keys.iter().all(|key| NUMBER < key.as_str() && key.as_str() < BEHIND_NUMBERS));
}

#[test]
fn a_range_of_texts_has_its_ends_and_what_was_cut() {
    let range = texts_between(Some("Bonn"), Some("Köln"));
    for (text, within) in [
        ("BONN", true),
        ("köln", true),
        ("Essen", true),
        ("Aachen", false),
        ("Kölnisch", false),
        ("L", false),
    ] {
        assert_eq!(range.contains(&text_key(text)), within, "{text}");
    }
    let (long, longer) = ("x".repeat(256), "x".repeat(300));
    assert!(texts_between(Some(&long), None).contains(&text_key(&longer)));
}

#[test]
fn a_start_ends_before_the_next_character() {
    for (start, below) in
        [("tab", "tac"), ("t\u{d7ff}", "t\u{e000}"), ("tx\u{10ffff}", "ty"), ("tÿ", "tĀ")]
    {
        assert_eq!(behind_all_starting_with(start).as_deref(), Some(below));
    }
}

fn values() -> impl Strategy<Value = Json> {
    let texts = [
        "",
        "a",
        "A",
        "ab",
        "AB",
        "É",
        "é",
        "ς",
        "Σ",
        "10",
        "10.0",
        "1e1",
        "-1",
        "true",
        "TRUE",
        "\u{10ffff}",
        "ß",
        "x y",
        "2024-02-28",
        "2024-03-01T09:00:00+12:00",
        "2024-02-29 00:10:00.25Z",
        "0001-01-01",
        "9999-12-31T23:59:59-15:59",
    ];
    let leaf = prop_oneof![
        prop::sample::select(texts.to_vec()).prop_map(Json::from),
        prop::sample::select(vec![
            json!(10),
            json!(10.5),
            json!(-1),
            json!(0),
            json!(1e21),
            json!(true),
            json!(false),
            json!(null)
        ]),
        Just(json!("é".repeat(300))),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Json::from),
            prop::collection::btree_map(
                prop::sample::select(vec!["b".to_owned(), "c".to_owned()]),
                inner,
                0..3
            )
            .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

fn calls() -> impl Strategy<Value = String> {
    let functions = prop::sample::select(vec!["equals", "equalsCaseSensitive", "startsWith", "in"]);
    let paths = prop::sample::select(vec!["attributes.a", "attributes.a.b", "attributes.c"]);
    let searched = prop::sample::select(vec![
        "a",
        "Ab",
        "é",
        "σ",
        "10",
        "1",
        "1e1",
        "-1",
        "-",
        "TRUE",
        "t",
        "\u{10ffff}",
        "1e21",
        "x ",
    ]);
    let paths_again = paths.clone();
    let ends = prop::sample::select(vec![
        "0",
        "-1",
        "10",
        "10.5",
        "1e21",
        "a",
        "É",
        "b2",
        "2024-02-28",
        "2024-02-29T23:30:00-10:00",
        "9999-12-31",
    ]);
    prop_oneof![
        8 => (functions, paths, searched).prop_map(|(function, path, value)| format!("{function}({path}, '{value}')")),
        1 => Just(format!("startsWith(attributes.a, '{}')", "É".repeat(256))),
        4 => (prop::sample::select(vec!["lt", "lte", "gt", "gte"]), paths_again, ends.clone())
            .prop_map(|(function, path, end)| format!("{function}({path}, '{end}')")),
        // A range in which nothing can lie is not a filter.
        4 => (ends.clone(), ends).prop_map(|(from, to)| format!("range(attributes.a, '{from}', '{to}')"))
            .prop_filter("a range that something lies in", |filter| Filter::parse(filter).is_ok()),
        1 => Just("inSameAttributeValue(equals(attributes.a.b, 'A') and gte(attributes.a.c, 2))".to_owned()),
        1 => Just("exists(attributes.a)".to_owned()),
    ]
}

fn filters() -> impl Strategy<Value = String> {
    calls().prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4)
                .prop_map(|members| format!("({})", members.join(" and "))),
            prop::collection::vec(inner.clone(), 2..4)
                .prop_map(|members| format!("({})", members.join(" or "))),
            inner.prop_map(|inner| format!("not {inner}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn every_match_is_among_the_candidates(a in values(), c in values(), filter in filters(), at_most in 0_usize..4) {
        let attributes = Struct::from_json(&json!({"a": a, "c": c}));
        let filter = Filter::parse(&filter).unwrap();
        let meets = |lookup: &Lookup| {
            keys(attributes.view(), &path(&lookup.attribute).names, at_most).iter().any(|key| lookup.keys.contains(key))
        };
        let candidate = filter.candidates(&|_| true).iter().all(|union| union.iter().any(meets));
        let then = DateTime::UNIX_EPOCH;
        let record = EntityRecord {
            id: "e", r#type: "T", state: "active", portfolio_id: None, created_at: then, updated_at: then, crosswalks: 0,
            attributes: attributes.view(),
        };
        prop_assert!(candidate || !filter.matches(&record), "{filter} matches {} and is not a candidate", attributes.to_text());
    }
}
