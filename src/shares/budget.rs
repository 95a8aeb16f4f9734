//! Permits without a queue: a caller whose share is taken is refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use super::leaves_enough;

/// A number of permits, of which one realm and one key may have a part. Clones share the permits.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Mutex<Taken>>);

#[derive(Debug)]
struct Taken {
    total: usize,
    realm: usize,
    key: usize,
    in_use: usize,
    realms: HashMap<i32, usize>,
    keys: HashMap<Uuid, usize>,
}

/// Why there is no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// All are taken.
    All,
    /// The realm has its share.
    Realm,
    /// The key has its share.
    Key,
}

impl Budget {
    /// So many permits, with the most that one realm and one key may have.
    pub fn new(total: usize, realm: usize, key: usize) -> Self {
        Budget(Arc::new(Mutex::new(Taken {
            total,
            realm,
            key,
            in_use: 0,
            realms: HashMap::new(),
            keys: HashMap::new(),
        })))
    }

    /// Takes a permit, which is given back when it is dropped.
    pub fn enter(&self, realm: i32, key: Uuid) -> Result<Permit, Full> {
        let mut taken = self.taken();
        let (of_realm, of_key) = (in_use(&taken.realms, &realm), in_use(&taken.keys, &key));
        let free = taken.total.saturating_sub(taken.in_use);
        if of_key >= taken.key {
            return Err(Full::Key);
        }
        if of_realm >= taken.realm {
            return Err(Full::Realm);
        }
        if !leaves_enough(of_realm, free, taken.realm, taken.total) {
            return Err(if free == 0 { Full::All } else { Full::Realm });
        }
        taken.in_use += 1;
        *taken.realms.entry(realm).or_default() += 1;
        *taken.keys.entry(key).or_default() += 1;
        Ok(Permit { budget: self.clone(), realm, key })
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn in_use<K: std::hash::Hash + Eq>(counts: &HashMap<K, usize>, of: &K) -> usize {
    counts.get(of).copied().unwrap_or_default()
}

/// Takes one from a count, and removes the count with its last one.
fn give_back<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, of: &K) {
    if let Some(count) = counts.get_mut(of) {
        *count -= 1;
        if *count == 0 {
            counts.remove(of);
        }
    }
}

/// A permit that was taken.
#[derive(Debug)]
pub struct Permit {
    budget: Budget,
    realm: i32,
    key: Uuid,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut taken = self.budget.taken();
        taken.in_use -= 1;
        give_back(&mut taken.realms, &self.realm);
        give_back(&mut taken.keys, &self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    /// Takes as many as there are; returns them and why there are no more.
    fn all(budget: &Budget, realm: i32, key: Uuid) -> (Vec<Permit>, Full) {
        let mut permits = Vec::new();
        loop {
            match budget.enter(realm, key) {
                Ok(permit) => permits.push(permit),
                Err(full) => return (permits, full),
            }
        }
    }

    #[test]
    fn a_key_has_its_share_and_then_its_realm_and_others_still_find_permits() {
        let budget = Budget::new(16, 8, 6);
        let (first, full) = all(&budget, 1, key(1));
        assert_eq!((first.len(), full), (6, Full::Key));
        let (second, full) = all(&budget, 1, key(2));
        assert_eq!((second.len(), full), (2, Full::Realm));
        let (third, full) = all(&budget, 2, key(3));
        assert_eq!((third.len(), full), (4, Full::Realm), "half of what is left");
        assert!(budget.enter(3, key(4)).is_ok());
    }

    #[test]
    fn what_is_given_back_leaves_nothing_behind() {
        let budget = Budget::new(2, 1, 1);
        let one = budget.enter(1, key(1)).unwrap();
        let other = budget.enter(2, key(2)).unwrap();
        assert_eq!(budget.enter(3, key(3)).unwrap_err(), Full::All);
        drop((one, other));
        assert!(budget.enter(3, key(3)).is_ok());
        let taken = budget.taken();
        assert_eq!((taken.in_use, taken.realms.len(), taken.keys.len()), (0, 0, 0));
    }
}
