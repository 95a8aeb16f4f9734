//! Limits of the faults in a response, so that it stays small whatever the request is.

use super::limits;

/// How many characters of the path of a fault are reported.
pub const MAX_FIELD_CHARACTERS: usize = 256;
/// How many characters of the description of a fault are reported.
pub const MAX_DESCRIPTION_CHARACTERS: usize = 1024;
/// How many bytes a list among the members of a failure has.
pub const MAX_LIST_BYTES: usize = 4096;
/// How many faults are reported.
pub const MAX_FAULTS: usize = 1000;
/// How many bytes the faults take that are reported, as a problem document has them.
pub const MAX_FAULT_BYTES: usize = 320 << 10;

limits! {
    FAULT_FIELD "fault_field" {
        bounds: "Characters that the path of a fault in a response may have",
        value: Fixed(MAX_FIELD_CHARACTERS as u64, "characters"),
        past: "The path is cut and ends in `…`",
    }
    FAULT_DESCRIPTION "fault_description" {
        bounds: "Characters that the description of a fault in a response may have",
        value: Fixed(MAX_DESCRIPTION_CHARACTERS as u64, "characters"),
        past: "It is cut and ends in `…`",
    }
    FAULTS "faults" {
        bounds: "Faults of a request that a response reports",
        value: Fixed(MAX_FAULTS as u64, "faults"),
        past: "A last entry with the code `too_many` says how many more there were",
    }
    FAULT_BYTES "fault_bytes" {
        bounds: "Bytes that the faults take in a problem document, where each has its path and its description twice",
        value: Fixed(MAX_FAULT_BYTES as u64, "bytes"),
        past: "A last entry with the code `too_many` says how many more there were; over gRPC, whose trailers are small, past 4096 bytes",
    }
}
