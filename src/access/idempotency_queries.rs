//! The SQL of idempotency keys.

use std::time::Duration;

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Binary, Bool, Double, Integer, Nullable, SmallInt, Text, Uuid as SqlUuid,
};
use uuid::Uuid;

use crate::access::answer::{Record, Subject};
use crate::access::idempotency_key::RecordId;
use crate::access::quota::Shard;
use crate::access::{Caller, erasure_queries};
use crate::db::{Work, statement};
use crate::error::Error;

/// How long a record is kept.
pub const KEPT: Duration = Duration::from_secs(24 * 3600);

/// How often a record that disappears while it is read is searched for again.
const TRIES: usize = 10;

/// The record of a call that was sent before.
pub(super) enum Claim {
    /// Nothing. The record is ours to write, and a call that is sent again waits for our transaction.
    Ours,
    /// Its response.
    Known(Vec<u8>),
    /// Another request under the same key.
    Reused,
    /// One that has had its time, and is to be removed before the key is used again: see [`forget`].
    Expired,
    /// Nothing, and no room for a record.
    Full {
        /// Because there are so many, and not because they are so large.
        records: bool,
    },
}

fn shard_of(caller: &Caller, record: &RecordId) -> Shard {
    record.quota().shard(caller.key_id, record.key.key(), record.part)
}

/// Makes the empty record of a call, or finds that there is one. Waits for a transaction that has made it and is not at its end.
pub(super) fn claim(
    connection: &mut PgConnection,
    caller: &Caller,
    record: &RecordId,
) -> Work<Claim> {
    let (realm, api_key, key, part) =
        (caller.realm.id(), caller.key_id, record.key.key(), record.part);
    let (method, digest, kept) =
        (record.method(), record.request_sha256.as_slice(), KEPT.as_secs_f64());
    let Shard { number: shard, records, bytes } = shard_of(caller, record);
    for _ in 0..TRIES {
        let claimed =
            ClaimRecord { realm, api_key, key, part, method, digest, shard, records, bytes }
                .get_result::<(i32,)>(connection)
                .optional()?;
        if claimed.is_some() {
            return Ok(Claim::Ours);
        }
        let found =
            ReadRecord { realm, api_key, key, part, method, digest, kept, shard, records, bytes };
        let (is_full, expired, same, answer): (bool, Option<bool>, Option<bool>, Option<Vec<u8>>) =
            found.get_result(connection)?;
        match (expired, same, answer) {
            (Some(true), ..) => return Ok(Claim::Expired),
            (_, Some(true), Some(answer)) => return Ok(Claim::Known(answer)),
            (_, Some(true), None) => {
                return Err(
                    Error::internal("a record of an idempotency key has no response").into()
                );
            }
            (_, Some(false), _) => return Ok(Claim::Reused),
            (_, None, _) if is_full => {
                return Ok(Claim::Full { records: has_all_records(connection, caller, record)? });
            }
            // Removed in between.
            (_, None, _) => {}
        }
    }
    Err(Error::unavailable("Others are at work on the same thing; try again.").into())
}

statement! {
    /// The empty record, if the realm may have one more. That is only a look; what counts is the count itself, at the end.
    struct ClaimRecord<'a> {
        realm: i32 as Integer,
        api_key: Uuid as SqlUuid,
        key: &'a str as Text,
        part: i64 as BigInt,
        method: &'a str as Text,
        digest: &'a [u8] as Binary,
        shard: i16 as SmallInt,
        records: i64 as BigInt,
        bytes: i64 as BigInt,
    } -> (Integer,),
    "INSERT INTO idempotency_key (realm_id, api_key_id, key, part, method, request_sha256)
     SELECT {realm}, {api_key}, {key}, {part}, {method}, {digest}
     WHERE NOT EXISTS (SELECT FROM idempotency_usage u
                       WHERE u.realm_id = {realm} AND u.shard = {shard} AND (u.records >= {records} OR u.bytes >= {bytes}))
     ON CONFLICT (realm_id, api_key_id, key, part) DO NOTHING
     RETURNING 1"
}

statement! {
    /// True if the realm may have no more records; and of the record, if there is one, whether it has had its time, whether it is of this
    /// request, and its response.
    struct ReadRecord<'a> {
        realm: i32 as Integer,
        api_key: Uuid as SqlUuid,
        key: &'a str as Text,
        part: i64 as BigInt,
        method: &'a str as Text,
        digest: &'a [u8] as Binary,
        kept: f64 as Double,
        shard: i16 as SmallInt,
        records: i64 as BigInt,
        bytes: i64 as BigInt,
    } -> (Bool, Nullable<Bool>, Nullable<Bool>, Nullable<Binary>),
    "SELECT EXISTS (SELECT FROM idempotency_usage u
                    WHERE u.realm_id = {realm} AND u.shard = {shard} AND (u.records >= {records} OR u.bytes >= {bytes})),
            k.created_at <= now() - make_interval(secs => {kept}), k.method = {method} AND k.request_sha256 = {digest}, k.answer
     FROM (SELECT) one
     LEFT JOIN idempotency_key k
       ON k.realm_id = {realm} AND k.api_key_id = {api_key} AND k.key = {key} AND k.part = {part}"
}

/// Removes a record that has had its time.
pub(super) fn forget(
    connection: &mut PgConnection,
    caller: &Caller,
    record: &RecordId,
) -> Work<()> {
    let (realm, api_key, key, part) =
        (caller.realm.id(), caller.key_id, record.key.key(), record.part);
    ForgetRecord { realm, api_key, key, part, kept: KEPT.as_secs_f64() }.execute(connection)?;
    Ok(())
}

statement! {
    /// A record, if it is old.
    struct ForgetRecord<'a> {
        realm: i32 as Integer,
        api_key: Uuid as SqlUuid,
        key: &'a str as Text,
        part: i64 as BigInt,
        kept: f64 as Double,
    } -> (),
    "DELETE FROM idempotency_key
     WHERE realm_id = {realm} AND api_key_id = {api_key} AND key = {key} AND part = {part}
       AND created_at <= now() - make_interval(secs => {kept})"
}

/// Writes the response into the record that this transaction has claimed, counts it, and notes its subjects. Fails with
/// `rate_limit_exceeded` if the realm may keep no more. It is the last statement of its transaction, so that nobody waits long for the
/// count.
pub(super) fn record(
    connection: &mut PgConnection,
    caller: &Caller,
    record: &RecordId,
    answer: &[u8],
    shown: &[Subject],
) -> Work<()> {
    let Shard { number: shard, records, bytes } = shard_of(caller, record);
    let columns = erasure_queries::Columns::of(shown);
    let statement = WriteRecord {
        realm: caller.realm.id(),
        api_key: caller.key_id,
        key: record.key.key(),
        part: record.part,
        answer,
        erased: Record::erased(),
        size: (answer.len() + shown.len() * SUBJECT_BYTES) as i64,
        shard,
        records,
        bytes,
        kinds: columns.kinds,
        subjects: columns.subjects,
        dependents: columns.dependents,
    };
    if statement.execute(connection)? == 1 {
        return Ok(());
    }
    let of_records = has_all_records(connection, caller, record)?;
    Err(record.quota().full(of_records).into())
}

/// Returns whether there are as many records as there may be, where one was refused.
fn has_all_records(
    connection: &mut PgConnection,
    caller: &Caller,
    record: &RecordId,
) -> Work<bool> {
    let Shard { number: shard, records, .. } = shard_of(caller, record);
    let (has_all,): (bool,) =
        HasAllRecords { realm: caller.realm.id(), shard, records }.get_result(connection)?;
    Ok(has_all)
}

statement! {
    /// True if a share is used up by the number of its records.
    struct HasAllRecords {
        realm: i32 as Integer,
        shard: i16 as SmallInt,
        records: i64 as BigInt,
    } -> (Bool,),
    "SELECT EXISTS (SELECT FROM idempotency_usage u WHERE u.realm_id = {realm} AND u.shard = {shard} AND u.records >= {records})"
}

/// The bytes that count for each subject of a response: about a row of `idempotency_subject`.
const SUBJECT_BYTES: usize = 128;

statement! {
    /// The response of a record. A call that shows an entity has locked it, so it exists; a portfolio may have been deleted since it was
    /// read, and is locked until this has committed.
    struct WriteRecord<'a> {
        realm: i32 as Integer,
        api_key: Uuid as SqlUuid,
        key: &'a str as Text,
        part: i64 as BigInt,
        answer: &'a [u8] as Binary,
        erased: Vec<u8> as Binary,
        size: i64 as BigInt,
        shard: i16 as SmallInt,
        records: i64 as BigInt,
        bytes: i64 as BigInt,
        kinds: Vec<&'static str> as Array<Text>,
        subjects: Vec<&'a str> as Array<Text>,
        dependents: Vec<String> as Array<Text>,
    } -> (),
    "WITH counted AS (
        INSERT INTO idempotency_usage AS u (realm_id, shard, records, bytes)
        SELECT {realm}, {shard}, 1, {size}
        WHERE {size} <= {bytes}
        ON CONFLICT (realm_id, shard) DO UPDATE
        SET records = u.records + 1, bytes = u.bytes + {size}
        WHERE u.records < {records} AND u.bytes + {size} <= {bytes}
        RETURNING 1
     ),
     shown AS (
        SELECT s.kind, s.subject, s.dependent
        FROM unnest({kinds}, {subjects}, {dependents}) AS s(kind, subject, dependent)
     ),
     noted AS (
        INSERT INTO idempotency_subject (realm_id, kind, subject, dependent, api_key_id, key, part)
        SELECT {realm}, s.kind, s.subject, s.dependent, {api_key}, {key}, {part}
        FROM shown s
        ON CONFLICT (realm_id, kind, subject, dependent, api_key_id, key, part) DO UPDATE SET created_at = excluded.created_at
     ),
     there AS (
        SELECT p.id
        FROM portfolio p
        WHERE p.realm_id = {realm} AND p.id IN (SELECT s.subject FROM shown s WHERE s.kind = 'portfolio')
        FOR KEY SHARE
     )
     UPDATE idempotency_key
     SET shard = {shard}, bytes = {size},
         answer = CASE WHEN (SELECT count(*) FROM there) = (SELECT count(*) FROM shown s WHERE s.kind = 'portfolio')
                       THEN {answer} ELSE {erased} END
     WHERE realm_id = {realm} AND api_key_id = {api_key} AND key = {key} AND part = {part} AND EXISTS (SELECT FROM counted)"
}

/// Removes some of the records that have had their time, and reports how many.
pub fn sweep(connection: &mut PgConnection, at_most: i64) -> Work<usize> {
    Ok(Sweep { kept: KEPT.as_secs_f64(), at_most }.execute(connection)?)
}

statement! {
    /// A batch of old records. Those that somebody is taking up again are left.
    struct Sweep {
        kept: f64 as Double,
        at_most: i64 as BigInt,
    } -> (),
    "WITH old AS MATERIALIZED (
        SELECT k.realm_id, k.api_key_id, k.key, k.part
        FROM idempotency_key k
        WHERE k.created_at <= now() - make_interval(secs => {kept})
        ORDER BY k.created_at
        LIMIT {at_most}
        FOR UPDATE SKIP LOCKED
     )
     DELETE FROM idempotency_key k
     USING old o
     WHERE k.realm_id = o.realm_id AND k.api_key_id = o.api_key_id AND k.key = o.key AND k.part = o.part"
}

/// How long what a record shows is known: longer than the record, so that it can be taken out of it to the last.
const SUBJECT_KEPT: Duration = Duration::from_secs(25 * 3600);

/// Removes some of the notes of what records showed that have had their time, and reports how many.
pub fn sweep_subjects(connection: &mut PgConnection, at_most: i64) -> Work<usize> {
    Ok(SweepSubjects { kept: SUBJECT_KEPT.as_secs_f64(), at_most }.execute(connection)?)
}

statement! {
    /// A batch of old notes.
    struct SweepSubjects {
        kept: f64 as Double,
        at_most: i64 as BigInt,
    } -> (),
    "DELETE FROM idempotency_subject
     WHERE ctid = ANY(ARRAY(SELECT s.ctid
                            FROM idempotency_subject s
                            WHERE s.created_at <= now() - make_interval(secs => {kept})
                            ORDER BY s.created_at
                            LIMIT {at_most}
                            FOR UPDATE SKIP LOCKED))"
}
