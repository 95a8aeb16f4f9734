//! The realms of the connections: how many each has, and whether it may have one more.

use std::collections::HashMap;

use crate::shares::leaves_enough;

/// The connections of a listener on which somebody has shown a valid key, by realm.
#[derive(Debug)]
pub struct Owners {
    /// How many connections there may be, and how many of one realm.
    in_all: usize,
    each: usize,
    owned: usize,
    by_realm: HashMap<i32, usize>,
}

impl Owners {
    /// Of so many connections, of which each realm may have so many; the fewer are left, the fewer it may have, so that some are.
    pub fn new(in_all: usize, each: usize) -> Self {
        Owners { in_all, each, owned: 0, by_realm: HashMap::new() }
    }

    /// Returns whether this realm may have one more.
    pub fn may_enter(&self, realm: i32) -> bool {
        let in_use = self.by_realm.get(&realm).copied().unwrap_or_default();
        in_use == 0
            || leaves_enough(in_use, self.in_all.saturating_sub(self.owned), self.each, self.in_all)
    }

    /// It has one more.
    pub fn enter(&mut self, realm: i32) {
        self.owned += 1;
        *self.by_realm.entry(realm).or_default() += 1;
    }

    /// It has one less.
    pub fn leave(&mut self, realm: i32) {
        if let Some(in_use) = self.by_realm.get_mut(&realm) {
            self.owned -= 1;
            *in_use -= 1;
            if *in_use == 0 {
                self.by_realm.remove(&realm);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many this realm gets.
    fn taken(owners: &mut Owners, realm: i32) -> usize {
        let mut taken = 0;
        while taken < owners.in_all && owners.may_enter(realm) {
            owners.enter(realm);
            taken += 1;
        }
        taken
    }

    #[test]
    fn each_realm_has_a_part_of_what_others_have_left() {
        let mut owners = Owners::new(1024, 512);
        assert_eq!([1, 2, 3].map(|realm| taken(&mut owners, realm)), [512, 256, 128]);
        owners.leave(1);
        assert_eq!(
            (owners.may_enter(1), owners.by_realm[&1]),
            (false, 511),
            "others have more than they had"
        );
        assert_eq!(taken(&mut Owners::new(8, 8), 1), 8, "where one may have all it has all");
    }

    #[test]
    fn who_has_none_may_always_have_one_and_who_has_left_is_forgotten() {
        let mut owners = Owners::new(1, 1);
        owners.enter(1);
        assert!(owners.may_enter(2) && !owners.may_enter(1));
        owners.leave(1);
        owners.leave(1);
        assert_eq!((owners.owned, owners.by_realm.len()), (0, 0));
    }
}
