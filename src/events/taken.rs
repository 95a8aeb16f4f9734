//! The messages that a broker has, by their ids.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use crate::limits::events::READ_BACK_AT_MOST;

/// Ids of messages, of which only hashes are kept: there may be many, and of a million two are the same by chance once in tens of millions of times.
#[derive(Debug, Default)]
pub struct Taken {
    hasher: RandomState,
    hashes: HashSet<u64>,
}

impl Taken {
    /// Adds an id. False once there are as many as may be.
    pub fn add(&mut self, id: &str) -> bool {
        self.hashes.insert(self.hasher.hash_one(id));
        self.hashes.len() < READ_BACK_AT_MOST
    }

    /// Returns whether this id is among them.
    pub fn has(&self, id: &str) -> bool {
        self.hashes.contains(&self.hasher.hash_one(id))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.hashes.len()
    }
}
