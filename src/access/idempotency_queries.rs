//! The SQL of idempotency keys.

use std::time::Duration;

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Bool, Double, Integer, Nullable, Text, Uuid as SqlUuid};
use uuid::Uuid;

use crate::access::Caller;
use crate::access::idempotency::RecordId;
use crate::db::{Work, statement};
use crate::error::Error;

/// How long a record is kept.
pub const KEPT: Duration = Duration::from_secs(24 * 3600);

/// How often a record that goes while it is looked at is looked for again.
const TRIES: usize = 10;

/// What there is of a call that was sent before.
pub(super) enum Claim {
    /// Nothing. The record is ours to write, and whoever sends the call again waits for our transaction.
    Ours,
    /// Its answer.
    Known(Vec<u8>),
    /// Another request under the same key.
    Reused,
}

/// Makes the empty record of a call, or finds that there is one. Waits for a transaction that has made it and is not at its end.
pub(super) fn claim(connection: &mut PgConnection, caller: &Caller, record: &RecordId) -> Work<Claim> {
    let (realm, api_key, key, part) = (caller.realm.id(), caller.key_id, record.key.key(), record.part);
    let (method, digest, kept) = (record.method(), record.request_sha256.as_slice(), KEPT.as_secs_f64());
    for _ in 0..TRIES {
        let claimed = ClaimRecord { realm, api_key, key, part, method, digest, kept }.get_result::<(i32,)>(connection).optional()?;
        if claimed.is_some() {
            return Ok(Claim::Ours);
        }
        let found = ReadRecord { realm, api_key, key, part, method, digest }.get_result::<(bool, Option<Vec<u8>>)>(connection);
        match found.optional()? {
            Some((true, Some(answer))) => return Ok(Claim::Known(answer)),
            Some((true, None)) => return Err(Error::internal("a record of an idempotency key has no answer").into()),
            Some((false, _)) => return Ok(Claim::Reused),
            // Removed in between.
            None => {}
        }
    }
    Err(Error::unavailable("Others are at work on the same thing; try again.").into())
}

statement! {
    /// The empty record; one that has had its time is as good as none.
    struct ClaimRecord<'a> {
        realm: i32 as Integer,
        api_key: Uuid as SqlUuid,
        key: &'a str as Text,
        part: i64 as BigInt,
        method: &'a str as Text,
        digest: &'a [u8] as Binary,
        kept: f64 as Double,
    } -> (Integer,),
    "INSERT INTO idempotency_key AS k (realm_id, api_key_id, key, part, method, request_sha256)
     VALUES ({realm}, {api_key}, {key}, {part}, {method}, {digest})
     ON CONFLICT (realm_id, api_key_id, key, part) DO UPDATE
     SET method = excluded.method, request_sha256 = excluded.request_sha256, answer = NULL, created_at = now()
     WHERE k.created_at <= now() - make_interval(secs => {kept})
     RETURNING 1"
}

statement! {
    /// Whether the record is of this request, and its answer.
    struct ReadRecord<'a> {
        realm: i32 as Integer,
        api_key: Uuid as SqlUuid,
        key: &'a str as Text,
        part: i64 as BigInt,
        method: &'a str as Text,
        digest: &'a [u8] as Binary,
    } -> (Bool, Nullable<Binary>),
    "SELECT k.method = {method} AND k.request_sha256 = {digest}, k.answer
     FROM idempotency_key k
     WHERE k.realm_id = {realm} AND k.api_key_id = {api_key} AND k.key = {key} AND k.part = {part}"
}

/// Writes the answer into the record that this transaction has claimed.
pub(super) fn record(connection: &mut PgConnection, caller: &Caller, record: &RecordId, answer: &[u8]) -> Work<()> {
    let (realm, api_key, key, part) = (caller.realm.id(), caller.key_id, record.key.key(), record.part);
    let written = WriteRecord { realm, api_key, key, part, answer }.execute(connection)?;
    if written == 1 { Ok(()) } else { Err(Error::internal("a claimed record of an idempotency key is not there").into()) }
}

statement! {
    /// The answer of a record.
    struct WriteRecord<'a> {
        realm: i32 as Integer,
        api_key: Uuid as SqlUuid,
        key: &'a str as Text,
        part: i64 as BigInt,
        answer: &'a [u8] as Binary,
    } -> (Integer,),
    "UPDATE idempotency_key
     SET answer = {answer}
     WHERE realm_id = {realm} AND api_key_id = {api_key} AND key = {key} AND part = {part}"
}

/// Removes some of the records that have had their time, and tells how many.
pub fn sweep(connection: &mut PgConnection, at_most: i64) -> Work<usize> {
    Ok(Sweep { kept: KEPT.as_secs_f64(), at_most }.execute(connection)?)
}

statement! {
    /// A batch of old records. Those that somebody is taking up again are left.
    struct Sweep {
        kept: f64 as Double,
        at_most: i64 as BigInt,
    } -> (Integer,),
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
