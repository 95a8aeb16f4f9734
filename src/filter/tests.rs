//! The language as callers meet it.

use serde_json::json;

use super::*;
use crate::proto::object::Struct;

pub(super) fn parse(text: &str) -> Filter {
    Filter::parse(text).unwrap_or_else(|error| panic!("{error}\n{}", error.caret(text)))
}

fn refusal(text: &str) -> ParseError {
    Filter::parse(text).expect_err("the filter should be refused")
}

pub(super) fn refused_at(text: &str, position: usize, message_part: &str) {
    let error = refusal(text);
    assert!(error.message.contains(message_part), "{text}: {error}");
    assert_eq!(error.position, position, "{text}: {error}");
}

/// Returns whether the filter selects an active entity `e1` of type `configuration/entityTypes/HCP` with these attributes, in no portfolio,
/// with two references to other systems, that was created on 1 May 2024 and changed a microsecond after 14:30 of the next day.
pub(super) fn selects(text: &str, attributes: serde_json::Value) -> bool {
    let at = |text: &str| text.parse().expect("a time");
    parse(text).matches(&EntityRecord {
        id: "e1",
        r#type: "configuration/entityTypes/HCP",
        state: "active",
        portfolio_id: None,
        created_at: at("2024-05-01T00:00:00Z"),
        updated_at: at("2024-05-02T14:30:00.000001Z"),
        crosswalks: 2,
        attributes: Struct::from_json(&attributes).view(),
    })
}

#[test]
fn and_binds_tighter_than_or_and_not_tighter_than_both() {
    let canonical = |text: &str| parse(text).to_string();
    assert_eq!(
        canonical("exists(type) OR exists(uri) And NOT exists(attributes.a) or missing(type)"),
        "exists(type) or (exists(uri) and not exists(attributes.a)) or missing(type)"
    );
    assert_eq!(
        canonical("not(exists(type) or exists(uri))and(exists(type))"),
        "not (exists(type) or exists(uri)) and exists(type)"
    );
}

#[test]
fn a_value_is_a_word_a_number_or_a_text_in_either_quote() {
    for text in ["equals(type,HCP)", "equals( type , 'HCP' )", "equals(type,\"HCP\")"] {
        assert_eq!(parse(text), parse("equals(type,'HCP')"));
    }
    assert_eq!(
        parse(r#"in(type, -1.5e+3, "it""s", 'it\'s', 'a''b\\\n')"#).to_string(),
        r#"in(type, '-1.5e+3', 'it"s', 'it\'s', 'a\'b\\\n')"#
    );
}

#[test]
fn a_list_in_one_text_is_the_list_of_its_elements() {
    assert_eq!(parse("in(type, 'a, b ,c')"), parse("in(type, a, b, c)"));
    assert!(selects("in(attributes.City, 'Doe, John', 'x')", json!({"City": "doe, john"})));
    refused_at("in(type, 'a,,b')", 9, "empty element");
    refused_at("in(type, '')", 9, "empty element");
}

#[test]
fn names_in_a_path_may_be_quoted() {
    assert!(selects(
        "equals(attributes.'First name'.\"a.b\".c-d, x)",
        json!({"First name": {"a.b": {"c-d": "X"}}})
    ));
    assert!(selects("equals(attributes.Größe, 5)", json!({"Größe": 5})));
    assert!(selects("exists(attributes.'')", json!({"": 5})));
    assert!(selects("exists(attributes.type)", json!({"type": 5})));
    refused_at("exists(attributes.First name)", 24, "unexpected `name`");
    refused_at("exists(attributes..a)", 18, "unexpected `.a`");
    refused_at("exists(attributes.a.)", 20, "unexpected `)`");
}

#[test]
fn what_is_unknown_is_refused_with_a_hint() {
    refused_at(
        "exists(type) and equal(type, x)",
        17,
        "unknown function `equal`; did you mean `equals`?",
    );
    refused_at("startswith(type, x)", 0, "did you mean `startsWith`?");
    refused_at("notEquals(type, x)", 0, "a denial is written `not equals(…)`");
    refused_at("frobnicate(type, x)", 0, "unknown function `frobnicate`");
    refused_at(
        "missing(LastName)",
        8,
        "unknown property `LastName`; what is in attributes is written `attributes.LastName`",
    );
    refused_at("missing(attribute.LastName)", 8, "did you mean `attributes`?");
    refused_at("missing(Type)", 8, "did you mean `type`?");
    refused_at("missing(type.x)", 8, "`type` has no members");
    assert!(!refusal("frobnicate(type)").message.contains("did you mean"));
    assert_eq!(
        refusal("missing(LastName)").expected,
        [
            "`type`",
            "`uri`",
            "`state`",
            "`portfolio`",
            "`createdTime`",
            "`updatedTime`",
            "`crosswalks_count`",
            "`attributes.NAME`"
        ]
    );
    assert!(refusal("frobnicate(type)").expected.contains(&"`startsWith`".to_owned()));
}

#[test]
fn the_number_and_kind_of_arguments_are_checked() {
    refused_at("equals(type)", 11, "a value is missing: equals(path, value)");
    refused_at("equals(type, a, b)", 14, "too many values: equals(path, value)");
    refused_at("exists(type, a)", 11, "too many values: exists(path)");
    refused_at("range(type, a)", 13, "a value is missing: range(path, from, to)");
    refused_at("range(type, a, b, c)", 16, "too many values: range(path, from, to)");
    refused_at("in(type)", 7, "a value is missing: in(path, value, …)");
    refused_at("equals('type', a)", 7, "without quotes");
    refused_at("equals(attributes.a, attributes.b)", 21, "cannot be compared");
    refused_at("equals(type, )", 13, "unexpected `)`");
    refused_at("equals()", 7, "unexpected `)`");
    refused_at("startsWith(type, '')", 17, "at least one character");
    refused_at("not equals", 10, "ends too early");
    refused_at("equals(type a)", 12, "unexpected `a`");
    assert_eq!(refusal("equals(type a)").expected, ["`,`"]);
    assert_eq!(refusal("exists(type a)").expected, ["`)`"]);
}

#[test]
fn an_empty_filter_is_refused() {
    refused_at("", 0, "empty");
    refused_at(" \n\t", 3, "empty");
    refused_at("()", 1, "unexpected `)`");
}

#[test]
fn quotes_and_parentheses_that_do_not_match_are_explained() {
    refused_at("equals(type, ‘HCP’)", 13, "straight quotes");
    refused_at("equals(type, “HCP”)", 13, "straight quotes");
    refused_at("equals(type, 'HCP)", 13, "is not closed");
    refused_at("(exists(type)", 13, "the parenthesis at position 0 is not closed");
    refused_at("exists(type", 11, "the parenthesis at position 6 is not closed");
    refused_at("equals(type, a", 14, "the parenthesis at position 6 is not closed");
    refused_at("exists(type))", 12, "closes none");
    refused_at("exists(type) exists(uri)", 13, "unexpected `exists`");
    refused_at("exists(type) && exists(uri)", 13, "unexpected `&`");
    refused_at(r"equals(type, 'a\d')", 15, "unknown escape");
    refused_at("equals(type, 'a\0')", 15, "U+0000");
    refused_at("exists(type) \u{200B}", 13, "U+200B");
    assert!(selects("equals(attributes.a, '“x”')", json!({"a": "“X”"})));
}

#[test]
fn positions_count_characters_and_not_bytes() {
    refused_at("equals(attributes.ÄÖ, 'ß') or exists", 36, "ends too early");
    refused_at("equals(attributes.ÄÖ, 'ß') or x()", 30, "unknown function");
}

#[test]
fn every_bound_admits_its_limit_and_refuses_one_more() {
    let value = |length: usize| format!("equals(type, '{}')", "é".repeat(length));
    parse(&value(256));
    refused_at(&value(257), 13, "at most 256 characters, this one has 257");
    refused_at(&format!("in(type, 'a,{}')", "x".repeat(257)), 9, "at most 256 characters");
    refused_at(&format!("exists(attributes.{})", "x".repeat(257)), 18, "at most 256 characters");

    let list = |length: usize| vec!["x"; length].join(",");
    for (open, close) in [("", ""), ("'", "'")] {
        parse(&format!("in(type, {open}{}{close})", list(5_000)));
        assert!(
            refusal(&format!("in(type, {open}{}{close})", list(5_001)))
                .message
                .contains("at most 5000 values")
        );
    }

    let nested = |open: &str, close: &str, depth: usize| {
        format!("{}exists(type){}", open.repeat(depth), close.repeat(depth))
    };
    for (open, close, levels) in [("(", ")", 32), ("not ", "", 32), ("not(", ")", 16)] {
        parse(&nested(open, close, levels));
        assert!(refusal(&nested(open, close, levels + 1)).message.contains("more than 32 deep"));
        assert!(refusal(&nested(open, close, 500_000)).message.contains("more than 32 deep"));
    }

    let path = |length: usize| format!("exists(attributes{})", ".a".repeat(length));
    parse(&path(32));
    assert!(refusal(&path(33)).message.contains("at most 32 names"));

    let chain = |length: usize| vec!["exists(type)"; length].join(" and ");
    parse(&chain(255));
    assert!(refusal(&chain(256)).message.contains("more than 256 conditions"));
}

#[test]
fn a_destructive_call_wants_parentheses_between_and_and_or() {
    let strict = |text: &str| Filter::parse_strict(text);
    let error = strict("exists(uri) or exists(type) and exists(uri)")
        .expect_err("it is ambiguous to people");
    assert_eq!(error.position, 28);
    assert!(error.message.contains("parentheses"));
    let error = strict("exists(uri) and exists(type) or exists(uri)")
        .expect_err("it is ambiguous to people");
    assert_eq!(error.position, 29);
    assert!(strict("not (exists(uri) and exists(type) or exists(uri))").is_err());
    for text in [
        "exists(uri) or (exists(type) and exists(uri))",
        "exists(uri) and exists(type) and not (exists(uri) or exists(type))",
    ] {
        assert_eq!(strict(text).expect("it is clear"), parse(text));
    }
}

#[test]
fn a_destructive_call_does_not_take_the_beginning_of_every_uri_for_that_of_an_id() {
    for value in ["e", "Ent", "entities", "entities/"] {
        let text = format!("exists(type) and startsWith(uri, '{value}')");
        assert_eq!(Filter::parse_strict(&text).expect_err("it matches every entity").position, 17);
        assert!(selects(&text, json!({})));
    }
    for text in [
        "contains(uri, 'ti?s')",
        "containsWordStartingWith(uri, ent)",
        "fullText(uri, 'x entities')",
    ] {
        assert_eq!(
            Filter::parse_strict(text).expect_err("it matches every entity").position,
            0,
            "{text}"
        );
        assert!(Filter::parse(text).is_ok());
    }
    assert!(Filter::parse_strict("contains(uri, 'entities/e?1')").is_ok());
    assert!(Filter::parse_strict("startsWith(uri, 'entities/e') or startsWith(type, 'e')").is_ok());
}

#[test]
fn filters_of_one_shape_have_one_sql_and_hold_nothing_of_the_caller() {
    let sql = |text: &str| parse(text).predicate().sql();
    assert_eq!(
        sql("in(attributes.a, b, c, d)"),
        sql("in(attributes.'\"; DROP TABLE entity; --', \"'; --,x\")")
    );
    assert_eq!(sql("startsWith(attributes.a, x)"), sql("startsWith(attributes.b, yz)"));
    assert_eq!(
        sql("equals(uri, x) and not exists(type)"),
        "((lower(e.id COLLATE \"C\") = ?) AND (NOT (e.type <> '')))"
    );
}

#[test]
fn a_vocabulary_of_its_own_knows_nothing_of_entities() {
    static SHELF: Vocabulary = Vocabulary {
        properties: &[
            Property::new(&["title", "name"], PropertyKind::Text, "s.title"),
            Property::nullable(&["lent"], PropertyKind::Time, "s.lent"),
        ],
    };
    let filter = Filter::parse_for(&SHELF, "startsWith(name, x) and not exists(lent)")
        .expect("it is of the shelf");
    assert_eq!(filter.to_string(), "startsWith(title, 'x') and not exists(lent)");
    assert_eq!(
        filter.predicate().sql(),
        "((lower(left(s.title, ?) COLLATE \"C\") = ?) AND (NOT COALESCE((s.lent IS NOT NULL), FALSE)))"
    );
    let error = Filter::parse_for(&SHELF, "exists(uri)").expect_err("shelves have none");
    assert_eq!(error.expected, ["`title`", "`lent`"]);
    assert_eq!(error.message, "unknown property `uri`");
}

#[test]
fn every_call_that_is_wrong_is_reported() {
    let positions = |text: &str| -> Vec<usize> {
        let faults = Filter::parse_strict(text).expect_err(text);
        assert!(faults.others.iter().all(|other| other.others.is_empty()));
        faults.all().map(|fault| fault.position).collect()
    };
    for (text, expected) in [
        ("exist(type) and missing(Name)", vec![0, 24]),
        (
            "exist(type) and equals(type, a) and (missing(Name) or not gt(createdTime, x))",
            vec![0, 45, 74],
        ),
        ("equals(type, ')', '(') and exist(x(), '\\')')", vec![16, 27]),
        ("exists(type) or exists(uri) and exist(type)", vec![28, 32]),
        (
            "inSameAttributeValue(equals(attributes.A.B, x) and equals(nope, y) and no(z))",
            vec![58, 71],
        ),
        ("inSameAttributeValue(exists(type)) and no(z)", vec![0, 39]),
        // What is behind a parenthesis or a quote without its partner is not known.
        ("exist(type) and missing(Name and no(z)", vec![0, 24]),
        ("exist(type) and equals(type, 'a) and no(z)", vec![0, 29]),
        ("exist(type and no(z)", vec![0]),
        ("exist(type) nor missing(Name)", vec![0, 12]),
        ("missing Name and no(z)", vec![8]),
    ] {
        assert_eq!(positions(text), expected, "{text}");
    }
    assert_eq!(positions(&vec!["no(z)"; 100].join(" and ")).len(), 100);
}
