//! Opaque texts that callers keep for us and nobody can read, make or change, such as page tokens and cursors of event streams.

use std::fmt;
use std::sync::Arc;

use aes_gcm_siv::aead::{Aead, KeyInit, Payload};
use aes_gcm_siv::{Aes256GcmSiv, Nonce};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use diesel::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::db::{Work, statement};
use crate::error::{Error, Result};

/// The first byte of every sealed text.
const FORM: u8 = 1;

/// Seals and opens. The key is in the database, so that every replica opens what another has sealed. Cheap to clone.
///
/// The cipher is AES-256-GCM-SIV (RFC 8452), which stays safe when a nonce is used again. Ours is constant, so the same content under the
/// same binding has the same text: a page that is asked for twice has the same token.
#[derive(Clone)]
pub struct Seal(Arc<Aes256GcmSiv>);

impl Seal {
    /// A seal with this key.
    pub fn new(key: [u8; 32]) -> Self {
        Seal(Arc::new(Aes256GcmSiv::new(&key.into())))
    }

    /// Seals content. It opens only under the same binding, which the text does not contain.
    pub fn close(&self, bound_to: &[u8], content: &impl Serialize) -> Result<String> {
        let content = serde_json::to_vec(content).map_err(Error::internal)?;
        let sealed = self.0.encrypt(&Nonce::default(), Payload { msg: &content, aad: bound_to });
        let mut bytes = vec![FORM];
        bytes.extend(sealed.map_err(|_| Error::internal("cannot seal: the content is too long"))?);
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Opens a text. None if we have not sealed it, or under another binding, or if it was changed.
    pub fn open<T: DeserializeOwned>(&self, bound_to: &[u8], text: &str) -> Option<T> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (form, sealed) = bytes.split_first()?;
        let content = self
            .0
            .decrypt(&Nonce::default(), Payload { msg: sealed, aad: bound_to })
            .ok()
            .filter(|_| *form == FORM)?;
        serde_json::from_slice(&content).ok()
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

/// Reads the key.
pub(super) fn read(connection: &mut PgConnection) -> Work<Seal> {
    let (key,) = ReadSecret { purpose: "tokens" }.get_result::<(Vec<u8>,)>(connection)?;
    let key =
        key.try_into().map_err(|_| Error::internal("the secret for tokens has not 32 bytes"))?;
    Ok(Seal::new(key))
}

statement! {
    /// A secret of the service.
    struct ReadSecret<'a> { purpose: &'a str as diesel::sql_types::Text } -> (diesel::sql_types::Binary,),
    "SELECT secret FROM service_secret WHERE purpose = {purpose}"
}

#[cfg(test)]
mod tests {
    use super::Seal;
    use proptest::prelude::*;

    #[test]
    fn what_is_sealed_opens_under_its_binding_alone() {
        let seal = Seal::new([7; 32]);
        let text = seal.close(b"list", &("pypi.a", 3)).unwrap();
        assert_eq!(seal.open::<(String, i32)>(b"list", &text), Some(("pypi.a".to_owned(), 3)));
        assert_eq!(seal.open::<(String, i32)>(b"other", &text), None);
        assert_eq!(Seal::new([8; 32]).open::<(String, i32)>(b"list", &text), None);
        assert_eq!(seal.close(b"list", &("pypi.a", 3)).unwrap(), text);
    }

    proptest! {
        #[test]
        fn a_changed_text_does_not_open(content in ".{0,40}", at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_-]") {
            let seal = Seal::new([7; 32]);
            let text = seal.close(b"", &content).unwrap();
            let mut changed = text.clone();
            let at = at.index(text.len());
            changed.replace_range(at..=at, &to);
            prop_assume!(changed != text);
            prop_assert_eq!(seal.open::<String>(b"", &changed), None);
        }

        #[test]
        fn a_text_of_somebody_else_does_not_open(text in ".{0,80}") {
            prop_assert_eq!(Seal::new([7; 32]).open::<String>(b"", &text), None);
        }
    }
}
