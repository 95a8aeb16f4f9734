//! The query of a request: its parameters, and what an unknown one probably means.

use std::collections::HashSet;

use prost_reflect::DynamicMessage;

use super::Target;
use crate::error::{Violations, cut, nearest};
use crate::gateway::binding::BodyRule;
use crate::gateway::json::{Cardinality, Fault, FieldPath, Shape, from_text};
use crate::gateway::percent::{UriPart, decode};
use crate::gateway::plus;

impl Target {
    pub(super) fn read_query(&self, message: &mut DynamicMessage, violations: &mut Violations) {
        let mut seen = HashSet::new();
        let query = self.query.as_deref().unwrap_or_default();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, text) = parameter.split_once('=').unwrap_or((parameter, ""));
            if name.is_empty() {
                violations.add(
                    "query",
                    "unknown_parameter",
                    "has a value without a name: a parameter is `name=value`",
                );
                continue;
            }
            let Ok(name) = decode(name, UriPart::Query) else {
                violations.add(cut(name), "unknown_parameter", "must be percent-encoded UTF-8");
                continue;
            };
            let Some(path) = self.parameter(&name) else {
                let hint = self.meant(&name).map(|meant| format!("; did you mean `{meant}`?"));
                let hint = hint
                    .or_else(|| {
                        self.place_in_body(&name)
                            .map(|index| format!("; it goes into the body as `{index}`"))
                    })
                    .unwrap_or_default();
                let name = cut(&name);
                let description = format!("unknown query parameter `{name}`{hint}");
                violations.add(name, "unknown_parameter", description);
                continue;
            };
            let encoded = text;
            let Ok(text) = decode(encoded, UriPart::Query) else {
                violations.add(name, "invalid", "must be percent-encoded UTF-8");
                continue;
            };
            if plus::is_ambiguous(encoded) {
                violations.add(name, "ambiguous", format!("has `+` and `%20`: {}", plus::HINT));
                continue;
            }
            let schema = &self.binding.rpc.schema;
            let field = schema.field_at(&path);
            if text.is_empty() && self.binding.may_be_blank(field) {
                continue;
            }
            if text.is_empty() && field.guard {
                let Fault { code, description } = Fault::no_guard();
                violations.add(name, code, description);
                continue;
            }
            let is_list = matches!(field.cardinality, Cardinality::List);
            if !seen.insert(schema.path_name(&path)) && !is_list {
                violations.add(name, "duplicate", "is given twice");
                continue;
            }
            let value = match from_text(&field.shape, &text) {
                Ok(value) => value,
                Err(fault) => {
                    violations.add(name, fault.code, fault.description);
                    continue;
                }
            };
            let holder = schema.holder_mut(message, &path);
            if is_list {
                holder
                    .get_field_mut(&field.descriptor)
                    .as_list_mut()
                    .expect("the field is a list")
                    .push(value);
            } else if let Some(rival) = schema.rival(field, holder) {
                violations.add(name, rival.code, rival.description);
            } else {
                holder.set_field(&field.descriptor, value);
            }
        }
    }

    /// The parameter that a misspelt name probably means, in the spelling of the service.
    pub(super) fn meant(&self, name: &str) -> Option<&str> {
        let rpc = &self.binding.rpc;
        let names = rpc.schema.message(rpc.input).fields.iter().map(|field| field.name.as_str());
        nearest(name, names.filter(|known| self.parameter(known).is_some()))
    }

    /// The place in a body for a member that is not a parameter, in proto names from the top of the request.
    fn place_in_body(&self, name: &str) -> Option<String> {
        let rpc = &self.binding.rpc;
        let index = match self.binding.body {
            BodyRule::None => return None,
            BodyRule::Whole => {
                let path = rpc.schema.resolve(rpc.input, name).filter(FieldPath::is_top)?;
                let is_in_path =
                    self.binding.variables.iter().any(|(variable, _)| *variable == path);
                return (!is_in_path).then(|| rpc.schema.path_name(&path));
            }
            BodyRule::Field(index) => index,
        };
        let field = &rpc.schema.message(rpc.input).fields[index];
        let (Cardinality::Single { .. }, Shape::Message(inner)) =
            (&field.cardinality, &field.shape)
        else {
            return None;
        };
        let direct = || {
            rpc.schema
                .message(*inner)
                .find(name)
                .map(|(_, field)| field.descriptor.name().to_owned())
        };
        let way = direct().or_else(|| rpc.schema.way_down(*inner, name))?;
        Some(format!("{}.{way}", field.descriptor.name()))
    }

    /// The field that a query parameter gives: one that neither the path nor the body can.
    pub(super) fn parameter(&self, name: &str) -> Option<FieldPath> {
        let binding = &self.binding;
        let path = binding.rpc.schema.resolve(binding.rpc.input, name)?;
        let is_in_path = binding.variables.iter().any(|(variable, _)| *variable == path);
        let field = binding.rpc.schema.field_at(&path);
        let has_text_form =
            !matches!(field.cardinality, Cardinality::Map(_)) && !field.shape.is_document();
        let is_in_body = binding.body == BodyRule::Whole || binding.is_of_a_body(path.first());
        (!is_in_body && !is_in_path && has_text_form).then_some(path)
    }
}
