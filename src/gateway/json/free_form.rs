//! Values of any form, such as attributes: JSON to the bytes of their message, without a node for each of them.

use jiter::{JiterError, Peek};
use prost_reflect::Value;

use super::decode::{Decoder, Read};
use super::fault::Fault;
use crate::limits::bodies::{MAX_OBJECT_DEPTH, OBJECT_DEPTH};
use crate::proto::object::number::plain;
use crate::proto::object::{self, Builder, MAX_BYTES};

impl Decoder<'_, '_> {
    /// A free-form value that begins at this level, as the bytes of its message. Past the limits nothing of it is kept.
    pub(super) fn free(
        &mut self,
        level: usize,
        peek: Peek,
        read: impl FnOnce(&mut Self, &mut Builder) -> Result<(), JiterError>,
    ) -> Read<Value> {
        let mut out = Builder::default();
        self.nesting = level;
        self.within(1, peek, |decoder| read(decoder, &mut out).map(Some))?;
        let is_too_deep = std::mem::take(&mut self.is_too_deep);
        if is_too_deep {
            OBJECT_DEPTH.reached();
        }
        let fault = if is_too_large(&out) {
            Some(object::Fault::TooLarge)
        } else {
            is_too_deep.then_some(object::Fault::TooDeep)
        };
        if let Some(fault) = fault {
            self.fault(fault.into());
            return Ok(None);
        }
        Ok(Some(Value::Bytes(out.into_bytes().into())))
    }

    /// A `google.protobuf.Value`.
    pub(super) fn any(&mut self, out: &mut Builder, peek: Peek) -> Result<(), JiterError> {
        if is_too_large(out) {
            return self.json.known_skip(peek);
        }
        match peek {
            Peek::Null => {
                self.json.known_null()?;
                out.null();
            }
            Peek::True | Peek::False => out.bool(self.json.known_bool(peek)?),
            Peek::String => {
                let text = self.json.known_str()?;
                if text.contains('\0') {
                    self.fault(object::Fault::Nul.into());
                    out.null();
                } else {
                    out.string(text);
                }
            }
            Peek::Object | Peek::Array if self.nesting == MAX_OBJECT_DEPTH => {
                self.json.known_skip(peek)?;
                self.is_too_deep = true;
            }
            Peek::Object => {
                self.nesting += 1;
                let object = out.open_object();
                self.structure(out)?;
                out.close(object);
                self.nesting -= 1;
            }
            Peek::Array => {
                self.nesting += 1;
                let list = out.open_list();
                self.list_value(out, peek)?;
                out.close(list);
                self.nesting -= 1;
            }
            number => {
                let read =
                    plain(self.number(number)?).map_err(|_| object::Fault::LongNumber.into());
                match self.keep(read) {
                    Some(plain) => out.number(&plain),
                    // Of some kind, so that its own fault is its only one.
                    None => out.null(),
                }
            }
        }
        Ok(())
    }

    pub(super) fn structure(&mut self, out: &mut Builder) -> Result<(), JiterError> {
        let mut members = out.members();
        let mut key = self.json.known_object()?;
        while let Some(name) = key {
            let (mark, member);
            if name.contains('\0') {
                let readable = name.replace('\0', "\u{fffd}");
                (mark, member) =
                    (self.path.enter(&readable), out.open_member(&mut members, &readable));
                self.fault(object::Fault::Nul.into());
            } else {
                (mark, member) = (self.path.enter(name), out.open_member(&mut members, name));
            }
            let peek = self.json.peek()?;
            self.any(out, peek)?;
            out.close_member(member);
            self.path.truncate(mark);
            key = self.json.next_key()?;
        }
        if let Some(twice) = out.close_members(members) {
            let mark = self.path.enter(&twice);
            self.fault(Fault::new("duplicate", "is given twice"));
            self.path.truncate(mark);
        }
        Ok(())
    }

    pub(super) fn list_value(&mut self, out: &mut Builder, peek: Peek) -> Result<(), JiterError> {
        self.elements(usize::MAX, peek, |decoder, peek| {
            let element = out.open_element();
            decoder.any(out, peek)?;
            out.close(element);
            Ok(())
        })?;
        Ok(())
    }
}

/// Returns whether the object is larger than one of a request may be. The brace at the beginning is one byte more.
fn is_too_large(out: &Builder) -> bool {
    out.json_size() >= MAX_BYTES
}
