//! Who has turns, who waits, and who is next. Pure: the time is told, and a waiter is whatever its caller makes of it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::Refused;
use crate::shares::{Party, Rules, leaves_enough};

/// Work that takes no longer is quick.
const QUICK: Duration = Duration::from_millis(50);
/// Work that takes longer takes long.
const LONG: Duration = Duration::from_millis(250);
/// By how much quick work widens what its kind may have, and work that is neither quick nor takes long.
const WIDER: f64 = 0.5;
const LITTLE_WIDER: f64 = 0.1;
/// After this time half of what a realm had is forgotten.
const HALF_LIFE: Duration = Duration::from_secs(2);
/// A realm is forgotten when nothing was heard of it for this long.
const FORGET: Duration = Duration::from_secs(60);

/// A turn that was given, to be given back by [`State::release`].
#[derive(Debug)]
pub struct Grant {
    who: Who,
    id: u64,
    since: Instant,
    /// Whether its kind was known to take long.
    slow: bool,
}

/// Who wants a turn: a realm, key and kind, or the service itself.
#[derive(Clone, Debug)]
struct Who {
    realm: Option<i32>,
    key: Uuid,
    kind: Arc<str>,
}

impl From<Option<Party>> for Who {
    fn from(party: Option<Party>) -> Self {
        match party {
            Some(party) => Who { realm: Some(party.realm), key: party.key, kind: party.kind },
            None => Who { realm: None, key: Uuid::nil(), kind: Arc::default() },
        }
    }
}

/// What became of the wish for a turn.
#[derive(Debug)]
pub enum Entry {
    /// It is given.
    Granted(Grant),
    /// It comes later, unless one [leaves](State::leave) with this ticket.
    Waits(u64, Hindrance),
}

/// What keeps one waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// All turns are taken.
    Busy,
    /// The realm has its share.
    Realm,
    /// The realm has its share of turns for work of this kind, which is not known to be quick.
    Slow,
}

/// Who has turns and who waits.
#[derive(Debug)]
pub struct State<W> {
    rules: Rules,
    free: usize,
    waiting: usize,
    slow_held: usize,
    /// Numbers grants and tickets, and so tells what was earlier.
    clock: u64,
    realms: HashMap<Option<i32>, Realm<W>>,
    /// The realms of which someone waits.
    queued: Vec<Option<i32>>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Realm<W> {
    held: usize,
    waiting: usize,
    /// Seconds of turns that it had of late.
    used: f64,
    used_at: Instant,
    keys: HashMap<Uuid, usize>,
    kinds: HashMap<Arc<str>, Kind>,
    queues: Vec<Queue<W>>,
}

/// What is known of a kind of work of a realm.
#[derive(Debug)]
struct Kind {
    /// The turns that it has, and since when.
    held: Vec<(u64, Instant)>,
    /// How many it may have.
    width: f64,
    /// Whether it took long when it was done last.
    slow: bool,
}

/// The one who is next as far as one has looked.
struct Next {
    /// How many turns the realm has, and how much it had of late.
    rank: (usize, f64),
    /// How many turns the key has, and when its queue was served last.
    order: (usize, u64),
    realm: Option<i32>,
    /// The place of the queue among those of the realm.
    place: usize,
}

/// Those who wait for the same.
#[derive(Debug)]
struct Queue<W> {
    who: Who,
    waiters: VecDeque<(u64, W)>,
    /// When one of them was served last.
    served: u64,
}

impl<W> State<W> {
    pub fn new(rules: Rules) -> Self {
        State { rules, free: rules.total, waiting: 0, slow_held: 0, clock: 0, realms: HashMap::new(), queued: Vec::new(), swept: None }
    }

    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Gives a turn if one is free for this party, and otherwise puts it in the queue.
    pub fn enter(&mut self, party: Option<Party>, waiter: W, now: Instant) -> Result<Entry, Refused> {
        let who = Who::from(party);
        let start = self.rules.slow as f64;
        let realm = self.realms.entry(who.realm).or_insert_with(|| Realm::new(now));
        if !realm.kinds.contains_key(&who.kind) {
            realm.kinds.insert(who.kind.clone(), Kind { held: Vec::new(), width: start, slow: false });
        }
        // Who could have a turn and waits would have been given it, so nobody is passed by.
        let Some(hindrance) = self.hindrance(&who, now) else { return Ok(Entry::Granted(self.grant(who, now))) };
        if self.waiting >= self.rules.waiting {
            return Err(Refused::Queue);
        }
        let ticket = self.tick();
        let Some(realm) = self.realms.get_mut(&who.realm) else { return Err(Refused::Queue) };
        if who.realm.is_some() && realm.waiting >= self.rules.realm_waiting {
            return Err(Refused::RealmQueue);
        }
        if realm.waiting == 0 {
            self.queued.push(who.realm);
        }
        realm.waiting += 1;
        self.waiting += 1;
        match realm.queues.iter_mut().find(|queue| queue.who.key == who.key && queue.who.kind == who.kind) {
            Some(queue) => queue.waiters.push_back((ticket, waiter)),
            None => realm.queues.push(Queue { who, waiters: VecDeque::from([(ticket, waiter)]), served: 0 }),
        }
        Ok(Entry::Waits(ticket, hindrance))
    }

    /// Takes one who waits out of the queue, if it still does.
    pub fn leave(&mut self, ticket: u64) {
        for index in 0..self.queued.len() {
            let id = self.queued[index];
            let Some(realm) = self.realms.get_mut(&id) else { continue };
            for place in 0..realm.queues.len() {
                // Tickets rise, so a queue is in their order.
                if let Ok(found) = realm.queues[place].waiters.binary_search_by_key(&ticket, |(ticket, _)| *ticket) {
                    realm.queues[place].waiters.remove(found);
                    self.waited(id, place);
                    return;
                }
            }
        }
    }

    /// The next who waits and may have a turn, with the turn.
    pub fn next(&mut self, now: Instant) -> Option<(W, Grant)> {
        if self.free == 0 || self.waiting == 0 {
            return None;
        }
        let mut best: Option<Next> = None;
        for id in &self.queued {
            let Some(realm) = self.realms.get(id) else { continue };
            let rank = (realm.held, realm.used(now));
            if best.as_ref().is_some_and(|best| !before(rank, best.rank)) {
                continue;
            }
            for (place, queue) in realm.queues.iter().enumerate() {
                if self.hindrance(&queue.who, now).is_some() {
                    continue;
                }
                let order = (realm.keys.get(&queue.who.key).copied().unwrap_or_default(), queue.served);
                if best.as_ref().is_none_or(|best| best.realm != *id || order < best.order) {
                    best = Some(Next { rank, order, realm: *id, place });
                }
            }
        }
        let Next { realm: id, place, .. } = best?;
        let served = self.tick();
        let queue = self.realms.get_mut(&id)?.queues.get_mut(place)?;
        queue.served = served;
        let who = queue.who.clone();
        let (_, waiter) = queue.waiters.pop_front()?;
        self.waited(id, place);
        Some((waiter, self.grant(who, now)))
    }

    /// Takes a turn back, and learns from how long it took.
    pub fn release(&mut self, grant: Grant, now: Instant) {
        let took = now.saturating_duration_since(grant.since);
        let (narrow, wide) = (self.rules.slow as f64, self.rules.realm as f64);
        if let Some(realm) = self.realms.get_mut(&grant.who.realm) {
            realm.used = realm.used(now) + took.as_secs_f64();
            realm.used_at = now;
            if let Some(kind) = realm.kinds.get_mut(&grant.who.kind) {
                kind.slow = took > LONG;
                kind.width = match took {
                    took if took > LONG => narrow,
                    took if took > QUICK => (kind.width + LITTLE_WIDER).min(wide),
                    _ => (kind.width + WIDER).min(wide),
                };
            }
        }
        self.undo(grant);
        if self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= FORGET) {
            self.swept = Some(now);
            self.realms.retain(|_, realm| realm.held > 0 || realm.waiting > 0 || now.saturating_duration_since(realm.used_at) < FORGET);
        }
    }

    /// Takes a turn back that nobody used.
    pub fn undo(&mut self, grant: Grant) {
        self.free += 1;
        self.slow_held -= usize::from(grant.slow);
        let Some(realm) = self.realms.get_mut(&grant.who.realm) else { return };
        realm.held -= 1;
        if let Some(held) = realm.keys.get_mut(&grant.who.key) {
            *held -= 1;
            if *held == 0 {
                realm.keys.remove(&grant.who.key);
            }
        }
        if let Some(kind) = realm.kinds.get_mut(&grant.who.kind) {
            kind.held.retain(|(id, _)| *id != grant.id);
        }
    }

    /// What keeps it from having a turn now.
    fn hindrance(&self, who: &Who, now: Instant) -> Option<Hindrance> {
        let (Some(realm), 1..) = (self.realms.get(&who.realm), self.free) else { return Some(Hindrance::Busy) };
        if who.realm.is_none() {
            // The service's own work leaves one for calls.
            return (realm.held >= self.rules.total.saturating_sub(1).max(1)).then_some(Hindrance::Busy);
        }
        let kind = realm.kinds.get(&who.kind)?;
        let is_slow = kind.is_slow(now);
        let width = if is_slow { self.rules.slow } else { kind.width as usize };
        if !leaves_enough(realm.held, self.free, self.rules.realm, self.rules.total) {
            return Some(Hindrance::Realm);
        }
        let all_slow = is_slow && self.slow_held >= self.rules.slow_total;
        let last_ones = self.free <= self.rules.kept && width <= self.rules.slow;
        (kind.held.len() >= width || all_slow || last_ones).then_some(Hindrance::Slow)
    }

    fn grant(&mut self, who: Who, now: Instant) -> Grant {
        let id = self.tick();
        let mut slow = false;
        if let Some(realm) = self.realms.get_mut(&who.realm) {
            realm.held += 1;
            *realm.keys.entry(who.key).or_default() += 1;
            if let Some(kind) = realm.kinds.get_mut(&who.kind) {
                slow = who.realm.is_some() && kind.is_slow(now);
                kind.held.push((id, now));
            }
        }
        self.free -= 1;
        self.slow_held += usize::from(slow);
        Grant { who, id, since: now, slow }
    }

    /// One of this queue waits no longer.
    fn waited(&mut self, id: Option<i32>, place: usize) {
        self.waiting -= 1;
        let Some(realm) = self.realms.get_mut(&id) else { return };
        realm.waiting -= 1;
        if realm.queues[place].waiters.is_empty() {
            realm.queues.swap_remove(place);
        }
        if realm.waiting == 0 {
            self.queued.retain(|queued| *queued != id);
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

fn before(one: (usize, f64), other: (usize, f64)) -> bool {
    one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)).is_lt()
}

impl<W> Realm<W> {
    fn new(now: Instant) -> Self {
        Realm { held: 0, waiting: 0, used: 0.0, used_at: now, keys: HashMap::new(), kinds: HashMap::new(), queues: Vec::new() }
    }

    fn used(&self, now: Instant) -> f64 {
        let half_lives = now.saturating_duration_since(self.used_at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.used * 0.5_f64.powf(half_lives)
    }
}

impl Kind {
    /// Whether it takes long: it did when it was done last, or does now.
    fn is_slow(&self, now: Instant) -> bool {
        self.slow || self.held.iter().any(|(_, since)| now.saturating_duration_since(*since) > LONG)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn party(realm: i32, key: u128, kind: &str) -> Option<Party> {
        Some(Party { realm, key: Uuid::from_u128(key), kind: kind.into(), streams: false })
    }

    fn pool(total: usize) -> State<u32> {
        State::new(Rules::of_pool(total, None, None, 1000))
    }

    /// Takes as many turns as there are for this party.
    fn all(state: &mut State<u32>, who: &Option<Party>, now: Instant) -> Vec<Grant> {
        let mut grants = Vec::new();
        while let Entry::Granted(grant) = state.enter(who.clone(), 0, now).unwrap() {
            grants.push(grant);
        }
        let ticket = state.clock;
        state.leave(ticket);
        grants
    }

    /// Has this party do quick work for a while.
    fn warm(state: &mut State<u32>, who: &Option<Party>, now: Instant) {
        for _ in 0..20 {
            let Entry::Granted(grant) = state.enter(who.clone(), 0, now).unwrap() else { panic!("a turn is free") };
            state.release(grant, now + MILLISECOND);
        }
    }

    #[test]
    fn a_kind_begins_with_few_turns_and_gets_more_as_it_is_quick() {
        let (mut state, now) = (pool(10), Instant::now());
        let who = party(1, 1, "get");
        let grants = all(&mut state, &who, now);
        assert_eq!(grants.len(), 2);
        grants.into_iter().for_each(|grant| state.release(grant, now));
        warm(&mut state, &who, now);
        assert_eq!(all(&mut state, &who, now).len(), 7);
        assert_eq!(state.waiting(), 0);
    }

    #[test]
    fn a_kind_that_takes_long_falls_back_and_the_others_of_its_realm_do_not() {
        let (mut state, now) = (pool(10), Instant::now());
        let (list, get) = (party(1, 1, "list"), party(1, 1, "get"));
        warm(&mut state, &list, now);
        warm(&mut state, &get, now);
        let lists = all(&mut state, &list, now);
        assert_eq!(lists.len(), 7, "nobody knows yet");
        let later = now + Duration::from_secs(1);
        assert_eq!(all(&mut state, &get, later).len(), 0, "the realm has its share");
        lists.into_iter().for_each(|grant| state.release(grant, later));
        let lists = all(&mut state, &list, later);
        assert_eq!(lists.len(), 2);
        assert_eq!(all(&mut state, &get, later).len(), 5);
    }

    #[test]
    fn slow_work_of_many_realms_leaves_half_of_the_pool_and_quick_work_the_last_connection() {
        let (mut state, now) = (pool(10), Instant::now());
        let mut held = Vec::new();
        for realm in 1..20 {
            let who = party(realm, 1, "list");
            let Ok(Entry::Granted(grant)) = state.enter(who, 0, now) else { panic!("a turn is free") };
            state.release(grant, now + Duration::from_secs(1));
        }
        let now = now + Duration::from_secs(1);
        for realm in 1..20 {
            held.extend(all(&mut state, &party(realm, 1, "list"), now));
        }
        assert_eq!(held.len(), 5);
        for realm in 21..40 {
            held.extend(all(&mut state, &party(realm, 1, "unknown"), now));
        }
        assert_eq!((held.len(), state.free), (9, 1));
        let quick = party(50, 1, "get");
        let Entry::Waits(..) = state.enter(quick.clone(), 0, now).unwrap() else { panic!("not known to be quick") };
        state.release(held.pop().unwrap(), now);
        let (_, grant) = state.next(now).expect("one waits");
        state.release(grant, now + MILLISECOND);
        for _ in 0..2 {
            let Entry::Granted(grant) = state.enter(quick.clone(), 0, now).unwrap() else { panic!("two are free") };
            state.release(grant, now + MILLISECOND);
        }
        held.extend(all(&mut state, &party(60, 1, "unknown"), now));
        assert_eq!(state.free, 1);
        assert!(matches!(state.enter(quick, 0, now).unwrap(), Entry::Granted(_)));
    }

    #[test]
    fn the_realm_that_has_fewer_goes_first_and_then_the_one_that_had_less() {
        let (mut state, now) = (pool(4), Instant::now());
        let service: Vec<_> = all(&mut state, &None, now);
        assert_eq!(service.len(), 3, "one is left for calls");
        let Entry::Granted(last) = state.enter(party(1, 1, "a"), 0, now).unwrap() else { panic!("one is free") };
        for (realm, waiter) in [(1, 10), (2, 20), (1, 11), (3, 30)] {
            assert!(matches!(state.enter(party(realm, 1, "b"), waiter, now).unwrap(), Entry::Waits(..)));
        }
        let mut order = Vec::new();
        let mut grants = VecDeque::from([last]);
        let mut at = now;
        while let Some(grant) = grants.pop_front() {
            at += MILLISECOND * 10;
            state.release(grant, at);
            while let Some((waiter, grant)) = state.next(at) {
                order.push(waiter);
                grants.push_back(grant);
            }
        }
        assert_eq!(order, [20, 30, 10, 11]);
        drop(service);
    }

    #[test]
    fn within_a_realm_a_key_with_many_calls_does_not_keep_another_waiting() {
        let (mut state, now) = (pool(2), Instant::now());
        let Entry::Granted(first) = state.enter(party(1, 1, "a"), 0, now).unwrap() else { panic!("both are free") };
        for (key, waiter) in [(1, 10), (1, 11), (1, 12), (2, 20)] {
            assert!(matches!(state.enter(party(1, key, "a"), waiter, now).unwrap(), Entry::Waits(..)));
        }
        let mut order = Vec::new();
        let mut grant = Some(first);
        while let Some(held) = grant.take() {
            state.release(held, now + MILLISECOND);
            if let Some((waiter, next)) = state.next(now + MILLISECOND) {
                order.push(waiter);
                grant = Some(next);
            }
        }
        assert_eq!(order.iter().position(|waiter| *waiter == 20), Some(1), "after one of the other's, not after all: {order:?}");
    }

    proptest! {
        /// Whatever is asked for in whatever order: nobody waits for a turn that lies free for it, and at the end nothing is left behind.
        #[test]
        fn turns_are_never_lost_nor_given_twice(
            total in 1_usize..12,
            steps in prop::collection::vec((0_u8..4, 0_i32..4, 0_u128..2, 0_u64..400), 1..200),
        ) {
            let (mut state, mut now) = (pool(total), Instant::now());
            let mut held = Vec::new();
            let mut tickets = Vec::new();
            for (action, realm, key, millis) in steps {
                now += Duration::from_millis(millis);
                match action {
                    0 | 1 => {
                        let who = if realm == 0 { None } else { party(realm, key, if key == 0 { "a" } else { "b" }) };
                        match state.enter(who, 0, now) {
                            Ok(Entry::Granted(grant)) => held.push(grant),
                            Ok(Entry::Waits(ticket, _)) => tickets.push(ticket),
                            Err(refused) => prop_assert!(false, "{:?}", refused),
                        }
                    }
                    2 if !tickets.is_empty() => state.leave(tickets.swap_remove(millis as usize % tickets.len())),
                    _ if !held.is_empty() => {
                        let grant = held.swap_remove(millis as usize % held.len());
                        state.release(grant, now);
                        while let Some((_, grant)) = state.next(now) {
                            held.push(grant);
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(state.free + held.len(), total);
            }
            while let Some(grant) = held.pop() {
                state.release(grant, now);
                while let Some((_, grant)) = state.next(now) {
                    held.push(grant);
                }
            }
            prop_assert_eq!((state.free, state.waiting, state.slow_held, state.queued.len()), (total, 0, 0, 0));
            prop_assert!(state.realms.values().all(|realm| realm.held == 0 && realm.queues.is_empty() && realm.keys.is_empty()));
        }
    }
}
