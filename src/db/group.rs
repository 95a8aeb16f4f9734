//! Calls of one kind that are waiting when a connection is free are done together: in one statement, by one thread.
//!
//! Nobody waits for others to come. A call that finds a thread at work on its kind waits for it, beside the others that come meanwhile, and is done
//! with them. So a service with little to do serves each call by itself, at once, and one with much to do wakes fewer threads and sends fewer
//! statements than it has calls.
//!
//! Realms take turns, and have at most half of the queue. A call that waits leaves the queue when its caller does.

mod queue;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use diesel::pg::PgConnection;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::db::abandoned::{Abandonable, Doing, Waiting};
use crate::db::deadline;
use crate::db::group::queue::Queue;
use crate::db::pool::{Db, Failed};
use crate::db::share::busy;
use crate::db::{Fail, Work};
use crate::error::{Error, Form, Result};
use crate::limits::database::{GROUP, GROUP_CALLS, QUEUE, QUEUE_TIME};
use crate::shares;

/// How many groups of a kind that only reads are under way at once where one takes long; and of any kind otherwise. More of them would be smaller, and
/// cost the service and the database more for each call.
const READING: usize = 2;
const AT_FIRST: usize = 1;
/// How long a call that only reads waits for the one group before there is another, which does not depend on what the first is doing.
const PATIENCE: Duration = Duration::from_millis(20);
/// How often a call is taken into a group at most. One whose row others have locked each time is done by itself.
const ROUNDS: u8 = 3;

/// A call that can be done together with others of its kind.
pub trait Together: Send + Sync + 'static {
    /// The result of the call.
    type Answer: Send + 'static;
    /// True if it changes nothing. Of such calls two groups are under way at once if one takes long, and of others one.
    const ONLY_READS: bool;
    /// True if each of them is little work for the database, even where its caller's calls compute for long in the service.
    const IS_SMALL: bool;

    /// The outcome of each call, in their order. It is one statement, which waits for nobody: it leaves out a call whose row somebody else has
    /// locked. If it fails, none of them may have changed anything.
    fn together(connection: &mut PgConnection, calls: &[Self]) -> Work<Vec<Outcome<Self::Answer>>>
    where
        Self: Sized;
}

/// What a statement made of one of its calls.
#[derive(Debug)]
pub enum Outcome<A> {
    /// It is done.
    Done(A),
    /// It has changed nothing, and is to be done by itself.
    Alone,
    /// It has changed nothing, since others were at work on its row. It is taken into the next group, a few times, and then done by itself.
    Again,
}

impl<A> From<Option<A>> for Outcome<A> {
    fn from(answer: Option<A>) -> Self {
        answer.map_or(Outcome::Alone, Outcome::Done)
    }
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
    caller: Caller<C::Answer>,
}

/// Who waits for it.
struct Caller<A> {
    realm: Option<i32>,
    deadline: Option<Instant>,
    answer: oneshot::Sender<Result<Option<A>>>,
    party: Party,
    /// In how many groups it was.
    rounds: u8,
}

impl<A> Caller<A> {
    /// One who has left needs no response.
    fn tell(self, answer: Result<Option<A>>) {
        let _ = self.answer.send(answer);
    }
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

/// Those with whom a call is being done, if it is.
#[derive(Clone, Default)]
struct Party(Arc<Mutex<Option<Arc<Shared>>>>);

impl Party {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Shared>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The caller of one of them.
struct Member(Party);

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(shared) = self.0.lock().take()
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
        let share = shares::current();
        // Calls that are expected to compute for long are shared out by caller.
        if !C::IS_SMALL && share.as_ref().is_some_and(|share| share.heavy) {
            return Ok(None);
        }
        let (answer, mut done) = oneshot::channel();
        let party = Party::default();
        let member = Member(party.clone());
        let (realm, deadline) = (share.map(|share| share.realm), deadline::current());
        let caller = Caller { realm, deadline, answer, party, rounds: 0 };
        let ticket = self.0.enter(Entry { call, caller })?;
        let most = self.0.db.options().acquire_timeout;
        let first = if C::ONLY_READS { PATIENCE.min(most) } else { most };
        let mut waited = timeout(first, &mut done).await;
        if waited.is_err() && first < most {
            self.0.drive_up_to(READING);
            waited = timeout(most - first, &mut done).await;
        }
        let done = match waited {
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

    /// Puts a call in the queue, and has a thread work on it if none does.
    fn enter(self: &Arc<Self>, entry: Entry<C>) -> Result<u64> {
        let mut queue = self.queue();
        let Some(ticket) = queue.push(entry.caller.realm, entry, self.db.options().queue_limit)
        else {
            QUEUE.reached();
            return Err(busy());
        };
        drop(queue);
        self.drive_up_to(AT_FIRST);
        Ok(ticket)
    }

    /// Has one thread more work on what waits, if anything does and fewer than this are at work.
    fn drive_up_to(self: &Arc<Self>, most: usize) {
        {
            let mut queue = self.queue();
            if queue.is_empty() || queue.drivers >= most {
                return;
            }
            queue.drivers += 1;
        }
        let driver = Driver { inner: self.clone(), state: Driving::NotYet };
        tokio::task::spawn_blocking(move || driver.drive());
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

    /// The next calls to do, with their tickets. If there are none, the driver stops being one.
    fn next(&mut self) -> Option<Vec<(u64, Entry<C>)>> {
        let mut queue = self.inner.queue();
        let mut entries = Vec::new();
        while entries.len() < GROUP_CALLS {
            let Some((ticket, entry)) = queue.pop() else { break };
            if !entry.caller.answer.is_closed() {
                entries.push((ticket, entry));
            }
        }
        if entries.is_empty() {
            queue.drivers -= 1;
            self.state = Driving::Over;
            return None;
        }
        Some(entries)
    }

    fn work_on(&self, entries: Vec<(u64, Entry<C>)>) {
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
            .map(|(_, entry)| entry.caller.deadline)
            .reduce(|one, other| Some(one?.max(other?)))
            .flatten();
        for (ticket, Entry { call, mut caller }) in entries {
            *caller.party.lock() = Some(shared.clone());
            caller.rounds += 1;
            calls.push(call);
            callers.push((ticket, caller));
        }
        let expected = calls.len();
        let work = |connection: &mut PgConnection| match C::together(connection, &calls)? {
            answers if answers.len() == expected => Ok(answers),
            _ => Err(Fail::from(missing())),
        };
        let outcome = self.inner.db.run_here(deadline, &doing.0, work);
        drop(doing);
        if let Some(waiting) = shared.take() {
            waiting.done();
        }
        match outcome {
            Ok(outcomes) => {
                let mut again = Vec::new();
                for ((call, (ticket, caller)), outcome) in
                    calls.into_iter().zip(callers).zip(outcomes)
                {
                    match outcome {
                        Outcome::Done(answer) => caller.tell(Ok(Some(answer))),
                        Outcome::Again if caller.rounds < ROUNDS => {
                            again.push((ticket, Entry { call, caller }));
                        }
                        Outcome::Alone | Outcome::Again => caller.tell(Ok(None)),
                    }
                }
                self.put_back(again);
            }
            Err(Failed { error, left_nothing: true }) if expected > 1 => {
                tracing::debug!(%error, calls = expected, "calls that were done together failed; each is done by itself");
                for (_, caller) in callers {
                    caller.tell(Ok(None));
                }
            }
            Err(Failed { error, .. }) => {
                // The cause is logged once.
                let first = callers.pop();
                for (_, caller) in callers {
                    caller.tell(Err(error.without_cause()));
                }
                if let Some((_, caller)) = first {
                    caller.tell(Err(error));
                }
            }
        }
    }

    fn put_back(&self, entries: Vec<(u64, Entry<C>)>) {
        if entries.is_empty() {
            return;
        }
        let mut queue = self.inner.queue();
        for (ticket, entry) in entries {
            queue.put_back(entry.caller.realm, ticket, entry);
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
