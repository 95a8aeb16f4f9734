//! Callers who leave before all of their request has come.

use std::iter::successors;

use super::{Code, Error};

/// Among the causes of a body that cannot be read: its sender has left. Displayed as [`LEFT`].
#[derive(Debug, thiserror::Error)]
#[error("the caller left before its request had come whole")]
pub struct Left(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// How a [`Left`] that has become text reads.
pub const LEFT: &str = "the caller left before its request had come whole";

impl Left {
    /// Returns whether this failure is a [`Left`], or has one for a cause.
    pub fn caused(failure: &(dyn std::error::Error + 'static)) -> bool {
        successors(Some(failure), |failure| failure.source()).any(|failure| failure.is::<Left>())
    }

    /// The status for the gRPC library, which takes a request that ends with `CANCELLED` for one that has ended well.
    pub fn status() -> tonic::Status {
        tonic::Status::unknown(LEFT)
    }

    /// The failure of the call.
    pub fn error() -> Error {
        Error::new(Code::Canceled, "The caller left before its request had come whole.")
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn it_is_found_among_causes_and_reads_as_it_says() {
        let left = Left("reset".into());
        assert_eq!(left.to_string(), LEFT);
        let within = io::Error::other(axum::Error::new(left));
        assert!(Left::caused(&within) && !Left::caused(&io::Error::other("reset")));
    }
}
