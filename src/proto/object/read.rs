//! Reads what [`Builder`](super::Builder) wrote: into JSON text, or into values.

use serde_json::{Map, Number, Value as Json};

/// Doubles hold every whole number up to here.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;

/// A member of an object.
pub struct Member<'w> {
    pub name: &'w str,
    /// Its `google.protobuf.Value`.
    pub value: &'w [u8],
    /// All of it, with its tag.
    pub whole: &'w [u8],
}

/// The members of an object.
pub fn members(mut object: &[u8]) -> impl Iterator<Item = Member<'_>> {
    std::iter::from_fn(move || {
        let start = object;
        let mut entry = delimited(&mut object)?;
        let whole = &start[..start.len() - object.len()];
        let name = if entry.first() == Some(&0x0a) { delimited(&mut entry)? } else { b"" };
        let value = delimited(&mut entry)?;
        Some(Member { name: std::str::from_utf8(name).unwrap_or_default(), value, whole })
    })
}

/// The values of a list.
fn elements(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || delimited(&mut list))
}

/// What a value is.
enum Kind<'w> {
    Null,
    Bool(bool),
    Number(f64),
    String(&'w str),
    Object(&'w [u8]),
    List(&'w [u8]),
}

fn kind(value: &[u8]) -> Kind<'_> {
    let Some((tag, mut rest)) = value.split_first() else { return Kind::Null };
    match tag {
        0x11 => Kind::Number(rest.try_into().map_or(0.0, f64::from_le_bytes)),
        0x1a => Kind::String(std::str::from_utf8(content(&mut rest)).unwrap_or_default()),
        0x20 => Kind::Bool(rest.first() == Some(&1)),
        0x2a => Kind::Object(content(&mut rest)),
        0x32 => Kind::List(content(&mut rest)),
        _ => Kind::Null,
    }
}

/// Writes the members of an object as JSON.
pub fn write_object(object: &[u8], out: &mut Vec<u8>) {
    out.push(b'{');
    for (count, member) in members(object).enumerate() {
        if count > 0 {
            out.push(b',');
        }
        write_text(member.name, out);
        out.push(b':');
        write_value(member.value, out);
    }
    out.push(b'}');
}

/// Writes the values of a list as JSON.
pub fn write_list(list: &[u8], out: &mut Vec<u8>) {
    out.push(b'[');
    for (count, element) in elements(list).enumerate() {
        if count > 0 {
            out.push(b',');
        }
        write_value(element, out);
    }
    out.push(b']');
}

/// Writes a value as JSON. Numbers that JSON does not have, which only other services could send, are `null`.
pub fn write_value(value: &[u8], out: &mut Vec<u8>) {
    match kind(value) {
        Kind::Null => out.extend_from_slice(b"null"),
        Kind::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        Kind::Number(number) => serde_json::to_writer(out, &number_of(number)).expect("memory can always be written to"),
        Kind::String(text) => write_text(text, out),
        Kind::Object(object) => write_object(object, out),
        Kind::List(list) => write_list(list, out),
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("text can always be written to memory");
}

/// A number as JSON writes it: `1` for `1.0`, but `-0.0` as it is.
fn number_of(number: f64) -> Option<Number> {
    let is_whole = number.fract() == 0.0 && number.abs() <= MAX_WHOLE && !(number == 0.0 && number.is_sign_negative());
    if is_whole { Some(Number::from(number as i64)) } else { Number::from_f64(number) }
}

/// The members of an object as values.
pub fn object(object: &[u8]) -> Map<String, Json> {
    members(object).map(|member| (member.name.to_owned(), value(member.value))).collect()
}

fn value(wire: &[u8]) -> Json {
    match kind(wire) {
        Kind::Null => Json::Null,
        Kind::Bool(value) => Json::Bool(value),
        Kind::Number(number) => number_of(number).map_or(Json::Null, Json::Number),
        Kind::String(text) => Json::String(text.to_owned()),
        Kind::Object(members) => Json::Object(object(members)),
        Kind::List(list) => elements(list).map(value).collect(),
    }
}

/// Takes a field that has a length: its content, or nothing at the end.
fn delimited<'w>(rest: &mut &'w [u8]) -> Option<&'w [u8]> {
    let (_, mut behind) = rest.split_first()?;
    let content = content(&mut behind);
    *rest = behind;
    Some(content)
}

fn content<'w>(rest: &mut &'w [u8]) -> &'w [u8] {
    let length = (varint(rest) as usize).min(rest.len());
    let (content, behind) = rest.split_at(length);
    *rest = behind;
    content
}

/// Takes a variable-length number of ours.
pub fn varint(rest: &mut &[u8]) -> u64 {
    prost::encoding::decode_varint(rest).unwrap_or_default()
}
