//! The meaning of a `google.api.http` rule: the RPC, and where each part of its messages is in a request and in the response.

use std::sync::Arc;

use http::Method;
use http::uri::PathAndQuery;
use prost_reflect::MessageDescriptor;

use super::json::{Cardinality, Field, FieldPath, Schema, Shape};
use super::mask::message_in;
use super::percent::UriPart;

/// An RPC that has routes.
#[derive(Debug)]
pub struct Rpc {
    /// `package.Service.Method`.
    pub name: String,
    /// Where it is called: `/package.Service/Method`.
    pub path: PathAndQuery,
    /// The JSON forms of its messages.
    pub schema: Arc<Schema>,
    /// The place of the request message in the schema.
    pub input: usize,
    /// The place of the response message in the schema.
    pub output: usize,
    /// The JSON form of the request message.
    pub input_shape: Shape,
    /// The JSON form of the response message.
    pub output_shape: Shape,
    /// True if the client sends a stream.
    pub client_streaming: bool,
    /// True if the server sends a stream.
    pub server_streaming: bool,
}

/// One HTTP rule of an RPC.
#[derive(Debug)]
pub struct Binding {
    /// The RPC.
    pub rpc: Arc<Rpc>,
    /// The HTTP method.
    pub method: Method,
    /// The path of the rule, such as `/v1/entities/{entity_id}`.
    pub path: String,
    /// The fields that the variables of the path are read into, in the order of the path.
    pub variables: Vec<(FieldPath, UriPart)>,
    /// The rule for the body of the request.
    pub body: BodyRule,
    /// The index of the field of the response message that is the body of the response; none if that is the whole message.
    pub response_body: Option<usize>,
    /// For a `PATCH` whose request message has an `update_mask`: the index of the field. A mask that is not given is made of the members of
    /// the body, so that a service can distinguish `null` from absent.
    pub update_mask: Option<usize>,
    /// The field of each message of a stream that says which line of the body it is from, by its place.
    pub line: Option<usize>,
    /// True if the body of the request is a `google.api.HttpBody`: bytes of any kind.
    pub takes_bytes: bool,
    /// True if the body of the response is a `google.api.HttpBody`.
    pub gives_bytes: bool,
    /// The field of the request message that says at which version the resource must be.
    pub expected_version: Option<FieldPath>,
    /// The only members of the response, by their places in the response message; none if all are reported.
    pub answer_members: Vec<usize>,
    /// The beginning of all paths of the contract, if it has no problem documents.
    pub plain_errors: Option<String>,
    /// The field of the response message, or of the field of it that is the response, that says which version the resource is at.
    pub version: Option<FieldPath>,
}

/// The rule for the body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyRule {
    /// A request has no body.
    None,
    /// The request message.
    Whole,
    /// This field of the request message, by its place.
    Field(usize),
}

impl Rpc {
    /// The type of the request message.
    pub fn input(&self) -> &MessageDescriptor {
        &self.schema.message(self.input).descriptor
    }

    /// The type of the response message.
    pub fn output(&self) -> &MessageDescriptor {
        &self.schema.message(self.output).descriptor
    }
}

impl Binding {
    /// Returns whether a field of the request message, by its place, is given by a body alone, be it by that of another rule.
    pub fn is_of_a_body(&self, index: usize) -> bool {
        self.body == BodyRule::Field(index)
            || self.rpc.schema.message(self.rpc.input).fields[index].body_only
    }

    /// Returns whether a query parameter without a value, such as `status=`, counts as missing: forms and templates write it for fields
    /// left open. Only where it can do no harm: the request changes nothing, and the value is one word of several, `true` and `false` among
    /// them.
    pub fn may_be_blank(&self, field: &Field) -> bool {
        self.method == Method::GET
            && matches!(
                (&field.cardinality, &field.shape),
                (Cardinality::Single { .. }, Shape::Enum(_) | Shape::Bool)
            )
    }

    /// The message that the update mask leads into: the body.
    pub fn masked(&self) -> Option<usize> {
        match self.body {
            BodyRule::Field(index) => {
                message_in(&self.rpc.schema.message(self.rpc.input).fields[index])
            }
            _ => Some(self.rpc.input),
        }
    }

    /// The field of the resource, as it is returned, that has this name in either spelling; none if a stream is returned.
    pub fn answered(&self, name: &str) -> Option<&Field> {
        let schema = &self.rpc.schema;
        let resource = match self.response_body {
            Some(index) => message_in(&schema.message(self.rpc.output).fields[index])?,
            None => self.rpc.output,
        };
        schema
            .message(resource)
            .find(name)
            .map(|(_, field)| field)
            .filter(|_| !self.rpc.server_streaming)
    }

    /// The same of one of many resources, of which a list is returned.
    pub fn answered_of_many(&self, name: &str) -> Option<&Field> {
        let schema = &self.rpc.schema;
        let many = schema.message(self.rpc.output).fields.iter().filter_map(|field| {
            match (&field.cardinality, &field.shape) {
                (Cardinality::List, Shape::Message(inner)) => Some(*inner),
                _ => None,
            }
        });
        many.flat_map(|resource| schema.message(resource).find(name)).map(|(_, field)| field).next()
    }

    /// Returns whether this path of a fault is that of the update mask.
    pub fn is_update_mask(&self, path: &str) -> bool {
        self.update_mask.is_some_and(|index| {
            self.rpc.schema.message(self.rpc.input).fields[index].descriptor.name() == path
        })
    }

    /// Spells a name in the description of the fault at this path. The description of a mask's fault contains its paths, which are not
    /// paths of the request.
    pub fn spell_in(&self, fault: &str, name: &str) -> String {
        match self.masked().filter(|_| self.is_update_mask(fault)) {
            Some(masked) => self.rpc.schema.spell(masked, name),
            None => self.spell(name),
        }
    }

    /// Spells the path of a fault as the caller knows it: a path within the body where the body is a field. A name alone may be that of a field
    /// anywhere in the request.
    pub fn spell(&self, path: &str) -> String {
        if !path.contains(['.', '['])
            && self.rpc.schema.message(self.rpc.input).find(path).is_none()
            && let Some(name) = self.rpc.schema.spell_name(self.rpc.input, path)
        {
            return name.to_owned();
        }
        let spelled = self.rpc.schema.spell(self.rpc.input, path);
        let inside = match self.body {
            BodyRule::Field(index) => {
                let field = &self.rpc.schema.message(self.rpc.input).fields[index].name;
                spelled
                    .strip_prefix(field.as_str())
                    .filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            }
            _ => None,
        };
        let spelled = inside.map(|inside| inside.trim_start_matches('.')).unwrap_or(&spelled);
        if spelled.is_empty() { "body".to_owned() } else { spelled.to_owned() }
    }
}
