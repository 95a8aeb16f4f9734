//! What is told of a file of issuers.

use proptest::prelude::*;

use super::{CLAIMED, ISSUER, Issuing, PLAIN};
use crate::access::tokens::file;
use crate::limits::tokens::ISSUERS_AT_MOST;

/// What is told of a file.
fn faults(text: &str) -> Vec<String> {
    let issuing = Issuing::new(text);
    let (_, loaded) = file::load(&issuing.options().file, issuing.options().ages(), &[]);
    let told = loaded.err().map(|faults| faults.as_slice().to_vec()).unwrap_or_default();
    told.iter().map(|fault| fault.description.clone()).collect()
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
        "line 9: `issuer[0].org` must be 1 to 128 characters from A-Z a-z 0-9 . _ ~ -, and not `.` or `..`",
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
    /// No file of issuers breaks what reads it.
    #[test]
    fn no_file_breaks_its_reader(text in "(\\[\\[?issuer\\]?\\]\n|(issuer|org|roles|scopes|mode|jwks_url) = [\\[{\"a-z0-9 =\\]},]{0,20}\n){0,6}") {
        faults(&text);
    }
}
