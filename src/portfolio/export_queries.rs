//! The SQL of reading members, by the page or all of them.

use chrono::{DateTime, Utc};
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Integer, Text, Timestamptz};

use crate::db::schema::entity;
use crate::db::{Realm, Work, statement};
use crate::entity::model::Entity;

/// The place of a member in its portfolio: when it was attached, and its id.
pub type Place = (DateTime<Utc>, String);

/// The place before all members.
pub fn start() -> Place {
    (DateTime::UNIX_EPOCH, String::new())
}

/// The members behind this place, each with its own. None if there is no such portfolio.
pub fn members(
    connection: &mut PgConnection,
    realm: &Realm,
    portfolio: &str,
    (at, id): &Place,
    limit: i64,
) -> Work<Option<Vec<(Entity, Place)>>> {
    let rows: Vec<(Entity, Option<DateTime<Utc>>)> = entity::table
        .filter(entity::realm_id.eq(realm.id()).and(entity::portfolio_id.eq(portfolio)).and(entity::deleted_at.is_null()))
        // The first bound is what the index goes by.
        .filter(entity::attached_at.ge(at).and(entity::attached_at.gt(at).or(entity::id.gt(id))))
        .select((Entity::as_select(), entity::attached_at))
        .order((entity::attached_at, entity::id))
        .limit(limit)
        .load(connection)?;
    if rows.is_empty() && !exists(connection, realm, portfolio)? {
        return Ok(None);
    }
    let place = |entity: &Entity, at: Option<DateTime<Utc>>| (at.unwrap_or_default(), entity.id.clone());
    Ok(Some(rows.into_iter().map(|(entity, at)| (entity.clone(), place(&entity, at))).collect()))
}

fn exists(connection: &mut PgConnection, realm: &Realm, portfolio: &str) -> Work<bool> {
    let (exists,) = PortfolioExists { realm: realm.id(), portfolio }.get_result(connection)?;
    Ok(exists)
}

statement! {
    /// Whether there is such a portfolio.
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

/// The places of the members behind this one.
pub fn places(connection: &mut PgConnection, realm: &Realm, portfolio: &str, (at, id): &Place, limit: i64) -> Work<Vec<Place>> {
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
