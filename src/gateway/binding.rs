//! The `google.api.http` rules of a descriptor set, as routes.

use std::sync::Arc;

use http::Method;
use http::uri::PathAndQuery;
use prost_reflect::{DescriptorPool, DynamicMessage, ExtensionDescriptor, MessageDescriptor, MethodDescriptor, ServiceDescriptor, Value};

use super::json::{Cardinality, FieldPath, Schema, SchemaError, Shape, Style};
use super::percent::Place;
use super::route::Router;
use super::template::Template;

/// A rule that cannot be obeyed. The text names the RPC.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A path is no path template.
    #[error("{rpc}: the path `{path}` cannot be read: {fault}")]
    Template {
        /// The RPC, as `package.Service.Method`.
        rpc: String,
        /// The path.
        path: String,
        /// What is wrong with it.
        fault: String,
    },
    /// A rule does not fit the messages of its RPC.
    #[error("{rpc}: {fault}")]
    Rule {
        /// The RPC, as `package.Service.Method`.
        rpc: String,
        /// What is wrong with it.
        fault: String,
    },
    /// Two RPCs have the same route.
    #[error("{rpc}: {method} {path} leads to {other} already")]
    Taken {
        /// The RPC, as `package.Service.Method`.
        rpc: String,
        /// The HTTP method.
        method: Method,
        /// The path, with `*` for each variable.
        path: String,
        /// The other RPC.
        other: String,
    },
    /// A message holds what has no JSON form.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

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
    /// Whether the client sends a stream.
    pub client_streaming: bool,
    /// Whether the server sends a stream.
    pub server_streaming: bool,
}

/// One HTTP rule of an RPC.
#[derive(Debug)]
pub struct Binding {
    /// The RPC.
    pub rpc: Arc<Rpc>,
    /// The path of the rule, such as `/v1/entities/{entity_id}`.
    pub path: String,
    /// The fields that the variables of the path are read into, in the order of the path.
    pub variables: Vec<(FieldPath, Place)>,
    /// What the body of the request is.
    pub body: BodyRule,
    /// The field of the response message that is the body of the answer, by its place; the whole message if there is none.
    pub response_body: Option<usize>,
    /// For a `PATCH` whose request message has an `update_mask`: the field, by its place. A mask that is not given is made of the members of
    /// the body, so that a service can tell `null` from absent.
    pub update_mask: Option<usize>,
}

/// What the body of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyRule {
    /// There is none.
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
    /// Spells the path of a fault as the caller knows it: a path within the body where the body is a field.
    pub fn spell(&self, path: &str) -> String {
        let spelled = self.rpc.schema.spell(self.rpc.input, path);
        let inside = match self.body {
            BodyRule::Field(place) => {
                let field = &self.rpc.schema.message(self.rpc.input).fields[place].name;
                spelled.strip_prefix(field.as_str()).filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            }
            _ => None,
        };
        let spelled = inside.map(|inside| inside.trim_start_matches('.')).unwrap_or(&spelled);
        if spelled.is_empty() { "body".to_owned() } else { spelled.to_owned() }
    }
}

/// Makes the routes of every RPC that has a rule, in every service that declares a spelling.
pub fn routes(pool: &DescriptorPool) -> Result<Router<Arc<Binding>>, BuildError> {
    let mut router = Router::default();
    let extension = |name| pool.get_extension_by_name(name);
    let (Some(http), Some(json_style)) = (extension("google.api.http"), extension("offboard.v1.json_style")) else {
        return Ok(router);
    };
    for style in [Style::SnakeCase, Style::CamelCase] {
        let methods = || {
            let services = pool.services().filter(|service| style_of(service, &json_style) == Some(style));
            services.flat_map(|service| service.methods().collect::<Vec<_>>()).filter(|method| method.options().has_extension(&http))
        };
        let mut schema = Schema::new(style);
        for method in methods() {
            schema.add(&method.input())?;
            schema.add(&method.output())?;
        }
        let schema = Arc::new(schema);
        for method in methods() {
            let rpc = Arc::new(rpc(&method, &schema));
            if let Some(rule) = method.options().get_extension(&http).as_message() {
                add_rule(&mut router, &rpc, rule)?;
                let additional = rule.get_field_by_name("additional_bindings");
                for rule in additional.as_deref().and_then(Value::as_list).unwrap_or_default().iter().filter_map(Value::as_message) {
                    add_rule(&mut router, &rpc, rule)?;
                }
            }
        }
    }
    Ok(router)
}

fn style_of(service: &ServiceDescriptor, json_style: &ExtensionDescriptor) -> Option<Style> {
    service.options().get_extension(json_style).as_enum_number().and_then(Style::from_number)
}

fn rpc(method: &MethodDescriptor, schema: &Arc<Schema>) -> Rpc {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let place = |message: MessageDescriptor| schema.place(message.full_name()).expect("the messages of every RPC are in the schema");
    Rpc {
        name: method.full_name().to_owned(),
        path: path.parse().expect("names of protobuf are fit for a path"),
        schema: Arc::clone(schema),
        input: place(method.input()),
        output: place(method.output()),
        client_streaming: method.is_client_streaming(),
        server_streaming: method.is_server_streaming(),
    }
}

fn add_rule(router: &mut Router<Arc<Binding>>, rpc: &Arc<Rpc>, rule: &DynamicMessage) -> Result<(), BuildError> {
    let fault = |fault: String| BuildError::Rule { rpc: rpc.name.clone(), fault };
    let (method, path) = pattern(rule).ok_or_else(|| fault("the rule has no path".to_owned()))?;
    let method: Method = method.parse().map_err(|_| fault(format!("`{method}` is no HTTP method")))?;
    if matches!(method, Method::HEAD | Method::OPTIONS) {
        return Err(fault(format!("{method} is answered for every route and cannot have one of its own")));
    }
    let template = Template::parse(&path).map_err(|fault| BuildError::Template { rpc: rpc.name.clone(), path: path.clone(), fault })?;
    let variables = template.variables.iter().map(|variable| {
        let place = if variable.multi { Place::Segments } else { Place::Segment };
        let found = rpc.schema.resolve(rpc.input, &variable.field).filter(|path| is_simple(&rpc.schema, path));
        found.map(|path| (path, place)).ok_or_else(|| fault(format!("`{}` is no field that a path can give", variable.field)))
    });
    let variables = variables.collect::<Result<Vec<_>, _>>()?;
    let top_level = |schema_place: usize, name: &str| {
        let found = rpc.schema.message(schema_place).find(name).map(|(place, _)| place);
        found.ok_or_else(|| fault(format!("`{name}` is no field that a body can be")))
    };
    let body = match text(rule, "body").as_str() {
        "" => BodyRule::None,
        "*" => BodyRule::Whole,
        name => BodyRule::Field(top_level(rpc.input, name)?),
    };
    if rpc.client_streaming && body == BodyRule::None {
        return Err(fault("an RPC to which the client sends a stream needs a body".to_owned()));
    }
    let response_body = match text(rule, "response_body").as_str() {
        "" => None,
        name => Some(top_level(rpc.output, name)?),
    };
    let mask = rpc.schema.message(rpc.input).find("update_mask").filter(|(_, field)| matches!(field.shape, Shape::FieldMask(_)));
    let update_mask = mask.map(|(place, _)| place).filter(|_| method == Method::PATCH && body != BodyRule::None);

    let shape = template.shape();
    let binding = Arc::new(Binding { rpc: Arc::clone(rpc), path, variables, body, response_body, update_mask });
    router.add(method.clone(), template, binding).map_err(|other| {
        let other = other.rpc.name.clone();
        BuildError::Taken { rpc: rpc.name.clone(), method, path: shape, other }
    })
}

/// The method and the path of a rule.
fn pattern(rule: &DynamicMessage) -> Option<(String, String)> {
    for method in ["get", "put", "post", "delete", "patch"] {
        if rule.has_field_by_name(method) {
            return Some((method.to_uppercase(), text(rule, method)));
        }
    }
    let custom = rule.get_field_by_name("custom")?;
    let custom = custom.as_message().filter(|_| rule.has_field_by_name("custom"))?;
    Some((text(custom, "kind"), text(custom, "path")))
}

fn text(rule: &DynamicMessage, field: &str) -> String {
    rule.get_field_by_name(field).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Whether a field holds one value that can be read from text.
fn is_simple(schema: &Schema, path: &FieldPath) -> bool {
    let field = schema.field_at(path);
    let is_single = matches!(field.cardinality, Cardinality::Single { .. });
    is_single && !matches!(field.shape, Shape::Message(_) | Shape::Struct(_) | Shape::Value(_) | Shape::ListValue(_))
}
