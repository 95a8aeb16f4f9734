//! Shares of the resources that all callers use together: how much of them one realm, and one key, may have at once.
//!
//! There are two kinds. A [`Budget`] is a number of permits, such as calls at once: a caller whose share is taken is refused. [`Turns`]
//! have a queue, such as connections of the pool: a caller whose share is taken waits, while others pass. In both a realm may use idle
//! capacity, though never all of it: the less is free, the less one realm may have, so that there is something left for the next one.
//!
//! The user of a share is the [`Party`] of the present work, which the layer behind authentication sets. Work without a party is the
//! service's own: workers, sweeps, wake-ups.

mod budget;
mod party;
mod rules;
mod turns;

pub use budget::{Budget, Full, Permit};
pub use party::{Party, computes_long, current, heavily, inherit, of, of_sync};
pub use rules::Rules;
pub use turns::{Hindrance, Refused, Turn, Turns};

/// Returns whether a requester with so many may take one more of those that are `free`, where one alone may have `part` of `total`.
///
/// With `n` requesters that want all they can get, each ends up with as much as is left free times the ratio of `part` to the rest: for a
/// half of all that is a half for one, a third each for two, a quarter each for three. This is how switches share a buffer among queues:
/// Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches" (1998). A requester that has nothing may always
/// have the first.
pub fn leaves_enough(in_use: usize, free: usize, part: usize, total: usize) -> bool {
    if free == 0 {
        return false;
    }
    in_use == 0
        || in_use < part
            && (in_use + 1).saturating_mul(total.saturating_sub(part))
                <= part.saturating_mul(free - 1)
}

#[cfg(test)]
mod tests {
    use super::leaves_enough;

    /// The share of each of so many when all take as much as they may, the first as much as it can get before the next comes.
    fn shares(takers: usize, part: usize, total: usize) -> Vec<usize> {
        let mut in_use = vec![0; takers];
        let mut free = total;
        for taker in &mut in_use {
            while leaves_enough(*taker, free, part, total) {
                *taker += 1;
                free -= 1;
            }
        }
        in_use
    }

    #[test]
    fn one_has_its_part_and_leaves_something_to_those_who_come_later() {
        assert_eq!(shares(1, 7, 10), [7]);
        assert_eq!(shares(4, 512, 1024), [512, 256, 128, 64]);
        assert_eq!(shares(2, 1, 2), [1, 1]);
        assert_eq!(shares(2, 3, 4), [3, 1]);
        assert_eq!(shares(1, 1, 1), [1]);
    }

    #[test]
    fn where_one_may_have_all_it_has_all() {
        assert_eq!(shares(2, 10, 10), [10, 0]);
    }
}
