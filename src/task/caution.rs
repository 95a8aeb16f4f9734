//! How the object is found that the database refuses to have changed: chunks are halved until one object is left. Pure.
//!
//! After such an object chunks begin at one and double, so that few of them cost little, and where there are many no chunk is large. All in
//! all the wasted work is in proportion to the number of objects, however many are refused.

/// How large chunks may be after one was refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caution {
    /// The largest chunk to try; none if nothing was refused lately.
    most: Option<i64>,
    /// Among so many of the next objects is one that was refused; 0 if none is known.
    suspects: i64,
    /// How many objects were refused so far.
    refused: u64,
}

impl Caution {
    /// How large a chunk may be that would be so large otherwise.
    pub fn limit(&self, wanted: i64) -> i64 {
        self.most.map_or(wanted, |most| most.min(wanted))
    }

    /// Returns whether the next object is to be tried alone, and counted as failed if it is refused.
    pub fn is_alone(&self) -> bool {
        self.most == Some(1)
    }

    /// A chunk of at most so many objects was refused. One of those is the cause.
    pub fn chunk_refused(&mut self, limit: i64) {
        self.suspects = limit;
        self.halve();
    }

    /// The object that was tried alone was refused. Returns how many were so far.
    pub fn object_refused(&mut self) -> u64 {
        self.suspects = 0;
        self.most = Some(1);
        self.refused += 1;
        self.refused
    }

    /// A chunk that read so many objects is done; without caution it would have been so large.
    pub fn moved(&mut self, met: i64, wanted: i64) {
        if self.suspects > met {
            self.suspects -= met;
            self.halve();
            return;
        }
        // Also if the one that was refused before is not refused any more.
        self.suspects = 0;
        self.most = self.most.map(|most| most.saturating_mul(2)).filter(|most| *most < wanted);
    }

    fn halve(&mut self) {
        self.most = Some(((self.suspects + 1) / 2).max(1));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The result of a walk.
    #[derive(Debug, Default)]
    struct Walked {
        failed: BTreeSet<i64>,
        attempts: i64,
        /// How many objects were in chunks that were refused.
        in_vain: i64,
    }

    /// Walks `count` objects in chunks of `size`, of which these are refused.
    fn walk(count: i64, size: i64, bad: &BTreeSet<i64>) -> Walked {
        let (mut caution, mut walked, mut at) = (Caution::default(), Walked::default(), 0);
        while at < count {
            walked.attempts += 1;
            let limit = caution.limit(size);
            let ends = (at + limit).min(count);
            let refused = bad.range(at..ends).next().is_some();
            if caution.is_alone() && refused {
                walked.failed.insert(at);
                walked.in_vain += 1;
                at += 1;
                caution.object_refused();
            } else if refused {
                walked.in_vain += ends - at;
                caution.chunk_refused(limit);
            } else {
                caution.moved(ends - at, size);
                at = ends;
            }
        }
        walked
    }

    #[test]
    fn one_of_ten_thousand_is_found_in_a_few_chunks() {
        for bad in [0, 1, 4_999, 5_000, 9_998, 9_999] {
            let walked = walk(20_000, 10_000, &BTreeSet::from([bad]));
            assert_eq!(walked.failed, BTreeSet::from([bad]));
            assert!(walked.attempts <= 2 * 14 + 4, "{bad}: {walked:?}");
            assert!(walked.in_vain <= 20_020, "{bad}: {walked:?}");
        }
    }

    #[test]
    fn where_all_are_refused_each_is_tried_once_but_for_the_first_chunk() {
        let walked = walk(5_000, 1_000, &(0..5_000).collect());
        assert_eq!(walked.failed.len(), 5_000);
        assert!(
            walked.attempts <= 5_000 + 11 && walked.in_vain <= 7_000,
            "{}, {}",
            walked.attempts,
            walked.in_vain
        );
    }

    #[test]
    fn what_is_not_refused_any_more_ends_the_caution() {
        let mut caution = Caution::default();
        caution.chunk_refused(8);
        while caution != (Caution { refused: 0, ..Caution::default() }) {
            caution.moved(caution.limit(8), 8);
        }
        assert_eq!(caution.limit(8), 8);
    }

    proptest! {
        #[test]
        fn exactly_the_refused_fail_and_what_is_tried_in_vain_is_in_proportion(
            bad in prop::collection::btree_set(0i64..3_000, 0..300),
            size in 1i64..2_000,
        ) {
            let walked = walk(3_000, size, &bad);
            prop_assert_eq!(&walked.failed, &bad);
            prop_assert!(walked.in_vain <= 2 * (size + 3_000) + bad.len() as i64, "{} in vain", walked.in_vain);
            let logarithm = i64::from(2_000i64.ilog2() + 2);
            let bound = 3_000 / size + 2 + 2 * logarithm * (bad.len() as i64 + 1);
            prop_assert!(walked.attempts <= bound, "{} attempts of at most {}", walked.attempts, bound);
        }
    }
}
