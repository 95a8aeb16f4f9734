//! JSON to messages, in one pass over the text. Every fault is collected with its path, and reading continues; only text that is not JSON
//! ends it.

use jiter::{Jiter, JiterError, Peek};
use prost_reflect::{DynamicMessage, Value};

use super::fault::Fault;
use super::misplaced::unknown;
use super::number::whole;
use super::packed::TYPE;
use super::path::Path;
use super::scalar::{self, from_text};
use super::schema::{Cardinality, Field, Schema, Shape, well_known};
use super::syntax;
use crate::error::Violations;

/// How deep the messages of a request may nest. prost refuses more than 100, so that nobody can exhaust a stack; one is left for a scalar at
/// the bottom that is a message of its own.
const MAX_DEPTH: usize = 99;

/// Reads the JSON of one message or of one of its fields.
pub struct Decoder<'s, 'j> {
    pub(super) schema: &'s Schema,
    pub(super) json: Jiter<'j>,
    text: &'j [u8],
    violations: Violations,
    pub(super) path: Path,
    pub(super) depth: usize,
    /// The messages around the place, the outermost first: each with the length of the path to it.
    around: Vec<(usize, usize)>,
    /// How many objects were in lists so far.
    pub(super) listed: usize,
    /// How deep the reading is within a free-form object, and whether there was more than may be.
    pub(super) nesting: usize,
    pub(super) is_too_deep: bool,
    /// The depth of the members that stand beside an `@type`, if the reading is within such an object.
    pub(super) packed: Option<usize>,
    /// The empty members so far, of those whose service asks for them.
    void: Vec<String>,
}

/// The content of a document.
#[derive(Debug)]
pub struct Decoded<T> {
    /// The value; where there are violations it is incomplete.
    pub value: T,
    /// All that is wrong with it, with paths of proto names.
    pub violations: Violations,
    /// The empty members, of those whose service asks for them, with paths of proto names.
    pub void: Vec<String>,
}

/// Nothing where a fault was noted, or the end of the reading where the text is not JSON.
pub(super) type Read<T> = Result<Option<T>, JiterError>;

impl<'s, 'j> Decoder<'s, 'j> {
    /// Reads `text` as the value of the request message or, where `path` is not empty, of this field of it. The path is put before that of
    /// each fault.
    pub fn new(schema: &'s Schema, text: &'j [u8], path: &str) -> Self {
        let depth = usize::from(!path.is_empty());
        Decoder {
            schema,
            json: Jiter::new(text),
            text,
            violations: Violations::new(),
            path: Path::new(path),
            depth,
            around: Vec::new(),
            listed: 0,
            nesting: 0,
            is_too_deep: false,
            packed: None,
            void: Vec::new(),
        }
    }

    /// Reads an object into the message, whose type is at `place` in the schema. The value is the members that were given, by the index of
    /// their fields.
    pub fn message(mut self, place: usize, message: &mut DynamicMessage) -> Decoded<Vec<usize>> {
        let read = self.json.peek().and_then(|peek| match peek {
            Peek::Object => self.members(place, message).map(Some),
            other => self.refuse(other, Fault::new("invalid_type", "must be an object")),
        });
        self.end(read, Vec::new())
    }

    /// Reads a value of this shape, such as a request message that is a `google.protobuf.Struct`.
    pub fn whole(mut self, shape: &'s Shape) -> Decoded<Option<Value>> {
        let read = self.json.peek().and_then(|peek| self.value(shape, peek)).map(Some);
        self.end(read, None)
    }

    /// Reads the value of a field into the message. `null` leaves it unset: a `null` alone must not come to mean something else.
    pub fn field(mut self, field: &'s Field, message: &mut DynamicMessage) -> Decoded<()> {
        let read = self.json.peek().and_then(|peek| match peek {
            Peek::Null if !matches!(field.shape, Shape::Value) => {
                self.refuse(peek, Fault::no_body(field.filled))
            }
            _ => self.field_value(field, peek),
        });
        let read = read.map(|value| {
            if let Some(value) = value {
                message.set_field(&field.descriptor, value);
            }
            None
        });
        self.end(read, ())
    }

    fn end<T>(mut self, read: Read<T>, nothing: T) -> Decoded<T> {
        match read.and_then(|value| self.json.finish().map(|()| value)) {
            Ok(value) => Decoded {
                value: value.unwrap_or(nothing),
                violations: self.violations,
                void: self.void,
            },
            Err(error) => {
                let position = error.get_position(&self.json);
                let mut violations = Violations::new();
                let reason = syntax::description(&error.error_type);
                // A single line may be that of a body with more, which has a number of its own.
                let line = if self.text.contains(&b'\n') {
                    format!("line {}, ", position.line)
                } else {
                    String::new()
                };
                let description =
                    format!("is not JSON: {reason} at {line}column {}", position.column);
                violations.add(self.path.root(), "invalid_json", description);
                Decoded { value: nothing, violations, void: Vec::new() }
            }
        }
    }

    pub(super) fn members(
        &mut self,
        place: usize,
        message: &mut DynamicMessage,
    ) -> Result<Vec<usize>, JiterError> {
        let kind = self.schema.message(place);
        self.around.push((place, self.path.as_str().len()));
        let mut seen = Vec::new();
        let mut key = self.json.known_object()?;
        while let Some(name) = key {
            match kind.find(name) {
                Some((place, field)) => {
                    let mark = self.path.enter(field.descriptor.name());
                    let peek = self.json.peek()?;
                    if seen.contains(&place) {
                        self.refuse::<()>(peek, Fault::new("duplicate", "is given twice"))?;
                    } else {
                        seen.push(place);
                        if let Some(value) = self.field_value(field, peek)? {
                            self.set(field, value, message);
                        }
                    }
                    self.path.truncate(mark);
                }
                None if self.packed == Some(self.depth) && name == TYPE => self.json.next_skip()?,
                None => {
                    let fault = match self.violations.is_full() {
                        true => Fault::unknown(None),
                        false => unknown(self.schema, self.path.as_str(), &self.around, name),
                    };
                    let mark = self.path.enter(name);
                    let peek = self.json.peek()?;
                    self.refuse::<()>(peek, fault)?;
                    self.path.truncate(mark);
                }
            }
            key = self.json.next_key()?;
        }
        self.around.pop();
        Ok(seen)
    }

    fn set(&mut self, field: &Field, value: Value, message: &mut DynamicMessage) {
        match self.schema.rival(field, message) {
            Some(rival) => self.fault(rival),
            None => message.set_field(&field.descriptor, value),
        }
    }

    fn field_value(&mut self, field: &'s Field, peek: Peek) -> Read<Value> {
        match &field.cardinality {
            _ if peek == Peek::Null && field.guard => self.refuse(peek, Fault::no_guard()),
            _ if peek == Peek::Null
                && !matches!(
                    (&field.cardinality, &field.shape),
                    (Cardinality::Single { .. }, Shape::Value)
                ) =>
            {
                self.json.known_null()?;
                self.note_void(field);
                Ok(None)
            }
            Cardinality::Single { .. } => {
                let value = self.value(&field.shape, peek)?;
                if field.guard && value.as_ref().and_then(Value::as_str) == Some("") {
                    self.fault(Fault::no_guard());
                }
                Ok(value)
            }
            Cardinality::List => {
                // An unreadable message counts as well, so that the faults of those after it have the right number.
                let filler = Value::default_value(&field.descriptor.kind());
                let element = |decoder: &mut Self, peek| {
                    Ok(decoder.element(&field.shape, peek)?.or_else(|| Some(filler.clone())))
                };
                let list = self.list(field.max_items, peek, element)?;
                if list.as_ref().is_some_and(Vec::is_empty) {
                    match field.filled {
                        true => self.fault(Fault::empty()),
                        false => self.note_void(field),
                    }
                }
                Ok(list.map(Value::List))
            }
            Cardinality::Map(keys) => {
                let Peek::Object = peek else {
                    return self.refuse(peek, Fault::new("invalid_type", "must be an object"));
                };
                self.within(1, peek, |decoder| decoder.map(keys, &field.shape).map(Some))
            }
        }
    }

    pub(super) fn value(&mut self, shape: &'s Shape, peek: Peek) -> Read<Value> {
        match (shape, peek) {
            (Shape::Wrapper(descriptor, inner), _) => {
                let value = self.value(inner, peek)?;
                Ok(value.map(|value| well_known(descriptor, [(1, value)])))
            }
            (Shape::Value, _) => self.free(0, peek, |decoder, out| decoder.any(out, peek)),
            (Shape::Message(place), Peek::Object) => {
                let mut message =
                    DynamicMessage::new(self.schema.message(*place).descriptor.clone());
                let members = self
                    .within(1, peek, |decoder| decoder.members(*place, &mut message).map(Some))?;
                Ok(members.map(|_| Value::Message(message)))
            }
            (Shape::Struct, Peek::Object) => self.free(1, peek, Self::structure),
            (Shape::Any(descriptor), Peek::Object) => {
                self.within(1, peek, |decoder| decoder.packed(descriptor, peek))
            }
            (Shape::ListValue, Peek::Array) => {
                self.free(1, peek, |decoder, out| decoder.list_value(out, peek))
            }
            (Shape::Bool, Peek::True | Peek::False) => {
                self.json.known_bool(peek).map(|value| Some(Value::Bool(value)))
            }
            (Shape::String, Peek::String) => {
                Ok(Some(Value::String(self.json.known_str()?.to_owned())))
            }
            (
                Shape::Bool
                | Shape::String
                | Shape::Message(_)
                | Shape::Struct
                | Shape::ListValue
                | Shape::Any(_),
                _,
            ) => self.refuse(peek, Fault::kind(shape)),
            (_, Peek::String) => {
                let read = from_text(shape, self.json.known_str()?);
                Ok(self.keep(read))
            }
            (Shape::Number(kind), _) if peek.is_num() => {
                let read = scalar::number(kind, self.number(peek)?);
                Ok(self.keep(read))
            }
            (Shape::Timestamp { descriptor, epoch_millis: true }, _) if peek.is_num() => {
                let millis = scalar::millis(descriptor, whole(self.number(peek)?));
                Ok(self.keep(millis.ok_or_else(|| Fault::kind(shape))))
            }
            _ => self.refuse(peek, Fault::kind(shape)),
        }
    }

    /// The text of a number.
    pub(super) fn number(&mut self, peek: Peek) -> Result<&'j str, JiterError> {
        let start = self.json.current_index();
        self.json.known_number_bytes(peek)?;
        Ok(std::str::from_utf8(self.json.slice_to_current(start)).expect("a number is ASCII"))
    }

    /// Reads what nests `levels` messages deeper, unless that is too deep.
    pub(super) fn within<T>(
        &mut self,
        levels: usize,
        peek: Peek,
        read: impl FnOnce(&mut Self) -> Read<T>,
    ) -> Read<T> {
        if self.depth + levels > MAX_DEPTH {
            return self.refuse(peek, Fault::new("too_deep", "is nested too deeply"));
        }
        self.depth += levels;
        let value = read(self)?;
        self.depth -= levels;
        Ok(value)
    }

    fn note_void(&mut self, field: &Field) {
        if field.report_void {
            self.void.push(self.path.as_str().to_owned());
        }
    }

    /// Notes a fault and passes over the value.
    pub(super) fn refuse<T>(&mut self, peek: Peek, fault: Fault) -> Read<T> {
        self.json.known_skip(peek)?;
        self.fault(fault);
        Ok(None)
    }

    /// The value, or nothing and a note of the fault.
    pub(super) fn keep<T>(&mut self, read: Result<T, Fault>) -> Option<T> {
        read.map_err(|fault| self.fault(fault)).ok()
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        self.violations.add(self.path.as_str(), fault.code, fault.description);
    }
}
