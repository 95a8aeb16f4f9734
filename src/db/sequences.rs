//! The sequences are at or above every number in use, before anything is done on a session.
//!
//! Logical replication copies rows and no sequences: in such a copy the sequences are at their beginning. Numbers that were given out
//! before would be given out again, so that events are hidden and a task takes entities that were created after it.

use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
use diesel::{Connection, sql_query};

use super::fault::{Fault, fault};
use super::vitals::Vitals;

/// How long setting them may take: the entities are read once, since no index has their numbers.
const SETTING_TIME: Duration = Duration::from_secs(15 * 60);

/// The message if the role may not set them.
pub(super) const BEHIND: &str = "The sequences of the database stand before numbers that are in use, as in a logical copy, and the role may not set them: \
                                 run `offboard migrate` with the role that owns them, or grant UPDATE on the sequences.";

/// True if numbers that are in use would be given out again. Reads a few rows, for every session asks it: whoever copies rows alone leaves
/// the sequences of events and realms behind, or that of entities untouched. Entities of earlier versions have no numbers, and are not all
/// read.
///
/// Nothing that a role without `SELECT` on sequences may not read.
const ARE_BEHIND: &str = "SELECT coalesce(pg_sequence_last_value('event_seq'), 0) < s.considered
        OR coalesce(pg_sequence_last_value(pg_get_serial_sequence('realm', 'id')), 0) < (SELECT coalesce(max(id), 0) FROM realm)
        OR CASE WHEN s.considered > 0 AND pg_sequence_last_value('ordinal') IS NULL THEN EXISTS (
            SELECT FROM (SELECT ordinal FROM entity LIMIT 100) e WHERE e.ordinal IS NOT NULL
        ) ELSE false END
        AS behind
     FROM event_sequencer s";

/// Sets those that are behind, and returns which.
const SET: &str = "SELECT s.name::text AS name, setval(s.name, s.number)
     FROM (
        SELECT 'event_seq'::regclass AS name, greatest((SELECT max(seq) FROM event), (SELECT max(considered) FROM event_sequencer)) AS number
        UNION ALL
        SELECT 'ordinal', greatest((SELECT max(ordinal) FROM entity), (SELECT max(ordinal) FROM bulk_delete))
        UNION ALL
        SELECT 'lease_token', greatest(
            (SELECT max(lease_token) FROM offboarding_request), (SELECT max(lease_token) FROM bulk_delete_slice),
            (SELECT max(lease_token) FROM bulk_delete_mail), (SELECT max(lease_token) FROM publisher),
            (SELECT max(lease_token) FROM attribute_declaration), (SELECT max(served) FROM bulk_delete),
            (SELECT max(served) FROM bulk_delete_turn))
        UNION ALL
        SELECT pg_get_serial_sequence('realm', 'id')::regclass, (SELECT max(id) FROM realm)
     ) s
     WHERE s.number > coalesce(pg_sequence_last_value(s.name), 0)";

#[derive(QueryableByName)]
struct Behind {
    #[diesel(sql_type = Bool)]
    behind: bool,
}

#[derive(QueryableByName)]
struct Set {
    #[diesel(sql_type = Text)]
    name: String,
}

#[cfg(test)]
crate::db::checked::raw!(Behind, ARE_BEHIND, (Bool,));
#[cfg(test)]
crate::db::checked::raw!(Set, SET, (Text, diesel::sql_types::BigInt));

/// Sees to them on a session that may write. Fails with [`Fault::Denied`] where the role may not.
pub(super) fn see_to(connection: &mut PgConnection, vitals: &Vitals) -> QueryResult<()> {
    if !are_behind(connection)? {
        return Ok(());
    }
    vitals.allow(SETTING_TIME);
    let set: Vec<Set> = connection.transaction(|connection| {
        // One session sets them, the others wait for a while and ask again.
        connection.batch_execute(&format!(
            "SELECT pg_advisory_xact_lock(hashtextextended('offboard.sequences', 0)); SET LOCAL statement_timeout = {}",
            SETTING_TIME.as_millis()
        ))?;
        sql_query(SET).load(connection)
    })?;
    let names: Vec<String> = set.into_iter().map(|set| set.name).collect();
    if !names.is_empty() {
        tracing::warn!(
            sequences = names.join(", "),
            "the sequences stood before numbers in use, as in a logical copy; they were set behind them"
        );
    }
    Ok(())
}

fn are_behind(connection: &mut PgConnection) -> QueryResult<bool> {
    match sql_query(ARE_BEHIND).get_result::<Behind>(connection).optional() {
        Ok(found) => Ok(found.is_some_and(|found| found.behind)),
        // No schema yet, that of an earlier version, or a role that may do nothing here: others say so.
        Err(error) if matches!(fault(&error), Fault::Missing | Fault::Denied) => Ok(false),
        Err(error) => Err(error),
    }
}
