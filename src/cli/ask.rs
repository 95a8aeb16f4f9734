//! Questions to whoever sits at the terminal, before what cannot be undone.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use super::output::note;
use crate::error::{Error, Result};

/// Wrong usage, as the parser of arguments tells it.
pub const USAGE: u8 = 2;

/// Whether somebody sits there who can answer.
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

/// Whether an answer is a yes.
pub fn is_yes(answer: &str) -> bool {
    matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes")
}

/// What is said to a script that has not said `--yes`; `does` is what that flag does, such as `revokes the key`.
pub fn unasked(does: &str) -> ExitCode {
    note(format_args!("offboard: nobody can be asked here; --yes {does} without asking"));
    USAGE.into()
}
