//! Questions to the person at the terminal, before an operation that cannot be undone.

use std::io::{BufRead, IsTerminal, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::sys::termios::{FlushArg, tcflush};

use super::output::note;
use crate::error::{Error, Result};

/// Wrong usage, in the form of the argument parser.
pub const USAGE: u8 = 2;

/// Returns whether somebody can answer at the terminal.
pub fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks, and returns the answer. Text that was typed before the question was shown does not answer it.
pub fn ask(question: &str) -> Result<String> {
    let mut line = String::new();
    discard_typed(std::io::stdin())?;
    let asked = write!(std::io::stderr(), "{question}").and_then(|()| std::io::stderr().flush());
    asked.and_then(|()| std::io::stdin().lock().read_line(&mut line)).map_err(Error::internal)?;
    Ok(line.trim().to_owned())
}

/// Discards what was typed at a terminal, and has not been read yet.
fn discard_typed(terminal: impl AsFd) -> Result<()> {
    tcflush(terminal, FlushArg::TCIFLUSH).map_err(Error::internal)
}

/// Returns whether an answer is a yes.
pub fn is_yes(answer: &str) -> bool {
    matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes")
}

/// Says to a script that `--yes` is needed; `does` is the effect of that flag, such as `revokes the key`.
pub fn unasked(does: &str) -> ExitCode {
    note(format_args!("offboard: nobody can be asked here; --yes {does} without asking"));
    USAGE.into()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufReader, Write};

    use nix::pty::openpty;

    use super::*;

    #[test]
    fn what_was_typed_ahead_answers_nothing() {
        let pty = openpty(None, None).unwrap();
        let mut keys = File::from(pty.master);
        let mut lines = BufReader::new(File::from(pty.slave));
        keys.write_all(b"y\nyes\n").unwrap();
        discard_typed(lines.get_ref()).unwrap();
        keys.write_all(b"n\n").unwrap();
        let mut answer = String::new();
        lines.read_line(&mut answer).unwrap();
        assert_eq!(answer, "n\n");
    }
}
