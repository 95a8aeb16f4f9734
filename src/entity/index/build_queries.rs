//! The SQL of building and removing an index.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::connection::SimpleConnection;
use diesel::pg::{PgConnection, PgRowByRowLoadingMode};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Double, Integer, Jsonb, Nullable, Text, Timestamptz};

use crate::db::{Fault, Mode, Realm, Work, fault, statement};
use crate::entity::bounded::{self, PAGE_BYTES, Read};
use crate::entity::index::model::{Declared, IndexAction, IndexState, Phase, Rows};
use crate::limits::database::WORKER_STATEMENT_SECONDS;
use crate::proto::object::Struct;

/// An index that this worker has the lease of.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// Whose world.
    pub realm: Realm,
    /// The attribute.
    pub declared: Declared,
    /// What is to be done.
    pub phase: Phase,
    /// Fences the lease.
    pub token: i64,
    /// How often it was tried since it last moved.
    pub attempts: i32,
}

/// Claims an index that is to be built or removed, also one whose worker was lost. The realm with the fewest at work comes first, and of these the
/// one that was served least lately.
pub fn claim(connection: &mut PgConnection, owner: &str, lease: Duration) -> Work<Option<Claimed>> {
    type Row = (i32, String, Mode, String, Vec<String>, Phase, i64, i32);
    let row: Option<Row> = Claim { owner, lease: lease.as_secs_f64() }.get_result(connection).optional()?;
    Ok(row.map(|(realm_id, org, mode, attribute, path, phase, token, attempts)| Claimed {
        realm: Realm::from_row(realm_id, org, mode),
        declared: Declared { attribute, path },
        phase,
        token,
        attempts,
    }))
}

statement! {
    /// A lease on what is due, whichever realm it is of.
    struct Claim<'a> {
        owner: &'a str as Text,
        lease: f64 as Double,
    } -> (Integer, Text, Text, Text, Array<Text>, Text, BigInt, Integer),
    "WITH due AS (
        SELECT d.realm_id, d.attribute
        FROM attribute_declaration d
        CROSS JOIN LATERAL (
            -- Tokens tell who was served last, whatever the clock did.
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

/// Whether an index of another realm is due.
pub fn others_wait(connection: &mut PgConnection, claim: &Claimed) -> Work<bool> {
    let (wait,): (bool,) = OthersWait { realm: claim.realm.id() }.get_result(connection)?;
    Ok(wait)
}

statement! {
    /// Whether another realm waits for a worker.
    struct OthersWait {
        realm: i32 as Integer,
    } -> (Bool,),
    "SELECT EXISTS (
        SELECT
        FROM attribute_declaration d
        WHERE d.realm_id <> {realm} AND d.state IN ('building', 'dropping') AND d.due_at <= now()
     )"
}

/// Where an index stands.
#[derive(Debug, Queryable)]
pub struct Standing {
    /// In its life.
    pub state: IndexState,
    /// Who must be over before the phase is; none if they were not looked up.
    pub waits_for: Option<Vec<String>>,
    /// The last place that is done: the value, where rows are gone along by value.
    pub value: String,
    /// And the entity.
    pub id: String,
    /// When the attribute was declared.
    pub created_at: DateTime<Utc>,
}

/// Locks the index, so that nobody takes it over before the transaction ends. None if the lease is lost.
pub fn lock(connection: &mut PgConnection, claim: &Claimed) -> Work<Option<Standing>> {
    let (realm, attribute, token) = (claim.realm.id(), claim.declared.attribute.as_str(), claim.token);
    Ok(LockLeased { realm, attribute, token, phase: claim.phase.as_str() }.get_result(connection).optional()?)
}

statement! {
    /// The declaration, locked, where the lease holds.
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

/// The virtual transactions that run in this database, this one apart. A transaction has one from its start to its end, whether or not it has
/// written anything or holds a snapshot, and anybody may see it.
pub fn running(connection: &mut PgConnection) -> Work<Vec<String>> {
    let (running,): (Vec<String>,) = Running {}.get_result(connection)?;
    Ok(running)
}

statement! {
    /// What runs now. The vacuums of the database's own change nothing that is seen.
    struct Running {} -> (Array<Text>,),
    "SELECT ARRAY(SELECT l.virtualtransaction
                  FROM pg_locks l
                  JOIN pg_stat_activity s ON s.pid = l.pid
                  WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND s.datname = current_database()
                    AND l.pid <> pg_backend_pid() AND s.backend_type IS DISTINCT FROM 'autovacuum worker')"
}

/// How many entities the realm has, the soft-deleted among them; none if there are too many to count. Call it in a transaction.
pub fn count_entities(connection: &mut PgConnection, claim: &Claimed) -> Work<Option<i64>> {
    let counted = connection.transaction(|connection| {
        connection.batch_execute(&format!("SET LOCAL statement_timeout = '{WORKER_STATEMENT_SECONDS}s'"))?;
        CountEntities { realm: claim.realm.id() }.get_result::<(i64,)>(connection)
    });
    match counted {
        Ok((count,)) => Ok(Some(count)),
        // It tells people how far the build is, and is worth no more than that.
        Err(error) if fault(&error) == Fault::Timeout => Ok(None),
        Err(error) => Err(error.into()),
    }
}

statement! {
    /// From the index alone.
    struct CountEntities { realm: i32 as Integer } -> (BigInt,),
    "SELECT count(*) FROM entity e WHERE e.realm_id = {realm}"
}

/// An entity's id and, in an object, the attribute that the path begins with.
pub type Holder = (String, Option<Struct>);

/// The entities behind this id, the soft-deleted among them; fewer if they are large.
pub fn walk(connection: &mut PgConnection, claim: &Claimed, after: &str, limit: i64) -> Work<Read<Holder>> {
    let first = claim.declared.path.first().map(String::as_str).unwrap_or_default();
    let statement = Walk { realm: claim.realm.id(), first, after, limit };
    let rows = statement.load_iter::<Holder, PgRowByRowLoadingMode>(connection)?;
    Ok(bounded::read(rows, PAGE_BYTES, heavy)?)
}

fn heavy((id, attributes): &Holder) -> usize {
    id.len() + attributes.as_ref().map_or(0, Struct::weight)
}

statement! {
    /// Entities in the order of their ids.
    pub struct Walk<'a> {
        realm: i32 as Integer,
        first: &'a str as Text,
        after: &'a str as Text,
        limit: i64 as BigInt,
    } -> (Text, Nullable<Jsonb>),
    "SELECT e.id, CASE WHEN e.attributes ? {first} THEN jsonb_build_object({first}, e.attributes -> {first}) END
     FROM entity e
     WHERE e.realm_id = {realm} AND e.id > {after}
     ORDER BY e.id
     LIMIT {limit}"
}

/// Writes the rows of entities that were walked, and tells how many were not there.
pub fn add(connection: &mut PgConnection, realm: &Realm, rows: Rows<'_>) -> Work<i64> {
    if rows.is_empty() {
        return Ok(0);
    }
    let Rows { attributes, values, entities } = rows;
    let added = AddRows { realm: realm.id(), attributes, values, entities }.execute(connection)?;
    Ok(i64::try_from(added).unwrap_or(i64::MAX))
}

statement! {
    /// Rows, in the order of the index. What is there was written by somebody who knows better.
    struct AddRows<'a> {
        realm: i32 as Integer,
        attributes: Vec<&'a str> as Array<Text>,
        values: Vec<String> as Array<Text>,
        entities: Vec<&'a str> as Array<Text>,
    } -> (),
    "INSERT INTO attribute_index (realm_id, attribute, value, entity_id)
     SELECT {realm}, r.attribute, r.value, r.entity_id
     FROM unnest({attributes}, {values}, {entities}) AS r(attribute, value, entity_id)
     ORDER BY r.attribute COLLATE \"C\", r.value COLLATE \"C\", r.entity_id COLLATE \"C\"
     ON CONFLICT (realm_id, attribute, value, entity_id) DO NOTHING"
}

/// The last of the next `limit` rows behind this entity, in the order of entities; none if there are no more.
pub fn span(connection: &mut PgConnection, claim: &Claimed, after: &str, limit: i64) -> Work<Option<String>> {
    let (last,): (Option<String>,) = Span { realm: claim.realm.id(), after, limit }.get_result(connection)?;
    Ok(last)
}

statement! {
    /// Where a look at rows ends.
    pub struct Span<'a> {
        realm: i32 as Integer,
        after: &'a str as Text,
        limit: i64 as BigInt,
    } -> (Nullable<Text>,),
    "SELECT max(x.entity_id)
     FROM (SELECT a.entity_id
           FROM attribute_index a
           WHERE a.realm_id = {realm} AND a.entity_id > {after}
           ORDER BY a.entity_id
           LIMIT {limit}) x"
}

/// Those who have rows, behind `after` and up to `until`, and have gone or were changed since the attribute was declared; fewer if they are
/// large. Who has gone has no attributes.
pub fn suspects(connection: &mut PgConnection, claim: &Claimed, since: DateTime<Utc>, after: &str, until: &str) -> Work<Read<Holder>> {
    let Declared { attribute, path } = &claim.declared;
    let first = path.first().map(String::as_str).unwrap_or_default();
    let statement = Suspects { realm: claim.realm.id(), attribute, first, since, after, until };
    let rows = statement.load_iter::<Holder, PgRowByRowLoadingMode>(connection)?;
    Ok(bounded::read(rows, PAGE_BYTES, heavy)?)
}

statement! {
    /// Whoever changes an entity dates the change by the start of the transaction, and who started before the declaration was waited for.
    pub struct Suspects<'a> {
        realm: i32 as Integer,
        attribute: &'a str as Text,
        first: &'a str as Text,
        since: DateTime<Utc> as Timestamptz,
        after: &'a str as Text,
        until: &'a str as Text,
    } -> (Text, Nullable<Jsonb>),
    "SELECT s.entity_id, CASE WHEN e.attributes ? {first} THEN jsonb_build_object({first}, e.attributes -> {first}) END
     FROM (SELECT DISTINCT a.entity_id
           FROM attribute_index a
           WHERE a.realm_id = {realm} AND a.entity_id > {after} AND a.entity_id <= {until} AND a.attribute = {attribute}) s
     LEFT JOIN entity e ON e.realm_id = {realm} AND e.id = s.entity_id
     WHERE e.id IS NULL OR e.updated_at >= {since}
     ORDER BY s.entity_id"
}

/// The rows of these entities: keys and ids.
pub fn rows_of(connection: &mut PgConnection, claim: &Claimed, entities: &[&str]) -> Work<BTreeSet<(String, String)>> {
    let statement = RowsOf { realm: claim.realm.id(), attribute: &claim.declared.attribute, entities };
    Ok(statement.load(connection)?.into_iter().collect())
}

statement! {
    /// What is indexed of entities.
    struct RowsOf<'a> {
        realm: i32 as Integer,
        attribute: &'a str as Text,
        entities: &'a [&'a str] as Array<Text>,
    } -> (Text, Text),
    "SELECT a.value, a.entity_id
     FROM attribute_index a
     WHERE a.realm_id = {realm} AND a.entity_id = ANY({entities}) AND a.attribute = {attribute}"
}

/// Removes the next rows of an index behind this place and returns the last; none if there are no more.
pub fn clear(connection: &mut PgConnection, claim: &Claimed, (value, id): (&str, &str), limit: i64) -> Work<Option<(String, String)>> {
    let statement = Clear { realm: claim.realm.id(), attribute: &claim.declared.attribute, value, id, limit };
    Ok(statement.get_result(connection).optional()?)
}

statement! {
    /// Goes along the index, so that what was removed before is not stepped over again.
    pub struct Clear<'a> {
        realm: i32 as Integer,
        attribute: &'a str as Text,
        value: &'a str as Text,
        id: &'a str as Text,
        limit: i64 as BigInt,
    } -> (Text, Text),
    "WITH picked AS MATERIALIZED (
        SELECT a.ctid, a.value, a.entity_id
        FROM attribute_index a
        WHERE a.realm_id = {realm} AND a.attribute = {attribute} AND (a.value, a.entity_id) > ({value}, {id})
        ORDER BY a.value, a.entity_id
        LIMIT {limit}
     ),
     gone AS (
        DELETE FROM attribute_index a
        WHERE a.ctid = ANY(ARRAY(SELECT p.ctid FROM picked p))
     )
     SELECT p.value, p.entity_id
     FROM picked p
     ORDER BY p.value DESC, p.entity_id DESC
     LIMIT 1"
}

/// How an index moves on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Move<'a> {
    /// To which phase; to the same if none.
    pub phase: Option<Phase>,
    /// For whom it waits from now on.
    pub waits_for: Option<&'a [String]>,
    /// To which place.
    pub place: (&'a str, &'a str),
    /// How many entities were read.
    pub entities: i64,
    /// How many there are, if that is known now.
    pub total: Option<i64>,
    /// How many rows were written.
    pub rows: i64,
}

/// Writes where a locked index stands now, and extends the lease.
pub fn advance(connection: &mut PgConnection, claim: &Claimed, to: Move<'_>, lease: Duration) -> Work<()> {
    let statement = Advance {
        realm: claim.realm.id(),
        attribute: &claim.declared.attribute,
        phase: to.phase.unwrap_or(claim.phase).as_str(),
        waits_for: to.waits_for,
        value: to.place.0,
        id: to.place.1,
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

/// Ends the work on a locked index: it is ready, or gone.
pub fn finish(connection: &mut PgConnection, claim: &Claimed, state: IndexState) -> Work<()> {
    let (realm, attribute) = (claim.realm.id(), claim.declared.attribute.as_str());
    if state == IndexState::Dropping {
        Forget { realm, attribute }.execute(connection)?;
    } else {
        let to = state.transition(IndexAction::Complete)?;
        EndBuild { realm, attribute, to: to.as_str(), code: None, message: None }.execute(connection)?;
    }
    Ok(())
}

/// Ends a build that cannot be done; a worker that lost its lease ends nothing. Call it in a transaction.
pub fn fail(connection: &mut PgConnection, claim: &Claimed, code: &str, message: &str) -> Work<()> {
    let Some(standing) = lock(connection, claim)? else { return Ok(()) };
    let to = standing.state.transition(IndexAction::Fail)?;
    let (realm, attribute) = (claim.realm.id(), claim.declared.attribute.as_str());
    EndBuild { realm, attribute, to: to.as_str(), code: Some(code), message: Some(message) }.execute(connection)?;
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
pub fn release(connection: &mut PgConnection, claim: &Claimed, delay: Duration, counts: bool) -> Work<bool> {
    let (realm, attribute) = (claim.realm.id(), claim.declared.attribute.as_str());
    let statement = Release { realm, attribute, token: claim.token, delay: delay.as_secs_f64(), counts };
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
