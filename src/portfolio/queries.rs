//! The SQL of one portfolio and one membership. Each operation is one statement: the change, the portfolio's new version and the event
//! commit together.
//!
//! Locks are taken on entities first and on portfolios second, each in the order of their ids, everywhere.
//!
//! Members are read from the index `entity_portfolio` alone: soft-deleted entities have no link.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{
    BigInt, Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use uuid::Uuid;

use crate::db::{Realm, Work, statement};
use crate::entity::model::State;
use crate::portfolio::model::{NewPortfolio, Portfolio, View};
use crate::proto::object::Struct;

/// The columns of a [`Portfolio`].
pub(super) type PortfolioRow =
    (Text, Text, Nullable<Text>, Bool, Jsonb, BigInt, BigInt, Timestamptz, Timestamptz, Text);

/// The portfolio with this id.
pub fn get(
    connection: &mut PgConnection,
    realm: &Realm,
    id: &str,
    view: View,
) -> Work<Option<Portfolio>> {
    Ok(GetPortfolio { realm: realm.id(), id, shown: view.shown() }
        .get_result(connection)
        .optional()?)
}

statement! {
    /// One portfolio and its first members.
    pub struct GetPortfolio<'a> {
        realm: i32 as Integer,
        id: &'a str as Text,
        shown: i64 as BigInt,
    } -> PortfolioRow,
    "SELECT p.id, p.name, p.shared_registered_agent_id, p.shared_compliance_calendar, p.metadata, p.entity_count, p.version,
            p.created_at, p.updated_at,
            (SELECT coalesce(string_agg(m.id, ' '), '')
             FROM (SELECT e.id
                   FROM entity e
                   WHERE e.realm_id = {realm} AND e.portfolio_id = {id}
                   ORDER BY e.attached_at, e.id
                   LIMIT {shown}) m)
     FROM portfolio p
     WHERE p.realm_id = {realm} AND p.id = {id}"
}

/// Creates a portfolio. None if its id is taken.
pub fn create(
    connection: &mut PgConnection,
    realm: &Realm,
    principal: Uuid,
    new: &NewPortfolio,
) -> Work<Option<Portfolio>> {
    let statement = CreatePortfolio {
        realm: realm.id(),
        principal,
        id: &new.id,
        name: &new.name,
        agent: new.shared_registered_agent_id.as_deref(),
        calendar: new.shared_compliance_calendar,
        metadata: &new.metadata,
    };
    Ok(statement.get_result(connection).optional()?)
}

statement! {
    /// A new portfolio and its event.
    struct CreatePortfolio<'a> {
        realm: i32 as Integer,
        principal: Uuid as SqlUuid,
        id: &'a str as Text,
        name: &'a str as Text,
        agent: Option<&'a str> as Nullable<Text>,
        calendar: bool as Bool,
        metadata: &'a Struct as Jsonb,
    } -> PortfolioRow,
    "WITH fresh AS (
        INSERT INTO portfolio (realm_id, id, name, shared_registered_agent_id, shared_compliance_calendar, metadata)
        VALUES ({realm}, {id}, {name}, {agent}, {calendar}, {metadata})
        ON CONFLICT (realm_id, id) DO NOTHING
        RETURNING *
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, 'portfolio.created', ARRAY[f.id], {principal}, jsonb_build_object('version', f.version)
        FROM fresh f
     )
     SELECT f.id, f.name, f.shared_registered_agent_id, f.shared_compliance_calendar, f.metadata, f.entity_count, f.version,
            f.created_at, f.updated_at, ''
     FROM fresh f"
}

/// A portfolio that a statement has changed, and whether its members are those of the version that it made.
///
/// A statement reads the members as they were when it began. If another transaction changed the same portfolio meanwhile, this one waited
/// for it and continues from the version that it left, but its members are older.
pub(super) type Changed = (Portfolio, bool);

/// The portfolio, with its members read anew if they are older than the rest.
pub(super) fn settle(
    connection: &mut PgConnection,
    realm: &Realm,
    view: View,
    (portfolio, settled): Changed,
) -> Work<Portfolio> {
    if settled || view == View::Basic {
        return Ok(portfolio);
    }
    // It may have been deleted in between; then this is the last that was known of it.
    Ok(get(connection, realm, &portfolio.id, view)?.unwrap_or(portfolio))
}

/// A change of one membership.
#[derive(Clone, Debug)]
pub struct Change {
    /// The realm.
    pub realm: Realm,
    /// The principal who changes it.
    pub principal: Uuid,
    /// The portfolio.
    pub portfolio: String,
    /// The entity.
    pub entity: String,
    /// How much of the portfolio to show.
    pub view: View,
}

/// Detaches an entity from a portfolio and returns the portfolio. None if it is not a member: [`membership`] says why.
pub fn detach(connection: &mut PgConnection, change: &Change) -> Work<Option<Portfolio>> {
    let Change { realm, principal, portfolio, entity, view } = change;
    let statement =
        Detach { realm: realm.id(), principal: *principal, portfolio, entity, shown: view.shown() };
    let changed: Option<Changed> = statement.get_result(connection).optional()?;
    changed.map(|changed| settle(connection, realm, *view, changed)).transpose()
}

statement! {
    /// Clears the link, raises both versions and records the event.
    pub struct Detach<'a> {
        realm: i32 as Integer,
        principal: Uuid as SqlUuid,
        portfolio: &'a str as Text,
        entity: &'a str as Text,
        shown: i64 as BigInt,
    } -> (PortfolioRow, Bool),
    "WITH link AS (
        UPDATE entity
        SET portfolio_id = NULL, attached_at = NULL, version = version + 1, updated_at = now()
        WHERE realm_id = {realm} AND id = {entity} AND portfolio_id = {portfolio} AND deleted_at IS NULL
        RETURNING version
     ),
     folio AS (
        UPDATE portfolio p
        SET entity_count = p.entity_count - 1, version = p.version + 1, updated_at = now()
        FROM link
        WHERE p.realm_id = {realm} AND p.id = {portfolio}
        RETURNING p.*
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, 'portfolio.entity_detached', ARRAY[f.id], {principal},
               jsonb_build_object('entity_ids', jsonb_build_array({entity}), 'version', f.version)
        FROM folio f
     )
     SELECT f.id, f.name, f.shared_registered_agent_id, f.shared_compliance_calendar, f.metadata, f.entity_count, f.version,
            f.created_at, f.updated_at,
            -- The statement still sees the entity as a member.
            (SELECT coalesce(string_agg(m.id, ' '), '')
             FROM (SELECT e.id
                   FROM entity e
                   WHERE e.realm_id = {realm} AND e.portfolio_id = {portfolio} AND e.id <> {entity}
                   ORDER BY e.attached_at, e.id
                   LIMIT {shown}) m),
            (SELECT p.version + 1 = f.version FROM portfolio p WHERE p.realm_id = {realm} AND p.id = {portfolio})
     FROM folio f"
}

/// Makes an entity a member and returns the portfolio. None if it is one already, or cannot become one: [`membership`] says why.
pub fn attach(connection: &mut PgConnection, change: &Change) -> Work<Option<Portfolio>> {
    let Change { realm, principal, portfolio, entity, view } = change;
    let statement =
        Attach { realm: realm.id(), principal: *principal, portfolio, entity, shown: view.shown() };
    let changed: Option<Changed> = statement.get_result(connection).optional()?;
    changed.map(|changed| settle(connection, realm, *view, changed)).transpose()
}

statement! {
    /// Sets the link, takes the entity off the portfolio it was in, raises the versions and records the event.
    pub struct Attach<'a> {
        realm: i32 as Integer,
        principal: Uuid as SqlUuid,
        portfolio: &'a str as Text,
        entity: &'a str as Text,
        shown: i64 as BigInt,
    } -> (PortfolioRow, Bool),
    "WITH was AS (
        -- The entity is locked, so that it does not go before the link is made; portfolio_id is the latest.
        SELECT e.portfolio_id
        FROM entity e
        WHERE e.realm_id = {realm} AND e.id = {entity} AND e.deleted_at IS NULL AND e.state <> 'offboarding'
          AND e.portfolio_id IS DISTINCT FROM {portfolio}
        FOR NO KEY UPDATE
     ),
     latest AS (
        -- The two portfolios, locked in the order of their ids, so that opposite moves do not wait for each other. Their numbers are the
        -- latest: the statement may see an older row, from before the entity joined the portfolio that it leaves.
        SELECT p.id, p.entity_count, p.version
        FROM portfolio p, was
        WHERE p.realm_id = {realm} AND p.id IN ({portfolio}, was.portfolio_id)
        ORDER BY p.id
        FOR NO KEY UPDATE OF p
     ),
     link AS (
        UPDATE entity e
        SET portfolio_id = {portfolio}, attached_at = clock_timestamp(), version = e.version + 1, updated_at = now()
        FROM latest, was
        WHERE e.realm_id = {realm} AND e.id = {entity} AND latest.id = {portfolio}
          -- A portfolio that is newer than this statement is not seen, and so would go on counting a member that has left it.
          AND (was.portfolio_id IS NULL OR EXISTS (SELECT FROM latest l WHERE l.id = was.portfolio_id))
        RETURNING e.id
     ),
     changed AS (
        UPDATE portfolio p
        SET entity_count = latest.entity_count + CASE WHEN p.id = {portfolio} THEN 1 ELSE -1 END,
            version = latest.version + 1, updated_at = now()
        FROM latest, link
        WHERE p.realm_id = {realm} AND p.id = latest.id
        RETURNING p.*
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, CASE WHEN c.id = {portfolio} THEN 'portfolio.entity_attached' ELSE 'portfolio.entity_detached' END, ARRAY[c.id],
               {principal}, jsonb_build_object('entity_ids', jsonb_build_array({entity}), 'version', c.version)
        FROM changed c
        ORDER BY c.id = {portfolio}
     )
     SELECT f.id, f.name, f.shared_registered_agent_id, f.shared_compliance_calendar, f.metadata, f.entity_count, f.version,
            f.created_at, f.updated_at,
            -- The statement does not see the entity as a member yet: it is the last.
            (SELECT coalesce(string_agg(m.id, ' '), '')
             FROM (SELECT id FROM (SELECT e.id
                                   FROM entity e
                                   WHERE e.realm_id = {realm} AND e.portfolio_id = {portfolio}
                                   ORDER BY e.attached_at, e.id
                                   LIMIT {shown}) before
                   UNION ALL
                   SELECT {entity}
                   LIMIT {shown}) m),
            (SELECT p.version + 1 = f.version FROM portfolio p WHERE p.realm_id = {realm} AND p.id = {portfolio})
     FROM changed f
     WHERE f.id = {portfolio}"
}

/// How an entity and a portfolio stand to each other.
#[derive(Debug, diesel::Queryable)]
pub struct Membership {
    /// True if the portfolio is there.
    pub portfolio_exists: bool,
    /// True if the entity is there.
    pub entity_exists: bool,
    /// The portfolio that the entity is in.
    pub current_portfolio_id: Option<String>,
    /// The state of the entity.
    pub state: Option<State>,
}

/// Reads how an entity and a portfolio stand to each other, at the same cost whatever is there.
pub fn membership(
    connection: &mut PgConnection,
    realm: &Realm,
    portfolio: &str,
    entity: &str,
) -> Work<Membership> {
    Ok(ReadMembership { realm: realm.id(), portfolio, entity }.get_result(connection)?)
}

statement! {
    /// True if a portfolio and an entity are there, and where the entity is.
    struct ReadMembership<'a> {
        realm: i32 as Integer,
        portfolio: &'a str as Text,
        entity: &'a str as Text,
    } -> (Bool, Bool, Nullable<Text>, Nullable<Text>),
    "SELECT p.id IS NOT NULL, e.id IS NOT NULL, e.portfolio_id, e.state
     FROM (SELECT) one
     LEFT JOIN portfolio p ON p.realm_id = {realm} AND p.id = {portfolio}
     LEFT JOIN entity e ON e.realm_id = {realm} AND e.id = {entity} AND e.deleted_at IS NULL"
}
