//! From text to tree, by recursive descent. The nesting is bounded, and with it the recursion.

use super::error::ParseError;
use super::function::{FUNCTIONS, Function, Test, Values, nearest};
use super::lexer::{Cursor, shorten};
use super::syntax::{Call, Node, PROPERTIES, Property, UriStart, Value};
use super::{MAX_DEPTH, MAX_LIST, MAX_NODES, MAX_VALUE_CHARACTERS};

/// Whether what people misread is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strictness {
    Lenient,
    Strict,
}

/// Reads the whole of a filter.
pub(super) fn parse(text: &str, strictness: Strictness) -> Result<Node, ParseError> {
    let mut parser = Parser { cursor: Cursor::new(text), strictness, nodes: 0 };
    parser.cursor.skip_space();
    if parser.cursor.peek().is_none() {
        return Err(ParseError::new(parser.cursor.position(), "the filter is empty").expecting(CONDITION));
    }
    let root = parser.any_of(0)?;
    match parser.cursor.peek() {
        None => {}
        Some(')') => {
            return Err(ParseError::new(parser.cursor.position(), "this parenthesis closes none").expecting(["AND", "OR", "the end"]));
        }
        Some(_) => return Err(parser.cursor.unexpected(["AND", "OR", "the end"])),
    }
    // Parentheses that precedence makes needless are part of the canonical text, which must be readable too.
    if root.nesting() > MAX_DEPTH { Err(too_deep(0)) } else { Ok(root) }
}

const CONDITION: [&str; 3] = ["a function", "NOT", "`(`"];

fn too_deep(position: usize) -> ParseError {
    ParseError::new(position, format!("the filter nests more than {MAX_DEPTH} deep"))
}

struct Parser {
    cursor: Cursor,
    strictness: Strictness,
    nodes: usize,
}

impl Parser {
    /// Conditions with OR between them, up to a closing parenthesis, the end or what does not belong.
    fn any_of(&mut self, depth: usize) -> Result<Node, ParseError> {
        let mut members = Vec::new();
        let mut chain_of_and = false;
        loop {
            let (member, and_position) = self.all_of(depth)?;
            chain_of_and |= and_position.is_some();
            members.push(member);
            let or_position = self.cursor.position();
            let more = self.cursor.eat_keyword("or");
            if self.strictness == Strictness::Strict && chain_of_and && (more || members.len() > 1) {
                let position = if more { or_position } else { and_position.unwrap_or(or_position) };
                return Err(ParseError::new(position, "AND and OR side by side are easily misread; put parentheses around one of them"));
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

    fn chain(&mut self, mut members: Vec<Node>, node: fn(Vec<Node>) -> Node) -> Result<Node, ParseError> {
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
            return Err(ParseError::new(self.cursor.position(), format!("the filter has more than {MAX_NODES} conditions and operators")));
        }
        Ok(())
    }

    /// One condition, and the white space behind it.
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
            Node::Call(self.call()?)
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

    fn call(&mut self) -> Result<Call, ParseError> {
        let start = self.cursor.position();
        let name = self.cursor.word();
        if name.is_empty() {
            return Err(self.cursor.unexpected(CONDITION));
        }
        let function = Function::named(&name).ok_or_else(|| unknown_function(start, &name))?;
        self.cursor.skip_space();
        let opened = self.cursor.position();
        if !self.cursor.eat('(') {
            return Err(self.cursor.unexpected(["`(`"]));
        }
        let property = self.property()?;
        let values = self.values(function, opened)?;
        self.refuse_every_uri(start, function, &property, &values)?;
        Ok(Call { function, property, values })
    }

    fn refuse_every_uri(&self, start: usize, function: &Function, property: &Property, values: &[Value]) -> Result<(), ParseError> {
        let strict = self.strictness == Strictness::Strict;
        let every = |value: &Value| value.uri_start() == UriStart::EveryUri;
        if strict && function.test == Test::StartsWith && *property == Property::Uri && values.iter().any(every) {
            let message = "every uri begins so; write `entities/` before the beginning of an id";
            return Err(ParseError::new(start, message).expecting(["`startsWith(uri, 'entities/…')`"]));
        }
        Ok(())
    }

    fn property(&mut self) -> Result<Property, ParseError> {
        const PATH: [&str; 3] = ["`type`", "`uri`", "`attributes.NAME`"];
        self.cursor.skip_space();
        let start = self.cursor.position();
        if self.cursor.at_quote() {
            return Err(ParseError::new(start, "a path stands here, and without quotes").expecting(PATH));
        }
        let name = self.cursor.word_to_point();
        if name.is_empty() {
            return Err(self.cursor.unexpected(PATH));
        }
        let names = self.names()?;
        match (name.as_str(), names.is_empty()) {
            ("type", true) => Ok(Property::Type),
            ("uri", true) => Ok(Property::Uri),
            ("attributes", false) => Ok(Property::Attribute(names)),
            ("attributes", true) => {
                Err(ParseError::new(start, "`attributes` needs the name of an attribute").expecting(["`attributes.NAME`"]))
            }
            ("type" | "uri", false) => Err(ParseError::new(start, format!("`{name}` has no members")).expecting([format!("`{name}`")])),
            _ => Err(unknown_property(start, &name).expecting(PATH)),
        }
    }

    /// The names behind the points of a path.
    fn names(&mut self) -> Result<Vec<String>, ParseError> {
        let mut names = Vec::new();
        while self.cursor.eat('.') {
            let start = self.cursor.position();
            let name = if self.cursor.at_quote() { self.cursor.quoted()? } else { self.cursor.word_to_point() };
            if name.is_empty() && self.cursor.position() == start {
                return Err(self.cursor.unexpected(["a name", "a name in quotes"]));
            }
            check_length(start, "a name in a path", &name)?;
            names.push(name);
            if names.len() > MAX_DEPTH {
                return Err(ParseError::new(start, format!("a path may have at most {MAX_DEPTH} names")));
            }
        }
        Ok(names)
    }

    /// The values behind the path, up to the parenthesis that closes the call.
    fn values(&mut self, function: &Function, opened: usize) -> Result<Vec<Value>, ParseError> {
        let mut given: Vec<(usize, String)> = Vec::new();
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
                    Values::List => too_long_a_list(position),
                    _ => ParseError::new(position, format!("too many values: {}", function.usage())).expecting(["`)`"]),
                });
            }
            given.push(self.value()?);
        }
        let given = if function.values == Values::List { split_list(given)? } else { given };
        given.into_iter().map(|(position, text)| checked_value(function, position, text)).collect()
    }

    fn no_comma(&self, function: &Function, given: usize, opened: usize) -> ParseError {
        if self.cursor.peek().is_none() {
            return ParseError::new(self.cursor.position(), format!("the parenthesis at position {opened} is not closed"))
                .expecting(["`)`"]);
        }
        let (more, enough) = (given < *function.arity.end(), given >= *function.arity.start());
        self.cursor.unexpected([("`,`", more), ("`)`", enough)].into_iter().filter(|(_, possible)| *possible).map(|(token, _)| token))
    }

    /// A value, in quotes or a word, and where it stands.
    fn value(&mut self) -> Result<(usize, String), ParseError> {
        self.cursor.skip_space();
        let position = self.cursor.position();
        if self.cursor.at_quote() {
            return Ok((position, self.cursor.quoted()?));
        }
        let word = self.cursor.word();
        if word.is_empty() {
            return Err(self.cursor.unexpected(["a value"]));
        }
        if word.starts_with("attributes.") {
            let message = "attributes cannot be compared with each other; put a text that begins so into quotes";
            return Err(ParseError::new(position, message).expecting(["a value"]));
        }
        Ok((position, word))
    }
}

fn deeper(depth: usize, position: usize) -> Result<usize, ParseError> {
    if depth < MAX_DEPTH { Ok(depth + 1) } else { Err(too_deep(position)) }
}

/// The elements of a list that is given as one text; a list that is given as such is left alone.
fn split_list(mut given: Vec<(usize, String)>) -> Result<Vec<(usize, String)>, ParseError> {
    if given.len() != 1 {
        return Ok(given);
    }
    let (position, list) = given.remove(0);
    let elements: Vec<_> = list.split(',').take(MAX_LIST + 1).map(|element| (position, element.trim().to_owned())).collect();
    if elements.len() > MAX_LIST {
        return Err(too_long_a_list(position));
    }
    if elements.iter().any(|(_, element)| element.is_empty()) {
        return Err(ParseError::new(position, "the list has an empty element; the empty text is asked for as `equals(path, '')`"));
    }
    Ok(elements)
}

fn too_long_a_list(position: usize) -> ParseError {
    ParseError::new(position, format!("a list may have at most {MAX_LIST} values"))
}

fn checked_value(function: &Function, position: usize, text: String) -> Result<Value, ParseError> {
    if text.is_empty() && function.values == Values::NotEmpty {
        let message = format!("{} needs at least one character; `exists(path)` asks for any value", function.name);
        return Err(ParseError::new(position, message));
    }
    check_length(position, "a value", &text)?;
    Ok(Value::new(text))
}

fn check_length(position: usize, what: &str, text: &str) -> Result<(), ParseError> {
    let length = text.chars().count();
    if length > MAX_VALUE_CHARACTERS {
        return Err(ParseError::new(position, format!("{what} may have at most {MAX_VALUE_CHARACTERS} characters, this one has {length}")));
    }
    Ok(())
}

fn unknown_function(position: usize, name: &str) -> ParseError {
    let names = || FUNCTIONS.iter().map(|function| function.name);
    let hint = nearest(name, names()).map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
    ParseError::new(position, format!("unknown function `{}`{hint}", shorten(name))).expecting(names().map(|name| format!("`{name}`")))
}

fn unknown_property(position: usize, name: &str) -> ParseError {
    let name = shorten(name);
    let hint = match nearest(&name, PROPERTIES) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("an attribute is written `attributes.{name}`"),
    };
    ParseError::new(position, format!("unknown property `{name}`; {hint}"))
}
