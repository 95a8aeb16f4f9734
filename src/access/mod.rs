//! Permissions and quotas: realms, API keys, scopes and idempotency keys.

mod answer;
mod api_version;
mod authenticate;
pub(crate) mod erasure_queries;
mod idempotency;
mod idempotency_key;
pub(crate) mod idempotency_queries;
mod key;
mod lookups;
pub(crate) mod queries;
mod quota;

pub(crate) use answer::shows_nothing;
pub use answer::{Answer, REPLAYED, Subject};
pub use api_version::ApiVersion;
pub use authenticate::{Authenticator, CHECK_KEY, check};
pub use idempotency::Once;
pub use idempotency_key::IdempotencyKey;
pub use key::{Caller, Key, Scope, Secret};
pub use queries::KEYS_TOPIC;
pub use quota::Quota;
