//! The SQL of entities.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::db::schema::entity;
use crate::db::{Realm, Work, statement};
use crate::entity::index::model::Declared;
use crate::entity::index::queries::{DeclaredColumn, declared, index_new};
use crate::entity::model::Entity;
use crate::entity::new_entity::NewEntity;

/// The entity with this id, unless it is missing or deleted.
pub fn get(connection: &mut PgConnection, realm: &Realm, id: &str) -> Work<Option<Entity>> {
    let found = entity::table
        .filter(entity::realm_id.eq(realm.id()).and(entity::id.eq(id)).and(entity::deleted_at.is_null()))
        .select(Entity::as_select())
        .first(connection)
        .optional()?;
    Ok(found)
}

/// What became of each entity that was to be created, by its place in the batch.
#[derive(Debug, Default)]
pub struct Inserted {
    /// Whose id was taken.
    pub existing: HashSet<usize>,
    /// Whose portfolio is missing or invisible.
    pub no_portfolio: HashSet<usize>,
    /// When the others were created.
    pub created_at: Option<DateTime<Utc>>,
}

/// Creates entities with their dependents and memberships, and the rows of their indexed attributes; call it in a transaction. An entity that
/// cannot be created changes nothing and the others are created. Of two with one id the first counts.
pub fn insert(connection: &mut PgConnection, realm: &Realm, principal_id: Uuid, batch: &[NewEntity]) -> Work<Inserted> {
    let mut outcome = Inserted::default();
    let portfolios = lock_portfolios(connection, realm, batch)?;
    let mut seen = HashSet::new();
    let mut rows = Rows::default();
    let mut tried = Vec::with_capacity(batch.len());
    for (place, new) in batch.iter().enumerate() {
        if new.portfolio_id.as_ref().is_some_and(|portfolio| !portfolios.contains(portfolio)) {
            outcome.no_portfolio.insert(place);
        } else if !seen.insert(new.id.as_str()) {
            outcome.existing.insert(place);
        } else {
            rows.push(new);
            tried.push(new);
        }
    }
    if rows.ids.is_empty() {
        return Ok(outcome);
    }
    let mut created = HashSet::new();
    let mut declared = None;
    for (id, created_at, indexed) in rows.statement(realm, principal_id).load::<(String, DateTime<Utc>, Option<Json>)>(connection)? {
        outcome.created_at = Some(created_at);
        created.insert(id);
        declared = indexed;
    }
    if declared.is_some() {
        let declared = Declared::read(declared);
        let fresh = tried.into_iter().filter(|new| created.contains(&new.id)).map(|new| (new.id.as_str(), &new.attributes));
        index_new(connection, realm, &declared, fresh)?;
    }
    for (place, new) in batch.iter().enumerate() {
        if !outcome.no_portfolio.contains(&place) && !created.contains(&new.id) {
            outcome.existing.insert(place);
        }
    }
    Ok(outcome)
}

/// Locks the portfolios that the batch names, in the order of their ids, so that none goes before its members are in.
fn lock_portfolios(connection: &mut PgConnection, realm: &Realm, batch: &[NewEntity]) -> Work<HashSet<String>> {
    let mut ids: Vec<&str> = batch.iter().filter_map(|new| new.portfolio_id.as_deref()).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let locked: Vec<(String,)> = LockPortfolios { realm: realm.id(), ids }.load(connection)?;
    Ok(locked.into_iter().map(|(id,)| id).collect())
}

statement! {
    /// Locks portfolios for a change of their membership.
    struct LockPortfolios<'a> {
        realm: i32 as Integer,
        ids: Vec<&'a str> as Array<Text>,
    } -> (Text,),
    "SELECT p.id
     FROM portfolio p
     WHERE p.realm_id = {realm} AND p.id = ANY({ids})
     ORDER BY p.id
     FOR NO KEY UPDATE"
}

/// The columns of a batch, each as an array.
#[derive(Default)]
struct Rows<'a> {
    ids: Vec<&'a str>,
    incarnations: Vec<Uuid>,
    types: Vec<&'a str>,
    states: Vec<&'a str>,
    attributes: Vec<&'a Json>,
    crosswalks: Vec<&'a Json>,
    components: Vec<Json>,
    portfolio_ids: Vec<Option<&'a str>>,
    dependent_entity_ids: Vec<&'a str>,
    dependent_kinds: Vec<&'a str>,
    dependent_ids: Vec<&'a str>,
    dependent_data: Vec<&'a Json>,
}

impl<'a> Rows<'a> {
    fn push(&mut self, new: &'a NewEntity) {
        self.ids.push(&new.id);
        self.incarnations.push(new.incarnation);
        self.types.push(&new.type_);
        self.states.push(new.state.as_str());
        self.attributes.push(&new.attributes);
        self.crosswalks.push(&new.crosswalks);
        self.components.push(new.components.iter().map(|component| Json::String(component.to_string())).collect());
        self.portfolio_ids.push(new.portfolio_id.as_deref());
        for dependent in &new.dependents {
            self.dependent_entity_ids.push(&new.id);
            self.dependent_kinds.push(&dependent.kind);
            self.dependent_ids.push(&dependent.id);
            self.dependent_data.push(&dependent.data);
        }
    }

    fn statement(self, realm: &Realm, principal: Uuid) -> InsertEntities<'a> {
        InsertEntities {
            realm: realm.id(),
            principal,
            ids: self.ids,
            incarnations: self.incarnations,
            types: self.types,
            states: self.states,
            attributes: self.attributes,
            crosswalks: self.crosswalks,
            components: self.components,
            portfolio_ids: self.portfolio_ids,
            dependent_entity_ids: self.dependent_entity_ids,
            dependent_kinds: self.dependent_kinds,
            dependent_ids: self.dependent_ids,
            dependent_data: self.dependent_data,
        }
    }
}

statement! {
    /// Creates entities, what hangs on them, their memberships and the events; returns the ids that were free.
    struct InsertEntities<'a> {
        realm: i32 as Integer,
        principal: Uuid as SqlUuid,
        ids: Vec<&'a str> as Array<Text>,
        incarnations: Vec<Uuid> as Array<SqlUuid>,
        types: Vec<&'a str> as Array<Text>,
        states: Vec<&'a str> as Array<Text>,
        attributes: Vec<&'a Json> as Array<Jsonb>,
        crosswalks: Vec<&'a Json> as Array<Jsonb>,
        components: Vec<Json> as Array<Jsonb>,
        portfolio_ids: Vec<Option<&'a str>> as Array<Nullable<Text>>,
        dependent_entity_ids: Vec<&'a str> as Array<Text>,
        dependent_kinds: Vec<&'a str> as Array<Text>,
        dependent_ids: Vec<&'a str> as Array<Text>,
        dependent_data: Vec<&'a Json> as Array<Jsonb>,
    } -> (Text, Timestamptz, DeclaredColumn),
    concat!("WITH fresh AS (
        -- The entities whose id is free. clock_timestamp keeps the order in which members were attached.
        INSERT INTO entity (realm_id, id, incarnation, type, state, attributes, crosswalks, components, portfolio_id, attached_at)
        SELECT {realm}, i.id, i.incarnation, i.type, i.state, i.attributes, i.crosswalks,
               ARRAY(SELECT c::uuid FROM jsonb_array_elements_text(i.components) c),
               i.portfolio_id, CASE WHEN i.portfolio_id IS NOT NULL THEN clock_timestamp() END
        FROM unnest({ids}, {incarnations}, {types}, {states}, {attributes}, {crosswalks}, {components}, {portfolio_ids})
             WITH ORDINALITY AS i(id, incarnation, type, state, attributes, crosswalks, components, portfolio_id, line)
        ORDER BY i.line
        ON CONFLICT (realm_id, id) DO NOTHING
        RETURNING id, portfolio_id, created_at
     ),
     hung AS (
        -- What hangs on them.
        INSERT INTO dependent (realm_id, entity_id, kind, id, data)
        SELECT {realm}, d.entity_id, d.kind, d.id, d.data
        FROM unnest({dependent_entity_ids}, {dependent_kinds}, {dependent_ids}, {dependent_data}) AS d(entity_id, kind, id, data)
        JOIN fresh ON fresh.id = d.entity_id
     ),
     joined AS (
        SELECT portfolio_id, count(*) AS members, jsonb_agg(id) AS entity_ids
        FROM fresh
        WHERE portfolio_id IS NOT NULL
        GROUP BY portfolio_id
     ),
     folio AS (
        -- One step for each portfolio that gains members.
        UPDATE portfolio p
        SET entity_count = p.entity_count + j.members, version = p.version + 1, updated_at = now()
        FROM joined j
        WHERE p.realm_id = {realm} AND p.id = j.portfolio_id
        RETURNING p.id, p.version, j.entity_ids
     ),
     told AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, 'entity.created', array_agg(id), {principal}, jsonb_build_object('version', 1) FROM fresh HAVING count(*) > 0
        UNION ALL
        SELECT {realm}, 'portfolio.entity_attached', ARRAY[f.id], {principal},
               jsonb_build_object('entity_ids', f.entity_ids, 'version', f.version)
        FROM folio f
     )
     SELECT id, created_at, ", declared!(), "
     FROM fresh")
}
