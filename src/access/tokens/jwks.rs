//! The keys that an issuer signs with (RFC 7517, RFC 7518, RFC 8037), and how a signature is checked by one. Pure.

use std::collections::HashMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde_json::{Map, Value};

use crate::access::tokens::strict;
use crate::limits::tokens::{JWKS_KEYS, JWKS_KEYS_AT_MOST};

/// How a token may be signed: by a private key alone, so that whoever can check a token can make none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Algorithm; 3] = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];

    /// The algorithm of this name, which is spelt exactly so.
    pub fn parse(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|known| known.as_str() == name)
    }

    /// Its name (RFC 7518, section 3.1; RFC 8037, section 3.1).
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
            Algorithm::EdDsa => "EdDSA",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The smallest and the largest modulus of an RSA key, in bits: what a caller without a key makes us compute has a bound.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
/// The most bytes of an RSA key's public exponent: 65537 and what is smaller.
const RSA_EXPONENT_BYTES: usize = 4;

/// A public key, and by that the one algorithm that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PublicKey {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl PublicKey {
    fn algorithm(&self) -> Algorithm {
        match self {
            PublicKey::Rsa { .. } => Algorithm::Rs256,
            PublicKey::P256(_) => Algorithm::Es256,
            PublicKey::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    fn has_signed(&self, signed: &[u8], signature: &[u8]) -> bool {
        match self {
            PublicKey::Rsa { modulus, exponent } => {
                RsaPublicKeyComponents { n: modulus, e: exponent }
                    .verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature)
                    .is_ok()
            }
            PublicKey::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                .verify(signed, signature)
                .is_ok(),
            PublicKey::Ed25519(key) => {
                UnparsedPublicKey::new(&ED25519, key).verify(signed, signature).is_ok()
            }
        }
    }
}

/// The keys of an issuer that tokens may be signed with, by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet {
    keys: HashMap<String, Vec<PublicKey>>,
    /// Keys that are there and cannot be used, and why.
    pub passed_over: Vec<String>,
}

/// How a key set answers for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is signed with a key of the set.
    Genuine,
    /// It is not signed with the key that it names.
    Forged,
    /// The key that it names is for another algorithm.
    OtherAlgorithm(Algorithm),
    /// There is no key of that name.
    NoKey,
}

impl KeySet {
    /// The keys of a JSON Web Key Set. Keys for other uses and of other kinds are passed over, as the RFC has it; a set of which one cannot tell what a
    /// name means is refused.
    pub fn parse(text: &[u8]) -> Result<KeySet, String> {
        let set = strict::object(text)?;
        let Some(Value::Array(keys)) = set.get("keys") else {
            return Err("is not a JSON Web Key Set: it has no array `keys`".to_owned());
        };
        if keys.len() > JWKS_KEYS_AT_MOST {
            JWKS_KEYS.reached();
            return Err(format!("has {} keys, of {JWKS_KEYS_AT_MOST} at most", keys.len()));
        }
        let mut found = KeySet::default();
        for (place, key) in keys.iter().enumerate() {
            let Value::Object(key) = key else {
                return Err(format!("has a key that is not an object: keys[{place}]"));
            };
            let name = match key.get("kid") {
                Some(Value::String(name)) if !name.is_empty() => name,
                _ => {
                    found.passed_over.push(format!("keys[{place}] has no `kid`"));
                    continue;
                }
            };
            match read(key) {
                Ok(key) => {
                    let named = found.keys.entry(name.clone()).or_default();
                    if named.iter().any(|other| other.algorithm() == key.algorithm()) {
                        return Err(format!("has two keys for {} named {name:?}", key.algorithm()));
                    }
                    named.push(key);
                }
                Err(reason) => found.passed_over.push(format!("{name:?} {reason}")),
            }
        }
        Ok(found)
    }

    /// How many keys can be used.
    pub fn len(&self) -> usize {
        self.keys.values().map(Vec::len).sum()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns whether these bytes are signed with the key of this name, by this algorithm.
    pub fn check(
        &self,
        key_id: &str,
        algorithm: Algorithm,
        signed: &[u8],
        signature: &[u8],
    ) -> Verdict {
        let Some(named) = self.keys.get(key_id) else { return Verdict::NoKey };
        match named.iter().find(|key| key.algorithm() == algorithm) {
            Some(key) if key.has_signed(signed, signature) => Verdict::Genuine,
            Some(_) => Verdict::Forged,
            None => {
                named.first().map_or(Verdict::NoKey, |key| Verdict::OtherAlgorithm(key.algorithm()))
            }
        }
    }
}

/// A key that signatures can be checked by, or why it is none.
fn read(key: &Map<String, Value>) -> Result<PublicKey, String> {
    let text = |name: &str| match key.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(format!("has a `{name}` that is not a string")),
    };
    let bytes = |name: &str| {
        let encoded = text(name)?.ok_or_else(|| format!("has no `{name}`"))?;
        URL_SAFE_NO_PAD
            .decode(encoded)
            .map_err(|_| format!("has a `{name}` that is not base64url without padding"))
    };
    if ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|name| key.contains_key(*name)) {
        return Err("is not a public key: whoever has read it could sign with it".to_owned());
    }
    if text("use")?.is_some_and(|purpose| purpose != "sig") {
        return Err("is not for signatures by its `use`".to_owned());
    }
    match key.get("key_ops") {
        None => {}
        Some(Value::Array(operations)) if operations.iter().any(|one| one == "verify") => {}
        Some(_) => return Err("is not for checking signatures by its `key_ops`".to_owned()),
    }
    let public = match (text("kty")?.unwrap_or_default(), text("crv")?.unwrap_or_default()) {
        ("RSA", "") => {
            let (modulus, exponent) = (bytes("n")?, bytes("e")?);
            rsa(modulus, exponent)?
        }
        ("EC", "P-256") => {
            let (x, y) = (bytes("x")?, bytes("y")?);
            if x.len() != 32 || y.len() != 32 {
                return Err("has coordinates that are not of 32 bytes".to_owned());
            }
            PublicKey::P256([&[4], x.as_slice(), y.as_slice()].concat())
        }
        ("OKP", "Ed25519") => {
            let x = bytes("x")?;
            if x.len() != 32 {
                return Err("has an `x` that is not of 32 bytes".to_owned());
            }
            PublicKey::Ed25519(x)
        }
        (kind, "") => return Err(format!("is of a kind that is not used: {kind:?}")),
        (kind, curve) => return Err(format!("is of a kind that is not used: {kind:?} {curve:?}")),
    };
    let algorithm = public.algorithm();
    match text("alg")? {
        Some(named) if named != algorithm.as_str() => {
            Err(format!("is for {named:?}, and could be for {algorithm} alone"))
        }
        _ => Ok(public),
    }
}

fn rsa(modulus: Vec<u8>, exponent: Vec<u8>) -> Result<PublicKey, String> {
    if modulus.first() == Some(&0) || exponent.first() == Some(&0) {
        return Err("has a number that begins with a zero byte".to_owned());
    }
    let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits) {
        return Err(format!(
            "has {bits} bits, and must have {} to {}",
            RSA_BITS.start(),
            RSA_BITS.end()
        ));
    }
    let is_odd = exponent.last().is_some_and(|byte| byte % 2 == 1);
    if exponent.len() > RSA_EXPONENT_BYTES || !is_odd || exponent == [1] {
        return Err("has an `e` that is not an odd number of 2 to 32 bits".to_owned());
    }
    Ok(PublicKey::Rsa { modulus, exponent })
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{Ed25519KeyPair, KeyPair};
    use serde_json::json;

    use super::*;

    fn encoded(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn pair() -> Ed25519KeyPair {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()
    }

    fn public(pair: &Ed25519KeyPair, name: &str) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": name, "x": encoded(pair.public_key().as_ref())})
    }

    fn set(keys: Value) -> Result<KeySet, String> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    #[test]
    fn a_signature_is_checked_by_the_key_that_is_named_and_for_its_algorithm_alone() {
        let (one, other) = (pair(), pair());
        let set = set(json!([public(&one, "one"), public(&other, "other")])).unwrap();
        let signature = one.sign(b"signed");
        let check = |name, algorithm, signed: &[u8], signature: &[u8]| {
            set.check(name, algorithm, signed, signature)
        };
        assert_eq!(check("one", Algorithm::EdDsa, b"signed", signature.as_ref()), Verdict::Genuine);
        assert_eq!(
            check("other", Algorithm::EdDsa, b"signed", signature.as_ref()),
            Verdict::Forged
        );
        assert_eq!(check("one", Algorithm::EdDsa, b"signet", signature.as_ref()), Verdict::Forged);
        assert_eq!(check("one", Algorithm::EdDsa, b"signed", b""), Verdict::Forged);
        assert_eq!(check("none", Algorithm::EdDsa, b"signed", signature.as_ref()), Verdict::NoKey);
        for confused in [Algorithm::Rs256, Algorithm::Es256] {
            let verdict = check("one", confused, b"signed", signature.as_ref());
            assert_eq!(verdict, Verdict::OtherAlgorithm(Algorithm::EdDsa));
        }
    }

    #[test]
    fn keys_that_cannot_be_used_are_passed_over_with_the_reason() {
        let good = public(&pair(), "k");
        let with = |name: &str, value: Value| {
            let mut key = good.clone();
            key[name] = value;
            key
        };
        let x = encoded(&[1; 32]);
        let cases = [
            (with("use", json!("enc")), "is not for signatures by its `use`"),
            (with("key_ops", json!(["sign"])), "is not for checking signatures by its `key_ops`"),
            (with("alg", json!("RS256")), "is for \"RS256\", and could be for EdDSA alone"),
            (with("d", json!(x)), "is not a public key"),
            (with("crv", json!("Ed448")), "is of a kind that is not used: \"OKP\" \"Ed448\""),
            (with("x", json!(encoded(&[1; 31]))), "has an `x` that is not of 32 bytes"),
            (with("x", json!("=")), "has a `x` that is not base64url without padding"),
            (with("x", json!(7)), "has a `x` that is not a string"),
            (json!({"kid": "k", "kty": "oct", "k": x}), "is not a public key"),
            (json!({"kid": "k", "kty": "EC", "crv": "P-384", "x": x, "y": x}), "is of a kind"),
            (json!({"kid": "k", "kty": "EC", "crv": "P-256", "x": x}), "has no `y`"),
            (
                json!({"kid": "k", "kty": "RSA", "n": encoded(&[255; 128]), "e": "AQAB"}),
                "has 1024 bits",
            ),
            (
                json!({"kid": "k", "kty": "RSA", "n": encoded(&[255; 1024]), "e": "AQAB"}),
                "has 8192 bits",
            ),
            (json!({"kid": "k", "kty": "RSA", "n": encoded(&[255; 256]), "e": "AQ"}), "has an `e`"),
            (
                json!({"kid": "k", "kty": "RSA", "n": encoded(&[255; 256]), "e": "AAEB"}),
                "has a number",
            ),
            (json!({"kid": "k", "kty": "RSA", "n": "", "e": ""}), "has 0 bits"),
        ];
        for (key, reason) in cases {
            let read = set(json!([key])).unwrap();
            assert!(read.is_empty(), "{key}");
            assert!(
                read.passed_over[0].starts_with(&format!("\"k\" {reason}")),
                "{:?}",
                read.passed_over
            );
        }
        let mut nameless = good.clone();
        nameless.as_object_mut().unwrap().remove("kid");
        assert_eq!(set(json!([nameless])).unwrap().passed_over, ["keys[0] has no `kid`"]);
        assert_eq!(set(json!([good])).unwrap().len(), 1);
    }

    #[test]
    fn a_set_of_which_one_cannot_tell_what_a_name_means_is_refused() {
        let (one, other) = (public(&pair(), "k"), public(&pair(), "k"));
        assert_eq!(set(json!([one, other])), Err("has two keys for EdDSA named \"k\"".to_owned()));
        let rsa = json!({"kid": "k", "kty": "RSA", "n": encoded(&[255; 256]), "e": "AQAB"});
        assert_eq!(set(json!([one, rsa])).unwrap().len(), 2, "one for each algorithm");
        for lie in [
            "",
            "<html></html>",
            "[]",
            "{}",
            r#"{"keys":{}}"#,
            r#"{"keys":[1]}"#,
            r#"{"keys":[],"keys":[]}"#,
        ] {
            assert!(KeySet::parse(lie.as_bytes()).is_err(), "{lie}");
        }
        assert!(set(json!([])).unwrap().is_empty());
        let many: Vec<Value> =
            (0..=JWKS_KEYS_AT_MOST).map(|n| public(&pair(), &n.to_string())).collect();
        assert!(set(json!(many)).is_err_and(|reason| reason.starts_with("has 65 keys")));
    }
}
