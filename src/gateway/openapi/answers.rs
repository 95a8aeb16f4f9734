//! The responses of an operation: by status, with headers and media types.

use std::collections::{BTreeMap, HashMap};

use http::Method;
use serde_json::{Map, Value, json};
use tonic::Status;
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use super::schemas::{self, Direction, Schemas};
use crate::error::{Code, DOMAIN, MemberKind};
use crate::gateway::binding::Binding;
use crate::gateway::body::JSON_LINES;
use crate::gateway::csv;
use crate::gateway::problem::{MEDIA_TYPE, Problem};

/// The errors that every call may fail with; a call without a body too, if one is sent that is too large or has another compression.
const ALWAYS: [Code; 12] = [
    Code::ValidationFailed,
    Code::AuthenticationRequired,
    Code::InvalidCredentials,
    Code::PermissionDenied,
    Code::PayloadTooLarge,
    Code::UriTooLong,
    Code::HeadersTooLarge,
    Code::UnsupportedMediaType,
    Code::RateLimitExceeded,
    Code::Internal,
    Code::Unavailable,
    Code::DeadlineExceeded,
];

/// The headers of responses to callers with a key.
const REPORTED: [&str; 7] = [
    "Api-Version",
    "Offboard-Realm",
    "RateLimit",
    "RateLimit-Policy",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
];

/// The codes that a request may fail with: those that every one may, those that follow from its rule, and those that its comment names.
pub fn codes(binding: &Binding, named: &[Code], changes: bool) -> Vec<Code> {
    let mut codes = ALWAYS.to_vec();
    codes.extend_from_slice(named);
    if !binding.variables.is_empty() {
        codes.push(Code::NotFound);
    }
    if changes {
        codes.extend([Code::RefusedByDatabase, Code::IdempotencyKeyReused, Code::AnswerGone]);
    }
    codes.sort_by_key(|code| Code::ALL.iter().position(|other| other == code));
    codes.dedup();
    codes
}

/// The responses to a request, by status. The problems are made once and are among `shared`.
pub fn answers(
    binding: &Binding,
    statuses: &[u16],
    codes: &[Code],
    changes: bool,
    schemas: &mut Schemas<'_>,
    shared: &mut BTreeMap<String, Value>,
) -> Map<String, Value> {
    let mut answers = BTreeMap::new();
    for status in statuses {
        answers.insert(*status, success(binding, *status, statuses, changes, schemas));
    }
    if binding.version.is_some() && binding.method == Method::GET {
        let answer = json!({"description": "The caller has this version already.", "headers": headers(&["ETag"])});
        answers.insert(304, answer);
    }
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    codes.iter().for_each(|code| by_status.entry(code.http()).or_default().push(*code));
    for (status, codes) in by_status {
        let mut name = codes.iter().map(|code| code.name()).collect::<Vec<_>>().join("-or-");
        let is_plain = binding.plain_errors.is_some() && status < 500;
        if is_plain {
            name.push_str("-plain");
            schemas.add("PlainErrors", plain_errors_schema());
        }
        shared.entry(name.clone()).or_insert_with(|| failure(status, &codes, is_plain));
        answers.insert(status, json!({"$ref": format!("#/components/responses/{name}")}));
    }
    answers.into_iter().map(|(status, answer)| (status.to_string(), answer)).collect()
}

fn success(
    binding: &Binding,
    status: u16,
    statuses: &[u16],
    changes: bool,
    schemas: &mut Schemas<'_>,
) -> Value {
    let mut names: Vec<&str> = Vec::new();
    if statuses.contains(&202) || status == 201 {
        names.push("Location");
    }
    if status == 202 {
        names.push("Retry-After");
    }
    if binding.version.is_some() {
        names.push("ETag");
    }
    if changes {
        names.push("Idempotent-Replayed");
    }
    if csv::is_table(binding) {
        names.extend(["Content-Disposition", "Link"]);
    }
    if binding.rpc.server_streaming {
        names.push("X-Accel-Buffering");
    }
    let description = match status {
        201 => "Created.",
        202 => "Accepted; `Location` shows its progress.",
        204 => "Done.",
        _ => "Success.",
    };
    let mut answer = json!({"description": description, "headers": headers(&names)});
    if status != 204 {
        answer["content"] = content(binding, schemas);
    }
    answer
}

fn content(binding: &Binding, schemas: &mut Schemas<'_>) -> Value {
    let (rpc, schema) = (&binding.rpc, &binding.rpc.schema);
    if binding.gives_bytes {
        return json!({"*/*": {"schema": {}}});
    }
    let value = match binding.response_body {
        None if !binding.answer_members.is_empty() => {
            let fields = &schema.message(rpc.output).fields;
            let is_reported =
                |name: &str| binding.answer_members.iter().any(|place| fields[*place].name == name);
            let mut answer = schemas
                .object(schema, rpc.output, Direction::Answer, |field| is_reported(&field.name));
            answer["additionalProperties"] = json!(false);
            // A method that says which members its response has, has them.
            answer
                .get_mut("properties")
                .and_then(Value::as_object_mut)
                .into_iter()
                .flat_map(Map::values_mut)
                .for_each(schemas::never_null);
            answer
        }
        None => schemas.value(schema, &rpc.output_shape, Direction::Answer),
        // A message of a stream without it is not sent.
        Some(place) if rpc.server_streaming => schemas.value(
            schema,
            &schema.message(rpc.output).fields[place].shape,
            Direction::Answer,
        ),
        Some(place) => {
            schemas.field(schema, &schema.message(rpc.output).fields[place], Direction::Answer)
        }
    };
    if csv::is_table(binding) {
        let table = "A line for each row; on the first page, behind one with the names of the columns. A next page is the header `Link` with `rel=\"next\"`.";
        return json!({"application/json": {"schema": value}, "text/csv": {"schema": {"type": "string", "description": table}}});
    }
    if !rpc.server_streaming {
        return json!({"application/json": {"schema": value}});
    }
    schemas.add("StreamFailure", stream_failure());
    let item = json!({"anyOf": [value, {"$ref": "#/components/schemas/StreamFailure"}]});
    let text = |description: &str| json!({"schema": {"type": "string", "description": description}, "x-itemSchema": item});
    json!({
        JSON_LINES: text("One JSON document a line. A failure is a last line `{\"error\": problem}`."),
        "text/event-stream": text(
            "Server-sent events, each with one JSON document as its data. A failure is a last event named `error`, with the problem as its data.",
        ),
        "application/json": {"schema": {"type": "array", "items": item}},
    })
}

fn stream_failure() -> Value {
    json!({
        "type": "object",
        "description": "How a stream ends that fails.",
        "properties": {"error": {"$ref": "#/components/schemas/Problem"}},
        "required": ["error"],
    })
}

/// The response of a status whose problem has one of these codes. A plain one is a problem document only for those who name that.
fn failure(status: u16, codes: &[Code], is_plain: bool) -> Value {
    let description: Vec<String> =
        codes.iter().map(|code| format!("`{code}`: {}", code.description_in_one_line())).collect();
    let names: Vec<&str> = codes.iter().map(|code| code.name()).collect();
    let examples: Map<String, Value> = names
        .iter()
        .map(|name| ((*name).to_owned(), json!({"$ref": format!("#/components/examples/{name}")})))
        .collect();
    let more: &[&str] = match status {
        401 => &["WWW-Authenticate"],
        415 => &["Accept", "Accept-Encoding", "Accept-Patch", "Accept-Post"],
        429 | 503 => &["Retry-After"],
        _ => &[],
    };
    let schema = json!({
        "allOf": [{"$ref": "#/components/schemas/Problem"}],
        "properties": {"status": {"const": status}, "code": {"enum": names}},
    });
    let mut content = json!({MEDIA_TYPE: {"schema": schema, "examples": examples}});
    if is_plain {
        content["application/json"] =
            json!({"schema": {"$ref": "#/components/schemas/PlainErrors"}});
    }
    json!({"description": description.join("\n\n"), "headers": headers(more), "content": content})
}

fn headers(more: &[&str]) -> Value {
    let names = ["X-Request-Id"].iter().chain(&REPORTED).chain(more);
    names
        .map(|name| ((*name).to_owned(), json!({"$ref": format!("#/components/headers/{name}")})))
        .collect::<Map<_, _>>()
        .into()
}

/// The headers of responses.
pub fn shared_headers() -> Value {
    let header =
        |description: &str, schema: Value| json!({"description": description, "schema": schema});
    let text = || json!({"type": "string"});
    let count = || json!({"type": "integer", "minimum": 0});
    let mut request_id = header("The id under which the log has the call.", text());
    request_id["required"] = json!(true);
    json!({
        "X-Request-Id": request_id,
        "Api-Version": header("The version that the response speaks.", json!({"type": "string", "format": "date"})),
        "Offboard-Realm": header("The organisation and the mode of the key: `acme/test`.", text()),
        "RateLimit": header("How many calls are left of each policy (`r`), and in how many seconds all of them are there again (`t`): `\"key\";r=4999;t=1`.", text()),
        "RateLimit-Policy": header("The policies that the call is of: so many calls (`q`) in so many seconds (`w`): `\"key\";q=5000;w=1`.", text()),
        "X-RateLimit-Limit": header("How many calls the key may make at once, and again in each second.", count()),
        "X-RateLimit-Remaining": header("How many of them are left.", count()),
        "X-RateLimit-Reset": header("In how many seconds all of them are there again.", count()),
        "Idempotent-Replayed": header(
            "`true` if the call was done before under its idempotency key: this is the first response over again, or says that it was removed (`answer_gone`); of an import, if its first batch was.",
            json!({"type": "string", "enum": ["true"]}),
        ),
        "ETag": header("The version of the resource, for `If-Match` and `If-None-Match`.", text()),
        "Location": header("Where the thing is.", json!({"type": "string", "format": "uri-reference"})),
        "Content-Disposition": header("The name of a file for the table, where the response is CSV.", text()),
        "Link": header("Where the next page of the table is, with `rel=\"next\"`, where the response is CSV and there is one.", text()),
        "X-Accel-Buffering": header(
            "`no`, which asks proxies to pass on each message as it comes.",
            json!({"type": "string", "enum": ["no"]}),
        ),
        "Retry-After": header("In how many seconds to check, or to try, again.", count()),
        "Accept": header("The media types that a body may have, where the request is neither a `POST` nor a `PATCH`.", text()),
        "Accept-Encoding": header("What a body may be compressed by, where it was compressed by something else.", text()),
        "Accept-Patch": header("The media types that the body of a `PATCH` may have.", text()),
        "Accept-Post": header("The media types that the body of a `POST` may have.", text()),
        "WWW-Authenticate": header("How to show a key.", text()),
    })
}

/// The schema of problem documents, with the members of every code.
pub fn problem_schema() -> Value {
    let mut properties = json!({
        "type": {
            "type": "string",
            "format": "uri-reference",
            "description": "Where the code is explained: a page for people, JSON for programs.",
        },
        "title": {"type": "string", "description": "A short name of the code."},
        "status": {"type": "integer", "minimum": 400, "maximum": 599, "description": "The HTTP status."},
        "code": {
            "type": "string",
            "enum": Code::ALL.iter().map(|code| code.name()).collect::<Vec<_>>(),
            "description": "What went wrong, for programs.",
        },
        "detail": {"type": "string", "description": "What went wrong this time, for people."},
        "doc_url": {"type": "string", "format": "uri-reference", "description": "The code in the list of all codes."},
        "request_id": {"type": "string", "description": "The id under which the log has the call."},
        "errors": {
            "type": "array",
            "items": {"$ref": "#/components/schemas/ProblemFault"},
            "description": "Every fault of the request; on every response with a status below 500.",
        },
    });
    for (member, kind) in Code::ALL.iter().flat_map(|code| code.members()) {
        properties[*member] = match kind {
            MemberKind::Text => json!({"type": "string"}),
            MemberKind::Integer => json!({"type": "integer"}),
            MemberKind::List => json!({"type": "array", "items": {"type": "string"}}),
        };
    }
    json!({
        "type": "object",
        "description": "A failure (RFC 9457). Members that are not listed as required are there when they have something to say.",
        "properties": properties,
        "required": ["type", "title", "status", "code", "detail", "doc_url", "request_id"],
    })
}

/// The schema of one of a problem's `errors`.
pub fn fault_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "field": {
                "type": "string",
                "description": "Where in the request, in the spelling of the contract; absent if it is the request as a whole.",
            },
            "code": {"type": "string", "description": "What kind of fault."},
            "message": {"type": "string", "description": "The field and what is wrong with it, or the title of the failure."},
            "description": {"type": "string", "description": "What is wrong."},
        },
        "required": ["code", "message", "description"],
    })
}

/// The schema of a refusal for callers who do not name problem documents, where the contract knows none.
fn plain_errors_schema() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let error = json!({
        "type": "object",
        "properties": {
            "code": text("What kind of fault."),
            "description": text("What is wrong."),
            "message": text("The field and what is wrong with it, or the title of the failure."),
        },
        "required": ["code", "description", "message"],
        "additionalProperties": false,
    });
    json!({
        "type": "object",
        "description": "A refusal, for callers that do not name `application/problem+json` in `Accept`.",
        "properties": {"errors": {"type": "array", "items": error, "description": "Every fault of the request."}},
        "required": ["errors"],
        "additionalProperties": false,
    })
}

/// A problem of each code, as the gateway writes it.
pub fn examples(base: &str) -> Value {
    let examples = Code::ALL.iter().map(|code| {
        let metadata = code.members().iter().map(|(member, kind)| {
            let value = match kind {
                MemberKind::Text => "...",
                MemberKind::Integer => "1",
                MemberKind::List => "[\"...\"]",
            };
            ((*member).to_owned(), value.to_owned())
        });
        let mut details = ErrorDetails::with_error_info(
            code.reason(),
            DOMAIN,
            metadata.collect::<HashMap<_, _>>(),
        );
        let mut message = code.description_in_one_line();
        if *code == Code::ValidationFailed {
            details.set_bad_request(vec![FieldViolation {
                reason: "REQUIRED".to_owned(),
                ..FieldViolation::new("name", "must be given")
            }]);
            message = "name: must be given".to_owned();
        }
        // Not by way of `Error`, which would log a failure that has not happened.
        let status = Status::with_error_details(code.grpc(), message, details);
        let problem =
            Problem::new(&status, "req_01a20145ad49729fa3de1d1288dc1d47", base, &str::to_owned);
        (code.name().to_owned(), json!({"summary": code.title(), "value": problem.document}))
    });
    examples.collect::<Map<_, _>>().into()
}
