//! The SQL that reads keys, and removes those that ended long ago.

use chrono::{DateTime, NaiveDate, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Bool, Cidr, Date, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::access::keys::model::{KeyFields, KeyRecord, KeyState};
use crate::db::statement::Statement;
use crate::db::{Realm, Work, statement};
use crate::filter::{Filter, Property, PropertyKind, Vocabulary};
use crate::limits::kept::ENDED_KEY_DAYS;

/// The state of the key `k`.
macro_rules! state {
    () => {
        "CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked' WHEN k.expires_at <= now() THEN 'expired' ELSE 'active' END"
    };
}

/// The columns of a [`KeyRecord`], of the key `k`.
macro_rules! columns {
    () => {
        concat!(
            "k.id, k.principal_id, ",
            $crate::access::keys::queries::state!(),
            ", k.version, k.created_at, k.updated_at, k.revoked_at, k.last_used_at,
             k.name, k.email, k.scopes, k.allowed, k.expires_at, k.api_version, k.secret_prefix,
             CASE WHEN k.previous_expires_at > now() THEN k.previous_prefix END,
             CASE WHEN k.previous_expires_at > now() THEN k.previous_expires_at END"
        )
    };
}
pub(super) use {columns, state};

/// The types of `columns!`.
pub(super) type Row = (
    (
        SqlUuid,
        SqlUuid,
        Text,
        BigInt,
        Timestamptz,
        Timestamptz,
        Nullable<Timestamptz>,
        Nullable<Timestamptz>,
    ),
    (Text, Nullable<Text>, Array<Text>, Array<Cidr>, Nullable<Timestamptz>, Nullable<Date>),
    (Text, Nullable<Text>, Nullable<Timestamptz>),
);
type Moment = Option<DateTime<Utc>>;
type Life = (Uuid, Uuid, KeyState, i64, DateTime<Utc>, DateTime<Utc>, Moment, Moment);
type Fields = (String, Option<String>, Vec<String>, Vec<IpNet>, Moment, Option<NaiveDate>);
type Secrets = (String, Option<String>, Moment);
/// The values of `columns!`.
pub(super) type Values = (Life, Fields, Secrets);

impl From<Values> for KeyRecord {
    fn from((life, fields, secrets): Values) -> Self {
        let (id, principal_id, state, version, created_at, updated_at, revoked_at, last_used_at) =
            life;
        let (name, email, scopes, allowed, expires_at, api_version) = fields;
        let (secret_prefix, previous, ends) = secrets;
        KeyRecord {
            id,
            principal_id,
            state,
            fields: KeyFields { name, email, scopes, allowed, expires_at, api_version },
            secret_prefix,
            previous: previous.zip(ends),
            version,
            created_at,
            updated_at,
            revoked_at,
            last_used_at,
        }
    }
}

/// The key with this id.
pub fn get(connection: &mut PgConnection, realm: &Realm, key: Uuid) -> Work<Option<KeyRecord>> {
    let found: Option<Values> =
        GetKey { realm: realm.id(), key }.get_result(connection).optional()?;
    Ok(found.map(KeyRecord::from))
}

statement! {
    /// One key.
    struct GetKey {
        realm: i32 as Integer,
        key: Uuid as SqlUuid,
    } -> Row,
    concat!("SELECT ", columns!(), " FROM api_key k WHERE k.realm_id = {realm} AND k.id = {key}")
}

/// What the filter of a list of keys may look at.
pub static KEY: Vocabulary = Vocabulary {
    properties: &[
        Property::new(&["id"], PropertyKind::Text, "k.id::text"),
        Property::new(&["principalId", "principal_id"], PropertyKind::Text, "k.principal_id::text"),
        Property::new(&["name"], PropertyKind::Text, "k.name"),
        Property::nullable(&["email"], PropertyKind::Text, "k.email"),
        Property::new(&["scopes"], PropertyKind::Text, "array_to_string(k.scopes, ' ')"),
        Property::new(&["state"], PropertyKind::Text, concat!("(", state!(), ")"))
            .one_of(KeyState::SPELLINGS),
        Property::new(&["secretPrefix", "secret_prefix"], PropertyKind::Text, "k.secret_prefix"),
        Property::new(&["version"], PropertyKind::Number, "k.version"),
        Property::new(&["createdTime", "created_at"], PropertyKind::Time, "k.created_at"),
        Property::new(&["updatedTime", "updated_at"], PropertyKind::Time, "k.updated_at"),
        Property::nullable(&["expiresTime", "expires_at"], PropertyKind::Time, "k.expires_at"),
        Property::nullable(&["revokedTime", "revoked_at"], PropertyKind::Time, "k.revoked_at"),
        Property::nullable(&["lastUsedTime", "last_used_at"], PropertyKind::Time, "k.last_used_at"),
    ],
};

/// The position of a key in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyPosition {
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// Its id.
    pub id: Uuid,
}

/// The keys of a realm after this position that match the filter, in the order of their creation, or from the last to the first.
pub fn list(
    connection: &mut PgConnection,
    realm: &Realm,
    filter: Option<&Filter>,
    (after, descending): (Option<&KeyPosition>, bool),
    limit: i64,
) -> Work<Vec<KeyRecord>> {
    let (realm, is_first) = (realm.id(), after.is_none());
    let (time, key) = after
        .map_or((DateTime::UNIX_EPOCH, Uuid::nil()), |position| (position.created_at, position.id));
    let predicate = filter.map(Filter::predicate);
    let rows: Vec<Values> = if descending {
        let statement = ListKeysBackwards { realm, is_first, time, key, limit };
        statement.filtered(predicate).load(connection)?
    } else {
        ListKeys { realm, is_first, time, key, limit }.filtered(predicate).load(connection)?
    };
    Ok(rows.into_iter().map(KeyRecord::from).collect())
}

statement! {
    /// A page of keys.
    struct ListKeys {
        realm: i32 as Integer,
        is_first: bool as Bool,
        time: DateTime<Utc> as Timestamptz,
        key: Uuid as SqlUuid,
        limit: i64 as BigInt,
    } -> Row,
    concat!(
        "SELECT ", columns!(), "
         FROM api_key k
         WHERE k.realm_id = {realm} AND ({is_first} OR (k.created_at, k.id) > ({time}, {key})){filter}
         ORDER BY k.created_at, k.id
         LIMIT {limit}"
    )
}

statement! {
    /// A page of keys, from the last to the first.
    struct ListKeysBackwards {
        realm: i32 as Integer,
        is_first: bool as Bool,
        time: DateTime<Utc> as Timestamptz,
        key: Uuid as SqlUuid,
        limit: i64 as BigInt,
    } -> Row,
    concat!(
        "SELECT ", columns!(), "
         FROM api_key k
         WHERE k.realm_id = {realm} AND ({is_first} OR (k.created_at, k.id) < ({time}, {key})){filter}
         ORDER BY k.created_at DESC, k.id DESC
         LIMIT {limit}"
    )
}

#[cfg(test)]
crate::db::checked::filtered!(ListKeys, crate::filter::conditions::conditions(&KEY));
#[cfg(test)]
crate::db::checked::filtered!(ListKeysBackwards, crate::filter::conditions::conditions(&KEY));

/// Removes keys that ended long ago, at most so many, and returns how many. See [`crate::db::sweep`].
pub fn sweep(connection: &mut PgConnection, at_most: i64) -> Work<usize> {
    Ok(SweepKeys { days: ENDED_KEY_DAYS, at_most }.execute(connection)?)
}

statement! {
    /// A batch of keys that ended long ago, in the order of their index: without it, all keys would be read where none is ready.
    struct SweepKeys {
        days: i32 as Integer,
        at_most: i64 as BigInt,
    } -> (),
    "WITH old AS MATERIALIZED (
        SELECT k.realm_id, k.id
        FROM api_key k
        WHERE least(k.revoked_at, k.expires_at) < now() - make_interval(days => {days})
        ORDER BY least(k.revoked_at, k.expires_at)
        LIMIT {at_most}
        FOR UPDATE SKIP LOCKED
     )
     DELETE FROM api_key k
     USING old
     WHERE k.realm_id = old.realm_id AND k.id = old.id"
}
