//! The progress of a plan that takes several steps: what one step leaves for the next. Pure.
//!
//! Planning reads all of a realm. Most realms are read within a moment; where a filter takes long for each entity, or the realm has very many, it is
//! done in steps, each a short transaction, so that a worker can turn to others between two, and a pause or a stop is heeded.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::database::WORKER_STATEMENT_SECONDS;

/// The first step reads so many entities.
const FIRST: i64 = 2_000;
/// A step reads no more.
const MOST: i64 = 50_000;
/// How many positions are remembered, at most, at which the keys may be cut.
const MARKS: usize = 64;

/// The progress of the planning of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planning {
    /// How many entities the next step reads.
    #[serde(rename = "reach")]
    pub read_limit: i64,
    /// How many seconds a statement has.
    pub seconds: u64,
    /// The search for the attributes of the filter, unless it is over.
    pub search: Option<Search>,
    /// The last key that was read.
    pub cursor: String,
    /// How many entities are selected up to there.
    pub selected: i64,
    /// How many steps were done.
    steps: u64,
    /// Of so many steps one is remembered.
    every: u64,
    /// Their keys, and how many are selected up to each of them.
    marks: Vec<(String, i64)>,
}

/// The progress of the search for the attributes of a filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// The last key that was read.
    pub after: String,
    /// True if an entity was found that counts.
    pub met: bool,
    /// The attributes that were found.
    pub known: Vec<String>,
}

impl Planning {
    /// Nothing is planned; `searches` says whether the attributes of the filter are to be searched for first.
    pub fn new(searches: bool) -> Self {
        let search = searches.then(Search::default);
        Planning {
            read_limit: FIRST,
            seconds: WORKER_STATEMENT_SECONDS,
            search,
            cursor: String::new(),
            selected: 0,
            steps: 0,
            every: 1,
            marks: Vec::new(),
        }
    }

    /// For work that is planned in one step and ran out of time: more time, and nothing else.
    pub fn whole() -> Self {
        Planning { read_limit: 1, seconds: 2 * WORKER_STATEMENT_SECONDS, ..Planning::new(false) }
    }

    /// A step took this long, which shall be `target`.
    pub fn took(&mut self, took: Duration, target: Duration) {
        let share = target.as_secs_f64() / took.as_secs_f64().max(1e-6);
        self.read_limit = ((self.read_limit as f64 * share) as i64)
            .clamp(self.read_limit / 2, self.read_limit * 2)
            .clamp(1, MOST);
    }

    /// A step took too long and was rolled back. The next one reads less; one that reads a single entity has more time.
    pub fn took_too_long(&mut self) {
        if self.read_limit > 1 {
            self.read_limit = (self.read_limit / 4).max(1);
        } else {
            self.seconds = self.seconds.saturating_mul(2);
        }
    }

    /// A step has come to this key, and found so many more that are selected.
    pub fn count(&mut self, until: String, selected: i64) {
        self.selected += selected;
        self.steps += 1;
        if self.steps.is_multiple_of(self.every) {
            self.marks.push((until.clone(), self.selected));
        }
        self.cursor = until;
        if self.marks.len() > MARKS {
            let mut index = 0;
            self.marks.retain(|_| {
                index += 1;
                index % 2 == 0
            });
            self.every *= 2;
        }
    }

    /// Keys at which to cut the selection into so many parts of about the same size.
    pub fn cuts(&self, parts: usize) -> Vec<String> {
        let mut cuts: Vec<String> = (1..parts as i64)
            .filter_map(|n| {
                self.marks
                    .iter()
                    .find(|(_, selected)| *selected >= self.selected * n / parts as i64)
            })
            .filter(|(_, selected)| *selected < self.selected)
            .map(|(key, _)| key.clone())
            .collect();
        cuts.dedup();
        cuts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(100);

    #[test]
    fn steps_come_to_take_the_target_time() {
        let mut planning = Planning::new(false);
        let mut times = Vec::new();
        for _ in 0..20 {
            let took = Duration::from_micros(planning.read_limit.unsigned_abs() * 1_000);
            times.push(took);
            planning.took(took, TARGET);
        }
        assert_eq!(times.first(), Some(&Duration::from_secs(2)));
        assert!(
            times[8..].iter().all(|took| *took <= 2 * TARGET && *took >= TARGET / 2),
            "{times:?}"
        );
        planning.took(Duration::ZERO, TARGET);
        assert!(
            (0..30)
                .fold(planning, |mut planning, _| {
                    planning.took(Duration::ZERO, TARGET);
                    planning
                })
                .read_limit
                <= MOST
        );
    }

    #[test]
    fn a_step_that_takes_too_long_reads_less_and_at_last_has_more_time() {
        let mut planning = Planning::new(true);
        let mut steps = 0;
        while planning.read_limit > 1 {
            planning.took_too_long();
            steps += 1;
        }
        assert!(steps < 8, "{steps}");
        assert_eq!(planning.seconds, WORKER_STATEMENT_SECONDS);
        planning.took_too_long();
        assert_eq!((planning.read_limit, planning.seconds), (1, 2 * WORKER_STATEMENT_SECONDS));
    }

    #[test]
    fn what_is_counted_in_steps_is_cut_into_even_parts() {
        let mut planning = Planning::new(false);
        (1..=1_000).for_each(|step| planning.count(format!("k-{step:04}"), 7));
        assert_eq!((planning.selected, planning.cursor.as_str()), (7_000, "k-1000"));
        assert!(planning.marks.len() <= MARKS);
        let cuts = planning.cuts(4);
        let positions: Vec<i64> = cuts.iter().map(|cut| cut[2..].parse().unwrap()).collect();
        assert_eq!(positions.len(), 3);
        assert!(
            positions
                .iter()
                .zip([250, 500, 750])
                .all(|(position, wanted)| (position - wanted).abs() <= 40),
            "{positions:?}"
        );
    }

    #[test]
    fn what_lies_all_in_one_place_is_not_cut() {
        let mut planning = Planning::new(false);
        planning.count("a".to_owned(), 0);
        planning.count("b".to_owned(), 100);
        planning.count("c".to_owned(), 0);
        assert_eq!(planning.cuts(4), Vec::<String>::new());
    }

    #[test]
    fn what_a_step_leaves_is_read_by_the_next() {
        let mut planning = Planning::new(true);
        planning.count("a".to_owned(), 3);
        let kept = serde_json::to_value(&planning).unwrap();
        assert_eq!(serde_json::from_value::<Planning>(kept).unwrap(), planning);
    }
}
