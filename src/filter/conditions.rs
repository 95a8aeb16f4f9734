//! Every condition that callers can ask for: each function of the language on each property of a vocabulary. For the test of all SQL.

use diesel::pg::Pg;
use diesel::query_builder::QueryFragment;

use super::{FUNCTIONS, Filter, Function, Property, PropertyKind, Test, Vocabulary};

/// The conditions of a vocabulary, each with the filter that it was made of.
pub(crate) fn conditions(
    vocabulary: &'static Vocabulary,
) -> Vec<(String, Box<dyn QueryFragment<Pg>>)> {
    filters(vocabulary)
        .into_iter()
        .map(|(text, filter)| (text, Box::new(filter.predicate()) as Box<dyn QueryFragment<Pg>>))
        .collect()
}

/// The filters of a vocabulary: what a property does not take is left out.
pub(crate) fn filters(vocabulary: &'static Vocabulary) -> Vec<(String, Filter)> {
    let mut all = Vec::new();
    for property in vocabulary.properties {
        let texts = FUNCTIONS.iter().flat_map(|function| calls(property, function));
        let read: Vec<_> = texts
            .filter_map(|text| Some((text.clone(), Filter::parse_for(vocabulary, &text).ok()?)))
            .collect();
        assert!(!read.is_empty(), "no function takes `{}`", property.name());
        all.extend(read);
    }
    let texts: Vec<String> = all.iter().map(|(text, _)| text.clone()).take(4).collect();
    let mixed = format!("not ({}) and ({})", texts.join(" or "), texts.join(" and "));
    let filter =
        Filter::parse_for(vocabulary, &mixed).expect("what can be asked for alone can be combined");
    all.push((mixed, filter));
    all
}

fn calls(property: &Property, function: &Function) -> Vec<String> {
    let path = match property.kind {
        PropertyKind::Json => format!("{}.a.b", property.name()),
        _ => property.name().to_owned(),
    };
    if function.test == Test::SameValue {
        return vec![format!("{}(equals({path}, 'x') and gt({path}, 1))", function.name)];
    }
    let values: &[&str] = match (property.kind, property.values) {
        (_, [only, .., last]) => &[only, last],
        (PropertyKind::Number, _) => &["1", "2"],
        (PropertyKind::Time, _) => &["2024-01-01T00:00:00Z", "1700000000000"],
        (PropertyKind::Uri, _) => &["entities/e", "f"],
        (PropertyKind::Json, _) => &["x", "1.50", "2024-01-01"],
        (PropertyKind::Text, _) => &["x", "y z"],
    };
    let quoted =
        |values: &[&str]| values.iter().map(|value| format!(", '{value}'")).collect::<String>();
    let numbers = function.arity.clone().take(values.len() + 1);
    numbers
        .flat_map(|count| values.windows(count.max(1)).map(move |window| &window[..count]))
        .map(|values| format!("{}({path}{})", function.name, quoted(values)))
        .collect()
}
