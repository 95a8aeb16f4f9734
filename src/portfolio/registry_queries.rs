//! The SQL of portfolios themselves: pages of them, their own fields, and their end.

use diesel::pg::{PgConnection, PgRowByRowLoadingMode};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Integer, Jsonb, Nullable, Text, Uuid as SqlUuid};
use uuid::Uuid;

use crate::db::statement::Statement;
use crate::db::{Realm, Work, statement};
use crate::filter::{Filter, Property, PropertyKind, Vocabulary};
use crate::portfolio::model::{Portfolio, PortfolioUpdate, View};
use crate::portfolio::queries::{Changed, PortfolioRow, settle};
use crate::proto::object::Struct;

/// How many members the portfolios of a page show together, without the last of them.
const PAGE_MEMBERS: i64 = 20_000;

/// The bytes after which a page ends.
const PAGE_BYTES: usize = 2 << 20;

/// The properties in the filter of a list of portfolios.
pub static PORTFOLIO: Vocabulary = Vocabulary {
    properties: &[
        Property::new(&["id"], PropertyKind::Text, "f.id"),
        Property::new(&["name"], PropertyKind::Text, "f.name"),
        Property::nullable(
            &["sharedRegisteredAgentId", "shared_registered_agent_id"],
            PropertyKind::Text,
            "f.shared_registered_agent_id",
        ),
        Property::new(
            &["sharedComplianceCalendar", "shared_compliance_calendar"],
            PropertyKind::Text,
            "CASE WHEN f.shared_compliance_calendar THEN 'true' ELSE 'false' END",
        )
        .one_of(&["true", "false"]),
        Property::new(&["entityCount", "entity_count"], PropertyKind::Number, "f.entity_count"),
        Property::new(&["version"], PropertyKind::Number, "f.version"),
        Property::new(&["createdTime", "created_at"], PropertyKind::Time, "f.created_at"),
        Property::new(&["updatedTime", "updated_at"], PropertyKind::Time, "f.updated_at"),
        Property::new(&["metadata"], PropertyKind::Json, "f.metadata"),
    ],
};

/// The portfolios after this id that match the filter, as far as they have room on one page, and whether any of them had none.
pub fn list(
    connection: &mut PgConnection,
    realm: &Realm,
    filter: Option<&Filter>,
    after: &str,
    limit: i64,
    view: View,
) -> Work<(Vec<Portfolio>, bool)> {
    let statement =
        ListPortfolios { realm: realm.id(), after, limit, shown: view.shown(), room: PAGE_MEMBERS };
    let statement = statement.filtered(filter.map(Filter::predicate));
    let rows = statement.load_iter::<(Portfolio, bool), PgRowByRowLoadingMode>(connection)?;
    let (mut page, mut bytes) = (Vec::new(), 0);
    for row in rows {
        if bytes >= PAGE_BYTES {
            return Ok((page, true));
        }
        let (portfolio, fits) = row?;
        if !fits {
            return Ok((page, true));
        }
        bytes += weight(&portfolio);
        page.push(portfolio);
    }
    Ok((page, false))
}

fn weight(portfolio: &Portfolio) -> usize {
    256 + portfolio.metadata.weight()
        + portfolio.entity_ids.iter().map(|id| id.len() + 8).sum::<usize>()
}

statement! {
    /// Portfolios in the order of their ids, each with its first members. Those of portfolios that do not fit on the page are not read.
    pub struct ListPortfolios<'a> {
        realm: i32 as Integer,
        after: &'a str as Text,
        limit: i64 as BigInt,
        shown: i64 as BigInt,
        room: i64 as BigInt,
    } -> (PortfolioRow, Bool),
    "SELECT p.id, p.name, p.shared_registered_agent_id, p.shared_compliance_calendar, p.metadata, p.entity_count, p.version,
            p.created_at, p.updated_at,
            CASE WHEN p.fits THEN (SELECT coalesce(string_agg(m.id, ' '), '')
                                   FROM (SELECT e.id
                                         FROM entity e
                                         WHERE e.realm_id = {realm} AND e.portfolio_id = p.id
                                         ORDER BY e.attached_at, e.id
                                         LIMIT {shown}) m)
                 ELSE '' END,
            p.fits
     FROM (SELECT q.*, sum(LEAST(q.entity_count, {shown})) OVER (ORDER BY q.id) - LEAST(q.entity_count, {shown}) < {room} AS fits
           FROM (SELECT *
                 FROM portfolio f
                 WHERE f.realm_id = {realm} AND f.id > {after}{filter}
                 ORDER BY f.id
                 LIMIT {limit}) q) p
     ORDER BY p.id"
}

#[cfg(test)]
crate::db::checked::filtered!(ListPortfolios, crate::filter::conditions::conditions(&PORTFOLIO));

/// Changes a portfolio's own fields. None if there is none, or none at the expected version.
pub fn update(
    connection: &mut PgConnection,
    realm: &Realm,
    principal: Uuid,
    portfolio: &str,
    update: &PortfolioUpdate,
) -> Work<Option<Portfolio>> {
    let statement = UpdatePortfolio {
        realm: realm.id(),
        principal,
        portfolio,
        name: update.name.as_deref(),
        sets_agent: update.shared_registered_agent_id.is_some(),
        agent: update.shared_registered_agent_id.as_ref().and_then(Option::as_deref),
        calendar: update.shared_compliance_calendar,
        metadata: update.metadata.as_ref(),
        expected: update.expected_version,
        shown: update.view.shown(),
    };
    let changed: Option<Changed> = statement.get_result(connection).optional()?;
    changed.map(|changed| settle(connection, realm, update.view, changed)).transpose()
}

statement! {
    /// The given values replace the old ones; the version is raised, and the event records which fields have changed. If none has, nothing
    /// is written.
    pub struct UpdatePortfolio<'a> {
        realm: i32 as Integer,
        principal: Uuid as SqlUuid,
        portfolio: &'a str as Text,
        name: Option<&'a str> as Nullable<Text>,
        sets_agent: bool as Bool,
        agent: Option<&'a str> as Nullable<Text>,
        calendar: Option<bool> as Nullable<Bool>,
        metadata: Option<&'a Struct> as Nullable<Jsonb>,
        expected: Option<i64> as Nullable<BigInt>,
        shown: i64 as BigInt,
    } -> (PortfolioRow, Bool),
    "WITH found AS (
        -- Locked, so that what it is compared with is the latest. JSON as text: of two numbers that are equal one may have more digits.
        SELECT p.*, array_remove(ARRAY[
                   CASE WHEN p.name <> COALESCE({name}, p.name) THEN 'name' END,
                   CASE WHEN {sets_agent} AND p.shared_registered_agent_id IS DISTINCT FROM {agent} THEN 'shared_registered_agent_id' END,
                   CASE WHEN p.shared_compliance_calendar <> COALESCE({calendar}, p.shared_compliance_calendar) THEN 'shared_compliance_calendar' END,
                   CASE WHEN p.metadata::text <> COALESCE({metadata}, p.metadata)::text THEN 'metadata' END
               ], NULL) AS fields
        FROM portfolio p
        WHERE p.realm_id = {realm} AND p.id = {portfolio} AND p.version = COALESCE({expected}, p.version)
        FOR NO KEY UPDATE
     ),
     changed AS (
        UPDATE portfolio p
        SET name = COALESCE({name}, p.name),
            shared_registered_agent_id = CASE WHEN {sets_agent} THEN {agent} ELSE p.shared_registered_agent_id END,
            shared_compliance_calendar = COALESCE({calendar}, p.shared_compliance_calendar),
            metadata = COALESCE({metadata}, p.metadata),
            version = p.version + 1, updated_at = now()
        FROM found f
        WHERE p.realm_id = {realm} AND p.id = f.id AND f.fields <> '{}'
        RETURNING p.*
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, 'portfolio.updated', ARRAY[c.id], {principal}, jsonb_build_object('fields', f.fields, 'version', c.version)
        FROM changed c, found f
     )
     SELECT s.id, s.name, s.shared_registered_agent_id, s.shared_compliance_calendar, s.metadata, s.entity_count, s.version,
            s.created_at, s.updated_at,
            (SELECT coalesce(string_agg(m.id, ' '), '')
             FROM (SELECT e.id
                   FROM entity e
                   WHERE e.realm_id = {realm} AND e.portfolio_id = {portfolio}
                   ORDER BY e.attached_at, e.id
                   LIMIT {shown}) m),
            (SELECT p.version = f.version FROM portfolio p, found f WHERE p.realm_id = {realm} AND p.id = {portfolio})
     FROM (SELECT c.id, c.name, c.shared_registered_agent_id, c.shared_compliance_calendar, c.metadata, c.entity_count, c.version,
                  c.created_at, c.updated_at
           FROM changed c
           UNION ALL
           SELECT f.id, f.name, f.shared_registered_agent_id, f.shared_compliance_calendar, f.metadata, f.entity_count, f.version,
                  f.created_at, f.updated_at
           FROM found f
           WHERE f.fields = '{}') s"
}

/// Deletes a portfolio that has no members. False if there is none, or it has some.
pub fn delete(
    connection: &mut PgConnection,
    realm: &Realm,
    principal: Uuid,
    portfolio: &str,
) -> Work<bool> {
    let deleted: Option<(i64,)> = DeletePortfolio { realm: realm.id(), principal, portfolio }
        .get_result(connection)
        .optional()?;
    Ok(deleted.is_some())
}

statement! {
    /// The portfolio's end and its event, with its last version. Attaching a member locks the row: one of the two waits for the other, and
    /// then finds a member, or no portfolio.
    pub struct DeletePortfolio<'a> {
        realm: i32 as Integer,
        principal: Uuid as SqlUuid,
        portfolio: &'a str as Text,
    } -> (BigInt,),
    "WITH gone AS (
        DELETE FROM portfolio
        WHERE realm_id = {realm} AND id = {portfolio} AND entity_count = 0
        RETURNING id, version
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, 'portfolio.deleted', ARRAY[g.id], {principal}, jsonb_build_object('version', g.version + 1)
        FROM gone g
     )
     SELECT g.version FROM gone g"
}
