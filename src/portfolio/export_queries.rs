//! The SQL of reading members, by the page or all of them.

use chrono::{DateTime, Utc};
use diesel::connection::SimpleConnection;
use diesel::pg::{PgConnection, PgRowByRowLoadingMode};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text, Timestamptz};
use prost::Message as _;

use crate::db::statement::Statement;
use crate::db::{Realm, Work, statement};
use crate::entity::list_queries::EntityRow;
use crate::entity::model::Entity;
use crate::filter::Filter;

/// The position of a member in its portfolio: when it was attached, and its id.
pub type MemberPosition = (DateTime<Utc>, String);

/// The position before all members.
pub fn start() -> MemberPosition {
    (DateTime::UNIX_EPOCH, String::new())
}

/// The bytes after which a page of members ends. With one entity more it still fits into the 4 MiB that gRPC clients take by default.
const PAGE_BYTES: usize = 2 << 20;

/// Members, each with its position, and whether reading ended before the limit because they are large.
pub type Members = (Vec<(Entity, MemberPosition)>, bool);

/// The members after this position that match the filter. None if there is no such portfolio.
pub fn members(
    connection: &mut PgConnection,
    realm: &Realm,
    (portfolio, filter): (&str, Option<&Filter>),
    (at, id): &MemberPosition,
    limit: i64,
) -> Work<Option<Members>> {
    let statement = ListMembers { realm: realm.id(), portfolio, at: *at, id, limit }
        .filtered(filter.map(Filter::predicate));
    let rows = statement
        .load_iter::<(Entity, Option<DateTime<Utc>>), PgRowByRowLoadingMode>(connection)?;
    let (mut members, mut bytes, mut more) = (Vec::new(), 0, false);
    for row in rows {
        if bytes >= PAGE_BYTES {
            more = true;
            break;
        }
        let (entity, attached_at) = row?;
        bytes += entity.attributes.encoded_len();
        let position = (attached_at.unwrap_or_default(), entity.id.clone());
        members.push((entity, position));
    }
    if members.is_empty() && !exists(connection, realm, portfolio)? {
        return Ok(None);
    }
    Ok(Some((members, more)))
}

statement! {
    /// A page of members, in the order in which they were attached.
    pub struct ListMembers<'a> {
        realm: i32 as Integer,
        portfolio: &'a str as Text,
        at: DateTime<Utc> as Timestamptz,
        id: &'a str as Text,
        limit: i64 as BigInt,
    } -> (EntityRow, Nullable<Timestamptz>),
    "SELECT e.id, e.type, e.state, e.attributes, e.components, e.portfolio_id, e.hold_reason, e.hold_placed_by, e.hold_placed_at,
            e.version, e.created_at, e.updated_at, e.attached_at
     FROM entity e
     WHERE e.realm_id = {realm} AND e.portfolio_id = {portfolio} AND (e.attached_at, e.id) > ({at}, {id}) AND e.deleted_at IS NULL{filter}
     ORDER BY e.attached_at, e.id
     LIMIT {limit}"
}

#[cfg(test)]
crate::db::checked::filtered!(
    ListMembers,
    crate::filter::conditions::conditions(&crate::filter::ENTITY)
);

fn exists(connection: &mut PgConnection, realm: &Realm, portfolio: &str) -> Work<bool> {
    let (exists,) = PortfolioExists { realm: realm.id(), portfolio }.get_result(connection)?;
    Ok(exists)
}

statement! {
    /// True if there is such a portfolio.
    struct PortfolioExists<'a> {
        realm: i32 as Integer,
        portfolio: &'a str as Text,
    } -> (Bool,),
    "SELECT EXISTS (SELECT FROM portfolio p WHERE p.realm_id = {realm} AND p.id = {portfolio})"
}

/// How many dependents of each kind hang on the members, by kind. It reads all of them, and may take as long as an export may.
pub fn dependents(
    connection: &mut PgConnection,
    realm: &Realm,
    portfolio: &str,
    patience: std::time::Duration,
) -> Work<Vec<(String, i64)>> {
    connection.batch_execute(&format!("SET LOCAL statement_timeout = {}", patience.as_millis()))?;
    Ok(CountDependents { realm: realm.id(), portfolio }.load(connection)?)
}

statement! {
    /// Counts what hangs on the members of a portfolio.
    pub struct CountDependents<'a> {
        realm: i32 as Integer,
        portfolio: &'a str as Text,
    } -> (Text, BigInt),
    "SELECT d.kind, count(*)
     FROM entity e
     JOIN dependent d ON d.realm_id = {realm} AND d.entity_id = e.id
     WHERE e.realm_id = {realm} AND e.portfolio_id = {portfolio}
     GROUP BY d.kind
     ORDER BY d.kind"
}

/// The positions of the members after this one.
pub fn positions(
    connection: &mut PgConnection,
    realm: &Realm,
    portfolio: &str,
    (at, id): &MemberPosition,
    limit: i64,
) -> Work<Vec<MemberPosition>> {
    Ok(ReadPlaces { realm: realm.id(), portfolio, at: *at, id, limit }.load(connection)?)
}

statement! {
    /// Some of the members of a portfolio, in the order in which they were attached; read from the index alone.
    pub struct ReadPlaces<'a> {
        realm: i32 as Integer,
        portfolio: &'a str as Text,
        at: DateTime<Utc> as Timestamptz,
        id: &'a str as Text,
        limit: i64 as BigInt,
    } -> (Timestamptz, Text),
    "SELECT e.attached_at, e.id
     FROM entity e
     WHERE e.realm_id = {realm} AND e.portfolio_id = {portfolio} AND (e.attached_at, e.id) > ({at}, {id})
     ORDER BY e.attached_at, e.id
     LIMIT {limit}"
}
