//! Settings that are more than a value each, and all that can be wrong with them before anything is opened.

use super::bound::Bound;
use crate::access::tokens;
use crate::config::{Mail, Nats, Role, Serve, Tokens, roots_fault};
use crate::db;
use crate::error::{Result, Violations};
use crate::events::nats::NatsSettings;
use crate::limits::proxies::{TRUSTED_NETWORKS, TRUSTED_NETWORKS_AT_MOST};
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
        faults.add(
            variable,
            "invalid",
            format!("{fault}; the servers that are reached by TLS are checked by it"),
        );
    }
    pairs(settings, &mut faults);
    for checked in [
        mailer(&settings.mail).map(drop),
        nats(&settings.nats).map_or(Ok(()), |nats| nats.check()),
        tokens(&settings.tokens).map_or(Ok(()), |tokens| tokens.check()),
    ] {
        match checked {
            Err(error) if error.violations().is_empty() => return Err(error),
            Err(error) => faults.append(&error),
            Ok(()) => {}
        }
    }
    faults.check()
}

/// Settings that can each be, and not together.
fn pairs(settings: &Serve, faults: &mut Violations) {
    let mut refuse = |is_wrong: bool, flag: &str, fault: &dyn Fn() -> String| {
        if is_wrong {
            faults.add(flag, "out_of_range", fault());
        }
    };
    let (bodies, largest) = (&settings.bodies, settings.max_body_bytes);
    refuse(bodies.body_memory_bytes < largest as u64, "--body-memory-bytes", &|| {
        format!("must be at least --max-body-bytes, {largest}: else the largest body has no room")
    });
    let (lock, statement) = (settings.pool.lock_timeout(), settings.pool.db_statement_timeout);
    refuse(!statement.is_zero() && lock > statement, "--db-lock-timeout", &|| {
        format!(
            "must be at most --db-statement-timeout, {}: a statement that waits for a lock ends then",
            statement.as_secs_f64()
        )
    });
    let worker = &settings.worker;
    let (lease, works) = (worker.lease, settings.roles.contains(&Role::Worker));
    refuse(works && worker.bulk_chunk_target >= lease, "--bulk-chunk-target", &|| {
        format!(
            "must be less than --lease, {}: the end of a transaction is what renews the lease",
            lease.as_secs_f64()
        )
    });
    refuse(works && worker.poll_interval > lease, "--poll-interval", &|| {
        format!(
            "must be at most --lease, {}: what a lost worker leaves is found by a look",
            lease.as_secs_f64()
        )
    });
    let (refresh, outage) = (settings.tokens.jwks_refresh, settings.tokens.jwks_outage);
    refuse(outage <= refresh, "--jwks-outage", &|| {
        format!(
            "must be more than --jwks-refresh, {}: keys would be too old before they are fetched again",
            refresh.as_secs_f64()
        )
    });
    let grpc = &settings.grpc;
    let never_old = grpc.grpc_max_connection_age.is_zero();
    refuse(
        never_old && !grpc.grpc_max_connection_age_grace.is_zero(),
        "--grpc-max-connection-age-grace",
        &|| {
            "must be 0 where --grpc-max-connection-age is 0: it begins when a connection is old, and none ever is".to_owned()
        },
    );
    let proxies = &settings.proxies;
    let trusted = proxies.trusted_proxies.len();
    refuse(trusted > TRUSTED_NETWORKS_AT_MOST, "--trusted-proxies", &|| {
        TRUSTED_NETWORKS.reached();
        format!("must be at most {TRUSTED_NETWORKS_AT_MOST} networks")
    });
    for (is_given, flag) in [
        (proxies.proxy_protocol, "--proxy-protocol"),
        (proxies.forwarded_header.is_some(), "--forwarded-header"),
    ] {
        refuse(is_given && trusted == 0, flag, &|| {
            "needs --trusted-proxies: nobody else is believed".to_owned()
        });
    }
    parts(settings, &mut refuse);
}

/// A part of something that is said to be more than the whole.
fn parts(settings: &Serve, refuse: &mut impl FnMut(bool, &str, &dyn Fn() -> String)) {
    let mut part = |flag: &str, part: Option<usize>, of: &str, whole: usize| {
        refuse(part.is_some_and(|part| part > whole), flag, &|| {
            format!("must be at most {of}, {whole}")
        });
    };
    let (shares, pool) = (&settings.shares, settings.pool.db_pool_size as usize);
    let most = settings.listeners.max_connections as usize;
    part(
        "--max-connections-per-realm",
        settings.listeners.max_connections_per_realm.map(|part| part as usize),
        "--max-connections",
        most,
    );
    let calls = settings.max_concurrent_calls;
    part(
        "--realm-concurrent-calls",
        shares.realm_concurrent_calls,
        "--max-concurrent-calls",
        calls,
    );
    part(
        "--key-concurrent-calls",
        shares.key_concurrent_calls,
        "what its realm may have",
        shares.calls(calls).0,
    );
    part(
        "--realm-concurrent-streams",
        shares.realm_concurrent_streams,
        "--max-concurrent-streams",
        shares.max_concurrent_streams,
    );
    part(
        "--key-concurrent-streams",
        shares.key_concurrent_streams,
        "what its realm may have",
        shares.streams().0,
    );
    part("--realm-db-connections", shares.realm_db_connections, "--db-pool-size", pool);
    match shares.realm_db_connections {
        Some(realm) if realm < pool => part(
            "--slow-db-connections",
            shares.slow_db_connections,
            "--realm-db-connections",
            realm,
        ),
        _ => part("--slow-db-connections", shares.slow_db_connections, "--db-pool-size", pool),
    }
}

/// Returns whether a server of mails or of events is checked by the root certificates of the system.
fn uses_system_roots(settings: &Serve) -> bool {
    let by_tls = |url: &Option<String>, marks: &[&str]| {
        url.as_deref().is_some_and(|url| marks.iter().any(|mark| url.contains(mark)))
    };
    let mails = settings.mail.smtp_ca_file.is_none()
        && by_tls(&settings.mail.smtp_url, &["smtps://", "tls=required"]);
    let events =
        settings.nats.nats_ca_file.is_none() && by_tls(&settings.nats.nats_url, &["tls://"]);
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

/// Where the issuers of tokens are, if there are any.
pub(super) fn tokens(settings: &Tokens) -> Option<tokens::Options> {
    Some(tokens::Options {
        file: settings.auth_file.clone()?,
        token_bytes: settings.max_token_bytes,
        refresh: settings.jwks_refresh,
        refetch: settings.jwks_refetch,
        outage: settings.jwks_outage,
    })
}
