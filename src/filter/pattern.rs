//! Regular expressions that Postgres and Rust read alike and that no value can make slow.
//!
//! An expression is parsed here, and written anew with only characters, sets of characters, groups, alternatives and repetitions, which
//! mean the same to both. Neither engine backtracks over these: Postgres walks an automaton, whose [size](super::automaton) is bounded.
//! Everything else (references back, looking around, anchors inside, classes that depend on a version of Unicode, flags) is refused.

use std::fmt::Write;

use regex_syntax::ast::parse::ParserBuilder;
use regex_syntax::ast::{
    Assertion, AssertionKind, Ast, GroupKind, RepetitionKind, RepetitionRange, Visitor, visit,
};
use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

use super::automaton::{Colours, Size};
use super::set::{Fault, NULL, bracketed, perl};

/// The most steps that the automatons of an expression, and of all expressions of a filter together, may have. Postgres builds a thousand in
/// about a millisecond; going through 100,000 characters takes it 100 ms at the worst.
pub(super) const MAX_STEPS: u64 = 1_000;
/// The most often that something may be repeated by number; more is what Postgres refuses.
const MAX_REPEAT: u32 = 255;
const MAX_NESTING: u32 = 32;

/// An expression that is within the bounds.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// The expression as Postgres takes it; it matches whole values.
    pub(super) sql: String,
    /// The steps of its automaton.
    pub(super) steps: u64,
    regex: regex::Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.sql == other.sql
    }
}

impl Eq for Pattern {}

/// Why an expression is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The fault.
    pub message: String,
    /// Where in the expression, in characters from 0.
    pub position: usize,
}

impl Pattern {
    /// Reads an expression, or reports why it is refused.
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let refusal = |message: String, at: usize| Refusal {
            message,
            position: text.get(..at).map_or(0, |before| before.chars().count()),
        };
        let mut parser = ParserBuilder::new().nest_limit(MAX_NESTING).build();
        let ast = parser
            .parse(text)
            .map_err(|error| refusal(error.kind().to_string(), error.span().start.offset))?;
        let sets = visit(&ast, Sets(Vec::new())).map_err(|(message, at)| refusal(message, at))?;
        let mut writer = Writer { out: String::new(), colours: Colours::of(&sets) };
        let steps = writer.write_whole(&ast).map_err(|(message, at)| refusal(message, at))?.total();
        if steps > MAX_STEPS {
            return Err(refusal(format!("it {TOO_LARGE}"), 0));
        }
        let body = writer.out;
        let regex = regex::Regex::new(&format!("^(?s:{body})$"))
            .map_err(|_| refusal("the expression is too large".to_owned(), 0))?;
        Ok(Pattern { sql: format!("^(?:{body})$"), steps, regex })
    }

    /// Returns whether the whole of a text matches.
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

/// The faults of expressions that are too large.
pub(super) const TOO_LARGE: &str = "would take the database too long: with what is repeated counted each time there are more than 1000 ways from \
                                    one character to the next; what may be left out, such as `a?`, adds one to each that may follow, and \
                                    with `*`, `+` or `{n,}` all count three times";

fn refuse<T>(message: &str, ast: &Ast) -> Result<T, Fault> {
    Err((message.to_owned(), ast.span().start.offset))
}

/// Gathers what an expression is made of.
struct Sets(Vec<ClassUnicode>);

impl Visitor for Sets {
    type Output = Vec<ClassUnicode>;
    type Err = Fault;

    fn finish(self) -> Result<Self::Output, Fault> {
        Ok(self.0)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Fault> {
        match ast {
            Ast::Literal(literal) => {
                self.0.push(ClassUnicode::new([ClassUnicodeRange::new(literal.c, literal.c)]))
            }
            Ast::ClassPerl(class) => self.0.push(perl(class)),
            Ast::ClassBracketed(class) => self.0.push(bracketed(class)?),
            _ => {}
        }
        Ok(())
    }
}

struct Writer {
    out: String,
    colours: Colours,
}

impl Writer {
    /// Writes an expression that may begin with `^` and end with `$`, which are implied anyway.
    fn write_whole(&mut self, ast: &Ast) -> Result<Size, Fault> {
        let is = |ast: &Ast, wanted: &AssertionKind| matches!(ast, Ast::Assertion(assertion) if assertion.kind == *wanted);
        let Ast::Concat(concat) = ast else { return self.write(ast) };
        let mut parts = concat.asts.as_slice();
        if let [first, rest @ ..] = parts
            && is(first, &AssertionKind::StartLine)
        {
            parts = rest;
        }
        if let [rest @ .., last] = parts
            && is(last, &AssertionKind::EndLine)
        {
            parts = rest;
        }
        self.write_all(parts)
    }

    fn write_all(&mut self, parts: &[Ast]) -> Result<Size, Fault> {
        let mut whole: Option<Size> = None;
        for part in parts {
            let size = self.write(part)?;
            whole = Some(whole.map_or(size, |before| before.then(size)));
        }
        Ok(whole.unwrap_or(Size::EMPTY))
    }

    /// Writes a part, and reports how large it is.
    fn write(&mut self, ast: &Ast) -> Result<Size, Fault> {
        match ast {
            Ast::Empty(_) => Ok(Size::EMPTY),
            Ast::Literal(literal) => self.write_character(literal.c, ast),
            Ast::Dot(_) => {
                self.out.push('.');
                Ok(Size::of_one(1))
            }
            Ast::ClassPerl(class) => self.write_set(&perl(class), ast),
            Ast::ClassBracketed(class) => self.write_set(&bracketed(class)?, ast),
            Ast::Group(group) => match &group.kind {
                GroupKind::NonCapturing(flags) if !flags.items.is_empty() => {
                    refuse("flags are not admitted; the case is always kept", ast)
                }
                _ => self.in_group(&group.ast),
            },
            Ast::Concat(concat) => self.write_all(&concat.asts),
            Ast::Alternation(alternation) => {
                self.out.push_str("(?:");
                let mut whole: Option<Size> = None;
                for branch in &alternation.asts {
                    self.out.push_str(if whole.is_none() { "" } else { "|" });
                    let size = self.write(branch)?;
                    whole = Some(whole.map_or(size, |before| before.or(size)));
                }
                self.out.push(')');
                Ok(whole.unwrap_or(Size::EMPTY))
            }
            Ast::Repetition(repetition) => {
                let size = self.in_group(&repetition.ast)?;
                let (least, most) = self.write_repetition(&repetition.op.kind, ast)?;
                Ok(size.repeated(least, most))
            }
            Ast::Flags(_) => refuse("flags are not admitted; the case is always kept", ast),
            Ast::ClassUnicode(_) => {
                refuse("classes of Unicode are not admitted; name the characters in brackets", ast)
            }
            Ast::Assertion(assertion) => refuse(anchor(assertion), ast),
        }
    }

    fn in_group(&mut self, ast: &Ast) -> Result<Size, Fault> {
        self.out.push_str("(?:");
        let size = self.write(ast)?;
        self.out.push(')');
        Ok(size)
    }

    fn write_character(&mut self, c: char, ast: &Ast) -> Result<Size, Fault> {
        match c {
            '\0' => return refuse(NULL, ast),
            _ if c.is_ascii_alphanumeric() => self.out.push(c),
            _ => write_code(&mut self.out, c),
        }
        Ok(Size::of_one(1))
    }

    fn write_set(&mut self, set: &ClassUnicode, ast: &Ast) -> Result<Size, Fault> {
        if set.ranges().is_empty() {
            return refuse("the set has no characters", ast);
        }
        self.out.push('[');
        for range in set.ranges() {
            write_code(&mut self.out, range.start());
            self.out.push('-');
            write_code(&mut self.out, range.end());
        }
        self.out.push(']');
        Ok(Size::of_one(self.colours.count(set)))
    }

    /// Writes how often the item before may be repeated, and returns it: at least and at most.
    fn write_repetition(
        &mut self,
        kind: &RepetitionKind,
        ast: &Ast,
    ) -> Result<(u32, Option<u32>), Fault> {
        let (least, most) = match kind {
            RepetitionKind::ZeroOrOne => (0, Some(1)),
            RepetitionKind::ZeroOrMore => (0, None),
            RepetitionKind::OneOrMore => (1, None),
            RepetitionKind::Range(RepetitionRange::Exactly(times)) => (*times, Some(*times)),
            RepetitionKind::Range(RepetitionRange::AtLeast(least)) => (*least, None),
            RepetitionKind::Range(RepetitionRange::Bounded(least, most)) => (*least, Some(*most)),
        };
        if least.max(most.unwrap_or(0)) > MAX_REPEAT {
            return refuse("nothing can be repeated more than 255 times by number", ast);
        }
        let most_written = most.map(|most| most.to_string()).unwrap_or_default();
        let _ = write!(self.out, "{{{least},{most_written}}}");
        Ok((least, most))
    }
}

fn anchor(assertion: &Assertion) -> &'static str {
    match assertion.kind {
        AssertionKind::StartLine | AssertionKind::EndLine => {
            "the whole value must match anyway; `^` is allowed only at the very beginning, `$` only at the very end"
        }
        _ => "looking around is not admitted; the whole value must match",
    }
}

/// A character that both engines read by its number, also between brackets.
fn write_code(out: &mut String, c: char) {
    let _ = write!(out, "\\U{:08X}", u32::from(c));
}

#[cfg(test)]
mod tests;
