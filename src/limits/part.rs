//! A part of the memory of the process, shared out by realm.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bytes of one permit of the semaphores: a semaphore counts no further than `u32` in one step.
pub const UNIT: usize = 1024;

/// A part of the memory, of which a realm may have half.
#[derive(Debug)]
pub struct Part {
    free: Arc<Semaphore>,
    /// The most that one realm may have, in units.
    share: usize,
    realms: Mutex<HashMap<i32, Weak<Semaphore>>>,
    /// Measures what is reserved: so many bytes more, or fewer.
    measure: fn(i64),
}

/// Memory that is reserved until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    all: OwnedSemaphorePermit,
    share: OwnedSemaphorePermit,
    units: usize,
    measure: fn(i64),
}

impl Reservation {
    /// How much it is.
    pub fn bytes(&self) -> usize {
        self.units * UNIT
    }

    /// Gives back what is more than this.
    pub fn shrink(&mut self, bytes: usize) {
        drop(self.split(self.bytes().saturating_sub(bytes.next_multiple_of(UNIT))));
    }

    /// Takes so much of it, as far as there is so much, for itself.
    pub fn split(&mut self, bytes: usize) -> Option<Reservation> {
        let units = (bytes / UNIT).min(self.units);
        let (all, share) = (self.all.split(units)?, self.share.split(units)?);
        self.units -= units;
        Some(Reservation { all, share, units, measure: self.measure })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        (self.measure)(-(self.bytes() as i64));
    }
}

impl Part {
    /// A part of so many bytes.
    pub fn new(bytes: usize, measure: fn(i64)) -> Self {
        let units = (bytes / UNIT).max(2);
        Part {
            free: Arc::new(Semaphore::new(units)),
            share: units / 2,
            realms: Mutex::default(),
            measure,
        }
    }

    /// The most that one realm may have, in bytes.
    pub fn share(&self) -> usize {
        self.share * UNIT
    }

    /// The memory that a realm may have.
    fn share_of(&self, realm: i32) -> Arc<Semaphore> {
        let mut realms = self.realms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = realms.get(&realm).and_then(Weak::upgrade) {
            return share;
        }
        // Whoever has memory has the share as well, so only those of which nobody has any are forgotten.
        realms.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.share));
        realms.insert(realm, Arc::downgrade(&share));
        share
    }

    /// Reserves so many bytes once there is room, but never more than `most`: what is larger could never be reserved.
    pub async fn reserve(&self, realm: i32, bytes: usize, most: usize) -> Reservation {
        let units = units(bytes, most);
        let acquire = async |semaphore: Arc<Semaphore>| {
            let permit = semaphore.acquire_many_owned(count(units)).await;
            permit.expect("the semaphores are never closed")
        };
        let share = acquire(self.share_of(realm)).await;
        let all = acquire(Arc::clone(&self.free)).await;
        self.reserved(all, share, units)
    }

    /// The same without waiting; none where there is no room.
    pub fn try_reserve(&self, realm: i32, bytes: usize, most: usize) -> Option<Reservation> {
        let units = units(bytes, most);
        let share = self.share_of(realm).try_acquire_many_owned(count(units)).ok()?;
        let all = Arc::clone(&self.free).try_acquire_many_owned(count(units)).ok()?;
        Some(self.reserved(all, share, units))
    }

    fn reserved(
        &self,
        all: OwnedSemaphorePermit,
        share: OwnedSemaphorePermit,
        units: usize,
    ) -> Reservation {
        let reservation = Reservation { all, share, units, measure: self.measure };
        (self.measure)(reservation.bytes() as i64);
        reservation
    }

    /// How many bytes nobody has.
    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.free.available_permits() * UNIT
    }

    /// Of how many realms something is known.
    #[cfg(test)]
    pub fn realms(&self) -> usize {
        self.realms.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn units(bytes: usize, most: usize) -> usize {
    bytes.div_ceil(UNIT).clamp(1, (most / UNIT).max(1))
}

fn count(units: usize) -> u32 {
    u32::try_from(units).unwrap_or(u32::MAX)
}
