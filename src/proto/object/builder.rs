//! Writes JSON values in the wire form of `google.protobuf.Struct`, in one pass and into one buffer.
//!
//! The form is canonical: the members of an object are in the order of their names, and each name is there once. So two objects that are equal
//! have the same bytes, whatever order their callers' libraries send them in.

use prost::encoding::{encode_varint, encoded_len_varint};

use super::length::json_length;
use super::number::{self, EXACT_TAG};
use super::read::{members, varint};

/// Writes values, one behind the other.
#[derive(Debug, Default)]
pub struct Builder {
    out: Vec<u8>,
    /// How many bytes of JSON they are, without blanks and with numbers written out.
    json: usize,
}

/// The members of an object that are written so far.
#[derive(Clone, Copy, Debug)]
pub struct Members {
    start: usize,
    /// Where the last of them begins.
    last: Option<usize>,
    sorted: bool,
}

/// A message that is being written: where its content begins, and how many bytes of JSON it has if nothing is put into it.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    start: usize,
    empty: usize,
}

/// A member that is being written.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    entry: Open,
    value: Open,
}

impl Builder {
    /// Continues after so many bytes of JSON that are written already.
    pub fn continuing(out: Vec<u8>, json: usize) -> Self {
        Builder { out, json }
    }

    /// The written bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// How many bytes of JSON there are, without blanks and with numbers written out. The braces of members at the top are not counted.
    pub fn json_size(&self) -> usize {
        self.json
    }

    /// `null`.
    pub fn null(&mut self) {
        self.out.extend_from_slice(&[0x08, 0]);
        self.json += 4;
    }

    /// `true` or `false`.
    pub fn bool(&mut self, value: bool) {
        self.out.extend_from_slice(&[0x20, value.into()]);
        self.json += if value { 4 } else { 5 };
    }

    /// The number of a double.
    pub fn double(&mut self, value: f64) {
        self.put_double(value);
        self.json += number::length_of(value);
    }

    /// A number that is [`plain`](number::plain).
    pub fn number(&mut self, plain: &str) {
        let double = number::nearest(plain);
        self.put_double(double);
        if !number::is_meant_by(double, plain) {
            self.out.push(EXACT_TAG[0]);
            self.text(EXACT_TAG[1], &number::compact(plain));
        }
        self.json += plain.len();
    }

    fn put_double(&mut self, value: f64) {
        self.out.push(0x11);
        // The database has one zero.
        self.out.extend_from_slice(&(value + 0.0).to_le_bytes());
    }

    /// A string.
    pub fn string(&mut self, text: &str) {
        self.text(0x1a, text);
        self.json += json_length(text);
    }

    /// A value as it was written before, which is so many bytes of JSON.
    pub fn copy(&mut self, value: &[u8], json: usize) {
        self.out.extend_from_slice(value);
        self.json += json;
    }

    /// Begins the members of an object. At the top they are the whole; as a value they stand within [`Builder::open_object`].
    pub fn members(&self) -> Members {
        Members { start: self.out.len(), last: None, sorted: true }
    }

    /// Begins an object as a value.
    pub fn open_object(&mut self) -> Open {
        self.json += 1;
        Open { empty: 1, ..self.open(0x2a) }
    }

    /// Begins a list as a value.
    pub fn open_list(&mut self) -> Open {
        self.json += 1;
        Open { empty: 1, ..self.open(0x32) }
    }

    /// Begins an element of a list, which a value is to follow.
    pub fn open_element(&mut self) -> Open {
        // The character after it: a comma, or the bracket.
        self.json += 1;
        self.open(0x0a)
    }

    /// Begins a member of an object, which a value is to follow.
    pub fn open_member(&mut self, members: &mut Members, name: &str) -> Member {
        let behind = |last: usize| self.name_at(last) < name.as_bytes();
        members.sorted &= members.last.is_none_or(behind);
        members.last = Some(self.out.len());
        // Besides the name a colon, and the character after the value: a comma, or the brace.
        self.json += json_length(name) + 2;
        let entry = self.open(0x0a);
        // As prost does, which leaves out empty fields.
        if !name.is_empty() {
            self.text(0x0a, name);
        }
        Member { entry, value: self.open(0x12) }
    }

    /// Ends a member.
    pub fn close_member(&mut self, member: Member) {
        self.close(member.value);
        self.close(member.entry);
    }

    /// Ends the members of an object: puts them in order. Of those with one name the last counts; the answer is such a name, if there is one.
    pub fn close_members(&mut self, members: Members) -> Option<String> {
        if members.sorted {
            return None;
        }
        let (sorted, twice) = sorted(&self.out[members.start..]);
        self.out.truncate(members.start);
        self.out.extend_from_slice(&sorted);
        twice
    }

    /// Ends an object, a list or an element.
    pub fn close(&mut self, Open { start, empty }: Open) {
        let length = self.out.len() - start;
        if length == 0 {
            self.json += empty;
        }
        let more = encoded_len_varint(length as u64) - 1;
        if more == 0 {
            self.out[start - 1] = length as u8;
            return;
        }
        self.out.resize(self.out.len() + more, 0);
        self.out.copy_within(start..start + length, start + more);
        encode_varint(length as u64, &mut &mut self.out[start - 1..start + more]);
    }

    /// Begins a message whose length is not known yet. One byte is left for it, which is enough for most.
    fn open(&mut self, tag: u8) -> Open {
        self.out.extend_from_slice(&[tag, 0]);
        Open { start: self.out.len(), empty: 0 }
    }

    fn text(&mut self, tag: u8, text: &str) {
        self.out.push(tag);
        encode_varint(text.len() as u64, &mut self.out);
        self.out.extend_from_slice(text.as_bytes());
    }

    /// The name of the member that begins here.
    fn name_at(&self, place: usize) -> &[u8] {
        let mut rest = &self.out[place + 1..];
        varint(&mut rest);
        if rest.first() != Some(&0x0a) {
            return b"";
        }
        rest = &rest[1..];
        let length = varint(&mut rest) as usize;
        &rest[..length]
    }
}

impl Members {
    /// The members of an object that begin at the start of the buffer.
    pub fn at_start(last: Option<usize>, sorted: bool) -> Self {
        Members { start: 0, last, sorted }
    }

    /// Where the last of them begins.
    pub fn last(&self) -> Option<usize> {
        self.last
    }

    /// Returns whether they are in order, and each is there once.
    pub fn are_sorted(&self) -> bool {
        self.sorted
    }
}

/// The members of an object in order, each once, and a name that was there twice.
pub fn sorted(object: &[u8]) -> (Vec<u8>, Option<String>) {
    let mut entries: Vec<_> = members(object).collect();
    entries.sort_by_key(|member| member.name);
    let mut sorted = Vec::with_capacity(object.len());
    let mut twice = None;
    for (place, member) in entries.iter().enumerate() {
        if entries.get(place + 1).is_some_and(|next| next.name == member.name) {
            twice = Some(member.name.to_owned());
        } else {
            sorted.extend_from_slice(member.whole);
        }
    }
    (sorted, twice)
}
