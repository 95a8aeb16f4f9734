//! A key as its managers see it, and the rules for its changes. Pure.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, SubsecRound, Utc};
use ipnet::IpNet;
use uuid::Uuid;

use crate::access::addresses::check_networks;
use crate::access::{ApiVersion, Scope};
use crate::db::text_enum;
use crate::error::{Code, Error, Result, Violations};
use crate::mail;
use crate::proto::convert::{check_duration, check_moment};
use crate::proto::mask::{Mask, spelled_out};
use crate::proto::v1;

const MAX_NAME_CHARACTERS: usize = 256;
/// The most scopes that a request lists.
const MAX_LIST: usize = 64;
/// The longest time for which two secrets of a key are valid.
const MAX_OVERLAP: Duration = Duration::from_secs(30 * 24 * 3600);

text_enum! {
    /// The state of a key.
    pub enum KeyState {
        /// It opens what its scopes allow.
        Active = "active",
        /// Its time is over.
        Expired = "expired",
        /// It was ended.
        Revoked = "revoked",
    }
}

text_enum! {
    /// The change of a key.
    pub enum KeyAction {
        /// Its fields change.
        Update = "update",
        /// It gets another secret.
        Rotate = "rotate",
        /// It ends for good.
        Revoke = "revoke",
    }
}

impl KeyState {
    /// Fails with `invalid_state_transition` unless a key in this state can be changed so.
    pub fn check(self, action: KeyAction) -> Result<()> {
        if self.allowed().contains(&action) {
            return Ok(());
        }
        Err(Error::new(
            Code::InvalidStateTransition,
            format!("A key that is {self} cannot {action}."),
        )
        .with("current_state", self)
        .with("attempted_transition", action)
        .with_choices("allowed_transitions", self.allowed()))
    }

    /// The changes that are possible.
    fn allowed(self) -> &'static [KeyAction] {
        match self {
            KeyState::Active => &[KeyAction::Update, KeyAction::Rotate, KeyAction::Revoke],
            KeyState::Expired => &[KeyAction::Update, KeyAction::Revoke],
            KeyState::Revoked => &[],
        }
    }
}

/// The fields of a key that its managers choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFields {
    /// A name for people.
    pub name: String,
    /// Where its owner gets mail.
    pub email: Option<String>,
    /// Its scopes, as they are spelled: a later version may have given it some that this one does not know.
    pub scopes: Vec<String>,
    /// Where it may be used from; anywhere if empty.
    pub allowed: Vec<IpNet>,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
    /// The day of the version of the API that it speaks.
    pub api_version: Option<NaiveDate>,
}

/// A key, without its secret.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    /// The key's id.
    pub id: Uuid,
    /// The principal that it stands for.
    pub principal_id: Uuid,
    /// Its state.
    pub state: KeyState,
    /// What its managers have chosen.
    pub fields: KeyFields,
    /// The start of its secret.
    pub secret_prefix: String,
    /// The start of the secret before it and its end, while that is valid.
    pub previous: Option<(String, DateTime<Utc>)>,
    /// Steps with every change.
    pub version: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
}

impl KeyRecord {
    /// Fails with `state_conflict` if the key is at another version than the caller expects.
    pub fn expect(&self, version: Option<i64>) -> Result<()> {
        let Some(expected) = version.filter(|expected| *expected != self.version) else {
            return Ok(());
        };
        let message =
            format!("The key `{}` is at version {}, not {expected}.", self.id, self.version);
        Err(Error::new(Code::StateConflict, message)
            .with("key_id", self.id)
            .with("expected_version", expected)
            .with("current_version", self.version))
    }
}

impl KeyFields {
    /// Checks the request for a new key. Every fault is reported.
    pub fn check(request: v1::CreateKeyRequest, now: DateTime<Utc>) -> Result<KeyFields> {
        let mut faults = Violations::new();
        check_name(&request.name, &mut faults);
        check_email(request.email.as_deref(), &mut faults);
        let fields = KeyFields {
            scopes: check_scopes(request.scopes, &mut faults),
            allowed: check_networks(&request.allowed, &mut faults),
            expires_at: request.expires_at.and_then(|moment| check_end(moment, now, &mut faults)),
            api_version: match request.api_version.as_str() {
                "" => Some(ApiVersion::latest().day()),
                version => check_version(version, &mut faults),
            },
            name: request.name,
            email: request.email,
        };
        faults.check()?;
        Ok(fields)
    }
}

/// A valid change of a key's fields. Those that are none stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyUpdate {
    name: Option<String>,
    email: Option<Option<String>>,
    scopes: Option<Vec<String>>,
    allowed: Option<Vec<IpNet>>,
    expires_at: Option<Option<DateTime<Utc>>>,
    api_version: Option<NaiveDate>,
    /// The version that the key must be at.
    pub expected_version: Option<i64>,
    /// True if the caller may be excluded by the list of its own key.
    pub allow_lockout: bool,
}

/// The members that an update may change.
const UPDATABLE: [&str; 6] = ["name", "email", "scopes", "allowed", "expires_at", "api_version"];
/// The members of the body of a `PATCH` that are not fields to change.
const BESIDE: [&str; 3] = ["key_id", "expected_version", "allow_lockout"];

impl KeyUpdate {
    /// Checks a request whose mask names the changes; without one, the given members are changed. Every fault is reported.
    pub fn check(request: v1::UpdateKeyRequest, now: DateTime<Utc>) -> Result<(Uuid, KeyUpdate)> {
        let mut faults = Violations::new();
        let key_id = check_key_id(&request.key_id, &mut faults);
        let there = [
            request.name.is_some(),
            request.email.is_some(),
            !request.scopes.is_empty(),
            !request.allowed.is_empty(),
            request.expires_at.is_some(),
            request.api_version.is_some(),
        ];
        let given = UPDATABLE
            .into_iter()
            .zip(there)
            .filter(|(_, there)| *there)
            .map(|(name, _)| name.to_owned());
        let is_known = |path: &str| UPDATABLE.contains(&path) || BESIDE.contains(&path);
        let reported = format!("is not among {}", spelled_out(&UPDATABLE));
        let mask = Mask::check(request.update_mask, given, is_known, &reported, &mut faults);
        let mut update = KeyUpdate {
            expected_version: request.expected_version,
            allow_lockout: request.allow_lockout,
            ..KeyUpdate::default()
        };
        if mask.names("name") {
            let name = request.name.unwrap_or_default();
            check_name(&name, &mut faults);
            update.name = Some(name);
        }
        if mask.names("email") {
            check_email(request.email.as_deref(), &mut faults);
            update.email = Some(request.email);
        }
        if mask.names("scopes") {
            update.scopes = Some(check_scopes(request.scopes, &mut faults));
        }
        if mask.names("allowed") {
            update.allowed = Some(check_networks(&request.allowed, &mut faults));
        }
        if mask.names("expires_at") {
            let end = request.expires_at.and_then(|moment| check_end(moment, now, &mut faults));
            update.expires_at = Some(end);
        }
        if mask.names("api_version") {
            update.api_version =
                check_version(request.api_version.as_deref().unwrap_or_default(), &mut faults);
        }
        let is_mask_faulty = faults.as_slice().iter().any(|fault| fault.field == "update_mask");
        if !is_mask_faulty && !mask.is_of_any(&UPDATABLE) {
            let reported = format!("at least one of {} must be given", spelled_out(&UPDATABLE));
            faults.add("update_mask", "required", reported);
        }
        faults.check()?;
        Ok((key_id, update))
    }

    /// The fields of a key after the change, and the names of those that are others then.
    pub fn apply(&self, before: &KeyFields) -> (KeyFields, Vec<&'static str>) {
        let KeyUpdate { name, email, scopes, allowed, expires_at, api_version, .. } = self.clone();
        let after = KeyFields {
            name: name.unwrap_or_else(|| before.name.clone()),
            email: email.unwrap_or_else(|| before.email.clone()),
            scopes: scopes.unwrap_or_else(|| before.scopes.clone()),
            allowed: allowed.unwrap_or_else(|| before.allowed.clone()),
            expires_at: expires_at.unwrap_or(before.expires_at),
            api_version: api_version.or(before.api_version),
        };
        let differs = [
            after.name != before.name,
            after.email != before.email,
            after.scopes != before.scopes,
            after.allowed != before.allowed,
            after.expires_at != before.expires_at,
            after.api_version != before.api_version,
        ];
        let changed =
            UPDATABLE.into_iter().zip(differs).filter_map(|(name, is)| is.then_some(name));
        let changed = changed.collect();
        (after, changed)
    }
}

/// Checks the request for another secret: of which key, for how long the one that it has stays valid, and the version that it must be at.
pub fn check_rotation(request: v1::RotateKeyRequest) -> Result<(Uuid, Duration, Option<i64>)> {
    let mut faults = Violations::new();
    let key_id = check_key_id(&request.key_id, &mut faults);
    let overlap = match request.overlap {
        None => {
            faults.add("overlap", "required", "must be given; `0s` ends the secret at once");
            None
        }
        Some(overlap) => check_duration(
            overlap,
            Duration::ZERO..=MAX_OVERLAP,
            "must be from 0s to 2592000s",
            "overlap",
            &mut faults,
        ),
    };
    faults.check()?;
    Ok((key_id, overlap.unwrap_or_default(), request.expected_version))
}

/// Reads the id of a key. One that is faulty is the id of none.
pub fn check_key_id(text: &str, faults: &mut Violations) -> Uuid {
    if text.is_empty() {
        faults.add("key_id", "required", "must be given");
    }
    text.parse().unwrap_or_else(|_| {
        if !text.is_empty() {
            faults.add("key_id", "invalid", "must be a UUID");
        }
        Uuid::nil()
    })
}

fn check_name(name: &str, faults: &mut Violations) {
    if name.chars().count() > MAX_NAME_CHARACTERS {
        faults.add("name", "too_long", format!("must be at most {MAX_NAME_CHARACTERS} characters"));
    }
    if name.contains('\0') {
        faults.add("name", "invalid", "must not contain the character U+0000");
    }
}

fn check_email(email: Option<&str>, faults: &mut Violations) {
    if email.is_some_and(|email| !mail::is_address(email)) {
        faults.add("email", "invalid", "must be an address, such as someone@example.com");
    }
}

/// The scopes in the order of [`Scope::ALL`], each once.
fn check_scopes(names: Vec<String>, faults: &mut Violations) -> Vec<String> {
    if names.is_empty() {
        faults.add("scopes", "required", "must have at least one scope");
    }
    if names.len() > MAX_LIST {
        faults.add("scopes", "too_long", format!("must have at most {MAX_LIST} scopes"));
        return Vec::new();
    }
    for (n, _) in names.iter().enumerate().filter(|(_, name)| Scope::parse(name).is_none()) {
        let description = format!("must be one of {}", spelled_out(Scope::SPELLINGS));
        faults.add(format!("scopes[{n}]"), "invalid", description);
    }
    let is_named = |scope: &&&str| names.iter().any(|name| name == **scope);
    Scope::SPELLINGS.iter().filter(is_named).map(|scope| (*scope).to_owned()).collect()
}

fn check_end(
    moment: prost_types::Timestamp,
    now: DateTime<Utc>,
    faults: &mut Violations,
) -> Option<DateTime<Utc>> {
    let moment = check_moment(moment, "expires_at", faults)?;
    if moment <= now {
        faults.add("expires_at", "out_of_range", "must be in the future");
    }
    // As precise as the database keeps it.
    Some(moment.trunc_subsecs(6))
}

fn check_version(version: &str, faults: &mut Violations) -> Option<NaiveDate> {
    let found = ApiVersion::all().find(|known| known.to_string() == version);
    if found.is_none() {
        let known: Vec<String> = ApiVersion::all().map(|version| version.to_string()).collect();
        let description = format!("must be one of {}", known.join(", "));
        faults.add("api_version", "unknown_version", description);
    }
    found.map(ApiVersion::day)
}

#[cfg(test)]
mod tests;
