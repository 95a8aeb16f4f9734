//! Who may do what, and how often: realms, API keys, scopes and idempotency keys.

mod answer;
mod api_version;
mod authenticate;
pub mod erasure_queries;
mod idempotency;
pub mod idempotency_queries;
mod key;
mod lookups;
pub mod queries;
mod quota;

pub(crate) use answer::shows_nothing;
pub use answer::{Answer, REPLAYED, Subject};
pub use api_version::ApiVersion;
pub use authenticate::{Authenticator, CHECK_KEY, KEYS_TOPIC, check};
pub use idempotency::{IdempotencyKey, Once};
pub use key::{Caller, Key, Scope, Secret};
pub use quota::Quota;
