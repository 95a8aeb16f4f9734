//! How a connection is made, and the settings that its session needs, whatever the defaults of its role and its database.

use std::ffi::CString;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Integer, Text, Timestamptz};
use diesel::{Connection, ConnectionError, sql_query};

use super::fault::{Fault, fault, is_on_another_backend, is_out_of_turn};
use super::options::Options;
use super::refused::Refused;
use super::vitals::{Monitor, Vitals};
use super::{clock, sequences, watchdog};
use crate::error::one_line;

/// The one encoding in which every text can be stored that a caller may send.
const ENCODING: &str = "UTF8";

/// A connection, and what is known of it.
pub(super) struct Session {
    /// The connection.
    pub(super) connection: PgConnection,
    /// Its state, as others see it.
    pub(super) vitals: Arc<Vitals>,
    /// The backend's process id from the start of the connection: it differs from the one that the backend itself gives if a pooler is in
    /// between.
    pub(super) reported: i32,
    /// The backend's process id as it says itself.
    pub(super) backend: i32,
}

/// Opens a connection with the settings that every session of ours has.
pub fn connect(options: &Options) -> Result<PgConnection, Refused> {
    open(options).map(|session| session.connection)
}

/// The same, with what is known of it.
pub(super) fn open(options: &Options) -> Result<Session, Refused> {
    let seen: Arc<OnceLock<(Arc<Vitals>, i32)>> = Arc::default();
    let (shown, watched) = (seen.clone(), options.clone());
    let established = pq_sys::establish(
        move |connected| {
            let vitals = Arc::new(Vitals::new(
                connected.socket,
                connected.cancel,
                connect_timeout(&watched),
            ));
            watchdog::watch(&vitals, &watched, connect);
            // Set once: the closure is called once.
            let _ = shown.set((vitals, connected.backend));
        },
        || PgConnection::establish(&bounded(options)),
    );
    let mut connection = established.map_err(unusable)?;
    let Some((vitals, reported)) = seen.get().cloned() else {
        return Err(Refused::Unreachable(ConnectionError::BadConnection(
            "the connection has no socket".to_owned(),
        )));
    };
    let set_up = |error| match error {
        error if is_on_another_backend(&error) => Refused::Unfit(SHARED.to_owned()),
        // The server has said all that it says of a connection, and then nothing.
        error if vitals.is_given_up() || is_out_of_turn(&error) => Refused::Queued,
        error => Refused::Unreachable(ConnectionError::CouldntSetupConfiguration(error)),
    };
    connection.batch_execute(&settings(options)).map_err(set_up)?;
    let facts = ask(&mut connection).map_err(set_up)?;
    if facts.encoding != ENCODING {
        return Err(Refused::Unfit(format!(
            "The database has the encoding {} and must have {ENCODING}: make it by `createdb --encoding=UTF8 --template=template0`.",
            facts.encoding
        )));
    }
    vitals.established(facts.backend);
    connection.set_instrumentation(Monitor::new(vitals.clone()));
    if !facts.read_only {
        sequences::see_to(&mut connection, &vitals).map_err(|error| match fault(&error) {
            Fault::Denied => Refused::Unfit(sequences::BEHIND.to_owned()),
            _ => set_up(error),
        })?;
    }
    connection
        .batch_execute(&format!(
            "SET statement_timeout = {}",
            options.statement_timeout.as_millis()
        ))
        .map_err(set_up)?;
    vitals.allow(options.statement_timeout);
    Ok(Session { connection, vitals, reported, backend: facts.backend })
}

/// How libpq's messages begin about an address that it refuses before it connects.
const REFUSED_ADDRESS: [&str; 7] = [
    "invalid ",
    "definition of service ",
    "service file ",
    "syntax error in service file ",
    "nested service ",
    "could not match ",
    "missing ",
];

/// The messages of libpq about a server that does not match the address, and what they mean.
const REFUSED_SERVERS: [(&str, &str); 5] = [
    (
        "server does not support SSL, but SSL was required",
        "The server speaks no TLS, and the `sslmode` of `--database-url` asks for it.",
    ),
    (
        "certificate verify failed",
        "The server's certificate is of no authority that is trusted: name the right one by `sslrootcert` in `--database-url`.",
    ),
    (
        "does not match host name",
        "The server's certificate is of another host than the one that `--database-url` names.",
    ),
    (
        "GSSAPI encryption required but",
        "The `gssencmode` of `--database-url` asks for GSSAPI, which cannot be had.",
    ),
    (
        "authentication method requirement",
        "The server asks for a role to prove itself in a way that the `require_auth` of `--database-url` does not let it.",
    ),
];

/// A failure to connect: also by what the address says, or by what it asks of the server. libpq finds that out by itself, in words that are
/// its own in any language, and repeats what it does not understand, of which [`address_fault`](super::address_fault) has seen that it is
/// not a password.
fn unusable(error: ConnectionError) -> Refused {
    let ConnectionError::BadConnection(message) = &error else {
        return Refused::Unreachable(error);
    };
    if REFUSED_ADDRESS.iter().any(|beginning| message.starts_with(beginning)) {
        return Refused::Unfit(format!("`--database-url` cannot be used: {}.", one_line(message)));
    }
    match REFUSED_SERVERS.iter().find(|(words, _)| message.contains(words)) {
        Some((_, sentence)) => Refused::Denied(sentence),
        None => Refused::Unreachable(error),
    }
}

/// Why the server accepts no session at this address, if it answers; asked once more, since the number of an error at the start of a
/// connection is given only to those who asked for it before.
pub(super) fn denied(options: &Options) -> Option<&'static str> {
    sentence_of(&refused_by(options)?)
}

fn sentence_of(number: &[u8; 5]) -> Option<&'static str> {
    match number {
        b"3D000" => Some(
            "The database that `--database-url` names does not exist: create it, or fix the URL.",
        ),
        b"28P01" => Some("The server refuses the role or the password of `--database-url`."),
        b"28000" => Some(
            "The server does not let the role of `--database-url` in: it does not exist or may not log in, or `pg_hba.conf` has no line for it.",
        ),
        b"55000" => Some("The database of `--database-url` takes no connections: it is set so."),
        b"42501" => {
            Some("The role of `--database-url` may not connect to the database: grant it CONNECT.")
        }
        // The settings that `options` has are all that is asked for at the start of a connection: classes of syntax and of values.
        [b'4', b'2', ..] | [b'2', b'2', ..] => Some(
            "The server does not take the `options` of `--database-url`: a setting that it does not know, or a value that none may have.",
        ),
        [b'0', b'A', ..] | [b'2', b'8', ..] => {
            Some("The server refuses what `--database-url` asks for; its log says why.")
        }
        _ => None,
    }
}

/// Why the server refuses another session, if it answers and does so, for a reason that is known; asked as by [`denied`].
pub(super) fn refusal(options: &Options) -> Option<Refused> {
    let number = refused_by(options)?;
    if &number == b"53300" {
        Some(Refused::Crowded)
    } else {
        sentence_of(&number).map(Refused::Denied)
    }
}

fn refused_by(options: &Options) -> Option<[u8; 5]> {
    let address = CString::new(bounded(options)).ok()?;
    pq_sys::refused_by(&address, connect_timeout(options))
}

/// The message about a pooler that shares backends.
pub(super) const SHARED: &str = "The database is reached through a pooler that shares backends between sessions (transaction or statement mode); \
                                 use its session mode, or connect to Postgres itself.";

/// The settings of a session of ours. Until it is set up its statements are bounded by the watchdog alone: how long those of calls may take says
/// nothing of them. A session that may only read is left so: operators keep writers out that way.
fn settings(options: &Options) -> String {
    let mut text = format!(
        "SET statement_timeout = 0; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = 60000; SET idle_session_timeout = 0; \
         SET default_transaction_isolation = 'read committed'; SET default_transaction_deferrable = off; \
         SET TIME ZONE 'UTC'; SET client_encoding = 'UTF8'; SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; \
         SET bytea_output = 'hex'; SET extra_float_digits = 1; SET standard_conforming_strings = on; SET transform_null_equals = off; \
         SET array_nulls = on; SET application_name = 'offboard'; SET jit = off; SET client_min_messages = warning; ",
        options.lock_timeout.as_millis(),
    );
    // A client that vanished, such as this process, must not keep its locks for hours. Has no effect on a Unix socket.
    text.push_str(
        "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; SET tcp_user_timeout = 30000; ",
    );
    // Where the tables are is said by the URL or not at all: an odd default of a role would hide them.
    if !options.database_url.contains("search_path") {
        text.push_str("SET search_path = \"$user\", public; ");
    }
    // Of Postgres 17 and later.
    text.push_str("SELECT set_config('transaction_timeout', '0', false) WHERE current_setting('transaction_timeout', true) IS NOT NULL");
    text
}

/// What the database says of itself.
#[derive(QueryableByName)]
pub(super) struct Facts {
    #[diesel(sql_type = Integer)]
    backend: i32,
    #[diesel(sql_type = Text)]
    encoding: String,
    #[diesel(sql_type = Timestamptz)]
    clock: DateTime<Utc>,
    /// True if it follows another one.
    #[diesel(sql_type = Bool)]
    pub(super) standby: bool,
    /// True if it takes no changes.
    #[diesel(sql_type = Bool)]
    pub(super) read_only: bool,
}

const FACTS: &str = "SELECT pg_backend_pid() AS backend, current_setting('server_encoding') AS encoding, clock_timestamp() AS clock,
        pg_is_in_recovery() AS standby, current_setting('transaction_read_only')::boolean AS read_only";

#[cfg(test)]
crate::db::checked::raw!(Facts, FACTS, (Integer, Text, Timestamptz, Bool, Bool));

/// Asks the database about itself, and sets our clock by its own.
pub(super) fn ask(connection: &mut PgConnection) -> QueryResult<Facts> {
    let asked = Instant::now();
    let facts: Facts = sql_query(FACTS).get_result(connection)?;
    clock::set(facts.clock, asked);
    Ok(facts)
}

/// How long connecting may take: no longer than a call may wait for a connection, in whole seconds of which libpq wants two.
fn connect_timeout(options: &Options) -> Duration {
    options.acquire_timeout.clamp(Duration::from_secs(2), Duration::from_secs(5))
}

/// The address with bounds on how long a peer may keep silent while we connect or after, unless it has bounds of its own: libpq would wait as
/// long as TCP does.
fn bounded(options: &Options) -> String {
    let mut address = options.database_url.clone();
    let is_url = address.starts_with("postgres://") || address.starts_with("postgresql://");
    let connect_timeout = connect_timeout(options).as_secs().to_string();
    for (name, value) in [
        ("connect_timeout", connect_timeout.as_str()),
        ("tcp_user_timeout", "30000"),
        ("keepalives_idle", "10"),
        ("keepalives_interval", "5"),
        ("keepalives_count", "3"),
    ] {
        if !options.database_url.contains(name) {
            let joint = match (is_url, address.contains('?')) {
                (true, true) => '&',
                (true, false) => '?',
                (false, _) => ' ',
            };
            address.push_str(&format!("{joint}{name}={value}"));
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_the_bounds_that_it_lacks() {
        let all =
            "tcp_user_timeout=30000&keepalives_idle=10&keepalives_interval=5&keepalives_count=3";
        let bounded = |url: &str| bounded(&Options::new(url));
        assert_eq!(
            bounded("postgresql://h/d"),
            format!("postgresql://h/d?connect_timeout=5&{all}")
        );
        let given = "postgres://h/d?sslmode=require&connect_timeout=9";
        assert_eq!(bounded(given), format!("{given}&{all}"));
        assert_eq!(
            bounded("host=h dbname=d"),
            format!("host=h dbname=d connect_timeout=5 {}", all.replace('&', " "))
        );
    }

    #[test]
    fn what_can_never_work_is_reported_from_what_is_away() {
        let refused = |message: &str| unusable(ConnectionError::BadConnection(message.to_owned()));
        let server = "connection to server at \"h\" (10.0.0.1), port 5432 failed: ";
        for never in [
            "definition of service \"nope\" not found",
            "invalid integer value \"abc\" for connection option \"port\"",
        ] {
            assert!(
                matches!(refused(never), Refused::Unfit(reported) if reported.contains(never)),
                "{never}"
            );
        }
        let no_tls = format!("{server}server does not support SSL, but SSL was required");
        assert!(
            matches!(refused(&no_tls), Refused::Denied(reported) if reported.contains("speaks no TLS"))
        );
        for message in
            ["Connection refused", "timeout expired", "FATAL:  the database system is starting up"]
        {
            assert!(
                matches!(refused(&format!("{server}{message}")), Refused::Unreachable(_)),
                "{message}"
            );
        }
        for (number, is_reported) in [
            (b"42704", true),
            (b"22023", true),
            (b"3D000", true),
            (b"57P03", false),
            (b"53300", false),
            (b"08P01", false),
        ] {
            assert_eq!(sentence_of(number).is_some(), is_reported, "{number:?}");
        }
    }

    #[test]
    fn a_search_path_of_the_address_stands() {
        assert!(settings(&Options::new("postgresql://h/d")).contains("search_path"));
        assert!(
            !settings(&Options::new("postgresql://h/d?options=-csearch_path%3Dmine"))
                .contains("search_path")
        );
    }
}
