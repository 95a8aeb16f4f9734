//! The SQL of changing many memberships at once: three statements, whatever the number of entities.
//!
//! The entities are locked by a statement of their own. The next one then sees the present portfolio of each, also one that was made while
//! their locks were waited for.

use std::collections::HashMap;

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, Integer, Nullable, Text, Uuid as SqlUuid};
use uuid::Uuid;

use crate::db::{Realm, Work, statement};
use crate::entity::model::State;

/// An entity with its membership, under a lock.
#[derive(Clone, Debug, diesel::Queryable)]
pub struct Candidate {
    /// Its state.
    pub state: State,
    /// The portfolio it is in.
    pub portfolio_id: Option<String>,
}

/// Locks the existing ones of these entities, in the order of their ids, and reads their portfolios.
pub fn lock(
    connection: &mut PgConnection,
    realm: &Realm,
    entities: &[&str],
) -> Work<HashMap<String, Candidate>> {
    let rows: Vec<(String, Candidate)> =
        LockEntities { realm: realm.id(), entities }.load(connection)?;
    Ok(rows.into_iter().collect())
}

statement! {
    /// Locks entities for a change of their membership.
    pub struct LockEntities<'a> {
        realm: i32 as Integer,
        entities: &'a [&'a str] as Array<Text>,
    } -> (Text, (Text, Nullable<Text>)),
    "SELECT e.id, e.state, e.portfolio_id
     FROM entity e
     WHERE e.realm_id = {realm} AND e.id = ANY({entities}) AND e.deleted_at IS NULL
     ORDER BY e.id
     FOR NO KEY UPDATE"
}

/// Makes these entities members of a portfolio, in this order. They are locked and none is a member yet. Changes nothing if there is no
/// such portfolio.
pub fn attach(
    connection: &mut PgConnection,
    realm: &Realm,
    principal: Uuid,
    portfolio: &str,
    entities: &[&str],
) -> Work<()> {
    AttachMany { realm: realm.id(), principal, portfolio, entities }.execute(connection)?;
    Ok(())
}

statement! {
    /// Sets the links, takes the entities off the portfolios they were in, raises each portfolio's version once and records an event of
    /// each.
    pub struct AttachMany<'a> {
        realm: i32 as Integer,
        principal: Uuid as SqlUuid,
        portfolio: &'a str as Text,
        entities: &'a [&'a str] as Array<Text>,
    } -> (),
    "WITH joining AS MATERIALIZED (
        SELECT i.place, e.id, e.portfolio_id
        FROM unnest({entities}) WITH ORDINALITY AS i(id, place)
        JOIN entity e ON e.realm_id = {realm} AND e.id = i.id COLLATE \"C\"
     ),
     steps AS MATERIALIZED (
        -- What each portfolio gains and loses.
        SELECT {portfolio} COLLATE \"C\" AS id, count(*) AS gain, jsonb_agg(j.id ORDER BY j.place) AS entity_ids
        FROM joining j
        UNION ALL
        SELECT j.portfolio_id, -count(*), jsonb_agg(j.id ORDER BY j.place)
        FROM joining j
        WHERE j.portfolio_id IS NOT NULL
        GROUP BY j.portfolio_id
     ),
     latest AS MATERIALIZED (
        -- The portfolios, locked in the order of their ids, so that opposite moves do not wait for each other. Their numbers are the latest.
        SELECT p.id, p.entity_count, p.version, s.gain, s.entity_ids
        FROM portfolio p
        JOIN steps s ON s.id = p.id
        WHERE p.realm_id = {realm}
        ORDER BY p.id
        FOR NO KEY UPDATE OF p
     ),
     clock AS MATERIALIZED (
        -- Read under the lock of the portfolio, so that the order of attaching is that of the clock.
        SELECT clock_timestamp() AS now FROM latest WHERE latest.id = {portfolio}
     ),
     link AS (
        UPDATE entity e
        SET portfolio_id = {portfolio}, attached_at = clock.now + j.place * interval '1 microsecond', version = e.version + 1,
            updated_at = now()
        FROM joining j, clock
        WHERE e.realm_id = {realm} AND e.id = j.id
     ),
     changed AS (
        UPDATE portfolio p
        SET entity_count = latest.entity_count + latest.gain, version = latest.version + 1, updated_at = now()
        FROM latest, clock
        WHERE p.realm_id = {realm} AND p.id = latest.id
        RETURNING p.id, p.version, latest.entity_ids
     )
     INSERT INTO event (realm_id, type, subjects, principal_id, data)
     SELECT {realm}, CASE WHEN c.id = {portfolio} THEN 'portfolio.entity_attached' ELSE 'portfolio.entity_detached' END, ARRAY[c.id],
            {principal}, jsonb_build_object('entity_ids', c.entity_ids, 'version', c.version)
     FROM changed c
     ORDER BY c.id = {portfolio}, c.id"
}

/// Takes these entities off a portfolio. They are locked and each is a member of it.
pub fn detach(
    connection: &mut PgConnection,
    realm: &Realm,
    principal: Uuid,
    portfolio: &str,
    entities: &[&str],
) -> Work<()> {
    DetachMany { realm: realm.id(), principal, portfolio, entities }.execute(connection)?;
    Ok(())
}

statement! {
    /// Clears the links, raises the portfolio's version once and records the event.
    pub struct DetachMany<'a> {
        realm: i32 as Integer,
        principal: Uuid as SqlUuid,
        portfolio: &'a str as Text,
        entities: &'a [&'a str] as Array<Text>,
    } -> (),
    "WITH link AS (
        UPDATE entity
        SET portfolio_id = NULL, attached_at = NULL, version = version + 1, updated_at = now()
        WHERE realm_id = {realm} AND id = ANY({entities}) AND portfolio_id = {portfolio}
        RETURNING id
     ),
     folio AS (
        UPDATE portfolio p
        SET entity_count = p.entity_count - l.members, version = p.version + 1, updated_at = now()
        FROM (SELECT count(*) AS members FROM link) l
        WHERE p.realm_id = {realm} AND p.id = {portfolio} AND l.members > 0
        RETURNING p.id, p.version
     )
     INSERT INTO event (realm_id, type, subjects, principal_id, data)
     SELECT {realm}, 'portfolio.entity_detached', ARRAY[f.id], {principal},
            jsonb_build_object('entity_ids', to_jsonb({entities}::text[]), 'version', f.version)
     FROM folio f"
}
