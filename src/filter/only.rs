//! Which single value a property has on every record that satisfies a filter, as far as the filter says so by name.

use super::syntax::{Node, Value};

/// The value, of the property with this name. None if the filter leaves open which it is, or names several.
pub fn only<'f>(node: &'f Node, property: &str) -> Option<&'f Value> {
    match node {
        Node::Call(call)
            if call.path.property.name() == property && call.function.test.is_equality() =>
        {
            one_of(call.values.iter())
        }
        Node::And(conditions) => conditions.iter().find_map(|condition| only(condition, property)),
        Node::Or(conditions) => one_of(
            conditions
                .iter()
                .map(|condition| only(condition, property))
                .collect::<Option<Vec<_>>>()?
                .into_iter(),
        ),
        Node::Not(refused) => match &**refused {
            Node::Not(condition) => only(condition, property),
            _ => None,
        },
        Node::Call(_) | Node::SameValue { .. } => None,
    }
}

/// The first of these, if all are the same but for case.
fn one_of<'v>(mut values: impl Iterator<Item = &'v Value>) -> Option<&'v Value> {
    let first = values.next()?;
    values.all(|other| other.folded == first.folded).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::super::Filter;

    #[test]
    fn a_filter_that_is_of_one_type_names_it() {
        for filter in [
            "equals(type, 'HCP')",
            "equalsCaseSensitive(type, HCP) and exists(attributes.Name)",
            "exists(attributes.Name) and (missing(portfolio) and in(type, 'HCP'))",
            "in(type, 'HCP, hcp')",
            "listEquals(type, HCP)",
            "(equals(type, HCP) and exists(portfolio)) or equals(type, hcp)",
            "not(not(equals(type, HCP)))",
        ] {
            assert_eq!(Filter::parse(filter).unwrap().only_type(), Some("HCP"), "{filter}");
        }
        for filter in [
            "exists(attributes.Name)",
            "in(type, 'HCP,HCO')",
            "equals(type, HCP) or equals(type, HCO)",
            "equals(type, HCP) or exists(portfolio)",
            "not(equals(type, HCP))",
            "startsWith(type, HCP)",
            "gte(type, HCP)",
            "equals(attributes.type, HCP)",
            "equals(state, active)",
        ] {
            assert_eq!(Filter::parse(filter).unwrap().only_type(), None, "{filter}");
        }
    }
}
