//! Callers with a token of an issuer instead of a key: a JWT that is signed by it. `docs/tokens.md` says how it is set up.

mod check;
mod fetch;
mod file;
mod inspect;
mod issuer;
mod jwks;
mod jws;
mod keep;
mod keys;
mod members;
mod realms;
mod report;
mod store;
mod strict;

#[cfg(test)]
mod tests;

pub use inspect::inspect;
pub use issuer::is_of_token;
pub(in crate::access) use realms::Realms;
pub use report::{Fault, Report};
pub(in crate::access) use store::{Granted, Token};
pub use store::{Options, Tokens};
