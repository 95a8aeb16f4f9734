//! The SQL of checks: starting one, cutting it, keeping its findings.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Bool, Double, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::access::Caller;
use crate::consistency::model::{
    CheckedRows, Finding, FindingKind, MOST_KEPT, NAME, NewCheck, Suspect,
};
use crate::db::statement::Statement;
use crate::db::{Realm, Work, id, listen, statement};
use crate::filter::{self, Filter, Property, Vocabulary};
use crate::task::model::TOPIC;
use crate::task::work::ClaimedSlice;

/// The columns of a [`CheckedRows`].
pub type CheckedColumns =
    (BigInt, Nullable<Text>, Bool, Array<Text>, Array<Text>, Array<Text>, Array<Text>, Array<Bool>);
/// Their values.
pub type CheckedValues =
    (i64, Option<String>, bool, Vec<String>, Vec<FindingKind>, Vec<String>, Vec<String>, Vec<bool>);

/// The text of a check: CTEs of which `walked` has one row with `met`, `cursor` and `more`, and `suspects` a row with `key`, `kind`,
/// `subject`, `detail` and `mendable` for each contradiction.
macro_rules! checked_rows {
    ($ctes:expr) => {
        concat!(
            $ctes,
            "
     SELECT w.met, w.cursor, w.more, f.keys, f.kinds, f.subjects, f.details, f.mendable
     FROM walked w,
          (SELECT COALESCE(array_agg(s.key ORDER BY s.key), '{}') AS keys, COALESCE(array_agg(s.kind ORDER BY s.key), '{}') AS kinds,
                  COALESCE(array_agg(s.subject ORDER BY s.key), '{}') AS subjects,
                  COALESCE(array_agg(s.detail ORDER BY s.key), '{}') AS details,
                  COALESCE(array_agg(s.mendable ORDER BY s.key), '{}') AS mendable
           FROM suspects s) f"
        )
    };
}
pub(super) use checked_rows;

impl From<CheckedValues> for CheckedRows {
    fn from(
        (met, cursor, more, keys, kinds, subjects, details, repairable): CheckedValues,
    ) -> CheckedRows {
        let reported =
            keys.into_iter().zip(kinds).zip(subjects).zip(details.into_iter().zip(repairable));
        let suspects = reported.map(|(((key, kind), subject), (detail, repairable))| Suspect {
            key,
            kind,
            subject,
            detail,
            repairable,
        });
        CheckedRows { met, cursor, more, suspects: suspects.collect() }
    }
}

/// Records a check with one slice and returns its id.
pub fn start(connection: &mut PgConnection, caller: &Caller, check: NewCheck) -> Work<Uuid> {
    let parameters = check
        .parameters(caller.realm.org())
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Json::String(value)));
    let statement = Start {
        realm: caller.realm.id(),
        id: id::new_id(),
        name: NAME,
        fix: check.fix,
        most: check.max_objects_per_second,
        parameters: parameters.collect(),
        principal: caller.principal_id,
        key: caller.key_id,
        channel: listen::CHANNEL,
        topic: TOPIC,
    };
    let (id,): (Uuid,) = statement.get_result(connection)?;
    Ok(id)
}

statement! {
    /// The task, its first slice, the event and the wake-up.
    struct Start<'a> {
        realm: i32 as Integer,
        id: Uuid as SqlUuid,
        name: &'a str as Text,
        fix: bool as Bool,
        most: Option<i32> as Nullable<Integer>,
        parameters: Json as Jsonb,
        principal: Uuid as SqlUuid,
        key: Uuid as SqlUuid,
        channel: &'a str as Text,
        topic: &'a str as Text,
    } -> (SqlUuid,),
    "WITH task AS (
        INSERT INTO bulk_delete
            (realm_id, id, name, kind, status, fix, max_objects_per_second, parameters, principal_id, api_key_id, updated_by)
        VALUES ({realm}, {id}, {name}, 'check_consistency', 'scheduled', {fix}, {most}, {parameters}, {principal}, {key}, {principal})
        RETURNING id
     ),
     whole AS (
        INSERT INTO bulk_delete_slice (realm_id, bulk_delete_id, slice)
        SELECT {realm}, t.id, 0 FROM task t
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, 'bulk_delete.scheduled', ARRAY[t.id::text], {principal}, jsonb_build_object('parameters', {parameters})
        FROM task t
     )
     SELECT t.id
     FROM task t, (SELECT pg_notify({channel}, {topic})) woken"
}

/// Returns whether a consistency check that began within this time has left no finding unrepaired, and none that was at work since has
/// left one. A check that was stopped or failed shows nothing.
pub fn has_clean_report(
    connection: &mut PgConnection,
    realm: &Realm,
    within: std::time::Duration,
) -> Work<bool> {
    let (is_there,): (bool,) =
        CleanReport { realm: realm.id(), within: within.as_secs_f64() }.get_result(connection)?;
    Ok(is_there)
}

statement! {
    /// A check whose every finding was repaired, and no later one with a finding that was not.
    struct CleanReport {
        realm: i32 as Integer,
        within: f64 as Double,
    } -> (Bool,),
    "WITH report AS (
        SELECT b.status, b.started_at, b.ended_at, b.ordinal
        FROM bulk_delete b
        WHERE b.realm_id = {realm} AND b.ended_at IS NOT NULL AND b.kind = 'check_consistency'
          AND b.status IN ('completed', 'completed_with_errors') AND b.ended_at >= now() - make_interval(secs => {within})
     )
     SELECT EXISTS (
        SELECT
        FROM report r
        WHERE r.status = 'completed' AND r.started_at >= now() - make_interval(secs => {within})
          -- One that was asked for later was at work later, whatever the clock did meanwhile.
          AND NOT EXISTS (SELECT FROM report o
                          WHERE o.status = 'completed_with_errors' AND (o.ended_at > r.started_at OR o.ordinal > r.ordinal))
     )"
}

/// How much there is to check.
#[derive(Clone, Copy, Debug, Queryable)]
pub struct Extent {
    /// Rows of all parts together.
    pub rows: i64,
    /// Entities, the soft-deleted among them.
    pub entities: i64,
}

/// Counts the rows that a check of the realm reads, each part by an index.
pub fn extent(connection: &mut PgConnection, realm: &Realm) -> Work<Extent> {
    Ok(ReadExtent { realm: realm.id() }.get_result(connection)?)
}

statement! {
    /// The rows of all parts, and those of entities.
    struct ReadExtent { realm: i32 as Integer } -> (BigInt, BigInt),
    "SELECT e.count + (SELECT count(*) FROM dependent d WHERE d.realm_id = {realm})
                + (SELECT count(*) FROM portfolio p WHERE p.realm_id = {realm})
                + (SELECT count(*) FROM offboarding_request r WHERE r.realm_id = {realm})
                + (SELECT count(*) FROM tombstone t WHERE t.realm_id = {realm})
                + (SELECT count(*) FROM event v WHERE v.realm_id = {realm} AND v.type IN ('entity.offboarded', 'entity.deleted'))
                + (SELECT count(*) FROM attribute_index a WHERE a.realm_id = {realm})
                + CASE WHEN EXISTS (SELECT FROM attribute_declaration d WHERE d.realm_id = {realm} AND d.state = 'ready') THEN e.count ELSE 0 END,
            e.count
     FROM (SELECT count(*) AS count FROM entity e WHERE e.realm_id = {realm}) e"
}

/// About how many keys are read to find where to cut.
const SAMPLE: f64 = 4_000.0;

/// The ids behind which the entities are cut into so many slices of about the same size.
pub fn cuts(
    connection: &mut PgConnection,
    realm: &Realm,
    entities: i64,
    slices: usize,
) -> Work<Vec<String>> {
    let percent = (100.0 * SAMPLE / entities as f64).min(100.0);
    let keys: Vec<(String,)> = SampleIds { realm: realm.id(), percent }.load(connection)?;
    let mut cuts: Vec<String> = (1..slices)
        .filter_map(|n| keys.get(keys.len() * n / slices).map(|(key,)| key.clone()))
        .collect();
    cuts.dedup();
    Ok(cuts)
}

statement! {
    /// Some of the ids, in order.
    struct SampleIds {
        realm: i32 as Integer,
        percent: f64 as Double,
    } -> (Text,),
    "SELECT e.id FROM entity e TABLESAMPLE BERNOULLI ({percent}::float4) WHERE e.realm_id = {realm} ORDER BY e.id"
}

/// Does `work` with statements that wait for others no longer than a moment.
pub fn hurry<T>(
    connection: &mut PgConnection,
    work: impl FnOnce(&mut PgConnection) -> Work<T>,
) -> Work<T> {
    let (patience,): (String,) = ReadPatience {}.get_result(connection)?;
    SetPatience { patience: "50ms" }.execute(connection)?;
    let done = work(connection)?;
    SetPatience { patience: &patience }.execute(connection)?;
    Ok(done)
}

statement! {
    /// How long a statement waits for a lock.
    struct ReadPatience {} -> (Text,),
    "SELECT current_setting('lock_timeout')"
}

statement! {
    /// The same from now on, until the transaction ends.
    struct SetPatience<'a> { patience: &'a str as Text } -> (Text,),
    "SELECT set_config('lock_timeout', {patience}, true)"
}

/// Something that should not be, and whether that was repaired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The kind.
    pub suspect: Suspect,
    /// True if it was repaired.
    pub mended: bool,
}

/// Counts what a chunk found, and keeps what there is room for, in the transaction of the chunk.
pub fn record(connection: &mut PgConnection, claim: &ClaimedSlice, found: &[Found]) -> Work<()> {
    let (realm, task) = (claim.realm.id(), claim.task_id);
    // Other slices add findings at the same time; the limit is that of the task. The next statement sees what they have kept.
    LockTask { realm, task }.execute(connection)?;
    let statement = Record {
        realm,
        task,
        slice: claim.slice,
        kinds: found.iter().map(|found| found.suspect.kind.as_str()).collect(),
        subjects: found.iter().map(|found| found.suspect.subject.as_str()).collect(),
        details: found.iter().map(|found| found.suspect.detail.as_str()).collect(),
        mended: found.iter().map(|found| found.mended).collect(),
        most: MOST_KEPT,
    };
    statement.execute(connection)?;
    Ok(())
}

statement! {
    /// A lock that the slices of a task share.
    struct LockTask {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
    } -> (SqlUuid,),
    "SELECT b.id FROM bulk_delete b WHERE b.realm_id = {realm} AND b.id = {task} FOR NO KEY UPDATE"
}

statement! {
    /// Findings behind those that the slice has, as far as there is room, and the count of all.
    struct Record<'a> {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        slice: i32 as Integer,
        kinds: Vec<&'a str> as Array<Text>,
        subjects: Vec<&'a str> as Array<Text>,
        details: Vec<&'a str> as Array<Text>,
        mended: Vec<bool> as Array<Bool>,
        most: i64 as BigInt,
    } -> (),
    "WITH known AS (
        SELECT COALESCE(sum(k.kept), 0)::int8 AS kept, COALESCE(sum(k.found) FILTER (WHERE k.slice = {slice}), 0)::int8 AS before
        FROM bulk_delete_finding_count k
        WHERE k.realm_id = {realm} AND k.bulk_delete_id = {task}
     ),
     fresh AS (
        SELECT f.*, f.n <= {most} - k.kept AS fits, k.before
        FROM unnest({kinds}, {subjects}, {details}, {mended}) WITH ORDINALITY AS f(kind, subject, detail, mended, n), known k
     ),
     kept AS (
        INSERT INTO bulk_delete_finding (realm_id, bulk_delete_id, slice, n, kind, subject, detail, mended)
        SELECT {realm}, {task}, {slice}, f.before + f.n, f.kind, f.subject, f.detail, f.mended
        FROM fresh f
        WHERE f.fits
     )
     INSERT INTO bulk_delete_finding_count AS k (realm_id, bulk_delete_id, slice, kind, found, mended, kept)
     SELECT {realm}, {task}, {slice}, f.kind, count(*), count(*) FILTER (WHERE f.mended), count(*) FILTER (WHERE f.fits)
     FROM fresh f
     GROUP BY f.kind
     ON CONFLICT (realm_id, bulk_delete_id, slice, kind) DO UPDATE
     SET found = k.found + excluded.found, mended = k.mended + excluded.mended, kept = k.kept + excluded.kept"
}

/// The properties for the filter of a list of findings.
pub static FINDING: Vocabulary = Vocabulary {
    properties: &[
        Property::new(&["kind"], filter::PropertyKind::Text, "f.kind")
            .one_of(FindingKind::SPELLINGS),
        Property::new(&["subject"], filter::PropertyKind::Text, "f.subject"),
        Property::new(&["detail"], filter::PropertyKind::Text, "f.detail"),
        Property::new(&["mended"], filter::PropertyKind::Text, "CAST(f.mended AS text)")
            .one_of(&["true", "false"]),
        Property::new(&["time"], filter::PropertyKind::Time, "f.occurred_at"),
    ],
};

/// The findings of a task after this one that match the filter, in the order of slices. None if there is no such task.
pub fn findings(
    connection: &mut PgConnection,
    realm: &Realm,
    (task, filter): (Uuid, Option<&Filter>),
    (slice, number): (i32, i64),
    limit: i64,
) -> Work<Option<Vec<Finding>>> {
    let is_there: Option<(Uuid,)> =
        FindTask { realm: realm.id(), task }.get_result(connection).optional()?;
    if is_there.is_none() {
        return Ok(None);
    }
    let statement = ListFindings { realm: realm.id(), task, slice, number, limit };
    Ok(Some(statement.filtered(filter.map(Filter::predicate)).load(connection)?))
}

statement! {
    /// True if there is such a task.
    struct FindTask {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
    } -> (SqlUuid,),
    "SELECT b.id FROM bulk_delete b WHERE b.realm_id = {realm} AND b.id = {task}"
}

statement! {
    /// A page of findings.
    struct ListFindings {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        slice: i32 as Integer,
        number: i64 as BigInt,
        limit: i64 as BigInt,
    } -> (Integer, BigInt, Text, Text, Text, Bool, Timestamptz),
    "SELECT f.slice, f.n, f.kind, f.subject, f.detail, f.mended, f.occurred_at
     FROM bulk_delete_finding f
     WHERE f.realm_id = {realm} AND f.bulk_delete_id = {task} AND (f.slice, f.n) > ({slice}, {number}){filter}
     ORDER BY f.slice, f.n
     LIMIT {limit}"
}

#[cfg(test)]
crate::db::checked::filtered!(ListFindings, crate::filter::conditions::conditions(&FINDING));
