//! The selections of filters: the meaning of each function on each kind of value.

use serde_json::json;

use super::tests::{parse, refused_at, selects};

#[test]
fn a_uri_is_named_with_or_without_its_prefix() {
    for text in [
        "equals(uri, e1)",
        "equals(uri, 'Entities/E1')",
        "in(uri, 'x, entities/e1')",
        "startsWith(uri, 'entities/e')",
        "startsWith(uri, 'E1')",
    ] {
        assert!(selects(text, json!({})), "{text}");
    }
    for text in [
        "equalsCaseSensitive(uri, E1)",
        "equalsCaseSensitive(uri, 'Entities/e1')",
        "equals(uri, 'entities/entities/e1')",
        "equals(uri, '')",
    ] {
        assert!(!selects(text, json!({})), "{text}");
    }
    assert!(selects("equalsCaseSensitive(uri, 'entities/e1')", json!({})));
}

#[test]
fn the_type_is_compared_in_full() {
    assert!(selects("equals(type, configuration/entityTypes/hcp)", json!({})));
    assert!(!selects("equals(type, HCP)", json!({})));
    assert!(!selects("missing(type)", json!({})));
}

#[test]
fn times_are_days_milliseconds_or_exact() {
    for text in [
        "equals(createdTime, '2024-05-01')",
        "equals(createdTime, 1714521600000)",
        "equals(updatedTime, 1714660200000)",
        "equals(updatedTime, '2024-05-02T16:30:00.000001+02:00')",
        "range(updatedTime, '2024-05-01', '2024-05-02')",
        "lte(updatedTime, '2024-05-02')",
        "gt(updated_at, '2024-05-02T14:30:00Z')",
        "in(created_at, '2024-05-03,2024-05-01')",
    ] {
        assert!(selects(text, json!({})), "{text}");
    }
    for text in [
        "gt(updatedTime, '2024-05-02')",
        "lt(createdTime, '2024-05-01')",
        "equals(updatedTime, '2024-05-02T14:30:00Z')",
        "gt(updatedTime, 1714660200000)",
    ] {
        assert!(!selects(text, json!({})), "{text}");
    }
    refused_at("equals(createdTime, yesterday)", 20, "`createdTime` is a time");
    refused_at("lt(createdTime, 1.5)", 16, "`createdTime` is a time");
    refused_at(
        "startsWith(createdTime, 2024)",
        11,
        "startsWith takes texts, and `createdTime` is a time",
    );
    refused_at("missing(createdTime)", 8, "always there");
}

#[test]
fn a_count_counts_values_that_are_not_empty() {
    let given = json!({"A": ["x", "", null, {}, {"B": [1, [2]]}], "count": 7, "N": {"count": 3}});
    for text in [
        "equals(attributes.A.count, 2)",
        "gte(attributes.A.B.count, '2.0')",
        "equals(attributes.Z.count, 0)",
        "equals(attributes.count, 7)",
        "equals(attributes.N.'count', 3)",
        "equals(crosswalks_count, 2)",
        "equals(attributes.N.count, 1)",
    ] {
        assert!(selects(text, given.clone()), "{text}");
    }
    refused_at("exists(attributes.A.count)", 7, "a count is always there");
    refused_at("equals(attributes.A.count, many)", 27, "is a number");
    refused_at("fullText(crosswalks_count, 1)", 9, "is a number");
    assert_eq!(parse("exists(attributes.a.'count')").to_string(), "exists(attributes.a.'count')");
    assert_eq!(parse("gt(attributes.a.count, 1)").to_string(), "gt(attributes.a.count, '1')");
}

#[test]
fn any_attribute_is_each_at_any_depth() {
    let given = json!({"A": [{"B": ["x", {"C": 5}]}], "D": null});
    for text in [
        "equals(attributes, X)",
        "range(attributes, 4, 6)",
        "exists(attributes)",
        "not equals(attributes, y)",
    ] {
        assert!(selects(text, given.clone()), "{text}");
    }
    assert!(selects("missing(attributes)", json!({"D": null, "E": [], "F": ""})));
}

#[test]
fn numbers_dates_and_texts_are_each_put_in_their_own_order() {
    let is_selected = |text: &str, value: serde_json::Value| selects(text, json!({"a": value}));
    assert!(
        is_selected("range(attributes.a, 9, 10)", json!(9.5))
            && is_selected("range(attributes.a, 9, 10)", json!("10.0"))
    );
    assert!(
        !is_selected("range(attributes.a, 9, 10)", json!("9 apples"))
            && !is_selected("gt(attributes.a, 9)", json!("z"))
    );
    assert!(
        is_selected("lte(attributes.a, '2024-05-31')", json!("2024-05-31T23:59:59.9Z"))
            && !is_selected("lt(attributes.a, '2024-05-31')", json!("2024-05-31"))
    );
    assert!(
        is_selected("range(attributes.a, b, d)", json!("C"))
            && !is_selected("range(attributes.a, b, d)", json!("da"))
            && is_selected("range(attributes.a, b, d)", json!("D"))
    );
    assert!(
        is_selected("lt(attributes.a, 'é')", json!("D"))
            && is_selected("range(attributes.a, 'ä', 'ö')", json!("É"))
    );
    refused_at("range(attributes.a, 10, 9)", 24, "this range is empty");
    refused_at("range(attributes.a, b, A)", 23, "this range is empty");
    refused_at("range(createdTime, '2024-05-02', '2024-05-01')", 33, "this range is empty");
    refused_at("range(uri, 'entities/b', 'a')", 25, "this range is empty");
    assert!(is_selected("range(attributes.a, 10, 10)", json!(10)));
}

#[test]
fn words_and_wildcards_ignore_case_and_find_what_they_are_of() {
    let is_selected = |text: &str| selects(text, json!({"a": "Dr. John-Paul O'NEILL, Berlin"}));
    for text in [
        "containsWordStartingWith(attributes.a, nei)",
        "containsWordStartingWith(attributes.a, 'berlin john-paul ne')",
        "fullText(attributes.a, 'munich berlin')",
        "contains(attributes.a, 'john*neill')",
        "contains(attributes.a, 'o?neill')",
    ] {
        assert!(is_selected(text), "{text}");
    }
    for text in [
        "containsWordStartingWith(attributes.a, 'ber john')",
        "containsWordStartingWith(attributes.a, eill)",
        "fullText(attributes.a, ber)",
        "contains(attributes.a, 'neill*john')",
    ] {
        assert!(!is_selected(text), "{text}");
    }
    refused_at("fullText(attributes.a, ' ,')", 23, "at least one word");
    refused_at("contains(attributes.a, '**')", 23, "besides `*`");
    refused_at("contains(attributes.a, '')", 23, "besides `*`");
    refused_at(r"contains(attributes.a, 'a\\b')", 23, "a backslash");
}

#[test]
fn an_expression_is_matched_in_full_and_its_fault_is_reported() {
    assert!(selects("regexp(attributes.a, 'Jo(h?)n{1,2}')", json!({"a": ["x", "Jonn"]})));
    assert!(
        !selects("regexp(attributes.a, 'jon')", json!({"a": "Jon"}))
            && !selects("regexp(attributes.a, 'o')", json!({"a": "Jon"}))
    );
    refused_at("regexp(attributes.a, 'a(b')", 21, "unclosed group, at its character 1");
    refused_at("regexp(attributes.a, '(a{200}){200}')", 21, "more than 1000 ways");
}

#[test]
fn a_list_in_a_file_is_refused() {
    refused_at(
        "listEquals(attributes.a, 'https://example.com/list.csv')",
        25,
        "a list in a file is not read",
    );
    refused_at(
        "listEqualsCaseSensitive(attributes.a, s3://bucket/list)",
        38,
        "a list in a file is not read",
    );
    assert!(selects("listEquals(attributes.a, 'https://a', B)", json!({"a": "b"})));
    assert!(
        selects("listEquals(attributes.a, 'x,y')", json!({"a": "X,Y"}))
            && !selects("listEqualsCaseSensitive(attributes.a, x)", json!({"a": "X"}))
    );
}

#[test]
fn conditions_in_one_value_hold_for_the_same_one() {
    let given = json!({"Address": [{"City": "Bonn", "Zip": "1"}, {"City": "Köln", "Zip": "2", "Geo": {"Lat": 1}}]});
    for (text, is_selected) in [
        (
            "inSameAttributeValue(equals(attributes.Address.City, bonn) and equals(attributes.Address.Zip, 1))",
            true,
        ),
        (
            "inSameAttributeValue(equals(attributes.Address.City, bonn) and equals(attributes.Address.Zip, 2))",
            false,
        ),
        ("equals(attributes.Address.City, bonn) and equals(attributes.Address.Zip, 2)", true),
        (
            "inSameAttributeValue(equals(attributes.Address.City, bonn) and not exists(attributes.Address.Geo.Lat))",
            true,
        ),
        (
            "inSameAttributeValue(missing(attributes.Address.Geo) and equals(attributes.Address.Zip, 2))",
            false,
        ),
        (
            "inSameAttributeValue(equals(attributes.Address.Zip, 2) and gt(attributes.Address.Geo.count, 0))",
            true,
        ),
        (
            "not inSameAttributeValue(missing(attributes.Office.City) or exists(attributes.Office.Zip))",
            true,
        ),
    ] {
        assert_eq!(selects(text, given.clone()), is_selected, "{text}");
        assert_eq!(parse(&parse(text).to_string()), parse(text));
    }
    refused_at("inSameAttributeValue(equals(attributes.A, x))", 0, "no nested attribute in common");
    refused_at(
        "inSameAttributeValue(equals(attributes.A.B, x) or equals(attributes.C.B, x))",
        0,
        "no nested attribute in common",
    );
    refused_at(
        "inSameAttributeValue(equals(type, x) and equals(attributes.C.B, x))",
        0,
        "no nested attribute in common",
    );
    refused_at(
        "not inSameAttributeValue(inSameAttributeValue(exists(attributes.A.B)))",
        4,
        "cannot contain another one",
    );
    refused_at("inSameAttributeValue()", 21, "unexpected `)`");
    refused_at(
        "inSameAttributeValue(exists(attributes.A.B)",
        43,
        "the parenthesis at position 20 is not closed",
    );
    refused_at("inSameAttributeValue(exists(attributes.A.B), x)", 43, "unexpected `,`");
}
