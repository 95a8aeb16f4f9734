//! What a caller is told whose credential is not taken.

use crate::error::{Code, Error};

/// The one response to every credential that opens nothing, whatever the reason.
pub fn invalid_credentials() -> Error {
    Error::new(
        Code::InvalidCredentials,
        "The credential is unknown, malformed, expired or revoked.",
    )
}
