//! Taking entities out: offboarding and bulk delete, alone, against each other, and through crashes.

#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

#[path = "../kit/mod.rs"]
mod kit;

mod bulk_delete;
mod bulk_delete_accounts;
mod bulk_delete_by_index;
mod bulk_delete_cli;
mod bulk_delete_cli_watch;
mod bulk_delete_guards;
mod bulk_delete_lists;
mod bulk_delete_mail;
mod bulk_delete_mail_sending;
mod bulk_delete_previews;
mod bulk_delete_refusals;
mod bulk_delete_requirements;
mod bulk_delete_turns;
mod bulk_delete_unset;
mod chunk_plans;
mod clock_steps;
mod consistency;
mod consistency_index;
mod consistency_races;
mod consistency_removed;
mod crashes;
mod detach_cost;
mod entity_races;
mod failures_csv;
mod given;
mod late_workers;
mod membership_crashes;
mod membership_model;
mod membership_races;
mod misspelt;
mod misspelt_values;
mod model;
mod offboarding;
mod offboarding_refusals;
mod offboarding_turns;
mod order_of_creation;
mod outlook;
mod plans;
mod races;
mod refused_rows;
mod request_races;
mod requests;
mod suspect_kinds;
mod suspect_values;
mod task_halts;
mod task_workers;
mod tasks;
mod watched;
