//! Questions to the person at the terminal, before an operation that cannot be undone.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use super::output::note;
use crate::error::{Error, Result};

/// Wrong usage, in the form of the argument parser.
pub const USAGE: u8 = 2;

/// Returns whether somebody can answer at the terminal.
pub fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks, and returns the answer.
pub fn ask(question: &str) -> Result<String> {
    let mut line = String::new();
    let asked = write!(std::io::stderr(), "{question}").and_then(|()| std::io::stderr().flush());
    asked.and_then(|()| std::io::stdin().lock().read_line(&mut line)).map_err(Error::internal)?;
    Ok(line.trim().to_owned())
}

/// Returns whether an answer is a yes.
pub fn is_yes(answer: &str) -> bool {
    matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes")
}

/// Reports to a script that `--yes` is needed; `does` is the effect of that flag, such as `revokes the key`.
pub fn unasked(does: &str) -> ExitCode {
    note(format_args!("offboard: nobody can be asked here; --yes {does} without asking"));
    USAGE.into()
}
