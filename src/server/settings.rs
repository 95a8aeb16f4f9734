//! Settings that are more than a value each, and all that can be wrong with them before anything is opened.

use super::bound::Bound;
use crate::config::{Mail, Nats, Role, Serve, roots_fault};
use crate::db;
use crate::error::{Result, Violations};
use crate::events::nats::NatsSettings;
use crate::mail::{MailSettings, Mailer};

/// Fails with all that is wrong with the settings of a service, as far as that can be known while nothing of it runs.
pub fn check(settings: &Serve) -> Result<()> {
    let mut faults = Violations::new();
    if let Some(fault) = settings.database.database_url.as_deref().and_then(db::address_fault) {
        faults.add("--database-url", "invalid", fault);
    }
    Bound::check(settings, &mut faults);
    if uses_system_roots(settings)
        && let Some((variable, fault)) = roots_fault()
    {
        faults.add(variable, "invalid", format!("{fault}; the servers that are reached by TLS are checked by it"));
    }
    if settings.bodies.body_memory_bytes < settings.max_body_bytes as u64 {
        let fault = format!("must be at least --max-body-bytes, {}: else the largest body has no room", settings.max_body_bytes);
        faults.add("--body-memory-bytes", "out_of_range", fault);
    }
    for checked in [mailer(&settings.mail).map(drop), nats(&settings.nats).map_or(Ok(()), |nats| nats.check())] {
        match checked {
            Err(error) if error.violations().is_empty() => return Err(error),
            Err(error) => faults.append(&error),
            Ok(()) => {}
        }
    }
    faults.check()
}

/// Returns whether a server of mails or of events is checked by the root certificates of the system.
fn uses_system_roots(settings: &Serve) -> bool {
    let by_tls = |url: &Option<String>, marks: &[&str]| url.as_deref().is_some_and(|url| marks.iter().any(|mark| url.contains(mark)));
    let mails = settings.mail.smtp_ca_file.is_none() && by_tls(&settings.mail.smtp_url, &["smtps://", "tls=required"]);
    let events = settings.nats.nats_ca_file.is_none() && by_tls(&settings.nats.nats_url, &["tls://"]);
    settings.roles.contains(&Role::Worker) && (mails || events)
}

/// Sends mails to the server, if one is set.
pub(super) fn mailer(settings: &Mail) -> Result<Option<Mailer>> {
    let Some(url) = settings.smtp_url.clone() else { return Ok(None) };
    let from = settings.mail_from.clone().unwrap_or_default();
    Mailer::new(&MailSettings { url, from, ca_file: settings.smtp_ca_file.clone() }).map(Some)
}

/// Where to publish to, if anywhere.
pub(super) fn nats(settings: &Nats) -> Option<NatsSettings> {
    Some(NatsSettings {
        url: settings.nats_url.clone()?,
        credentials_file: settings.nats_credentials_file.clone(),
        ca_file: settings.nats_ca_file.clone(),
        subject_prefix: settings.nats_subject_prefix.clone(),
        stream: settings.nats_stream.clone(),
        create_stream: settings.nats_create_stream,
    })
}
