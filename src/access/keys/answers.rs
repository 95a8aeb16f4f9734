//! A key as a message, and the parts of it that responses of changing calls show.

use prost::Message;

use crate::access::keys::model::{KeyRecord, KeyState};
use crate::access::{Answer, Caller, Scope, Subject};
use crate::proto::{convert, v1};

/// A key as a message, for a caller.
pub(super) fn to_proto(record: KeyRecord, caller: &Caller) -> v1::Key {
    let state = match record.state {
        KeyState::Active => v1::KeyState::Active,
        KeyState::Expired => v1::KeyState::Expired,
        KeyState::Revoked => v1::KeyState::Revoked,
    };
    let (previous_secret_prefix, previous_ends) = record.previous.unzip();
    let fields = record.fields;
    v1::Key {
        id: record.id.to_string(),
        object: "key".to_owned(),
        mode: v1::Mode::from(caller.realm.mode()).into(),
        state: state.into(),
        name: fields.name,
        email: fields.email,
        scopes: fields.scopes,
        allowed: fields.allowed.iter().map(ToString::to_string).collect(),
        api_version: crate::access::ApiVersion::pinned(fields.api_version).to_string(),
        secret_prefix: record.secret_prefix,
        previous_secret_prefix,
        previous_secret_expires_at: previous_ends.map(convert::timestamp),
        principal_id: record.principal_id.to_string(),
        is_caller: record.id == caller.key_id,
        version: record.version,
        created_at: Some(convert::timestamp(record.created_at)),
        updated_at: Some(convert::timestamp(record.updated_at)),
        expires_at: fields.expires_at.map(convert::timestamp),
        revoked_at: record.revoked_at.map(convert::timestamp),
        last_used_at: record.last_used_at.map(convert::timestamp),
    }
}

impl Answer for v1::Key {
    // A key is kept after its end for longer than the records of calls are.
    fn shows(&self) -> Vec<Subject> {
        Vec::new()
    }

    fn withhold(&mut self, caller: &Caller) {
        if caller.may(Scope::KeysRead) {
            return;
        }
        self.name.clear();
        self.scopes.clear();
        self.allowed.clear();
        (self.email, self.last_used_at) = (None, None);
    }
}

impl Answer for v1::KeyWithSecret {
    fn shows(&self) -> Vec<Subject> {
        Vec::new()
    }

    fn withhold(&mut self, caller: &Caller) {
        self.key.iter_mut().for_each(|key| key.withhold(caller));
    }

    /// The secret is shown once, and kept nowhere.
    fn recorded(&self) -> Vec<u8> {
        v1::KeyWithSecret { key: self.key.clone(), secret: None }.encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_of_a_call_has_no_secret() {
        let answer = v1::KeyWithSecret {
            key: Some(v1::Key { id: "k".to_owned(), ..v1::Key::default() }),
            secret: Some("sk_test_x".to_owned()),
        };
        let recorded = v1::KeyWithSecret::decode(answer.recorded().as_slice()).unwrap();
        assert_eq!((recorded.key, recorded.secret), (answer.key, None));
    }
}
