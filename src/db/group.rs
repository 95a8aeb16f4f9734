//! Calls of one kind that are waiting when a connection is free are done together: in one statement, by one thread.
//!
//! Nobody waits for others to come. A call that finds a thread at work on its kind waits for it, beside the others that come meanwhile, and is done
//! with them. So a service with little to do serves each call by itself, at once, and one with much to do wakes fewer threads and sends fewer
//! statements than it has calls.
//!
//! Realms take turns, and have at most half of the queue. A call that waits leaves the queue when its caller does.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use diesel::pg::PgConnection;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::db::abandoned::{Abandonable, Doing, Waiting};
use crate::db::deadline;
use crate::db::pool::{Db, Failed};
use crate::db::share::busy;
use crate::db::{Fail, Work};
use crate::error::{Error, Form, Result};
use crate::limits::database::{GROUP, GROUP_CALLS, QUEUE, QUEUE_TIME};
use crate::shares;

/// How many groups of a kind are under way at once that only reads, and of one that changes something.
const READING: usize = 2;
const CHANGING: usize = 1;

/// A call that can be done together with others of its kind.
pub trait Together: Send + Sync + 'static {
    /// The result of the call.
    type Answer: Send + 'static;
    /// True if it changes nothing. Of such calls two groups are under way at once, and of others one.
    const ONLY_READS: bool;
    /// True if each of them is little work for the database, even where its caller's calls compute for long in the service.
    const IS_SMALL: bool;

    /// The result of each call, in their order; none for one that has changed nothing and is to be done by itself. It is one statement,
    /// which waits for nobody: a call whose row somebody else has locked is done by itself. If it fails, none of them may have changed
    /// anything.
    fn together(connection: &mut PgConnection, calls: &[Self]) -> Work<Vec<Option<Self::Answer>>>
    where
        Self: Sized;
}

/// The responses to so many calls, each at the place, from 1, that its row names; none for a call without a row.
pub fn placed<T>(rows: impl IntoIterator<Item = (i64, T)>, calls: usize) -> Vec<Option<T>> {
    let mut answers: Vec<Option<T>> = std::iter::repeat_with(|| None).take(calls).collect();
    for (place, answer) in rows {
        answers[place as usize - 1] = Some(answer);
    }
    answers
}

/// The calls of one kind on one database. Clones share them.
pub struct Group<C: Together>(Arc<Inner<C>>);

struct Inner<C: Together> {
    db: Db,
    queue: Mutex<Queue<Entry<C>>>,
}

/// A call that waits.
struct Entry<C: Together> {
    call: C,
    deadline: Option<Instant>,
    answer: oneshot::Sender<Result<Option<C::Answer>>>,
    party: Arc<OnceLock<Arc<Shared>>>,
}

/// Those whose calls are done together, for as long as one of them waits.
struct Shared {
    waiting: Mutex<Option<Waiting>>,
    left: AtomicUsize,
}

impl Shared {
    fn take(&self) -> Option<Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The caller of one of them.
struct Member(Arc<OnceLock<Arc<Shared>>>);

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(shared) = self.0.get()
            && shared.left.fetch_sub(1, Ordering::AcqRel) == 1
        {
            // The last caller has left; if the work is not over, it is abandoned.
            drop(shared.take());
        }
    }
}

impl<C: Together> Clone for Group<C> {
    fn clone(&self) -> Self {
        Group(self.0.clone())
    }
}

impl<C: Together> Group<C> {
    /// Of this database.
    pub fn new(db: &Db) -> Self {
        Group(Arc::new(Inner { db: db.clone(), queue: Mutex::default() }))
    }

    /// Does the call beside others. None if it is to be done by itself: then nothing was done.
    pub async fn call(&self, call: C) -> Result<Option<C::Answer>> {
        Form::check_current()?;
        let party = shares::current();
        // Calls that are expected to compute for long are shared out by caller.
        if !C::IS_SMALL && party.as_ref().is_some_and(|party| party.heavy) {
            return Ok(None);
        }
        let (answer, mut done) = oneshot::channel();
        let member = Member(Arc::default());
        let entry = Entry { call, deadline: deadline::current(), answer, party: member.0.clone() };
        let (ticket, driver) = self.0.enter(party.map(|party| party.realm), entry)?;
        if let Some(driver) = driver {
            tokio::task::spawn_blocking(move || driver.drive());
        }
        let done = match tokio::time::timeout(self.0.db.options().acquire_timeout, &mut done).await
        {
            Ok(done) => done,
            Err(_) if self.0.queue().remove(ticket) => {
                QUEUE_TIME.reached();
                return Err(busy());
            }
            Err(_) => done.await,
        };
        drop(member);
        match done {
            Ok(answer) => answer,
            // Its driver panicked. That may be another's doing, but what was to be changed may have been.
            Err(_) if C::ONLY_READS => Ok(None),
            Err(_) => Err(missing()),
        }
    }
}

fn missing() -> Error {
    Error::internal("a call that was done with others has no response")
}

impl<C: Together> Inner<C> {
    fn queue(&self) -> MutexGuard<'_, Queue<Entry<C>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a call in the queue, with a driver if there may be one more.
    fn enter(
        self: &Arc<Self>,
        realm: Option<i32>,
        entry: Entry<C>,
    ) -> Result<(u64, Option<Driver<C>>)> {
        let mut queue = self.queue();
        let Some(ticket) = queue.push(realm, entry, self.db.options().queue_limit) else {
            QUEUE.reached();
            return Err(busy());
        };
        let may_drive = queue.drivers < if C::ONLY_READS { READING } else { CHANGING };
        queue.drivers += usize::from(may_drive);
        Ok((ticket, may_drive.then(|| Driver { inner: self.clone(), state: Driving::NotYet })))
    }
}

/// A thread that does what waits, until nothing does.
struct Driver<C: Together> {
    inner: Arc<Inner<C>>,
    state: Driving,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Driving {
    NotYet,
    Now,
    Over,
}

impl<C: Together> Driver<C> {
    fn drive(mut self) {
        self.state = Driving::Now;
        while let Some(entries) = self.next() {
            self.work_on(entries);
        }
    }

    /// The next calls to do. If there are none, the driver stops being one.
    fn next(&mut self) -> Option<Vec<Entry<C>>> {
        let mut queue = self.inner.queue();
        let mut entries = Vec::new();
        while entries.len() < GROUP_CALLS {
            let Some(entry) = queue.pop() else { break };
            if !entry.answer.is_closed() {
                entries.push(entry);
            }
        }
        if entries.is_empty() {
            queue.drivers -= 1;
            self.state = Driving::Over;
            return None;
        }
        Some(entries)
    }

    fn work_on(&self, entries: Vec<Entry<C>>) {
        if entries.len() == GROUP_CALLS {
            GROUP.reached();
        }
        let abandonable = Arc::new(Abandonable::default());
        let shared = Arc::new(Shared {
            waiting: Mutex::new(Some(Waiting::new(abandonable.clone()))),
            left: AtomicUsize::new(entries.len()),
        });
        let doing = Doing(abandonable);
        let mut calls = Vec::with_capacity(entries.len());
        let mut callers = Vec::with_capacity(entries.len());
        // One that does not know how long it waits has as long as any.
        let deadline = entries
            .iter()
            .map(|entry| entry.deadline)
            .reduce(|one, other| Some(one?.max(other?)))
            .flatten();
        for Entry { call, answer, party, .. } in entries {
            let _ = party.set(shared.clone());
            calls.push(call);
            callers.push(answer);
        }
        let expected = calls.len();
        let work = move |connection: &mut PgConnection| match C::together(connection, &calls)? {
            answers if answers.len() == expected => Ok(answers),
            _ => Err(Fail::from(missing())),
        };
        let outcome = self.inner.db.run_here(deadline, &doing.0, work);
        drop(doing);
        if let Some(waiting) = shared.take() {
            waiting.done();
        }
        // A caller who has left needs no response.
        match outcome {
            Ok(answers) => {
                for (caller, answer) in callers.into_iter().zip(answers) {
                    let _ = caller.send(Ok(answer));
                }
            }
            Err(Failed { error, left_nothing: true }) if expected > 1 => {
                tracing::debug!(%error, calls = expected, "calls that were done together failed; each is done by itself");
                for caller in callers {
                    let _ = caller.send(Ok(None));
                }
            }
            Err(Failed { error, .. }) => {
                // The cause is logged once.
                let first = callers.pop();
                for caller in callers {
                    let _ = caller.send(Err(error.without_cause()));
                }
                let _ = first.map(|caller| caller.send(Err(error)));
            }
        }
    }
}

impl<C: Together> Drop for Driver<C> {
    /// Where work panics another one continues with those who wait. One that never begins is not a driver: the process ends.
    fn drop(&mut self) {
        match (self.state, Handle::try_current()) {
            (Driving::Over, _) => {}
            (Driving::Now, Ok(runtime)) => {
                let next = Driver { inner: self.inner.clone(), state: Driving::NotYet };
                runtime.spawn_blocking(move || next.drive());
            }
            (Driving::NotYet | Driving::Now, _) => self.inner.queue().drivers -= 1,
        }
    }
}

/// The waiting calls, by realm.
struct Queue<T> {
    /// How many threads are at work.
    drivers: usize,
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
    /// Puts something in the queue of a realm, unless too much waits.
    fn push(&mut self, realm: Option<i32>, entry: T, limit: usize) -> Option<u64> {
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
    fn pop(&mut self) -> Option<T> {
        let realm = self.turns.pop_front()?;
        let waiting = self.realms.get_mut(&realm)?;
        let (_, entry) = waiting.pop_front()?;
        self.waiting -= 1;
        if waiting.is_empty() {
            self.realms.remove(&realm);
        } else {
            self.turns.push_back(realm);
        }
        Some(entry)
    }

    /// Takes out what still waits. Returns whether it did.
    fn remove(&mut self, ticket: u64) -> bool {
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
        std::iter::from_fn(|| queue.pop()).collect()
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
}
