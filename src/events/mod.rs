//! What happened. Every state change writes its event in its own transaction; the statements that do so are beside the change.

mod model;

pub use model::EventType;
