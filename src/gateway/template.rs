//! Path templates of `google.api.http` (`google/api/http.proto` has the grammar):
//!
//! ```text
//! Template  = "/" Segments [ ":" LITERAL ]
//! Segments  = Segment { "/" Segment }
//! Segment   = "*" | "**" | LITERAL | "{" FieldPath [ "=" Segments ] "}"
//! ```

/// One segment of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// This text.
    Literal(String),
    /// `*`: any one segment that is not empty.
    One,
    /// `**`: all that is left, also nothing. It is always the last.
    Rest,
}

/// A variable of a template: the segments from `start` up to, not including, `end` are the value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// The field, as a path of proto names from the top of the request message.
    pub field: String,
    /// The first of its segments.
    pub start: usize,
    /// The segment after its last.
    pub end: usize,
    /// True if it may span several segments. If so, a `%2F` in it stays encoded, so that it is not taken for a separator.
    pub multi: bool,
}

/// A path template, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The rules for the segments of a path.
    pub segments: Vec<Segment>,
    /// The variables in the order in which they stand.
    pub variables: Vec<Variable>,
    /// The custom verb: the text after a colon at the end.
    pub verb: Option<String>,
}

impl Template {
    /// Reads a template. Fails with a sentence that names the fault.
    pub fn parse(text: &str) -> Result<Template, String> {
        let mut parser = Parser {
            rest: text,
            template: Template { segments: Vec::new(), variables: Vec::new(), verb: None },
        };
        parser.expect('/')?;
        parser.segments(false)?;
        if parser.eat(':') {
            parser.template.verb = Some(parser.literal()?);
        }
        if !parser.rest.is_empty() {
            return Err(format!("`{}` is not expected", parser.rest));
        }
        let template = parser.template;
        if template.segments.iter().rev().skip(1).any(|segment| *segment == Segment::Rest) {
            return Err("`**` must be the last segment".to_owned());
        }
        Ok(template)
    }

    /// The segments as text, `*` for each variable: what two templates share exactly when they match the same paths.
    pub fn shape(&self) -> String {
        let mut shape = String::new();
        for segment in &self.segments {
            shape.push('/');
            shape.push_str(match segment {
                Segment::Literal(text) => text,
                Segment::One => "*",
                Segment::Rest => "**",
            });
        }
        if let Some(verb) = &self.verb {
            shape.push(':');
            shape.push_str(verb);
        }
        shape
    }
}

struct Parser<'t> {
    rest: &'t str,
    template: Template,
}

impl Parser<'_> {
    fn eat(&mut self, wanted: char) -> bool {
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.eat(wanted) {
            Ok(())
        } else {
            Err(format!("`{wanted}` is expected before `{}`", self.rest))
        }
    }

    fn literal(&mut self) -> Result<String, String> {
        let end = self.rest.find(['/', ':', '{', '}', '*', '=']).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(if self.rest.is_empty() {
                "a segment is empty".to_owned()
            } else {
                format!("a name is expected before `{}`", self.rest)
            });
        }
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(text.to_owned())
    }

    fn segments(&mut self, in_variable: bool) -> Result<(), String> {
        loop {
            self.segment(in_variable)?;
            if !self.eat('/') {
                return Ok(());
            }
        }
    }

    fn segment(&mut self, in_variable: bool) -> Result<(), String> {
        if self.eat('{') {
            if in_variable {
                return Err("a variable inside a variable".to_owned());
            }
            return self.variable();
        }
        let segment = if self.eat('*') {
            if self.eat('*') { Segment::Rest } else { Segment::One }
        } else {
            Segment::Literal(self.literal()?)
        };
        self.template.segments.push(segment);
        Ok(())
    }

    fn variable(&mut self) -> Result<(), String> {
        let field = self.literal()?;
        let start = self.template.segments.len();
        if self.eat('=') {
            self.segments(true)?;
        } else {
            self.template.segments.push(Segment::One);
        }
        self.expect('}')?;
        let end = self.template.segments.len();
        let multi = end - start > 1 || self.template.segments[start] == Segment::Rest;
        if self.template.variables.iter().any(|other| other.field == field) {
            return Err(format!("the variable `{field}` appears twice"));
        }
        self.template.variables.push(Variable { field, start, end, multi });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_variables_and_a_verb_are_read() {
        let template = Template::parse("/v1/{name=projects/*/parts/*}/x/{a.b}:run").unwrap();
        assert_eq!(template.shape(), "/v1/projects/*/parts/*/x/*:run");
        assert_eq!(
            template.variables[0],
            Variable { field: "name".into(), start: 1, end: 5, multi: true }
        );
        assert_eq!(
            template.variables[1],
            Variable { field: "a.b".into(), start: 6, end: 7, multi: false }
        );
        assert_eq!(template.verb.as_deref(), Some("run"));
    }

    #[test]
    fn the_rest_of_a_path_may_be_a_variable() {
        let template = Template::parse("/files/{path=**}").unwrap();
        assert_eq!(template.segments, [Segment::Literal("files".into()), Segment::Rest]);
        assert!(template.variables[0].multi);
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for text in [
            "", "v1", "/", "/v1//x", "/v1/", "/{", "/{}", "/{a", "/{a=}", "/{a={b}}", "/**/x",
            "/a*", "/x:", "/{a}/{a}", "/a}b", "/a:b:c",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
