//! What a caller is told whose credential is not taken.

use crate::error::{Code, Error};

/// The one response to every credential that opens nothing, whatever the reason.
pub fn invalid_credentials() -> Error {
    Error::new(
        Code::InvalidCredentials,
        "The credential is unknown, malformed, expired or revoked.",
    )
}

/// The response to a credential that may not be used from where it comes: the list of its key, or of its realm, does not have the address.
pub fn address_not_allowed() -> Error {
    Error::new(
        Code::AddressNotAllowed,
        "This credential may not be used from the caller's address.",
    )
}
