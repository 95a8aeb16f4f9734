//! `offboard.v1.EventService`.

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::db::id::check_id;
use crate::db::{Page, PageSize, Realm, Seal, binding};
use crate::error::{Result, Violations};
use crate::events::Watching;
use crate::events::cursor::Cursor;
use crate::events::model::{EVENT, Event, EventType};
use crate::events::queries::{self, Scope};
use crate::events::watch::{News, Told, Watch, check_age};
use crate::filter::check_filter;
use crate::proto::v1::event_service_server::EventService as Service;
use crate::proto::{convert, v1};

const SIZES: PageSize = PageSize { default: 100, max: 1_000 };
/// How many reads one page is made of at most.
const READS_PER_PAGE: usize = 5;
/// The header that goes on where a stream of server-sent events broke off.
const LAST_EVENT_ID: &str = "last-event-id";

/// Events, by page and as a stream.
pub struct EventService {
    watching: Watching,
}

impl EventService {
    /// The service on this database, and what its streams need.
    pub fn new(watching: Watching) -> Self {
        EventService { watching }
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<v1::WatchEventsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Service for EventService {
    async fn list_events(&self, request: Request<v1::ListEventsRequest>) -> Result<Response<v1::ListEventsResponse>, Status> {
        let realm = Caller::of(&request)?.realm;
        let mut request = request.into_inner();
        let (size, token) = (std::mem::take(&mut request.page_size), std::mem::take(&mut request.page_token));
        let seal = self.watching.db.seal().await?;
        let mut faults = Violations::new();
        let page: Page<Cursor> = Page::check(seal.clone(), &realm, "EventService/ListEvents", &request, (size, &token), SIZES, &mut faults);
        let scope = scope(&realm, request.types, request.subject, &mut faults);
        let mut cursor = page.after().cloned().unwrap_or_else(Cursor::beginning);
        check_age(&cursor, "page_token", &mut faults);
        let filter = check_filter(&EVENT, &request.filter, &mut faults);
        faults.check()?;
        let filter = filter?;
        let holds = |event: &Event| scope.has(&event.subject) && filter.as_ref().is_none_or(|filter| filter.matches(event));

        let mut events: Vec<v1::Event> = Vec::new();
        let mut caught_up = false;
        for _ in 0..READS_PER_PAGE {
            let wanted = page.size() - events.len();
            let (scope_of_read, from) = (scope.clone(), cursor.clone());
            // Of what a filter is tried on, few may be wanted.
            let limit = if filter.is_some() { i64::from(SIZES.max) } else { wanted as i64 };
            let batch = self.watching.db.run(move |connection| queries::read(connection, &scope_of_read, &from, limit)).await?;
            let mut found = batch.rows.iter().flat_map(|row| row.events()).filter(&holds);
            for event in found.by_ref().take(wanted) {
                cursor = event.cursor.clone();
                events.push(to_proto(event, &seal, &realm)?);
            }
            let cut = found.next().is_some();
            if !cut {
                (cursor, caught_up) = (batch.cursor, batch.caught_up);
            }
            if caught_up || cut || events.len() == page.size() {
                break;
            }
        }
        Ok(Response::new(v1::ListEventsResponse { events, next_page_token: page.token(&cursor)?, caught_up }))
    }

    type WatchEventsStream = Responses;

    async fn watch_events(&self, request: Request<v1::WatchEventsRequest>) -> Result<Response<Responses>, Status> {
        let caller = Caller::of(&request)?;
        let last_event_id = request.metadata().get(LAST_EVENT_ID).map(|id| id.to_str().unwrap_or("unreadable").to_owned());
        let v1::WatchEventsRequest { cursor, from, types, subject } = request.into_inner();
        let realm = caller.realm.clone();
        let seal = self.watching.db.seal().await?;
        let mut faults = Violations::new();
        let scope = scope(&realm, types, subject, &mut faults);
        // A client that reconnects does so to the address that it began with, so its header is the later word.
        let (name, given) = match last_event_id.filter(|id| !id.is_empty()) {
            Some(id) => (LAST_EVENT_ID, id),
            None => ("cursor", cursor),
        };
        let resumed = (!given.is_empty()).then(|| open(&seal, &realm, name, &given, &mut faults)).flatten();
        if v1::EventsFrom::try_from(from).is_err() {
            faults.add("from", "invalid", "must be `now` or `beginning`");
        }
        faults.check()?;

        let wake_up = self.watching.hub.subscribe(Some(&realm));
        let cursor = match resumed {
            Some(cursor) => cursor,
            None if from == v1::EventsFrom::Beginning as i32 => Cursor::beginning(),
            None => self.watching.db.run(queries::now).await?,
        };
        let watch = Watch {
            db: self.watching.db.clone(),
            admission: self.watching.admission(caller),
            scope,
            wake_up,
            cursor,
            told: Told::default(),
        };
        Ok(Response::new(responses(watch, seal, realm)))
    }
}

/// The messages of a stream. It is read no faster than the caller takes it, and ends with the first failure.
fn responses(watch: Watch, seal: Seal, realm: Realm) -> Responses {
    stream::unfold(Some((watch, seal, realm)), |state| async move {
        let (mut watch, seal, realm) = state?;
        let response = match watch.next().await {
            Ok(News::Event(event)) => to_proto(*event, &seal, &realm).map(|event| {
                let cursor = event.cursor.clone();
                v1::WatchEventsResponse { event: Some(event), cursor }
            }),
            Ok(News::Nothing(cursor)) => close(&seal, &realm, &cursor).map(|cursor| v1::WatchEventsResponse { event: None, cursor }),
            Err(error) => Err(error),
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
    for (place, name) in types.iter().enumerate() {
        if EventType::parse(name).is_none() {
            faults.add(format!("types[{place}]"), "invalid", "must be a type of event, such as `entity.offboarded`");
        }
    }
    if !subject.is_empty() {
        check_id(&subject, "subject", faults);
    }
    Scope::of(realm).with_types(types).with_subject((!subject.is_empty()).then_some(subject))
}

/// What cursors are bound to: the realm, and nothing that would keep a caller from going on with other arguments.
fn bound_to(realm: &Realm) -> Vec<u8> {
    binding(realm, "EventService/cursor", &())
}

fn close(seal: &Seal, realm: &Realm, cursor: &Cursor) -> Result<String> {
    seal.close(&bound_to(realm), cursor)
}

fn open(seal: &Seal, realm: &Realm, name: &str, text: &str, faults: &mut Violations) -> Option<Cursor> {
    let cursor: Option<Cursor> = seal.open(&bound_to(realm), text);
    match &cursor {
        Some(cursor) => check_age(cursor, name, faults),
        None => faults.add(name, "invalid", "must be the `cursor` of an event or of a message of `WatchEvents`"),
    }
    cursor
}

fn to_proto(event: Event, seal: &Seal, realm: &Realm) -> Result<v1::Event> {
    Ok(v1::Event {
        specversion: "1.0".to_owned(),
        id: event.id,
        source: event.source,
        r#type: event.event_type,
        subject: event.subject,
        time: Some(convert::timestamp(event.time)),
        datacontenttype: "application/json".to_owned(),
        data: Some(convert::to_struct(serde_json::Value::Object(event.data))),
        cursor: close(seal, realm, &event.cursor)?,
    })
}
