//! Decides who gets the next turn. Pure: the time is a parameter, and a waiter is any value of the caller.

mod realm;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use self::realm::{Queue, Realm, Requester, WorkKind};
use super::Refused;
use crate::shares::{Party, Rules, leaves_enough};

/// Work that takes no longer is quick, and so is work that takes no longer than twice the usual time.
const QUICK: Duration = Duration::from_millis(50);
const QUICK_TIMES: f64 = 2.0;
/// Work that takes longer takes long, unless ten times the usual time is more: on a slow day nothing is to fall back.
const LONG: Duration = Duration::from_millis(250);
const LONG_TIMES: f64 = 10.0;
/// How much one piece of work changes the usual time, and by how much at most it counts for more than that. So a few that take very long
/// change little, and if all do, that is usual soon.
const WEIGHT: f64 = 0.05;
const AT_MOST_TIMES: f64 = 4.0;
/// By how much quick work widens what its kind may have, and work that is neither quick nor takes long.
const WIDER: f64 = 0.5;
const LITTLE_WIDER: f64 = 0.1;
/// Work that begins later than this after it was given its turn shows that threads wait for processors.
const LATE: Duration = Duration::from_millis(1);
/// By how much that lessens what a realm may have while others call too, and by how much work that begins in time lets it grow again.
const LESS_TIMES: f64 = 0.95;
const MORE: f64 = 0.05;
/// How long the call of another realm counts as one that calls too.
const OTHERS: Duration = Duration::from_secs(1);
/// A realm is forgotten when nothing was heard of it for this long, and sooner where there are many.
const FORGET: Duration = Duration::from_secs(60);
const MANY: usize = 4096;

/// A turn that was given, to be given back by [`State::release`].
#[derive(Debug)]
pub struct Grant {
    requester: Requester,
    id: u64,
    since: Instant,
    /// True if its kind was known to take long.
    slow: bool,
    /// How much later its work began.
    late: Duration,
}

impl Grant {
    /// Its work begins now.
    pub fn begin(&mut self, now: Instant) {
        self.late = now.saturating_duration_since(self.since);
    }
}

/// The outcome of the wish for a turn.
#[derive(Debug)]
pub enum Entry {
    /// It is given.
    Granted(Grant),
    /// It comes later, unless one [leaves](State::leave) with this ticket.
    Waits(u64, Hindrance),
}

/// The reason why one waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// All turns are taken.
    Busy,
    /// The realm has its share.
    Realm,
    /// The realm has its share of turns for work that computes for long.
    Heavy,
    /// The realm has its share of turns for work of this kind, which is not known to be quick.
    Slow,
}

/// The turns that are taken, and the queue.
#[derive(Debug)]
pub struct State<W> {
    rules: Rules,
    free: usize,
    waiting: usize,
    slow_held: usize,
    /// How many seconds a piece of work takes of late, of whomever.
    usual: f64,
    /// The most that one realm has while others call too: as many as the processors keep up with.
    fair: f64,
    /// The realm that wanted a turn last, and when that was last another one than before.
    last: Option<i32>,
    changed: Option<Instant>,
    /// Numbers grants and tickets in their order.
    clock: u64,
    realms: HashMap<Option<i32>, Realm<W>>,
    /// The realms of which someone waits.
    queued: Vec<Option<i32>>,
    /// When realms were forgotten last, and how many there may be before that is done again.
    swept: Option<Instant>,
    many: usize,
}

/// The next one so far in the search.
struct Next {
    /// How many turns the realm has, and how much it had of late.
    rank: (usize, f64),
    /// How many turns the key has, and when its queue was served last.
    order: (usize, u64),
    realm: Option<i32>,
    /// The number of the queue among those of the realm.
    number: usize,
}

impl<W> State<W> {
    pub fn new(rules: Rules) -> Self {
        State {
            rules,
            free: rules.total,
            waiting: 0,
            slow_held: 0,
            usual: 0.0,
            fair: rules.realm as f64,
            last: None,
            changed: None,
            clock: 0,
            realms: HashMap::new(),
            queued: Vec::new(),
            swept: None,
            many: MANY,
        }
    }

    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Gives a turn if one is free for this party, and otherwise puts it in the queue.
    pub fn enter(
        &mut self,
        party: Option<Party>,
        waiter: W,
        now: Instant,
    ) -> Result<Entry, Refused> {
        let requester = Requester::from(party);
        if requester.realm.is_some() && requester.realm != self.last {
            self.changed = self.last.and(Some(now));
            self.last = requester.realm;
        }
        let start = self.rules.slow as f64;
        let realm = self.realms.entry(requester.realm).or_insert_with(|| Realm::new(now));
        if !realm.kinds.contains_key(&requester.kind) {
            realm.kinds.insert(
                requester.kind.clone(),
                WorkKind { granted: Vec::new(), width: start, slow: false },
            );
        }
        // A waiter that could have a turn would have been given it, so nobody is passed over.
        let Some(hindrance) = self.hindrance(&requester, now) else {
            return Ok(Entry::Granted(self.grant(requester, now)));
        };
        if self.waiting >= self.rules.waiting {
            return Err(Refused::Queue);
        }
        let ticket = self.tick();
        let Some(realm) = self.realms.get_mut(&requester.realm) else { return Err(Refused::Queue) };
        if requester.realm.is_some() && realm.waiting >= self.rules.realm_waiting {
            return Err(Refused::RealmQueue);
        }
        if realm.waiting == 0 {
            self.queued.push(requester.realm);
        }
        realm.waiting += 1;
        self.waiting += 1;
        match realm.queues.iter_mut().find(|queue| queue.requester == requester) {
            Some(queue) => queue.waiters.push_back((ticket, waiter)),
            None => realm.queues.push(Queue {
                requester,
                waiters: VecDeque::from([(ticket, waiter)]),
                served: 0,
            }),
        }
        Ok(Entry::Waits(ticket, hindrance))
    }

    /// Removes a waiter from the queue, if it still waits.
    pub fn leave(&mut self, ticket: u64) {
        for index in 0..self.queued.len() {
            let id = self.queued[index];
            let Some(realm) = self.realms.get_mut(&id) else { continue };
            for number in 0..realm.queues.len() {
                // Tickets rise, so a queue is in their order.
                if let Ok(found) = realm.queues[number]
                    .waiters
                    .binary_search_by_key(&ticket, |(ticket, _)| *ticket)
                {
                    realm.queues[number].waiters.remove(found);
                    self.waited(id, number);
                    return;
                }
            }
        }
    }

    /// The next waiter that may have a turn, with the turn.
    pub fn next(&mut self, now: Instant) -> Option<(W, Grant)> {
        if self.free == 0 || self.waiting == 0 {
            return None;
        }
        let mut best: Option<Next> = None;
        for id in &self.queued {
            let Some(realm) = self.realms.get(id) else { continue };
            let rank = (realm.in_use, realm.used(now));
            if best.as_ref().is_some_and(|best| !before(rank, best.rank)) {
                continue;
            }
            for (number, queue) in realm.queues.iter().enumerate() {
                if self.hindrance(&queue.requester, now).is_some() {
                    continue;
                }
                let order = (
                    realm.keys.get(&queue.requester.key).copied().unwrap_or_default(),
                    queue.served,
                );
                if best.as_ref().is_none_or(|best| best.realm != *id || order < best.order) {
                    best = Some(Next { rank, order, realm: *id, number });
                }
            }
        }
        let Next { realm: id, number, .. } = best?;
        let served = self.tick();
        let queue = self.realms.get_mut(&id)?.queues.get_mut(number)?;
        queue.served = served;
        let requester = queue.requester.clone();
        let (_, waiter) = queue.waiters.pop_front()?;
        self.waited(id, number);
        Some((waiter, self.grant(requester, now)))
    }

    /// Takes a turn back, and learns from how long it took and from how much later than given its work began.
    pub fn release(&mut self, grant: Grant, now: Instant) {
        self.fair = if grant.late > LATE { self.fair * LESS_TIMES } else { self.fair + MORE };
        self.fair = self.fair.clamp(self.rules.crowded as f64, self.rules.realm as f64);
        let took = now.saturating_duration_since(grant.since);
        let (narrow, wide) = (self.rules.slow as f64, self.rules.realm as f64);
        let (quick, long) = (self.quick(), self.long());
        self.learn(took);
        if let Some(realm) = self.realms.get_mut(&grant.requester.realm) {
            realm.used = realm.used(now) + took.as_secs_f64();
            realm.used_at = now;
            if let Some(kind) = realm.kinds.get_mut(&grant.requester.kind) {
                kind.slow = took > long;
                kind.width = match took {
                    took if took > long => narrow,
                    took if took > quick => (kind.width + LITTLE_WIDER).min(wide),
                    _ => (kind.width + WIDER).min(wide),
                };
            }
        }
        self.undo(grant);
        let too_many = self.realms.len() >= self.many;
        if too_many || self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= FORGET)
        {
            let keep = if too_many { Duration::ZERO } else { FORGET };
            self.realms.retain(|_, realm| {
                realm.in_use > 0
                    || realm.waiting > 0
                    || now.saturating_duration_since(realm.used_at) < keep
            });
            // Twice as many as are left, so that it is not done again and again where all are in use.
            self.many = MANY.max(self.realms.len() * 2);
            self.swept = Some(now);
        }
    }

    fn learn(&mut self, took: Duration) {
        let at_most = (self.usual * AT_MOST_TIMES).max(QUICK.as_secs_f64());
        self.usual += (took.as_secs_f64().min(at_most) - self.usual) * WEIGHT;
    }

    fn quick(&self) -> Duration {
        QUICK.max(Duration::from_secs_f64(self.usual * QUICK_TIMES))
    }

    fn long(&self) -> Duration {
        LONG.max(Duration::from_secs_f64(self.usual * LONG_TIMES))
    }

    /// Takes a turn back that nobody used.
    pub fn undo(&mut self, grant: Grant) {
        self.free += 1;
        self.slow_held -= usize::from(grant.slow);
        let Some(realm) = self.realms.get_mut(&grant.requester.realm) else { return };
        realm.in_use -= 1;
        realm.heavy -= usize::from(grant.requester.heavy);
        if let Some(in_use) = realm.keys.get_mut(&grant.requester.key) {
            *in_use -= 1;
            if *in_use == 0 {
                realm.keys.remove(&grant.requester.key);
            }
        }
        if let Some(kind) = realm.kinds.get_mut(&grant.requester.kind) {
            kind.granted.retain(|(id, _)| *id != grant.id);
        }
    }

    /// The reason why it has no turn now.
    fn hindrance(&self, requester: &Requester, now: Instant) -> Option<Hindrance> {
        let (Some(realm), 1..) = (self.realms.get(&requester.realm), self.free) else {
            return Some(Hindrance::Busy);
        };
        if requester.realm.is_none() {
            // The service's own work leaves one for calls.
            return (realm.in_use >= self.rules.total.saturating_sub(1).max(1))
                .then_some(Hindrance::Busy);
        }
        let kind = realm.kinds.get(&requester.kind)?;
        let is_slow = kind.is_slow(now, self.long());
        let width = if is_slow { self.rules.slow } else { kind.width as usize };
        let others_call =
            self.changed.is_some_and(|changed| now.saturating_duration_since(changed) < OTHERS);
        if others_call && requester.heavy && realm.heavy >= self.rules.heavy {
            return Some(Hindrance::Heavy);
        }
        let crowded = others_call && realm.in_use >= self.fair as usize;
        if crowded || !leaves_enough(realm.in_use, self.free, self.rules.realm, self.rules.total) {
            return Some(Hindrance::Realm);
        }
        let all_slow = is_slow && self.slow_held >= self.rules.slow_total;
        let last_ones = self.free <= self.rules.kept && width <= self.rules.slow;
        (kind.granted.len() >= width || all_slow || last_ones).then_some(Hindrance::Slow)
    }

    fn grant(&mut self, requester: Requester, now: Instant) -> Grant {
        let (id, long) = (self.tick(), self.long());
        let mut slow = false;
        if let Some(realm) = self.realms.get_mut(&requester.realm) {
            realm.in_use += 1;
            realm.heavy += usize::from(requester.heavy);
            *realm.keys.entry(requester.key).or_default() += 1;
            if let Some(kind) = realm.kinds.get_mut(&requester.kind) {
                slow = requester.realm.is_some() && kind.is_slow(now, long);
                kind.granted.push((id, now));
            }
        }
        self.free -= 1;
        self.slow_held += usize::from(slow);
        Grant { requester, id, since: now, slow, late: Duration::ZERO }
    }

    /// One of this queue waits no longer.
    fn waited(&mut self, id: Option<i32>, number: usize) {
        self.waiting -= 1;
        let Some(realm) = self.realms.get_mut(&id) else { return };
        realm.waiting -= 1;
        if realm.queues[number].waiters.is_empty() {
            realm.queues.swap_remove(number);
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

#[cfg(test)]
mod tests;
