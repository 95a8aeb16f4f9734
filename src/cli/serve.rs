//! `offboard serve`.

use std::process::ExitCode;
use std::time::Instant;

use super::database::Opened;
use crate::config::Serve;
use crate::db::migrations::{SchemaState, schema_state};
use crate::error::{Error, Result};
use crate::server::{self, Bound, drain::Signals};

/// Serves until a signal ends it: the first drains, the second ends at once. Returns by when the rest is to be over, if it matters.
pub async fn run(
    settings: Serve,
    instance: String,
    metrics: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> Result<(ExitCode, Option<Instant>)> {
    server::check(&settings)?;
    let mut signals = Signals::install().map_err(Error::internal)?;
    let bound = Bound::of(&settings).await?;
    let database = Opened::open(&settings.database).await?.with_pool(&settings.pool).with_shares(&settings.shares);
    let started = async {
        prepare(&database, &settings).await?;
        let db = database.pool();
        db.observe();
        server::start(&settings, bound, db, instance, metrics).await
    };
    let running = match started.await {
        Ok(running) => running,
        Err(error) => {
            database.close().await?;
            return Err(error);
        }
    };
    let addresses = running.addresses();
    let shown = |address: Option<std::net::SocketAddr>| address.map(|address| address.to_string());
    tracing::info!(
        grpc_addr = shown(addresses.grpc),
        http_addr = shown(addresses.http),
        admin_addr = %addresses.admin,
        version = env!("CARGO_PKG_VERSION"),
        embedded_postgres = database.is_embedded(),
        "ready"
    );
    tokio::select! {
        () = signals.first_signal() => {}
        () = database.supervise() => {}
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

/// Prepares the schema. A given database that is unreachable or whose schema is old does not prevent the start: readiness reports it. A
/// schema of others does.
async fn prepare(database: &Opened, settings: &Serve) -> Result<()> {
    if settings.migrate || database.is_embedded() {
        for version in database.migrate(settings.into_existing).await? {
            tracing::info!(version, "applied a migration");
        }
    }
    let looked = tokio::time::timeout(settings.pool.db_acquire_timeout, database.with_connection(schema_state)).await;
    match looked.unwrap_or_else(|_| Err(Error::unavailable("The database does not answer."))) {
        Ok(SchemaState::Current) => {}
        Ok(SchemaState::Ahead(ahead)) => tracing::warn!(schema = ahead.schema, known = ahead.known, "{ahead}"),
        Ok(SchemaState::Foreign(others)) if !settings.into_existing => return Err(others.refusal()),
        Ok(SchemaState::Absent(absent)) => return Err(absent.refusal()),
        Ok(SchemaState::Foreign(_)) => tracing::warn!("the schema has no table of offboard; run `offboard migrate --into-existing`"),
        Ok(SchemaState::Behind(missing)) => tracing::warn!(?missing, "the schema is behind; run `offboard migrate`"),
        Err(error) => tracing::warn!(%error, cause = error.cause_chain(), "the database cannot be used yet"),
    }
    Ok(())
}
