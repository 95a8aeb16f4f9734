//! Reports whether this replica can do its work: to probes by readiness, and to gRPC callers by the health of each service.

use std::time::Duration;

use prost_reflect::DescriptorPool;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::admin::{Finding, Readiness};
use super::drain::{Drain, Phase};
use crate::db::migrations::SchemaState;
use crate::db::probe::{Probe, Trouble};

const CHECK_EVERY: Duration = Duration::from_secs(2);
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// The checks of this replica: that it is not on its way out, and that the database answers with the schema that this binary needs.
pub fn readiness(probe: &Probe, drain: &Drain) -> Readiness {
    let (probe, drain) = (probe.clone(), drain.clone());
    Readiness::new()
        .with_instant("draining", move || {
            if drain.phase() == Phase::Serving {
                Ok(())
            } else {
                Err(Finding::new("draining", "shutting down"))
            }
        })
        .with_note("database", move || check_database(probe.clone()))
}

/// Returns whether the database can be used, with a notice about it if it can.
async fn check_database(probe: Probe) -> Result<Option<Finding>, Finding> {
    let database = probe
        .check()
        .await
        .map_err(|(trouble, reported)| Finding::new(reason(trouble), reported))?;
    match database.schema {
        SchemaState::Behind(missing) => {
            let reported =
                format!("the schema lacks {} migrations: run `offboard migrate`", missing.len());
            return Err(Finding::new("schema_behind", reported));
        }
        SchemaState::Foreign(_) => {
            return Err(Finding::new(
                "schema_foreign",
                "the schema has tables of others, and no migration: run `offboard migrate`",
            ));
        }
        SchemaState::Absent(absent) => {
            return Err(Finding::new("schema_absent", absent.to_string()));
        }
        SchemaState::Current | SchemaState::Ahead(_) => {}
    }
    Ok(match (database.standby, database.read_only, database.schema) {
        (true, ..) => Some(Finding::new(
            "database_standby",
            "a standby: reads are served, changes are refused",
        )),
        (_, true, _) => Some(Finding::new(
            "database_read_only",
            "read only: reads are served, changes are refused",
        )),
        (.., SchemaState::Ahead(ahead)) => Some(Finding::new("schema_ahead", ahead.to_string())),
        _ => None,
    })
}

fn reason(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::Unreachable => "database_away",
        Trouble::Crowded => "database_crowded",
        Trouble::Denied => "database_denied",
        Trouble::Unfit => "database_unfit",
        Trouble::Failing => "database_failing",
    }
}

/// The gRPC health of our services.
pub struct Health {
    reporter: HealthReporter,
    services: Vec<String>,
}

impl Health {
    /// Adds every service. None serves before the database was checked; the overall health, that of the empty name, follows the drain
    /// alone: a restart repairs no database.
    pub async fn register(reporter: HealthReporter, descriptors: &DescriptorPool) -> Self {
        let services =
            descriptors.services().map(|service| service.full_name().to_owned()).collect();
        let health = Health { reporter, services };
        health.set(ServingStatus::NotServing).await;
        health.reporter.set_service_status("", ServingStatus::Serving).await;
        health
    }

    async fn set(&self, status: ServingStatus) {
        for service in &self.services {
            self.reporter.set_service_status(service, status).await;
        }
    }
}

/// Keeps the health true until the process ends.
pub async fn report(health: Health, probe: Probe, drain: Drain) {
    loop {
        let checked = tokio::select! {
            () = drain.reached(Phase::Draining) => break,
            checked = tokio::time::timeout(CHECK_TIMEOUT, check_database(probe.clone())) => checked,
        };
        health
            .set(if matches!(checked, Ok(Ok(_))) {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            })
            .await;
        tokio::select! {
            () = drain.reached(Phase::Draining) => break,
            () = tokio::time::sleep(CHECK_EVERY) => {}
        }
    }
    health.set(ServingStatus::NotServing).await;
    health.reporter.set_service_status("", ServingStatus::NotServing).await;
}
