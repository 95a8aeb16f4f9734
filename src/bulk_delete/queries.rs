//! The SQL of starting a bulk delete.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Jsonb, Nullable, Text, Uuid as SqlUuid};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::access::Caller;
use crate::bulk_delete::admission::Admission;
use crate::bulk_delete::model::{NewTask, Target};
use crate::db::{Work, id, listen, statement};
use crate::task::model::TOPIC;

/// Records a task that may start, with one slice, the whole key space, and returns its id. It draws a number unless it has one.
pub fn start(
    connection: &mut PgConnection,
    caller: &Caller,
    task: &NewTask,
    admission: &Admission,
) -> Work<Uuid> {
    let (filter, entity_type, ids) = match &task.target {
        Target::Matching { filter, entity_type } => {
            (filter.as_ref().map(|(text, _)| text.as_str()), entity_type.as_deref(), None)
        }
        Target::Listed(ids) => (None, None, Some(ids.as_slice())),
    };
    let parameters = task
        .parameters(caller.realm.org())
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Json::String(value)));
    let statement = Start {
        realm: caller.realm.id(),
        id: id::new_id(),
        name: &task.name(),
        mode: task.mode.as_str(),
        filter,
        entity_type,
        ids,
        match_all: task.matches_all(),
        max_objects_per_second: task.guards.max_objects_per_second,
        max_objects: admission.cap,
        excluded: &task.excluded,
        ordinal: admission.ordinal,
        check_attributes: !admission.unchecked.is_empty(),
        lists: admission.lists.to_json(&task.excluded),
        parameters: parameters.collect(),
        principal: caller.principal_id,
        key: caller.key_id,
        channel: listen::CHANNEL,
        topic: TOPIC,
    };
    let (id,): (Uuid,) = statement.get_result(connection)?;
    Ok(id)
}

statement! {
    /// The task, its first slice, the event and the wake-up.
    struct Start<'a> {
        realm: i32 as Integer,
        id: Uuid as SqlUuid,
        name: &'a str as Text,
        mode: &'a str as Text,
        filter: Option<&'a str> as Nullable<Text>,
        entity_type: Option<&'a str> as Nullable<Text>,
        ids: Option<&'a [String]> as Nullable<Array<Text>>,
        match_all: bool as Bool,
        max_objects_per_second: Option<i32> as Nullable<Integer>,
        max_objects: Option<i64> as Nullable<BigInt>,
        excluded: &'a [String] as Array<Text>,
        ordinal: Option<i64> as Nullable<BigInt>,
        check_attributes: bool as Bool,
        lists: Option<Json> as Nullable<Jsonb>,
        parameters: Json as Jsonb,
        principal: Uuid as SqlUuid,
        key: Uuid as SqlUuid,
        channel: &'a str as Text,
        topic: &'a str as Text,
    } -> (SqlUuid,),
    "WITH task AS (
        INSERT INTO bulk_delete
            (realm_id, id, name, mode, status, filter, entity_type, entity_ids, match_all, excluded_ids, max_objects_per_second, max_objects,
             ordinal, check_attributes, lists, parameters, principal_id, api_key_id, updated_by)
        VALUES ({realm}, {id}, {name}, {mode}, 'scheduled', {filter}, {entity_type}, {ids}, {match_all}, {excluded}, {max_objects_per_second},
                {max_objects}, COALESCE({ordinal}, nextval('ordinal')), {check_attributes}, {lists}, {parameters}, {principal}, {key}, {principal})
        RETURNING id
     ),
     whole AS (
        INSERT INTO bulk_delete_slice (realm_id, bulk_delete_id, slice)
        SELECT {realm}, t.id, 0 FROM task t
     ),
     recorded AS (
        -- Without the filter: events are kept and published, and a filter may name what is removed.
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, 'bulk_delete.scheduled', ARRAY[t.id::text], {principal}, jsonb_build_object('parameters', {parameters} - 'filter')
        FROM task t
     )
     SELECT t.id
     FROM task t, (SELECT pg_notify({channel}, {topic})) woken"
}
