//! The listeners, the layers that each call passes, and the end of the process: everything between the network and the capabilities.

pub mod admin;
mod admin_protocol;
mod bound;
pub mod compute;
mod cors;
pub mod drain;
mod framing;
mod grpc;
mod health;
mod http;
pub mod layers;
pub mod listener;
mod ports;
mod run;
mod settings;
mod stack;
mod tally;

pub use bound::Bound;
pub use ports::Addresses;
pub use run::{Running, start};
pub use settings::check;
