//! The gateway as callers meet it, in front of services that it has never heard of.

mod answers;
mod build;
mod bytes;
mod conditions;
mod published;
mod requests;
pub(super) mod service;
mod streams;
