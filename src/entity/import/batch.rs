//! The batch that one transaction of an import writes.

use std::collections::HashSet;

use super::source::ImportLine;

/// How many lines a batch has at most.
const BATCH: usize = 500;
/// A batch also ends when its messages have this many bytes.
const BATCH_BYTES: usize = 4 << 20;

/// Lines that are received and not written.
#[derive(Default)]
pub struct Batch {
    pub lines: Vec<ImportLine>,
    bytes: usize,
    /// The ids of the entities and, behind a slash, which no id has, of the portfolios.
    pub names: HashSet<String>,
}

impl Batch {
    /// Adds a line, which is at this place of the stream.
    pub fn push(&mut self, place: i64, mut line: ImportLine) {
        self.bytes += prost::Message::encoded_len(&line.message);
        if line.number == 0 {
            line.number = place;
        }
        if let Some(entity) = &line.message.entity {
            self.names.insert(entity.entity_id.clone());
            self.names.insert(format!("/{}", entity.portfolio_id));
            // Those without a name are in nobody's way.
            self.names.remove("");
            self.names.remove("/");
        }
        self.lines.push(line);
    }

    /// Returns whether it is to be written.
    pub fn is_full(&self) -> bool {
        self.lines.len() >= BATCH || self.bytes >= BATCH_BYTES
    }
}
