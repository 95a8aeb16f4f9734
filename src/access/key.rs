//! API keys, their secrets and their scopes. Pure.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use ipnet::IpNet;
use rand::TryRngCore;
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use uuid::Uuid;

use crate::access::ApiVersion;
use crate::db::{Mode, Realm, text_enum};
use crate::error::{Code, Error, Result};

text_enum! {
    /// The permissions of a key.
    pub enum Scope {
        /// See entities, jobs and tasks.
        EntitiesRead = "entities:read",
        /// Create and change entities.
        EntitiesWrite = "entities:write",
        /// Offboard single entities.
        EntitiesOffboard = "entities:offboard",
        /// Delete many entities.
        EntitiesDelete = "entities:delete",
        /// Delete many entities so that nothing but a tombstone is left.
        EntitiesDeleteHard = "entities:delete_hard",
        /// See portfolios.
        PortfoliosRead = "portfolios:read",
        /// Change portfolios and their members.
        PortfoliosWrite = "portfolios:write",
        /// See what happened.
        EventsRead = "events:read",
        /// Everything.
        Admin = "admin",
    }
}

/// The secret of a key: `sk_test_…` or `sk_live_…` and 256 random bits. It is shown once, never stored and never logged.
pub struct Secret(String);

impl Secret {
    /// A new secret, from the operating system's randomness.
    pub fn generate(mode: Mode) -> Result<Secret> {
        let mut bytes = [0; 32];
        rand::rngs::OsRng.try_fill_bytes(&mut bytes).map_err(Error::internal)?;
        Ok(Secret(format!("sk_{mode}_{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// A secret as a caller presents it, if it has the form of one.
    pub fn parse(text: &str) -> Option<Secret> {
        let random = text.strip_prefix("sk_test_").or_else(|| text.strip_prefix("sk_live_"))?;
        let well_formed = random.len() == 43
            && random.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        well_formed.then(|| Secret(text.to_owned()))
    }

    /// The stored part of it.
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }

    /// The part of it that may be shown, so that people can distinguish their keys: 12 of its 51 characters.
    pub fn prefix(&self) -> &str {
        &self.0[..12]
    }

    /// All of it, for showing it once.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({}…)", self.prefix())
    }
}

/// A key as the database has it.
#[derive(Clone, Debug)]
pub struct Key {
    /// The key's id.
    pub id: Uuid,
    /// The realm that it opens.
    pub realm: Realm,
    /// The principal of the key.
    pub principal_id: Uuid,
    /// Its scopes.
    pub scopes: Vec<Scope>,
    /// Where it may be used from; anywhere if empty.
    pub allowed: Vec<IpNet>,
    /// The version of the API that it speaks.
    pub api_version: ApiVersion,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

impl Key {
    /// Admits a caller from `address` at `now`, or says why not.
    pub fn admit(&self, address: Option<IpAddr>, now: DateTime<Utc>) -> Result<Caller> {
        self.check(now)?;
        let listed = |address: IpAddr| {
            self.allowed.iter().any(|network| network.contains(&address.to_canonical()))
        };
        if !self.allowed.is_empty() && !address.is_some_and(listed) {
            return Err(Error::new(
                Code::AddressNotAllowed,
                "This key may not be used from the caller's address.",
            ));
        }
        Ok(Caller {
            realm: self.realm.clone(),
            key_id: self.id,
            principal_id: self.principal_id,
            api_version: self.api_version,
            scopes: self.scopes.clone(),
        })
    }

    /// Fails once the key has expired or was revoked.
    pub fn check(&self, now: DateTime<Utc>) -> Result<()> {
        if self.revoked_at.is_some() || self.expires_at.is_some_and(|end| end <= now) {
            Err(invalid_credentials())
        } else {
            Ok(())
        }
    }
}

/// The one response to every credential that opens nothing, whatever the reason.
pub fn invalid_credentials() -> Error {
    Error::new(
        Code::InvalidCredentials,
        "The credential is unknown, malformed, expired or revoked.",
    )
}

/// The caller: an authenticated key. The authentication layer puts it among the extensions of each request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The realm of everything that the call may touch.
    pub realm: Realm,
    /// The key.
    pub key_id: Uuid,
    /// The principal.
    pub principal_id: Uuid,
    /// The version of the API that the key speaks, where the call names none.
    pub api_version: ApiVersion,
    scopes: Vec<Scope>,
}

impl Caller {
    /// The caller of a request.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Caller> {
        let caller = request.extensions().get::<Caller>().cloned();
        caller.ok_or_else(|| Error::internal("a request passed by the authentication layer"))
    }

    /// Returns whether the caller's key has the scope, or `admin`.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.is_admin()
    }

    /// Returns whether the caller's key has the scope `admin`.
    pub fn is_admin(&self) -> bool {
        self.scopes.contains(&Scope::Admin)
    }

    /// Fails with `permission_denied` unless the caller's key has the scope, or `admin`.
    pub fn require(&self, scope: Scope) -> Result<()> {
        if self.may(scope) {
            return Ok(());
        }
        Err(Error::new(
            Code::PermissionDenied,
            format!("This needs a key with the scope `{scope}`."),
        )
        .with("required_scope", scope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key {
            id: Uuid::nil(),
            realm: Realm::from_row(1, "acme".to_owned(), Mode::Test),
            principal_id: Uuid::nil(),
            scopes: vec![Scope::EntitiesRead],
            allowed: Vec::new(),
            api_version: ApiVersion::latest(),
            expires_at: None,
            revoked_at: None,
        }
    }

    #[test]
    fn a_generated_secret_parses_and_hides_itself() {
        let secret = Secret::generate(Mode::Live).unwrap();
        let parsed = Secret::parse(secret.reveal()).unwrap();
        assert_eq!(parsed.sha256(), secret.sha256());
        assert!(secret.reveal().starts_with("sk_live_"));
        assert!(!format!("{secret:?}").contains(&secret.reveal()[13..]));
        assert!(Secret::parse("sk_test_short").is_none());
        assert!(Secret::parse(&secret.reveal().replace("live", "best")).is_none());
    }

    #[test]
    fn a_key_ends_when_it_expires_or_is_revoked() {
        let now = Utc::now();
        assert!(key().admit(None, now).is_ok());
        let expired = Key { expires_at: Some(now), ..key() };
        let revoked = Key { revoked_at: Some(now), ..key() };
        for ended in [expired, revoked] {
            assert_eq!(ended.admit(None, now).unwrap_err().code(), Code::InvalidCredentials);
        }
    }

    #[test]
    fn an_allow_list_admits_its_networks_alone() {
        let listed = Key { allowed: vec!["10.0.0.0/8".parse().unwrap()], ..key() };
        let code = |address: Option<&str>| {
            listed
                .admit(address.map(|text| text.parse().unwrap()), Utc::now())
                .map_err(|error| error.code())
        };
        assert!(code(Some("10.1.2.3")).is_ok());
        assert!(code(Some("::ffff:10.1.2.3")).is_ok());
        assert_eq!(code(Some("192.168.0.1")).err(), Some(Code::AddressNotAllowed));
        assert_eq!(code(None).err(), Some(Code::AddressNotAllowed));
    }

    #[test]
    fn admin_has_every_scope_and_others_their_own() {
        let caller = key().admit(None, Utc::now()).unwrap();
        assert!(caller.require(Scope::EntitiesRead).is_ok());
        assert_eq!(
            caller.require(Scope::EntitiesDelete).unwrap_err().code(),
            Code::PermissionDenied
        );
        let admin = Key { scopes: vec![Scope::Admin], ..key() }.admit(None, Utc::now()).unwrap();
        assert!(Scope::ALL.iter().all(|scope| admin.require(*scope).is_ok()));
    }
}
