//! The chunk: select, check, delete, count, tell and move on, in one statement and one transaction.

use std::sync::OnceLock;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Array, BigInt, Bool, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};

use crate::bulk_delete::selector::{ID_END, Locked, Selector};
use crate::bulk_delete::state::TaskState;
use crate::bulk_delete::task_queries::{Claimed, complete, lease_lost};
use crate::db::statement::{Segment, segments};
use crate::db::{Fail, Fault, Work, fault, statement};

/// How often entities that others keep changing are looked at again before they are counted as failed.
const ROUNDS: usize = 5;

/// The statements of one slice's chunks.
pub struct Chunks {
    walking: Statements,
    /// The same by indexes, if they can tell; none before the first chunk has asked.
    narrowed: OnceLock<Option<Statements>>,
}

struct Statements {
    selector: Selector,
    awaiting: Texts,
    passing: Texts,
}

struct Texts {
    onward: String,
    again: String,
}

impl Statements {
    fn new(selector: Selector) -> Self {
        let texts = |locked| Texts { onward: selector.chunk_text(false, locked), again: selector.chunk_text(true, locked) };
        Statements { awaiting: texts(Locked::Await), passing: texts(Locked::Pass), selector }
    }
}

/// How a chunk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more.
    More {
        /// How many were deleted.
        deleted: i64,
    },
    /// The slice is done.
    Done {
        /// How many were deleted.
        deleted: i64,
    },
    /// The task is to pause or to stop, or is over.
    Halt,
}

impl Chunks {
    /// Prepares the chunks of what `selector` selects.
    pub fn new(selector: Selector) -> Self {
        Chunks { walking: Statements::new(selector), narrowed: OnceLock::new() }
    }

    /// The statement of a chunk, with named parameters.
    pub fn text(&self) -> &str {
        &self.walking.awaiting.onward
    }

    /// The statements to be used in this transaction: by indexes, as long as they are in use. Both go along the same keys, so one may go on
    /// where the other was.
    fn statements(&self, connection: &mut PgConnection, claim: &Claimed) -> Work<&Statements> {
        let narrowed = match self.narrowed.get() {
            Some(known) => known,
            None => {
                let narrowed = self.walking.selector.narrowed(connection, &claim.realm)?.map(Statements::new);
                self.narrowed.get_or_init(|| narrowed)
            }
        };
        match narrowed {
            Some(narrowed) if narrowed.selector.is_usable(connection, &claim.realm)? => Ok(narrowed),
            _ => Ok(&self.walking),
        }
    }

    /// Does the next chunk in a transaction of its own. An entity that stays locked costs itself and not the chunk.
    pub fn run(&self, connection: &mut PgConnection, claim: &Claimed, limit: i64, lease: Duration) -> Work<Progress> {
        match connection.transaction(|connection| self.attempt(connection, claim, limit, lease, Locked::Await)) {
            Err(Fail::Database(error)) if fault(&error) == Fault::Locked => {
                connection.transaction(|connection| self.attempt(connection, claim, limit, lease, Locked::Pass))
            }
            outcome => outcome,
        }
    }

    /// The slice's row stays locked, so that nobody takes it over meanwhile.
    fn attempt(&self, connection: &mut PgConnection, claim: &Claimed, limit: i64, lease: Duration, locked: Locked) -> Work<Progress> {
        // By key, whatever the planner believes of the number of rows: a hash join would read whole tables for every chunk.
        connection.batch_execute("SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off")?;
        let (realm, task, slice, token) = (claim.realm.id(), claim.task_id, claim.slice, claim.token);
        let held: Option<(String, Option<String>, TaskState)> =
            LockSlice { realm, task, slice, token }.get_result(connection).optional()?;
        let (cursor, until, state) = held.ok_or_else(lease_lost)?;
        if !state.is_at_work() {
            return Ok(Progress::Halt);
        }
        let statements = self.statements(connection, claim)?;
        let texts = if locked == Locked::Await { &statements.awaiting } else { &statements.passing };
        let selector = &statements.selector;
        let until = until.unwrap_or_else(|| ID_END.to_owned());
        let lease = lease.as_secs_f64();
        let chunk = Chunk { selector, claim, text: &texts.onward, cursor: &cursor, until: &until, limit, lease, missed: &[] };
        let (moved, done, mut deleted, mut missed): (bool, bool, i64, Vec<String>) = chunk.get_result(connection)?;
        for _ in 0..ROUNDS {
            if !moved || missed.is_empty() {
                break;
            }
            let again = Chunk { text: &texts.again, missed: &missed, ..chunk };
            let (_, _, gone, still): (bool, bool, i64, Vec<String>) = again.get_result(connection)?;
            deleted += gone;
            missed = still;
        }
        if !moved {
            return Err(lease_lost().into());
        }
        if !missed.is_empty() {
            GiveUp { realm, task, slice, missed: &missed }.execute(connection)?;
        }
        if !done {
            return Ok(Progress::More { deleted });
        }
        complete(connection, claim)?;
        Ok(Progress::Done { deleted })
    }
}

#[derive(Clone, Copy)]
struct Chunk<'a> {
    selector: &'a Selector,
    claim: &'a Claimed,
    text: &'a str,
    cursor: &'a str,
    until: &'a str,
    limit: i64,
    lease: f64,
    missed: &'a [String],
}

impl QueryFragment<Pg> for Chunk<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        for segment in segments(self.text) {
            match segment {
                Segment::Sql(sql) => out.push_sql(sql),
                Segment::Parameter("realm") => out.push_bind_param::<Integer, _>(self.claim.realm.id_ref())?,
                Segment::Parameter("task") => out.push_bind_param::<SqlUuid, _>(&self.claim.task_id)?,
                Segment::Parameter("as_of") => out.push_bind_param::<Timestamptz, _>(&self.claim.as_of)?,
                Segment::Parameter("slice") => out.push_bind_param::<Integer, _>(&self.claim.slice)?,
                Segment::Parameter("token") => out.push_bind_param::<BigInt, _>(&self.claim.token)?,
                Segment::Parameter("cursor") => out.push_bind_param::<Text, _>(&self.cursor)?,
                Segment::Parameter("until") => out.push_bind_param::<Text, _>(&self.until)?,
                Segment::Parameter("limit") => out.push_bind_param::<BigInt, _>(&self.limit)?,
                Segment::Parameter("lease") => out.push_bind_param::<Double, _>(&self.lease)?,
                Segment::Parameter("missed") => out.push_bind_param::<Array<Text>, _>(&self.missed)?,
                Segment::Parameter(name) => self.selector.push(name, &mut out)?,
            }
        }
        Ok(())
    }
}

// Cached by its text: the same for every chunk of a task, and for tasks of the same form.
impl QueryId for Chunk<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Chunk<'_> {
    type SqlType = (Bool, Bool, BigInt, Array<Text>);
}

impl RunQueryDsl<PgConnection> for Chunk<'_> {}

statement! {
    /// The slice, locked, where the lease holds.
    struct LockSlice {
        realm: i32 as Integer,
        task: uuid::Uuid as SqlUuid,
        slice: i32 as Integer,
        token: i64 as BigInt,
    } -> (Text, Nullable<Text>, Text),
    "SELECT s.cursor_id, s.until_id, b.status
     FROM bulk_delete_slice s
     JOIN bulk_delete b ON b.realm_id = s.realm_id AND b.id = s.bulk_delete_id
     WHERE s.realm_id = {realm} AND s.bulk_delete_id = {task} AND s.slice = {slice} AND s.lease_token = {token} AND NOT s.done
     FOR UPDATE OF s"
}

statement! {
    /// Counts what others would not let go of.
    struct GiveUp<'a> {
        realm: i32 as Integer,
        task: uuid::Uuid as SqlUuid,
        slice: i32 as Integer,
        missed: &'a [String] as Array<Text>,
    } -> (Bool,),
    "WITH failures AS (
        INSERT INTO bulk_delete_failure (realm_id, bulk_delete_id, entity_id, reason)
        SELECT {realm}, {task}, m.id, 'locked' FROM unnest({missed}) AS m(id)
     )
     UPDATE bulk_delete_slice
     SET matched = matched + cardinality({missed}::text[]), failed = failed + cardinality({missed}::text[])
     WHERE realm_id = {realm} AND bulk_delete_id = {task} AND slice = {slice}"
}
