//! `offboard.v1.EventService`.

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::db::{Db, Page, Realm, Seal};
use crate::error::{Code, Error, Result, Violation, Violations};
use crate::events::Watching;
use crate::events::cursor::Cursor;
use crate::events::event_stream::{News, Unsent, Watch};
use crate::events::lists::{self, Picking, Turns, Wanted, to_proto};
use crate::events::model::EventType;
use crate::events::queries::{self, Scope};
use crate::events::tokens::{self, Tokens, close};
use crate::events::visibility::Visibility;
use crate::proto::v1;
use crate::proto::v1::event_service_server::EventService as Service;

/// How many reads one page is made of at most.
const READS_PER_PAGE: usize = 5;
/// How many characters a subject may have: an id has fewer, and the path of an attribute as many.
const MAX_SUBJECT: usize = 256;
/// The header that continues where a stream of server-sent events broke off.
const LAST_EVENT_ID: &str = "last-event-id";

/// Events, by page and as a stream.
pub struct EventService {
    watching: Watching,
    turns: Turns,
}

impl EventService {
    /// The service on this database, and what its streams need.
    pub fn new(watching: Watching) -> Self {
        EventService { watching, turns: Turns::default() }
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<v1::WatchEventsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Service for EventService {
    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (visibility, realm) = (Visibility::of(&caller), caller.realm);
        let mut request = request.into_inner();
        let db = &self.watching.db;
        let seal = db.seal().await?;
        let mut faults = Violations::new();
        // A token of versions that had those of their own is read as well.
        let given = tokens::open(&seal, &realm, &request);
        if given.is_some() {
            request.page_token.clear();
        }
        let page: Page<Cursor> = Page::check(seal.clone(), &realm, &mut request, &mut faults);
        let tokens = Tokens::of(&seal, &realm, &request);
        let scope = scope(&realm, request.types, request.subject, &mut faults);
        let filter = lists::parse(request.filter, &mut faults).await;
        let filter = faults.check_with(filter)?;
        let wanted = Wanted {
            scope: scope.clone(),
            filter,
            visibility,
            seal: seal.clone(),
            realm: realm.clone(),
        };
        let mut picking = Picking::new(wanted, self.turns.clone(), page.size());
        let mut cursor = given.or_else(|| page.after().cloned()).unwrap_or_else(Cursor::beginning);
        let mut caught_up = false;
        self.watching.hub.sequencer().catch_up().await?;
        for _ in 0..READS_PER_PAGE {
            let (scope, from) = (scope.clone(), cursor.clone());
            // Of what a filter is tried on, few may be wanted.
            let limit = if picking.filters() {
                i64::from(tokens::SIZES.max)
            } else {
                picking.missing() as i64
            };
            let batch =
                db.run(move |connection| queries::read(connection, &scope, &from, limit)).await;
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    return Err(self
                        .in_words_of_request(error, "page_token", |cursor| tokens.token(cursor))
                        .await
                        .into());
                }
            };
            if let Some(last) = batch.rows.last() {
                self.watching.hub.sequencer().remember_sent(last);
            }
            if let Some(reached) = picking.take(batch.rows).await? {
                cursor = reached;
                break;
            }
            (cursor, caught_up) = (batch.cursor, batch.caught_up);
            if caught_up || picking.missing() == 0 {
                break;
            }
        }
        Ok(Response::new(v1::ListEventsResponse {
            events: picking.events,
            next_page_token: tokens.token(&cursor)?,
            caught_up,
        }))
    }

    type WatchEventsStream = Responses;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Responses>, Status> {
        let caller = Caller::of(&request)?;
        let last_event_id = request
            .metadata()
            .get(LAST_EVENT_ID)
            .map(|id| id.to_str().unwrap_or("unreadable").to_owned());
        let v1::WatchEventsRequest { cursor, from, types, subject } = request.into_inner();
        let (visibility, realm) = (Visibility::of(&caller), caller.realm.clone());
        let seal = self.watching.db.seal().await?;
        let mut faults = Violations::new();
        let scope = scope(&realm, types, subject, &mut faults);
        // A client that reconnects does so to the address that it began with, so its header is the later word.
        let (name, given) = match last_event_id.filter(|id| !id.is_empty()) {
            Some(id) => (LAST_EVENT_ID, id),
            None => ("cursor", cursor),
        };
        let resumed =
            (!given.is_empty()).then(|| open(&seal, &realm, name, &given, &mut faults)).flatten();
        if v1::EventsFrom::try_from(from).is_err() {
            faults.add("from", "invalid", "must be `now` or `beginning`");
        }
        faults.check()?;

        let wake_up = self.watching.hub.subscribe(&realm);
        let db = &self.watching.db;
        let cursor = match resumed {
            Some(cursor) => {
                let given = cursor.clone();
                if let Err(error) =
                    db.run(move |connection| queries::check(connection, &given)).await
                {
                    return Err(self
                        .in_words_of_request(error, name, |cursor| close(&seal, &realm, cursor))
                        .await
                        .into());
                }
                cursor
            }
            None if from == v1::EventsFrom::Beginning as i32 => Cursor::beginning(),
            None => {
                self.watching.hub.sequencer().catch_up().await?;
                db.run(queries::now).await?
            }
        };
        let watch = Watch {
            db: db.clone(),
            hub: self.watching.hub.clone(),
            admission: self.watching.admission(caller),
            scope,
            wake_up,
            cursor,
            unsent: Unsent::default(),
        };
        Ok(Response::new(responses(watch, visibility, seal, realm)))
    }
}

impl EventService {
    /// An error of reading, in the words of the request: a fault under the name of its field, and where to continue as the caller may say
    /// it.
    async fn in_words_of_request(
        &self,
        error: Error,
        field: &str,
        text: impl Fn(&Cursor) -> Result<String>,
    ) -> Error {
        in_words_of_request(&self.watching.db, error, field, text).await
    }
}

async fn in_words_of_request(
    db: &Db,
    error: Error,
    field: &str,
    text: impl Fn(&Cursor) -> Result<String>,
) -> Error {
    match error.code() {
        Code::ValidationFailed => {
            let faults = error
                .violations()
                .iter()
                .map(|fault| Violation { field: field.to_owned(), ..fault.clone() });
            Error::validation(faults.collect())
        }
        Code::OutOfRange => {
            let Some(position) =
                error.member("parted_at").and_then(|position| position.parse().ok())
            else {
                return error;
            };
            let behind = db.run(move |connection| queries::behind(connection, position)).await;
            match behind.and_then(|cursor| text(&cursor)) {
                Ok(cursor) => error.with_whole("cursor", cursor),
                Err(_) => error,
            }
        }
        _ => error,
    }
}

/// The messages of a stream. It is read no faster than the caller takes it, and ends with the first failure.
fn responses(watch: Watch, visibility: Visibility, seal: Seal, realm: Realm) -> Responses {
    stream::unfold(Some((watch, seal, realm)), move |state| async move {
        let (mut watch, seal, realm) = state?;
        let response = match watch.next().await {
            Ok(News::Event(event)) => {
                to_proto(visibility.see(*event), &seal, &realm).map(|event| {
                    let cursor = event.cursor.clone();
                    v1::WatchEventsResponse { event: Some(event), cursor }
                })
            }
            Ok(News::Nothing(cursor)) => close(&seal, &realm, &cursor)
                .map(|cursor| v1::WatchEventsResponse { event: None, cursor }),
            Err(error) => Err(in_words_of_request(&watch.db, error, "cursor", |cursor| {
                close(&seal, &realm, cursor)
            })
            .await),
        };
        match response {
            Ok(response) => Some((Ok(response), Some((watch, seal, realm)))),
            Err(error) => Some((Err(error.into()), None)),
        }
    })
    .boxed()
}

/// The realm's events of these types and this subject, or why there can be none.
fn scope(realm: &Realm, types: Vec<String>, subject: String, faults: &mut Violations) -> Scope {
    for (index, name) in types.iter().enumerate() {
        if EventType::parse(name).is_none() {
            faults.add(
                format!("types[{index}]"),
                "invalid",
                "must be a type of event, such as `entity.offboarded`",
            );
        }
    }
    if subject.chars().count() > MAX_SUBJECT || subject.contains('\0') {
        faults.add(
            "subject",
            "invalid",
            format!("must be at most {MAX_SUBJECT} characters, none of them U+0000"),
        );
    }
    Scope::of(realm).with_types(types).with_subject((!subject.is_empty()).then_some(subject))
}

fn open(
    seal: &Seal,
    realm: &Realm,
    name: &str,
    text: &str,
    faults: &mut Violations,
) -> Option<Cursor> {
    let cursor = tokens::open_cursor(seal, realm, text);
    if cursor.is_none() {
        let description = "must be the `cursor` of an event or of a message of `WatchEvents`, or the `next_page_token` of `ListEvents`";
        faults.add(name, "invalid", description);
    }
    cursor
}
