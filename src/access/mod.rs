//! Permissions and quotas: realms, API keys, scopes and idempotency keys; and the service that manages keys.

mod addresses;
mod answer;
mod api_version;
mod authenticate;
mod cache;
pub(crate) mod erasure_queries;
mod idempotency;
mod idempotency_key;
pub(crate) mod idempotency_queries;
mod key;
pub mod keys;
mod lookups;
pub(crate) mod queries;
mod quota;
mod refusal;
mod scope;
mod secret;
pub mod tokens;
mod uses;

pub use addresses::{canonical, network};
pub(crate) use answer::shows_nothing;
pub use answer::{Answer, REPLAYED, Subject};
pub use api_version::ApiVersion;
pub use authenticate::{Authenticator, CHECK_KEY, check};
pub use idempotency::Once;
pub use idempotency_key::IdempotencyKey;
#[cfg(test)]
pub(crate) use key::Presented;
pub use key::{Caller, Key};
pub use keys::AccessService;
pub use queries::KEYS_TOPIC;
pub use quota::Quota;
pub use scope::Scope;
pub use secret::Secret;
pub use tokens::{Tokens, is_of_token};
