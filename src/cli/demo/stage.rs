//! The output of the demo: numbered steps, the calls in them and their responses. Colours and a moving bar only on a terminal.

use std::fmt::Display;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::cli::output::print;

/// Where the demo prints to: standard output.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    terminal: bool,
    colour: bool,
}

#[derive(Clone, Copy)]
enum Ink {
    Bold,
    Dim,
    Cyan,
}

impl Stage {
    /// Standard output as it is: a terminal or not, and with colours unless `NO_COLOR` is set (<https://no-color.org>).
    pub fn new() -> Stage {
        let terminal = std::io::stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Stage { terminal, colour: terminal && !plain }
    }

    fn ink(self, ink: Ink, text: impl Display) -> String {
        let code = match ink {
            Ink::Bold => 1,
            Ink::Dim => 2,
            Ink::Cyan => 36,
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// Prints a line as it is.
    pub fn line(self, text: impl Display) {
        // The reader may have left; the demo still cleans up after itself.
        let _ = print(text);
    }

    /// Begins a step of the demo.
    pub fn step(self, number: usize, title: &str) {
        self.line(format_args!("\n{}", self.ink(Ink::Bold, format_args!("{number}. {title}"))));
    }

    /// Prints a line.
    pub fn say(self, text: impl Display) {
        self.line(format_args!("   {text}"));
    }

    /// Shows a call: its protocol and its request.
    pub fn call(self, protocol: &str, request: impl Display) {
        self.line(format_args!(
            "   {} {request}",
            self.ink(Ink::Cyan, format_args!("{protocol:4} >"))
        ));
    }

    /// Shows the response: a status and the interesting part of the rest.
    pub fn answer(self, status: impl Display, text: impl Display) {
        self.line(format_args!(
            "        {} {text}",
            self.ink(Ink::Cyan, format_args!("< {status}"))
        ));
    }

    /// Shows a JSON document whole.
    pub fn document(self, document: &Value) {
        let text = serde_json::to_string_pretty(document).unwrap_or_default();
        for line in text.lines() {
            self.line(format_args!("          {}", self.ink(Ink::Dim, line)));
        }
    }

    /// Begins to show the progress of something with `total` parts.
    pub fn progress(self, total: u64) -> StageProgress {
        let target =
            if self.terminal { ProgressDrawTarget::stdout() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("        [{bar:40}] {pos} of {len}, {msg}")
            .expect("the template is well formed");
        let bar = ProgressBar::with_draw_target(Some(total), target)
            .with_style(style.progress_chars("=> "));
        StageProgress { stage: self, bar, reported: None }
    }
}

/// How far something has come: a bar on a terminal, a line for each fifth elsewhere.
pub struct StageProgress {
    stage: Stage,
    bar: ProgressBar,
    reported: Option<u64>,
}

impl StageProgress {
    /// Shows that `position` parts are done.
    pub fn at(&mut self, position: u64, text: &str) {
        self.bar.set_message(text.to_owned());
        self.bar.set_position(position);
        let total = self.bar.length().unwrap_or_default();
        let due =
            self.reported.map_or(0, |reported| total.min(reported + total.div_ceil(5).max(1)));
        if !self.stage.terminal && position >= due && self.reported != Some(position) {
            self.reported = Some(position);
            self.stage.line(format_args!("        {position:>5} of {total}, {text}"));
        }
    }

    /// Leaves the bar as it is and continues below it.
    pub fn end(self) {
        self.bar.abandon();
        if self.stage.terminal {
            self.stage.line("");
        }
    }
}

/// A number for people: `2,000`.
pub fn count(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or_default().to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn numbers_have_a_comma_at_every_third_digit() {
        let texts = [0, 999, 1_000, 12_345, 1_234_567].map(count);
        assert_eq!(texts, ["0", "999", "1,000", "12,345", "1,234,567"]);
    }
}
