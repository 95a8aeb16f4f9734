//! The parameters of an operation in the path, the query, the headers and the body.

use serde_json::{Map, Value, json};

use super::schemas::{Direction, Schemas, describe, never_null};
use crate::gateway::binding::{Binding, BodyRule};
use crate::gateway::body::ALL_JSON_LINES;
use crate::gateway::json::{Cardinality, FieldPath, Shape};
use crate::gateway::template::{Segment, Template};

/// The path of a rule as OpenAPI has it, and the parameters in it. A variable that spans several segments is one parameter for each segment
/// that is open.
pub fn path(binding: &Binding, schemas: &mut Schemas<'_>) -> (String, Vec<Value>) {
    let template = Template::parse(&binding.path).expect("the path of a route was read before");
    let schema = &binding.rpc.schema;
    let mut parts: Vec<String> =
        template.segments.iter().map(|segment| literal(segment).to_owned()).collect();
    let mut parameters = Vec::new();
    for (variable, (path, _)) in template.variables.iter().zip(&binding.variables) {
        let name = wire_name(binding, path);
        let open: Vec<usize> = (variable.start..variable.end)
            .filter(|at| literal(&template.segments[*at]).is_empty())
            .collect();
        for (count, at) in open.iter().enumerate() {
            let name = if open.len() == 1 { name.clone() } else { format!("{name}.{}", count + 1) };
            parts[*at] = format!("{{{name}}}");
            let mut value = schemas.field(schema, schema.field_at(path), Direction::Request);
            let description = value
                .as_object_mut()
                .and_then(|members| members.remove("description"))
                .unwrap_or_default();
            never_null(&mut value);
            if value["type"] == "string"
                && value.get("enum").is_none()
                && value.get("minLength").is_none()
            {
                value["minLength"] = json!(1);
            }
            let mut parameter =
                json!({"name": name, "in": "path", "required": true, "schema": value});
            describe(&mut parameter, description.as_str().unwrap_or_default());
            parameters.push(parameter);
        }
    }
    let verb = template.verb.map(|verb| format!(":{verb}")).unwrap_or_default();
    (format!("/{}{verb}", parts.join("/")), parameters)
}

/// The text of a segment; none where anything may stand.
fn literal(segment: &Segment) -> &str {
    match segment {
        Segment::Literal(text) => text,
        Segment::One | Segment::Rest => "",
    }
}

fn wire_name(binding: &Binding, path: &FieldPath) -> String {
    binding.rpc.schema.spell(binding.rpc.input, &binding.rpc.schema.path_name(path))
}

/// The parameters of the query: what neither the path nor the body gives, and text can.
pub fn query(binding: &Binding, schemas: &mut Schemas<'_>) -> Vec<Value> {
    let mut parameters = Vec::new();
    if binding.body != BodyRule::Whole {
        walk(binding, binding.rpc.input, &mut Vec::new(), schemas, &mut parameters);
    }
    parameters
}

/// Visits the fields of a message and of those that it contains once. `way` is the proto names that lead to it, each with its
/// message.
fn walk(
    binding: &Binding,
    message: usize,
    way: &mut Vec<(usize, String)>,
    schemas: &mut Schemas<'_>,
    found: &mut Vec<Value>,
) {
    let schema = &binding.rpc.schema;
    for (place, field) in schema.message(message).fields.iter().enumerate() {
        if way.is_empty() && binding.is_of_a_body(place) {
            continue;
        }
        let name = field.descriptor.name();
        let names =
            way.iter().map(|(_, name)| name.as_str()).chain([name]).collect::<Vec<_>>().join(".");
        let Some(path) = schema.resolve(binding.rpc.input, &names) else { continue };
        if binding.variables.iter().any(|(variable, _)| *variable == path) {
            continue;
        }
        match (&field.cardinality, &field.shape) {
            (Cardinality::Single { .. }, Shape::Message(inner)) => {
                // A message that contains itself has no end.
                let is_around = *inner == message || way.iter().any(|(around, _)| around == inner);
                if !is_around {
                    way.push((message, name.to_owned()));
                    walk(binding, *inner, way, schemas, found);
                    way.pop();
                }
            }
            (Cardinality::Map(_), _) => {}
            (_, shape) if shape.is_document() => {}
            _ => found.push(parameter(binding, &path, schemas)),
        }
    }
}

fn parameter(binding: &Binding, path: &FieldPath, schemas: &mut Schemas<'_>) -> Value {
    let field = binding.rpc.schema.field_at(path);
    let mut value = schemas.field(&binding.rpc.schema, field, Direction::Request);
    // Members that are required within an optional message need not be given.
    let is_required = path.is_top() && schemas.is_required(field);
    let description =
        value.as_object_mut().and_then(|members| members.remove("description")).unwrap_or_default();
    never_null(&mut value);
    if binding.may_be_blank(field)
        && let Some(values) = value.get_mut("enum").and_then(Value::as_array_mut)
    {
        values.push(json!(""));
    }
    let mut parameter = json!({"name": wire_name(binding, path), "in": "query", "required": is_required, "schema": value});
    describe(&mut parameter, description.as_str().unwrap_or_default());
    parameter
}

/// The parameters that are headers, by their names among the components.
pub fn headers(binding: &Binding, changes: bool) -> Vec<Value> {
    let mut names = vec!["ApiVersion", "RequestId"];
    let rpc = &binding.rpc;
    if rpc.server_streaming
        && rpc.schema.message(rpc.output).fields.iter().any(|field| field.sse_id)
    {
        names.push("LastEventId");
    }
    if changes {
        names.push("IdempotencyKey");
    }
    if binding.expected_version.is_some() {
        names.push("IfMatch");
    }
    if binding.version.is_some() && binding.method == http::Method::GET {
        names.push("IfNoneMatch");
    }
    names
        .into_iter()
        .map(|name| json!({"$ref": format!("#/components/parameters/{name}")}))
        .collect()
}

/// The header parameters that requests share. `versions` are those of the API.
pub fn shared(versions: &[String]) -> Value {
    let header = |name: &str, description: &str, schema: Value| json!({"name": name, "in": "header", "required": false, "description": description, "schema": schema});
    let mut version = json!({"type": "string", "format": "date"});
    if !versions.is_empty() {
        version["enum"] = json!(versions);
    }
    json!({
        "ApiVersion": header(
            "Api-Version",
            "The version of the API that the call speaks, `YYYY-MM-DD`; without it, the one that the key is pinned to.",
            version,
        ),
        "RequestId": header(
            "X-Request-Id",
            "The id under which the log has the call; a new one is made if it is missing or not 1 to 128 characters from `A-Z a-z 0-9 . _ ~ -`.",
            json!({"type": "string"}),
        ),
        "LastEventId": header(
            "Last-Event-ID",
            "The id of the last server-sent event that the caller has; the stream continues after it. Browsers send it by themselves when they reconnect.",
            json!({"type": "string"}),
        ),
        "IdempotencyKey": header(
            "Idempotency-Key",
            "Makes the call take effect once: the same call again within 24 hours has the first response, another one under the same key is refused.",
            json!({"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"}),
        ),
        "IfMatch": header(
            "If-Match",
            "The version that the resource must be at: the `ETag` of a response, or `*`.",
            json!({"type": "string", "pattern": r#"^(\*|"[1-9][0-9]{0,17}")$"#}),
        ),
        "IfNoneMatch": header(
            "If-None-Match",
            "The `ETag` that the caller has: a response of the same is 304, without a body.",
            json!({"type": "string"}),
        ),
    })
}

/// The body of a request, if it has one.
pub fn body(binding: &Binding, schemas: &mut Schemas<'_>) -> Option<Value> {
    let (rpc, schema) = (&binding.rpc, &binding.rpc.schema);
    let mut value = match binding.body {
        BodyRule::None => return None,
        _ if binding.takes_bytes => {
            return Some(json!({"required": false, "content": {"*/*": {"schema": {}}}}));
        }
        BodyRule::Whole => match &rpc.input_shape {
            Shape::Message(place) if !binding.variables.is_empty() => {
                let in_path: Vec<usize> =
                    binding.variables.iter().map(|(path, _)| path.first()).collect();
                let fields = &schema.message(*place).fields;
                let is_wanted = |name: &str| {
                    !fields
                        .iter()
                        .enumerate()
                        .any(|(at, field)| field.name == name && in_path.contains(&at))
                };
                schemas.object(schema, *place, Direction::Request, |field| is_wanted(&field.name))
            }
            shape => schemas.value(schema, shape, Direction::Request),
        },
        BodyRule::Field(place) => {
            let mut value =
                schemas.field(schema, &schema.message(rpc.input).fields[place], Direction::Request);
            never_null(&mut value);
            value
        }
    };
    let description = value
        .as_object_mut()
        .filter(|_| binding.body != BodyRule::Whole)
        .and_then(|members| members.remove("description"));
    let is_required = match (binding.body, &rpc.input_shape) {
        (BodyRule::Field(_), _) => true,
        (_, Shape::Message(place)) => {
            let in_path = |at: usize| binding.variables.iter().any(|(path, _)| path.first() == at);
            schema
                .message(*place)
                .fields
                .iter()
                .enumerate()
                .any(|(at, field)| schemas.is_required(field) && !in_path(at))
        }
        _ => false,
    };
    let mut content = Map::new();
    content.insert("application/json".to_owned(), json!({"schema": value}));
    if rpc.client_streaming {
        let lines = json!({"schema": {"type": "string", "description": "One JSON document a line."}, "x-itemSchema": value});
        content.extend(ALL_JSON_LINES.map(|name| (name.to_owned(), lines.clone())));
    }
    let mut body = json!({"required": is_required, "content": content});
    describe(&mut body, description.as_ref().and_then(Value::as_str).unwrap_or_default());
    Some(body)
}
