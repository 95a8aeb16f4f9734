//! The work of a page of events: read rows are unfolded, matched against a filter and made into messages, outside the threads that serve
//! calls.
//!
//! A filter may be of hundreds of conditions. So a call evaluates for a few milliseconds at a time, in turn with others that filter, and
//! only for so long in all: then its page is short, and the next one continues.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::db::{Realm, Seal};
use crate::error::{Error, Result, Violations};
use crate::events::cursor::Cursor;
use crate::events::model::{EVENT, Event, Row};
use crate::events::queries::Scope;
use crate::events::tokens::close;
use crate::events::visibility::Visibility;
use crate::filter::{Filter, check_filter};
use crate::limits::events::{FILTER_MILLIS, FILTER_TIME, FILTERS, FILTERS_AT_ONCE};
use crate::proto::{convert, v1};

/// For how long a call evaluates before another has its turn.
const SLICE: Duration = Duration::from_millis(4);

/// Turns at evaluating filters. Cheap to clone.
#[derive(Clone)]
pub struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Turns(Arc::new(Semaphore::new(FILTERS_AT_ONCE)))
    }
}

/// Reads a filter, outside the threads that serve calls: patterns take a while.
pub async fn parse(text: String, faults: &mut Violations) -> Result<Option<Filter>> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = tokio::task::spawn_blocking(move || {
        let mut faults = Violations::new();
        (check_filter(&EVENT, &text, &mut faults), faults)
    });
    let (filter, found) = parsed.await.map_err(Error::internal)?;
    faults.extend(&found);
    filter
}

/// The events that a list asks for.
pub struct Wanted {
    /// Of which subject.
    pub scope: Scope,
    /// Which of those.
    pub filter: Option<Filter>,
    /// How much of an event the caller sees.
    pub visibility: Visibility,
    /// The seal of cursors.
    pub seal: Seal,
    /// The caller's realm.
    pub realm: Realm,
}

/// The events of one page so far.
pub struct Picking {
    wanted: Arc<Wanted>,
    turns: Turns,
    left: Duration,
    /// The events that were found.
    pub events: Vec<v1::Event>,
    /// How many are to be found.
    size: usize,
}

/// Rows on their way through a slice.
struct Work {
    rows: Arc<Vec<Row>>,
    row: usize,
    subject: usize,
    found: Vec<v1::Event>,
    /// After the last event that was read.
    reached: Option<Cursor>,
    /// True if an event matches that the page has no room for, or everything was read.
    over: Option<Over>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    All,
    Full,
}

impl Picking {
    /// None so far of a page of this size.
    pub fn new(wanted: Wanted, turns: Turns, size: usize) -> Self {
        Picking {
            wanted: Arc::new(wanted),
            turns,
            left: Duration::from_millis(FILTER_MILLIS),
            events: Vec::new(),
            size,
        }
    }

    /// Returns whether there is a filter, so that few of the events that are read may be wanted.
    pub fn filters(&self) -> bool {
        self.wanted.filter.is_some()
    }

    /// How many events are still to be found.
    pub fn missing(&self) -> usize {
        self.size - self.events.len()
    }

    /// Takes the matching events of rows. Returns where to continue if that is before the end of the rows: the page is full, or its time is
    /// over.
    pub async fn take(&mut self, rows: Vec<Row>) -> Result<Option<Cursor>> {
        let mut work = Work {
            rows: Arc::new(rows),
            row: 0,
            subject: 0,
            found: Vec::new(),
            reached: None,
            over: None,
        };
        loop {
            let turn = if self.filters() { Some(self.turn().await?) } else { None };
            let (wanted, room) = (self.wanted.clone(), self.missing());
            let begun = Instant::now();
            work = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                work.run(&wanted, room, begun + SLICE)
            })
            .await
            .map_err(Error::internal)??;
            self.events.append(&mut work.found);
            if self.filters() {
                self.left = self.left.saturating_sub(begun.elapsed());
            }
            match work.over {
                Some(Over::All) => return Ok(None),
                Some(Over::Full) => return Ok(work.reached),
                None if self.left.is_zero() => {
                    FILTER_TIME.reached();
                    return Ok(work.reached);
                }
                None => {}
            }
        }
    }

    async fn turn(&self) -> Result<tokio::sync::OwnedSemaphorePermit> {
        let turns = self.turns.0.clone();
        if let Ok(turn) = turns.clone().try_acquire_owned() {
            return Ok(turn);
        }
        FILTERS.reached();
        turns.acquire_owned().await.map_err(Error::internal)
    }
}

impl Work {
    /// Continues until there are no more, the page is full, or the slice ends; at least one event is read.
    fn run(mut self, wanted: &Wanted, room: usize, until: Instant) -> Result<Work> {
        loop {
            let Some(row) = self.rows.get(self.row) else {
                self.over = Some(Over::All);
                return Ok(self);
            };
            let index = self.subject.max(row.delivered);
            let Some(subject) = row.subjects.get(index) else {
                (self.row, self.subject) = (self.row + 1, 0);
                continue;
            };
            self.subject = index + 1;
            if !wanted.scope.has(subject) {
                continue;
            }
            let Some(event) = row.event(index).map(|event| wanted.visibility.see(event)) else {
                continue;
            };
            if wanted.wants(&event) {
                if self.found.len() == room {
                    self.over = Some(Over::Full);
                    return Ok(self);
                }
                self.reached = Some(event.cursor.clone());
                self.found.push(to_proto(event, &wanted.seal, &wanted.realm)?);
            } else {
                self.reached = Some(event.cursor);
            }
            if Instant::now() >= until {
                return Ok(self);
            }
        }
    }
}

impl Wanted {
    fn wants(&self, event: &Event) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.matches(event))
    }
}

/// An event as callers get it.
pub(super) fn to_proto(event: Event, seal: &Seal, realm: &Realm) -> Result<v1::Event> {
    Ok(v1::Event {
        specversion: "1.0".to_owned(),
        id: event.id,
        source: event.source,
        r#type: event.event_type,
        subject: event.subject,
        time: Some(convert::timestamp(event.time)),
        datacontenttype: "application/json".to_owned(),
        data: Some(event.data),
        cursor: close(seal, realm, &event.cursor)?,
    })
}
