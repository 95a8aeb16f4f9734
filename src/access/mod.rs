//! Who may do what: realms, API keys and scopes.

mod authenticate;
mod key;
pub mod queries;

pub use authenticate::{Authenticator, KEYS_TOPIC};
pub use key::{Caller, Key, Scope, Secret};
