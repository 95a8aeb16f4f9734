//! How large a chunk may be, by how long chunks take. Pure.

use std::time::Duration;

use crate::task::work::Moved;

/// Chunks begin at this size, unless they must be smaller.
const FIRST: i64 = 500;
/// Below this size a chunk costs as much as its commit, so making it smaller gains nothing.
const LEAST: i64 = 100;

/// Where few are selected, chunks begin to read so many.
const FIRST_READ: i64 = 50_000;
/// They read no fewer: finding out where to end costs as much.
const LEAST_READ: i64 = 1_000;

/// How long each statement of a chunk may take, unless it is about one object alone.
const STATEMENT_TIME: Duration =
    Duration::from_secs(crate::limits::database::WORKER_STATEMENT_SECONDS);

/// The size of the next chunk. It begins small and moves to where a chunk takes the target time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSize {
    now: i64,
    most: i64,
    target: Duration,
    read_limit: Option<i64>,
    time: Duration,
    /// A chunk took too long: from then on there is a limit to how many rows are read.
    wary: bool,
}

impl ChunkSize {
    /// For chunks of at most `most` objects that shall take `target`.
    pub fn new(most: i64, target: Duration) -> Self {
        ChunkSize {
            now: FIRST.min(most),
            most,
            target,
            read_limit: Some(FIRST_READ),
            time: STATEMENT_TIME,
            wary: false,
        }
    }

    /// How many objects the next chunk may take up.
    pub fn get(&self) -> i64 {
        self.now
    }

    /// How many it may read to find them. No limit if it finds enough in time, since a limit costs a query.
    pub fn read_limit(&self) -> Option<i64> {
        self.read_limit
    }

    /// How long each statement of it may take.
    pub fn time(&self) -> Duration {
        self.time
    }

    /// A chunk took too long and was rolled back. The next one is smaller; where it cannot be smaller, it gets more time.
    pub fn took_too_long(&mut self) {
        self.wary = true;
        if self.now > 1 || self.read_limit != Some(1) {
            self.now = (self.now / 4).max(1);
            self.read_limit = Some((self.read_limit.unwrap_or(FIRST_READ) / 4).max(1));
        } else {
            self.time = self.time.saturating_mul(2);
        }
    }

    /// Learns from the result of a chunk and how long it took: at most twice the size follows, and at least half. A chunk that read fewer
    /// objects than it might have says nothing about larger ones; one that read all it may sets how many that is to be.
    pub fn learn(&mut self, moved: Moved, took: Duration) {
        let share = self.target.as_secs_f64() / took.as_secs_f64().max(1e-6);
        let fitting = |now: i64| ((now as f64 * share) as i64).clamp(now / 2, now * 2);
        if moved.reached_limit {
            self.read_limit = self
                .read_limit
                .map(|read_limit| fitting(read_limit).max(LEAST_READ.min(read_limit)));
            return;
        }
        if share > 0.5 && !self.wary {
            self.read_limit = None;
        } else if share < 0.25 {
            self.read_limit = self.read_limit.or(Some(FIRST_READ));
        }
        let next = fitting(self.now).clamp(LEAST.min(self.most).min(self.now), self.most);
        if next < self.now || moved.met >= self.now {
            self.now = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(100);

    fn full(met: i64) -> Moved {
        Moved { met, processed: met, ..Moved::default() }
    }

    /// The sizes of chunks of which each object takes so many microseconds.
    fn sizes(most: i64, micros: u64, count: usize) -> Vec<i64> {
        let mut size = ChunkSize::new(most, TARGET);
        let chunk = |_| {
            let now = size.get();
            size.learn(full(now), Duration::from_micros(now.unsigned_abs() * micros));
            now
        };
        (0..count).map(chunk).collect()
    }

    #[test]
    fn chunks_begin_small_and_come_to_take_the_target_time() {
        assert_eq!(sizes(10_000, 20, 6), [500, 1_000, 2_000, 4_000, 5_000, 5_000]);
        assert_eq!(
            sizes(10_000, 1, 7).last(),
            Some(&10_000),
            "the largest size is kept to, however fast chunks are"
        );
        assert_eq!(sizes(10_000, 500, 5), [500, 250, 200, 200, 200]);
        assert_eq!(
            sizes(10_000, 1_000_000, 5).last(),
            Some(&LEAST),
            "there is a least size, however slow chunks are"
        );
        assert_eq!(sizes(10, 1_000_000, 3), [10, 10, 10]);
    }

    #[test]
    fn a_chunk_that_met_little_does_not_make_the_next_one_larger() {
        let mut size = ChunkSize::new(10_000, TARGET);
        size.learn(full(3), Duration::from_millis(1));
        assert_eq!(size.get(), FIRST);
        size.learn(full(3), Duration::from_secs(1));
        assert_eq!(size.get(), FIRST / 2, "one that took long makes it smaller, whatever it met");
    }

    /// Where one in so many is selected, and reading one takes a microsecond: how long the chunks of a while take.
    fn times(one_in: i64) -> Vec<Duration> {
        let mut size = ChunkSize::new(10_000, TARGET);
        let chunk = |_| {
            let read = (size.get() * one_in).min(size.read_limit().unwrap_or(i64::MAX));
            let took = Duration::from_micros(read.unsigned_abs());
            size.learn(
                Moved { reached_limit: read < size.get() * one_in, ..full(read / one_in) },
                took,
            );
            took
        };
        (0..100).map(chunk).collect()
    }

    #[test]
    fn a_chunk_reads_no_further_than_it_may_take_long() {
        for one_in in [1, 10, 100, 1_000, 1_000_000, 1_000_000_000] {
            let times = times(one_in);
            assert!(times.iter().all(|took| *took <= 4 * TARGET), "one in {one_in}: {times:?}");
            let late = &times[10..];
            let fits =
                |took: &Duration| *took <= 2 * TARGET && (*took >= TARGET / 2 || one_in < 10);
            assert!(late.iter().all(fits), "one in {one_in}: {late:?}");
        }
        assert_eq!(
            ChunkSize::new(10, TARGET).read_limit(),
            Some(FIRST_READ),
            "nothing is known before the first one"
        );
    }

    #[test]
    fn where_enough_is_found_in_time_nothing_is_counted_ahead() {
        let mut size = ChunkSize::new(10_000, TARGET);
        size.learn(full(FIRST), Duration::from_millis(10));
        assert_eq!(size.read_limit(), None);
        size.learn(full(1_000), Duration::from_secs(2));
        assert_eq!(size.read_limit(), Some(FIRST_READ), "until a chunk takes too long");
    }

    #[test]
    fn a_chunk_that_is_undone_is_done_in_smaller_ones_which_grow_again() {
        let mut size = ChunkSize::new(10_000, TARGET);
        let mut undone = 0;
        while (size.get(), size.read_limit()) != (1, Some(1)) {
            size.took_too_long();
            undone += 1;
        }
        assert!(undone < 10 && size.time() == STATEMENT_TIME, "{undone}");
        size.took_too_long();
        assert_eq!(size.time(), 2 * STATEMENT_TIME, "one object has more time");
        size.learn(Moved { reached_limit: true, ..full(1) }, Duration::from_secs(7));
        assert_eq!(
            (size.get(), size.read_limit()),
            (1, Some(1)),
            "nothing makes the next one larger while one takes so long"
        );
        for _ in 0..20 {
            size.learn(full(size.get()), Duration::from_micros(10));
            size.learn(Moved { reached_limit: true, ..full(0) }, Duration::from_micros(10));
        }
        assert_eq!(size.get(), 10_000);
        assert!(
            size.read_limit().is_some_and(|read_limit| read_limit > FIRST_READ),
            "it reads far again, and never without a limit: {:?}",
            size.read_limit()
        );
    }
}
