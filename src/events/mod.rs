//! What happened. Every state change writes its event in its own transaction; the statements that do so are beside the change. Here they are
//! read.

pub mod cursor;
mod model;
pub mod queries;

pub use cursor::Cursor;
pub use model::{Batch, Event, EventType, Row};
