//! Filters that are refused because they would do harm unnoticed.

use serde_json::json;

use super::tests::{parse, refused_at, selects};
use super::*;

fn refused_strictly(text: &str, position: usize) {
    let error = Filter::parse_strict(text).expect_err(text);
    assert_eq!(error.position, position, "{text}: {error}");
}

#[test]
fn the_expressions_of_a_filter_are_bounded_together() {
    let expression = |size: usize| format!("regexp(attributes.a, '.{{{size}}}')");
    let (two_fifths, fifth) = (format!("{0} or {0}", expression(200)), expression(200));
    parse(&format!("({two_fifths}) and not ({two_fifths} or {fifth})"));
    let three = format!("{0} or {0} or regexp(type, '(.?){{30}}a{{37}}')", expression(250));
    refused_at(&three, 68, "together with those before it");
    refused_at(
        "inSameAttributeValue(regexp(attributes.a.b, '.{250}{3}') and regexp(attributes.a.c, '.{251}'))",
        61,
        "together with",
    );
    let many = |count: usize| vec!["regexp(type, a)"; count].join(" or ");
    parse(&many(24));
    refused_at(&many(25), 24 * 19, "more than 24 expressions");
}

#[test]
fn a_number_that_is_too_large_is_not_put_in_the_order_of_texts() {
    for (text, position) in [
        ("gt(attributes.N, 1e2000)", 17),
        ("lte(attributes.N, '-0.5E+1001')", 18),
        ("range(attributes.N, 0, 1e1001)", 23),
        ("range(attributes.N, 1e-2000, 0)", 20),
        ("lt(type, 1e99999999999999999999)", 9),
        ("equals(attributes.N.count, 1e2000)", 27),
        ("in(crosswalks_count, '1,2e2000')", 21),
        ("gte(createdTime, 1e2000)", 17),
    ] {
        refused_at(text, position, "an exponent from -1000 to 1000");
    }
    assert!(selects("gt(attributes.N, 1e1000) or lt(attributes.N, 1e-1000)", json!({"N": 0})));
    assert!(!selects("gt(attributes.N, 1e1000)", json!({"N": "NaN"})));
    // As a text it may well be meant: a part of a hash.
    assert!(selects("equals(attributes.N, '12e4567')", json!({"N": "12E4567"})));
}

#[test]
fn an_order_of_uris_needs_an_id() {
    for text in [
        "gt(uri, 'entities/')",
        "gte(uri, 'Entities/')",
        "lt(uri, entities/)",
        "range(uri, 'entities/', x)",
    ] {
        refused_at(
            text,
            text.find(", ").unwrap_or_default() + 2,
            "an id is missing behind `entities/`",
        );
    }
    assert!(selects("gte(uri, 'entities/e') and lt(uri, entities/f)", json!({})));
}

#[test]
fn a_destructive_call_does_not_take_what_holds_for_every_id() {
    for text in [
        "regexp(uri, 'entities/.*')",
        "regexp(uri, '.*')",
        "regexp(uri, 'entities/..{1,127}')",
        "regexp(uri, 'entities/[A-Za-z0-9._~-]+')",
        "regexp(uri, '(entities/)?[^/]*/.*(a|b|.)')",
        "contains(uri, 'entities/?')",
        "gte(uri, '-')",
        "lt(uri, '~')",
        "range(uri, 0, zzz)",
    ] {
        refused_strictly(text, 0);
        refused_strictly(&format!("exists(type) and not {text}"), 21);
        parse(text);
    }
    for text in [
        "regexp(uri, 'entities/[a-z].*')",
        r"regexp(uri, 'entities/\\d+')",
        "regexp(uri, 'entities/.{36}')",
        "gte(uri, 'entities/b')",
        "range(uri, a, b)",
        "exists(uri)",
        "regexp(type, '.*')",
        "gte(type, '0')",
    ] {
        assert!(Filter::parse_strict(text).is_ok(), "{text}");
    }
}

#[test]
fn the_address_of_a_file_is_refused_in_every_spelling() {
    for value in ["file:/etc/x", "FILE:/etc/x", "File:x", "file:///etc/x"] {
        refused_at(&format!("listEquals(type, '{value}')"), 17, "a list in a file is not read");
    }
    assert!(selects("listEquals(attributes.a, 'file')", json!({"a": "file"})));
    assert!(selects(
        "listEquals(attributes.a, 'file:/x', b) and equals(attributes.a, 'file:/x')",
        json!({"a": "file:/x"})
    ));
    assert!(selects("listEquals(attributes.a, 'filé')", json!({"a": "filé"})));
}

#[test]
fn what_looks_like_a_quote_is_none_and_no_letter_either() {
    for c in "ʹʺʻʼˮ‘’‚‛“”„‟‹›«»`´′″‵❛❜❝❞〝〞〟＂＇".chars()
    {
        refused_at(&format!("equals(type, {c}X{c})"), 13, "straight quotes");
        refused_at(&format!("equals(type, X{c})"), 14, "straight quotes");
        refused_at(&format!("equals(attributes.{c}X{c}, 1)"), 18, "straight quotes");
    }
    assert!(selects("equals(attributes.a, 'Oʼahu')", json!({"a": "OʼAHU"})));
}

#[test]
fn many_conditions_on_a_value_take_it_out_of_the_object_once() {
    let contains = |n: usize| format!("contains(attributes.a, 'x{n}*y')");
    let taken_out = |text: &str| parse(text).predicate().sql().matches("e.attributes").count();
    let list =
        |count: usize, operator: &str| (0..count).map(contains).collect::<Vec<_>>().join(operator);
    for operator in [" or ", " and ", " and not ", " or not "] {
        let few = taken_out(&list(4, operator));
        assert!(few > 0 && taken_out(&list(100, operator)) == few, "{operator}");
        let groups =
            format!("({}) or equals(type, b) or ({})", list(3, operator), list(3, operator));
        assert_eq!(taken_out(&groups), few, "{operator}");
        let within = list(100, operator).replace("attributes.a", "attributes.a.b");
        assert_eq!(
            parse(&format!("inSameAttributeValue({within})"))
                .predicate()
                .sql()
                .matches("o.value")
                .count(),
            3,
            "{operator}"
        );
    }
    // The cheap conditions are checked first.
    let sql = parse(&format!("{} and equals(type, b)", list(4, " and "))).predicate().sql();
    assert!(sql.find("e.type") < sql.find("e.attributes"), "{sql}");
}
