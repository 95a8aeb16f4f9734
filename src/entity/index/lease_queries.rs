//! The SQL of the leases of index builds, and of their progress.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Double, Integer, Nullable, Text, Timestamptz};

use crate::db::{Mode, Realm, Work, statement};
use crate::entity::index::model::{Declared, IndexAction, IndexState, Phase};

/// An index that this worker has the lease of.
#[derive(Clone, Debug)]
pub struct ClaimedIndex {
    /// The realm.
    pub realm: Realm,
    /// The attribute.
    pub declared: Declared,
    /// The action to take.
    pub phase: Phase,
    /// Fences the lease.
    pub token: i64,
    /// How often it was tried since it last moved.
    pub attempts: i32,
}

/// Claims an index that is to be built or removed, also one whose worker was lost. The realm with the fewest at work comes first, and of these the
/// one that was served least lately.
pub fn claim(
    connection: &mut PgConnection,
    owner: &str,
    lease: Duration,
) -> Work<Option<ClaimedIndex>> {
    type Row = (i32, String, Mode, String, Vec<String>, Phase, i64, i32);
    let row: Option<Row> =
        ClaimIndex { owner, lease: lease.as_secs_f64() }.get_result(connection).optional()?;
    Ok(row.map(|(realm_id, org, mode, attribute, path, phase, token, attempts)| ClaimedIndex {
        realm: Realm::from_row(realm_id, org, mode),
        declared: Declared { attribute, path },
        phase,
        token,
        attempts,
    }))
}

statement! {
    /// A lease on a ready index of any realm.
    struct ClaimIndex<'a> {
        owner: &'a str as Text,
        lease: f64 as Double,
    } -> (Integer, Text, Text, Text, Array<Text>, Text, BigInt, Integer),
    "WITH due AS (
        SELECT d.realm_id, d.attribute
        FROM attribute_declaration d
        CROSS JOIN LATERAL (
            -- Tokens show which was served last, whatever the clock did.
            SELECT count(*) FILTER (WHERE o.lease_owner IS NOT NULL AND o.due_at > now()) AS at_work, max(o.lease_token) AS served
            FROM attribute_declaration o
            WHERE o.realm_id = d.realm_id
        ) r
        WHERE d.state IN ('building', 'dropping') AND d.due_at <= now()
        ORDER BY r.at_work, r.served, d.due_at, d.realm_id, d.attribute
        LIMIT 1
        FOR UPDATE OF d SKIP LOCKED
     )
     UPDATE attribute_declaration d
     SET lease_token = nextval('lease_token'), lease_owner = {owner}, due_at = now() + make_interval(secs => {lease}),
         attempts = d.attempts + 1
     FROM due
     JOIN realm r ON r.id = due.realm_id
     WHERE d.realm_id = due.realm_id AND d.attribute = due.attribute
     RETURNING d.realm_id, r.org, r.mode, d.attribute, d.path, d.phase, d.lease_token, d.attempts"
}

/// Returns whether an index of another realm is ready.
pub fn others_wait(connection: &mut PgConnection, claim: &ClaimedIndex) -> Work<bool> {
    let (wait,): (bool,) = OthersWait { realm: claim.realm.id() }.get_result(connection)?;
    Ok(wait)
}

statement! {
    /// True if another realm waits for a worker.
    struct OthersWait {
        realm: i32 as Integer,
    } -> (Bool,),
    "SELECT EXISTS (
        SELECT
        FROM attribute_declaration d
        WHERE d.realm_id <> {realm} AND d.state IN ('building', 'dropping') AND d.due_at <= now()
     )"
}

/// The state of an index.
#[derive(Debug, Queryable)]
pub struct IndexProgress {
    /// In its life.
    pub state: IndexState,
    /// The transactions that must end before the phase does; none if they were not looked up.
    pub waits_for: Option<Vec<String>>,
    /// The last key that is done: the value, where rows are walked by value.
    pub value: String,
    /// And the entity.
    pub id: String,
    /// When the attribute was declared.
    pub created_at: DateTime<Utc>,
}

/// Locks the index, so that nobody takes it over before the transaction ends. None if the lease is lost.
pub fn lock(connection: &mut PgConnection, claim: &ClaimedIndex) -> Work<Option<IndexProgress>> {
    let (realm, attribute, token) =
        (claim.realm.id(), claim.declared.attribute.as_str(), claim.token);
    Ok(LockLeased { realm, attribute, token, phase: claim.phase.as_str() }
        .get_result(connection)
        .optional()?)
}

statement! {
    /// The declaration, locked, where the lease is valid.
    struct LockLeased<'a> {
        realm: i32 as Integer,
        attribute: &'a str as Text,
        token: i64 as BigInt,
        phase: &'a str as Text,
    } -> (Text, Nullable<Array<Text>>, Text, Text, Timestamptz),
    "SELECT d.state, d.waits_for, d.cursor_value, d.cursor_id, d.created_at
     FROM attribute_declaration d
     WHERE d.realm_id = {realm} AND d.attribute = {attribute} AND d.lease_token = {token} AND d.phase = {phase}
     FOR UPDATE"
}

/// How an index moves on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Move<'a> {
    /// To which phase; to the same if none.
    pub phase: Option<Phase>,
    /// The transactions that it waits for from now on.
    pub waits_for: Option<&'a [String]>,
    /// To which position.
    pub position: (&'a str, &'a str),
    /// How many entities were read.
    pub entities: i64,
    /// How many there are, if that is known now.
    pub total: Option<i64>,
    /// How many rows were written.
    pub rows: i64,
}

/// Writes the progress of a locked index, and extends the lease.
pub fn advance(
    connection: &mut PgConnection,
    claim: &ClaimedIndex,
    to: Move<'_>,
    lease: Duration,
) -> Work<()> {
    let statement = Advance {
        realm: claim.realm.id(),
        attribute: &claim.declared.attribute,
        phase: to.phase.unwrap_or(claim.phase).as_str(),
        waits_for: to.waits_for,
        value: to.position.0,
        id: to.position.1,
        entities: to.entities,
        total: to.total,
        rows: to.rows,
        lease: lease.as_secs_f64(),
    };
    statement.execute(connection)?;
    Ok(())
}

statement! {
    /// A step of a build or a removal.
    struct Advance<'a> {
        realm: i32 as Integer,
        attribute: &'a str as Text,
        phase: &'a str as Text,
        waits_for: Option<&'a [String]> as Nullable<Array<Text>>,
        value: &'a str as Text,
        id: &'a str as Text,
        entities: i64 as BigInt,
        total: Option<i64> as Nullable<BigInt>,
        rows: i64 as BigInt,
        lease: f64 as Double,
    } -> (),
    "UPDATE attribute_declaration
     SET phase = {phase}, waits_for = {waits_for}, cursor_value = {value}, cursor_id = {id}, entities_done = entities_done + {entities},
         entities_total = COALESCE({total}, entities_total), rows_written = rows_written + {rows}, attempts = 0,
         due_at = now() + make_interval(secs => {lease})
     WHERE realm_id = {realm} AND attribute = {attribute}"
}

/// Ends the work on a locked index: it is ready, or dropped.
pub fn finish(connection: &mut PgConnection, claim: &ClaimedIndex, state: IndexState) -> Work<()> {
    let (realm, attribute) = (claim.realm.id(), claim.declared.attribute.as_str());
    if state == IndexState::Dropping {
        Forget { realm, attribute }.execute(connection)?;
    } else {
        let to = state.transition(IndexAction::Complete)?;
        EndBuild { realm, attribute, to: to.as_str(), code: None, message: None }
            .execute(connection)?;
    }
    Ok(())
}

/// Ends a build that cannot be done; a worker that lost its lease ends nothing. Call it in a transaction.
pub fn fail(
    connection: &mut PgConnection,
    claim: &ClaimedIndex,
    code: &str,
    message: &str,
) -> Work<()> {
    let Some(progress) = lock(connection, claim)? else { return Ok(()) };
    let to = progress.state.transition(IndexAction::Fail)?;
    let (realm, attribute) = (claim.realm.id(), claim.declared.attribute.as_str());
    EndBuild { realm, attribute, to: to.as_str(), code: Some(code), message: Some(message) }
        .execute(connection)?;
    Ok(())
}

statement! {
    /// The end of a build and its event.
    struct EndBuild<'a> {
        realm: i32 as Integer,
        attribute: &'a str as Text,
        to: &'a str as Text,
        code: Option<&'a str> as Nullable<Text>,
        message: Option<&'a str> as Nullable<Text>,
    } -> (),
    "WITH ended AS (
        UPDATE attribute_declaration
        SET state = {to}, phase = NULL, waits_for = NULL, lease_token = nextval('lease_token'), lease_owner = NULL, attempts = 0,
            ready_at = CASE WHEN {code} IS NULL THEN clock_timestamp() END, cursor_value = '', cursor_id = '', error_code = {code}, error_message = {message}
        WHERE realm_id = {realm} AND attribute = {attribute}
        RETURNING attribute, principal_id
     )
     INSERT INTO event (realm_id, type, subjects, principal_id, data)
     SELECT {realm}, CASE WHEN {code} IS NULL THEN 'attribute_index.ready' ELSE 'attribute_index.failed' END, ARRAY[e.attribute],
            e.principal_id, CASE WHEN {code} IS NULL THEN '{}'::jsonb ELSE jsonb_build_object('error_code', {code}) END
     FROM ended e"
}

statement! {
    /// The end of a removal. Its event was written when it was asked for.
    struct Forget<'a> {
        realm: i32 as Integer,
        attribute: &'a str as Text,
    } -> (),
    "DELETE FROM attribute_declaration WHERE realm_id = {realm} AND attribute = {attribute}"
}

/// Gives an index back, to be claimed again after `delay`. False if the lease is lost.
pub fn release(
    connection: &mut PgConnection,
    claim: &ClaimedIndex,
    delay: Duration,
    counts: bool,
) -> Work<bool> {
    let (realm, attribute) = (claim.realm.id(), claim.declared.attribute.as_str());
    let statement =
        Release { realm, attribute, token: claim.token, delay: delay.as_secs_f64(), counts };
    Ok(statement.execute(connection)? == 1)
}

statement! {
    /// An index without a worker. The old token opens nothing any more.
    struct Release<'a> {
        realm: i32 as Integer,
        attribute: &'a str as Text,
        token: i64 as BigInt,
        delay: f64 as Double,
        counts: bool as Bool,
    } -> (),
    "UPDATE attribute_declaration
     SET lease_token = nextval('lease_token'), lease_owner = NULL,
         due_at = CASE WHEN {delay}::float8 > 0 THEN now() + make_interval(secs => {delay}) ELSE '-infinity' END,
         attempts = CASE WHEN {counts} THEN attempts ELSE 0 END
     WHERE realm_id = {realm} AND attribute = {attribute} AND lease_token = {token}"
}
