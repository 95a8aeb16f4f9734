//! How turns are shared out: the numbers.

/// How turns are shared out among realms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How many turns there are at once.
    pub total: usize,
    /// The most that one realm has.
    pub realm: usize,
    /// The most that one realm has while others call too and processors do not keep up.
    pub crowded: usize,
    /// The most that one realm has while others call too for work that computes for long.
    pub heavy: usize,
    /// The most that one kind of work of a realm has before it has shown that it is quick, and once it takes long.
    pub slow: usize,
    /// The most that work known to take long has, of all realms together.
    pub slow_total: usize,
    /// How many are left free by work that has not shown that it is quick.
    pub kept: usize,
    /// How many may wait.
    pub waiting: usize,
    /// How many of one realm may wait.
    pub realm_waiting: usize,
}

impl Rules {
    /// Those of a pool of connections: a realm has at most seven tenths of it, and three tenths for each kind of work that takes long. All such work
    /// together has at most half. Either part may be given.
    pub fn of_pool(
        total: usize,
        realm: Option<usize>,
        slow: Option<usize>,
        waiting: usize,
    ) -> Self {
        let at_most_all = |part: usize| part.clamp(1, total.max(1));
        let realm =
            at_most_all(realm.unwrap_or_else(|| total.saturating_sub((total * 3 / 10).max(1))));
        let slow = at_most_all(slow.unwrap_or(total * 3 / 10)).min(realm);
        let slow_total = at_most_all(total / 2).max(slow);
        let realm_waiting = waiting.div_ceil(2);
        Rules {
            total,
            realm,
            crowded: realm.min(2),
            heavy: (processors() / 2).max(1),
            slow,
            slow_total,
            kept: total / 10,
            waiting,
            realm_waiting,
        }
    }

    /// Those of work that always takes long: a realm has at most half of the turns.
    pub fn of_long_work(total: usize, waiting: usize) -> Self {
        let realm = total.div_ceil(2).max(1);
        Rules {
            total,
            realm,
            crowded: realm,
            heavy: realm,
            slow: realm,
            slow_total: total,
            kept: 0,
            waiting,
            realm_waiting: waiting.div_ceil(2),
        }
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_pool_fit_its_size() {
        let parts = |total| {
            let rules = Rules::of_pool(total, None, None, 1000);
            (rules.realm, rules.slow, rules.slow_total, rules.kept)
        };
        assert_eq!(parts(1), (1, 1, 1, 0));
        assert_eq!(parts(2), (1, 1, 1, 0));
        assert_eq!(parts(4), (3, 1, 2, 0));
        assert_eq!(parts(10), (7, 3, 5, 1));
        assert_eq!(parts(100), (70, 30, 50, 10));
        let given = Rules::of_pool(10, Some(10), Some(20), 1000);
        assert_eq!((given.realm, given.slow, given.slow_total), (10, 10, 10));
    }
}
