//! From text to tree, by recursive descent. The nesting is bounded, and with it the recursion.

use super::arguments::{Given, call_of, check_length, same_value, split_list, too_long_a_list};
use super::display::COUNT;
use super::error::ParseError;
use super::function::{FUNCTIONS, Function, Test, Values};
use super::lexer::{Cursor, shorten};
use super::meant;
use super::pattern::{MAX_STEPS, Pattern, TOO_LARGE};
use super::syntax::{Node, Path};
use super::vocabulary::{PropertyKind, Vocabulary};
use super::{MAX_DEPTH, MAX_EXPRESSIONS, MAX_NODES};
use crate::error::nearest;

/// Whether what people misread is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strictness {
    Lenient,
    Strict,
}

/// Reads the whole of a filter.
pub(super) fn parse(
    vocabulary: &'static Vocabulary,
    text: &str,
    strictness: Strictness,
) -> Result<Node, ParseError> {
    let mut parser = Parser {
        cursor: Cursor::new(text),
        vocabulary,
        strictness,
        nodes: 0,
        expressions: 0,
        steps: 0,
        faults: Vec::new(),
    };
    let root = parser.whole();
    let mut faults = parser.faults;
    let root = root.map_err(|fault| faults.push(fault)).ok();
    faults.sort_by_key(|fault| fault.position);
    match (ParseError::first_of(faults), root) {
        (Some(fault), _) => Err(fault),
        // Parentheses that precedence makes needless are part of the canonical text, which must be readable too.
        (None, Some(root)) if root.nesting() <= MAX_DEPTH => Ok(root),
        (None, _) => Err(too_deep(0)),
    }
}

/// Stands for a call with a fault: a filter that has one is refused as a whole.
const UNREADABLE: Node = Node::And(Vec::new());

const CONDITION: [&str; 3] = ["a function", "NOT", "`(`"];

fn too_deep(position: usize) -> ParseError {
    ParseError::new(position, format!("the filter nests more than {MAX_DEPTH} deep"))
}

struct Parser {
    cursor: Cursor,
    vocabulary: &'static Vocabulary,
    strictness: Strictness,
    nodes: usize,
    /// How many expressions there are so far, and how many steps they have.
    expressions: usize,
    steps: u64,
    /// The faults behind which reading went on.
    faults: Vec<ParseError>,
}

impl Parser {
    /// All of the text.
    fn whole(&mut self) -> Result<Node, ParseError> {
        self.cursor.skip_space();
        if self.cursor.peek().is_none() {
            return Err(
                ParseError::new(self.cursor.position(), "the filter is empty").expecting(CONDITION)
            );
        }
        let root = self.any_of(0)?;
        match self.cursor.peek() {
            None => Ok(root),
            Some(')') => {
                Err(ParseError::new(self.cursor.position(), "this parenthesis closes none")
                    .expecting(["AND", "OR", "the end"]))
            }
            Some(_) => Err(self.cursor.unexpected(["AND", "OR", "the end"])),
        }
    }

    /// Goes on behind the parenthesis that closes the one at `opened`, as if the call were right, so that the faults of other calls are found as well. Fails where
    /// it is not known which that is.
    fn go_on(&mut self, opened: usize, fault: ParseError) -> Result<Node, ParseError> {
        if self.cursor.skip_parenthesis(opened) {
            self.faults.push(fault);
            Ok(UNREADABLE)
        } else {
            Err(fault)
        }
    }

    /// Conditions with OR between them, up to a closing parenthesis, the end or what does not belong.
    fn any_of(&mut self, depth: usize) -> Result<Node, ParseError> {
        let mut members = Vec::new();
        let mut chain_of_and = false;
        let mut is_refused = false;
        loop {
            let (member, and_position) = self.all_of(depth)?;
            chain_of_and |= and_position.is_some();
            members.push(member);
            let or_position = self.cursor.position();
            let more = self.cursor.eat_keyword("or");
            let is_misread = chain_of_and && (more || members.len() > 1);
            if self.strictness == Strictness::Strict && is_misread && !is_refused {
                is_refused = true;
                let position = if more { or_position } else { and_position.unwrap_or(or_position) };
                self.faults.push(ParseError::new(
                    position,
                    "AND and OR side by side are easily misread; put parentheses around one of them",
                ));
            }
            if !more {
                return self.chain(members, Node::Or);
            }
        }
    }

    /// Conditions with AND between them, and where the first AND stood.
    fn all_of(&mut self, depth: usize) -> Result<(Node, Option<usize>), ParseError> {
        let mut members = vec![self.unary(depth)?];
        let mut first_and = None;
        loop {
            let position = self.cursor.position();
            if !self.cursor.eat_keyword("and") {
                return Ok((self.chain(members, Node::And)?, first_and));
            }
            first_and.get_or_insert(position);
            members.push(self.unary(depth)?);
        }
    }

    fn chain(
        &mut self,
        mut members: Vec<Node>,
        node: fn(Vec<Node>) -> Node,
    ) -> Result<Node, ParseError> {
        match members.pop() {
            Some(only) if members.is_empty() => Ok(only),
            last => {
                self.count_node()?;
                members.extend(last);
                Ok(node(members))
            }
        }
    }

    fn count_node(&mut self) -> Result<(), ParseError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(ParseError::new(
                self.cursor.position(),
                format!("the filter has more than {MAX_NODES} conditions and operators"),
            ));
        }
        Ok(())
    }

    /// One condition, and the white space after it.
    fn unary(&mut self, depth: usize) -> Result<Node, ParseError> {
        self.cursor.skip_space();
        let start = self.cursor.position();
        let node = if self.cursor.eat_keyword("not") {
            self.count_node()?;
            Node::Not(Box::new(self.unary(deeper(depth, start)?)?))
        } else if self.cursor.eat('(') {
            let inner = self.any_of(deeper(depth, start)?)?;
            self.close(start)?;
            inner
        } else {
            self.count_node()?;
            self.call(depth)?
        };
        self.cursor.skip_space();
        Ok(node)
    }

    /// Steps over the parenthesis that closes the one at `opened`.
    fn close(&mut self, opened: usize) -> Result<(), ParseError> {
        if self.cursor.eat(')') {
            return Ok(());
        }
        if self.cursor.peek().is_none() {
            let message = format!("the parenthesis at position {opened} is not closed");
            return Err(ParseError::new(self.cursor.position(), message).expecting(["`)`"]));
        }
        Err(self.cursor.unexpected(["AND", "OR", "`)`"]))
    }

    fn call(&mut self, depth: usize) -> Result<Node, ParseError> {
        let start = self.cursor.position();
        let name = self.cursor.word();
        if name.is_empty() {
            return Err(self.cursor.unexpected(CONDITION));
        }
        let function = Function::named(&name).ok_or_else(|| unknown_function(start, &name));
        self.cursor.skip_space();
        let opened = self.cursor.position();
        let function = match function {
            Ok(function) => function,
            Err(fault) => return self.go_on(opened, fault),
        };
        if !self.cursor.eat('(') {
            return Err(self.cursor.unexpected(["`(`"]));
        }
        if function.test == Test::SameValue {
            let faults = self.faults.len();
            let inner = self.any_of(deeper(depth, start)?)?;
            self.close(opened)?;
            // What the calls within have in common is not known of one that cannot be read.
            if self.faults.len() > faults {
                return Ok(UNREADABLE);
            }
            return same_value(start, inner).or_else(|fault| self.go_on(opened, fault));
        }
        self.arguments(function, start, opened).or_else(|fault| self.go_on(opened, fault))
    }

    /// The path and the values of a call whose parenthesis is open.
    fn arguments(
        &mut self,
        function: &'static Function,
        start: usize,
        opened: usize,
    ) -> Result<Node, ParseError> {
        self.cursor.skip_space();
        let path_start = self.cursor.position();
        let path = self.path()?;
        let given = self.values(function, opened)?;
        let call = call_of(
            function,
            (path_start, path),
            given,
            (self.strictness == Strictness::Strict).then_some(start),
        )?;
        call.pattern.iter().try_for_each(|pattern| self.count_expression(start, pattern))?;
        Ok(Node::Call(call))
    }

    /// Counts an expression among those of the filter, which the database has to evaluate for one record.
    fn count_expression(&mut self, start: usize, pattern: &Pattern) -> Result<(), ParseError> {
        self.expressions += 1;
        self.steps = self.steps.saturating_add(pattern.steps);
        if self.expressions > MAX_EXPRESSIONS {
            return Err(ParseError::new(
                start,
                format!("the filter has more than {MAX_EXPRESSIONS} expressions"),
            ));
        }
        if self.steps > MAX_STEPS {
            return Err(ParseError::new(
                start,
                format!("this expression together with those before it {TOO_LARGE}"),
            ));
        }
        Ok(())
    }

    fn path(&mut self) -> Result<Path, ParseError> {
        let start = self.cursor.position();
        if self.cursor.at_quote() {
            return Err(ParseError::new(start, "a path is written here, without quotes")
                .expecting(self.vocabulary.spellings()));
        }
        let name = self.cursor.word_to_point();
        if name.is_empty() {
            return Err(self.cursor.unexpected(self.vocabulary.spellings()));
        }
        let Some(property) = self.vocabulary.named(&name) else {
            return Err(self.unknown_property(start, &name));
        };
        let (names, counted) = self.names()?;
        if property.kind != PropertyKind::Json && !names.is_empty() {
            return Err(ParseError::new(start, format!("`{name}` has no members"))
                .expecting([format!("`{name}`")]));
        }
        Ok(Path { property, names, counted })
    }

    /// The names after the points of a path, and whether `count` follows them, without quotes.
    fn names(&mut self) -> Result<(Vec<String>, bool), ParseError> {
        let mut names = Vec::new();
        let mut counted = false;
        while self.cursor.eat('.') {
            let start = self.cursor.position();
            let quoted = self.cursor.at_quote();
            let name = if quoted { self.cursor.quoted()? } else { self.cursor.word_to_point() };
            if name.is_empty() && self.cursor.position() == start {
                return Err(self.cursor.unexpected(["a name", "a name in quotes"]));
            }
            check_length(start, "a name in a path", &name)?;
            counted =
                !quoted && name == COUNT && !names.is_empty() && self.cursor.peek() != Some('.');
            if counted {
                break;
            }
            names.push(name);
            if names.len() > MAX_DEPTH {
                return Err(ParseError::new(
                    start,
                    format!("a path may have at most {MAX_DEPTH} names"),
                ));
            }
        }
        Ok((names, counted))
    }

    /// The values behind the path, up to the parenthesis that closes the call.
    fn values(&mut self, function: &Function, opened: usize) -> Result<Vec<Given>, ParseError> {
        let mut given: Vec<Given> = Vec::new();
        loop {
            self.cursor.skip_space();
            let position = self.cursor.position();
            if self.cursor.eat(')') {
                if given.len() < *function.arity.start() {
                    let message = format!("a value is missing: {}", function.usage());
                    return Err(ParseError::new(position, message).expecting(["`,` and a value"]));
                }
                break;
            }
            if !self.cursor.eat(',') {
                return Err(self.no_comma(function, given.len(), opened));
            }
            if given.len() == *function.arity.end() {
                return Err(match function.values {
                    Values::List | Values::Listed => too_long_a_list(position),
                    _ => {
                        ParseError::new(position, format!("too many values: {}", function.usage()))
                            .expecting(["`)`"])
                    }
                });
            }
            given.push(self.value()?);
        }
        if function.values == Values::List { split_list(given) } else { Ok(given) }
    }

    fn no_comma(&self, function: &Function, given: usize, opened: usize) -> ParseError {
        if self.cursor.peek().is_none() {
            return ParseError::new(
                self.cursor.position(),
                format!("the parenthesis at position {opened} is not closed"),
            )
            .expecting(["`)`"]);
        }
        let (more, enough) = (given < *function.arity.end(), given >= *function.arity.start());
        self.cursor.unexpected(
            [("`,`", more), ("`)`", enough)]
                .into_iter()
                .filter(|(_, possible)| *possible)
                .map(|(token, _)| token),
        )
    }

    /// A value, in quotes or a word, and its position.
    fn value(&mut self) -> Result<Given, ParseError> {
        self.cursor.skip_space();
        let position = self.cursor.position();
        if self.cursor.at_quote() {
            return Ok((position, self.cursor.quoted()?));
        }
        let word = self.cursor.word();
        if word.is_empty() {
            return Err(self.cursor.unexpected(["a value"]));
        }
        let first = word.split_once('.').and_then(|(first, _)| self.vocabulary.named(first));
        if let Some(property) = first.filter(|property| property.kind == PropertyKind::Json) {
            let message = format!(
                "{} cannot be compared with each other; put a text that begins so into quotes",
                property.name()
            );
            return Err(ParseError::new(position, message).expecting(["a value"]));
        }
        Ok((position, word))
    }

    fn unknown_property(&self, position: usize, name: &str) -> ParseError {
        let name = shorten(name);
        let properties = self.vocabulary.properties;
        let json = properties.iter().find(|property| property.kind == PropertyKind::Json);
        let hint = match (nearest(&name, properties.iter().map(|property| property.name())), json) {
            (Some(meant), _) => format!("; did you mean `{meant}`?"),
            (None, Some(json)) => format!("; what is in {0} is written `{0}.{name}`", json.name()),
            (None, None) => String::new(),
        };
        ParseError::new(position, format!("unknown property `{name}`{hint}"))
            .expecting(self.vocabulary.spellings())
    }
}

fn deeper(depth: usize, position: usize) -> Result<usize, ParseError> {
    if depth < MAX_DEPTH { Ok(depth + 1) } else { Err(too_deep(position)) }
}

fn unknown_function(position: usize, name: &str) -> ParseError {
    let message = format!("unknown function `{}`{}", shorten(name), meant::hint(name));
    ParseError::new(position, message)
        .expecting(FUNCTIONS.iter().map(|function| format!("`{}`", function.name)))
}
