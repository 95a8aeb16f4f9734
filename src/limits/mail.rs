//! Limits of mails.

use super::limits;

/// The most domains that a realm may allow.
pub const MAX_DOMAINS: usize = 100;

limits! {
    MAILS "mails" {
        bounds: "Mails about tasks of one realm within an hour, over all replicas",
        value: Setting("mails-per-hour"),
        past: "The mail is not sent; the task says so by `mail` with the reason `limit`",
    }
    MAIL_DOMAINS "mail_domains" {
        bounds: "`mail_domains` of a removal policy",
        value: Fixed(MAX_DOMAINS as u64, "domains"),
        past: "`validation_failed` (400)",
    }
}
