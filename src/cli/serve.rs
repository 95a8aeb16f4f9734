//! `offboard serve`.

use std::process::ExitCode;
use std::time::Instant;

use super::database::Opened;
use crate::config::Serve;
use crate::db::migrations::{SchemaState, schema_state};
use crate::error::{Error, Result};
use crate::server::{self, Bound, Opening, Running, Stage, drain::Signals};

/// Serves until a signal ends it: the first drains, the second ends at once, and so does the first while it starts. Returns by when what is left to do
/// is to be over, if it matters.
pub async fn run(
    settings: Serve,
    instance: String,
    metrics: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> Result<(ExitCode, Option<Instant>)> {
    server::check(&settings)?;
    let mut signals = Signals::install().map_err(Error::internal)?;
    let opening = Opening::of(Bound::of(&settings).await?, &settings, metrics)?;
    let addresses = opening.addresses();
    let shown = |address: Option<std::net::SocketAddr>| address.map(|address| address.to_string());
    let (grpc_addr, http_addr, version) =
        (shown(addresses.grpc), shown(addresses.http), env!("CARGO_PKG_VERSION"));
    tracing::info!(grpc_addr, http_addr, admin_addr = %addresses.admin, version, "listening");
    let (database, running) = tokio::select! {
        started = start(&settings, opening, instance) => started?,
        // Nothing was served. What was begun is undone by whoever did it, and an embedded database is asked to stop.
        () = signals.first_signal() => return Ok((ExitCode::SUCCESS, Some(Instant::now()))),
    };
    let ready = async {
        running.is_ready().await;
        let embedded_postgres = database.is_embedded();
        tracing::info!(grpc_addr, http_addr, admin_addr = %addresses.admin, version, embedded_postgres, "ready");
        std::future::pending().await
    };
    tokio::select! {
        () = signals.first_signal() => {}
        () = database.supervise() => {}
        () = ready => {}
    }
    let drained = async {
        let ends = running.drain().await;
        database.close().await?;
        Ok((ExitCode::SUCCESS, Some(ends.into_std())))
    };
    tokio::select! {
        closed = drained => closed,
        () = signals.second_signal() => Ok((ExitCode::FAILURE, Some(Instant::now()))),
    }
}

/// Opens the database, sees to its schema, and starts what serves.
async fn start(settings: &Serve, opening: Opening, instance: String) -> Result<(Opened, Running)> {
    let database = Opened::open(&settings.database)
        .await?
        .with_pool(&settings.pool)
        .with_shares(&settings.shares);
    let started = async {
        prepare(&database, settings, &opening).await?;
        let db = database.pool();
        db.observe();
        server::start(settings, opening, db, instance).await
    };
    match started.await {
        Ok(running) => Ok((database, running)),
        Err(error) => {
            database.close().await?;
            Err(error)
        }
    }
}

/// Sees to the schema. A given database that is unreachable, or whose schema is behind, is no reason not to start: readiness shows it. One that belongs to others is.
async fn prepare(database: &Opened, settings: &Serve, opening: &Opening) -> Result<()> {
    if settings.migrate || database.is_embedded() {
        opening.reaches(Stage::Migrating);
        for version in database.migrate(settings.into_existing).await? {
            tracing::info!(version, "applied a migration");
        }
        opening.reaches(Stage::Starting);
    }
    let checked = tokio::time::timeout(
        settings.pool.db_acquire_timeout,
        database.with_connection(schema_state),
    )
    .await;
    match checked.unwrap_or_else(|_| Err(Error::unavailable("The database does not respond."))) {
        Ok(SchemaState::Current) => {}
        Ok(SchemaState::Ahead(ahead)) => {
            tracing::warn!(schema = ahead.schema, known = ahead.known, "{ahead}")
        }
        Ok(SchemaState::Foreign(others)) if !settings.into_existing => return Err(others.refusal()),
        Ok(SchemaState::Absent(absent)) => return Err(absent.refusal()),
        Ok(SchemaState::Foreign(_)) => tracing::warn!(
            "the schema has no table of offboard; run `offboard migrate --into-existing`"
        ),
        Ok(SchemaState::Behind(missing)) => {
            tracing::warn!(?missing, "the schema is behind; run `offboard migrate`")
        }
        Err(error) => {
            tracing::warn!(%error, cause = error.cause_chain(), "the database cannot be used yet")
        }
    }
    Ok(())
}
