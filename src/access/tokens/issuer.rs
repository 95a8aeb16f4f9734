//! An issuer of tokens, and what its tokens' claims mean. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::access::ApiVersion;
use crate::access::scope::Scope;
use crate::access::tokens::jwks::Algorithm;
use crate::access::tokens::jws::Jws;
use crate::access::tokens::keys::IssuerKeys;
use crate::access::tokens::report::{Reason, Report};
use crate::db::{Mode, id};

/// An issuer as the file has it.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// Its name: the claim `iss`.
    pub name: String,
    /// The audiences of which a token must name one.
    pub audiences: Vec<String>,
    /// The keys that it signs with.
    pub keys: Arc<IssuerKeys>,
    /// How it may sign.
    pub algorithms: Vec<Algorithm>,
    /// How far its clock may be from ours.
    pub leeway: TimeDelta,
    /// The type that its tokens must have.
    pub kind: Option<String>,
    /// The organisation.
    pub org: Said<String>,
    /// Its mode.
    pub mode: Said<Mode>,
    /// The principal.
    pub principal: Said<String>,
    /// The scopes.
    pub scopes: Option<Said<Vec<Scope>>>,
    /// Roles, and the scopes that each gives.
    pub roles: Option<Roles>,
    /// The version of the API that its callers speak where a call names none.
    pub api_version: ApiVersion,
    /// Whether the realm of an organisation is made by its first call.
    pub makes_realms: bool,
}

/// A value that is the same for all tokens of an issuer, or in a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said<T> {
    /// Of all.
    Always(T),
    /// In this claim.
    Claim(Claim),
}

/// Which scopes the roles in a claim give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles {
    /// The claim with the roles.
    pub claim: Claim,
    /// The scopes of each.
    pub scopes: BTreeMap<String, Vec<Scope>>,
}

/// The place of a claim: a name, or a JSON pointer (RFC 6901), which begins with a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim(String);

impl Claim {
    /// The claim at this place, or why it is none.
    pub fn parse(place: &str) -> Result<Claim, &'static str> {
        if place.is_empty() {
            return Err("must name a claim");
        }
        let is_escaped = |step: &str| {
            step.split('~').skip(1).all(|rest| rest.starts_with('0') || rest.starts_with('1'))
        };
        if place.starts_with('/') && !is_escaped(place) {
            return Err("must be a JSON pointer where it begins with a slash: `~` is spelt `~0`");
        }
        Ok(Claim(place.to_owned()))
    }

    fn of<'c>(&self, claims: &'c Map<String, Value>) -> Option<&'c Value> {
        let Some(path) = self.0.strip_prefix('/') else { return claims.get(&self.0) };
        let (first, rest) =
            path.split_once('/').map_or((path, None), |(first, rest)| (first, Some(rest)));
        let value = claims.get(&first.replace("~1", "/").replace("~0", "~"))?;
        rest.map_or(Some(value), |rest| value.pointer(&format!("/{rest}")))
    }

    fn place(&self) -> String {
        format!("claims.{}", self.0)
    }
}

/// The latest and the earliest second that a token may name, so that time can be added to it.
const SECONDS_AT_MOST: f64 = 253_402_300_799.0;

impl Issuer {
    /// Reads what a token says, and all that is wrong with it but its signature.
    pub(super) fn read(&self, jws: &Jws<'_>, now: DateTime<Utc>, report: &mut Report) {
        report.issuer = Some(self.name.clone());
        if !self.algorithms.contains(&jws.algorithm) {
            let text = format!("is {}, which this issuer does not sign with", jws.algorithm);
            report.refuse(Reason::Algorithm, "header.alg", text);
        }
        if !jws.is_of(self.kind.as_deref()) {
            let kind = jws.kind.as_deref().unwrap_or("left out");
            let text = match &self.kind {
                Some(wanted) => format!("must be {wanted:?}, and is {kind:?}"),
                None => format!("is {kind:?}: the token is made for another purpose"),
            };
            report.refuse(Reason::Type, "header.typ", text);
        }
        let claims = &jws.claims;
        self.check_audience(claims, report);
        self.check_times(claims, now, report);
        self.check_caller(claims, report);
        self.check_scopes(claims, report);
    }

    fn check_audience(&self, claims: &Map<String, Value>, report: &mut Report) {
        let is_ours = |value: &Value| {
            value.as_str().is_some_and(|name| self.audiences.iter().any(|ours| ours == name))
        };
        let fault = match claims.get("aud") {
            None => "must be given",
            Some(Value::Array(names)) if !names.iter().all(Value::is_string) => "must be strings",
            Some(Value::Array(names)) if names.iter().any(is_ours) => return,
            Some(name @ Value::String(_)) if is_ours(name) => return,
            Some(Value::Array(_) | Value::String(_)) => {
                "names none of the audiences of this issuer"
            }
            Some(_) => "must be a string, or an array of them",
        };
        report.refuse(Reason::Audience, "claims.aud", fault);
    }

    fn check_times(&self, claims: &Map<String, Value>, now: DateTime<Utc>, report: &mut Report) {
        let mut moment = |name: &'static str, reason: Reason| {
            let value = claims.get(name)?;
            let seconds =
                value.as_f64().filter(|seconds| (0.0..=SECONDS_AT_MOST).contains(seconds));
            let read = seconds.and_then(|seconds| {
                DateTime::from_timestamp_millis((seconds * 1000.0).floor() as i64)
            });
            if read.is_none() {
                let text = "must be a number of seconds since 1970";
                report.refuse(reason, format!("claims.{name}"), text);
            }
            read
        };
        let expires = moment("exp", Reason::Expired);
        let (begins, issued) = (moment("nbf", Reason::NotYet), moment("iat", Reason::NotYet));
        if !claims.contains_key("exp") {
            report.refuse(Reason::Expired, "claims.exp", "must be given");
        }
        if let Some(end) = expires.filter(|end| *end + self.leeway <= now) {
            report.refuse(Reason::Expired, "claims.exp", format!("was {}", shown(end)));
        }
        for (name, begin) in [("nbf", begins), ("iat", issued)] {
            if let Some(begin) = begin.filter(|begin| *begin > now + self.leeway) {
                let text = format!("is {}, which is yet to come", shown(begin));
                report.refuse(Reason::NotYet, format!("claims.{name}"), text);
            }
        }
        report.expires_at = expires;
        report.not_before = begins;
    }

    fn check_caller(&self, claims: &Map<String, Value>, report: &mut Report) {
        report.org = match &self.org {
            Said::Always(org) => Some(org.clone()),
            Said::Claim(claim) => string(claim, claims, report).and_then(|org| {
                let is_one = id::is_new_id(org);
                if !is_one {
                    let text =
                        "must be 1 to 128 characters from A-Z a-z 0-9 . _ ~ -, and not `.` or `..`";
                    report.refuse(Reason::Claims, claim.place(), text);
                }
                is_one.then(|| org.to_owned())
            }),
        };
        report.mode = match &self.mode {
            Said::Always(mode) => Some(*mode),
            Said::Claim(claim) => string(claim, claims, report).and_then(|name| {
                let mode = Mode::parse(name);
                if mode.is_none() {
                    report.refuse(Reason::Claims, claim.place(), "must be `test` or `live`");
                }
                mode
            }),
        };
        report.subject = match &self.principal {
            Said::Always(principal) => Some(principal.clone()),
            Said::Claim(claim) => string(claim, claims, report).map(str::to_owned),
        };
        report.principal_id = report.subject.as_deref().map(|subject| self.principal_id(subject));
    }

    fn check_scopes(&self, claims: &Map<String, Value>, report: &mut Report) {
        let mut scopes = Vec::new();
        match &self.scopes {
            None => {}
            Some(Said::Always(always)) => scopes.extend(always),
            Some(Said::Claim(claim)) => {
                for name in words(claim, claims, report) {
                    match Scope::parse(name) {
                        Some(scope) => scopes.push(scope),
                        None => report.ignored.push(name.to_owned()),
                    }
                }
            }
        }
        if let Some(roles) = &self.roles {
            for role in words(&roles.claim, claims, report) {
                match roles.scopes.get(role) {
                    Some(given) => scopes.extend(given),
                    None => report.ignored.push(role.to_owned()),
                }
            }
        }
        report.scopes = Scope::ALL.iter().copied().filter(|scope| scopes.contains(scope)).collect();
    }

    /// The principal of a subject: itself where it is a UUID, and else one of the issuer and it (RFC 9562, section 5.5). Others can compute it.
    pub(super) fn principal_id(&self, subject: &str) -> Uuid {
        // As it is usually written: its other spellings are names as any.
        let is_usual = subject.len() == uuid::fmt::Hyphenated::LENGTH;
        let read = Uuid::parse_str(subject).ok().filter(|_| is_usual);
        read.unwrap_or_else(|| self.own_id(subject))
    }

    fn own_id(&self, subject: &str) -> Uuid {
        let issuer = Uuid::new_v5(&Uuid::NAMESPACE_URL, self.name.as_bytes());
        Uuid::new_v5(&issuer, subject.as_bytes())
    }

    /// The id by which the calls of a subject in a realm are counted, as a key's calls are by its id. It is never one of a key, nor one of another
    /// issuer's subject, whatever a token says.
    pub(super) fn party_id(&self, subject: &str, org: &str, mode: Mode) -> Uuid {
        Uuid::new_v5(&self.own_id(subject), format!("{org}/{mode}").as_bytes())
    }
}

/// Returns whether a caller with this id has a token, and no key: those have ids of another version.
pub fn is_of_token(key_id: Uuid) -> bool {
    key_id.get_version_num() == 5
}

/// The string in a claim, which must be there.
fn string<'c>(
    claim: &Claim,
    claims: &'c Map<String, Value>,
    report: &mut Report,
) -> Option<&'c str> {
    let fault = match claim.of(claims) {
        Some(Value::String(text)) if !text.is_empty() => return Some(text),
        None => "must be given",
        Some(_) => "must be a string, and not empty",
    };
    report.refuse(Reason::Claims, claim.place(), fault);
    None
}

/// The words in a claim: in one string with spaces between them (RFC 8693, section 4.2), or in an array. None if it is not there.
fn words<'c>(claim: &Claim, claims: &'c Map<String, Value>, report: &mut Report) -> Vec<&'c str> {
    match claim.of(claims) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => text.split_ascii_whitespace().collect(),
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect()
        }
        Some(_) => {
            let text = "must be a string of words, or an array of strings";
            report.refuse(Reason::Claims, claim.place(), text);
            Vec::new()
        }
    }
}

/// A moment for people.
pub(super) fn shown(moment: DateTime<Utc>) -> String {
    moment.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}
