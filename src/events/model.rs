//! An event. Pure.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::json;
use uuid::Uuid;

use crate::db::{Mode, text_enum};
use crate::events::cursor::Cursor;
use crate::filter::{Datum, Property, PropertyKind, Record, Vocabulary};
use crate::proto::object::{Struct, View};

text_enum! {
    /// The data of an event. Its `subjects` are the ids of its subjects: one, or those of a chunk.
    pub enum EventType {
        /// Entities were created.
        EntityCreated = "entity.created",
        /// An entity, or something that hangs on it, was changed; `fields` or `dependent` in its data says what.
        EntityUpdated = "entity.updated",
        /// An entity is active: taking in is done.
        EntityOnboarded = "entity.onboarded",
        /// An entity is kept from being removed.
        EntityHeld = "entity.held",
        /// The hold of an entity was released.
        EntityReleased = "entity.released",
        /// An entity is to be offboarded.
        EntityOffboardingRequested = "entity.offboarding_requested",
        /// An offboarding was canceled before it started; the entity is active again.
        EntityOffboardingCanceled = "entity.offboarding_canceled",
        /// An offboarding could not be done; the entity is active again.
        EntityOffboardingFailed = "entity.offboarding_failed",
        /// An entity was removed by its offboarding.
        EntityOffboarded = "entity.offboarded",
        /// Entities were removed by a bulk delete.
        EntityDeleted = "entity.deleted",
        /// The removal policy of a realm was changed. The subject is the organisation.
        RemovalPolicyUpdated = "removal_policy.updated",
        /// An attribute was declared as indexed. The subject is its path.
        AttributeIndexCreated = "attribute_index.created",
        /// An index is in use.
        AttributeIndexReady = "attribute_index.ready",
        /// An index could not be built; `error_code` in its data says why.
        AttributeIndexFailed = "attribute_index.failed",
        /// An index is used no more, and is being removed.
        AttributeIndexDeleted = "attribute_index.deleted",
        /// A portfolio was created.
        PortfolioCreated = "portfolio.created",
        /// The fields of a portfolio were changed; `fields` in the event's data names them.
        PortfolioUpdated = "portfolio.updated",
        /// A portfolio was deleted; it had no members.
        PortfolioDeleted = "portfolio.deleted",
        /// Entities became members of a portfolio.
        PortfolioEntityAttached = "portfolio.entity_attached",
        /// Entities are members of a portfolio no more.
        PortfolioEntityDetached = "portfolio.entity_detached",
        /// A key was created.
        KeyCreated = "key.created",
        /// The fields of a key were changed; `fields` in the event's data names them.
        KeyUpdated = "key.updated",
        /// A key has another secret.
        KeyRotated = "key.rotated",
        /// A key was revoked.
        KeyRevoked = "key.revoked",
        /// The access policy of a realm was changed. The subject is the organisation.
        AccessPolicyUpdated = "access_policy.updated",
        /// A bulk delete was asked for.
        BulkDeleteScheduled = "bulk_delete.scheduled",
        /// A worker has taken a bulk delete up.
        BulkDeleteStarted = "bulk_delete.started",
        /// A worker has taken a bulk delete up again.
        BulkDeleteContinued = "bulk_delete.continued",
        /// A bulk delete is to pause.
        BulkDeletePausing = "bulk_delete.pausing",
        /// A bulk delete has paused.
        BulkDeletePaused = "bulk_delete.paused",
        /// A bulk delete is to continue.
        BulkDeleteResumed = "bulk_delete.resumed",
        /// A bulk delete is to stop.
        BulkDeleteCanceling = "bulk_delete.canceling",
        /// The last worker of a bulk delete has turned to another one that waited.
        BulkDeleteWaiting = "bulk_delete.waiting",
        /// The last worker of a bulk delete was lost or has left.
        BulkDeleteLost = "bulk_delete.lost",
        /// A bulk delete is to be faster or slower.
        BulkDeleteUpdated = "bulk_delete.updated",
        /// A bulk delete ended; `status` in its data says how.
        BulkDeleteEnded = "bulk_delete.ended",
    }
}

/// New rows in the order in which they are to be delivered.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The rows. There may be none although there are more: a read is bounded, and not all of its rows need match.
    pub rows: Vec<Row>,
    /// Where to continue behind the rows. It may be farther than behind the last of them.
    pub cursor: Cursor,
    /// True if there was nothing more when this was read.
    pub caught_up: bool,
}

/// A row of the outbox: something that happened to one subject, or the same to many.
#[derive(Clone, Debug)]
pub struct Row {
    /// Names the row to the outside.
    pub id: Uuid,
    /// The realm that it happened in.
    pub realm_id: i32,
    /// The realm's organisation.
    pub org: String,
    /// The mode of the realm.
    pub mode: Mode,
    /// When the transaction began that did it.
    pub occurred_at: DateTime<Utc>,
    /// The spelling of an [`EventType`]. Text, so that a replica also sends what only a newer one knows.
    pub event_type: String,
    /// The ids of the subjects.
    pub subjects: Vec<String>,
    /// Further data.
    pub data: Struct,
    /// The principal.
    pub principal_id: Uuid,
    /// How many of the subjects were delivered before.
    pub(super) delivered: usize,
    /// The cursor behind the whole row.
    pub(super) cursor: Cursor,
}

/// An event with one subject: the form that is published.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Different from that of any other event, and the same whenever the event is sent again: the row's id, with `-1`, `-2` and so on after
    /// it where the row has many subjects.
    pub id: String,
    /// A reference to the realm: `/orgs/acme/test`.
    pub source: String,
    /// The spelling of an [`EventType`].
    pub event_type: String,
    /// The id of the subject.
    pub subject: String,
    /// When the transaction began that did it.
    pub time: DateTime<Utc>,
    /// Further data; always with `principal_id`.
    pub data: Struct,
    /// Where to continue after it.
    pub cursor: Cursor,
}

/// The properties for the filter of a list of events.
pub static EVENT: Vocabulary = Vocabulary {
    properties: &[
        Property::in_memory(&["id"], PropertyKind::Text),
        Property::in_memory(&["type"], PropertyKind::Text),
        Property::in_memory(&["subject"], PropertyKind::Text),
        Property::in_memory(&["time"], PropertyKind::Time),
        Property::in_memory(&["data"], PropertyKind::Json),
    ],
};

impl Record for Event {
    fn datum(&self, property: &str) -> Datum<'_> {
        match property {
            "id" => Datum::Text(&self.id),
            "type" => Datum::Text(&self.event_type),
            "subject" => Datum::Text(&self.subject),
            "time" => Datum::Time(self.time),
            "data" => Datum::Json(self.data.view()),
            _ => Datum::None,
        }
    }
}

/// The members of `data` that are times. The database writes them with an offset; callers get every time in one form.
const TIMES: [&str; 2] = ["execute_after", "previous_secret_expires_at"];

/// A time as the API has all of them: with a `Z`, and as many digits as it needs.
fn in_utc(text: &str) -> String {
    let time = DateTime::parse_from_rfc3339(text)
        .map(|time| time.to_utc().to_rfc3339_opts(SecondsFormat::AutoSi, true));
    time.unwrap_or_else(|_| text.to_owned())
}

impl Row {
    /// Its position.
    pub fn position(&self) -> i64 {
        self.cursor.position()
    }

    /// The cursor behind the whole row.
    pub fn cursor(&self) -> Cursor {
        self.cursor.clone()
    }

    /// The cursor before the undelivered events of the row, in the row itself.
    pub(super) fn start(&self) -> Cursor {
        self.cursor.within(self.delivered, usize::MAX)
    }

    /// One event for each subject that was not delivered yet.
    pub fn events(&self) -> impl Iterator<Item = Event> + '_ {
        (self.delivered..self.subjects.len()).filter_map(|index| self.event(index))
    }

    /// The event of the subject with this index, if there is one.
    pub fn event(&self, index: usize) -> Option<Event> {
        let subject = self.subjects.get(index)?;
        let count = self.subjects.len();
        // Earlier versions wrote these two. Callers' texts about an entity are not passed on when the entity may be removed.
        let mut more = json!({"reason": null, "principal_id": self.principal_id.to_string()});
        if let Some(View::Object(_)) = self.data.view().get("parameters") {
            more["parameters"] = json!({"filter": null});
        }
        for time in TIMES {
            if let Some(text) = self.data.view().get(time).and_then(View::as_str) {
                more[time] = in_utc(text).into();
            }
        }
        let data = self.data.merged(&Struct::from_json(&more));
        Some(Event {
            id: if count == 1 { self.id.to_string() } else { format!("{}-{}", self.id, index + 1) },
            source: format!("/orgs/{}/{}", self.org, self.mode),
            event_type: self.event_type.clone(),
            subject: subject.clone(),
            time: self.occurred_at,
            data,
            cursor: self.cursor.within(index + 1, count),
        })
    }
}
