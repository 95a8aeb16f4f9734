//! Which values a filter names that records may have or not. One that nothing has is misspelt, as a rule, and a condition that denies it
//! then excludes nobody.

use super::candidates::Lookup;
use super::function::{FUNCTIONS, Test};
use super::predicate::Predicate;
use super::sql::predicate;
use super::syntax::{Call, Node, Path, Value};
use super::vocabulary::{ENTITY, PropertyKind};
use super::{Filter, fold};

/// A value of entities that a filter names by one of its functions of equality, or denies by one that looks for texts.
#[derive(Clone, Debug)]
pub struct NamedValue {
    /// Where entities have it: `type`, `uri`, `portfolio` or the path of an attribute, as it is written in a filter.
    pub path: String,
    /// The value; of a URI, the id.
    pub value: String,
    /// The condition that names it, if it asks for more than this value.
    pub condition: Option<String>,
    /// True if the filter matches those that do not have it: it is there to exclude those that do.
    pub denied: bool,
    /// Whether another case is another value.
    pub is_exact: bool,
    /// Whether an entity has it, as a condition on `e`.
    pub predicate: Predicate,
    /// The keys by which an index over the attribute finds it; none where it is not a value of one attribute.
    pub lookups: Vec<Lookup>,
}

impl Filter {
    /// The values that it names, each once: those of types and portfolios wherever they stand, and those of URIs, attributes and all
    /// functions but those of order where they are denied. States are not among them: one that does not exist is not a filter.
    pub fn named_values(&self) -> Vec<NamedValue> {
        let mut named: Vec<NamedValue> = Vec::new();
        visit(self.root(), false, &mut |call, denied| {
            let (name, kind) = (call.path.property.name(), call.path.property.kind);
            let is_reported = match kind {
                PropertyKind::Text => {
                    matches!(name, "type" | "portfolio")
                        && (denied || call.function.test.is_equality())
                }
                PropertyKind::Uri => denied,
                PropertyKind::Json => denied && !call.path.counted,
                PropertyKind::Number | PropertyKind::Time => false,
            };
            if !is_reported || call.function.test.is_order() || call.function.test.is_presence() {
                return;
            }
            for value in &call.values {
                let value = NamedValue::of(call, value, denied);
                match named.iter_mut().find(|other| other.is_same(&value)) {
                    Some(other) => other.denied |= denied,
                    None => named.push(value),
                }
            }
        });
        named
    }
}

impl NamedValue {
    fn of(call: &Call, value: &Value, denied: bool) -> NamedValue {
        let is_uri = call.path.property.kind == PropertyKind::Uri;
        let single = Call { values: vec![value.clone()], ..call.clone() };
        let named =
            if is_uri { value.uri_id(call.function.test == Test::Equals) } else { value.clone() };
        let is_equality = call.function.test.is_equality();
        let found = |call| {
            Filter { root: Node::Call(call) }.candidates(&|_| true).into_iter().flatten().collect()
        };
        NamedValue {
            path: call.path.to_string(),
            value: named.text,
            condition: (!is_equality).then(|| single.to_string()),
            denied,
            is_exact: call.function.test == Test::EqualsCaseSensitive,
            lookups: if is_equality { found(single.clone()) } else { Vec::new() },
            predicate: predicate(&Node::Call(single)),
        }
    }

    /// A type that is meant by any of these spellings, of which the first is reported.
    pub fn of_type(spellings: &[String]) -> Option<NamedValue> {
        let property = ENTITY.named("type")?;
        let function =
            FUNCTIONS.iter().find(|function| function.test == Test::EqualsCaseSensitive)?;
        let values: Vec<Value> = spellings.iter().map(Value::new).collect();
        let call = Call {
            function,
            path: Path { property, names: Vec::new(), counted: false },
            values,
            pattern: None,
        };
        let value = spellings.first()?.clone();
        let (path, predicate) = ("type".to_owned(), predicate(&Node::Call(call)));
        Some(NamedValue {
            path,
            value,
            condition: None,
            denied: false,
            is_exact: true,
            predicate,
            lookups: Vec::new(),
        })
    }

    /// Whether another one asks for the same.
    fn is_same(&self, other: &NamedValue) -> bool {
        let is_same_value = if self.is_exact {
            self.value == other.value
        } else {
            fold(&self.value) == fold(&other.value)
        };
        (&self.path, &self.condition, self.is_exact)
            == (&other.path, &other.condition, other.is_exact)
            && is_same_value
    }
}

/// Visits every call, with whether an odd number of negations is before it.
pub(super) fn visit(node: &Node, denied: bool, visitor: &mut impl FnMut(&Call, bool)) {
    match node {
        Node::And(members) | Node::Or(members) => {
            members.iter().for_each(|member| visit(member, denied, visitor))
        }
        Node::Not(inner) => visit(inner, !denied, visitor),
        Node::SameValue { inner, .. } => visit(inner, denied, visitor),
        Node::Call(call) => visitor(call, denied),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Vec<String> {
        let shown = |value: NamedValue| {
            format!("{}{} {}", if value.denied { "not " } else { "" }, value.path, value.value)
        };
        Filter::parse(text).unwrap().named_values().into_iter().map(shown).collect()
    }

    #[test]
    fn values_that_are_denied_are_named_and_types_and_portfolios_wherever_they_stand() {
        assert_eq!(
            named(
                "equals(type, a) and not (in(portfolioId, 'p,q') or not (equals(uri, x) and equals(attributes.A, y)))"
            ),
            ["type a", "not portfolio p", "not portfolio q"]
        );
        assert_eq!(
            named(
                "not listEquals(uri, entities/x, y) and not equals(attributes.'First name', 'Ada') and not equals(attributes, z)"
            ),
            ["not uri x", "not uri y", "not attributes.'First name' Ada", "not attributes z"]
        );
        assert_eq!(named("equals(type, a) and not equals(type, A)"), ["not type a"]);
        assert_eq!(
            named("not equals(uri, a) and not equalsCaseSensitive(uri, A)"),
            ["not uri a", "not uri A"]
        );
        assert_eq!(
            named(
                "not (equals(state, active) or gt(createdTime, 0) or gt(type, a) or equals(attributes.A.count, 1))"
            ),
            [""; 0]
        );
        assert_eq!(
            named(
                "startsWith(type, a) and contains(uri, b) and not (exists(attributes.A) or gt(attributes.A, b))"
            ),
            [""; 0]
        );
    }

    #[test]
    fn what_looks_for_texts_is_named_where_it_is_denied() {
        let filter = "not (startsWith(type, a) or equals(type, a) or contains(uri, 'entities/b') or fullText(attributes.A, 'c d'))";
        let conditions = Filter::parse(filter)
            .unwrap()
            .named_values()
            .into_iter()
            .map(|value| value.condition.unwrap_or_default());
        let written = [
            "startsWith(type, 'a')",
            "",
            "contains(uri, 'entities/b')",
            "fullText(attributes.A, 'c d')",
        ];
        assert_eq!(conditions.collect::<Vec<_>>(), written);
        assert_eq!(named("not regexp(portfolio, 'p.*')"), ["not portfolio p.*"]);
    }

    #[test]
    fn a_value_of_one_attribute_is_found_by_an_index() {
        let values = Filter::parse("not (equals(attributes.A.B, x) or equals(attributes, y))")
            .unwrap()
            .named_values();
        assert_eq!(values.iter().map(|value| value.lookups.len()).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(values[0].lookups[0].attribute, "A.B");
    }
}
