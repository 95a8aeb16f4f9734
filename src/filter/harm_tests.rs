//! What is refused because it would do harm without saying so.

use super::tests::{parse, refused_at};

#[test]
fn the_expressions_of_a_filter_are_bounded_together() {
    let expression = |size: usize| format!("regexp(attributes.a, '.{{{size}}}')");
    let (two_fifths, fifth) = (format!("{0} or {0}", expression(200)), expression(200));
    parse(&format!("({two_fifths}) and not ({two_fifths} or {fifth})"));
    let three = format!("{0} or {0} or regexp(type, '(.?){{30}}a{{37}}')", expression(250));
    refused_at(&three, 68, "together with those before it");
    refused_at("inSameAttributeValue(regexp(attributes.a.b, '.{250}{3}') and regexp(attributes.a.c, '.{251}'))", 61, "together with");
    let many = |count: usize| vec!["regexp(type, a)"; count].join(" or ");
    parse(&many(24));
    refused_at(&many(25), 24 * 19, "more than 24 expressions");
}
