use serde_json::json;

use super::*;

#[test]
fn what_protects_less_is_reported_from_what_protects_more() {
    for (path, from, to) in [
        ("default_grace_period", json!("3600s"), json!("10s")),
        ("default_grace_period", json!("3600s"), Value::Null),
        ("min_grace_period", json!("1.500s"), json!("1s")),
        ("hard_delete.expected_count", json!(true), json!(false)),
        ("soft_delete.max_objects", json!(5), json!(6)),
        ("soft_delete.max_objects", json!(5), Value::Null),
        ("hard_delete.preview_within", json!("60s"), json!("61s")),
        ("hard_delete.clean_report_within", json!("60s"), Value::Null),
    ] {
        assert!(protects_less(path, &from, &to), "{path} {from} {to}");
        assert!(
            !protects_less(path, &to, &from) && !protects_less(path, &from, &from),
            "{path} {from} {to}"
        );
    }
    assert!(
        !protects_less("max_grace_period", &json!("3600s"), &json!("60s")),
        "it bounds what callers ask for"
    );
    let question =
        question("acme (live)", true, &["min_grace_period: from 60s to none".to_owned()]);
    assert!(
        question
            .contains("acme (live) would be protected less: min_grace_period: from 60s to none\n"),
        "{question}"
    );
    assert!(question.ends_with("Change the removal policy of acme (live)? [y/N] "), "{question}");
}
