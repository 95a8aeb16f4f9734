//! Serving one request: from its route, through the service, to its response.

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::ConnectInfo;
use futures::stream::StreamExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body::Body as _;
use prost_reflect::DynamicMessage;
use tonic::Status;
use tower::Service;

use super::binding::{Binding, BodyRule};
use super::body::{self, Form, Reading};
use super::call::{Answer, call};
use super::compression::Lasting;
use super::csv::{self, Table};
use super::exchange::{Exchange, codings_taken};
use super::faults::Faults;
use super::messages::messages;
use super::request::Target;
use super::route::{Found, Router};
use super::stream::Framing;
use super::version::{self, Conditions};
use super::{MatchedRoute, Prepared, head, headers, pages, plus, raw, request_id};
use crate::error::{Code, Error, nearest};

impl Exchange {
    /// Serves a request, and reports by which rule it was served.
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
                    None => self.refuse(no_route(&shared.router, parts.uri.path())),
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
        let found = Faults::default();
        let form = match binding.body {
            BodyRule::None => Ok(Form::Json),
            _ if binding.takes_bytes => Ok(Form::Bytes),
            _ => body::form(&parts.headers, binding.rpc.client_streaming),
        };
        let form = form.map_err(|error| (self.media_types_taken(&parts.method), error));
        let (form, coding) = match form.and_then(|form| {
            Ok((form, body::coding(&parts.headers).map_err(|error| (codings_taken(), error))?))
        }) {
            Ok(read) => read,
            // Who calls is reported first, so the call continues, up to where the body would be read.
            Err((taken, error)) => {
                found.keep_unfit(taken, error);
                (Form::Json, None)
            }
        };
        target.form = found.form();
        let (conditions, faults) = Conditions::of(&parts.method, &parts.headers, &binding);
        found.keep(&faults);
        target.expected_version = conditions.expected;
        let (mut metadata, faults) = headers::to_metadata(&parts.headers);
        found.keep(&faults);
        metadata.insert(request_id::HEADER, self.request_id_header());
        if binding.rpc.client_streaming {
            // The faults of the head of a stream are reported before anything of it is read.
            found.keep(&target.faults());
        }

        let content_type = if form == Form::Bytes {
            raw::declared(parts.headers.get(header::CONTENT_TYPE))
        } else {
            String::new()
        };
        // The stack authenticates the caller, before anything is read.
        let account = self.shared.options.bodies.open();
        parts.extensions.insert(account.clone());
        parts.extensions.insert(self.responding.clone());
        parts.extensions.insert(found.form());
        let reading = Reading::new(body, coding, account, self.shared.options.max_body_bytes);
        let messages = messages(target, form, content_type, reading, found.clone());
        let table = Table::asked_for(&parts, &binding, &self.shared.base_path);
        let called = call(stack, &binding.rpc, metadata, parts.extensions, messages).await;
        let spell = |path: &str| binding.spell(path);
        let refused = |status: Status| {
            let mut response = self.problem(&found.reported(status, spell));
            if response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
                response.headers_mut().extend(found.taken_instead());
            }
            response
        };
        let answer = called.map_err(refused)?;
        if binding.rpc.server_streaming {
            // The faults of a message of a stream are reported after the responses to those before it.
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
            None => {
                let mut response = self.document(&binding, &conditions, &metadata, &message);
                if csv::is_table(&binding) {
                    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
                }
                response
            }
        })
    }

    /// The response of an RPC that returns one message.
    fn document(
        &self,
        binding: &Binding,
        conditions: &Conditions,
        metadata: &HeaderMap,
        message: &DynamicMessage,
    ) -> Response<Body> {
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
            Ok(text) => self.respond(
                status,
                headers,
                Some(HeaderValue::from_static("application/json")),
                Body::from(text),
            ),
            Err(status) => self.problem(&status),
        }
    }

    /// The response of an RPC that returns a page, for callers who want it as a table.
    fn table(
        &self,
        table: &Table,
        binding: &Binding,
        metadata: &HeaderMap,
        message: &DynamicMessage,
    ) -> Response<Body> {
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

    /// The response of an RPC that returns many messages. A fault of the request, which the service knows only as the end of its stream,
    /// is reported as it was found.
    fn stream(&self, answer: Answer, framing: Framing, found: Faults) -> Response<Body> {
        let (mut headers, status) = headers::of_stream(&answer.metadata, &self.shared.base_path);
        headers.append(header::VARY, HeaderValue::from_static("accept"));
        let binding = self.binding.clone();
        // The response to a stream of requests ends with it.
        let may_last = binding.as_ref().is_none_or(|binding| !binding.rpc.client_streaming);
        let spell = move |path: &str| {
            binding.as_ref().map_or_else(|| path.to_owned(), |binding| binding.spell(path))
        };
        let messages = answer
            .messages
            .map(move |message| message.map_err(|status| found.reported(status, &spell)));
        let body = framing.frame(self.clone(), messages);
        let mut response = self.respond(
            status,
            headers,
            Some(HeaderValue::from_static(framing.media_type())),
            body,
        );
        if may_last {
            response.extensions_mut().insert(Lasting);
        }
        response
    }

    /// The same where the messages are pieces of one body. The first of them declares its type.
    async fn stream_of_bytes(
        &self,
        mut answer: Answer,
        found: Faults,
    ) -> Result<Response<Body>, Response<Body>> {
        let Some(binding) = &self.binding else {
            return Err(self.refuse(Error::internal("a stream without a route")));
        };
        let reported = |status| self.problem(&found.reported(status, |path| binding.spell(path)));
        let first = answer.messages.message().await.map_err(reported)?;
        let (headers, status) = headers::of_stream(&answer.metadata, &self.shared.base_path);
        let empty = || DynamicMessage::new(binding.rpc.output().clone());
        let (media_type, data) = raw::read(binding, &first.unwrap_or_else(empty));
        Ok(self.respond(
            status,
            headers,
            Some(media_type),
            raw::rest(self.clone(), data, answer.messages),
        ))
    }

    fn text(&self, binding: &Binding, message: &DynamicMessage) -> Result<Vec<u8>, Status> {
        let mut text = Vec::with_capacity(512);
        self.write(binding, message, &mut text)?;
        Ok(text)
    }

    /// The response to a reader of a page.
    async fn page(&self, found: &pages::Found<'_>, parts: &request::Parts) -> Response<Body> {
        let mut response = match parts.method {
            Method::HEAD => self.sent(found, parts).await,
            Method::GET => {
                let answer = self.sent(found, parts).await;
                // Only what listeners take up comes from somewhere.
                let address =
                    parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
                let bytes = answer.body().size_hint().lower();
                match address
                    .map_or(Ok(()), |address| self.shared.page_bytes.report(address, bytes))
                {
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
        response.extensions_mut().insert(Prepared);
        response
    }

    async fn sent(&self, found: &pages::Found<'_>, parts: &request::Parts) -> Response<Body> {
        let (status, headers, body) = found.page.answer(&parts.headers).await;
        self.respond(status, headers, None, body)
    }
}

/// The refusal of a path that has no route, with the verb that it may mean.
fn no_route(router: &Router<Arc<Binding>>, path: &str) -> Error {
    let verb = path.rsplit('/').next().and_then(|last| last.rsplit_once(':'));
    let hint = verb
        .and_then(|(_, verb)| nearest(verb, router.verbs()))
        .map(|meant| format!(" Did you mean the verb `{meant}`?"))
        .unwrap_or_default();
    Error::new(Code::NotFound, format!("No route has this path.{hint}"))
}
