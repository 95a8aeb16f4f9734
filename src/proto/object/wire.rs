//! The content of a `google.protobuf.Struct` from a caller, checked and written anew in one pass.

use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::Fault;
use super::builder::{Builder, Members};
use super::number::{EXACT, Refused, nearest, plain};
use crate::limits::bodies::{MAX_OBJECT_DEPTH, OBJECT_DEPTH};

/// Why reading ended.
#[derive(Debug)]
pub enum Stop {
    /// These are not the bytes of a message.
    Malformed,
    /// They are, but of one that is refused.
    Fault(Fault),
}

impl From<DecodeError> for Stop {
    fn from(_: DecodeError) -> Self {
        Stop::Malformed
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Stop::Fault(fault)
    }
}

/// Reads values of callers.
pub struct Reader<'b> {
    /// Where they are written to.
    pub out: &'b mut Builder,
    /// The most bytes of JSON that may be written.
    pub max_bytes: usize,
}

impl Reader<'_> {
    /// Reads the entry of a member, within an object that is nested this deep.
    pub fn member(
        &mut self,
        mut entry: &[u8],
        members: &mut Members,
        depth: usize,
    ) -> Result<(), Stop> {
        let (mut name, mut value): (&[u8], Option<&[u8]>) = (b"", None);
        while !entry.is_empty() {
            match field(&mut entry)? {
                Field::Bytes(1, bytes) => name = bytes,
                Field::Bytes(2, bytes) => value = Some(bytes),
                _ => {}
            }
        }
        let name = text(name)?;
        let member = self.out.open_member(members, name);
        self.value(value.unwrap_or_default(), depth)?;
        self.out.close_member(member);
        Ok(())
    }

    fn value(&mut self, mut value: &[u8], depth: usize) -> Result<(), Stop> {
        // Of several kinds the last counts, as in every `oneof`.
        let (mut last, mut exact) = (None, None);
        while !value.is_empty() {
            match field(&mut value)? {
                Field::Other => {}
                Field::Bytes(EXACT, text) => exact = Some(text),
                field => last = Some(field),
            }
        }
        match last.ok_or(Fault::NoKind)? {
            Field::Varint(1, _) => self.out.null(),
            Field::Varint(4, value) => self.out.bool(value != 0),
            Field::Double(2, number) if number.is_finite() => self.number(number, exact)?,
            Field::Double(2, _) => return Err(Fault::NotANumber.into()),
            Field::Bytes(3, bytes) if bytes.len() > self.max_bytes => {
                return Err(Fault::TooLarge.into());
            }
            Field::Bytes(3, bytes) => self.out.string(text(bytes)?),
            Field::Bytes(5, object) => self.object(object, depth + 1)?,
            Field::Bytes(6, list) => self.list(list, depth + 1)?,
            _ => return Err(Fault::NoKind.into()),
        }
        // The brace at the beginning is one more.
        if self.out.json_size() >= self.max_bytes { Err(Fault::TooLarge.into()) } else { Ok(()) }
    }

    /// A number. A text beside it counts if the double is the nearest to it: a caller who changed the double has not seen the text, and
    /// means the double.
    fn number(&mut self, double: f64, exact: Option<&[u8]>) -> Result<(), Stop> {
        let text = exact
            .and_then(|text| std::str::from_utf8(text).ok())
            .filter(|text| nearest(text) == double);
        match text.map(plain) {
            Some(Ok(plain)) => self.out.number(&plain),
            Some(Err(Refused::TooLong)) => return Err(Fault::LongNumber.into()),
            Some(Err(Refused::NoNumber)) | None => self.out.double(double),
        }
        Ok(())
    }

    fn object(&mut self, mut object: &[u8], depth: usize) -> Result<(), Stop> {
        go_down(depth)?;
        let open = self.out.open_object();
        let mut members = self.out.members();
        while !object.is_empty() {
            if let Field::Bytes(1, entry) = field(&mut object)? {
                self.member(entry, &mut members, depth)?;
            }
        }
        self.out.close_members(members);
        self.out.close(open);
        Ok(())
    }

    fn list(&mut self, mut list: &[u8], depth: usize) -> Result<(), Stop> {
        go_down(depth)?;
        let open = self.out.open_list();
        while !list.is_empty() {
            if let Field::Bytes(1, element) = field(&mut list)? {
                let open = self.out.open_element();
                self.value(element, depth)?;
                self.out.close(open);
            }
        }
        self.out.close(open);
        Ok(())
    }
}

fn go_down(depth: usize) -> Result<(), Fault> {
    if depth <= MAX_OBJECT_DEPTH {
        return Ok(());
    }
    OBJECT_DEPTH.reached();
    Err(Fault::TooDeep)
}

/// A field, as far as the messages of `struct.proto` have such.
enum Field<'w> {
    Varint(u32, u64),
    Double(u32, f64),
    Bytes(u32, &'w [u8]),
    Other,
}

fn field<'w>(rest: &mut &'w [u8]) -> Result<Field<'w>, Stop> {
    let (number, wire_type) = decode_key(rest)?;
    Ok(match (number, wire_type) {
        (1 | 4, WireType::Varint) => Field::Varint(number, decode_varint(rest)?),
        (2, WireType::SixtyFourBit) => {
            let (bytes, behind) = rest.split_first_chunk().ok_or(Stop::Malformed)?;
            *rest = behind;
            Field::Double(number, f64::from_le_bytes(*bytes))
        }
        (1..=3 | 5 | 6 | EXACT, WireType::LengthDelimited) => {
            let length = usize::try_from(decode_varint(rest)?).map_err(|_| Stop::Malformed)?;
            let (bytes, behind) = rest.split_at_checked(length).ok_or(Stop::Malformed)?;
            *rest = behind;
            Field::Bytes(number, bytes)
        }
        _ => {
            skip_field(wire_type, number, rest, DecodeContext::default())?;
            Field::Other
        }
    })
}

fn text(bytes: &[u8]) -> Result<&str, Stop> {
    let text = std::str::from_utf8(bytes).map_err(|_| Stop::Malformed)?;
    if text.contains('\0') { Err(Fault::Nul.into()) } else { Ok(text) }
}
