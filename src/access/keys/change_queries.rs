//! The SQL that changes keys. Each function is called in a transaction, in which the keys of the realm are the caller's alone to change: what it
//! checks stays true until its end.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Binary, Cidr, Date, Double, Integer, Nullable, Text, Timestamptz,
    Uuid as SqlUuid,
};
use ipnet::IpNet;
use uuid::Uuid;

use crate::access::addresses::AllowList;
use crate::access::key::invalid_credentials;
use crate::access::keys::model::{KeyAction, KeyFields, KeyRecord, KeyState, KeyUpdate};
use crate::access::keys::queries::{Row, Values, columns, get, state};
use crate::access::queries::{check_realm_admits, get_key, wake};
use crate::access::secret::Secret;
use crate::access::{Caller, Scope};
use crate::db::{Realm, Work, clock, id, lock_realm, statement};
use crate::error::{Code, Error};
use crate::limits::kept::{ENDED_KEYS, ENDED_KEYS_AT_MOST, KEYS};

/// Locks the keys of the caller's realm, and returns the caller with what its key may do now: a key that was revoked or narrowed a moment ago
/// makes no other key, also where that is not noticed yet.
pub(super) fn lock(connection: &mut PgConnection, caller: &Caller, needs: Scope) -> Work<Caller> {
    lock_realm(connection, &caller.realm)?;
    let caller = match caller.by_token_again() {
        Some(again) => {
            check_realm_admits(connection, caller)?;
            again?
        }
        None => {
            let key = get_key(connection, &caller.realm, caller.key_id)?;
            key.ok_or_else(invalid_credentials)?.admit(caller.presented, clock::now())?
        }
    };
    caller.require(needs)?;
    Ok(caller)
}

/// The key that is to be changed, and the caller as [`lock`] returns it.
fn lock_key(
    connection: &mut PgConnection,
    caller: &Caller,
    key: Uuid,
) -> Work<(Caller, KeyRecord)> {
    let caller = lock(connection, caller, Scope::KeysWrite)?;
    let record = get(connection, &caller.realm, key)?
        .ok_or_else(|| Error::not_found("key", &key.to_string()))?;
    Ok((caller, record))
}

/// Fails with `limit_reached` if the realm has as many keys that have not ended as it may.
fn check_room(connection: &mut PgConnection, realm: &Realm, at_most: u32) -> Work<()> {
    let (count,): (i64,) = CountKeys { realm: realm.id() }.get_result(connection)?;
    if count < i64::from(at_most) {
        return Ok(());
    }
    KEYS.reached();
    let message = format!("The realm has as many keys as it may, {at_most}; revoke one first.");
    Err(Error::new(Code::LimitReached, message).with("limit", at_most).into())
}

statement! {
    /// How many keys of a realm have not ended.
    struct CountKeys { realm: i32 as Integer } -> (BigInt,),
    concat!("SELECT count(*) FROM api_key k WHERE k.realm_id = {realm} AND (", state!(), ") = 'active'")
}

/// Creates a key with this secret, of which the realm may have so many, and its event.
pub fn create(
    connection: &mut PgConnection,
    caller: &Caller,
    fields: &KeyFields,
    secret: &Secret,
    at_most: u32,
) -> Work<KeyRecord> {
    let caller = lock(connection, caller, Scope::KeysWrite)?;
    caller.require_all(fields.scopes.iter().map(String::as_str))?;
    check_room(connection, &caller.realm, at_most)?;
    let kept = ENDED_KEYS_AT_MOST as i64;
    if (ForgetEnded { realm: caller.realm.id(), kept }).execute(connection)? > 0 {
        ENDED_KEYS.reached();
    }
    let hash = secret.hash();
    let statement = CreateKey {
        realm: caller.realm.id(),
        principal: caller.principal_id,
        key: id::new_id(),
        own_principal: id::new_id(),
        hash: hash.as_bytes(),
        prefix: secret.prefix(),
        name: &fields.name,
        email: fields.email.as_deref(),
        scopes: &fields.scopes,
        allowed: &fields.allowed,
        expires: fields.expires_at,
        version_day: fields.api_version,
    };
    let created: Values = statement.get_result(connection)?;
    wake(connection)?;
    Ok(created.into())
}

statement! {
    /// Removes the keys that ended first, where more than so many have.
    struct ForgetEnded {
        realm: i32 as Integer,
        kept: i64 as BigInt,
    } -> (),
    "DELETE FROM api_key
     WHERE realm_id = {realm} AND id IN (
        SELECT k.id
        FROM api_key k
        WHERE k.realm_id = {realm} AND least(k.revoked_at, k.expires_at) <= now()
        ORDER BY least(k.revoked_at, k.expires_at) DESC, k.id DESC
        OFFSET {kept}
     )"
}

statement! {
    /// A new key and its event.
    struct CreateKey<'a> {
        realm: i32 as Integer,
        principal: Uuid as SqlUuid,
        key: Uuid as SqlUuid,
        own_principal: Uuid as SqlUuid,
        hash: &'a [u8] as Binary,
        prefix: &'a str as Text,
        name: &'a str as Text,
        email: Option<&'a str> as Nullable<Text>,
        scopes: &'a [String] as Array<Text>,
        allowed: &'a [IpNet] as Array<Cidr>,
        expires: Option<DateTime<Utc>> as Nullable<Timestamptz>,
        version_day: Option<NaiveDate> as Nullable<Date>,
    } -> Row,
    concat!(
        "WITH k AS (
            INSERT INTO api_key (id, realm_id, principal_id, name, email, secret_sha256, secret_prefix, scopes, allowed, api_version, expires_at)
            VALUES ({key}, {realm}, {own_principal}, {name}, {email}, {hash}, {prefix}, {scopes}, {allowed}, {version_day}, {expires})
            RETURNING *
         ),
         recorded AS (
            INSERT INTO event (realm_id, type, subjects, principal_id, data)
            SELECT {realm}, 'key.created', ARRAY[k.id::text], {principal}, jsonb_build_object('version', k.version) FROM k
         )
         SELECT ", columns!(), " FROM k"
    )
}

/// Changes the fields of a key, and records which. If none changes, nothing is written. Of keys that have not ended the realm may have so many.
pub fn update(
    connection: &mut PgConnection,
    caller: &Caller,
    (key, update): (Uuid, &KeyUpdate),
    at_most: u32,
) -> Work<KeyRecord> {
    let (caller, record) = lock_key(connection, caller, key)?;
    let (fields, changed) = update.apply(&record.fields);
    // Also what stays must be the caller's to give: an address or an end is a part of it.
    let scopes = record.fields.scopes.iter().chain(&fields.scopes);
    caller.require_all(scopes.map(String::as_str))?;
    record.expect(update.expected_version)?;
    record.state.check(KeyAction::Update)?;
    if changed.is_empty() {
        return Ok(record);
    }
    if key == caller.key_id && changed.contains(&"allowed") && !update.allow_lockout {
        AllowList::new(fields.allowed.iter().copied()).check_admits(caller.presented.address)?;
    }
    let is_valid = fields.expires_at.is_none_or(|end| end > clock::now());
    if record.state == KeyState::Expired && is_valid {
        check_room(connection, &caller.realm, at_most)?;
    }
    let statement = UpdateKey {
        realm: caller.realm.id(),
        principal: caller.principal_id,
        key,
        name: &fields.name,
        email: fields.email.as_deref(),
        scopes: &fields.scopes,
        allowed: &fields.allowed,
        expires: fields.expires_at,
        version_day: fields.api_version,
        changed,
    };
    let updated: Values = statement.get_result(connection)?;
    wake(connection)?;
    Ok(updated.into())
}

statement! {
    /// The fields of a key, and the event that names those that are others than before.
    struct UpdateKey<'a> {
        realm: i32 as Integer,
        principal: Uuid as SqlUuid,
        key: Uuid as SqlUuid,
        name: &'a str as Text,
        email: Option<&'a str> as Nullable<Text>,
        scopes: &'a [String] as Array<Text>,
        allowed: &'a [IpNet] as Array<Cidr>,
        expires: Option<DateTime<Utc>> as Nullable<Timestamptz>,
        version_day: Option<NaiveDate> as Nullable<Date>,
        changed: Vec<&'static str> as Array<Text>,
    } -> Row,
    concat!(
        "WITH k AS (
            UPDATE api_key
            SET name = {name}, email = {email}, scopes = {scopes}, allowed = {allowed}, expires_at = {expires}, api_version = {version_day},
                version = version + 1, updated_at = now()
            WHERE realm_id = {realm} AND id = {key}
            RETURNING *
         ),
         recorded AS (
            INSERT INTO event (realm_id, type, subjects, principal_id, data)
            SELECT {realm}, 'key.updated', ARRAY[k.id::text], {principal}, jsonb_build_object('fields', {changed}, 'version', k.version)
            FROM k
         )
         SELECT ", columns!(), " FROM k"
    )
}

/// Gives a key another secret; the one that it has stays valid for a while.
pub fn rotate(
    connection: &mut PgConnection,
    caller: &Caller,
    (key, expected): (Uuid, Option<i64>),
    secret: &Secret,
    overlap: Duration,
) -> Work<KeyRecord> {
    let (caller, record) = lock_key(connection, caller, key)?;
    caller.require_all(record.fields.scopes.iter().map(String::as_str))?;
    record.expect(expected)?;
    record.state.check(KeyAction::Rotate)?;
    let hash = secret.hash();
    let statement = RotateKey {
        realm: caller.realm.id(),
        principal: caller.principal_id,
        key,
        hash: hash.as_bytes(),
        prefix: secret.prefix(),
        overlap: overlap.as_secs_f64(),
    };
    let rotated: Values = statement.get_result(connection)?;
    wake(connection)?;
    Ok(rotated.into())
}

statement! {
    /// Another secret, the end of the one before it, and the event.
    struct RotateKey<'a> {
        realm: i32 as Integer,
        principal: Uuid as SqlUuid,
        key: Uuid as SqlUuid,
        hash: &'a [u8] as Binary,
        prefix: &'a str as Text,
        overlap: f64 as Double,
    } -> Row,
    concat!(
        "WITH k AS (
            UPDATE api_key
            SET previous_sha256 = secret_sha256, previous_prefix = secret_prefix, previous_expires_at = now() + make_interval(secs => {overlap}),
                secret_sha256 = {hash}, secret_prefix = {prefix}, version = version + 1, updated_at = now()
            WHERE realm_id = {realm} AND id = {key}
            RETURNING *
         ),
         recorded AS (
            INSERT INTO event (realm_id, type, subjects, principal_id, data)
            SELECT {realm}, 'key.rotated', ARRAY[k.id::text], {principal},
                   jsonb_build_object('version', k.version, 'previous_secret_expires_at', k.previous_expires_at)
            FROM k
         )
         SELECT ", columns!(), " FROM k"
    )
}

/// Ends a key for good. One that is revoked stays as it is.
pub fn revoke(
    connection: &mut PgConnection,
    caller: &Caller,
    key: Uuid,
    expected: Option<i64>,
) -> Work<KeyRecord> {
    let (caller, record) = lock_key(connection, caller, key)?;
    record.expect(expected)?;
    if record.state == KeyState::Revoked {
        return Ok(record);
    }
    record.state.check(KeyAction::Revoke)?;
    let (realm, principal) = (caller.realm.id(), caller.principal_id);
    let revoked: Values = RevokeKey { realm, principal, key }.get_result(connection)?;
    wake(connection)?;
    Ok(revoked.into())
}

statement! {
    /// The end of a key and its event.
    struct RevokeKey {
        realm: i32 as Integer,
        principal: Uuid as SqlUuid,
        key: Uuid as SqlUuid,
    } -> Row,
    concat!(
        "WITH k AS (
            UPDATE api_key
            SET revoked_at = now(), previous_sha256 = NULL, previous_prefix = NULL, previous_expires_at = NULL,
                version = version + 1, updated_at = now()
            WHERE realm_id = {realm} AND id = {key}
            RETURNING *
         ),
         recorded AS (
            INSERT INTO event (realm_id, type, subjects, principal_id, data)
            SELECT {realm}, 'key.revoked', ARRAY[k.id::text], {principal}, jsonb_build_object('version', k.version) FROM k
         )
         SELECT ", columns!(), " FROM k"
    )
}
