//! Lists and maps from JSON, with the bounds on how many elements are read.

use std::collections::HashMap;

use jiter::{JiterError, Peek};
use prost_reflect::{Kind, Value};

use super::decode::{Decoder, Read};
use super::fault::Fault;
use super::scalar::map_key;
use super::schema::Shape;
use crate::limits::bodies::{MAX_LISTED_MESSAGES, MESSAGE_ITEMS, MESSAGE_LISTED};
use crate::limits::thousands;

impl<'s> Decoder<'s, '_> {
    pub(super) fn list(
        &mut self,
        max_items: usize,
        peek: Peek,
        mut element: impl FnMut(&mut Self, Peek) -> Read<Value>,
    ) -> Read<Vec<Value>> {
        let mut elements = Vec::new();
        let read = self.elements(max_items, peek, |decoder, peek| {
            if peek == Peek::Object {
                decoder.listed += 1;
                if decoder.listed > MAX_LISTED_MESSAGES {
                    if decoder.listed == MAX_LISTED_MESSAGES + 1 {
                        MESSAGE_LISTED.reached();
                        let most = thousands(MAX_LISTED_MESSAGES);
                        decoder.fault(Fault::new(
                            "too_many",
                            format!("the request has more than {most} objects in lists"),
                        ));
                    }
                    return decoder.json.known_skip(peek);
                }
            }
            elements.extend(element(decoder, peek)?);
            Ok(())
        })?;
        Ok(read.map(|()| elements))
    }

    /// Reads an array, of which elements past a number are passed over.
    pub(super) fn elements(
        &mut self,
        max_items: usize,
        peek: Peek,
        mut element: impl FnMut(&mut Self, Peek) -> Result<(), JiterError>,
    ) -> Read<()> {
        let Peek::Array = peek else {
            return self.refuse(peek, Fault::new("invalid_type", "must be an array"));
        };
        let mut index = 0_usize;
        let mut next = self.json.known_array()?;
        while let Some(peek) = next {
            if index < max_items {
                let mark = self.path.enter_element(index);
                element(self, peek)?;
                self.path.truncate(mark);
            } else {
                self.json.known_skip(peek)?;
            }
            index += 1;
            next = self.json.array_step()?;
        }
        if index > max_items {
            MESSAGE_ITEMS.reached();
            self.fault(Fault::new("too_many", format!("must be at most {}", thousands(max_items))));
        }
        Ok(Some(()))
    }

    pub(super) fn map(&mut self, keys: &Kind, shape: &'s Shape) -> Result<Value, JiterError> {
        let mut entries = HashMap::new();
        self.entries(|decoder, name, peek| {
            let key = match map_key(keys, name) {
                Ok(key) => key,
                Err(fault) => return decoder.refuse(peek, fault),
            };
            if entries.contains_key(&key) {
                return decoder.refuse(peek, Fault::new("duplicate", "is given twice"));
            }
            if let Some(value) = decoder.element(shape, peek)? {
                entries.insert(key, value);
            }
            Ok(Some(()))
        })?;
        Ok(Value::Map(entries))
    }

    fn entries(
        &mut self,
        mut entry: impl FnMut(&mut Self, &str, Peek) -> Read<()>,
    ) -> Result<(), JiterError> {
        let mut key = self.json.known_object()?.map(str::to_owned);
        while let Some(name) = key {
            let mark = self.path.enter(&name);
            let peek = self.json.peek()?;
            entry(self, &name, peek)?;
            self.path.truncate(mark);
            key = self.json.next_key()?.map(str::to_owned);
        }
        Ok(())
    }

    /// A value within a list or map, where `null` says nothing.
    pub(super) fn element(&mut self, shape: &'s Shape, peek: Peek) -> Read<Value> {
        if peek == Peek::Null && !matches!(shape, Shape::Value) {
            return self.refuse(peek, Fault::kind(shape));
        }
        self.value(shape, peek)
    }
}
