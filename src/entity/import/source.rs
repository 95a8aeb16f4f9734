//! Where the lines of an import come from.

use tonic::{Status, Streaming};

use crate::error::{Form, Violations};
use crate::proto::v1;

/// A line of an import.
#[derive(Debug, Default)]
pub struct ImportLine {
    /// Its message, without its number: it is the same request at any line of a file.
    pub message: v1::ImportEntitiesRequest,
    /// Its number in the file of the caller, as far as the caller says; 0 if not.
    pub number: i64,
    /// The faults of the line before it was a message.
    pub faults: Violations,
}

impl ImportLine {
    /// The id that the caller gives its entity; empty if none.
    pub fn entity_id(&self) -> &str {
        self.message.entity.as_ref().map(|entity| entity.entity_id.as_str()).unwrap_or_default()
    }
}

/// The stream of a caller.
pub struct Source {
    stream: Streaming<v1::ImportEntitiesRequest>,
    /// Of the request.
    form: Form,
    /// Of the line that is being received.
    of_line: Form,
}

impl Source {
    /// The stream of a request of this form.
    pub fn new(stream: Streaming<v1::ImportEntitiesRequest>, form: Form) -> Self {
        Source { stream, form, of_line: Form::default() }
    }

    /// The next line; none at the end.
    pub async fn next(&mut self) -> Result<Option<ImportLine>, Status> {
        let message = self.of_line.clone().within(self.stream.message()).await?;
        Ok(message.map(|mut message| {
            let (number, mut faults) = (std::mem::take(&mut message.line), self.of_line.take());
            if number < 0 {
                faults.add("line", "out_of_range", "must be at least 1");
            }
            ImportLine { message, number: number.max(0), faults }
        }))
    }

    /// Returns whether the line at this place, from 1, is the last because its form has faults.
    pub fn ends_at(&self, place: i64) -> bool {
        self.form.ends_at(place)
    }
}
