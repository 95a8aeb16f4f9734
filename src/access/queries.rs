//! The SQL of realms and keys.

use chrono::{DateTime, NaiveDate, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::Text;
use ipnet::IpNet;
use uuid::Uuid;

use crate::access::ApiVersion;
use crate::access::key::{Key, Scope, Secret};
use crate::db::schema::{api_key, realm};
use crate::db::{Mode, Realm, Work, id, listen, statement};

/// The topic that wakes when a key is revoked.
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
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// Makes a key, and its realm where it is the first, and returns the key's id.
pub fn create_key(connection: &mut PgConnection, new: &NewKey, secret: &Secret) -> Work<Uuid> {
    connection.transaction(|connection| {
        diesel::insert_into(realm::table)
            .values((realm::org.eq(&new.org), realm::mode.eq(new.mode)))
            .on_conflict_do_nothing()
            .execute(connection)?;
        let realm_id: i32 = realm::table
            .filter(realm::org.eq(&new.org).and(realm::mode.eq(new.mode)))
            .select(realm::id)
            .first(connection)?;
        let key_id = id::new_id();
        diesel::insert_into(api_key::table)
            .values((
                api_key::id.eq(key_id),
                api_key::realm_id.eq(realm_id),
                api_key::principal_id.eq(id::new_id()),
                api_key::name.eq(&new.name),
                api_key::email.eq(&new.email),
                api_key::secret_sha256.eq(secret.sha256().as_slice()),
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

type Moment = Option<DateTime<Utc>>;
type KeyRow =
    (Uuid, i32, String, Mode, Uuid, Vec<String>, Vec<IpNet>, Option<NaiveDate>, Moment, Moment);

/// Selects keys with their realms.
macro_rules! keys {
    () => {
        api_key::table.inner_join(realm::table.on(realm::id.eq(api_key::realm_id))).select((
            api_key::id,
            realm::id,
            realm::org,
            realm::mode,
            api_key::principal_id,
            api_key::scopes,
            api_key::allowed,
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

/// Finds the key with this hash of its secret, also an ended one.
pub fn find_key(connection: &mut PgConnection, secret_sha256: &[u8]) -> Work<Option<Key>> {
    let row: Option<KeyRow> =
        keys!().filter(api_key::secret_sha256.eq(secret_sha256)).first(connection).optional()?;
    Ok(row.map(to_key))
}

/// The key with this id, also an ended one.
pub fn get_key(connection: &mut PgConnection, realm: &Realm, key_id: Uuid) -> Work<Option<Key>> {
    let row: Option<KeyRow> = keys!()
        .filter(api_key::realm_id.eq(realm.id()).and(api_key::id.eq(key_id)))
        .first(connection)
        .optional()?;
    Ok(row.map(to_key))
}

fn to_key(
    (id, realm_id, org, mode, principal_id, scopes, allowed, api_version, expires_at, revoked_at): KeyRow,
) -> Key {
    Key {
        id,
        realm: Realm::from_row(realm_id, org, mode),
        principal_id,
        // A scope that this binary does not know grants nothing.
        scopes: scopes.iter().filter_map(|scope| Scope::parse(scope)).collect(),
        allowed,
        api_version: ApiVersion::pinned(api_version),
        expires_at,
        revoked_at,
    }
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
            api_key::scopes,
            api_key::created_at,
            api_key::expires_at,
            api_key::revoked_at,
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
        Vec<String>,
        DateTime<Utc>,
        Option<DateTime<Utc>>,
        Option<DateTime<Utc>>,
    );
    let rows: Vec<Row> = query.load(connection)?;
    let summary =
        |(id, org, mode, name, secret_prefix, scopes, created_at, expires_at, revoked_at): Row| {
            KeySummary {
                id,
                org,
                mode,
                name,
                secret_prefix,
                scopes,
                created_at,
                expires_at,
                revoked_at,
            }
        };
    Ok(rows.into_iter().map(summary).collect())
}

/// Revokes a key and notifies every replica. False if there is none, or it was revoked before.
pub fn revoke_key(connection: &mut PgConnection, key_id: Uuid) -> Work<bool> {
    connection.transaction(|connection| {
        let revoked = diesel::update(
            api_key::table.filter(api_key::id.eq(key_id).and(api_key::revoked_at.is_null())),
        )
        .set(api_key::revoked_at.eq(diesel::dsl::now))
        .execute(connection)?;
        WakeForKeys { channel: listen::CHANNEL, topic: KEYS_TOPIC }.execute(connection)?;
        Ok(revoked == 1)
    })
}

statement! {
    /// Makes every replica look up its keys again.
    struct WakeForKeys<'a> {
        channel: &'a str as Text,
        topic: &'a str as Text,
    } -> (),
    "SELECT FROM (SELECT pg_notify({channel}, {topic})) woken"
}
