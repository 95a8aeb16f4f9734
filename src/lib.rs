//! `offboard` takes entities out of a multi-tenant portfolio safely: it detaches, offboards and bulk-deletes them over gRPC and REST.
//!
//! Each module is one room of the house; `docs/architecture.md` tells what lives where and who may call whom, and a test holds the code to it.

pub mod error;
pub mod proto;
