//! The request message, from the three places that it comes from: the path, the query and the body. The faults of all three are reported at
//! once.

mod query;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DynamicMessage, Value};

use super::binding::{Binding, BodyRule};
use super::json::{
    BELONGS, Cardinality, Decoded, Decoder, Fault, OWN, Shape, from_text, with_readable_numbers,
};
use super::percent::decode;
use super::{mask, raw};
use crate::error::{Error, Form, Violation, Violations, cut};

/// The parts of a request outside of its body.
#[derive(Debug)]
pub struct Target {
    /// The rule that it is read by.
    pub binding: Arc<Binding>,
    /// The variables of its path, still percent-encoded.
    pub variables: Vec<String>,
    /// Its query, still percent-encoded.
    pub query: Option<String>,
    /// The version that its resource must be at, by `If-Match`.
    pub expected_version: Option<i64>,
    /// True if its update mask is made of what its body names.
    pub mask_is_made: Arc<AtomicBool>,
    /// The metadata that its service gets besides its message.
    pub form: Form,
}

impl Target {
    /// Makes the request message with a body; an empty body counts as none, and is refused where one is required. If there are faults, the message is
    /// the readable part; fails if nothing of the body was readable.
    pub fn message(&self, body: &[u8]) -> Result<(DynamicMessage, Violations), Error> {
        let mut message = DynamicMessage::new(self.binding.rpc.input().clone());
        let mut violations = Violations::new();
        let members = self.read_body(body, &mut message, &mut violations)?;
        self.read_target(&mut message, &mut violations);
        let Some(members) = members else { return Err(Error::validation(violations)) };
        let violations = self.read_mask(members, &mut message, violations);
        Ok((message, violations))
    }

    /// The faults of a request before its body is read.
    pub fn faults(&self) -> Violations {
        let mut violations = Violations::new();
        self.read_target(
            &mut DynamicMessage::new(self.binding.rpc.input().clone()),
            &mut violations,
        );
        violations
    }

    /// Says which line of the body a message is from.
    pub fn set_line(&self, message: &mut DynamicMessage, number: u64) {
        let rpc = &self.binding.rpc;
        if let Some(index) = self.binding.line {
            message.set_field(
                &rpc.schema.message(rpc.input).fields[index].descriptor,
                Value::I64(i64::try_from(number).unwrap_or(i64::MAX)),
            );
        }
    }

    /// Makes the request message with a body that is a `google.api.HttpBody`.
    pub fn message_of_bytes(
        &self,
        content_type: &str,
        data: Bytes,
    ) -> Result<DynamicMessage, Error> {
        let mut message = DynamicMessage::new(self.binding.rpc.input().clone());
        let mut violations = Violations::new();
        raw::fill(&self.binding, &mut message, content_type, data);
        self.read_target(&mut message, &mut violations);
        violations.check()?;
        Ok(message)
    }

    /// Reads all but the body.
    fn read_target(&self, message: &mut DynamicMessage, violations: &mut Violations) {
        self.read_path(message, violations);
        self.read_query(message, violations);
        self.read_version(message, violations);
    }

    /// Reads the body, and reports the members that it had, by their proto names; none if it is not what a body must be at all.
    fn read_body(
        &self,
        body: &[u8],
        message: &mut DynamicMessage,
        violations: &mut Violations,
    ) -> Result<Option<Vec<String>>, Error> {
        if let Some(fault) = byte_order_mark(body) {
            violations.add("body", "invalid_json", fault);
            return Ok(None);
        }
        let body = &*with_readable_numbers(body.trim_ascii());
        let rpc = &self.binding.rpc;
        let schema = &*rpc.schema;
        if body.is_empty() {
            let BodyRule::Field(index) = self.binding.body else { return Ok(Some(Vec::new())) };
            let Fault { code, description } =
                Fault::no_body(schema.message(rpc.input).fields[index].filled);
            violations.add("body", code, description);
            return Ok(None);
        }
        let mut root = "";
        let (members, found) = match self.binding.body {
            BodyRule::None => {
                if body != b"{}" {
                    violations.add("body", "unexpected", "this request takes no body");
                }
                return Ok(Some(Vec::new()));
            }
            BodyRule::Whole if !matches!(rpc.input_shape, Shape::Message(_)) => {
                let decoded = Decoder::new(schema, body, "").whole(&rpc.input_shape);
                match decoded.value {
                    Some(Value::Message(whole)) => *message = whole,
                    // A free-form value, which this is the message of.
                    Some(Value::Bytes(whole)) => message.merge(whole).map_err(Error::internal)?,
                    _ => {}
                }
                (Vec::new(), decoded.violations)
            }
            BodyRule::Whole => {
                let mut decoded = Decoder::new(schema, body, "").message(rpc.input, message);
                self.form.report_void(std::mem::take(&mut decoded.void));
                (self.named(rpc.input, &decoded, body), decoded.violations)
            }
            BodyRule::Field(index) => {
                let field = &schema.message(rpc.input).fields[index];
                root = field.descriptor.name();
                let decoder = Decoder::new(schema, body, root);
                match (&field.cardinality, &field.shape) {
                    (Cardinality::Single { .. }, Shape::Message(inner)) => {
                        let holder = message
                            .get_field_mut(&field.descriptor)
                            .as_message_mut()
                            .expect("the field is a message");
                        let mut decoded = decoder.message(*inner, holder);
                        self.form.report_void(std::mem::take(&mut decoded.void));
                        (self.named(*inner, &decoded, body), decoded.violations)
                    }
                    _ => (Vec::new(), decoder.field(field, message).violations),
                }
            }
        };
        let is_none = found.as_slice().iter().any(|fault| fault.field == root);
        violations.extend(&found.map(|fault| match fault.field.is_empty() {
            true => Violation { field: "body".to_owned(), ..fault },
            false => self.with_hint(root, fault),
        }));
        Ok((!is_none).then_some(members))
    }

    fn read_path(&self, message: &mut DynamicMessage, violations: &mut Violations) {
        let schema = &self.binding.rpc.schema;
        for ((path, index), text) in self.binding.variables.iter().zip(&self.variables) {
            let field = schema.field_at(path);
            let name = schema.path_name(path);
            let Ok(text) = decode(text, *index) else {
                violations.add(name, "invalid", "must be percent-encoded UTF-8");
                continue;
            };
            if text.contains('\0') {
                violations.add(name, "invalid", "must not have the character U+0000");
                continue;
            }
            match from_text(&field.shape, &text) {
                Err(fault) => violations.add(name, fault.code, fault.description),
                Ok(value) => {
                    let holder = schema.holder_mut(message, path);
                    let in_body = holder
                        .has_field(&field.descriptor)
                        .then(|| holder.get_field(&field.descriptor).into_owned());
                    if let Some(in_body) = in_body.filter(|in_body| *in_body != value) {
                        let says = in_body
                            .as_str()
                            .map(|says| format!(", which says `{}`", cut(says)))
                            .unwrap_or_default();
                        violations.add(
                            name,
                            "conflict",
                            format!(
                                "differs between the path, which says `{}`, and the body{says}",
                                cut(&text)
                            ),
                        );
                    } else {
                        holder.set_field(&field.descriptor, value);
                    }
                }
            }
        }
    }

    fn read_version(&self, message: &mut DynamicMessage, violations: &mut Violations) {
        let (Some(version), Some(path)) = (self.expected_version, &self.binding.expected_version)
        else {
            return;
        };
        let schema = &self.binding.rpc.schema;
        let field = schema.field_at(path);
        let holder = schema.holder_mut(message, path);
        let given = holder
            .has_field(&field.descriptor)
            .then(|| holder.get_field(&field.descriptor).as_i64())
            .flatten();
        if let Some(given) = given.filter(|given| *given != version) {
            let description = format!(
                "differs between `If-Match`, which says {version}, and the request, which says {given}"
            );
            violations.add(schema.path_name(path), "conflict", description);
        } else {
            holder.set_field(&field.descriptor, Value::I64(version));
        }
    }

    /// Describes why a body, whose members are at `root`, must not have a member that the resource has; and that it belongs into the query,
    /// where the query has it: a caller with it in the body would expect a dry run.
    fn with_hint(&self, root: &str, mut fault: Violation) -> Violation {
        let name = within(root, &fault.field);
        if fault.code != "unknown_field" {
            return fault;
        }
        let answered = self.binding.answered(name);
        if let Some(field) = answered.filter(|_| self.binding.update_mask.is_some()) {
            fault.description =
                format!("cannot be changed here{}", self.version_hint(field.descriptor.name()));
            return fault;
        }
        let of_many = || {
            name.rsplit_once('.')
                .filter(|(way, _)| way.contains(']'))
                .and_then(|(_, last)| self.binding.answered_of_many(last))
        };
        if fault.description.contains(OWN) && (answered.is_some() || of_many().is_some()) {
            fault.description = "cannot be given here".to_owned();
        }
        if !fault.description.contains("did you mean") && !fault.description.contains(BELONGS) {
            let field = |path| self.binding.rpc.schema.field_at(&path).name.as_str();
            // One within an object is not a parameter by a path, but its name may be one.
            let last = name.rsplit('.').next().filter(|last| *last != name);
            let by_its_name = || last.and_then(|last| self.parameter(last)).map(field);
            if let Some(parameter) =
                self.parameter(name).map(field).or_else(|| self.meant(name)).or_else(by_its_name)
            {
                // It is not one of the caller's own.
                let reported = fault.description.split("; ").next().unwrap_or_default();
                fault.description = format!("{reported}; `{parameter}` is a query parameter");
            }
        }
        fault
    }

    /// The place for the expected version, for callers who have sent the version of the resource.
    fn version_hint(&self, name: &str) -> String {
        let schema = &self.binding.rpc.schema;
        match (&self.binding.version, &self.binding.expected_version) {
            (Some(version), Some(expected))
                if schema.field_at(version).descriptor.name() == name =>
            {
                format!(
                    "; the version that it must be at goes into `{}`",
                    schema.path_name(expected)
                )
            }
            _ => String::new(),
        }
    }

    /// The members that a body names, and for a mask also those of messages within them. A body with faults has no effect, and is not read
    /// again.
    fn named(&self, message: usize, decoded: &Decoded<Vec<usize>>, body: &[u8]) -> Vec<String> {
        let schema = &*self.binding.rpc.schema;
        let named = decoded
            .value
            .iter()
            .map(|index| schema.message(message).fields[*index].descriptor.name().to_owned())
            .collect();
        let is_sound = decoded.violations.is_empty();
        if is_sound && self.binding.update_mask.is_some() {
            mask::inner(schema, message, named, body)
        } else {
            named
        }
    }

    /// Makes the mask name fields as their proto does; without a mask, it is the members of the body. Returns the remaining faults.
    fn read_mask(
        &self,
        mut members: Vec<String>,
        message: &mut DynamicMessage,
        violations: Violations,
    ) -> Violations {
        let rpc = &self.binding.rpc;
        let mask = self
            .binding
            .update_mask
            .map(|index| &rpc.schema.message(rpc.input).fields[index].descriptor);
        let (Some(mask), Some(masked)) = (mask, self.binding.masked()) else { return violations };
        let given = message.has_field(mask).then(|| message.get_field(mask).into_owned());
        let given =
            given.as_ref().and_then(Value::as_message).and_then(|mask| mask.get_field_by_number(1));
        let (paths, violations) = match given.as_deref().and_then(Value::as_list) {
            Some(paths) => {
                let paths: Vec<_> = paths
                    .iter()
                    .filter_map(Value::as_str)
                    .map(|path| mask::in_proto_names(&rpc.schema, masked, path))
                    .collect();
                let left = self.without_unnamed(&paths, violations);
                (paths, left)
            }
            None => {
                // One that cannot be read was sent all the same.
                self.mask_is_made.store(
                    violations.as_slice().iter().all(|fault| fault.field != mask.name()),
                    Relaxed,
                );
                members.retain(|member| member != mask.name());
                (members, violations)
            }
        };
        let paths = paths.into_iter().map(Value::String).collect();
        if let Some(mask) = message.get_field_mut(mask).as_message_mut() {
            mask.set_field_by_number(1, Value::List(paths));
        }
        violations
    }

    /// The faults but for those of members that the resource has as it is returned, and that the mask does not name: callers read a resource, change a
    /// member and send the whole.
    fn without_unnamed(&self, paths: &[String], violations: Violations) -> Violations {
        // Those that are not reported may be others.
        if paths.is_empty() || violations.left_out() > 0 {
            return violations;
        }
        let binding = &self.binding;
        let root = match binding.body {
            BodyRule::Field(index) => {
                binding.rpc.schema.message(binding.rpc.input).fields[index].descriptor.name()
            }
            _ => "",
        };
        let name_of = |path: &str| {
            binding
                .answered(path.split('.').next().unwrap_or_default())
                .map(|field| field.name.clone())
        };
        let named: HashSet<String> = paths.iter().filter_map(|path| name_of(path)).collect();
        let is_unnamed = |fault: &Violation| {
            let field = binding.answered(within(root, &fault.field));
            fault.code == "unknown_field" && field.is_some_and(|field| !named.contains(&field.name))
        };
        violations.filter(|fault| !is_unnamed(fault))
    }
}

/// The path within the message at `root`.
fn within<'p>(root: &str, path: &'p str) -> &'p str {
    path.strip_prefix(root).map(|path| path.trim_start_matches('.')).unwrap_or_default()
}

/// The faults of a body that begins with a byte order mark. No editor shows it, so its sender has to be reported.
fn byte_order_mark(body: &[u8]) -> Option<&'static str> {
    match body {
        [0xef, 0xbb, 0xbf, ..] => Some(
            "must be JSON without a byte order mark: it begins with U+FEFF (RFC 8259, section 8.1)",
        ),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            Some("must be JSON in UTF-8: it begins with the byte order mark of UTF-16")
        }
        _ => None,
    }
}
