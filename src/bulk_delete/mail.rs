//! The mail that tells of a task's end: to whom it goes, what it says, and the worker that sends it.
//!
//! A mail is sent at least once: a worker that dies between the server's yes and its own note of it leaves a lease that runs out, and the mail
//! goes again, with the same `Message-ID`. A mail that cannot be sent changes nothing of the task.

use std::fmt::Write;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::access::Caller;
use crate::access::queries::key_email;
use crate::bulk_delete::consistency::model::tally;
use crate::bulk_delete::mail_queries::{self, Claimed, Outcome};
use crate::bulk_delete::model::Task;
use crate::bulk_delete::queries::{self, Failure};
use crate::db::{Db, Realm};
use crate::error::{Error, Result, Violations};
use crate::jobs::{Executor, Lease};
use crate::mail::{Letter, Mailer, Refusal, is_address, one_line};

/// Wakes nobody: mails are looked for.
const TOPIC: &str = "bulk_delete_mail";
/// How often a mail is tried: for about three hours.
const MAX_ATTEMPTS: i32 = 20;
const MAX_DELAY: Duration = Duration::from_secs(900);
/// Longer than a server may take.
const LEASE_AT_LEAST: Duration = Duration::from_secs(60);
/// How many failures a mail shows.
const FAILURES_SHOWN: i64 = 20;
/// How many characters of a parameter a mail shows.
const PARAMETER_SHOWN: usize = 500;

/// Finds to whom the mail goes that a call asks for, if it asks for one: an address, or `true` for that of the caller's key.
pub async fn recipient(db: &Db, sends: bool, caller: &Caller, send_mail: &str, faults: &mut Violations) -> Result<Option<String>> {
    let asked = send_mail.trim();
    if matches!(asked, "" | "false") {
        return Ok(None);
    }
    if !sends {
        faults.add("send_mail", "invalid", "must be left out: this service has no mail server");
        return Ok(None);
    }
    if asked != "true" {
        if !is_address(asked) {
            faults.add("send_mail", "invalid", "must be `true` or an address, such as `someone@example.com`");
        }
        return Ok(Some(asked.to_owned()));
    }
    let (realm, key_id) = (caller.realm.clone(), caller.key_id);
    let email = db.run(move |connection| key_email(connection, &realm, key_id)).await?.filter(|email| is_address(email));
    if email.is_none() {
        faults.add("send_mail", "invalid", "must be an address: no address is registered with this key");
    }
    Ok(email)
}

/// What one needs to send the mails of tasks.
pub struct MailExecutor {
    db: Db,
    mailer: Mailer,
    lease: Lease,
    public_url: Option<String>,
}

impl MailExecutor {
    /// A worker on this database. `public_url` is where callers reach the REST door.
    pub fn new(db: Db, mailer: Mailer, lease: Lease, public_url: Option<String>) -> Self {
        let lease = Lease { duration: lease.duration.max(LEASE_AT_LEAST), ..lease };
        MailExecutor { db, mailer, lease, public_url }
    }

    async fn letter(&self, claim: &Claimed) -> Result<Letter> {
        let (realm, id) = (claim.realm.clone(), claim.task_id);
        let found = self.db.run(move |connection| {
            let task = queries::get(connection, &realm, id)?;
            let failures = queries::failures(connection, &realm, (id, None), "", FAILURES_SHOWN)?;
            Ok(task.zip(failures))
        });
        let (task, failures) = found.await?.ok_or_else(|| Error::internal("the task of a mail is there"))?;
        Ok(write(&task, &failures, &claim.realm, &claim.recipient, self.public_url.as_deref()))
    }
}

#[tonic::async_trait]
impl Executor for MailExecutor {
    type Job = Claimed;

    fn topic(&self) -> &'static str {
        TOPIC
    }

    async fn claim(&self) -> Result<Option<Claimed>> {
        let Lease { owner, duration } = self.lease.clone();
        self.db.run(move |connection| mail_queries::claim(connection, &owner, duration)).await
    }

    async fn execute(&self, claim: Claimed, stop: &CancellationToken) -> Result<()> {
        let letter = self.letter(&claim).await?;
        let sent = tokio::select! {
            sent = self.mailer.send(&letter) => sent,
            () = stop.cancelled() => Err(Refusal::ForNow("the service shut down".to_owned())),
        };
        let outcome = match sent {
            Ok(()) => Outcome::Sent,
            Err(Refusal::ForNow(error)) if claim.attempts < MAX_ATTEMPTS => Outcome::Again(backoff(claim.attempts), error),
            Err(Refusal::ForNow(error) | Refusal::ForGood(error)) => Outcome::Failed(error),
        };
        let (org, mode) = (claim.realm.org(), claim.realm.mode());
        match &outcome {
            Outcome::Sent => tracing::info!(task = %claim.task_id, org, %mode, "mail sent"),
            Outcome::Again(delay, cause) => {
                tracing::warn!(task = %claim.task_id, org, %mode, attempts = claim.attempts, ?delay, cause, "mail not sent yet")
            }
            Outcome::Failed(cause) => tracing::error!(task = %claim.task_id, org, %mode, attempts = claim.attempts, cause, "mail given up"),
        }
        self.db.run(move |connection| mail_queries::finish(connection, &claim, &outcome)).await.map(drop)
    }
}

/// How long to wait before the next try: one second after the first, twice as long each time, up to a bound.
fn backoff(attempts: i32) -> Duration {
    let doublings = attempts.saturating_sub(1).clamp(0, 10).unsigned_abs();
    Duration::from_secs(1 << doublings).min(MAX_DELAY)
}

/// The mail that tells of a task's end.
fn write(task: &Task, failures: &[Failure], realm: &Realm, to: &str, public_url: Option<&str>) -> Letter {
    let status = task.state.as_str().replace('_', " ");
    let mut text = format!("{}\n\nThe task is over: {status}.\n\n", one_line(&task.name));
    if let Some(message) = &task.error_message {
        let _ = writeln!(text, "{}\n", one_line(message));
    }
    let mut row = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "  {name:<22} {value}");
    };
    row("Task", &task.id);
    row("Organisation", &format!("{} ({})", realm.org(), realm.mode()));
    row("Asked for by", &task.principal_id);
    for (name, moment) in [("Asked for", Some(task.created_at)), ("Started", task.started_at), ("Ended", task.ended_at)] {
        if let Some(moment) = moment {
            row(name, &moment.format("%Y-%m-%d %H:%M:%S UTC"));
        }
    }
    for (name, value) in task.parameters.as_object().into_iter().flatten().filter(|(name, _)| *name != "tenantId") {
        row(name, &shortened(value.as_str().unwrap_or_default()));
    }
    row("Matched", &task.matched);
    row("Done", &task.processed);
    row("Failed", &task.failed);
    row("Spared", &task.excluded);
    row("Skipped", &task.skipped);
    if !failures.is_empty() {
        let _ = writeln!(text, "\n{}\n", if task.failed as usize > failures.len() { "The first that failed:" } else { "What failed:" });
        for failure in failures.iter().take(FAILURES_SHOWN as usize) {
            let _ = writeln!(text, "  {}: {}", failure.entity_id, failure.reason.message());
        }
    }
    let (findings, mended) = tally(&task.findings);
    if !findings.is_empty() {
        let _ = writeln!(text, "\nWhat should not be ({mended} mended):\n");
        for (kind, found) in &findings {
            let _ = writeln!(text, "  {kind}: {found}");
        }
    }
    let _ = write!(text, "\n{}", how_to_see_more(task, realm, public_url));
    let subject = format!("{}: {status}", one_line(&task.name));
    Letter { to: to.to_owned(), subject, text, id: task.id.to_string() }
}

fn how_to_see_more(task: &Task, realm: &Realm, public_url: Option<&str>) -> String {
    let path = format!("{}/api/{}/tasks/{}", public_url.unwrap_or_default().trim_end_matches('/'), realm.org(), task.id);
    let mut text = format!("The task, by REST and on the command line:\n\n  GET {path}\n  offboard bulk-delete watch {}\n", task.id);
    if task.failed > 0 {
        let _ = write!(
            text,
            "\nEverything that failed, with its reason; with `Accept: text/csv` as a table:\n\n  GET {path}/failures\n  offboard bulk-delete failures {}\n",
            task.id
        );
    }
    if !tally(&task.findings).0.is_empty() {
        let _ = write!(text, "\nEverything that was found:\n\n  GET {path}/findings\n");
    }
    text
}

/// The start of a text that may be long, on one line.
fn shortened(text: &str) -> String {
    let line = one_line(text);
    match line.char_indices().nth(PARAMETER_SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_quarter_of_an_hour() {
        assert_eq!([1, 2, 5, 10, 11, 20].map(|attempts| backoff(attempts).as_secs()), [1, 2, 16, 512, 900, 900]);
    }

    #[test]
    fn a_long_parameter_is_shown_by_its_start_and_on_one_line() {
        assert_eq!(shortened("a\r\nb"), "a  b");
        let long = shortened(&"ä".repeat(600));
        assert_eq!((long.chars().count(), long.ends_with('…')), (501, true));
    }
}
