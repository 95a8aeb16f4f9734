//! The SQL that erases responses in idempotency records when something they show is removed.
//!
//! It is part of the transaction of the removal. A transaction that records a response which shows an entity locks the entity's row until
//! its end, so a statement that begins when the rows are deleted sees every such record, and none comes later.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, Binary, Integer, Text, Uuid as SqlUuid};
use uuid::Uuid;

use crate::access::answer::{Record, Subject};
use crate::db::{Realm, Work, statement};

/// The subjects of responses, as columns.
pub(super) struct Columns<'a> {
    pub kinds: Vec<&'static str>,
    pub subjects: Vec<&'a str>,
    pub dependents: Vec<String>,
}

impl<'a> Columns<'a> {
    pub fn of(shown: &'a [Subject]) -> Self {
        let mut columns =
            Columns { kinds: Vec::new(), subjects: Vec::new(), dependents: Vec::new() };
        for subject in shown {
            let (kind, id, dependent) = match subject {
                Subject::Entity(id) => ("entity", id, String::new()),
                // Neither has a slash.
                Subject::Dependent(id, kind, dependent) => {
                    ("entity", id, format!("{kind}/{dependent}"))
                }
                Subject::Portfolio(id) => ("portfolio", id, String::new()),
            };
            columns.kinds.push(kind);
            columns.subjects.push(id);
            columns.dependents.push(dependent);
        }
        columns
    }
}

/// The replacement of a response that is erased.
pub fn erased_answer() -> Vec<u8> {
    Record::erased()
}

/// The end of a statement that has deleted rows of `idempotency_subject` as `unshown`, with the parameter `erased`: the records that showed
/// them, locked in the order of their keys, as by all that blank several, and blanked.
macro_rules! blanked {
    () => {
        "due AS (
        SELECT k.realm_id, k.api_key_id, k.key, k.part
        FROM unshown x
        JOIN idempotency_key k
          ON k.realm_id = x.realm_id AND k.api_key_id = x.api_key_id AND k.key = x.key AND k.part = x.part AND k.created_at = x.created_at
        ORDER BY k.realm_id, k.api_key_id, k.key, k.part
        FOR UPDATE OF k
     ),
     blanked AS (
        UPDATE idempotency_key k
        SET answer = {erased}
        FROM due d
        WHERE k.realm_id = d.realm_id AND k.api_key_id = d.api_key_id AND k.key = d.key AND k.part = d.part
     )"
    };
}
pub(crate) use blanked;

/// Erases the responses that show one of these. Call it when they are deleted, in the same transaction.
pub fn erase(connection: &mut PgConnection, realm: &Realm, removed: &[Subject]) -> Work<()> {
    let Columns { kinds, subjects, dependents } = Columns::of(removed);
    Erase { realm: realm.id(), kinds, subjects, dependents, erased: erased_answer() }
        .execute(connection)?;
    Ok(())
}

statement! {
    /// The records of removed subjects. With an entity all of its dependents are removed.
    struct Erase<'a> {
        realm: i32 as Integer,
        kinds: Vec<&'static str> as Array<Text>,
        subjects: Vec<&'a str> as Array<Text>,
        dependents: Vec<String> as Array<Text>,
        erased: Vec<u8> as Binary,
    } -> (Integer,),
    concat!("WITH unshown AS (
        DELETE FROM idempotency_subject x
        USING unnest({kinds}, {subjects}, {dependents}) AS g(kind, subject, dependent)
        WHERE x.realm_id = {realm} AND x.kind = g.kind AND x.subject = g.subject
          AND (g.dependent = '' OR x.dependent = g.dependent)
        RETURNING x.*
     ),
     ", blanked!(), "
     SELECT 1")
}

/// A slice of a task, where it was before a chunk.
#[derive(Clone, Copy, Debug)]
pub struct Walked<'a> {
    /// The task.
    pub task: Uuid,
    /// The slice.
    pub slice: i32,
    /// The key that the chunk began behind.
    pub cursor: &'a str,
}

/// Erases the responses that show removed entities from the part of a slice that a chunk has just walked, in the chunk's transaction. It
/// follows the subjects of records and not by the deleted entities, so that a task of millions pays for the few records that exist, once.
pub fn erase_walked(connection: &mut PgConnection, realm: &Realm, walked: Walked<'_>) -> Work<()> {
    let Walked { task, slice, cursor } = walked;
    EraseWalked { realm: realm.id(), task, slice, cursor, erased: erased_answer() }
        .execute(connection)?;
    Ok(())
}

statement! {
    /// The records of removed entities between two keys.
    struct EraseWalked<'a> {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        slice: i32 as Integer,
        cursor: &'a str as Text,
        erased: Vec<u8> as Binary,
    } -> (Integer,),
    concat!("WITH unshown AS (
        DELETE FROM idempotency_subject x
        WHERE x.realm_id = {realm} AND x.kind = 'entity' AND x.subject > {cursor}
          AND x.subject <= (SELECT s.cursor_id
                            FROM bulk_delete_slice s
                            WHERE s.realm_id = {realm} AND s.bulk_delete_id = {task} AND s.slice = {slice})
          AND NOT EXISTS (SELECT FROM entity e WHERE e.realm_id = {realm} AND e.id = x.subject AND e.deleted_at IS NULL)
        RETURNING x.*
     ),
     ", blanked!(), "
     SELECT 1")
}
