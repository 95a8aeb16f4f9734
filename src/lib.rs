//! `offboard` takes entities out of a multi-tenant portfolio safely: it detaches, offboards and bulk-deletes them over gRPC and REST.
//!
//! Each module is one room; `docs/architecture.md` says what is where and which room may call which, and a test checks the code against it.

pub mod access;
pub mod bulk_delete;
pub mod cli;
mod config;
pub mod consistency;
pub mod db;
pub mod entity;
pub mod error;
pub mod events;
pub mod filter;
pub mod gateway;
pub mod jobs;
pub mod limits;
mod mail;
pub mod offboarding;
pub mod portfolio;
pub mod proto;
pub mod server;
mod shares;
pub mod task;
pub mod telemetry;
