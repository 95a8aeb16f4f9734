//! The SQL of creations that are done together: in one statement, which leaves out what is not plain, for [`queries`](crate::entity::queries) to do
//! by itself.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Integer, Jsonb, Text, Timestamptz, Uuid as SqlUuid};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::db::{Together, Work, is_locked, statement};
use crate::entity::new_entity::NewEntity;
use crate::entity::queries::Rows;
use crate::proto::object::{Objects, Struct};

/// An entity that is created with what hangs on it, and joins no portfolio.
pub(super) struct Create {
    pub realm: i32,
    pub principal: Uuid,
    pub new: Arc<NewEntity>,
}

impl Together for Create {
    type Answer = DateTime<Utc>;
    const ONLY_READS: bool = false;
    const IS_SMALL: bool = true;

    fn together(connection: &mut PgConnection, calls: &[Self]) -> Work<Vec<Option<DateTime<Utc>>>> {
        let mut rows = Rows::default();
        let mut dependent_realms = Vec::new();
        for call in calls {
            rows.push(&call.new);
            dependent_realms.extend(call.new.dependents.iter().map(|_| call.realm));
        }
        let statement = CreateEach {
            realms: calls.iter().map(|call| call.realm).collect(),
            principals: calls.iter().map(|call| call.principal).collect(),
            ids: rows.ids,
            incarnations: rows.incarnations,
            types: rows.types,
            states: rows.states,
            attributes: rows.attributes,
            crosswalks: rows.crosswalks,
            components: rows.components,
            dependent_realms,
            dependent_entity_ids: rows.dependent_entity_ids,
            dependent_kinds: rows.dependent_kinds,
            dependent_ids: rows.dependent_ids,
            dependent_data: rows.dependent_data,
        };
        let mut answers = vec![None; calls.len()];
        match statement.load::<(i64, DateTime<Utc>)>(connection) {
            Ok(rows) => rows
                .into_iter()
                .for_each(|(place, created_at)| answers[place as usize - 1] = Some(created_at)),
            // Whoever has to wait does so by itself.
            Err(error) if is_locked(&error) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(answers)
    }
}

statement! {
    /// Creates entities, what hangs on them and an event of each. It leaves out an id that is taken, or that another of the calls names before, and
    /// a realm that has an attribute indexed. Others may be creating an entity with the same id, or have locked a request for one that had it: it
    /// gives up at once rather than wait for them.
    struct CreateEach<'a> {
        realms: Vec<i32> as Array<Integer>,
        principals: Vec<Uuid> as Array<SqlUuid>,
        ids: Vec<&'a str> as Array<Text>,
        incarnations: Vec<Uuid> as Array<SqlUuid>,
        types: Vec<&'a str> as Array<Text>,
        states: Vec<&'a str> as Array<Text>,
        attributes: Vec<&'a Struct> as Array<Jsonb>,
        crosswalks: Vec<&'a Objects> as Array<Jsonb>,
        components: Vec<Json> as Array<Jsonb>,
        dependent_realms: Vec<i32> as Array<Integer>,
        dependent_entity_ids: Vec<&'a str> as Array<Text>,
        dependent_kinds: Vec<&'a str> as Array<Text>,
        dependent_ids: Vec<&'a str> as Array<Text>,
        dependent_data: Vec<&'a Struct> as Array<Jsonb>,
    } -> (BigInt, Timestamptz),
    "WITH hurry AS MATERIALIZED (
        -- Until the end of the statement, which is a transaction.
        SELECT set_config('lock_timeout', '20ms', true) AS lock_timeout
     ),
     wanted AS MATERIALIZED (
        SELECT DISTINCT ON (i.realm, i.id COLLATE \"C\") i.*
        FROM unnest({realms}, {principals}, {ids}, {incarnations}, {types}, {states}, {attributes}, {crosswalks}, {components}) WITH ORDINALITY
             AS i(realm, principal, id, incarnation, type, state, attributes, crosswalks, components, place)
        -- One lookup by key for each, whatever the planner believes of the size of the tables.
        WHERE (SELECT true FROM entity e WHERE e.realm_id = i.realm AND e.id = i.id) IS NULL
          AND (SELECT true FROM attribute_declaration d WHERE d.realm_id = i.realm LIMIT 1) IS NULL
        ORDER BY i.realm, i.id COLLATE \"C\", i.place
     ),
     fresh AS (
        INSERT INTO entity (realm_id, id, incarnation, type, state, attributes, crosswalks, components)
        SELECT w.realm, w.id, w.incarnation, w.type, w.state, w.attributes, w.crosswalks,
               ARRAY(SELECT c::uuid FROM jsonb_array_elements_text(w.components) c)
        FROM hurry, wanted w
        WHERE hurry.lock_timeout IS NOT NULL
        ORDER BY w.realm, w.id COLLATE \"C\"
        ON CONFLICT (realm_id, id) DO NOTHING
        RETURNING realm_id, id, created_at
     ),
     hung AS (
        INSERT INTO dependent (realm_id, entity_id, kind, id, data)
        SELECT d.realm, d.entity_id, d.kind, d.id, d.data
        FROM unnest({dependent_realms}, {dependent_entity_ids}, {dependent_kinds}, {dependent_ids}, {dependent_data})
             AS d(realm, entity_id, kind, id, data)
        JOIN fresh f ON f.realm_id = d.realm AND f.id = d.entity_id
     ),
     followed AS (
        -- Requests for those who had the ids before are no longer those that are returned for an id.
        UPDATE offboarding_request r
        SET followed = true
        FROM fresh f
        WHERE r.realm_id = f.realm_id AND r.entity_id = f.id AND NOT r.followed
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT f.realm_id, 'entity.created', ARRAY[f.id], w.principal, jsonb_build_object('version', 1)
        FROM fresh f
        JOIN wanted w ON w.realm = f.realm_id AND w.id = f.id
        ORDER BY w.place
     )
     SELECT w.place, f.created_at
     FROM fresh f
     JOIN wanted w ON w.realm = f.realm_id AND w.id = f.id"
}
