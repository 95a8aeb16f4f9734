//! The SQL of the mail that tells of a task's end.

use std::time::Duration;

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Double, Integer, Text, Uuid as SqlUuid};
use uuid::Uuid;

use crate::db::{self, Realm, Work, statement};

/// Has a mail sent when the task is over. Call it in the transaction that starts the task.
pub fn ask(connection: &mut PgConnection, realm: &Realm, task_id: Uuid, recipient: &str) -> Work<()> {
    Ask { realm: realm.id(), task: task_id, recipient }.execute(connection)?;
    Ok(())
}

statement! {
    /// A mail that is due when its task has ended.
    struct Ask<'a> {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        recipient: &'a str as Text,
    } -> (Bool,),
    "INSERT INTO bulk_delete_mail (realm_id, bulk_delete_id, recipient) VALUES ({realm}, {task}, {recipient})"
}

/// A mail that this replica has the lease of.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// Whose world.
    pub realm: Realm,
    /// The task.
    pub task_id: Uuid,
    /// To whom.
    pub recipient: String,
    /// Fences the lease.
    pub token: i64,
    /// How often it was tried, this time included.
    pub attempts: i32,
}

/// Claims the mail that has been due for longest, also one whose worker was lost.
pub fn claim(connection: &mut PgConnection, owner: &str, lease: Duration) -> Work<Option<Claimed>> {
    type Row = (i32, String, db::Mode, Uuid, String, i64, i32);
    let row: Option<Row> = Claim { owner, lease: lease.as_secs_f64() }.get_result(connection).optional()?;
    Ok(row.map(|(realm_id, org, mode, task_id, recipient, token, attempts)| {
        let realm = Realm::from_row(realm_id, org, mode);
        Claimed { realm, task_id, recipient, token, attempts }
    }))
}

statement! {
    /// A lease on the mail of a task that is over.
    struct Claim<'a> {
        owner: &'a str as Text,
        lease: f64 as Double,
    } -> (Integer, Text, Text, SqlUuid, Text, BigInt, Integer),
    "WITH due AS (
        SELECT m.realm_id, m.bulk_delete_id
        FROM bulk_delete_mail m
        JOIN bulk_delete b ON b.realm_id = m.realm_id AND b.id = m.bulk_delete_id
        WHERE m.status = 'pending' AND m.due_at <= now() AND b.ended_at IS NOT NULL
        ORDER BY m.due_at
        LIMIT 1
        FOR UPDATE OF m SKIP LOCKED
     )
     UPDATE bulk_delete_mail m
     SET lease_token = nextval('lease_token'), lease_owner = {owner}, due_at = now() + make_interval(secs => {lease}),
         attempts = m.attempts + 1
     FROM due d, realm r
     WHERE m.realm_id = d.realm_id AND m.bulk_delete_id = d.bulk_delete_id AND r.id = d.realm_id
     RETURNING m.realm_id, r.org, r.mode, m.bulk_delete_id, m.recipient, m.lease_token, m.attempts"
}

/// What became of an attempt.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The server has taken it.
    Sent,
    /// It was not taken, and is tried again after this time.
    Again(Duration, String),
    /// It was not taken, and is not tried again.
    Failed(String),
}

/// Writes down what became of an attempt. False if the lease is lost: then nothing is written.
pub fn finish(connection: &mut PgConnection, claim: &Claimed, outcome: &Outcome) -> Work<bool> {
    let (realm, task, token) = (claim.realm.id(), claim.task_id, claim.token);
    let written = match outcome {
        Outcome::Sent => Sent { realm, task, token }.execute(connection)?,
        Outcome::Again(delay, error) => Again { realm, task, token, delay: delay.as_secs_f64(), error }.execute(connection)?,
        Outcome::Failed(error) => Failed { realm, task, token, error }.execute(connection)?,
    };
    Ok(written == 1)
}

statement! {
    /// The end of a mail that was taken.
    struct Sent {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        token: i64 as BigInt,
    } -> (Bool,),
    "UPDATE bulk_delete_mail
     SET status = 'sent', finished_at = now(), last_error = NULL
     WHERE realm_id = {realm} AND bulk_delete_id = {task} AND lease_token = {token} AND status = 'pending'"
}

statement! {
    /// Another attempt, later.
    struct Again<'a> {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        token: i64 as BigInt,
        delay: f64 as Double,
        error: &'a str as Text,
    } -> (Bool,),
    "UPDATE bulk_delete_mail
     SET lease_token = nextval('lease_token'), lease_owner = NULL, due_at = now() + make_interval(secs => {delay}), last_error = {error}
     WHERE realm_id = {realm} AND bulk_delete_id = {task} AND lease_token = {token} AND status = 'pending'"
}

statement! {
    /// The end of a mail that will not be taken.
    struct Failed<'a> {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        token: i64 as BigInt,
        error: &'a str as Text,
    } -> (Bool,),
    "UPDATE bulk_delete_mail
     SET status = 'failed', finished_at = now(), last_error = {error}
     WHERE realm_id = {realm} AND bulk_delete_id = {task} AND lease_token = {token} AND status = 'pending'"
}
