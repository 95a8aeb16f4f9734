//! The functional suite: the real binary on a real Postgres, through both doors.

#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

#[path = "../kit/mod.rs"]
mod kit;

mod answers;
mod attribute_index_plans;
mod attribute_index_races;
mod attribute_indexes;
mod bodies;
mod browsers;
mod client_tls;
mod command_line;
mod contracts;
mod database_lost;
mod database_refuses;
mod database_standby;
mod database_unfit;
mod deadlines;
mod dependents;
mod drain;
mod ended_keys;
mod entities;
mod entity_batches;
mod entity_changes;
mod entity_lists;
mod erasure;
mod event_members;
mod event_plans;
mod event_reader;
mod events;
mod faults_at_once;
mod grpc_door;
mod idempotency;
mod idempotency_kept;
mod import;
mod isolation;
mod keyless;
mod keys;
mod limits;
mod list_filters;
mod listeners;
mod logical_copies;
mod membership;
mod numbers;
mod portfolio_batches;
mod portfolio_export;
mod portfolio_registry;
mod portfolios;
mod probes;
mod proxy;
mod public_url;
mod publisher;
mod publishing;
mod raw;
mod refusals;
mod rest_door;
mod restores;
mod scopes;
mod shares;
mod shown_members;
mod shutdown;
mod tombstones;
mod versions;
mod watching;
mod wrong_ports;
