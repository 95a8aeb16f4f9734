//! The published document of the API: OpenAPI 3.1, made of the descriptors, their comments and annotations, and of the catalogue of errors.
//!
//! It describes the gateway from the same [`Binding`]s that serve requests, and so cannot promise another API. The same
//! descriptors give the same document, byte for byte.

mod answers;
mod comments;
mod parameters;
mod schemas;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Method;
use prost_reflect::{DescriptorPool, MethodDescriptor, ServiceDescriptor};
use serde_json::{Map, Value, json};

use self::comments::{Comments, codes, summary};
use self::schemas::{Direction, Schemas, describe};
use super::annotations::Annotations;
use super::binding::{Binding, BodyRule};
use super::json::Shape;
use super::opaque;
use super::route::Router;
use super::rules::{self, BuildError};

/// The parts of the document that are the same for all requests.
const INTRODUCTION: &str = include_str!("introduction.md");

/// The document of all routes that the descriptors have rules for. `base` is where the service is reached from outside, and empty where that
/// is not known; `versions` are those that the header `Api-Version` may name.
pub fn document(
    pool: &DescriptorPool,
    base: &str,
    versions: &[String],
) -> Result<Value, BuildError> {
    let (pool, free) = opaque::opaque(pool)?;
    Ok(of_routes(&pool, &rules::routes(&pool, &free, "")?, base, versions))
}

/// The document of these routes.
pub(super) fn of_routes(
    pool: &DescriptorPool,
    router: &Router<Arc<Binding>>,
    base: &str,
    versions: &[String],
) -> Value {
    let (comments, annotations) = (Comments::of(pool), Annotations::of(pool));
    let mut writer = Writer {
        pool,
        comments: &comments,
        annotations: &annotations,
        schemas: Schemas::new(&comments, &annotations),
        responses: BTreeMap::new(),
    };
    router.targets().for_each(|binding| writer.note(binding));
    let mut services: Vec<ServiceDescriptor> = Vec::new();
    let mut paths: Map<String, Value> = Map::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for binding in router.targets() {
        let count = counts.entry(&binding.rpc.name).or_default();
        *count += 1;
        let Some(method) = writer.method(binding) else { continue };
        if !services.contains(method.parent_service()) {
            services.push(method.parent_service().clone());
        }
        let (path, operation) = writer.operation(binding, &method, *count);
        let item = paths.entry(path).or_insert_with(|| json!({}));
        item[binding.method.as_str().to_ascii_lowercase()] = operation;
    }
    let tags: Vec<Value> = services.iter().map(|service| writer.tag(service)).collect();
    writer.schemas.add("Problem", answers::problem_schema());
    writer.schemas.add("ProblemFault", answers::fault_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": env!("CARGO_PKG_NAME"),
            "version": env!("CARGO_PKG_VERSION"),
            "summary": env!("CARGO_PKG_DESCRIPTION"),
            "description": INTRODUCTION.trim(),
            "license": {"name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE")},
        },
        "servers": [{"url": if base.is_empty() { "/" } else { base }}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": writer.schemas.components(),
            "responses": writer.responses,
            "parameters": parameters::shared(versions),
            "headers": answers::shared_headers(),
            "examples": answers::examples(base),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key or access token: `Authorization: Bearer sk_test_...`."},
                "apikey": {"type": "apiKey", "in": "header", "name": "apikey", "description": "An API key: `apikey: sk_test_...`."},
            },
        },
    })
}

/// A gRPC status code as its specification spells it.
pub fn grpc_name(code: tonic::Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

struct Writer<'p> {
    pool: &'p DescriptorPool,
    comments: &'p Comments,
    annotations: &'p Annotations,
    schemas: Schemas<'p>,
    responses: BTreeMap<String, Value>,
}

impl Writer<'_> {
    /// Notes the messages that a request and its response are made of.
    fn note(&mut self, binding: &Binding) {
        let (rpc, schema) = (&binding.rpc, &binding.rpc.schema);
        match (binding.body, &rpc.input_shape) {
            (BodyRule::Field(place), _) => self.schemas.note(
                schema,
                &schema.message(rpc.input).fields[place].shape,
                Direction::Request,
            ),
            // The schema of a body without the path's fields has no name.
            (BodyRule::Whole, Shape::Message(place)) if !binding.variables.is_empty() => {
                schema
                    .message(*place)
                    .fields
                    .iter()
                    .for_each(|field| self.schemas.note(schema, &field.shape, Direction::Request));
            }
            (BodyRule::Whole, shape) => self.schemas.note(schema, shape, Direction::Request),
            (BodyRule::None, _) => {}
        }
        let output = binding
            .response_body
            .map_or(&rpc.output_shape, |place| &schema.message(rpc.output).fields[place].shape);
        self.schemas.note(schema, output, Direction::Answer);
    }

    fn method(&self, binding: &Binding) -> Option<MethodDescriptor> {
        let (service, method) = binding.rpc.name.rsplit_once('.')?;
        self.pool
            .get_service_by_name(service)?
            .methods()
            .find(|candidate| candidate.name() == method)
    }

    fn tag(&self, service: &ServiceDescriptor) -> Value {
        let mut tag = json!({"name": service.name()});
        describe(&mut tag, self.comments.get(&service.parent_file(), service.path()));
        tag
    }

    /// The path and the operation of a rule, which is the one of this count of its RPC.
    fn operation(
        &mut self,
        binding: &Binding,
        method: &MethodDescriptor,
        count: usize,
    ) -> (String, Value) {
        let comment = self.comments.get(&method.parent_service().parent_file(), method.path());
        let scope = self.annotations.scope(method);
        let changes = binding.method != Method::GET && !scope.ends_with(":read");
        let (path, mut all) = parameters::path(binding, &mut self.schemas);
        all.extend(parameters::query(binding, &mut self.schemas));
        all.extend(parameters::headers(binding, changes));

        let id = format!("{}_{}", method.parent_service().name(), method.name());
        let scopes: Vec<&str> =
            Some(scope.as_str()).filter(|scope| !scope.is_empty()).into_iter().collect();
        let mut operation = json!({
            "operationId": if count == 1 { id } else { format!("{id}_{count}") },
            "tags": [method.parent_service().name()],
            "summary": summary(comment),
            "description": comment,
            "parameters": all,
        });
        if !scope.is_empty() {
            let further = self.annotations.further_scopes(method);
            let further: Vec<String> = further.iter().map(|name| format!("`{name}`")).collect();
            let further = match further.as_slice() {
                [] => String::new(),
                further => format!(" Some calls need {} as well.", further.join(" or ")),
            };
            operation["description"] =
                json!(format!("{comment}\n\nThe key must have the scope `{scope}`.{further}"));
        }
        if let Some(body) = parameters::body(binding, &mut self.schemas) {
            operation["requestBody"] = body;
        }
        let statuses = self.annotations.statuses(method);
        let codes = answers::codes(binding, &codes(comment), changes);
        operation["responses"] = answers::answers(
            binding,
            &statuses,
            &codes,
            changes,
            &mut self.schemas,
            &mut self.responses,
        )
        .into();
        operation["security"] = json!([{"bearer": scopes}, {"apikey": scopes}]);
        (path, operation)
    }
}
