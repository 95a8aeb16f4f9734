//! What stands between the network and the capabilities: listeners, the layers that each call passes, and the end of the process.

pub mod admin;
pub mod aside;
mod cors;
pub mod drain;
mod health;
mod http;
pub mod layers;
mod run;
mod stack;

pub use run::{Addresses, Running, start};
