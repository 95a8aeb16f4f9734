//! The SQL of the mail about a task's end.

use std::time::Duration;

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Double, Integer, Nullable, Text, Uuid as SqlUuid};
use uuid::Uuid;

use crate::access;
use crate::db::{self, Realm, Work, lock_realm, statement, text_enum};

/// The longest wait for another try of a mail, and a lease.
const LONGEST_WAIT: Duration = Duration::from_secs(1_000);

/// Has a mail sent when the task is over. Call it in the transaction that starts the task.
pub fn ask(
    connection: &mut PgConnection,
    realm: &Realm,
    task_id: Uuid,
    recipient: &str,
) -> Work<()> {
    Ask { realm: realm.id(), task: task_id, recipient }.execute(connection)?;
    Ok(())
}

statement! {
    /// A mail that is to be sent when its task has ended.
    struct Ask<'a> {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        recipient: &'a str as Text,
    } -> (),
    "INSERT INTO bulk_delete_mail (realm_id, bulk_delete_id, recipient) VALUES ({realm}, {task}, {recipient})"
}

/// The recipients that a caller may ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permitted {
    /// The address that is registered with the caller's key.
    pub registered: Option<String>,
    /// The domains that the realm allows, in lower case.
    pub domains: Vec<String>,
}

/// The recipients that a key may ask for, or a caller with a token, who has no address that is registered.
pub fn permitted(connection: &mut PgConnection, realm: &Realm, key_id: Uuid) -> Work<Permitted> {
    let found: Option<(Option<String>, Option<Vec<String>>)> =
        ReadPermitted { realm: realm.id(), key: key_id, by_token: access::is_of_token(key_id) }
            .get_result(connection)
            .optional()?;
    Ok(found
        .map(|(registered, domains)| Permitted { registered, domains: domains.unwrap_or_default() })
        .unwrap_or_default())
}

statement! {
    /// The address of a key and the domains of its realm.
    struct ReadPermitted {
        realm: i32 as Integer,
        key: Uuid as SqlUuid,
        by_token: bool as Bool,
    } -> (Nullable<Text>, Nullable<Array<Text>>),
    "SELECT k.email, p.mail_domains
     FROM realm r
     LEFT JOIN api_key k ON k.realm_id = r.id AND k.id = {key}
     LEFT JOIN removal_policy p ON p.realm_id = r.id
     WHERE r.id = {realm} AND (k.id IS NOT NULL OR {by_token})"
}

/// How many entities a task could not delete, for each reason.
pub fn failures_by_reason(
    connection: &mut PgConnection,
    realm: &Realm,
    task_id: Uuid,
) -> Work<Vec<(String, i64)>> {
    Ok(FailuresByReason { realm: realm.id(), task: task_id }.load(connection)?)
}

statement! {
    /// The most frequent reason first.
    struct FailuresByReason {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
    } -> (Text, BigInt),
    "SELECT f.reason, count(*)
     FROM bulk_delete_failure f
     WHERE f.realm_id = {realm} AND f.bulk_delete_id = {task}
     GROUP BY f.reason
     ORDER BY count(*) DESC, f.reason"
}

/// A mail that this replica has the lease of.
#[derive(Clone, Debug)]
pub struct ClaimedMail {
    /// The realm.
    pub realm: Realm,
    /// The task.
    pub task_id: Uuid,
    /// The recipient.
    pub recipient: String,
    /// The key of the caller that asked for it.
    pub key_id: Uuid,
    /// Fences the lease.
    pub token: i64,
    /// How often it was tried, this time included.
    pub attempts: i32,
}

/// Claims a mail that is ready, also one whose worker was lost: of the realms that have any that of the one that has sent the fewest within
/// the last hour, and of its mails the one that has been ready for longest.
pub fn claim(
    connection: &mut PgConnection,
    owner: &str,
    lease: Duration,
) -> Work<Option<ClaimedMail>> {
    type Row = (i32, String, db::Mode, Uuid, String, Uuid, i64, i32);
    let row: Option<Row> =
        ClaimMail { owner, lease: lease.as_secs_f64() }.get_result(connection).optional()?;
    Ok(row.map(|(realm_id, org, mode, task_id, recipient, key_id, token, attempts)| {
        let realm = Realm::from_row(realm_id, org, mode);
        ClaimedMail { realm, task_id, recipient, key_id, token, attempts }
    }))
}

statement! {
    /// A lease on the mail of a task that is over.
    struct ClaimMail<'a> {
        owner: &'a str as Text,
        lease: f64 as Double,
    } -> (Integer, Text, Text, SqlUuid, Text, SqlUuid, BigInt, Integer),
    "WITH waiting AS MATERIALIZED (
        SELECT m.realm_id, m.bulk_delete_id, m.due_at
        FROM bulk_delete_mail m
        JOIN bulk_delete b ON b.realm_id = m.realm_id AND b.id = m.bulk_delete_id
        WHERE m.status = 'pending' AND m.due_at <= now() AND b.ended_at IS NOT NULL
     ),
     turn AS (
        SELECT w.realm_id, (SELECT count(*) FROM bulk_delete_mail o WHERE o.realm_id = w.realm_id AND o.admitted_at > now() - interval '1 hour') AS sent
        FROM (SELECT DISTINCT realm_id FROM waiting) w
     ),
     due AS (
        SELECT m.realm_id, m.bulk_delete_id, b.api_key_id
        FROM waiting w
        JOIN turn t ON t.realm_id = w.realm_id
        JOIN bulk_delete_mail m ON m.realm_id = w.realm_id AND m.bulk_delete_id = w.bulk_delete_id
        JOIN bulk_delete b ON b.realm_id = m.realm_id AND b.id = m.bulk_delete_id
        WHERE m.status = 'pending' AND m.due_at <= now()
        ORDER BY t.sent, w.due_at
        LIMIT 1
        FOR UPDATE OF m SKIP LOCKED
     )
     UPDATE bulk_delete_mail m
     SET lease_token = nextval('lease_token'), lease_owner = {owner}, due_at = now() + make_interval(secs => {lease}),
         attempts = m.attempts + 1
     FROM due d, realm r
     WHERE m.realm_id = d.realm_id AND m.bulk_delete_id = d.bulk_delete_id AND r.id = d.realm_id
     RETURNING m.realm_id, r.org, r.mode, m.bulk_delete_id, m.recipient, d.api_key_id, m.lease_token, m.attempts"
}

/// Lets a mail through to the server, unless its realm has let through that many others within the last hour. One that was let through stays so.
/// Call it in a transaction: mails of one realm wait for each other, so that none is counted too late.
pub fn admit(connection: &mut PgConnection, claim: &ClaimedMail, at_most: i64) -> Work<bool> {
    lock_realm(connection, &claim.realm)?;
    let admit = Admit { realm: claim.realm.id(), task: claim.task_id, token: claim.token, at_most };
    Ok(admit.execute(connection)? == 1)
}

statement! {
    /// A mail that is let through, if there are not too many.
    struct Admit {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        token: i64 as BigInt,
        at_most: i64 as BigInt,
    } -> (),
    "UPDATE bulk_delete_mail m
     SET admitted_at = coalesce(m.admitted_at, now())
     WHERE m.realm_id = {realm} AND m.bulk_delete_id = {task} AND m.lease_token = {token} AND m.status = 'pending'
       AND (m.admitted_at IS NOT NULL
            OR (SELECT count(*) FROM bulk_delete_mail o WHERE o.realm_id = {realm} AND o.admitted_at > now() - interval '1 hour') < {at_most})"
}

text_enum! {
    /// Why a mail is not sent, or not yet.
    pub enum Unsent {
        /// The realm has sent as many as it may.
        Limit = "limit",
        /// Mail may not be sent to the address any more.
        NotAllowed = "not_allowed",
        /// The server does not take it.
        Refused = "refused",
        /// The server could not be reached, or said to come back later.
        Unreachable = "unreachable",
    }
}

impl Unsent {
    /// The reason as a sentence.
    pub fn message(self) -> &'static str {
        match self {
            Unsent::Limit => "The realm has sent as many mails as it may within an hour.",
            Unsent::NotAllowed => "The removal policy allows mail to the address no longer.",
            Unsent::Refused => "The mail server does not take it.",
            Unsent::Unreachable => {
                "The mail server could not be reached, or said to come back later."
            }
        }
    }
}

/// The outcome of an attempt. The texts are for the operator.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The server has taken it.
    Sent,
    /// It was not taken, and is tried again after this time.
    Again(Duration, String),
    /// It was not taken, and is not tried again.
    Failed(Unsent, String),
}

/// Writes down what became of an attempt. False if the lease is lost: then nothing is written.
pub fn finish(connection: &mut PgConnection, claim: &ClaimedMail, outcome: &Outcome) -> Work<bool> {
    let (realm, task, token) = (claim.realm.id(), claim.task_id, claim.token);
    let written = match outcome {
        Outcome::Sent => Sent { realm, task, token }.execute(connection)?,
        Outcome::Again(delay, error) => {
            Again { realm, task, token, delay: delay.as_secs_f64(), error }.execute(connection)?
        }
        Outcome::Failed(reason, error) => {
            Failed { realm, task, token, reason: reason.as_str(), error }.execute(connection)?
        }
    };
    Ok(written == 1)
}

statement! {
    /// The end of a mail that was taken.
    struct Sent {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        token: i64 as BigInt,
    } -> (),
    "UPDATE bulk_delete_mail
     SET status = 'sent', finished_at = now(), last_error = NULL, reason = NULL
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
    } -> (),
    "UPDATE bulk_delete_mail
     SET lease_token = nextval('lease_token'), lease_owner = NULL, due_at = now() + make_interval(secs => {delay}), last_error = {error},
         reason = 'unreachable'
     WHERE realm_id = {realm} AND bulk_delete_id = {task} AND lease_token = {token} AND status = 'pending'"
}

statement! {
    /// The end of a mail that will not be taken.
    struct Failed<'a> {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        token: i64 as BigInt,
        reason: &'a str as Text,
        error: &'a str as Text,
    } -> (),
    "UPDATE bulk_delete_mail
     SET status = 'failed', finished_at = now(), last_error = {error}, reason = {reason}
     WHERE realm_id = {realm} AND bulk_delete_id = {task} AND lease_token = {token} AND status = 'pending'"
}

/// Makes mails ready that are scheduled later than so long from now. See [`crate::jobs::watch_clock`].
pub fn recall(connection: &mut PgConnection, bound: Duration) -> Work<usize> {
    Ok(Recall { bound: bound.max(LONGEST_WAIT).as_secs_f64() }.execute(connection)?)
}

statement! {
    /// Mails that were postponed before the clock stepped back.
    struct Recall {
        bound: f64 as Double,
    } -> (),
    "UPDATE bulk_delete_mail SET due_at = '-infinity' WHERE status = 'pending' AND due_at > now() + make_interval(secs => {bound})"
}
