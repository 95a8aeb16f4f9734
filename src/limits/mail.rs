//! Limits of mails.

use super::{Limit, Value};

/// The most domains that a realm may allow.
pub const MAX_DOMAINS: usize = 100;

/// Mails of a realm.
pub static MAILS: Limit = Limit {
    name: "mails",
    bounds: "Mails about tasks of one realm within an hour, over all replicas",
    value: Value::Setting("mails-per-hour"),
    past: "The mail is not sent; the task says so by `mail` with the reason `limit`",
};

/// Domains that mails may go to.
pub static MAIL_DOMAINS: Limit = Limit {
    name: "mail_domains",
    bounds: "`mail_domains` of a removal policy",
    value: Value::Fixed(MAX_DOMAINS as u64, "domains"),
    past: "`validation_failed` (400)",
};

/// All of them.
pub const ALL: &[&Limit] = &[&MAILS, &MAIL_DOMAINS];
