//! What the service makes of a token. Pure.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::access::scope::Scope;
use crate::db::Mode;

/// Why a token is not taken: for the log and its counter, where nothing of the token itself may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It has more bytes than a token may have.
    TooLarge,
    /// It is no token.
    Malformed,
    /// It is of another type.
    Type,
    /// Its algorithm is none, or none that its issuer may use.
    Algorithm,
    /// It asks for an extension.
    Extension,
    /// It names no key, or one of another kind than its algorithm.
    Key,
    /// Its issuer has no key of that name as far as is known.
    UnknownKey,
    /// The keys of its issuer are not known, or not any more.
    NoKeys,
    /// Its issuer is none that the file has.
    Issuer,
    /// It is meant for others.
    Audience,
    /// It has expired, or says not when it does.
    Expired,
    /// It is not valid yet.
    NotYet,
    /// It does not say who calls, for whom, or what they may do.
    Claims,
    /// It was not signed with that key.
    Signature,
    /// The organisation has no realm.
    Realm,
}

impl Reason {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::TooLarge => "too_large",
            Reason::Malformed => "malformed",
            Reason::Type => "wrong_type",
            Reason::Algorithm => "wrong_algorithm",
            Reason::Extension => "extension",
            Reason::Key => "wrong_key",
            Reason::UnknownKey => "unknown_key",
            Reason::NoKeys => "keys_unavailable",
            Reason::Issuer => "unknown_issuer",
            Reason::Audience => "wrong_audience",
            Reason::Expired => "expired",
            Reason::NotYet => "not_yet_valid",
            Reason::Claims => "wrong_claims",
            Reason::Signature => "wrong_signature",
            Reason::Realm => "unknown_realm",
        }
    }
}

/// One fault of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kind.
    pub reason: Reason,
    /// Where: `header.alg`, `claims.exp`, `signature`, ...
    pub at: String,
    /// What is wrong there, for whoever has the token. It may quote it, so it is not for the log.
    pub text: String,
}

impl Fault {
    /// A fault.
    pub fn new(reason: Reason, at: impl Into<String>, text: impl Into<String>) -> Self {
        Fault { reason, at: at.into(), text: text.into() }
    }
}

/// What a token says, as far as it can be read, and all that is wrong with it.
#[derive(Debug, Default)]
pub struct Report {
    /// The issuer, if the file has it.
    pub issuer: Option<String>,
    /// The principal as the token has it.
    pub subject: Option<String>,
    /// The same as the service names it.
    pub principal_id: Option<Uuid>,
    /// The organisation.
    pub org: Option<String>,
    /// Its mode.
    pub mode: Option<Mode>,
    /// The scopes.
    pub scopes: Vec<Scope>,
    /// What the token gives and is no scope, nor a role of the file.
    pub ignored: Vec<String>,
    /// When it ends, without the leeway of its issuer.
    pub expires_at: Option<DateTime<Utc>>,
    /// From when on it is valid.
    pub not_before: Option<DateTime<Utc>>,
    /// How it is signed.
    pub algorithm: Option<&'static str>,
    /// By which key.
    pub key_id: Option<String>,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

impl Report {
    /// Returns whether all that is wrong is of these kinds, and something is.
    pub fn is_only(&self, reasons: &[Reason]) -> bool {
        !self.faults.is_empty() && self.faults.iter().all(|fault| reasons.contains(&fault.reason))
    }

    pub(super) fn refuse(
        &mut self,
        reason: Reason,
        at: impl Into<String>,
        text: impl Into<String>,
    ) {
        self.faults.push(Fault::new(reason, at, text));
    }
}
