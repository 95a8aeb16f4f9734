//! Whether this replica can do its work: told to probes by readiness, and to gRPC callers by the health of each service.

use std::time::Duration;

use prost_reflect::DescriptorPool;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::admin::Readiness;
use super::drain::{Drain, Phase};
use crate::db::migrations::SchemaState;
use crate::db::probe::{Probe, Standing};

const CHECK_EVERY: Duration = Duration::from_secs(2);
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// The checks of this replica: that it is not on its way out, and that the database answers with the schema that this binary needs.
pub fn readiness(probe: &Probe, drain: &Drain) -> Readiness {
    let (probe, drain) = (probe.clone(), drain.clone());
    Readiness::new()
        .with_instant("draining", move || if drain.phase() == Phase::Serving { Ok(()) } else { Err("shutting down".to_owned()) })
        .with_note("database", move || check_database(probe.clone()))
}

/// Whether the database can be used, with what is to be known of it if it can.
async fn check_database(probe: Probe) -> Result<Option<String>, String> {
    match probe.check().await? {
        Standing { schema: SchemaState::Behind(missing), .. } => {
            Err(format!("the schema lacks {} migrations: run `offboard migrate`", missing.len()))
        }
        Standing { standby: true, .. } => Ok(Some("a standby: reads are answered, changes are not".to_owned())),
        Standing { read_only: true, .. } => Ok(Some("read only: reads are answered, changes are not".to_owned())),
        Standing { .. } => Ok(None),
    }
}

/// The gRPC health of our services.
pub struct Health {
    reporter: HealthReporter,
    services: Vec<String>,
}

impl Health {
    /// Makes every service known. None serves before the database was looked at; the overall health, that of the empty name, follows the
    /// drain alone: a restart mends no database.
    pub async fn register(reporter: HealthReporter, descriptors: &DescriptorPool) -> Self {
        let services = descriptors.services().map(|service| service.full_name().to_owned()).collect();
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
        health.set(if matches!(checked, Ok(Ok(_))) { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
        tokio::select! {
            () = drain.reached(Phase::Draining) => break,
            () = tokio::time::sleep(CHECK_EVERY) => {}
        }
    }
    health.set(ServingStatus::NotServing).await;
    health.reporter.set_service_status("", ServingStatus::NotServing).await;
}
