//! The output of commands. Its reader may leave early, as `head` does; that ends no command in the middle of its work.

use std::fmt::Display;
use std::io::{ErrorKind, Write, stdout};
use std::sync::OnceLock;
use std::time::Duration;

use prost::Name;
use prost_reflect::DescriptorPool;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::gateway::Answers;
use crate::proto::DESCRIPTOR_SET;
use crate::telemetry;

/// How a service spells its messages by REST.
pub struct Spelling {
    service: &'static str,
    answers: OnceLock<Option<Answers>>,
}

impl Spelling {
    /// That of the service with this full name.
    pub const fn of(service: &'static str) -> Self {
        Spelling { service, answers: OnceLock::new() }
    }

    /// A message of the service as REST shows it.
    pub fn json(&self, message: &impl Name) -> Result<String> {
        let read = || {
            let descriptors = DescriptorPool::decode(DESCRIPTOR_SET).ok()?;
            Answers::of(&descriptors, self.service).ok()?
        };
        self.answers
            .get_or_init(read)
            .as_ref()
            .ok_or_else(|| Error::internal("the service declares how it spells JSON"))?
            .write(message)
    }

    /// The same, to take members from.
    pub fn value(&self, message: &impl Name) -> Result<Value> {
        serde_json::from_str(&self.json(message)?).map_err(Error::internal)
    }
}

/// Writes a line to standard output; false if nobody reads any more.
pub fn print(line: impl Display) -> Result<bool> {
    match writeln!(stdout().lock(), "{line}") {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            Err(Error::unavailable("Standard output cannot be written to.").caused_by(error))
        }
    }
}

/// How long a line on standard error is waited for that nobody reads.
const NOTE_TIME: Duration = Duration::from_secs(5);

/// Writes a line to standard error, for whoever is there to read it.
pub fn note(line: impl Display) {
    telemetry::note(&line.to_string(), NOTE_TIME);
}
