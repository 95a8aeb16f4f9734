//! The output of commands. Its reader may leave early, as `head` does; that ends no command in the middle of its work.

use std::fmt::Display;
use std::io::{ErrorKind, Write, stdout};

use crate::error::{Error, Result};

/// Writes a line to standard output; false if nobody reads any more.
pub fn print(line: impl Display) -> Result<bool> {
    match writeln!(stdout().lock(), "{line}") {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::unavailable("Standard output cannot be written to.").caused_by(error)),
    }
}

/// Writes a line to standard error, if anybody reads it.
pub fn note(line: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
