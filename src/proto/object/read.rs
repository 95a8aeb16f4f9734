//! Reads the bytes of [`Builder`](super::Builder): into JSON text, or as they are.

use std::borrow::Cow;

use super::length::json_length;
use super::number::{self, EXACT_TAG};

/// A member of an object.
pub struct Member<'w> {
    pub name: &'w str,
    /// Its `google.protobuf.Value`.
    pub value: &'w [u8],
    /// All of it, with its tag.
    pub whole: &'w [u8],
}

/// The members of an object.
pub fn members(object: &[u8]) -> impl Iterator<Item = Member<'_>> {
    entries(object).map(|(name, value, whole)| Member {
        name: std::str::from_utf8(name).unwrap_or_default(),
        value,
        whole,
    })
}

/// The same, with names that are not read yet.
fn entries(mut object: &[u8]) -> impl Iterator<Item = (&[u8], &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let start = object;
        let mut entry = delimited(&mut object)?;
        let whole = &start[..start.len() - object.len()];
        let name = if entry.first() == Some(&0x0a) { delimited(&mut entry)? } else { b"" };
        let value = delimited(&mut entry)?;
        Some((name, value, whole))
    })
}

/// The values of a list.
fn elements(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || delimited(&mut list))
}

/// A value, read in place.
#[derive(Clone, Copy, Debug)]
pub enum View<'w> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number<'w>),
    /// A string.
    String(&'w str),
    /// An object.
    Object(Object<'w>),
    /// An array.
    List(List<'w>),
}

/// An object, read in place.
#[derive(Clone, Copy, Debug)]
pub struct Object<'w>(pub(super) &'w [u8]);

/// An array, read in place.
#[derive(Clone, Copy, Debug)]
pub struct List<'w>(&'w [u8]);

/// A number, read in place.
#[derive(Clone, Copy, Debug)]
pub struct Number<'w> {
    double: f64,
    /// Its text, if it differs from the double's own.
    exact: Option<&'w str>,
}

impl<'w> Object<'w> {
    /// The object without members.
    pub const EMPTY: Object<'static> = Object(b"");

    /// Its members, in the order of their names.
    pub fn members(self) -> impl Iterator<Item = (&'w str, View<'w>)> {
        members(self.0).map(|member| (member.name, view(member.value)))
    }

    /// The member of this name.
    pub fn get(self, name: &str) -> Option<View<'w>> {
        // They are in order.
        let found = entries(self.0).find(|(other, ..)| *other >= name.as_bytes());
        found.filter(|(other, ..)| *other == name.as_bytes()).map(|(_, value, _)| view(value))
    }

    /// Returns whether it has no members.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

impl<'w> List<'w> {
    /// Its elements.
    pub fn elements(self) -> impl Iterator<Item = View<'w>> {
        elements(self.0).map(view)
    }

    /// Returns whether it has none.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

impl<'w> View<'w> {
    /// The object that it is.
    pub fn as_object(self) -> Option<Object<'w>> {
        if let View::Object(object) = self { Some(object) } else { None }
    }

    /// The string that it is.
    pub fn as_str(self) -> Option<&'w str> {
        if let View::String(text) = self { Some(text) } else { None }
    }

    fn json_size(self) -> usize {
        match self {
            View::Null | View::Bool(true) => 4,
            View::Bool(false) => 5,
            View::Number(number) => {
                number.exact.map_or_else(|| number::length_of(number.double), number::plain_length)
            }
            View::String(text) => json_length(text),
            View::Object(object) => object_size(object.0),
            View::List(list) => {
                1 + usize::from(list.is_empty())
                    + list.elements().map(|element| element.json_size() + 1).sum::<usize>()
            }
        }
    }
}

impl<'w> Number<'w> {
    /// The nearest double.
    pub fn nearest(self) -> f64 {
        self.double
    }

    /// The number as JSON has it, to the last digit.
    pub fn text(self) -> Cow<'w, str> {
        self.exact.map_or_else(
            || {
                let mut text = Vec::with_capacity(24);
                number::write(self.double, &mut text);
                Cow::Owned(String::from_utf8(text).expect("numbers are ASCII"))
            },
            Cow::Borrowed,
        )
    }
}

/// A value.
pub(super) fn view(value: &[u8]) -> View<'_> {
    let Some((tag, mut rest)) = value.split_first() else { return View::Null };
    match tag {
        0x11 => {
            let (double, rest) = rest.split_first_chunk().unwrap_or((&[0; 8], b""));
            let exact = rest
                .strip_prefix(&EXACT_TAG)
                .map(|mut rest| std::str::from_utf8(content(&mut rest)).unwrap_or_default());
            View::Number(Number { double: f64::from_le_bytes(*double), exact })
        }
        0x1a => View::String(std::str::from_utf8(content(&mut rest)).unwrap_or_default()),
        0x20 => View::Bool(rest.first() == Some(&1)),
        0x2a => View::Object(Object(content(&mut rest))),
        0x32 => View::List(List(content(&mut rest))),
        _ => View::Null,
    }
}

/// How many bytes of JSON a value is, without blanks and with numbers written out.
pub fn json_size(value: &[u8]) -> usize {
    view(value).json_size()
}

/// The same of the members of an object.
pub fn object_size(object: &[u8]) -> usize {
    let members =
        members(object).map(|member| json_length(member.name) + view(member.value).json_size() + 2);
    1 + usize::from(object.is_empty()) + members.sum::<usize>()
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

/// Writes a value as JSON.
pub fn write_value(value: &[u8], out: &mut Vec<u8>) {
    match view(value) {
        View::Null => out.extend_from_slice(b"null"),
        View::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        View::Number(Number { exact: Some(text), .. }) => out.extend_from_slice(text.as_bytes()),
        View::Number(Number { double, .. }) => number::write(double, out),
        View::String(text) => write_text(text, out),
        View::Object(Object(object)) => write_object(object, out),
        View::List(List(list)) => write_list(list, out),
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("text can always be written to memory");
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
