//! JSON objects as messages: [`Struct`] is `google.protobuf.Struct` on the wire, and flat in memory.
//!
//! The generated type builds a node for each value, and costs tens of times the bytes that a caller sends. This one checks the bytes and
//! keeps them; it stops at its own limit, whatever else is sent. Numbers are kept to the last digit ([`number`]).

mod builder;
mod jsonb;
mod length;
mod merge;
pub(crate) mod number;
mod read;
mod text;
mod wire;

use std::borrow::Cow;
use std::fmt;

use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, decode_varint, skip_field};
use prost::{DecodeError, Message};
use serde_json::Value as Json;

pub use builder::{Builder, Member, Members, Open};
pub use jsonb::Objects;
pub use read::{List, Number, Object, View, write_list, write_object, write_value};

/// The most bytes of JSON that an object of a request may have, written without blanks and with numbers written out.
pub const MAX_BYTES: usize = 1 << 20;

/// Why an object of a caller is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It has more than [`MAX_BYTES`].
    TooLarge,
    /// It is nested deeper than [`MAX_OBJECT_DEPTH`](crate::limits::bodies::MAX_OBJECT_DEPTH).
    TooDeep,
    /// A value in it is of no kind, which no JSON value is.
    NoKind,
    /// A number in it is not finite.
    NotANumber,
    /// A number in it has too many digits.
    LongNumber,
    /// A text in it contains the character U+0000, which the database cannot store.
    Nul,
}

impl Fault {
    /// The code of the violation.
    pub fn code(self) -> &'static str {
        match self {
            Fault::TooLarge => "too_long",
            Fault::LongNumber => "out_of_range",
            Fault::TooDeep => "too_deep",
            Fault::NoKind | Fault::NotANumber | Fault::Nul => "invalid",
        }
    }

    /// The fault, for people.
    pub fn description(self) -> &'static str {
        match self {
            Fault::TooLarge => {
                "must be at most 1 MiB of JSON, without blanks and with numbers written out"
            }
            Fault::TooDeep => "must be nested at most 32 deep, itself included",
            Fault::NoKind => "must not contain a value without a kind",
            Fault::NotANumber => "must not contain NaN or an infinity",
            Fault::LongNumber => {
                "must not contain a number of more than 1,000 digits before its point or behind it, written without an exponent"
            }
            Fault::Nul => "must not contain the character U+0000",
        }
    }
}

/// A JSON object, as a message.
#[derive(Clone, diesel::expression::AsExpression, diesel::deserialize::FromSqlRow)]
#[diesel(sql_type = diesel::sql_types::Jsonb)]
pub struct Struct {
    /// Its members as they came, each of them in the canonical form.
    wire: Vec<u8>,
    /// Where the last of them begins.
    last: Option<usize>,
    sorted: bool,
    /// How many bytes of JSON its members are, without the braces around them.
    json: usize,
    /// Why it is refused; then nothing of it is kept.
    fault: Option<Fault>,
}

impl Default for Struct {
    fn default() -> Self {
        Struct { wire: Vec::new(), last: None, sorted: true, json: 0, fault: None }
    }
}

impl fmt::Debug for Struct {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fault {
            Some(fault) => write!(formatter, "{fault:?}"),
            None => formatter.write_str(&self.to_text()),
        }
    }
}

impl PartialEq for Struct {
    fn eq(&self, other: &Self) -> bool {
        self.fault == other.fault && self.canonical() == other.canonical()
    }
}

impl Struct {
    /// An object of these members; of anything else, an empty one.
    pub fn from_json(value: &Json) -> Struct {
        let mut out = Builder::default();
        if let Json::Object(members) = value {
            text::write_members(members, &mut out);
        }
        Struct::of_members(out)
    }

    /// The object that this JSON text is; of anything else, an empty one. The text is the database's, which has checked it.
    pub fn from_text(text: &str) -> Struct {
        let mut out = Builder::default();
        match text::write_object(text, &mut out) {
            Ok(()) => Struct::of_members(out),
            Err(_) => Struct::default(),
        }
    }

    /// An object of the members that were written.
    fn of_members(out: Builder) -> Struct {
        Struct { json: out.json_size(), wire: out.into_bytes(), ..Struct::default() }
    }

    /// How many bytes of JSON it is, without blanks and with numbers written out: what limits are measured by.
    pub fn json_size(&self) -> usize {
        1 + self.json + usize::from(self.wire.is_empty())
    }

    /// How many bytes it has in memory and on any wire, at most.
    pub fn weight(&self) -> usize {
        self.wire.len().max(self.json)
    }

    /// The same with its members in order, each once. What comes from the database, from JSON or from an object in order is in order.
    pub fn in_order(mut self) -> Struct {
        if let Cow::Owned(wire) = self.canonical() {
            self = Struct {
                json: read::object_size(&wire) - 1,
                wire,
                fault: self.fault,
                ..Struct::default()
            };
        }
        self
    }

    /// The object, which is in order.
    pub fn view(&self) -> Object<'_> {
        debug_assert!(self.sorted, "an object is put in order before it is read");
        Object(&self.wire)
    }

    /// The result of a JSON merge patch (RFC 7396) on it.
    pub fn merged(&self, patch: &Struct) -> Struct {
        let mut out = Builder::default();
        merge::merge(&self.canonical(), &patch.canonical(), &mut out);
        Struct::of_members(out)
    }

    /// The same without the members that are not to be kept.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) -> Struct {
        let mut out = Builder::default();
        merge::copy_members(&self.canonical(), keep, &mut out);
        Struct::of_members(out)
    }

    /// Why it is refused.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The JSON text.
    pub fn to_text(&self) -> String {
        let mut text = Vec::with_capacity(self.wire.len() + 2);
        write_object(&self.canonical(), &mut text);
        String::from_utf8(text).expect("JSON of strings is UTF-8")
    }

    /// The members in order, each once.
    fn canonical(&self) -> Cow<'_, [u8]> {
        if self.sorted {
            Cow::Borrowed(&self.wire)
        } else {
            Cow::Owned(builder::sorted(&self.wire).0)
        }
    }

    fn refuse(&mut self, fault: Fault) {
        *self = Struct { fault: Some(fault), ..Struct::default() };
    }

    fn take(&mut self, entry: &[u8]) -> Result<(), DecodeError> {
        let mut out = Builder::continuing(std::mem::take(&mut self.wire), self.json);
        let mut members = Members::at_start(self.last, self.sorted);
        let mut reader = wire::Reader { out: &mut out, max_bytes: MAX_BYTES };
        match reader.member(entry, &mut members, 1) {
            Ok(()) => {
                self.json = out.json_size();
                (self.wire, self.last, self.sorted) =
                    (out.into_bytes(), members.last(), members.are_sorted());
                Ok(())
            }
            Err(wire::Stop::Fault(fault)) => {
                self.refuse(fault);
                Ok(())
            }
            Err(wire::Stop::Malformed) => Err(malformed()),
        }
    }
}

impl Message for Struct {
    fn encode_raw(&self, out: &mut impl BufMut) {
        out.put_slice(&self.canonical());
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if (tag, wire_type) != (1, WireType::LengthDelimited) {
            return skip_field(wire_type, tag, buffer, context);
        }
        let length = usize::try_from(decode_varint(buffer)?).map_err(|_| malformed())?;
        if length > buffer.remaining() {
            return Err(malformed());
        }
        if self.fault.is_some() {
            buffer.advance(length);
            return Ok(());
        }
        if buffer.chunk().len() >= length {
            self.take(&buffer.chunk()[..length])?;
            buffer.advance(length);
            return Ok(());
        }
        self.take(&buffer.copy_to_bytes(length))
    }

    fn encoded_len(&self) -> usize {
        self.canonical().len()
    }

    fn clear(&mut self) {
        *self = Struct::default();
    }
}

/// prost makes its errors itself alone; this is that of a wire type that does not exist.
fn malformed() -> DecodeError {
    WireType::try_from(7).expect_err("there are six wire types")
}

#[cfg(test)]
mod tests;
