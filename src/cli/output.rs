//! The output of commands. Its reader may leave early, as `head` does; that ends no command in the middle of its work.

use std::fmt::Display;
use std::io::{ErrorKind, Write, stdout};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::telemetry;

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
