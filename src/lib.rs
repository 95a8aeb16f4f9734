//! `offboard` takes entities out of a multi-tenant portfolio safely: it detaches, offboards and bulk-deletes them over gRPC and REST.
//!
//! Each module is one room of the house; `docs/architecture.md` tells what lives where and who may call whom, and a test holds the code to it.

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
