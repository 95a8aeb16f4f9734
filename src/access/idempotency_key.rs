//! The key of a call that takes effect once, and where the record of the call is.

use crate::access::Quota;
use crate::error::{Error, Result};

const MAX_CHARACTERS: usize = 255;

/// The key of a call and the method that it calls. The idempotency layer puts it among the extensions of a request that has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    key: String,
    method: String,
    quota: Quota,
}

impl IdempotencyKey {
    /// A key as a caller gives it, for a method: its path; and how much a realm may keep.
    pub fn parse(key: &[u8], method: &str, quota: Quota) -> Result<Self> {
        let fault = || {
            Error::invalid(
                "Idempotency-Key",
                "invalid",
                "must be 1 to 255 printable ASCII characters",
            )
        };
        let is_sane = (1..=MAX_CHARACTERS).contains(&key.len())
            && key.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
        let key = std::str::from_utf8(key).ok().filter(|_| is_sane).ok_or_else(fault)?;
        Ok(IdempotencyKey { key: key.to_owned(), method: method.to_owned(), quota })
    }

    /// The key alone.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// The id of the record of a call, and the request that it must match.
#[derive(Clone, Debug)]
pub struct RecordId {
    pub key: IdempotencyKey,
    pub request_sha256: [u8; 32],
    pub part: i64,
}

impl RecordId {
    pub fn method(&self) -> &str {
        &self.key.method
    }

    pub fn quota(&self) -> Quota {
        self.key.quota
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_1_to_255_printable_characters() {
        assert_eq!(IdempotencyKey::parse(b"a key", "/m", Quota::default()).unwrap().key(), "a key");
        assert!(IdempotencyKey::parse(&[b'x'; 255], "/m", Quota::default()).is_ok());
        for bad in [b"".as_slice(), &[b'x'; 256], b"a\tb", "ä".as_bytes(), &[0xff]] {
            assert_eq!(
                IdempotencyKey::parse(bad, "/m", Quota::default()).unwrap_err().violations()[0]
                    .field,
                "Idempotency-Key"
            );
        }
    }
}
