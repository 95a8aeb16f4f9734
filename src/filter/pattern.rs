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
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"))
    }

    fn refused(text: &str, position: usize, part: &str) {
        let refusal = Pattern::parse(text).unwrap_err();
        assert!(refusal.message.contains(part), "{text}: {refusal:?}");
        assert_eq!(refusal.position, position, "{text}: {refusal:?}");
    }

    #[test]
    fn the_whole_value_must_match_with_its_case() {
        assert!(
            pattern("Joh?n").matches("Jon")
                && !pattern("Joh?n").matches("john")
                && !pattern("Joh?n").matches("Johnny")
        );
    }

    #[test]
    fn anchors_at_the_ends_say_nothing_new() {
        assert_eq!(pattern("^ab$"), pattern("ab"));
    }

    #[test]
    fn classes_are_of_ascii_and_the_dot_is_any_character() {
        assert!(
            pattern(r"\d+\s\w").matches("12 a")
                && !pattern(r"\d").matches("٣")
                && !pattern(r"\w").matches("é")
        );
        assert!(
            pattern(".").matches("\n")
                && pattern(".").matches("😀")
                && pattern(r"[^\d]").matches("é")
        );
        assert!(pattern(r"[\[\]\-^a-c]+").matches("]-^[b") && !pattern("[^a-c]").matches("b"));
        assert!(
            pattern("a{2,3}?").matches("aaa")
                && pattern("(?P<x>a|)b").matches("b")
                && pattern("").matches("")
        );
    }

    #[test]
    fn what_the_engines_would_read_differently_is_refused_where_it_stands() {
        refused("a\\1", 1, "backreferences");
        refused("é(?=b)", 1, "look-around");
        refused("a^b", 1, "at the very beginning");
        refused("a|b$", 3, "at the very end");
        refused(r"a\b", 1, "looking around");
        refused(r"\pL", 0, "classes of Unicode");
        refused("[[:alpha:]]", 1, "by name");
        refused("[a[b]]", 2, "another");
        refused("[a&&b]", 1, "made of other sets");
        refused("(?i)a", 0, "flags");
        refused("(?i:a)", 0, "flags");
        refused("(a", 0, "unclosed group");
        refused("a)", 1, "unopened");
        refused("*", 0, "repetition operator missing expression");
        refused("\\x00", 0, "U+0000");
    }

    #[test]
    fn what_no_text_has_is_in_no_set() {
        refused(r"[\x00]", 1, "U+0000");
        refused(r"a[^b\x00-\x05]", 4, "U+0000");
        refused(r"[\x01-\x{10FFFF}]|[^\x01-\x{10FFFF}]", 18, "no characters");
        assert!(
            pattern(r"[^a]\D").matches("\u{1}\u{1}")
                && !pattern("[^a]").matches("\0")
                && !pattern(r"[\D]").matches("\0")
        );
    }

    #[test]
    fn what_is_repeated_is_bounded_however_it_is_nested() {
        pattern("(?:.{250}){4}");
        pattern(".*(?:.{165}){2}");
        refused(".*(?:.{167}){2}", 0, "more than 1000 ways");
        refused("(?:.{250}){5}", 0, "more than 1000 ways");
        refused("(((a{100}){100}){100}){100}", 0, "more than 1000 ways");
        refused("((((a{0,99}){0,99}){0,99}){0,99}){0,99}", 0, "more than 1000 ways");
        refused("((((a|b){255}){255}){255}){255}", 0, "more than 1000 ways");
        refused("((((){255}){255}){255}){255}", 0, "more than 1000 ways");
        refused("a{256}", 0, "255");
        refused("xa{0,300}", 1, "255");
        let deep = format!("{}a{}", "(".repeat(40), ")".repeat(40));
        assert!(Pattern::parse(&deep).unwrap_err().message.contains("nest"));
    }

    #[test]
    fn a_run_of_what_may_be_left_out_counts_each_way_through_it() {
        for expression in
            ["(.?){43}", "(a?b?c?){14}", "(a?){12}(b*){12}", "([ab]?[bc]?){14}", "(.{0,3}){14}"]
        {
            pattern(expression);
        }
        for expression in [
            "(.?){45}",
            "(.?){30}(.*){2}",
            "(.?){255}(.?){255}(.?){255}(.?){234}z",
            "([a-z]?[b-z]?[c-z]?[d-z]?[e-z]?){9}z",
            "((a?){20}){3}b",
            "([ab]?[bc]?[cd]?){12}",
            "(a?a?a?a?a?){9}b",
            "(a*b*c*d*e*f*g*h*){0,6}z",
            "(|a|b){20}",
        ] {
            refused(expression, 0, "more than 1000 ways");
        }
    }

    #[test]
    fn everyday_expressions_are_far_from_the_bound() {
        for expression in [
            ".*foo.*",
            "(abc)?",
            r"[A-Z]{2}\d{0,8}",
            r"\w{1,64}@\w{1,64}\.com",
            r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}",
            r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
            r"\+?\d{1,3}[ -]?(\(\d{1,4}\))?[ -]?\d{3,12}",
            r"(https?://)?([\w-]+\.)+[a-z]{2,}(/\S*)?",
            r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])",
            r"(25[0-5]|2[0-4]\d|1?\d{1,2})(\.(25[0-5]|2[0-4]\d|1?\d{1,2})){3}",
            ".*(alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|omicron|pi|rho|sigma|tau|upsilon|phi|chi|psi|omega).*",
            "(monday|tuesday|wednesday|thursday|friday|saturday|sunday)( (morning|noon|evening|night))?",
            ".{0,255}x",
            "[^@]{1,64}@[^@]{1,255}",
        ] {
            assert!(pattern(expression).steps <= MAX_STEPS, "{expression}");
        }
    }

    #[test]
    fn expressions_that_make_others_slow_end_quickly() {
        let text = "a".repeat(100_000);
        for expression in
            ["(a+)+b", "(a|a)*b", "(a*)*b", "(a|aa)+b", "(.*a){9}b", "(a?){30}a{100}b", ".{255}x"]
        {
            assert!(!pattern(expression).matches(&text), "{expression}");
        }
    }
}
