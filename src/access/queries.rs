//! The SQL of realms and keys.

use chrono::{DateTime, NaiveDate, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, Integer, Text, Timestamptz, Uuid as SqlUuid};
use ipnet::IpNet;
use uuid::Uuid;

use crate::access::ApiVersion;
use crate::access::addresses::AllowList;
use crate::access::key::{Caller, Key};
use crate::access::refusal::address_not_allowed;
use crate::access::scope::Scope;
use crate::access::secret::{Secret, SecretHash};
use crate::access::uses::Use;
use crate::db::schema::{access_policy, api_key, realm};
use crate::db::{Mode, Realm, Work, id, listen, lock_realm, statement};
use crate::error::Error;

/// The topic that wakes when a key is changed.
pub const KEYS_TOPIC: &str = "keys";

/// A key to be made.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// The organisation. Its realm is made if it is new.
    pub org: String,
    /// Its mode.
    pub mode: Mode,
    /// A name for people.
    pub name: String,
    /// Where its owner gets mail.
    pub email: Option<String>,
    /// Its scopes.
    pub scopes: Vec<Scope>,
    /// Where it may be used from; anywhere if empty.
    pub allowed: Vec<IpNet>,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A key as lists show it.
#[derive(Clone, Debug)]
pub struct KeySummary {
    /// The key's id.
    pub id: Uuid,
    /// The organisation.
    pub org: String,
    /// Its mode.
    pub mode: Mode,
    /// Its name for people.
    pub name: String,
    /// The start of its secret.
    pub secret_prefix: String,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// Where it may be used from; anywhere if empty.
    pub allowed: Vec<IpNet>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// Makes a key, and its realm where it is the first, and returns the key's id.
pub fn create_key(connection: &mut PgConnection, new: &NewKey, secret: &Secret) -> Work<Uuid> {
    connection.transaction(|connection| {
        let realm_id = make_realm(connection, &new.org, new.mode)?.id();
        let key_id = id::new_id();
        diesel::insert_into(api_key::table)
            .values((
                api_key::id.eq(key_id),
                api_key::realm_id.eq(realm_id),
                api_key::principal_id.eq(id::new_id()),
                api_key::name.eq(&new.name),
                api_key::email.eq(&new.email),
                api_key::secret_sha256.eq(secret.hash().as_bytes()),
                api_key::secret_prefix.eq(secret.prefix()),
                api_key::scopes.eq(new
                    .scopes
                    .iter()
                    .map(|scope| scope.as_str())
                    .collect::<Vec<_>>()),
                api_key::allowed.eq(&new.allowed),
                api_key::api_version.eq(ApiVersion::latest().day()),
                api_key::expires_at.eq(new.expires_at),
            ))
            .execute(connection)?;
        Ok(key_id)
    })
}

/// The realm of an organisation and a mode, which is made if it is new.
pub fn make_realm(connection: &mut PgConnection, org: &str, mode: Mode) -> Work<Realm> {
    diesel::insert_into(realm::table)
        .values((realm::org.eq(org), realm::mode.eq(mode)))
        .on_conflict_do_nothing()
        .execute(connection)?;
    let found = find_realm(connection, org, mode)?;
    Ok(found.ok_or_else(|| Error::internal("a realm that was made is there"))?)
}

/// The realm of an organisation in one mode, for a genuine token or whoever operates the service.
pub fn find_realm(connection: &mut PgConnection, org: &str, mode: Mode) -> Work<Option<Realm>> {
    Ok(find_realm_allowing(connection, org, mode)?.map(|(realm, _)| realm))
}

/// The same with the networks that its callers may come from.
pub fn find_realm_allowing(
    connection: &mut PgConnection,
    org: &str,
    mode: Mode,
) -> Work<Option<(Realm, AllowList)>> {
    let row: Option<(i32, Option<Vec<IpNet>>)> = realm::table
        .left_join(access_policy::table.on(access_policy::realm_id.eq(realm::id)))
        .filter(realm::org.eq(org).and(realm::mode.eq(mode)))
        .select((realm::id, access_policy::allowed.nullable()))
        .first(connection)
        .optional()?;
    Ok(row.map(|(id, allowed)| {
        (Realm::from_row(id, org.to_owned(), mode), AllowList::new(allowed.unwrap_or_default()))
    }))
}

/// The networks that callers of these realms may come from; nothing for those from anywhere.
pub fn realms_allowing(
    connection: &mut PgConnection,
    realm_ids: &[i32],
) -> Work<Vec<(i32, AllowList)>> {
    let rows: Vec<(i32, Vec<IpNet>)> = access_policy::table
        .filter(access_policy::realm_id.eq_any(realm_ids))
        .select((access_policy::realm_id, access_policy::allowed))
        .load(connection)?;
    Ok(rows.into_iter().map(|(id, allowed)| (id, AllowList::new(allowed))).collect())
}

/// Fails unless the caller's realm lets callers in from where this one is.
pub fn check_realm_admits(connection: &mut PgConnection, caller: &Caller) -> Work<()> {
    let lists = realms_allowing(connection, &[caller.realm.id()])?;
    if lists.iter().any(|(_, list)| !list.admits(caller.presented.address)) {
        return Err(address_not_allowed().into());
    }
    Ok(())
}

type Moment = Option<DateTime<Utc>>;
type Owner = (Uuid, i32, String, Mode, Uuid);
type Secrets = (Vec<u8>, Option<Vec<u8>>, Moment);
type Addresses = (Vec<IpNet>, Option<Vec<IpNet>>);
type KeyRow = (Owner, Secrets, Vec<String>, Addresses, Option<NaiveDate>, Moment, Moment);

/// Selects keys with their realms and what these allow.
macro_rules! keys {
    () => {
        api_key::table
            .inner_join(realm::table.on(realm::id.eq(api_key::realm_id)))
            .left_join(access_policy::table.on(access_policy::realm_id.eq(api_key::realm_id)))
            .select((
                (api_key::id, realm::id, realm::org, realm::mode, api_key::principal_id),
                (api_key::secret_sha256, api_key::previous_sha256, api_key::previous_expires_at),
                api_key::scopes,
                (api_key::allowed, access_policy::allowed.nullable()),
                api_key::api_version,
                api_key::expires_at,
                api_key::revoked_at,
            ))
    };
}

/// Returns whether an organisation has a realm.
pub fn has_org(connection: &mut PgConnection, org: &str) -> Work<bool> {
    Ok(diesel::select(diesel::dsl::exists(realm::table.filter(realm::org.eq(org))))
        .get_result(connection)?)
}

/// The names of organisations, in their order, and at most so many.
pub fn list_orgs(connection: &mut PgConnection, at_most: i64) -> Work<Vec<String>> {
    Ok(realm::table
        .select(realm::org)
        .distinct()
        .order(realm::org)
        .limit(at_most)
        .load(connection)?)
}

/// Finds the key with this secret, or with this one before its last rotation, also one that has ended.
pub fn find_key(connection: &mut PgConnection, secret: SecretHash) -> Work<Option<Key>> {
    let hash = secret.as_bytes();
    let row: Option<KeyRow> = keys!()
        .filter(api_key::secret_sha256.eq(hash).or(api_key::previous_sha256.eq(hash)))
        .first(connection)
        .optional()?;
    Ok(row.map(to_key).transpose()?)
}

/// The keys with these ids, as far as there are any: those that callers have shown secrets of.
pub fn find_keys(connection: &mut PgConnection, ids: &[Uuid]) -> Work<Vec<Key>> {
    let rows: Vec<KeyRow> = keys!().filter(api_key::id.eq_any(ids)).load(connection)?;
    Ok(rows.into_iter().map(to_key).collect::<Result<_, Error>>()?)
}

/// The key with this id, also an ended one.
pub fn get_key(connection: &mut PgConnection, realm: &Realm, key_id: Uuid) -> Work<Option<Key>> {
    let row: Option<KeyRow> = keys!()
        .filter(api_key::realm_id.eq(realm.id()).and(api_key::id.eq(key_id)))
        .first(connection)
        .optional()?;
    Ok(row.map(to_key).transpose()?)
}

fn to_key(
    (owner, secrets, scopes, allowed, api_version, expires_at, revoked_at): KeyRow,
) -> Result<Key, Error> {
    let (id, realm_id, org, mode, principal_id) = owner;
    let (secret, previous, ends) = secrets;
    let (allowed, realm_allowed) = allowed;
    let hash = |bytes: Vec<u8>| {
        SecretHash::of_bytes(&bytes).ok_or_else(|| Error::internal("a hash has 32 bytes"))
    };
    Ok(Key {
        id,
        realm: Realm::from_row(realm_id, org, mode),
        principal_id,
        secret: hash(secret)?,
        previous: previous.map(hash).transpose()?.zip(ends),
        // A scope that this binary does not know grants nothing.
        scopes: scopes.iter().filter_map(|scope| Scope::parse(scope)).collect(),
        allowed: AllowList::new(allowed),
        realm_allowed: AllowList::new(realm_allowed.unwrap_or_default()),
        api_version: ApiVersion::pinned(api_version),
        expires_at,
        revoked_at,
    })
}

/// Writes when keys were last used, and returns the keys of which that is written now. One that is being changed is passed over.
pub fn note_uses(connection: &mut PgConnection, uses: &[Use]) -> Work<Vec<Uuid>> {
    let statement = NoteUses {
        realms: uses.iter().map(|noted| noted.realm_id).collect(),
        keys: uses.iter().map(|noted| noted.key_id).collect(),
        minutes: uses.iter().map(|noted| noted.minute).collect(),
    };
    let written: Vec<(Uuid,)> = statement.load(connection)?;
    Ok(written.into_iter().map(|(key,)| key).collect())
}

statement! {
    /// The last use of keys, where it is later than what is there.
    struct NoteUses {
        realms: Vec<i32> as Array<Integer>,
        keys: Vec<Uuid> as Array<SqlUuid>,
        minutes: Vec<DateTime<Utc>> as Array<Timestamptz>,
    } -> (SqlUuid,),
    "WITH locked AS MATERIALIZED (
        -- In one order, and past those that others lock.
        SELECT k.id, u.minute, k.last_used_at
        FROM unnest({realms}, {keys}, {minutes}) AS u(realm_id, id, minute)
        JOIN api_key k ON k.realm_id = u.realm_id AND k.id = u.id
        ORDER BY k.id
        FOR NO KEY UPDATE OF k SKIP LOCKED
     ),
     noted AS (
        UPDATE api_key k
        SET last_used_at = l.minute
        FROM locked l
        WHERE k.id = l.id AND (l.last_used_at IS NULL OR l.last_used_at < l.minute)
     )
     SELECT l.id FROM locked l"
}

/// The keys of an organisation, or all, oldest first.
pub fn list_keys(connection: &mut PgConnection, org: Option<&str>) -> Work<Vec<KeySummary>> {
    let mut query = api_key::table
        .inner_join(realm::table.on(realm::id.eq(api_key::realm_id)))
        .select((
            api_key::id,
            realm::org,
            realm::mode,
            api_key::name,
            api_key::secret_prefix,
            (api_key::scopes, api_key::allowed),
            api_key::created_at,
            api_key::expires_at,
            api_key::revoked_at,
            api_key::last_used_at,
        ))
        .order(api_key::created_at)
        .into_boxed();
    if let Some(org) = org {
        query = query.filter(realm::org.eq(org.to_owned()));
    }
    type Row = (
        Uuid,
        String,
        Mode,
        String,
        String,
        (Vec<String>, Vec<IpNet>),
        DateTime<Utc>,
        Option<DateTime<Utc>>,
        Option<DateTime<Utc>>,
        Option<DateTime<Utc>>,
    );
    let rows: Vec<Row> = query.load(connection)?;
    let summary = |row: Row| {
        let (id, org, mode, name, secret_prefix, rights, created_at, expires_at, revoked_at, used) =
            row;
        let (scopes, allowed) = rights;
        KeySummary {
            id,
            org,
            mode,
            name,
            secret_prefix,
            scopes,
            allowed,
            created_at,
            expires_at,
            revoked_at,
            last_used_at: used,
        }
    };
    Ok(rows.into_iter().map(summary).collect())
}

/// Revokes a key and notifies every replica. False if there is none, or it was revoked before.
pub fn revoke_key(connection: &mut PgConnection, key_id: Uuid) -> Work<bool> {
    connection.transaction(|connection| {
        let realm: Option<(i32, String, Mode)> = realm::table
            .inner_join(api_key::table.on(realm::id.eq(api_key::realm_id)))
            .filter(api_key::id.eq(key_id))
            .select((realm::id, realm::org, realm::mode))
            .first(connection)
            .optional()?;
        let Some((id, org, mode)) = realm else { return Ok(false) };
        // As every change of keys does: none is made by a key that is being revoked.
        lock_realm(connection, &Realm::from_row(id, org, mode))?;
        let revoked = diesel::update(
            api_key::table.filter(api_key::id.eq(key_id).and(api_key::revoked_at.is_null())),
        )
        .set((
            api_key::revoked_at.eq(diesel::dsl::now),
            api_key::updated_at.eq(diesel::dsl::now),
            api_key::version.eq(api_key::version + 1),
        ))
        .execute(connection)?;
        wake(connection)?;
        Ok(revoked == 1)
    })
}

/// Has every replica read its keys again, once the transaction is committed.
pub(super) fn wake(connection: &mut PgConnection) -> Work<()> {
    WakeForKeys { channel: listen::CHANNEL, topic: KEYS_TOPIC }.execute(connection)?;
    Ok(())
}

statement! {
    /// Makes every replica look up its keys again.
    struct WakeForKeys<'a> {
        channel: &'a str as Text,
        topic: &'a str as Text,
    } -> (),
    "SELECT FROM (SELECT pg_notify({channel}, {topic})) woken"
}
