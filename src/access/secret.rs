//! The secrets of keys, and what is kept of them. Pure.

use std::hash::{Hash, Hasher};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRngCore;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::db::Mode;
use crate::error::{Error, Result};

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
    pub fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(&self.0).into())
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

/// The SHA-256 of a secret. Of 256 random bits a fast hash reveals nothing. Two are compared in constant time.
#[derive(Clone, Copy)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The hash in these bytes, if they are as many as one has.
    pub fn of_bytes(bytes: &[u8]) -> Option<SecretHash> {
        bytes.try_into().ok().map(SecretHash)
    }

    /// The hash of a token, by which it is remembered.
    pub fn of(token: &str) -> SecretHash {
        SecretHash(Sha256::digest(token).into())
    }

    /// Its bytes, for the database.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for SecretHash {
    fn eq(&self, other: &SecretHash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretHash {}

impl Hash for SecretHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl std::fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_secret_parses_and_hides_itself() {
        let secret = Secret::generate(Mode::Live).unwrap();
        let parsed = Secret::parse(secret.reveal()).unwrap();
        assert_eq!(parsed.hash(), secret.hash());
        assert!(secret.reveal().starts_with("sk_live_"));
        assert!(!format!("{secret:?}{:?}", secret.hash()).contains(&secret.reveal()[13..]));
        assert!(Secret::parse("sk_test_short").is_none());
        assert!(Secret::parse(&secret.reveal().replace("live", "best")).is_none());
    }

    #[test]
    fn hashes_are_equal_in_every_byte_or_not_at_all() {
        let one = SecretHash([7; 32]);
        assert_eq!(one, SecretHash::of_bytes(&[7; 32]).unwrap());
        for byte in [0, 15, 31] {
            let mut other = [7; 32];
            other[byte] ^= 0x80;
            assert_ne!(one, SecretHash(other), "{byte}");
        }
        assert!(SecretHash::of_bytes(&[7; 31]).is_none());
    }
}
