//! The pace of a task: how many objects it may take up now. Pure.

use std::time::Duration;

use crate::error::Violations;

/// How many chunks, at least, what may be taken up in a second is spread over.
const SHARES: i64 = 4;

/// No reservation takes up the allowance for longer: one is of at most a quarter of a second, or of one object where fewer than four may be taken up
/// a second. In seconds.
const LONGEST_AHEAD: f64 = 1.0;

/// The number of objects that a task of limited pace may take up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reservation {
    /// As many objects as one likes: the pace is not limited.
    Unlimited,
    /// So many objects, now. The allowance is then taken up until so many seconds from now.
    Take {
        /// How many.
        objects: i64,
        /// Until when.
        until: f64,
    },
    /// Nothing before this time has passed.
    Wait(Duration),
}

/// Reserves at most `wanted` objects where `most` may be taken up a second, and the allowance is taken up for another `ahead` seconds, or
/// has been free for `-ahead`. A reservation is of at most a quarter of a second's allowance; allowance that was not taken up for longer
/// than a quarter of a second is lost, so that no second sees more than its allowance and two such quarters.
pub fn reserve(most: i64, ahead: f64, wanted: i64) -> Reservation {
    // More than was ever reserved: the clock has stepped back, and its reading is of no use.
    let ahead = if ahead > LONGEST_AHEAD { 0.0 } else { ahead };
    if ahead > 0.0 {
        return Reservation::Wait(Duration::from_secs_f64(ahead));
    }
    let share = (most / SHARES).max(1);
    let objects = wanted.min(share).max(1);
    Reservation::Take {
        objects,
        until: ahead.max(-1.0 / SHARES as f64) + objects as f64 / most as f64,
    }
}

/// How many objects a task may take up a second.
pub fn check_pace(given: Option<i32>, faults: &mut Violations) -> Option<i32> {
    if given.is_some_and(|pace| pace < 1) {
        faults.add("max_objects_per_second", "out_of_range", "must be at least 1");
    }
    given
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_allowance_that_is_taken_up_for_impossibly_long_is_free() {
        assert_eq!(reserve(100, 60.0, 10), Reservation::Take { objects: 10, until: 0.1 });
        assert_eq!(reserve(1, 0.9, 10), Reservation::Wait(Duration::from_secs_f64(0.9)));
    }

    proptest! {
        /// Workers come whenever they like and want as much as they like.
        #[test]
        fn no_second_sees_more_than_its_allowance_and_two_quarters(
            most in 1i64..100_000,
            visits in prop::collection::vec((0.0f64..0.4, 1i64..20_000), 1..200),
        ) {
            let (mut now, mut until, mut taken) = (0.0, -86_400.0, Vec::new());
            for (pause, wanted) in visits {
                now += pause;
                match reserve(most, until - now, wanted) {
                    Reservation::Take { objects, until: ahead } => {
                        prop_assert!(objects <= wanted && objects <= (most / SHARES).max(1));
                        until = now + ahead;
                        taken.push((now, objects));
                    }
                    Reservation::Wait(wait) => prop_assert!(wait <= Duration::from_secs(1)),
                    Reservation::Unlimited => prop_assert!(false, "the pace is limited"),
                }
            }
            for (from, _) in &taken {
                let second: i64 = taken.iter().filter(|(at, _)| (*from..from + 1.0).contains(at)).map(|(_, objects)| objects).sum();
                prop_assert!(second <= most + 2 * (most / SHARES).max(1), "{second} of {most}");
            }
        }
    }
}
