//! JSON of which no member may be given twice: two readers of such a text could each believe another one. Pure.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// The object in this text, if it is one and nothing else, and no name stands twice in it or in an object within it.
pub fn object(text: &[u8]) -> Result<Map<String, Value>, String> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Strict.deserialize(&mut reader).map_err(|error| reason(&error))?;
    reader.end().map_err(|error| reason(&error))?;
    match value {
        Value::Object(members) => Ok(members),
        _ => Err("is not a JSON object".to_owned()),
    }
}

fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.strip_prefix(TWICE) {
        // The place says nothing of what the text means.
        Some(rest) => format!("{TWICE}{}", rest.split(" at line ").next().unwrap_or(rest)),
        None => "is not valid JSON".to_owned(),
    }
}

const TWICE: &str = "has the member ";

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Strict)? {
            array.push(item);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format!("{TWICE}{name:?} twice")));
            }
            let value = members.next_value_seed(Strict)?;
            object.insert(name, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_given_twice_is_refused_at_every_depth() {
        let read = object(br#"{"a":[{"b":1.5,"c":null}],"d":-1,"e":"x","f":true}"#).unwrap();
        assert_eq!(Value::from(read)["a"][0]["b"], 1.5);
        for twice in [r#"{"a":1,"a":1}"#, r#"{"x":{"a":1,"\u0061":2}}"#, r#"{"x":[{"a":1,"a":2}]}"#]
        {
            assert_eq!(
                object(twice.as_bytes()),
                Err("has the member \"a\" twice".to_owned()),
                "{twice}"
            );
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for other in ["[]", "1", "\"x\"", "null"] {
            assert_eq!(object(other.as_bytes()), Err("is not a JSON object".to_owned()), "{other}");
        }
        let deep = "[".repeat(100_000);
        for broken in ["", "{", "{} {}", "{'a':1}", "{\"a\":1e999}", &deep] {
            assert_eq!(object(broken.as_bytes()), Err("is not valid JSON".to_owned()));
        }
        assert!(object(b"{\"a\":\"\xff\"}").is_err());
    }
}
