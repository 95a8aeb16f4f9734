//! The record of every state change. A change writes its event in its own transaction; the statements that do so are beside the change.
//! This room reads them.

mod admission;
pub mod catalogue;
mod cursor;
mod event_stream;
pub(crate) mod history_queries;
mod hub;
mod lists;
mod marks_queries;
mod model;
pub(crate) mod nats;
pub mod publish_loop;
pub mod publisher;
mod publisher_queries;
pub mod queries;
pub mod sequencer;
mod sequencer_queries;
mod service;
pub mod taken;
mod tokens;
mod visibility;

pub use admission::{Admission, Watching};
pub use cursor::Cursor;
pub use hub::{Hub, WakeUp};
pub use model::EVENT;
pub use model::{Batch, Event, EventType, Row};
pub use publisher_queries::recall as recall_publishers;
pub use sequencer::Sequencer;
pub use sequencer_queries::{GivePositions, drop_old};
pub use service::EventService;
