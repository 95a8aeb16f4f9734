//! The `google.api.http` rules of a descriptor set, as routes.

use std::sync::Arc;

use http::Method;
use http::uri::PathAndQuery;
use prost_reflect::{
    DescriptorPool, DynamicMessage, Kind, MethodDescriptor, ServiceDescriptor, Value,
};

use super::annotations::{Annotations, is_http_body};
use super::binding::{Binding, BodyRule, Rpc};
use super::json::{Cardinality, Field, FieldPath, FreeForm, Schema, Shape, Style};
use super::percent::UriPart;
use super::route::Router;
use super::template::Template;

/// A rule that cannot be obeyed. The text names the RPC.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The descriptors cannot be put into the form that the gateway works with.
    #[error("the descriptors cannot be read: {0}")]
    Descriptors(String),
    /// A path is not a path template.
    #[error("{rpc}: the path `{path}` cannot be read: {fault}")]
    Template {
        /// The RPC, as `package.Service.Method`.
        rpc: String,
        /// The path.
        path: String,
        /// The faults of it.
        fault: String,
    },
    /// A rule does not fit the messages of its RPC.
    #[error("{rpc}: {fault}")]
    Rule {
        /// The RPC, as `package.Service.Method`.
        rpc: String,
        /// The faults of it.
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
}

/// Makes the routes of every RPC that has a rule, in every service that declares a spelling. `free` says which fields of bytes are
/// free-form values; responses report paths below `base_path`.
pub fn routes(
    pool: &DescriptorPool,
    free: &FreeForm,
    base_path: &str,
) -> Result<Router<Arc<Binding>>, BuildError> {
    let mut router = Router::default();
    let annotations = Annotations::of(pool);
    let Some(http) = pool.get_extension_by_name("google.api.http") else { return Ok(router) };
    for style in [Style::SnakeCase, Style::CamelCase] {
        let methods = || {
            let services = pool.services().filter(|service| style_of(service) == Some(style));
            services
                .flat_map(|service| service.methods().collect::<Vec<_>>())
                .filter(|method| method.options().has_extension(&http))
        };
        let mut schema = Schema::new(style, free).below(base_path);
        let mut rpcs = Vec::new();
        for method in methods() {
            let shapes = (
                schema.message_shape(method.input(), false),
                schema.message_shape(method.output(), false),
            );
            rpcs.push((schema.add(&method.input()), schema.add(&method.output()), shapes));
        }
        schema.add_contents(pool);
        let schema = Arc::new(schema);
        for (method, (input, output, (input_shape, output_shape))) in methods().zip(rpcs) {
            let rpc = Arc::new(Rpc {
                name: method.full_name().to_owned(),
                path: path_of(&method),
                schema: Arc::clone(&schema),
                input,
                output,
                input_shape,
                output_shape,
                client_streaming: method.is_client_streaming(),
                server_streaming: method.is_server_streaming(),
            });
            let reported = AllowedResponse {
                members: annotations.answer_members(&method),
                plain_errors: annotations.plain_errors(method.parent_service()),
            };
            if let Some(rule) = method.options().get_extension(&http).as_message() {
                add_rule(&mut router, &annotations, &rpc, &reported, rule)?;
                let additional = rule.get_field_by_name("additional_bindings");
                for rule in additional
                    .as_deref()
                    .and_then(Value::as_list)
                    .unwrap_or_default()
                    .iter()
                    .filter_map(Value::as_message)
                {
                    add_rule(&mut router, &annotations, &rpc, &reported, rule)?;
                }
            }
        }
    }
    Ok(router)
}

/// The spelling that a service declares.
pub fn style_of(service: &ServiceDescriptor) -> Option<Style> {
    let json_style = service.parent_pool().get_extension_by_name("offboard.v1.json_style")?;
    service.options().get_extension(&json_style).as_enum_number().and_then(Style::from_number)
}

fn path_of(method: &MethodDescriptor) -> PathAndQuery {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    path.parse().expect("names of protobuf are fit for a path")
}

/// The part of a response that the contract of an RPC allows.
struct AllowedResponse {
    /// The only members, by their proto names; any if the list is empty.
    members: Vec<String>,
    plain_errors: Option<String>,
}

fn add_rule(
    router: &mut Router<Arc<Binding>>,
    annotations: &Annotations,
    rpc: &Arc<Rpc>,
    reported: &AllowedResponse,
    rule: &DynamicMessage,
) -> Result<(), BuildError> {
    let fault = |fault: String| BuildError::Rule { rpc: rpc.name.clone(), fault };
    let (method, path) = pattern(rule).ok_or_else(|| fault("the rule has no path".to_owned()))?;
    let method: Method =
        method.parse().map_err(|_| fault(format!("`{method}` is not an HTTP method")))?;
    if matches!(method, Method::HEAD | Method::OPTIONS) {
        return Err(fault(format!(
            "{method} is served for every route and cannot have one of its own"
        )));
    }
    let template = Template::parse(&path).map_err(|fault| BuildError::Template {
        rpc: rpc.name.clone(),
        path: path.clone(),
        fault,
    })?;
    let variables = template.variables.iter().map(|variable| {
        let index = if variable.multi { UriPart::Segments } else { UriPart::Segment };
        let found = rpc
            .schema
            .resolve(rpc.input, &variable.field)
            .filter(|path| is_simple(&rpc.schema, path));
        found.map(|path| (path, index)).ok_or_else(|| {
            fault(format!("`{}` is not a field that a path can set", variable.field))
        })
    });
    let variables = variables.collect::<Result<Vec<_>, _>>()?;
    let is_uuid = |path| annotations.is_uuid(&rpc.schema.field_at(path).descriptor);
    let uuids = template
        .variables
        .iter()
        .zip(&variables)
        .filter(|(_, (path, _))| is_uuid(path))
        .map(|(variable, _)| variable.start)
        .collect();
    let last = template
        .variables
        .iter()
        .zip(&variables)
        .find(|(variable, _)| variable.end == template.segments.len());
    let takes_colon = last.is_none_or(|(_, (path, _))| {
        annotations.takes_colon(&rpc.schema.field_at(path).descriptor)
    });
    let top_level = |schema_index: usize, name: &str| {
        let found = rpc.schema.message(schema_index).find(name).map(|(index, _)| index);
        found.ok_or_else(|| fault(format!("`{name}` is not a field that a body can be")))
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
    let member = |name: &String| {
        let found = rpc
            .schema
            .message(rpc.output)
            .find(name)
            .filter(|_| response_body.is_none() && !rpc.server_streaming);
        found
            .map(|(index, _)| index)
            .ok_or_else(|| fault(format!("`{name}` is not a member of the response")))
    };
    let answer_members = reported.members.iter().map(member).collect::<Result<Vec<_>, _>>()?;
    let mask = rpc
        .schema
        .message(rpc.input)
        .find("update_mask")
        .filter(|(_, field)| matches!(field.shape, Shape::FieldMask(_)));
    let update_mask =
        mask.map(|(index, _)| index).filter(|_| method == Method::PATCH && body != BodyRule::None);

    let shape = template.shape();
    let binding = Arc::new(Binding {
        method: method.clone(),
        path,
        variables,
        body,
        response_body,
        update_mask,
        line: line(rpc, body),
        takes_bytes: match body {
            BodyRule::None => false,
            BodyRule::Whole => is_http_body(rpc.input()),
            BodyRule::Field(index) => holds_http_body(&rpc.schema.message(rpc.input).fields[index]),
        },
        gives_bytes: match response_body {
            None => is_http_body(rpc.output()),
            Some(index) => holds_http_body(&rpc.schema.message(rpc.output).fields[index]),
        },
        expected_version: expected_version(rpc, body),
        answer_members,
        plain_errors: reported.plain_errors.clone(),
        version: version(rpc, response_body),
        rpc: Arc::clone(rpc),
    });
    router.add(method.clone(), template, (uuids, takes_colon), binding).map_err(|other| {
        let other = other.rpc.name.clone();
        BuildError::Taken { rpc: rpc.name.clone(), method, path: shape, other }
    })
}

fn holds_http_body(field: &Field) -> bool {
    matches!(field.cardinality, Cardinality::Single { .. })
        && matches!(field.descriptor.kind(), Kind::Message(message) if is_http_body(&message))
}

/// The field in which a request says at which version the resource must be: `expected_version` of the message or of its body.
fn expected_version(rpc: &Rpc, body: BodyRule) -> Option<FieldPath> {
    let within = match body {
        BodyRule::Field(index) => Some(format!(
            "{}.expected_version",
            rpc.schema.message(rpc.input).fields[index].descriptor.name()
        )),
        _ => None,
    };
    let found = within
        .and_then(|path| rpc.schema.resolve(rpc.input, &path))
        .or_else(|| rpc.schema.resolve(rpc.input, "expected_version"));
    found.filter(|path| !rpc.client_streaming && is_version(&rpc.schema, path))
}

/// The field in which a message of a stream says which line it is from: `line`, where a line is another field.
fn line(rpc: &Rpc, body: BodyRule) -> Option<usize> {
    let (index, field) = rpc.schema.message(rpc.input).find("line")?;
    let is_number = matches!(
        (&field.cardinality, &field.shape),
        (Cardinality::Single { .. }, Shape::Number(Kind::Int64))
    );
    (is_number && rpc.client_streaming && matches!(body, BodyRule::Field(of) if of != index))
        .then_some(index)
}

/// The field of the response with the version of the resource: `version` of the message that is its body.
fn version(rpc: &Rpc, response_body: Option<usize>) -> Option<FieldPath> {
    let path = match response_body {
        Some(index) => {
            format!("{}.version", rpc.schema.message(rpc.output).fields[index].descriptor.name())
        }
        None => "version".to_owned(),
    };
    rpc.schema
        .resolve(rpc.output, &path)
        .filter(|path| !rpc.server_streaming && is_version(&rpc.schema, path))
}

fn is_version(schema: &Schema, path: &FieldPath) -> bool {
    let field = schema.field_at(path);
    matches!(
        (&field.cardinality, &field.shape),
        (Cardinality::Single { .. }, Shape::Number(Kind::Int64))
    )
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
    rule.get_field_by_name(field)
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// Returns whether a field has one value that can be read from text.
fn is_simple(schema: &Schema, path: &FieldPath) -> bool {
    let field = schema.field_at(path);
    matches!(field.cardinality, Cardinality::Single { .. }) && !field.shape.is_document()
}
