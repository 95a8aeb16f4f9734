//! Keys in memory, so that a caller costs no lookup a call. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::access::key::Key;
use crate::access::secret::SecretHash;
use crate::limits::listeners::{CACHED_KEYS, CACHED_KEYS_AT_MOST};

/// For how long a key is believed to be as it was read: a change that nobody reports takes effect this late.
pub const BELIEVED: Duration = Duration::from_secs(2);
/// A key that nobody has used for this long is read again by its next call, and not in between.
pub const IN_USE: Duration = Duration::from_secs(60);

/// Keys by the hashes of their secrets, each as it was read, and when.
#[derive(Default)]
pub struct KeyCache(HashMap<SecretHash, Cached>);

struct Cached {
    key: Arc<Key>,
    /// The moment before it was read.
    read: Instant,
    used: Instant,
}

impl KeyCache {
    /// The key with this secret, if it was read lately enough.
    pub fn get(&mut self, secret: SecretHash, now: Instant) -> Option<Arc<Key>> {
        let cached = self.0.get_mut(&secret)?;
        cached.used = now;
        (now.duration_since(cached.read) < BELIEVED).then(|| cached.key.clone())
    }

    /// Returns whether a key with this secret was read, however long ago.
    pub fn has(&self, secret: SecretHash) -> bool {
        self.0.contains_key(&secret)
    }

    /// Keeps a key that was read, if there is room.
    pub fn put(&mut self, secret: SecretHash, key: Arc<Key>, read: Instant) {
        if self.0.len() >= CACHED_KEYS_AT_MOST && !self.0.contains_key(&secret) {
            self.forget_unused(read);
        }
        if self.0.len() < CACHED_KEYS_AT_MOST || self.0.contains_key(&secret) {
            self.0.insert(secret, Cached { key, read, used: read });
        } else {
            CACHED_KEYS.reached();
        }
    }

    /// Forgets the key with this secret.
    pub fn forget(&mut self, secret: SecretHash) {
        self.0.remove(&secret);
    }

    /// The ids of the keys in use, which are to be read again. Others stay as keys that were shown once: their lookup waits for nobody's.
    pub fn in_use(&self, now: Instant) -> HashSet<Uuid> {
        self.0.values().filter(|cached| cached.is_in_use(now)).map(|cached| cached.key.id).collect()
    }

    /// Replaces the keys of `asked` by those that were found. A secret that no key has any more is forgotten, and what was read later than this
    /// stays.
    pub fn renew(&mut self, asked: &HashSet<Uuid>, found: Vec<Key>, read: Instant) {
        let found: HashMap<Uuid, Arc<Key>> =
            found.into_iter().map(|key| (key.id, Arc::new(key))).collect();
        self.0.retain(|secret, cached| {
            if !asked.contains(&cached.key.id) || cached.read >= read {
                return true;
            }
            match found.get(&cached.key.id).filter(|key| key.has(*secret)) {
                Some(key) => {
                    (cached.key, cached.read) = (key.clone(), read);
                    true
                }
                None => false,
            }
        });
    }

    fn forget_unused(&mut self, now: Instant) {
        self.0.retain(|_, cached| cached.is_in_use(now));
    }
}

impl Cached {
    fn is_in_use(&self, now: Instant) -> bool {
        now.duration_since(self.used) < IN_USE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::scope::Scope;

    fn hash(byte: u8) -> SecretHash {
        SecretHash::of_bytes(&[byte; 32]).unwrap()
    }

    fn key(id: u128, byte: u8) -> Key {
        Key { id: Uuid::from_u128(id), secret: hash(byte), ..Key::example(&[Scope::Admin]) }
    }

    #[test]
    fn a_key_is_believed_for_two_seconds_after_it_was_read() {
        let (mut cache, read) = (KeyCache::default(), Instant::now());
        cache.put(hash(1), Arc::new(key(1, 1)), read);
        let at = |millis| read + Duration::from_millis(millis);
        assert!(cache.get(hash(1), at(1_999)).is_some());
        assert!(cache.get(hash(1), at(2_000)).is_none() && cache.has(hash(1)));
        let asked = cache.in_use(at(2_000));
        cache.renew(&asked, vec![key(1, 1)], at(1_900));
        assert!(cache.get(hash(1), at(3_899)).is_some(), "it was read again");
        assert!(cache.get(hash(2), at(0)).is_none());
    }

    #[test]
    fn what_is_read_again_replaces_what_was_there_and_nothing_newer() {
        let (mut cache, read) = (KeyCache::default(), Instant::now());
        let later = read + Duration::from_millis(1);
        cache.put(hash(1), Arc::new(key(1, 1)), read);
        cache.put(hash(2), Arc::new(key(2, 2)), read);
        cache.put(hash(3), Arc::new(key(3, 3)), read);
        let asked = cache.in_use(read);
        // One is rotated, one is not there any more, and one was read meanwhile.
        cache.put(hash(3), Arc::new(key(3, 3)), later + Duration::from_millis(1));
        let rotated =
            Key { scopes: Vec::new(), previous: Some((hash(1), chrono::Utc::now())), ..key(1, 9) };
        cache.renew(&asked, vec![rotated], later);
        assert!(cache.get(hash(1), later).unwrap().scopes.is_empty(), "by its previous secret");
        assert!(!cache.has(hash(2)) && !cache.has(hash(9)));
        assert!(cache.has(hash(3)));
        // Rotated once more, the first secret is no key's.
        let asked = cache.in_use(later);
        cache.renew(&asked, vec![key(1, 10), key(3, 3)], later + Duration::from_millis(2));
        assert!(!cache.has(hash(1)) && cache.has(hash(3)));
    }

    #[test]
    fn keys_that_nobody_uses_are_not_read_again_and_forgotten_for_others() {
        let (mut cache, read) = (KeyCache::default(), Instant::now());
        let of = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            SecretHash::of_bytes(&bytes).unwrap()
        };
        for n in 0..=CACHED_KEYS_AT_MOST {
            cache.put(of(n), Arc::new(key(n as u128, 1)), read);
        }
        assert!(cache.has(of(0)) && !cache.has(of(CACHED_KEYS_AT_MOST)));
        let later = read + Duration::from_secs(60);
        cache.get(of(7), read + Duration::from_secs(30));
        assert_eq!(cache.in_use(later).len(), 1);
        assert!(cache.has(of(8)), "it is one that was shown once");
        cache.put(of(CACHED_KEYS_AT_MOST), Arc::new(key(0, 1)), later);
        assert!(cache.has(of(CACHED_KEYS_AT_MOST)) && cache.has(of(7)) && !cache.has(of(8)));
        assert_eq!(cache.in_use(later).len(), 2);
    }
}
