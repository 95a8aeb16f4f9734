//! One request and its answer.

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use axum::body::Body;
use axum::extract::ConnectInfo;
use futures::stream::StreamExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body::Body as _;
use prost_reflect::DynamicMessage;
use tonic::Status;
use tonic_types::StatusExt;
use tower::Service;

use super::binding::{Binding, BodyRule};
use super::body::{self, Form, Reading};
use super::call::{Answer, call};
use super::csv::Table;
use super::faults::Faults;
use super::messages::messages;
use super::plain::Refusals;
use super::problem::{Problem, Spelling};
use super::request::Target;
use super::route::Found;
use super::stream::Framing;
use super::version::{self, Conditions};
use super::{MatchedRoute, Shared, head, headers, json, pages, plus, raw, request_id};
use crate::error::{Code, Error};

/// What one request is answered with: the settings, and the id and rule of the request as far as they are known.
#[derive(Clone)]
pub struct Exchange {
    pub shared: Arc<Shared>,
    pub request_id: String,
    /// What refusals look like.
    pub refusals: Refusals,
    pub binding: Option<Arc<Binding>>,
    /// The query parameters in whose values a `+` stands.
    pub with_plus: Arc<[String]>,
    /// Whether the update mask is made of what the body names.
    pub mask_is_made: Arc<AtomicBool>,
}

impl Exchange {
    /// Answers a request, and tells which rule it was answered by.
    pub async fn answer<S>(mut self, stack: S, request: Request<Body>) -> Response<Body>
    where
        S: Service<Request<tonic::body::Body>, Response = Response<tonic::body::Body>>,
        S::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let mut response = self.find_and_answer(stack, request).await;
        if let Some(binding) = &self.binding {
            response.extensions_mut().insert(MatchedRoute(binding.path.clone()));
        }
        response
    }

    async fn find_and_answer<S>(&mut self, stack: S, request: Request<Body>) -> Response<Body>
    where
        S: Service<Request<tonic::body::Body>, Response = Response<tonic::body::Body>>,
        S::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        if let Err(error) = head::check(&parts) {
            return self.refuse(error);
        }
        let shared = Arc::clone(&self.shared);
        if parts.method == Method::OPTIONS && parts.uri.path() == "*" {
            return self.wrong_method(&parts.method, &shared.router.methods());
        }
        let target = match shared.router.find(&parts.method, parts.uri.path()) {
            Found::Nothing => {
                return match shared.pages.find(parts.uri.path(), &parts.headers) {
                    Some(found) => self.page(&found, &parts).await,
                    None => self.refuse(Error::new(Code::NotFound, "No route has this path.")),
                };
            }
            Found::OtherMethods(allowed) => return self.wrong_method(&parts.method, &allowed),
            Found::Route { target, variables } => Target {
                binding: Arc::clone(target),
                variables: variables.into_iter().map(String::from).collect(),
                query: parts.uri.query().map(str::to_owned),
                expected_version: None,
                mask_is_made: Arc::clone(&self.mask_is_made),
                form: crate::error::Form::default(),
            },
        };
        let binding = Arc::clone(&target.binding);
        self.binding = Some(binding);
        self.with_plus = plus::parameters(parts.uri.query().unwrap_or_default()).into();
        match self.exchange(stack, target, parts, body).await {
            Ok(response) => response,
            Err(response) => response,
        }
    }

    async fn exchange<S>(
        &self,
        stack: S,
        mut target: Target,
        mut parts: request::Parts,
        body: Body,
    ) -> Result<Response<Body>, Response<Body>>
    where
        S: Service<Request<tonic::body::Body>, Response = Response<tonic::body::Body>>,
        S::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let binding = Arc::clone(&target.binding);
        let form = match binding.body {
            BodyRule::None => Form::Json,
            _ if binding.takes_bytes => Form::Bytes,
            _ => body::form(&parts.headers, binding.rpc.client_streaming).map_err(|error| self.wrong_media_type(&parts.method, error))?,
        };
        let coding = body::coding(&parts.headers).map_err(|error| self.wrong_coding(error))?;
        let found = Faults::default();
        target.form = found.form();
        let (conditions, faults) = Conditions::of(&parts.method, &parts.headers, &binding);
        found.keep(&faults);
        target.expected_version = conditions.expected;
        let (mut metadata, faults) = headers::to_metadata(&parts.headers);
        found.keep(&faults);
        metadata.insert(request_id::HEADER, self.request_id_header());
        if binding.rpc.client_streaming {
            // What is wrong with the head of a stream is told before anything of it is read.
            found.keep(&target.faults());
        }

        let content_type = if form == Form::Bytes { raw::declared(parts.headers.get(header::CONTENT_TYPE)) } else { String::new() };
        // The stack says whose it is, before anything is read.
        let account = self.shared.options.bodies.open();
        parts.extensions.insert(account.clone());
        parts.extensions.insert(found.form());
        let reading = Reading::new(body, coding, account, self.shared.options.max_body_bytes);
        let messages = messages(target, form, content_type, reading, found.clone());
        let table = Table::asked_for(&parts, &binding, &self.shared.base_path);
        let called = call(stack, &binding.rpc, metadata, parts.extensions, messages).await;
        let spell = |path: &str| binding.spell(path);
        let refused = |status: Status| self.problem(&found.told(status, spell));
        let answer = called.map_err(refused)?;
        if binding.rpc.server_streaming {
            // What is wrong with a message of a stream is told behind the answers to those before it.
            if found.has_faults()
                && let Some(refusal) = found.instead(&answer.metadata, spell)
            {
                return Err(self.problem(&refusal));
            }
            return if binding.gives_bytes {
                self.stream_of_bytes(answer, found.clone()).await
            } else {
                Ok(self.stream(answer, Framing::of(&parts.headers), found.clone()))
            };
        }
        let (metadata, message) = answer.only().await.map_err(refused)?;
        if let Some(refusal) = found.instead(&metadata, spell) {
            return Err(self.problem(&refusal));
        }
        Ok(match table {
            Some(table) => self.table(&table, &binding, &metadata, &message),
            None => self.document(&binding, &conditions, &metadata, &message),
        })
    }

    /// The answer of an RPC that answers with one message.
    fn document(&self, binding: &Binding, conditions: &Conditions, metadata: &HeaderMap, message: &DynamicMessage) -> Response<Body> {
        let (mut headers, status) = self.headers(metadata);
        let status = status.unwrap_or(StatusCode::OK);
        if !headers.contains_key(header::ETAG)
            && let Some(tag) = version::tag(binding, message)
        {
            headers.insert(header::ETAG, tag);
        }
        if status == StatusCode::NO_CONTENT {
            return self.respond(status, headers, None, Body::empty());
        }
        if headers.get(header::ETAG).is_some_and(|tag| conditions.has(tag)) {
            return self.respond(StatusCode::NOT_MODIFIED, headers, None, Body::empty());
        }
        if binding.gives_bytes {
            let (media_type, data) = raw::read(binding, message);
            return self.respond(status, headers, Some(media_type), Body::from(data));
        }
        match self.text(binding, message) {
            Ok(text) => self.respond(status, headers, Some(HeaderValue::from_static("application/json")), Body::from(text)),
            Err(status) => self.problem(&status),
        }
    }

    /// The answer of an RPC that answers with a page, for those who want it as a table.
    fn table(&self, table: &Table, binding: &Binding, metadata: &HeaderMap, message: &DynamicMessage) -> Response<Body> {
        let (mut headers, status) = self.headers(metadata);
        match table.write(&binding.rpc, message) {
            Ok(page) => {
                headers.extend(page.headers);
                self.respond(
                    status.unwrap_or(StatusCode::OK),
                    headers,
                    Some(HeaderValue::from_static(page.media_type)),
                    Body::from(page.text),
                )
            }
            Err(error) => self.refuse(error),
        }
    }

    /// The answer of an RPC that answers with many messages. A fault of the request, which the service knows only as the end of its stream, is
    /// told as it was found.
    fn stream(&self, answer: Answer, framing: Framing, found: Faults) -> Response<Body> {
        let (headers, status) = headers::of_stream(&answer.metadata, &self.shared.base_path);
        let binding = self.binding.clone();
        let spell = move |path: &str| binding.as_ref().map_or_else(|| path.to_owned(), |binding| binding.spell(path));
        let messages = answer.messages.map(move |message| message.map_err(|status| found.told(status, &spell)));
        let body = framing.frame(self.clone(), messages);
        self.respond(status, headers, Some(HeaderValue::from_static(framing.media_type())), body)
    }

    /// The same where the messages are pieces of one body. The first of them says what it is.
    async fn stream_of_bytes(&self, mut answer: Answer, found: Faults) -> Result<Response<Body>, Response<Body>> {
        let Some(binding) = &self.binding else { return Err(self.refuse(Error::internal("a stream without a route"))) };
        let told = |status| self.problem(&found.told(status, |path| binding.spell(path)));
        let first = answer.messages.message().await.map_err(told)?;
        let (headers, status) = headers::of_stream(&answer.metadata, &self.shared.base_path);
        let empty = || DynamicMessage::new(binding.rpc.output().clone());
        let (media_type, data) = raw::read(binding, &first.unwrap_or_else(empty));
        Ok(self.respond(status, headers, Some(media_type), raw::rest(self.clone(), data, answer.messages)))
    }

    fn text(&self, binding: &Binding, message: &DynamicMessage) -> Result<Vec<u8>, Status> {
        let mut text = Vec::with_capacity(512);
        self.write(binding, message, &mut text)?;
        Ok(text)
    }

    /// Writes the JSON of a message of the answer.
    pub fn write(&self, binding: &Binding, message: &DynamicMessage, out: &mut Vec<u8>) -> Result<(), Status> {
        let rpc = &binding.rpc;
        let written = match binding.response_body {
            Some(place) => json::encode_field(&rpc.schema, &rpc.schema.message(rpc.output).fields[place], message, out),
            None if !binding.answer_members.is_empty() => json::encode_some(&rpc.schema, rpc.output, &binding.answer_members, message, out),
            None => json::encode_value(&rpc.schema, &rpc.output_shape, message, out),
        };
        Ok(written.map_err(Error::internal)?)
    }

    /// The problem document of a status.
    pub fn problem_of(&self, status: &Status) -> Problem {
        // Our own failures were logged when they were made; what comes from a library would go unseen.
        if status.code() == tonic::Code::Unknown || status.code() == tonic::Code::Internal && status.get_details_error_info().is_none() {
            let cause = status.source().map(ToString::to_string);
            tracing::error!(request_id = self.request_id, message = status.message(), cause, "call failed");
        }
        let mut problem = Problem::new(status, &self.request_id, &self.shared.base, self);
        if !self.with_plus.is_empty() {
            plus::explain(&mut problem.document, &self.with_plus);
        }
        problem
    }

    fn problem(&self, status: &Status) -> Response<Body> {
        let problem = self.problem_of(status);
        let (mut headers, _) = self.headers(status.metadata().as_ref());
        headers.extend(problem.headers);
        let (media_type, text) = self.refusals.written(problem.status, problem.document, &mut headers);
        self.respond(problem.status, headers, Some(HeaderValue::from_static(media_type)), Body::from(text))
    }

    /// The headers and the status of an answer with this metadata.
    fn headers(&self, metadata: &HeaderMap) -> (HeaderMap, Option<StatusCode>) {
        headers::from_metadata(metadata, &self.shared.base_path)
    }

    /// The answer to a failure that the gateway found.
    pub fn refuse(&self, error: Error) -> Response<Body> {
        self.problem(&error.into())
    }

    /// The answer to a reader of a page.
    async fn page(&self, found: &pages::Found<'_>, parts: &request::Parts) -> Response<Body> {
        let mut response = match parts.method {
            Method::HEAD => self.sent(found, parts).await,
            Method::GET => {
                let answer = self.sent(found, parts).await;
                // Only what listeners take up comes from somewhere.
                let address = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
                let bytes = answer.body().size_hint().lower();
                match address.map_or(Ok(()), |address| self.shared.page_bytes.tell(address, bytes)) {
                    Ok(()) => answer,
                    Err(error) => self.refuse(error),
                }
            }
            _ => self.wrong_method(&parts.method, &[Method::GET, Method::HEAD, Method::OPTIONS]),
        };
        if found.varies {
            response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
        }
        response.extensions_mut().insert(MatchedRoute(found.route.to_owned()));
        response
    }

    async fn sent(&self, found: &pages::Found<'_>, parts: &request::Parts) -> Response<Body> {
        let (status, headers, body) = found.page.answer(&parts.headers).await;
        self.respond(status, headers, None, body)
    }

    fn wrong_method(&self, method: &Method, allowed: &[Method]) -> Response<Body> {
        let list = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        let mut response = if method == Method::OPTIONS {
            self.respond(StatusCode::NO_CONTENT, HeaderMap::new(), None, Body::empty())
        } else {
            self.refuse(Error::new(Code::MethodNotAllowed, format!("This path takes {list}.")))
        };
        response.headers_mut().insert(header::ALLOW, HeaderValue::try_from(list).expect("names of methods are fit for a header"));
        response
    }

    /// Tells what media types the route takes: `Accept-Post` (W3C Linked Data Platform), `Accept-Patch` (RFC 5789), or `Accept` (RFC 9110).
    fn wrong_media_type(&self, method: &Method, error: Error) -> Response<Body> {
        let mut response = self.refuse(error);
        let is_stream = self.binding.as_ref().is_some_and(|binding| binding.rpc.client_streaming);
        let lines: &[&str] = if is_stream { &body::ALL_JSON_LINES } else { &[] };
        let taken = [lines, &["application/json"]].concat().join(", ");
        let name = match *method {
            Method::POST => "accept-post",
            Method::PATCH => "accept-patch",
            _ => "accept",
        };
        response.headers_mut().insert(name, HeaderValue::try_from(taken).expect("media types are fit for a header"));
        response
    }

    /// Tells what a body may be compressed by (RFC 9110, section 15.5.16).
    fn wrong_coding(&self, error: Error) -> Response<Body> {
        let mut response = self.refuse(error);
        response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("zstd, gzip"));
        response
    }

    fn respond(&self, status: StatusCode, headers: HeaderMap, media_type: Option<HeaderValue>, body: Body) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        let headers = response.headers_mut();
        if let Some(media_type) = media_type {
            headers.insert(header::CONTENT_TYPE, media_type);
        }
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        headers.insert(request_id::HEADER, self.request_id_header());
        response
    }

    fn request_id_header(&self) -> HeaderValue {
        HeaderValue::try_from(&self.request_id).expect("a sane id is fit for a header")
    }
}

impl Spelling for Exchange {
    /// A mask that the caller has not sent is its body, of which it was made.
    fn field(&self, path: &str) -> String {
        match &self.binding {
            Some(binding) if self.mask_is_made.load(Relaxed) && binding.is_update_mask(path) => "body".to_owned(),
            Some(binding) => binding.spell(path),
            None => path.to_owned(),
        }
    }

    fn name(&self, fault: &str, name: &str) -> String {
        self.binding.as_ref().map_or_else(|| name.to_owned(), |binding| binding.spell_in(fault, name))
    }
}
