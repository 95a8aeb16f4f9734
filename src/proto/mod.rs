//! The types that `build.rs` makes of `proto/`.

/// Encoded `google.protobuf.FileDescriptorSet` of every file under `proto/`, with comments and custom options.
pub const DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/offboard.descriptor.bin"));

/// Messages, clients and servers of the package `offboard.v1`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::unwrap_used,
    reason = "generated; the comments are in the proto files"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/offboard.v1.rs"));
}

pub(crate) mod answer;
mod codec;
pub(crate) mod convert;
pub(crate) mod duration;
mod guard;
pub(crate) mod mask;
pub mod object;
