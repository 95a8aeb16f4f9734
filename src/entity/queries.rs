//! The SQL of entities.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::result::DatabaseErrorKind;
use diesel::sql_types::{
    Array, BigInt, Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::db::schema::entity;
use crate::db::{Fail, Realm, Work, is_refusal, statement};
use crate::entity::index::model::Declared;
use crate::entity::index::queries::{DeclaredColumn, declared, index_new};
use crate::entity::list_queries::EntityRow;
use crate::entity::model::Entity;
use crate::entity::new_entity::NewEntity;
use crate::error::one_line;
use crate::limits::database::{GROUP_ENTITY, GROUP_ENTITY_BYTES};
use crate::proto::object::{Objects, Struct};

/// The same of an entity that is stored compressed: it may be a hundred times as large in memory.
const COMPRESSED_GROUP_ENTITY_BYTES: i32 = GROUP_ENTITY_BYTES / 8;

/// The entities of these realms and ids, by their places; without those that are missing or deleted. None for a large one, of which many at once
/// would take much memory.
pub fn get_each<'a>(
    connection: &mut PgConnection,
    wanted: impl Iterator<Item = (&'a Realm, &'a str)>,
) -> Work<Vec<(i64, Option<Entity>)>> {
    let (realms, ids) = wanted.map(|(realm, id)| (realm.id(), id)).unzip();
    let (most, most_compressed) = (GROUP_ENTITY_BYTES, COMPRESSED_GROUP_ENTITY_BYTES);
    let found: Vec<(i64, bool, Entity)> =
        GetEach { realms, ids, most, most_compressed }.load(connection)?;
    let small = |(place, is_large, entity)| {
        if is_large {
            GROUP_ENTITY.reached();
        }
        (place, (!is_large).then_some(entity))
    };
    Ok(found.into_iter().map(small).collect())
}

statement! {
    /// Entities by key, each for its callers, and whether each is large; without the content of those that are.
    pub struct GetEach<'a> {
        realms: Vec<i32> as Array<Integer>,
        ids: Vec<&'a str> as Array<Text>,
        most: i32 as Integer,
        most_compressed: i32 as Integer,
    } -> (BigInt, Bool, EntityRow),
    "SELECT w.place, s.is_large, e.id, e.type, e.state, CASE WHEN s.is_large THEN '{}' ELSE e.attributes END,
            CASE WHEN s.is_large THEN '{}' ELSE e.components END, e.portfolio_id, e.hold_reason, e.hold_placed_by, e.hold_placed_at,
            e.version, e.created_at, e.updated_at
     FROM unnest({realms}, {ids}) WITH ORDINALITY w(realm, id, place)
     JOIN entity e ON e.realm_id = w.realm AND e.id = w.id AND e.deleted_at IS NULL
     -- The sizes as they are stored, which are known without reading what is stored apart.
     CROSS JOIN LATERAL (
        SELECT pg_column_size(e.components) > {most}
            OR pg_column_size(e.attributes) > CASE WHEN pg_column_compression(e.attributes) IS NULL THEN {most} ELSE {most_compressed} END
            AS is_large) s"
}

/// The entity with this id, unless it is missing or deleted.
pub fn get(connection: &mut PgConnection, realm: &Realm, id: &str) -> Work<Option<Entity>> {
    let found = entity::table
        .filter(
            entity::realm_id
                .eq(realm.id())
                .and(entity::id.eq(id))
                .and(entity::deleted_at.is_null()),
        )
        .select(Entity::as_select())
        .first(connection)
        .optional()?;
    Ok(found)
}

/// The outcome of each entity that was to be created, by its place in the batch.
#[derive(Debug, Default)]
pub struct Inserted {
    /// Those whose id was taken.
    pub existing: HashSet<usize>,
    /// Those whose id was taken by a soft-deleted entity; these are among the existing.
    pub soft_deleted: HashSet<usize>,
    /// Those whose id was taken by a different entity; these are among the existing.
    pub different: HashSet<usize>,
    /// Those whose portfolio is missing or invisible.
    pub no_portfolio: HashSet<usize>,
    /// Those that the database refuses to store; only [`insert_each`] returns them.
    pub refused: HashSet<usize>,
    /// When the others were created.
    pub created_at: Option<DateTime<Utc>>,
}

impl Inserted {
    /// Adds what became of a part of the batch that begins at this place.
    fn extend(&mut self, at: usize, part: Inserted) {
        self.existing.extend(part.existing.into_iter().map(|place| at + place));
        self.soft_deleted.extend(part.soft_deleted.into_iter().map(|place| at + place));
        self.different.extend(part.different.into_iter().map(|place| at + place));
        self.no_portfolio.extend(part.no_portfolio.into_iter().map(|place| at + place));
        self.refused.extend(part.refused.into_iter().map(|place| at + place));
        self.created_at = self.created_at.or(part.created_at);
    }
}

/// Creates entities like [`insert`], but what the database refuses to store costs itself and not the others: a batch that fails so is halved until
/// that is found. Call it in a transaction.
pub fn insert_each(
    connection: &mut PgConnection,
    realm: &Realm,
    principal_id: Uuid,
    batch: &[NewEntity],
) -> Work<Inserted> {
    let error =
        match connection.transaction(|connection| insert(connection, realm, principal_id, batch)) {
            Err(Fail::Database(error)) if is_refusal(&error) => error,
            outcome => return outcome,
        };
    let mut outcome = Inserted::default();
    if let [alone] = batch {
        tracing::warn!(
            realm = realm.id(),
            entity = alone.id,
            cause = one_line(&error.to_string()),
            "the database refuses to store an entity"
        );
        outcome.refused.insert(0);
        return Ok(outcome);
    }
    let half = batch.len() / 2;
    for (at, part) in [(0, &batch[..half]), (half, &batch[half..])] {
        outcome.extend(at, insert_each(connection, realm, principal_id, part)?);
    }
    Ok(outcome)
}

/// Creates entities with their dependents and memberships, and the rows of their indexed attributes; call it in a transaction. An entity that
/// cannot be created changes nothing and the others are created. Of two with one id the first counts.
///
/// Portfolios are read without a lock, and locked once the entities are there. If one was removed in between, all is done again.
pub fn insert(
    connection: &mut PgConnection,
    realm: &Realm,
    principal_id: Uuid,
    batch: &[NewEntity],
) -> Work<Inserted> {
    let mut outcome = Inserted::default();
    let portfolios = portfolios_of(connection, realm, batch)?;
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
    for (id, created_at, joined, indexed) in
        rows.statement(realm, principal_id).load::<InsertedRow>(connection)?
    {
        if !joined {
            let reason = "a portfolio was removed before its members were in".to_owned();
            return Err(diesel::result::Error::DatabaseError(
                DatabaseErrorKind::SerializationFailure,
                Box::new(reason),
            )
            .into());
        }
        outcome.created_at = Some(created_at);
        created.insert(id);
        declared = indexed;
    }
    if declared.is_some() {
        let declared = Declared::read(declared);
        let fresh = tried
            .into_iter()
            .filter(|new| created.contains(&new.id))
            .map(|new| (new.id.as_str(), new.attributes.view()));
        index_new(connection, realm, &declared, fresh)?;
    }
    for (place, new) in batch.iter().enumerate() {
        if !outcome.no_portfolio.contains(&place) && !created.contains(&new.id) {
            outcome.existing.insert(place);
        }
    }
    if !outcome.existing.is_empty() {
        for (place, soft_deleted, different) in
            Taken::of(realm, batch, &outcome.existing).load::<(i64, bool, bool)>(connection)?
        {
            let place = usize::try_from(place).unwrap_or_default();
            outcome.soft_deleted.extend(soft_deleted.then_some(place));
            outcome.different.extend(different.then_some(place));
        }
    }
    Ok(outcome)
}

impl<'a> Taken<'a> {
    fn of(realm: &Realm, batch: &'a [NewEntity], existing: &HashSet<usize>) -> Self {
        let (mut places, mut rows) = (Vec::new(), Rows::default());
        for (place, new) in batch.iter().enumerate().filter(|(place, _)| existing.contains(place)) {
            places.push(place as i64);
            rows.push(new);
        }
        let Rows { ids, types, attributes, crosswalks, components, .. } = rows;
        Taken { realm: realm.id(), places, ids, types, attributes, crosswalks, components }
    }
}

statement! {
    /// Those of these ids that are of soft-deleted entities, and those whose entity differs in something that an update could change.
    struct Taken<'a> {
        realm: i32 as Integer,
        places: Vec<i64> as Array<BigInt>,
        ids: Vec<&'a str> as Array<Text>,
        types: Vec<&'a str> as Array<Text>,
        attributes: Vec<&'a Struct> as Array<Jsonb>,
        crosswalks: Vec<&'a Objects> as Array<Jsonb>,
        components: Vec<Json> as Array<Jsonb>,
    } -> (BigInt, Bool, Bool),
    "SELECT i.place, e.deleted_at IS NOT NULL,
            e.deleted_at IS NULL
            -- As text, since `1.10` and `1.1` are equal numbers, and an update makes the one of the other.
            AND (e.type <> i.type OR e.attributes::text <> i.attributes::text OR e.crosswalks::text <> i.crosswalks::text
                 OR e.components <> ARRAY(SELECT c::uuid FROM jsonb_array_elements_text(i.components) c))
     FROM unnest({places}, {ids}, {types}, {attributes}, {crosswalks}, {components}) AS i(place, id, type, attributes, crosswalks, components)
     JOIN entity e ON e.realm_id = {realm} AND e.id = i.id"
}

/// Those of the batch's portfolios that exist.
fn portfolios_of(
    connection: &mut PgConnection,
    realm: &Realm,
    batch: &[NewEntity],
) -> Work<HashSet<String>> {
    let ids: HashSet<&str> = batch.iter().filter_map(|new| new.portfolio_id.as_deref()).collect();
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let found: Vec<(String,)> =
        FindPortfolios { realm: realm.id(), ids: ids.into_iter().collect() }.load(connection)?;
    Ok(found.into_iter().map(|(id,)| id).collect())
}

statement! {
    /// Which of these portfolios are there.
    struct FindPortfolios<'a> {
        realm: i32 as Integer,
        ids: Vec<&'a str> as Array<Text>,
    } -> (Text,),
    "SELECT p.id FROM portfolio p WHERE p.realm_id = {realm} AND p.id = ANY({ids})"
}

/// The columns of a batch, each as an array.
#[derive(Default)]
pub(super) struct Rows<'a> {
    pub ids: Vec<&'a str>,
    pub incarnations: Vec<Uuid>,
    pub types: Vec<&'a str>,
    pub states: Vec<&'a str>,
    pub attributes: Vec<&'a Struct>,
    pub crosswalks: Vec<&'a Objects>,
    pub components: Vec<Json>,
    pub portfolio_ids: Vec<Option<&'a str>>,
    pub dependent_entity_ids: Vec<&'a str>,
    pub dependent_kinds: Vec<&'a str>,
    pub dependent_ids: Vec<&'a str>,
    pub dependent_data: Vec<&'a Struct>,
}

impl<'a> Rows<'a> {
    pub fn push(&mut self, new: &'a NewEntity) {
        self.ids.push(&new.id);
        self.incarnations.push(new.incarnation);
        self.types.push(&new.type_);
        self.states.push(new.state.as_str());
        self.attributes.push(&new.attributes);
        self.crosswalks.push(&new.crosswalks);
        self.components.push(
            new.components.iter().map(|component| Json::String(component.to_string())).collect(),
        );
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

/// An id that was free, when its entity was created, whether every portfolio of the statement still existed, and its indexed values.
type InsertedRow = (String, DateTime<Utc>, bool, Option<Json>);

statement! {
    /// Creates entities, what hangs on them, their memberships and the events; returns the ids that were free. Like everyone else it locks entities
    /// first and portfolios second, each in the order of their ids: an id may be one that is just being removed.
    struct InsertEntities<'a> {
        realm: i32 as Integer,
        principal: Uuid as SqlUuid,
        ids: Vec<&'a str> as Array<Text>,
        incarnations: Vec<Uuid> as Array<SqlUuid>,
        types: Vec<&'a str> as Array<Text>,
        states: Vec<&'a str> as Array<Text>,
        attributes: Vec<&'a Struct> as Array<Jsonb>,
        crosswalks: Vec<&'a Objects> as Array<Jsonb>,
        components: Vec<Json> as Array<Jsonb>,
        portfolio_ids: Vec<Option<&'a str>> as Array<Nullable<Text>>,
        dependent_entity_ids: Vec<&'a str> as Array<Text>,
        dependent_kinds: Vec<&'a str> as Array<Text>,
        dependent_ids: Vec<&'a str> as Array<Text>,
        dependent_data: Vec<&'a Struct> as Array<Jsonb>,
    } -> (Text, Timestamptz, Bool, DeclaredColumn),
    concat!("WITH began AS MATERIALIZED (SELECT clock_timestamp() AS at),
     fresh AS (
        -- The entities whose id is free. Members are attached in the order of the lines, and behind all that was attached before.
        INSERT INTO entity (realm_id, id, incarnation, type, state, attributes, crosswalks, components, portfolio_id, attached_at)
        SELECT {realm}, i.id, i.incarnation, i.type, i.state, i.attributes, i.crosswalks,
               ARRAY(SELECT c::uuid FROM jsonb_array_elements_text(i.components) c),
               i.portfolio_id, CASE WHEN i.portfolio_id IS NOT NULL THEN b.at + i.line * interval '1 microsecond' END
        FROM unnest({ids}, {incarnations}, {types}, {states}, {attributes}, {crosswalks}, {components}, {portfolio_ids})
             WITH ORDINALITY AS i(id, incarnation, type, state, attributes, crosswalks, components, portfolio_id, line),
             began b
        ORDER BY i.id COLLATE \"C\"
        ON CONFLICT (realm_id, id) DO NOTHING
        RETURNING id, portfolio_id, attached_at, created_at
     ),
     hung AS (
        -- What hangs on them.
        INSERT INTO dependent (realm_id, entity_id, kind, id, data)
        SELECT {realm}, d.entity_id, d.kind, d.id, d.data
        FROM unnest({dependent_entity_ids}, {dependent_kinds}, {dependent_ids}, {dependent_data}) AS d(entity_id, kind, id, data)
        JOIN fresh ON fresh.id = d.entity_id
     ),
     followed AS (
        -- Requests for those who had the ids before are no longer those that are returned for an id. Whatever their status is in this snapshot:
        -- a removal may be what the insertion waited for.
        UPDATE offboarding_request r
        SET followed = true
        FROM fresh f
        WHERE r.realm_id = {realm} AND r.entity_id = f.id AND NOT r.followed
     ),
     joined AS (
        SELECT portfolio_id, count(*) AS members, jsonb_agg(id ORDER BY attached_at) AS entity_ids
        FROM fresh
        WHERE portfolio_id IS NOT NULL
        GROUP BY portfolio_id
     ),
     held AS (
        -- The portfolios that gain members, locked once all entities are in.
        SELECT p.id, j.members, j.entity_ids
        FROM portfolio p
        JOIN joined j ON j.portfolio_id = p.id
        WHERE p.realm_id = {realm}
        ORDER BY p.id
        FOR NO KEY UPDATE OF p
     ),
     folio AS (
        -- One step for each.
        UPDATE portfolio p
        SET entity_count = p.entity_count + h.members, version = p.version + 1, updated_at = now()
        FROM held h
        WHERE p.realm_id = {realm} AND p.id = h.id
        RETURNING p.id, p.version, h.entity_ids
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, 'entity.created', array_agg(id), {principal}, jsonb_build_object('version', 1) FROM fresh HAVING count(*) > 0
        UNION ALL
        SELECT {realm}, 'portfolio.entity_attached', ARRAY[f.id], {principal},
               jsonb_build_object('entity_ids', f.entity_ids, 'version', f.version)
        FROM folio f
     )
     SELECT id, created_at, (SELECT count(*) FROM joined) = (SELECT count(*) FROM folio), ", declared!(), "
     FROM fresh")
}
