//! The attributes of entities that a filter names, and whether any entity has them. A name that no entity has is misspelt, as a rule, and a
//! negated condition on it is true for every entity.

use super::Filter;
use super::candidates::AttributePath;
use super::function::Test;
use super::named::visit as visit_with_denials;
use super::predicate::{Builder, Predicate};
use super::sql::predicate;
use super::sql_json::{Root, write_member};
use super::syntax::{Call, Node, Path};
use super::vocabulary::{ENTITY, Property, PropertyKind};

impl Filter {
    /// The attributes that it names, each once, in the order in which they stand. `attributes.A.count` names `A`.
    pub fn attributes(&self) -> Vec<AttributePath> {
        let mut named = Vec::new();
        visit(&self.root, &mut |call| {
            if call.path.property.kind == PropertyKind::Json && !call.path.names.is_empty() {
                let attribute = AttributePath::of(&Path { counted: false, ..call.path.clone() });
                if !named.contains(&attribute) {
                    named.push(attribute);
                }
            }
        });
        named
    }

    /// Those of them that an entity without them meets a condition for: a condition that asks for nothing there, denies something or counts.
    pub fn denied_attributes(&self) -> Vec<AttributePath> {
        let mut denied = Vec::new();
        visit_with_denials(&self.root, false, &mut |call, is_denied| {
            let is_json =
                call.path.property.kind == PropertyKind::Json && !call.path.names.is_empty();
            if is_json && (is_denied != (call.function.test == Test::Missing) || call.path.counted)
            {
                denied.push(AttributePath::of(&Path { counted: false, ..call.path.clone() }));
            }
        });
        denied
    }

    /// A condition on the type that every match meets, if the filter has one.
    pub fn type_condition(&self) -> Option<Predicate> {
        let members = match &self.root {
            Node::And(members) => members.as_slice(),
            only => std::slice::from_ref(only),
        };
        let of_type = |node: &&Node| matches!(node, Node::Call(call) if call.path.property.name() == "type" && call.function.test != Test::Missing);
        let mut conditions: Vec<Node> = members.iter().filter(of_type).cloned().collect();
        match conditions.len() {
            0 => None,
            1 => conditions.pop().as_ref().map(predicate),
            _ => Some(predicate(&Node::And(conditions))),
        }
    }
}

impl AttributePath {
    /// The path of these names; none without a name.
    pub fn of_names(names: Vec<String>) -> Option<AttributePath> {
        let property = attributes()?;
        (!names.is_empty()).then(|| AttributePath::of(&Path { property, names, counted: false }))
    }

    /// Returns whether an entity has anything there, be it empty: a condition on the column `attributes` of `e`.
    pub fn presence(&self) -> Predicate {
        let mut sql = Builder::default();
        let root = attributes().map_or("'{}'::jsonb", |property| property.sql);
        write_member(&mut sql, Root { sql: root, names: 0 }, &self.names);
        sql.finish()
    }
}

fn attributes() -> Option<&'static Property> {
    ENTITY.named("attributes")
}

/// Visits every call.
fn visit(node: &Node, visitor: &mut impl FnMut(&Call)) {
    match node {
        Node::And(members) | Node::Or(members) => {
            members.iter().for_each(|member| visit(member, visitor))
        }
        Node::Not(inner) | Node::SameValue { inner, .. } => visit(inner, visitor),
        Node::Call(call) => visitor(call),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Vec<String> {
        Filter::parse(text)
            .unwrap()
            .attributes()
            .into_iter()
            .map(|attribute| attribute.canonical)
            .collect()
    }

    #[test]
    fn every_attribute_is_named_once_wherever_it_stands() {
        let text = "not (missing(attributes.Naem) or equals(attributes.A.B, x)) and gt(attributes.A.count, 1) and exists(attributes.'First name') \
                    and inSameAttributeValue(exists(attributes.C.D) and exists(attributes.C.E)) and exists(attributes.Naem)";
        assert_eq!(named(text), ["Naem", "A.B", "A", "'First name'", "C.D", "C.E"]);
        assert_eq!(
            named("fullText(attributes, x) and equals(type, HCP) and exists(portfolio)"),
            [""; 0]
        );
    }

    #[test]
    fn what_an_entity_without_an_attribute_meets_is_denied() {
        let denied = |text: &str| -> Vec<String> {
            Filter::parse(text)
                .unwrap()
                .denied_attributes()
                .into_iter()
                .map(|attribute| attribute.canonical)
                .collect()
        };
        assert_eq!(
            denied(
                "missing(attributes.A) or not equals(attributes.B, x) or lt(attributes.C.count, 1)"
            ),
            ["A", "B", "C"]
        );
        assert_eq!(
            denied(
                "exists(attributes.A) and not missing(attributes.B) and equals(attributes.C, x)"
            ),
            [""; 0]
        );
    }

    #[test]
    fn a_type_counts_where_every_match_is_of_it() {
        let condition = |text: &str| Filter::parse(text).unwrap().type_condition().is_some();
        assert!(
            condition("equals(type, HCP)")
                && condition("missing(attributes.A) and equals(type, HCP) and in(type, 'HCP,HCO')")
        );
        assert!(
            !condition("equals(type, HCP) or missing(attributes.A)")
                && !condition("not equals(type, HCP)")
                && !condition("exists(uri)")
        );
    }

    #[test]
    fn a_path_is_of_its_names() {
        let path = |names: &[&str]| {
            AttributePath::of_names(names.iter().map(|name| (*name).to_owned()).collect())
        };
        assert_eq!(
            path(&["A", "First name"]).map(|path| path.canonical).as_deref(),
            Some("A.'First name'")
        );
        assert_eq!(path(&[]), None);
        let sql = path(&["A", "B"]).unwrap().presence().sql();
        assert_eq!(
            sql,
            "((e.attributes -> ? -> ?) IS NOT NULL OR COALESCE(jsonb_path_exists((e.attributes -> ?), ?), FALSE))"
        );
    }
}
