//! The SQL that shows histories.

use chrono::{DateTime, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Oid, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use crate::db::{Work, statement};

/// A history of the database: the events that have positions in it.
#[derive(Clone, Debug, Queryable)]
pub struct HistoryRow {
    /// Its number among the histories, from 1.
    pub number: i32,
    /// Names it in cursors.
    pub id: Uuid,
    /// The first position that belongs to it.
    pub begins: i64,
    /// The last position that belongs to it; lower than the first if nothing happened in it.
    pub ends: i64,
    /// True if it is the one that continues.
    pub is_present: bool,
    /// When it was begun.
    pub began_at: DateTime<Utc>,
    /// Why: `first`, `line`, `lost` or `forced`.
    pub reason: String,
    /// The cluster, if the role that began it could see that.
    pub system_identifier: Option<String>,
    /// The cluster's timeline, if the role that began it could see that.
    pub timeline: Option<String>,
    /// The database in the cluster.
    pub database_oid: u32,
}

/// Lists the histories from the first to the present one.
pub fn list(connection: &mut PgConnection) -> Work<Vec<HistoryRow>> {
    Ok(ListHistories {}.load(connection)?)
}

statement! {
    /// Histories, each up to where the next begins.
    struct ListHistories {}
        -> (Integer, SqlUuid, BigInt, BigInt, Bool, Timestamptz, Text, Nullable<Text>, Nullable<Text>, Oid),
    "SELECT h.number, h.id, h.begins, coalesce(lead(h.begins) OVER (ORDER BY h.number) - 1, s.position),
            lead(h.number) OVER (ORDER BY h.number) IS NULL, h.began_at, h.reason, h.system_identifier, h.timeline, h.database_oid
     FROM event_history h, event_sequencer s
     ORDER BY h.number"
}
