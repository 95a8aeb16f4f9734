//! The listeners, the layers that each call passes, and the end of the process: everything between the network and the capabilities.

mod admin;
mod admin_protocol;
mod bound;
mod client;
mod compute;
mod cors;
pub(crate) mod drain;
mod framing;
mod grpc;
mod health;
mod http;
pub mod layers;
mod listener;
mod opening;
mod ports;
mod run;
mod settings;
mod stack;
mod tally;
mod within;

pub use admin::Stage;
pub use bound::Bound;
pub use opening::Opening;
pub use ports::Addresses;
pub use run::{Running, start};
pub use settings::check;
