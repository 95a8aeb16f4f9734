//! What stands between the network and the capabilities: listeners, the layers that each call passes, and the end of the process.

pub mod admin;
mod admin_door;
pub mod aside;
mod bound;
mod cors;
pub mod drain;
mod framing;
mod grpc;
mod health;
mod http;
pub mod layers;
pub mod listener;
mod opening;
mod ports;
mod run;
mod settings;
mod stack;
mod tally;

pub use admin::Stage;
pub use bound::Bound;
pub use opening::Opening;
pub use ports::Addresses;
pub use run::{Running, start};
pub use settings::check;
