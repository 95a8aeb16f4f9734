//! Counts users of something at once, in all and from each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits::allowance::network;

/// A number of permits, of which one network may take a part. Clones share one count.
#[derive(Clone, Debug)]
pub struct Tally(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    in_all: usize,
    each: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    by: HashMap<IpAddr, usize>,
}

/// Why there is no free permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// All are taken.
    InAll,
    /// The network has its part.
    Each,
}

/// A permit that is taken, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    tally: Tally,
    network: Option<IpAddr>,
}

impl Tally {
    /// So many permits, of which each network may take so many.
    pub fn new(in_all: usize, each: usize) -> Self {
        Tally(Arc::new(Shared { in_all, each, taken: Mutex::default() }))
    }

    /// Takes a permit for a caller from this address, where it is known.
    pub fn enter(&self, address: Option<IpAddr>) -> Result<Permit, Full> {
        let network = address.map(network);
        let mut taken = self.taken();
        let by = network.and_then(|network| taken.by.get(&network).copied()).unwrap_or_default();
        if network.is_some() && by >= self.0.each {
            return Err(Full::Each);
        }
        if taken.in_all >= self.0.in_all {
            return Err(Full::InAll);
        }
        if let Some(network) = network {
            taken.by.insert(network, by + 1);
        }
        taken.in_all += 1;
        Ok(Permit { tally: self.clone(), network })
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Makes one of nowhere one of this network. Fails where that has its part.
    pub fn settle(&mut self, network: IpAddr) -> Result<(), Full> {
        if self.network.is_some() {
            return Ok(());
        }
        let mut taken = self.tally.taken();
        let by = taken.by.entry(network).or_default();
        if *by >= self.tally.0.each {
            return Err(Full::Each);
        }
        *by += 1;
        self.network = Some(network);
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut taken = self.tally.taken();
        taken.in_all -= 1;
        if let Some(network) = self.network
            && let Some(by) = taken.by.get_mut(&network)
        {
            *by -= 1;
            if *by == 0 {
                taken.by.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_network_has_its_part_and_all_have_the_whole() {
        let tally = Tally::new(3, 2);
        let first = tally.enter(address("10.0.0.1")).unwrap();
        let _second = tally.enter(address("::ffff:10.0.0.1")).unwrap();
        assert_eq!(tally.enter(address("10.0.0.1")).unwrap_err(), Full::Each);
        let _third = tally.enter(address("10.0.0.2")).unwrap();
        assert_eq!(tally.enter(address("10.0.0.3")).unwrap_err(), Full::InAll);
        drop(first);
        let _again = tally.enter(address("10.0.0.1")).unwrap();
    }

    #[test]
    fn a_host_has_one_part_whatever_address_it_takes_of_its_network() {
        let tally = Tally::new(9, 1);
        let taken = tally.enter(address("2001:db8:1:2::1")).unwrap();
        assert_eq!(tally.enter(address("2001:db8:1:2:ffff::7")).unwrap_err(), Full::Each);
        let _other = tally.enter(address("2001:db8:1:3::1")).unwrap();
        drop(taken);
        assert_eq!(tally.taken().by.len(), 1, "who has left is forgotten");
    }

    #[test]
    fn who_comes_from_nowhere_counts_with_all() {
        let tally = Tally::new(1, 0);
        let _taken = tally.enter(None).unwrap();
        assert_eq!(tally.enter(None).unwrap_err(), Full::InAll);
    }
}
