//! The SQL of access policies.

use chrono::{DateTime, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Cidr, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use ipnet::IpNet;
use uuid::Uuid;

use crate::access::addresses::AllowList;
use crate::access::keys::change_queries::lock;
use crate::access::keys::policy::{AccessPolicy, PolicyChange};
use crate::access::queries::{find_realm, wake};
use crate::access::{Caller, Scope};
use crate::db::{Mode, Realm, Work, lock_realm, statement};

type PolicyRow = (Array<Cidr>, BigInt, Timestamptz);
type PolicyValues = (Vec<IpNet>, i64, DateTime<Utc>);

impl From<PolicyValues> for AccessPolicy {
    fn from((allowed, version, updated_at): PolicyValues) -> Self {
        AccessPolicy { allowed, version, updated_at: Some(updated_at) }
    }
}

/// The policy of the realm.
pub fn get(connection: &mut PgConnection, realm: &Realm) -> Work<AccessPolicy> {
    let found: Option<PolicyValues> =
        ReadPolicy { realm: realm.id() }.get_result(connection).optional()?;
    Ok(found.map(AccessPolicy::from).unwrap_or_default())
}

statement! {
    /// The access policy of a realm.
    struct ReadPolicy { realm: i32 as Integer } -> PolicyRow,
    "SELECT allowed, version, updated_at FROM access_policy WHERE realm_id = {realm}"
}

/// Changes the policy of the caller's realm, and records it; call it in a transaction. Where the list is the one that it was, nothing is
/// written.
pub fn update(
    connection: &mut PgConnection,
    caller: &Caller,
    change: &PolicyChange,
) -> Work<AccessPolicy> {
    let caller = lock(connection, caller, Scope::Admin)?;
    let was = get(connection, &caller.realm)?;
    was.expect(change.expected_version)?;
    if was.allowed == change.allowed {
        return Ok(was);
    }
    if !change.allow_lockout {
        AllowList::new(change.allowed.iter().copied()).check_admits(caller.presented.address)?;
    }
    put(connection, &caller.realm, Some(caller.principal_id), &change.allowed)
}

/// The realm of an organisation and its policy; first, the list becomes this one, where one is given. None if there is no such realm. For whoever
/// operates the service: it writes no event.
pub fn in_realm(
    connection: &mut PgConnection,
    (org, mode): (&str, Mode),
    allowed: Option<&[IpNet]>,
) -> Work<Option<(Realm, AccessPolicy)>> {
    connection.transaction(|connection| {
        let Some(realm) = find_realm(connection, org, mode)? else { return Ok(None) };
        let Some(allowed) = allowed else {
            let policy = get(connection, &realm)?;
            return Ok(Some((realm, policy)));
        };
        lock_realm(connection, &realm)?;
        let was = get(connection, &realm)?;
        let mut allowed = allowed.to_vec();
        allowed.sort_unstable();
        allowed.dedup();
        let policy =
            if was.allowed == allowed { was } else { put(connection, &realm, None, &allowed)? };
        Ok(Some((realm, policy)))
    })
}

/// Stores the list of a realm, with its event where a principal has changed it, and wakes every replica.
fn put(
    connection: &mut PgConnection,
    realm: &Realm,
    principal: Option<Uuid>,
    allowed: &[IpNet],
) -> Work<AccessPolicy> {
    let statement = PutPolicy { realm: realm.id(), org: realm.org(), principal, allowed };
    let stored: PolicyValues = statement.get_result(connection)?;
    wake(connection)?;
    Ok(stored.into())
}

statement! {
    /// The list and its event. The first change is to version 2: a policy without a row is at version 1.
    struct PutPolicy<'a> {
        realm: i32 as Integer,
        org: &'a str as Text,
        principal: Option<Uuid> as Nullable<SqlUuid>,
        allowed: &'a [IpNet] as Array<Cidr>,
    } -> PolicyRow,
    "WITH changed AS (
        INSERT INTO access_policy (realm_id, allowed, version, updated_by)
        VALUES ({realm}, {allowed}, 2, {principal})
        ON CONFLICT (realm_id) DO UPDATE
        SET allowed = excluded.allowed, version = access_policy.version + 1, updated_at = now(), updated_by = excluded.updated_by
        RETURNING allowed, version, updated_at
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, 'access_policy.updated', ARRAY[{org}], {principal}, jsonb_build_object('fields', ARRAY['allowed'], 'version', c.version)
        FROM changed c
        WHERE {principal} IS NOT NULL
     )
     SELECT c.allowed, c.version, c.updated_at FROM changed c"
}
