//! The `+` of a query, which is a space (HTML's form encoding), explained to those who may have meant a plus sign.

use serde_json::{Map, Value};

use super::percent::{UriPart, decode};

/// The hint beside a fault of a value that had a `+`.
pub const HINT: &str = "in a query `+` is a blank; write `%2B` for a plus sign";

/// Returns whether a value, still percent-encoded, is ambiguous: a caller who writes spaces as `+` does not write them as `%20` as well, so
/// the `+` beside a `%20` may be a plus sign that was not encoded.
pub fn is_ambiguous(encoded: &str) -> bool {
    encoded.contains('+') && encoded.contains("%20")
}

/// The parameters of a query whose values contain a `+`.
pub fn parameters(query: &str) -> Vec<String> {
    let with_plus = query
        .split('&')
        .filter_map(|parameter| parameter.split_once('='))
        .filter(|(_, value)| value.contains('+'));
    with_plus
        .filter_map(|(name, _)| decode(name, UriPart::Query).ok().map(|name| name.into_owned()))
        .collect()
}

/// Adds the hint to the faults of a problem that lie in these parameters. Those that have it already stay as they are.
pub fn explain(document: &mut Map<String, Value>, parameters: &[String]) {
    let is_meant = |fault: &Value| {
        let field = fault.get("field").and_then(Value::as_str);
        field.is_some_and(|field| parameters.iter().any(|parameter| parameter == field))
    };
    let Some(faults) = document.get_mut("errors").and_then(Value::as_array_mut) else { return };
    let count = faults.len();
    let mut reported = false;
    for fault in faults.iter_mut().filter(|fault| is_meant(fault)) {
        reported = true;
        for member in ["message", "description"] {
            if let Some(Value::String(text)) = fault.get_mut(member)
                && !text.contains(HINT)
            {
                text.push_str(&format!(" ({HINT})"));
            }
        }
    }
    if let (true, 1, Some(Value::String(detail))) = (reported, count, document.get_mut("detail"))
        && !detail.contains(HINT)
    {
        // The caret of a filter points up from its own line.
        let between = if detail.contains('\n') { "\n" } else { " " };
        detail.push_str(&format!("{between}({HINT})"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parameters_with_a_plus_are_found_by_their_names() {
        assert_eq!(parameters("a=1+2&b=%2B&c&page%54oken=x+y&+=z"), ["a", "pageToken"]);
        assert!(is_ambiguous("a+b%20c") && !is_ambiguous("a+b") && !is_ambiguous("a%2Bb%20c"));
    }

    #[test]
    fn only_what_lies_in_such_a_parameter_is_explained() {
        let faults = json!({"code": "validation_failed", "detail": "The request has 2 faults.", "errors": [
            {"field": "subject", "message": "subject: must be an id", "description": "must be an id"},
            {"field": "max", "message": "max: must be at least 1", "description": "must be at least 1"},
        ]});
        let Value::Object(mut document) = faults else { unreachable!() };
        explain(&mut document, &["subject".to_owned()]);
        assert_eq!(document["errors"][0]["description"], format!("must be an id ({HINT})"));
        assert_eq!(
            (&document["errors"][1]["description"], &document["detail"]),
            (&json!("must be at least 1"), &json!("The request has 2 faults."))
        );
        let again = document.clone();
        explain(&mut document, &["subject".to_owned()]);
        assert_eq!(document, again);
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_explained_behind_its_caret() {
        let filter = json!({"code": "invalid_filter", "detail": "a value is missing\nx( )\n  ^", "errors": [
            {"field": "filter", "code": "invalid_filter", "message": "filter: a value is missing", "description": "a value is missing"},
        ]});
        let Value::Object(mut document) = filter else { unreachable!() };
        let before = document.clone();
        explain(&mut document, &["subject".to_owned()]);
        assert_eq!(document, before);
        explain(&mut document, &["filter".to_owned()]);
        assert_eq!(document["detail"], format!("a value is missing\nx( )\n  ^\n({HINT})"));
        assert_eq!(
            document["errors"][0]["message"],
            format!("filter: a value is missing ({HINT})")
        );
    }
}
