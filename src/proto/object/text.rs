//! JSON that was checked before, written in the wire form.

use jiter::{Jiter, JiterError, Peek};
use serde_json::{Map, Value as Json};

use super::{Builder, Struct, number};

/// Writes these members.
pub fn write_members(members: &Map<String, Json>, out: &mut Builder) {
    let mut written = out.members();
    for (name, value) in members {
        let member = out.open_member(&mut written, name);
        write_json(value, out);
        out.close_member(member);
    }
    out.close_members(written);
}

fn write_json(value: &Json, out: &mut Builder) {
    match value {
        Json::Null => out.null(),
        Json::Bool(value) => out.bool(*value),
        Json::Number(value) => out.number(&number::plain(&value.to_string()).unwrap_or_default()),
        Json::String(text) => out.string(text),
        Json::Array(elements) => {
            let list = out.open_list();
            for value in elements {
                let element = out.open_element();
                write_json(value, out);
                out.close(element);
            }
            out.close(list);
        }
        Json::Object(members) => {
            let object = out.open_object();
            write_members(members, out);
            out.close(object);
        }
    }
}

/// Writes the members of the object that this text is.
pub fn write_object(text: &str, out: &mut Builder) -> Result<(), JiterError> {
    let mut json = Jiter::new(text.as_bytes());
    match json.peek()? {
        Peek::Object => object(&mut json, out)?,
        other => json.known_skip(other)?,
    }
    json.finish()
}

/// The objects of the array that this text is.
pub fn read_objects(text: &str) -> Result<Vec<Struct>, JiterError> {
    let mut json = Jiter::new(text.as_bytes());
    let mut objects = Vec::new();
    let mut next = json.next_array()?;
    while let Some(peek) = next {
        let mut out = Builder::default();
        match peek {
            Peek::Object => object(&mut json, &mut out)?,
            other => json.known_skip(other)?,
        }
        objects.push(Struct::of_members(out));
        next = json.array_step()?;
    }
    Ok(objects)
}

fn object(json: &mut Jiter<'_>, out: &mut Builder) -> Result<(), JiterError> {
    let mut members = out.members();
    let mut key = json.known_object()?;
    while let Some(name) = key {
        let member = out.open_member(&mut members, name);
        let peek = json.peek()?;
        value(json, peek, out)?;
        out.close_member(member);
        key = json.next_key()?;
    }
    out.close_members(members);
    Ok(())
}

fn value(json: &mut Jiter<'_>, peek: Peek, out: &mut Builder) -> Result<(), JiterError> {
    match peek {
        Peek::Null => {
            json.known_null()?;
            out.null();
        }
        Peek::True | Peek::False => out.bool(json.known_bool(peek)?),
        Peek::String => out.string(json.known_str()?),
        Peek::Object => {
            let open = out.open_object();
            object(json, out)?;
            out.close(open);
        }
        Peek::Array => {
            let open = out.open_list();
            let mut next = json.known_array()?;
            while let Some(peek) = next {
                let element = out.open_element();
                value(json, peek, out)?;
                out.close(element);
                next = json.array_step()?;
            }
            out.close(open);
        }
        number => {
            let text =
                std::str::from_utf8(json.known_number_bytes(number)?).expect("a number is ASCII");
            // The database has no exponents and one zero; of what others have written it makes the same.
            let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            out.number(&if is_plain {
                text.into()
            } else {
                number::plain(text).unwrap_or_default()
            });
        }
    }
    Ok(())
}
