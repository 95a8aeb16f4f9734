//! Who may do what, and how often: realms, API keys, scopes and idempotency keys.

mod api_version;
mod authenticate;
mod idempotency;
pub mod idempotency_queries;
mod key;
mod lookups;
pub mod queries;

pub use api_version::ApiVersion;
pub use authenticate::{Authenticator, CHECK_KEY, KEYS_TOPIC, check};
pub use idempotency::{IdempotencyKey, Once, REPLAYED};
pub use key::{Caller, Key, Scope, Secret};
