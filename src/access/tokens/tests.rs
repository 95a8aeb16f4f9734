//! Tokens by issuers of a file, without a service: what is told of the file, and what is made of tokens.

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
use crate::limits::tokens::{CACHED_TOKENS_AT_MOST, ISSUERS_AT_MOST};

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

/// What is told of a file.
fn faults(text: &str) -> Vec<String> {
    let issuing = Issuing::new(text);
    let (_, loaded) = file::load(&issuing.options().file, issuing.options().ages(), &[]);
    let told = loaded.err().map(|faults| faults.as_slice().to_vec()).unwrap_or_default();
    told.iter().map(|fault| fault.description.clone()).collect()
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

#[test]
fn what_is_remembered_of_tokens_has_a_bound() {
    let issuing = Issuing::new(&format!("{PLAIN}{CLAIMED}"));
    let tokens = issuing.tokens();
    let token = |n: usize| issuing.sign(&with("sub", json!(format!("{n}"))));
    for n in 0..CACHED_TOKENS_AT_MOST + 5 {
        assert!(tokens.granted(&token(n)).is_ok());
    }
    assert_eq!(tokens.remembers(), CACHED_TOKENS_AT_MOST);
    // Those of before are worth nothing any more.
    tokens.has_changed();
    assert!(tokens.granted(&token(CACHED_TOKENS_AT_MOST + 9)).is_ok());
    assert_eq!(tokens.remembers(), 1);
}

#[test]
fn a_file_that_is_whole_has_no_fault() {
    assert_eq!(faults(&format!("{PLAIN}{CLAIMED}")), Vec::<String>::new());
    let crt = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kit/tls/localhost.crt");
    let all = format!(
        r#"
[[issuer]]
issuer = "https://one.example.com"
audience = ["offboard", "https://api.example.com"]
jwks_url = "https://one.example.com/keys?v=1"
jwks_ca_file = "{crt}"
algorithms = ["RS256", "ES256", "EdDSA"]
leeway = 0
type = "at+jwt"
org = "acme"
mode = "live"
principal = "0190a1b2-0000-7000-8000-000000000001"
scopes = "admin"
api_version = "2026-11-01"
make_realms = false

[[issuer]]
issuer = "two"
audience = "offboard"
jwks_url = "http://127.0.0.1:8000/keys"
insecure_http = true
algorithms = "RS256"
org = {{ claim = "org" }}
mode = {{ claim = "mode" }}
roles = {{ claim = "roles", scopes = {{ clerk = ["entities:read"], "the boss" = "admin" }} }}
"#
    );
    assert_eq!(faults(&all), Vec::<String>::new());
}

#[test]
fn every_fault_of_a_file_is_told_with_its_line() {
    let file = r#"top = 1
[[issuer]]
issuer = ""
audience = []
jwks_url = "ftp://x/"
jwks_file = "keys.json"
algorithms = ["RS256", "HS256", "none"]
leeway = 301
org = "a/b"
mode = "prod"
scopes = ["entities:raed", "all"]
api_version = "2020-01-01"
make_realms = "yes"
typ = "JWT"

[[issuer]]
issuer = "two"
jwks_url = "http://x.example.com/"
principal = { claims = "sub" }
org = { claim = "/a~2" }
roles = { claim = 7, scopes = [] }
"#;
    let scopes = "must be scopes, and";
    let told = faults(file);
    let expected = [
        "line 1: unknown member `top`",
        "line 3: `issuer[0].issuer` must be a string, and not empty",
        "line 4: `issuer[0].audience` must be a string or an array of strings, and not empty",
        "line 5: `issuer[0].jwks_url` or `jwks_file` must be given, and not both",
        "line 7: `issuer[0].algorithms` must be of `RS256`, `ES256`, `EdDSA`, and \"HS256\" is not",
        "line 7: `issuer[0].algorithms` must be of `RS256`, `ES256`, `EdDSA`, and \"none\" is not",
        "line 8: `issuer[0].leeway` must be a whole number from 0 to 300",
        "line 9: `issuer[0].org` must be 1 to 128 characters from A-Z a-z 0-9 . _ ~ -",
        "line 10: `issuer[0].mode` must be `test` or `live`",
        &format!("line 11: `issuer[0].scopes` {scopes} \"all\" is none"),
        &format!(
            "line 11: `issuer[0].scopes` {scopes} \"entities:raed\" is none; did you mean `entities:read`?"
        ),
        "line 12: `issuer[0].api_version` must be a version of the API",
        "line 13: `issuer[0].make_realms` must be `true` or `false`",
        "line 14: unknown member `issuer[0].typ`; did you mean `type`?",
        "line 16: `issuer[1].algorithms` must be given: an array of how the issuer signs",
        "line 16: `issuer[1].audience` must be given: a string or an array of strings",
        "line 16: `issuer[1].mode` must be given: a string, or `{ claim = \"…\" }`",
        "line 18: `issuer[1].jwks_url` must begin with https: whoever can change a response on the way makes tokens; `insecure_http = true` takes it nevertheless",
        "line 19: `issuer[1].principal.claim` must be given: a string",
        "line 19: unknown member `issuer[1].principal.claims`; did you mean `claim`?",
        "line 20: `issuer[1].org.claim` must be a JSON pointer where it begins with a slash: `~` is spelt `~0`",
        "line 21: `issuer[1].roles.claim` must be a string, and not empty",
        "line 21: `issuer[1].roles.scopes` must be a table",
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_file_is_refused_that_is_no_toml_or_has_no_issuer_or_too_many_or_one_twice() {
    let told = faults("[[issuer]\nissuer = \n= 7\n");
    assert!(told.len() > 1 && told.iter().all(|fault| fault.starts_with("line ")), "{told:?}");
    for empty in ["", "issuer = 7", "issuer = []", "# [[issuer]]"] {
        let told = faults(empty);
        assert_eq!(
            told,
            ["line 1: `issuer` must be given: a table `[[issuer]]` for each"],
            "{empty}"
        );
    }
    let twice = faults(&format!("{PLAIN}{CLAIMED}{PLAIN}{CLAIMED}"));
    assert_eq!(
        twice,
        [format!("line 13: `issuer[1].issuer` names {ISSUER:?}, which another issuer is named")]
    );
    let many = PLAIN.repeat(ISSUERS_AT_MOST + 1);
    assert_eq!(faults(&many), ["line 1: has 65 issuers, of 64 at most"]);
    let long = format!("#{}", "x".repeat(256 << 10));
    assert_eq!(faults(&long), ["has more than 262144 bytes"]);
}

#[test]
fn the_files_that_a_file_names_are_read_and_watched_too() {
    let issuing = Issuing::new(&format!("{PLAIN}{CLAIMED}"));
    let keys = issuing.folder.path().join("keys.json");
    let load = || file::load(&issuing.options().file, issuing.options().ages(), &[]);
    let (seen, loaded) = load();
    assert!(loaded.is_ok() && seen.is_current());
    for (text, fault) in [
        ("<html>", "`issuer[0].jwks_file` is not valid JSON"),
        (
            r#"{"keys":[{"kid":"k","kty":"oct","k":"AAAA"}]}"#,
            "`issuer[0].jwks_file` has no key that can be used: \"k\" is not a public key",
        ),
    ] {
        std::fs::write(&keys, text).unwrap();
        let (broken, loaded) = load();
        let told = loaded.err().unwrap().as_slice()[0].description.clone();
        assert!(told.starts_with(&format!("line 5: {fault}")), "{told}");
        assert!(!seen.is_current() && broken.is_current());
    }
    std::fs::remove_file(&keys).unwrap();
    let told = load().1.err().unwrap().as_slice()[0].description.clone();
    assert!(told.starts_with("line 5: `issuer[0].jwks_file` cannot be read"), "{told}");
    let (gone, _) =
        file::load(&issuing.folder.path().join("none.toml"), issuing.options().ages(), &[]);
    assert!(gone.is_current());
}

#[test]
fn keys_that_were_fetched_are_kept_where_their_address_is_the_same() {
    let of = |path: &str, more: &str| {
        let crt = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kit/tls/localhost.crt");
        let keys =
            format!("jwks_url = \"https://login.example.com/{path}\"\njwks_ca_file = \"{crt}\"");
        format!("{}{CLAIMED}{more}", PLAIN.replace("jwks_file = \"keys.json\"", &keys))
    };
    let issuing = Issuing::new(&of("keys", ""));
    let load = |before: &[_]| {
        file::load(&issuing.options().file, issuing.options().ages(), before).1.unwrap()
    };
    let before = load(&[]);
    let again = |text: &str| {
        std::fs::write(&issuing.options().file, text).unwrap();
        std::sync::Arc::ptr_eq(&before[0].keys, &load(&before)[0].keys)
    };
    assert!(again(&of("keys", "leeway = 5")));
    assert!(!again(&of("others", "")));
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

    /// No file of issuers breaks what reads it.
    #[test]
    fn no_file_breaks_its_reader(text in "(\\[\\[?issuer\\]?\\]\n|(issuer|org|roles|scopes|mode|jwks_url) = [\\[{\"a-z0-9 =\\]},]{0,20}\n){0,6}") {
        faults(&text);
    }
}
