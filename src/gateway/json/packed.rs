//! `google.protobuf.Any` from JSON: an object whose `@type` names the type of its other members. It need not be the first of them.

use jiter::{Jiter, JiterError, Peek};
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};

use super::decode::{Decoder, Read};
use super::fault::Fault;
use super::schema::{Content, Shape, well_known};

/// The member that names the type.
pub(super) const TYPE: &str = "@type";

impl<'s, 'j> Decoder<'s, 'j> {
    /// Reads an `Any`. One without members is an empty one.
    pub(super) fn packed(&mut self, descriptor: &MessageDescriptor, peek: Peek) -> Read<Value> {
        let start = self.json.current_index();
        self.json.known_skip(peek)?;
        let text = self.json.slice_to_current(start);
        let url = match type_url(text)? {
            Named::Nothing => return Ok(Some(well_known(descriptor, []))),
            Named::Type(url) => url,
            Named::Not(fault) => return Ok(self.faulty_type(fault)),
        };
        let Some(content) = self.schema.content(&url) else {
            return Ok(self.faulty_type(Fault::new(
                "invalid_value",
                "is an unknown type; use one such as `type.googleapis.com/google.rpc.Status`",
            )));
        };
        // A fault of the syntax ends the reading, and is then reported by its place in the text of the object.
        let rest = std::mem::replace(&mut self.json, Jiter::new(text));
        let outer = self.packed.replace(self.depth);
        let inner = self.content(content)?;
        self.packed = outer;
        self.json = rest;
        let bytes = inner.map(|inner| inner.encode_to_vec());
        Ok(bytes.map(|bytes| {
            well_known(descriptor, [(1, Value::String(url)), (2, Value::Bytes(bytes.into()))])
        }))
    }

    fn content(&mut self, content: &'s Content) -> Read<DynamicMessage> {
        if let Shape::Message(place) = content.shape {
            let mut inner = DynamicMessage::new(content.descriptor.clone());
            self.json.peek()?;
            self.members(place, &mut inner)?;
            return Ok(Some(inner));
        }
        let mut inner = None;
        self.json.peek()?;
        let mut key = self.json.known_object()?;
        while let Some(name) = key {
            if name == TYPE {
                self.json.next_skip()?;
            } else {
                let name = name.to_owned();
                let mark = self.path.enter(&name);
                let peek = self.json.peek()?;
                if name == "value" {
                    inner = self.value(&content.shape, peek)?;
                } else {
                    self.refuse::<()>(peek, Fault::unknown(None))?;
                }
                self.path.truncate(mark);
            }
            key = self.json.next_key()?;
        }
        Ok(match inner {
            Some(Value::Message(inner)) => Some(inner),
            // A free-form value, which this is the message of.
            Some(Value::Bytes(bytes)) => {
                DynamicMessage::decode(content.descriptor.clone(), bytes).ok()
            }
            _ => Some(DynamicMessage::new(content.descriptor.clone())),
        })
    }

    fn faulty_type<T>(&mut self, fault: Fault) -> Option<T> {
        let mark = self.path.enter(TYPE);
        self.fault(fault);
        self.path.truncate(mark);
        None
    }
}

/// The type that an object declares.
enum Named {
    /// It is empty.
    Nothing,
    /// The type's URL.
    Type(String),
    /// The wrong kind of value.
    Not(Fault),
}

fn type_url(object: &[u8]) -> Result<Named, JiterError> {
    let mut json = Jiter::new(object);
    json.peek()?;
    let mut key = json.known_object()?;
    let mut named = if key.is_none() {
        Named::Nothing
    } else {
        Named::Not(Fault::new("required", "must be given"))
    };
    while let Some(name) = key {
        if name != TYPE {
            json.next_skip()?;
        } else if json.peek()? == Peek::String {
            let url = json.known_str()?.to_owned();
            named = if matches!(named, Named::Type(_)) {
                Named::Not(Fault::new("duplicate", "is given twice"))
            } else {
                Named::Type(url)
            };
        } else {
            json.next_skip()?;
            named = Named::Not(Fault::new("invalid_type", "must be a string"));
        }
        key = json.next_key()?;
    }
    Ok(named)
}
