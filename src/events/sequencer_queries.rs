//! The SQL that gives events their positions.
//!
//! A row is ready when its transaction has committed, and nothing notifies us of that. `seq` is nearly dense, though: each number is of a
//! row that is visible, of one that may become so, or of a transaction that failed. So the sequencer reads along `seq` and notes the numbers
//! that it passed over; it looks those up until every transaction of that time has ended. Both are ranges of an index, however long a
//! transaction stays open.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Oid, Text, Uuid as SqlUuid};
use uuid::Uuid;

use crate::db::partitions::KEEP_EVENTS;
use crate::db::{Work, statement};
use crate::events::marks_queries::Marks;

/// The name of the advisory lock under which positions are given and histories begin.
macro_rules! lock {
    () => {
        "hashtextextended('offboard.event_position', 0)"
    };
}

/// Returns whether there may be anything to do. Costs next to nothing.
pub fn is_due(connection: &mut PgConnection) -> Work<bool> {
    let (due,) = IsDue {}.get_result::<(bool,)>(connection)?;
    Ok(due)
}

statement! {
    /// True if numbers were drawn that were not considered, or were passed over.
    struct IsDue {} -> (Bool,),
    "SELECT coalesce(pg_sequence_last_value('event_seq'), 0) > s.considered OR NOT isempty(s.older) OR NOT isempty(s.younger)
     FROM event_sequencer s"
}

/// Takes the lock for this transaction, unless another one has it.
pub fn try_lock(connection: &mut PgConnection) -> Work<bool> {
    let (locked,) = TryLock {}.get_result::<(bool,)>(connection)?;
    Ok(locked)
}

statement! {
    /// The lock.
    struct TryLock {} -> (Bool,),
    // A process that is frozen meanwhile keeps the lock from all others for as long as its transaction may be idle.
    concat!(
        "SELECT pg_try_advisory_xact_lock(", lock!(), ")
         FROM (SELECT set_config('idle_in_transaction_session_timeout', '2000', true)) s"
    )
}

/// Takes the lock for this transaction, and waits for it.
pub fn lock(connection: &mut PgConnection) -> Work<()> {
    Lock {}.get_result::<(bool,)>(connection)?;
    Ok(())
}

statement! {
    /// The lock.
    struct Lock {} -> (Bool,),
    concat!("SELECT true FROM (SELECT pg_advisory_xact_lock(", lock!(), ")) l")
}

/// Why a history begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There was none.
    First,
    /// The database is on another history.
    Line,
    /// The row that was sent does not exist.
    Lost,
    /// Somebody asked for it.
    Forced,
}

impl Reason {
    /// As the table spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::First => "first",
            Reason::Line => "line",
            Reason::Lost => "lost",
            Reason::Forced => "forced",
        }
    }
}

/// A row that this process has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentRow {
    /// Its position.
    pub position: i64,
    /// The history of the position.
    pub history: Uuid,
    /// The row.
    pub id: Uuid,
}

/// Begins a history at the next position if the present one is not of this history, or lacks what this process knows to have been sent:
/// the last position and the row there. Under the lock.
pub fn see_to_history(
    connection: &mut PgConnection,
    marks: &Marks,
    sent: Option<SentRow>,
) -> Work<HistoryCheck> {
    type Present = (
        i64,
        i64,
        Option<i32>,
        Option<Uuid>,
        Option<String>,
        Option<String>,
        Option<u32>,
        bool,
        Option<Uuid>,
    );
    let read = ReadPresent {
        at: sent.map_or(-1, |sent| sent.position),
        of: sent.map_or_else(Uuid::nil, |sent| sent.history),
    };
    let (last, dropped, number, present, system_identifier, timeline, oid, is_known, there): Present = read.get_result(connection)?;
    let known = oid.map(|database_oid| Marks { system_identifier, timeline, database_oid });
    let lost = sent.is_some_and(|sent| {
        let other = there.is_some_and(|there| there != sent.id);
        let missing = sent.position > last || (sent.position > dropped && other);
        // The outcome of an earlier history was seen to when the next one began.
        !is_known || (present == Some(sent.history) && missing)
    });
    let reason = match &known {
        None => Reason::First,
        Some(known) if known.differ(marks) => Reason::Line,
        Some(_) if lost => Reason::Lost,
        Some(known) if known.lack(marks) => {
            let Marks { system_identifier, timeline, .. } = marks;
            let number = number.unwrap_or_default();
            Learn { number, system: system_identifier.as_deref(), timeline: timeline.as_deref() }
                .execute(connection)?;
            return Ok(HistoryCheck::Noted);
        }
        Some(_) => return Ok(HistoryCheck::Same(present)),
    };
    begin_history(connection, marks, reason)?;
    if known.is_some_and(|known| known.is_copied_to(marks)) {
        // Tables that were copied one by one are of different moments.
        NoteMissing { back: COPIED_AT_MOST }.execute(connection)?;
    }
    Ok(HistoryCheck::Begun(reason))
}

/// The result of comparing the marks of the database with those of the present history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryCheck {
    /// It is that of the present history, which is this one.
    Same(Option<Uuid>),
    /// It is that of the present history, of which more is known now.
    Noted,
    /// It is another one: a history has begun.
    Begun(Reason),
}

statement! {
    /// The last position, the positions that are not kept any more, the present history, and the row at a position.
    struct ReadPresent { at: i64 as BigInt, of: Uuid as SqlUuid }
        -> (BigInt, BigInt, Nullable<Integer>, Nullable<SqlUuid>, Nullable<Text>, Nullable<Text>, Nullable<Oid>, Bool, Nullable<SqlUuid>),
    "SELECT s.position, s.dropped, h.number, h.id, h.system_identifier, h.timeline, h.database_oid,
            EXISTS (SELECT FROM event_history WHERE id = {of}),
            (SELECT e.id
             FROM event_position p
             JOIN event e ON e.realm_id = p.realm_id AND e.seq = p.seq AND e.occurred_at = p.occurred_at
             WHERE p.position = {at})
     FROM event_sequencer s
     LEFT JOIN (SELECT * FROM event_history ORDER BY number DESC LIMIT 1) h ON true"
}

statement! {
    /// A mark that an earlier role could not read.
    struct Learn<'a> { number: i32 as Integer, system: Option<&'a str> as Nullable<Text>, timeline: Option<&'a str> as Nullable<Text> }
        -> (),
    "UPDATE event_history
     SET system_identifier = coalesce(system_identifier, {system}), timeline = coalesce(timeline, {timeline})
     WHERE number = {number}"
}

/// How far back a copy is searched for rows without a position.
const COPIED_AT_MOST: i64 = 1_000_000;

statement! {
    /// Notes the last rows that were considered and have no position.
    struct NoteMissing { back: i64 as BigInt } -> (),
    "UPDATE event_sequencer s
     SET older = s.older + coalesce((
        SELECT range_agg(int8range(e.seq, e.seq, '[]'))
        FROM event e
        WHERE e.seq > s.considered - {back} AND e.seq <= s.considered
          AND NOT EXISTS (SELECT FROM event_position p
                          WHERE p.position > s.position - 2 * {back}::int8 AND p.seq = e.seq AND p.realm_id = e.realm_id)), '{}')"
}

/// Begins a history at the next position. Under the lock.
pub fn begin_history(connection: &mut PgConnection, marks: &Marks, reason: Reason) -> Work<()> {
    let begin = BeginHistory {
        reason: reason.as_str(),
        system: marks.system_identifier.as_deref(),
        timeline: marks.timeline.as_deref(),
        database: marks.database_oid,
    };
    begin.execute(connection)?;
    Ok(())
}

statement! {
    /// A history.
    struct BeginHistory<'a> {
        reason: &'a str as Text,
        system: Option<&'a str> as Nullable<Text>,
        timeline: Option<&'a str> as Nullable<Text>,
        database: u32 as Oid,
    } -> (),
    // Transaction ids may be others from here on.
    "WITH restarted AS (UPDATE event_sequencer SET older_than = pg_current_xact_id())
     INSERT INTO event_history (number, begins, reason, system_identifier, timeline, database_oid)
     SELECT coalesce((SELECT max(number) FROM event_history), 0) + 1, s.position + 1, {reason}, {system}, {timeline}, {database}
     FROM event_sequencer s"
}

/// Gives the next rows their positions, at most so many, and returns how many. Under the lock, which is older than the snapshot,
/// and as the first statement of its transaction that writes: so the transaction's id is higher than those that the snapshot may find under
/// way.
pub fn give_positions(connection: &mut PgConnection, limit: i64) -> Work<i64> {
    let (given,) = GivePositions { limit }.get_result::<(i64,)>(connection)?;
    Ok(given)
}

statement! {
    /// Positions in the order of `seq`, in one snapshot: of two changes of one entity it sees the first if it sees the second. Numbers that were
    /// passed over are lower than all new ones, so they come first.
    pub struct GivePositions { limit: i64 as BigInt } -> (BigInt,),
    "WITH s AS MATERIALIZED (SELECT * FROM event_sequencer LIMIT 1),
     due AS MATERIALIZED (
        SELECT d.* FROM (
            SELECT e.realm_id, e.seq, e.occurred_at, e.subject_count, true AS late
            FROM s, unnest(s.older + s.younger) AS passed(numbers),
                 LATERAL (SELECT e.* FROM event e WHERE e.seq >= lower(passed.numbers) AND e.seq < upper(passed.numbers)
                          ORDER BY e.seq LIMIT {limit}) e
            UNION ALL
            (SELECT e.realm_id, e.seq, e.occurred_at, e.subject_count, false
             FROM event e WHERE e.seq > (SELECT s.considered FROM s) ORDER BY e.seq LIMIT {limit})
        ) d
        ORDER BY d.seq
        LIMIT {limit}
     ),
     given AS (
        INSERT INTO event_position (position, seq, occurred_at, realm_id, subject_count)
        SELECT s.position + row_number() OVER (ORDER BY d.seq), d.seq, d.occurred_at, d.realm_id, d.subject_count
        FROM due d, s
        ORDER BY d.seq
     ),
     passed AS (
        SELECT range_agg(int8range(n.before + 1, n.seq)) FILTER (WHERE n.seq > n.before + 1) AS numbers
        FROM (SELECT d.seq, coalesce(lag(d.seq) OVER (ORDER BY d.seq), s.considered) AS before FROM due d, s WHERE NOT d.late) n
     ),
     news AS (
        SELECT (SELECT count(*) FROM due) AS given,
               coalesce((SELECT max(d.seq) FROM due d WHERE NOT d.late), s.considered) AS considered,
               coalesce((SELECT range_agg(int8range(d.seq, d.seq, '[]')) FROM due d WHERE d.late), '{}') AS came,
               coalesce((SELECT p.numbers FROM passed p), '{}') AS passed,
               pg_snapshot_xmin(pg_current_snapshot()) >= s.older_than AND (SELECT count(*) FROM due) < {limit} AS over
        FROM s
     ),
     noted AS (
        UPDATE event_sequencer q
        SET considered = n.considered,
            position = q.position + n.given,
            older = CASE WHEN n.over THEN q.younger - n.came + n.passed ELSE q.older - n.came END,
            younger = CASE WHEN n.over THEN '{}' ELSE q.younger - n.came + n.passed END,
            -- Not the snapshot's xmax, which lies behind the last transaction that has ended: one with a higher id may run.
            older_than = CASE WHEN n.over THEN pg_current_xact_id() ELSE q.older_than END
        FROM news n
        WHERE n.given > 0 OR (n.over AND (NOT isempty(q.older) OR NOT isempty(q.younger)))
     )
     SELECT n.given FROM news n"
}

/// Deletes the positions of events that are older than events are kept, at most so many, from the low end, and returns how many.
pub fn drop_old(connection: &mut PgConnection, limit: i64) -> Work<usize> {
    connection.transaction(|connection| {
        if !try_lock(connection)? {
            return Ok(0);
        }
        let keep = i32::try_from(KEEP_EVENTS.num_days()).unwrap_or(i32::MAX);
        let (dropped,) = DropOld { limit, keep }.get_result::<(i64,)>(connection)?;
        Ok(usize::try_from(dropped).unwrap_or_default())
    })
}

statement! {
    /// The lowest positions up to the first whose event is kept. Deletions are remembered: a reader before them has lost something.
    struct DropOld { limit: i64 as BigInt, keep: i32 as Integer } -> (BigInt,),
    "WITH low AS MATERIALIZED (
        SELECT p.position, p.occurred_at < now() - make_interval(days => {keep}) AS old
        FROM event_position p
        WHERE p.position > (SELECT dropped FROM event_sequencer)
        ORDER BY p.position
        LIMIT {limit}
     ),
     gone AS (
        DELETE FROM event_position p
        USING low
        WHERE p.position = low.position AND low.old
          AND low.position < coalesce((SELECT min(position) FROM low WHERE NOT old), 9223372036854775807)
        RETURNING p.position
     ),
     noted AS (
        UPDATE event_sequencer s
        SET dropped = g.position
        FROM (SELECT max(position) AS position FROM gone) g
        WHERE g.position IS NOT NULL
     )
     SELECT count(*) FROM gone"
}
