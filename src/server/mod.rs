//! What stands between the network and the capabilities: listeners, the layers that each call passes, and the end of the process.

mod admin;
mod admin_door;
mod aside;
mod bound;
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
