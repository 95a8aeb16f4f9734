//! JSON to protobuf messages and back, in the spelling that a service declares (`proto/offboard/v1/annotations.proto`).
//!
//! This is not the JSON mapping of proto3: here every member is always present, 64-bit integers are numbers, and enum values are spelled
//! as the contract of the service has them. A [`Schema`] contains, ready made, all that is the same for every message of a type.

mod collections;
mod decode;
mod encode;
mod enumeration;
mod fault;
mod free_form;
mod misplaced;
mod number;
mod packed;
mod path;
mod scalar;
mod schema;
mod style;
mod syntax;

pub use decode::{Decoded, Decoder};
pub use encode::{encode_field, encode_some, encode_value};
pub use enumeration::Enum;
pub use fault::{BELONGS, Fault};
pub use misplaced::OWN;
pub use number::with_readable_numbers;
pub use scalar::from_text;
pub use schema::{Cardinality, Field, FieldPath, FreeForm, Schema, Shape};
pub use style::Style;

#[cfg(test)]
mod tests;
