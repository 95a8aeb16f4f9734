//! A key as calls are admitted by it, and the caller that it makes. Pure.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::access::ApiVersion;
use crate::access::addresses::AllowList;
use crate::access::refusal::address_not_allowed;
pub use crate::access::refusal::invalid_credentials;
use crate::access::scope::Scope;
use crate::access::secret::SecretHash;
use crate::access::tokens::{Granted, Token};
use crate::db::Realm;
use crate::error::{Code, Error, Result};

/// A key as the database has it.
#[derive(Clone, Debug)]
pub struct Key {
    /// The key's id.
    pub id: Uuid,
    /// The realm that it opens.
    pub realm: Realm,
    /// The principal of the key.
    pub principal_id: Uuid,
    /// The hash of its secret.
    pub secret: SecretHash,
    /// That of the secret before the last rotation, and when it ends.
    pub previous: Option<(SecretHash, DateTime<Utc>)>,
    /// Its scopes.
    pub scopes: Vec<Scope>,
    /// Where it may be used from.
    pub allowed: AllowList,
    /// Where every key of its realm may be used from.
    pub realm_allowed: AllowList,
    /// The version of the API that it speaks.
    pub api_version: ApiVersion,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// The credential that a caller shows: a secret, by its hash, and the address that it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Presented {
    /// The hash of the secret.
    pub secret: SecretHash,
    /// The address, if it is known.
    pub address: Option<IpAddr>,
}

impl Key {
    /// Admits a caller at `now`, or says why not.
    pub fn admit(&self, presented: Presented, now: DateTime<Utc>) -> Result<Caller> {
        if self.revoked_at.is_some()
            || self.expires_at.is_some_and(|end| end <= now)
            || !self.opens(presented.secret, now)
        {
            return Err(invalid_credentials());
        }
        if self.excludes(presented.address).is_some() {
            return Err(address_not_allowed());
        }
        Ok(Caller {
            realm: self.realm.clone(),
            key_id: self.id,
            principal_id: self.principal_id,
            api_version: self.api_version,
            scopes: self.scopes.clone(),
            presented,
            token: None,
        })
    }

    /// The list on which an address is not that must be there: `key` or `realm`. None if it may be used from there.
    pub fn excludes(&self, address: Option<IpAddr>) -> Option<&'static str> {
        let lists = [("realm", &self.realm_allowed), ("key", &self.allowed)];
        lists.into_iter().find_map(|(name, list)| (!list.admits(address)).then_some(name))
    }

    /// Admits a caller again that was admitted earlier. Fails if it would not be now, or may do less than it could then.
    pub fn readmit(&self, caller: &Caller, now: DateTime<Utc>) -> Result<Caller> {
        caller.is_still(self.admit(caller.presented, now)?)
    }

    /// Returns whether one of its secrets is this one, and valid. The time that it takes says nothing of which.
    fn opens(&self, secret: SecretHash, now: DateTime<Utc>) -> bool {
        let is_current = self.secret == secret;
        let is_previous = self.previous.is_some_and(|(hash, ends)| (hash == secret) & (now < ends));
        is_current | is_previous
    }

    /// Returns whether one of its secrets is or was this one.
    pub(super) fn has(&self, secret: SecretHash) -> bool {
        (self.secret == secret) | self.previous.is_some_and(|(hash, _)| hash == secret)
    }
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
    /// The credential that it was admitted by.
    pub(super) presented: Presented,
    /// The token that this was, if it was no key.
    token: Option<Token>,
    scopes: Vec<Scope>,
}

impl Caller {
    /// The caller of a request.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Caller> {
        let caller = request.extensions().get::<Caller>().cloned();
        caller.ok_or_else(|| Error::internal("a request passed by the authentication layer"))
    }

    /// The caller in this realm with a token, which gives this. Its calls are counted as those of a key are, by an id that no key has.
    pub(super) fn by_token(
        granted: &Granted,
        realm: Realm,
        presented: Presented,
        token: Token,
    ) -> Caller {
        Caller {
            realm,
            key_id: granted.party_id,
            principal_id: granted.principal_id,
            api_version: granted.api_version,
            presented,
            token: Some(token),
            scopes: granted.scopes.clone(),
        }
    }

    /// The caller as it would be admitted now by its token, if it was admitted by one: without the database.
    pub(super) fn by_token_again(&self) -> Option<Result<Caller>> {
        let token = self.token.as_ref()?;
        let again = token.granted().and_then(|granted| {
            if granted.org != self.realm.org() || granted.mode != self.realm.mode() {
                return Err(invalid_credentials());
            }
            let realm = self.realm.clone();
            self.is_still(Caller::by_token(&granted, realm, self.presented, token.clone()))
        });
        Some(again)
    }

    /// The caller as it was admitted again. Fails if it may do less than it could before.
    fn is_still(&self, again: Caller) -> Result<Caller> {
        let what = if self.token.is_some() { "token" } else { "key" };
        match self.scopes.iter().find(|scope| !again.may(**scope)) {
            None => Ok(again),
            Some(lost) => Err(Error::new(
                Code::PermissionDenied,
                format!("The {what} has lost the scope `{lost}` since the call began."),
            )
            .with("required_scope", lost)),
        }
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

    /// Fails with `permission_denied` unless the caller's key may give each of these scopes to a key: it has them all, or `admin`. A scope that
    /// this version does not know is for `admin` to give.
    pub fn require_all<'s>(&self, scopes: impl IntoIterator<Item = &'s str>) -> Result<()> {
        let lacks = |name: &&str| {
            !self.is_admin() && !Scope::parse(name).is_some_and(|scope| self.may(scope))
        };
        let lacking: Vec<&str> = scopes.into_iter().filter(lacks).collect();
        let Some(first) = lacking.first() else { return Ok(()) };
        let names = lacking.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let message =
            format!("Nobody gives what they do not have: the caller's key lacks {names}.");
        Err(Error::new(Code::PermissionDenied, message)
            .with("required_scope", first)
            .with_list("lacking_scopes", &lacking))
    }
}

#[cfg(test)]
impl Key {
    /// A key of a realm with these scopes, that does not end.
    pub(crate) fn example(scopes: &[Scope]) -> Key {
        Key {
            id: Uuid::nil(),
            realm: Realm::from_row(1, "acme".to_owned(), crate::db::Mode::Test),
            principal_id: Uuid::nil(),
            secret: Presented::example().secret,
            previous: None,
            scopes: scopes.to_vec(),
            allowed: AllowList::default(),
            realm_allowed: AllowList::default(),
            api_version: ApiVersion::latest(),
            expires_at: None,
            revoked_at: None,
        }
    }
}

#[cfg(test)]
impl Presented {
    /// The credential of [`Key::example`].
    pub(crate) fn example() -> Presented {
        let secret = SecretHash::of_bytes(&[1; 32]).expect("as many bytes as a hash has");
        Presented { secret, address: None }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn code(admitted: Result<Caller>) -> Option<Code> {
        admitted.err().map(|error| error.code())
    }

    #[test]
    fn an_ended_key_admits_nobody() {
        let now = Utc::now();
        let key = Key::example(&[Scope::Admin]);
        assert_eq!(code(key.admit(Presented::example(), now)), None);
        let revoked = Key { revoked_at: Some(now), ..key.clone() };
        let expired = Key { expires_at: Some(now), ..key.clone() };
        let later = Key { expires_at: Some(now + TimeDelta::seconds(1)), ..key };
        assert_eq!(code(revoked.admit(Presented::example(), now)), Some(Code::InvalidCredentials));
        assert_eq!(code(expired.admit(Presented::example(), now)), Some(Code::InvalidCredentials));
        assert_eq!(code(later.admit(Presented::example(), now)), None);
    }

    #[test]
    fn a_key_opens_from_where_it_and_its_realm_allow() {
        let of = |texts: &[&str]| AllowList::new(texts.iter().map(|text| text.parse().unwrap()));
        let listed = Key {
            allowed: of(&["10.0.0.0/8", "192.0.2.0/24"]),
            realm_allowed: of(&["10.1.0.0/16", "198.51.100.0/24"]),
            ..Key::example(&[Scope::Admin])
        };
        let admitted = |address: Option<&str>| {
            let address = address.map(|text| text.parse().unwrap());
            assert_eq!(
                listed.excludes(address).is_some(),
                listed.admit(Presented { address, ..Presented::example() }, Utc::now()).is_err()
            );
            listed.admit(Presented { address, ..Presented::example() }, Utc::now())
        };
        assert!(admitted(Some("10.1.2.3")).is_ok() && admitted(Some("::ffff:10.1.2.3")).is_ok());
        for elsewhere in
            [Some("192.0.2.1"), Some("198.51.100.1"), Some("10.2.0.1"), Some("::1"), None]
        {
            assert_eq!(code(admitted(elsewhere)), Some(Code::AddressNotAllowed), "{elsewhere:?}");
        }
        assert_eq!(listed.excludes(Some([198, 51, 100, 1].into())), Some("key"));
        assert_eq!(listed.excludes(Some([192, 0, 2, 1].into())), Some("realm"));
        let caller = admitted(Some("10.1.2.3")).unwrap();
        let narrowed = Key { realm_allowed: of(&["198.51.100.0/24"]), ..listed.clone() };
        assert_eq!(
            code(narrowed.readmit(&caller, Utc::now())),
            Some(Code::AddressNotAllowed),
            "who was admitted is not any more"
        );
    }

    #[test]
    fn the_secret_before_a_rotation_opens_until_its_end_and_another_never() {
        let now = Utc::now();
        let hash = |byte| SecretHash::of_bytes(&[byte; 32]).unwrap();
        let rotated = Key {
            secret: hash(2),
            previous: Some((hash(1), now + TimeDelta::seconds(1))),
            ..Key::example(&[Scope::Admin])
        };
        let code = |byte, seconds| {
            let presented = Presented { secret: hash(byte), address: None };
            code(rotated.admit(presented, now + TimeDelta::seconds(seconds)))
        };
        assert_eq!((code(2, 0), code(1, 0)), (None, None));
        assert_eq!((code(2, 1), code(1, 1)), (None, Some(Code::InvalidCredentials)));
        assert_eq!(code(3, 0), Some(Code::InvalidCredentials));
    }

    #[test]
    fn a_caller_that_may_do_less_than_before_is_not_admitted_again() {
        let (now, key) = (Utc::now(), Key::example(&[Scope::EntitiesRead, Scope::EventsRead]));
        let caller = key.admit(Presented::example(), now).unwrap();
        let with = |scopes: &[Scope]| code(Key::example(scopes).readmit(&caller, now));
        assert_eq!(with(&[Scope::EventsRead, Scope::EntitiesRead, Scope::KeysRead]), None);
        assert_eq!(with(&[Scope::Admin]), None);
        assert_eq!(with(&[Scope::EntitiesRead]), Some(Code::PermissionDenied));
        let revoked = Key { revoked_at: Some(now), ..key };
        assert_eq!(code(revoked.readmit(&caller, now)), Some(Code::InvalidCredentials));
    }

    #[test]
    fn admin_has_every_scope_and_others_their_own() {
        let caller = |scopes| Key::example(scopes).admit(Presented::example(), Utc::now()).unwrap();
        let (reader, admin) = (caller(&[Scope::EntitiesRead]), caller(&[Scope::Admin]));
        assert!(reader.require(Scope::EntitiesRead).is_ok());
        assert_eq!(
            reader.require(Scope::EntitiesDelete).unwrap_err().code(),
            Code::PermissionDenied
        );
        assert!(Scope::ALL.iter().all(|scope| admin.require(*scope).is_ok()));
    }

    #[test]
    fn a_key_gives_what_it_has_and_admin_gives_all() {
        let caller = |scopes| Key::example(scopes).admit(Presented::example(), Utc::now()).unwrap();
        let manager = caller(&[Scope::KeysWrite, Scope::EntitiesRead]);
        assert!(manager.require_all(["entities:read", "keys:write"]).is_ok());
        let refused =
            manager.require_all(["entities:read", "events:read", "admin", "later"]).unwrap_err();
        assert_eq!(
            (refused.code(), refused.member("required_scope")),
            (Code::PermissionDenied, Some("events:read"))
        );
        assert!(refused.message().contains("`events:read`, `admin`, `later`"));
        assert!(caller(&[Scope::Admin]).require_all(["events:read", "admin", "later"]).is_ok());
        assert!(manager.require_all(["later"]).is_err());
    }
}
