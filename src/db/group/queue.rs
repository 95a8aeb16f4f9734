//! The calls that wait to be done together: realms take turns, and each is served in order.

use std::collections::{HashMap, VecDeque};

/// The waiting calls, by realm.
pub(super) struct Queue<T> {
    /// How many threads are at work.
    pub drivers: usize,
    waiting: usize,
    tickets: u64,
    realms: HashMap<Option<i32>, VecDeque<(u64, T)>>,
    /// The realms that have something waiting, in the order of their turns.
    turns: VecDeque<Option<i32>>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue { drivers: 0, waiting: 0, tickets: 0, realms: HashMap::new(), turns: VecDeque::new() }
    }
}

impl<T> Queue<T> {
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Puts something in the queue of a realm, unless too much waits.
    pub fn push(&mut self, realm: Option<i32>, entry: T, limit: usize) -> Option<u64> {
        let of_realm = self.realms.get(&realm).map_or(0, VecDeque::len);
        if self.waiting >= limit || of_realm >= limit.div_ceil(2) {
            return None;
        }
        let waiting = self.realms.entry(realm).or_default();
        if waiting.is_empty() {
            self.turns.push_back(realm);
        }
        self.tickets += 1;
        waiting.push_back((self.tickets, entry));
        self.waiting += 1;
        Some(self.tickets)
    }

    /// The next of the realm whose turn it is.
    pub fn pop(&mut self) -> Option<(u64, T)> {
        let realm = self.turns.pop_front()?;
        let waiting = self.realms.get_mut(&realm)?;
        let popped = waiting.pop_front()?;
        self.waiting -= 1;
        if waiting.is_empty() {
            self.realms.remove(&realm);
        } else {
            self.turns.push_back(realm);
        }
        Some(popped)
    }

    /// Puts back what was taken, with its ticket, before what came after it. It had its place, so there is no limit.
    pub fn put_back(&mut self, realm: Option<i32>, ticket: u64, entry: T) {
        let waiting = self.realms.entry(realm).or_default();
        if waiting.is_empty() {
            self.turns.push_back(realm);
        }
        let place = waiting.partition_point(|(other, _)| *other < ticket);
        waiting.insert(place, (ticket, entry));
        self.waiting += 1;
    }

    /// Takes out what still waits. Returns whether it did.
    pub fn remove(&mut self, ticket: u64) -> bool {
        let found = self.realms.iter_mut().find_map(|(realm, waiting)| {
            // Tickets rise.
            let place = waiting.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()?;
            waiting.remove(place);
            Some((*realm, waiting.is_empty()))
        });
        let Some((realm, is_empty)) = found else { return false };
        self.waiting -= 1;
        if is_empty {
            self.realms.remove(&realm);
            self.turns.retain(|turn| *turn != realm);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(queue: &mut Queue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop()).map(|(_, entry)| entry).collect()
    }

    #[test]
    fn realms_take_turns_and_each_is_served_in_order() {
        let mut queue = Queue::default();
        for (realm, entry) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (3, "c1"), (2, "b2")] {
            assert!(queue.push(Some(realm), entry, 100).is_some());
        }
        assert_eq!(drained(&mut queue), ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert!(queue.realms.is_empty() && queue.turns.is_empty() && queue.waiting == 0);
    }

    #[test]
    fn one_realm_has_half_of_the_queue() {
        let mut queue = Queue::default();
        let pushed = |queue: &mut Queue<_>, realm| queue.push(Some(realm), "x", 4).is_some();
        assert_eq!(
            [1, 1, 1, 2, 2, 3].map(|realm| pushed(&mut queue, realm)),
            [true, true, false, true, true, false]
        );
        assert_eq!(drained(&mut queue).len(), 4);
        assert!(queue.realms.is_empty());
    }

    #[test]
    fn what_is_taken_out_is_not_done() {
        let mut queue = Queue::default();
        let [first, second, third] = [(1, "a1"), (2, "b1"), (1, "a2")]
            .map(|(realm, entry)| queue.push(Some(realm), entry, 100).unwrap());
        assert!(queue.remove(second) && queue.remove(first) && !queue.remove(first));
        assert_eq!(drained(&mut queue), ["a2"]);
        assert!(!queue.remove(third));
        assert_eq!((queue.waiting, queue.turns.len()), (0, 0));
    }

    #[test]
    fn what_is_put_back_has_its_place_again() {
        let mut queue = Queue::default();
        for (realm, entry) in [(1, "a1"), (1, "a2"), (2, "b1")] {
            assert!(queue.push(Some(realm), entry, 4).is_some());
        }
        let taken: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        let later = queue.push(Some(1), "a4", 4).unwrap();
        for (ticket, entry) in taken.into_iter().rev() {
            queue.put_back(Some(if entry == "b1" { 2 } else { 1 }), ticket, entry);
        }
        assert_eq!(queue.waiting, 4);
        assert!(queue.remove(later));
        assert_eq!(drained(&mut queue), ["a1", "b1", "a2"]);
        assert!(queue.realms.is_empty() && queue.turns.is_empty() && queue.waiting == 0);
    }
}
