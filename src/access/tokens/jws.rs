//! A token as it is written: a signed JWT in the compact form (RFC 7515, section 3.1; RFC 7519). Pure; nothing here says that it is genuine.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::access::tokens::jwks::Algorithm;
use crate::access::tokens::report::{Fault, Reason};
use crate::access::tokens::strict;

/// The types of tokens that are taken where an issuer names none; also no type at all is. Others are made for other purposes, and are not to be
/// mistaken (RFC 8725, section 3.11).
const TYPES: &[&str] = &["jwt", "at+jwt"];

/// A token that is taken apart.
#[derive(Debug)]
pub struct Jws<'t> {
    /// How it says to be signed.
    pub algorithm: Algorithm,
    /// The id of the key that it says to be signed with.
    pub key_id: String,
    /// Its type, in lower case and without `application/`.
    pub kind: Option<String>,
    /// Its claims.
    pub claims: Map<String, Value>,
    /// The bytes that are signed.
    pub signed: &'t [u8],
    /// The signature.
    pub signature: Vec<u8>,
}

impl<'t> Jws<'t> {
    /// Takes a token apart, or says all that keeps it from that.
    pub fn parse(token: &'t str) -> Result<Jws<'t>, Vec<Fault>> {
        let parts: Vec<&str> = token.splitn(6, '.').collect();
        let [header, claims, signature] = parts[..] else {
            let text = match parts.len() {
                5 => "is encrypted; signed tokens alone are taken".to_owned(),
                _ => "must have three parts with points between them".to_owned(),
            };
            return Err(vec![Fault::new(Reason::Malformed, "token", text)]);
        };
        let mut faults = Vec::new();
        let mut refuse =
            |at: &str, text: String| faults.push(Fault::new(Reason::Malformed, at, text));
        let header = part(header).and_then(|bytes| strict::object(&bytes));
        let claims = part(claims).and_then(|bytes| strict::object(&bytes));
        let signature = part(signature);
        let header = header.map_err(|text| refuse("header", text)).ok();
        let claims = claims.map_err(|text| refuse("claims", text)).ok();
        let signature = match signature {
            Ok(bytes) if bytes.is_empty() => {
                refuse("signature", "is empty".to_owned());
                None
            }
            decoded => decoded.map_err(|text| refuse("signature", text)).ok(),
        };
        let head = header.and_then(|header| Head::read(&header, &mut faults));
        match (head, claims, signature) {
            (Some(Head { algorithm, key_id, kind }), Some(claims), Some(signature)) => {
                let signed = &token.as_bytes()[..token.rfind('.').unwrap_or(0)];
                Ok(Jws { algorithm, key_id, kind, claims, signed, signature })
            }
            _ => Err(faults),
        }
    }

    /// Returns whether the token is of a type that may be taken: of this one, or where it is none of the usual ones.
    pub fn is_of(&self, kind: Option<&str>) -> bool {
        match (kind, self.kind.as_deref()) {
            (Some(wanted), Some(kind)) => wanted == kind,
            (Some(_), None) => false,
            (None, kind) => kind.is_none_or(|kind| TYPES.contains(&kind)),
        }
    }
}

/// The type of a token as it is compared (RFC 7515, section 4.1.9).
pub fn kind_of(text: &str) -> String {
    let text = text.to_ascii_lowercase();
    text.strip_prefix("application/").map(str::to_owned).unwrap_or(text)
}

/// Base64url without padding, of which every text has one spelling.
fn part(text: &str) -> Result<Vec<u8>, String> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| "is not base64url without padding".to_owned())
}

struct Head {
    algorithm: Algorithm,
    key_id: String,
    kind: Option<String>,
}

impl Head {
    /// Reads what is used of a header. Keys and addresses of keys in it (`jwk`, `jku`, `x5c`, `x5u`) are not looked at: a token does not say by
    /// what it is checked. Extensions that must be understood are not.
    fn read(header: &Map<String, Value>, faults: &mut Vec<Fault>) -> Option<Head> {
        let before = faults.len();
        let mut refuse =
            |reason: Reason, at: &str, text: String| faults.push(Fault::new(reason, at, text));
        if header.contains_key("crit") {
            refuse(
                Reason::Extension,
                "header.crit",
                "names extensions, and none is supported".to_owned(),
            );
        }
        if header.contains_key("b64") {
            refuse(Reason::Extension, "header.b64", "is not supported".to_owned());
        }
        let algorithm = match header.get("alg") {
            Some(Value::String(name)) => {
                let found = Algorithm::parse(name);
                if found.is_none() {
                    let names = Algorithm::ALL.map(|known| format!("`{known}`")).join(", ");
                    refuse(
                        Reason::Algorithm,
                        "header.alg",
                        format!("must be one of {names}, and is {name:?}"),
                    );
                }
                found
            }
            _ => {
                refuse(Reason::Algorithm, "header.alg", "must be a string".to_owned());
                None
            }
        };
        let key_id = match header.get("kid") {
            Some(Value::String(id)) if !id.is_empty() => Some(id.clone()),
            _ => {
                refuse(
                    Reason::Key,
                    "header.kid",
                    "must be a string, the id of a key of the issuer".to_owned(),
                );
                None
            }
        };
        let kind = match header.get("typ") {
            None => None,
            Some(Value::String(kind)) => Some(kind_of(kind)),
            Some(_) => {
                refuse(Reason::Type, "header.typ", "must be a string".to_owned());
                None
            }
        };
        (faults.len() == before).then_some(())?;
        Some(Head { algorithm: algorithm?, key_id: key_id?, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, claims: &str, signature: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", part(header), part(claims), part(signature))
    }

    fn faults(token: &str) -> Vec<String> {
        let reported = |fault: &Fault| format!("{} {}", fault.at, fault.text);
        Jws::parse(token).err().unwrap_or_default().iter().map(reported).collect()
    }

    const HEADER: &str = r#"{"alg":"ES256","kid":"k","typ":"JWT"}"#;

    #[test]
    fn a_token_is_taken_apart_and_what_is_signed_is_all_before_the_signature() {
        let text = token(HEADER, r#"{"sub":"x"}"#, "signature");
        let jws = Jws::parse(&text).unwrap();
        assert_eq!((jws.algorithm, jws.key_id.as_str()), (Algorithm::Es256, "k"));
        assert_eq!(
            (jws.kind.as_deref(), jws.signature.as_slice()),
            (Some("jwt"), &b"signature"[..])
        );
        assert_eq!(jws.claims["sub"], "x");
        assert_eq!(jws.signed, &text.as_bytes()[..text.rfind('.').unwrap()]);
    }

    #[test]
    fn a_token_of_another_form_is_refused() {
        for text in ["", "a", "a.b", "a.b.c.d", ".", "a.b.c.d.e.f.g.h", &".".repeat(9_000)] {
            assert_eq!(faults(text), ["token must have three parts with points between them"]);
        }
        assert_eq!(faults("a.b.c.d.e"), ["token is encrypted; signed tokens alone are taken"]);
        let good = token(HEADER, "{}", "s");
        for spoilt in
            [good.replace('.', "=."), format!("{good}="), format!(" {good}"), format!("{good}\n")]
        {
            assert!(!faults(&spoilt).is_empty(), "{spoilt:?}");
        }
        // A base64 text whose last bits are not zero would be another spelling of the same token.
        assert_eq!(
            faults(&format!("{}.e30.c3", good.split('.').next().unwrap())),
            ["signature is not base64url without padding"]
        );
        assert_eq!(faults(&token(HEADER, "{}", "")), ["signature is empty"]);
        assert_eq!(
            faults(&token("{", "[]", "s")),
            ["header is not valid JSON", "claims is not a JSON object"]
        );
    }

    #[test]
    fn every_fault_of_a_header_is_told() {
        let header = r#"{"alg":"none","typ":7,"crit":["exp"],"b64":false}"#;
        let told = faults(&token(header, "{}", ""));
        assert_eq!(
            told,
            [
                "signature is empty",
                "header.crit names extensions, and none is supported",
                "header.b64 is not supported",
                "header.alg must be one of `RS256`, `ES256`, `EdDSA`, and is \"none\"",
                "header.kid must be a string, the id of a key of the issuer",
                "header.typ must be a string",
            ]
        );
        for name in
            ["none", "None", "NONE", "HS256", "HS512", "RS512", "PS256", "ES384", "es256", ""]
        {
            let told = faults(&token(&format!(r#"{{"alg":"{name}","kid":"k"}}"#), "{}", "s"));
            assert!(told.len() == 1 && told[0].starts_with("header.alg"), "{name}: {told:?}");
        }
        for kid in ["null", "7", "[\"k\"]", "\"\""] {
            let told = faults(&token(&format!(r#"{{"alg":"ES256","kid":{kid}}}"#), "{}", "s"));
            assert!(told.len() == 1 && told[0].starts_with("header.kid"), "{kid}: {told:?}");
        }
        assert_eq!(
            faults(&token(r#"{"alg":"ES256","kid":"k","alg":"none"}"#, "{}", "s")),
            ["header has the member \"alg\" twice"]
        );
    }

    #[test]
    fn a_type_for_another_purpose_is_no_access_token() {
        let is_of = |header: &str, kind: Option<&str>| {
            Jws::parse(&token(header, "{}", "s")).unwrap().is_of(kind)
        };
        let typed = |kind: &str| format!(r#"{{"alg":"EdDSA","kid":"k","typ":"{kind}"}}"#);
        let untyped = r#"{"alg":"EdDSA","kid":"k"}"#;
        assert!(is_of(untyped, None) && !is_of(untyped, Some("at+jwt")));
        for usual in ["JWT", "jwt", "at+jwt", "application/AT+JWT"] {
            assert!(is_of(&typed(usual), None), "{usual}");
        }
        assert!(is_of(&typed("application/AT+JWT"), Some("at+jwt")));
        assert!(!is_of(&typed("JWT"), Some("at+jwt")));
        for other in ["dpop+jwt", "logout+jwt", "secevent+jwt", ""] {
            assert!(!is_of(&typed(other), None), "{other}");
        }
    }
}
