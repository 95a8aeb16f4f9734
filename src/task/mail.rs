//! The mail about a task's end: its recipient, its text, and the worker that sends it.
//!
//! It is sent only to the owner of the key that asks for it, and to addresses that the realm allows; it contains no text that a caller chose,
//! neither a filter nor a type nor an id; and a realm sends so many within an hour. Else it would carry anyone's words to anyone.
//!
//! A mail is sent at least once: a worker that dies between the server's yes and its own note of it leaves a lease that runs out, and the mail
//! is sent again, with the same `Message-ID`. A mail that cannot be sent changes nothing of the task.

use std::fmt::Write;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::access::Caller;
use crate::db::{Db, Realm, backoff_of};
use crate::error::{Code, Error, Result, Violations};
use crate::jobs::{Executor, Lease};
use crate::limits::mail::MAILS;
use crate::mail::{Mail, Mailer, Refusal, is_address, one_line};
use crate::proto::v1;
use crate::task::mail_queries::{self, ClaimedMail, Outcome, Permitted, Unsent};
use crate::task::model::{Reason, Task, tally};
use crate::task::queries;

/// Wakes nobody: mails are polled.
const TOPIC: &str = "bulk_delete_mail";
/// How often a mail is tried: for about three hours.
const MAX_ATTEMPTS: i32 = 20;
const MAX_DELAY: Duration = Duration::from_secs(900);
/// Longer than a server may take.
const LEASE_AT_LEAST: Duration = Duration::from_secs(60);
/// The parameters that a mail shows: those that are words of ours or numbers.
const PARAMETERS_SHOWN: [&str; 9] = [
    "mode",
    "matchAll",
    "uriCount",
    "excludeCount",
    "expectedCount",
    "maxObjects",
    "maxObjectsPerSecond",
    "cleanReportWithin",
    "fix",
];

/// Finds the recipient of the mail that a call asks for, if it asks for one: an address, or `true` for that of the caller's key.
pub async fn recipient(
    db: &Db,
    sends: bool,
    caller: &Caller,
    send_mail: &str,
    faults: &mut Violations,
) -> Result<Option<String>> {
    let asked = send_mail.trim();
    if matches!(asked, "" | "false") {
        return Ok(None);
    }
    if !sends {
        faults.add("send_mail", "invalid", "must be left out: this service has no mail server");
        return Ok(None);
    }
    if asked != "true" && !is_address(asked) {
        faults.add(
            "send_mail",
            "invalid",
            "must be `true` or an address, such as `someone@example.com`",
        );
        return Ok(None);
    }
    let (realm, key_id) = (caller.realm.clone(), caller.key_id);
    let permitted =
        db.run(move |connection| mail_queries::permitted(connection, &realm, key_id)).await?;
    if asked == "true" {
        let registered = permitted.registered.filter(|registered| is_address(registered));
        if registered.is_none() {
            faults.add(
                "send_mail",
                "invalid",
                "must be an address: no address is registered with this key",
            );
        }
        return Ok(registered);
    }
    if !permitted.has(asked) {
        faults.add("send_mail", "not_allowed", NOT_ALLOWED);
        return Ok(None);
    }
    Ok(Some(asked.to_owned()))
}

const NOT_ALLOWED: &str = "must be `true`, the address that is registered with this key, or one of a domain in `mail_domains` of the removal policy";

impl Permitted {
    /// Returns whether mail may be sent to this address. Upper and lower case are as one.
    fn has(&self, address: &str) -> bool {
        let domain = address.rsplit_once('@').map(|(_, domain)| domain.to_ascii_lowercase());
        self.registered.as_ref().is_some_and(|registered| registered.eq_ignore_ascii_case(address))
            || domain.is_some_and(|domain| self.domains.contains(&domain))
    }
}

/// The outcome of a mail, from the `status` and the `reason` of a task's account.
pub fn to_proto(mail: &serde_json::Value) -> v1::TaskMail {
    let text = |name| mail.get(name).and_then(serde_json::Value::as_str);
    let status = match text("status") {
        Some("sent") => v1::TaskMailStatus::Sent,
        Some("failed") => v1::TaskMailStatus::Failed,
        _ => v1::TaskMailStatus::Pending,
    };
    // A version before this one writes no reason where it gives up.
    let otherwise = (status == v1::TaskMailStatus::Failed).then_some(Unsent::Refused);
    let reason = text("reason").and_then(Unsent::parse).or(otherwise);
    v1::TaskMail {
        status: status.into(),
        reason: reason.map(|reason| reason.to_string()),
        message: reason.map(|reason| reason.message().to_owned()),
    }
}

/// The dependencies of the worker that sends the mails of tasks.
pub struct MailExecutor {
    db: Db,
    mailer: Mailer,
    lease: Lease,
    public_url: Option<String>,
    per_hour: i64,
}

impl MailExecutor {
    /// A worker on this database. `public_url` is where callers reach the REST listener, `per_hour` how many mails a realm may send.
    pub fn new(
        db: Db,
        mailer: Mailer,
        lease: Lease,
        public_url: Option<String>,
        per_hour: i64,
    ) -> Self {
        let lease = Lease { duration: lease.duration.max(LEASE_AT_LEAST), ..lease };
        MailExecutor { db, mailer, lease, public_url, per_hour }
    }

    /// Lets a mail through to the server, or says why it may not be sent. The policy may have changed since it was asked for.
    async fn admit(&self, claim: &ClaimedMail) -> Result<Option<Unsent>> {
        let (claim, at_most) = (claim.clone(), self.per_hour);
        let admit = move |connection: &mut diesel::PgConnection| {
            if !mail_queries::permitted(connection, &claim.realm, claim.key_id)?
                .has(&claim.recipient)
            {
                return Ok(Some(Unsent::NotAllowed));
            }
            Ok((!mail_queries::admit(connection, &claim, at_most)?).then_some(Unsent::Limit))
        };
        self.db.transaction(admit).await
    }

    /// Gives a mail to the server.
    async fn send(&self, claim: &ClaimedMail, stop: &CancellationToken) -> Result<Outcome> {
        match self.admit(claim).await? {
            Some(Unsent::Limit) => {
                MAILS.reached();
                return Ok(Outcome::Failed(
                    Unsent::Limit,
                    format!("the realm has sent {} mails within an hour", self.per_hour),
                ));
            }
            Some(reason) => {
                return Ok(Outcome::Failed(reason, "the address is no longer allowed".to_owned()));
            }
            None => {}
        }
        let mail = self.mail(claim).await?;
        let sent = tokio::select! {
            sent = self.mailer.send(&mail) => sent,
            () = stop.cancelled() => Err(Refusal::ForNow("the service shut down".to_owned())),
        };
        Ok(match sent {
            Ok(()) => Outcome::Sent,
            Err(Refusal::ForNow(error)) if claim.attempts < MAX_ATTEMPTS => {
                Outcome::Again(backoff_of(claim.attempts, MAX_DELAY), error)
            }
            Err(Refusal::ForNow(error)) => Outcome::Failed(Unsent::Unreachable, error),
            Err(Refusal::ForGood(error)) => Outcome::Failed(Unsent::Refused, error),
        })
    }

    async fn mail(&self, claim: &ClaimedMail) -> Result<Mail> {
        let (realm, id) = (claim.realm.clone(), claim.task_id);
        let found = self.db.run(move |connection| {
            let task = queries::get(connection, &realm, id)?;
            let failures = mail_queries::failures_by_reason(connection, &realm, id)?;
            Ok(task.map(|task| (task, failures)))
        });
        let (task, failures) =
            found.await?.ok_or_else(|| Error::internal("the task of a mail is there"))?;
        Ok(write(&task, &failures, &claim.realm, &claim.recipient, self.public_url.as_deref()))
    }
}

#[tonic::async_trait]
impl Executor for MailExecutor {
    type Job = ClaimedMail;

    fn topic(&self) -> &'static str {
        TOPIC
    }

    async fn claim(&self) -> Result<Option<ClaimedMail>> {
        let Lease { owner, duration } = self.lease.clone();
        self.db.run(move |connection| mail_queries::claim(connection, &owner, duration)).await
    }

    async fn execute(&self, claim: ClaimedMail, stop: &CancellationToken) -> Result<()> {
        let outcome = self.send(&claim, stop).await?;
        let (org, mode) = (claim.realm.org(), claim.realm.mode());
        match &outcome {
            Outcome::Sent => tracing::info!(task = %claim.task_id, org, %mode, "mail sent"),
            Outcome::Again(delay, cause) => {
                tracing::warn!(task = %claim.task_id, org, %mode, attempts = claim.attempts, ?delay, cause, "mail not sent yet")
            }
            Outcome::Failed(reason, cause) => {
                tracing::error!(task = %claim.task_id, org, %mode, attempts = claim.attempts, %reason, cause, "mail given up")
            }
        }
        self.db
            .run(move |connection| mail_queries::finish(connection, &claim, &outcome))
            .await
            .map(drop)
    }
}

/// The mail about a task's end.
fn write(
    task: &Task,
    failures: &[(String, i64)],
    realm: &Realm,
    to: &str,
    public_url: Option<&str>,
) -> Mail {
    let status = task.state.as_str().replace('_', " ");
    // The name continues with the type that was asked for.
    let name = one_line(task.name.split(':').next().unwrap_or_default());
    let mut text = format!("{name}\n\nThe task is over: {status}.\n\n");
    if let Some(code) = task.error_code.as_deref().and_then(Code::from_reason) {
        let _ = writeln!(text, "{} (`{code}`)\n", code.title());
    }
    let mut row = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "  {name:<22} {value}");
    };
    row("Task", &task.id);
    row("Organisation", &format!("{} ({})", realm.org(), realm.mode()));
    row("Asked for by", &task.principal_id);
    for (name, moment) in [
        ("Asked for", Some(task.created_at)),
        ("Started", task.started_at),
        ("Ended", task.ended_at),
    ] {
        if let Some(moment) = moment {
            row(name, &moment.format("%Y-%m-%d %H:%M:%S UTC"));
        }
    }
    for name in PARAMETERS_SHOWN {
        if let Some(value) = task.parameters.get(name).and_then(serde_json::Value::as_str) {
            row(name, &one_line(value));
        }
    }
    row("Matched", &task.matched);
    row("Done", &task.processed);
    row("Failed", &task.failed);
    row("Excluded", &task.excluded);
    row("Skipped", &task.skipped);
    if !failures.is_empty() {
        let _ = writeln!(text, "\nWhy entities could not be deleted:\n");
        for (reason, count) in failures {
            let message: &str = match Reason::parse(reason) {
                Some(reason) => reason.message(),
                None => reason,
            };
            let _ = writeln!(text, "  {count}: {message}");
        }
    }
    let (findings, mended) = tally(&task.findings);
    if !findings.is_empty() {
        let _ = writeln!(text, "\nFindings ({mended} repaired):\n");
        for (kind, found) in &findings {
            let _ = writeln!(text, "  {kind}: {found}");
        }
    }
    let _ = write!(text, "\n{}", how_to_see_more(task, realm, public_url));
    let subject = format!("{name}: {status}");
    Mail { to: to.to_owned(), subject, text, id: task.id.to_string() }
}

fn how_to_see_more(task: &Task, realm: &Realm, public_url: Option<&str>) -> String {
    let path = format!(
        "{}/api/{}/tasks/{}",
        public_url.unwrap_or_default().trim_end_matches('/'),
        realm.org(),
        task.id
    );
    let mut text = format!(
        "The task, by REST and on the command line:\n\n  GET {path}\n  offboard bulk-delete watch {}\n",
        task.id
    );
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_goes_to_the_registered_address_and_to_the_domains_of_the_realm() {
        let permitted = Permitted {
            registered: Some("Jo@Own.Example".to_owned()),
            domains: vec!["team.example".to_owned()],
        };
        for address in ["jo@own.example", "anyone@team.example", "ANYONE@TEAM.EXAMPLE"] {
            assert!(permitted.has(address), "{address}");
        }
        for address in [
            "other@own.example",
            "jo@sub.team.example",
            "jo@team.example.evil.example",
            "jo@xteam.example",
            "team.example",
            "",
        ] {
            assert!(!permitted.has(address), "{address}");
        }
        assert!(!Permitted::default().has("jo@own.example"));
    }

    #[test]
    fn a_mail_that_was_given_up_always_has_a_reason() {
        let reported = |status: &str, reason: Option<&str>| {
            to_proto(&serde_json::json!({"status": status, "reason": reason})).reason
        };
        assert_eq!(
            reported("failed", None).as_deref(),
            Some("refused"),
            "as versions before this one write it"
        );
        assert_eq!(reported("failed", Some("limit")).as_deref(), Some("limit"));
        assert_eq!((reported("pending", None), reported("sent", None)), (None, None));
    }
}
