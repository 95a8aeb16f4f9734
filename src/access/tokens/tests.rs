//! Tokens by issuers of a file, without a service: what is made of them.

mod files;

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Utc;
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use uuid::Uuid;

use super::file;
use super::report::Reason;
use super::store::{Options, Tokens};
use crate::db::Mode;
use crate::limits::tokens::CACHED_TOKENS_AT_MOST;

/// The file of one issuer, and the key that it signs with.
struct Issuing {
    folder: tempfile::TempDir,
    pair: Ed25519KeyPair,
}

const ISSUER: &str = "https://login.example.com/";

/// An issuer without what says who calls.
const PLAIN: &str = r#"
[[issuer]]
issuer = "https://login.example.com/"
audience = "offboard"
jwks_file = "keys.json"
algorithms = ["EdDSA"]
"#;

/// What says who calls, all by claims.
const CLAIMED: &str = r#"
org = { claim = "org" }
mode = { claim = "mode" }
scopes = { claim = "scope" }
"#;

impl Issuing {
    fn new(file: &str) -> Issuing {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x}]});
        std::fs::write(folder.path().join("keys.json"), keys.to_string()).unwrap();
        std::fs::write(folder.path().join("auth.toml"), file).unwrap();
        Issuing { folder, pair }
    }

    fn options(&self) -> Options {
        options(&self.folder.path().join("auth.toml"))
    }

    fn tokens(&self) -> Tokens {
        Tokens::load(self.options()).unwrap().0
    }

    fn sign(&self, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({"alg": "EdDSA", "kid": "k"})), part(claims));
        let signature = self.pair.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

fn options(file: &Path) -> Options {
    Options {
        file: file.to_owned(),
        token_bytes: 8192,
        refresh: Duration::from_secs(300),
        refetch: Duration::from_secs(10),
        outage: Duration::from_secs(3600),
    }
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "offboard", "exp": Utc::now().timestamp() + 60, "sub": "user|7",
           "org": "acme", "mode": "live", "scope": "entities:read openid events:read"})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

/// The reasons for which a token is refused.
fn reasons(issuing: &Issuing, token: &str) -> Vec<Reason> {
    let refused = issuing.tokens().granted(token).err();
    refused
        .map(|refused| refused.0.faults.iter().map(|fault| fault.reason).collect())
        .unwrap_or_default()
}

#[test]
fn a_token_says_who_calls_for_whom_and_what_they_may() {
    let issuing = Issuing::new(&format!("{PLAIN}{CLAIMED}"));
    let granted =
        issuing.tokens().granted(&issuing.sign(&claims())).map_err(|refused| refused.0).unwrap();
    assert_eq!((granted.org.as_str(), granted.mode), ("acme", Mode::Live));
    let scopes: Vec<_> = granted.scopes.iter().map(|scope| scope.as_str()).collect();
    assert_eq!(scopes, ["entities:read", "events:read"], "what is no scope gives nothing");
    // As anybody can compute it: uuid5(uuid5(NAMESPACE_URL, issuer), subject).
    let issuer = Uuid::new_v5(&Uuid::NAMESPACE_URL, ISSUER.as_bytes());
    assert_eq!(granted.principal_id, Uuid::new_v5(&issuer, b"user|7"));
    assert_ne!(granted.party_id, granted.principal_id);
}

#[test]
fn a_subject_that_is_a_uuid_is_the_principal_and_its_calls_are_counted_by_another_id() {
    let issuing = Issuing::new(&format!("{PLAIN}{CLAIMED}"));
    let subject = "0190A1B2-0000-7000-8000-000000000001";
    let granted = |claims: &Value| issuing.tokens().granted(&issuing.sign(claims)).ok().unwrap();
    let one = granted(&with("sub", json!(subject)));
    assert_eq!(one.principal_id, Uuid::parse_str(subject).unwrap());
    assert_eq!(one.party_id.get_version_num(), 5, "no key has such an id");
    let mut elsewhere = with("sub", json!(subject));
    elsewhere["org"] = json!("globex");
    assert_ne!(granted(&elsewhere).party_id, one.party_id);
    // Other spellings of a UUID are names as any.
    let bare = granted(&with("sub", json!(subject.replace('-', ""))));
    assert_eq!(bare.principal_id.get_version_num(), 5);
}

#[test]
fn each_claim_that_is_wrong_is_told_and_all_together_too() {
    let issuing = Issuing::new(&format!("{PLAIN}{CLAIMED}"));
    let now = Utc::now().timestamp();
    let cases = [
        ("iss", Value::Null, Reason::Issuer),
        ("iss", json!("https://login.example.com"), Reason::Issuer),
        ("iss", json!([ISSUER]), Reason::Issuer),
        ("aud", Value::Null, Reason::Audience),
        ("aud", json!("Offboard"), Reason::Audience),
        ("aud", json!(["other"]), Reason::Audience),
        ("aud", json!(["offboard", 7]), Reason::Audience),
        ("aud", json!({"offboard": true}), Reason::Audience),
        ("exp", Value::Null, Reason::Expired),
        ("exp", json!(now - 31), Reason::Expired),
        ("exp", json!("9999999999"), Reason::Expired),
        ("exp", json!(1e300), Reason::Expired),
        ("exp", json!(-1), Reason::Expired),
        ("nbf", json!(now + 60), Reason::NotYet),
        ("nbf", json!("x"), Reason::NotYet),
        ("iat", json!(now + 60), Reason::NotYet),
        ("sub", Value::Null, Reason::Claims),
        ("sub", json!(""), Reason::Claims),
        ("sub", json!(7), Reason::Claims),
        ("org", Value::Null, Reason::Claims),
        ("org", json!("a/b"), Reason::Claims),
        ("org", json!(".."), Reason::Claims),
        ("org", json!(["acme"]), Reason::Claims),
        ("mode", json!("LIVE"), Reason::Claims),
        ("scope", json!({"entities:read": true}), Reason::Claims),
        ("scope", json!(["entities:read", 7]), Reason::Claims),
    ];
    for (name, value, reason) in cases {
        let token = issuing.sign(&with(name, value.clone()));
        assert_eq!(reasons(&issuing, &token), [reason], "{name}: {value}");
    }
    let wrong = json!({"iss": ISSUER, "aud": 1, "exp": 1, "nbf": now + 999, "mode": 1, "scope": 1});
    let told = reasons(&issuing, &issuing.sign(&wrong));
    use Reason::{Audience, Claims, Expired, NotYet};
    assert_eq!(told, [Audience, Expired, NotYet, Claims, Claims, Claims, Claims]);
    for good in [
        with("aud", json!(["x", "offboard"])),
        with("exp", json!(now - 15)),
        with("nbf", json!(now + 15)),
        with("exp", json!(now as f64 + 0.5)),
    ] {
        assert_eq!(reasons(&issuing, &issuing.sign(&good)), [], "{good}");
    }
}

#[test]
fn roles_give_scopes_and_claims_are_found_by_pointers() {
    let file = format!(
        r#"{PLAIN}
org = {{ claim = "https://example.com/org" }}
mode = "test"
principal = {{ claim = "/user/id" }}
scopes = ["events:read"]
[issuer.roles]
claim = "/realm~1access/0/roles"
[issuer.roles.scopes]
offboard-admin = ["admin"]
clerk = ["entities:read", "entities:offboard"]
"#
    );
    let issuing = Issuing::new(&file);
    let claims = |roles: Value| {
        json!({"iss": ISSUER, "aud": "offboard", "exp": Utc::now().timestamp() + 60, "sub": "x", "https://example.com/org": "acme",
               "user": {"id": "u7"}, "realm/access": [{"roles": roles}]})
    };
    let granted = |roles| {
        let token = issuing.sign(&claims(roles));
        let granted = issuing.tokens().granted(&token).map_err(|refused| refused.0).unwrap();
        granted.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(
        granted(json!(["clerk", "clerk", "other"])),
        ["entities:read", "entities:offboard", "events:read"]
    );
    assert_eq!(granted(json!("offboard-admin")), ["events:read", "admin"]);
    assert_eq!(
        granted(json!(["admin"])),
        ["events:read"],
        "a role is no scope, whatever it is named"
    );
    assert_eq!(granted(Value::Null), ["events:read"]);
}

#[test]
fn a_token_that_was_checked_is_checked_again_once_its_issuer_is_another() {
    let issuing = Issuing::new(&format!("{PLAIN}{CLAIMED}"));
    let (tokens, token) = (issuing.tokens(), issuing.sign(&claims()));
    let first = tokens.granted(&token).ok().unwrap();
    let again = tokens.granted(&token).ok().unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &again), "it was remembered");
    assert!(tokens.granted_before(&token).is_some());
    assert!(tokens.granted_before(&issuing.sign(&with("sub", json!("other")))).is_none());
    let other = Issuing::new(&format!("{PLAIN}{CLAIMED}"));
    let (_, loaded) = file::load(&other.options().file, other.options().ages(), &[]);
    tokens.replace(loaded.ok().unwrap());
    assert!(tokens.granted_before(&token).is_none());
    let refused = tokens.granted(&token).unwrap_err();
    assert!(refused.0.is_only(&[Reason::Signature]));
}

#[tokio::test]
async fn what_is_remembered_of_tokens_has_a_bound() {
    let issuing = Issuing::new(&format!("{PLAIN}{CLAIMED}"));
    let tokens = issuing.tokens();
    let token = |n: usize| issuing.sign(&with("sub", json!(format!("{n}"))));
    for n in 0..CACHED_TOKENS_AT_MOST + 5 {
        assert!(tokens.granted(&token(n)).is_ok());
    }
    assert_eq!(tokens.remembers(), CACHED_TOKENS_AT_MOST);
    // Those of before are worth nothing any more, which is noticed once a second.
    tokens.has_changed();
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    assert!(tokens.granted(&token(CACHED_TOKENS_AT_MOST + 9)).is_ok());
    assert_eq!(tokens.remembers(), 1);
}

proptest! {
    /// Nothing that a caller sends breaks what reads it, and nothing that is not signed is taken.
    #[test]
    fn no_text_is_a_token(text in "[A-Za-z0-9_.=-]{0,200}|\\PC{0,60}(\\.\\PC{0,60}){0,4}") {
        let issuing = Issuing::new(&format!("{PLAIN}{CLAIMED}"));
        prop_assert!(!reasons(&issuing, &text).is_empty());
    }

    /// One bit of a token that is another makes it none, wherever it is.
    #[test]
    fn a_token_that_was_changed_is_none(at in any::<prop::sample::Index>(), letter in "[A-Za-z0-9_.-]") {
        let issuing = Issuing::new(&format!("{PLAIN}{CLAIMED}"));
        let token = issuing.sign(&claims());
        let at = at.index(token.len());
        prop_assume!(!token[at..].starts_with(&letter));
        let changed = format!("{}{letter}{}", &token[..at], &token[at + 1..]);
        prop_assert!(!reasons(&issuing, &changed).is_empty(), "{changed}");
    }
}
