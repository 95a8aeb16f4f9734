//! Does work that takes the processor long beside the threads of the runtime, a bounded amount of it at a time and in a fair order among callers.
//!
//! The computation of a call depends on what its caller sends and has stored: a body of megabytes that is read, a page of large entities
//! that is written and compressed, a filter with hundreds of conditions. On a thread of the runtime, all other calls of that thread wait
//! for it. Nobody can know beforehand whether a call will compute for long, so each of its steps is measured, and remembered by caller and
//! method: while such calls take long, they run their steps off the runtime. A request that declares a large body does so from the
//! beginning.

use std::cell::Cell;
use std::collections::HashMap;
use std::future::Future;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response, header};
use http_body::{Body, Frame};
use nix::time::{ClockId, clock_gettime};
use tokio::runtime::{Handle, RuntimeFlavor};
use tower::{BoxError, ServiceExt};
use uuid::Uuid;

use super::stack::Stack;
use crate::limits::shares::{COMPUTE, COMPUTE_BYTES, STEP, STEP_MICROSECONDS};
use crate::server::within::as_long_as;
use crate::shares::{self, Party, Rules, Turn, Turns};

/// A step that takes the processor longer is to run off the runtime.
const LONG: Duration = Duration::from_micros(STEP_MICROSECONDS);
/// After so many steps that took no longer a call does the next ones on the runtime's threads again.
const SHORT_STEPS: u32 = 16;
/// A long step counts by how many times it was too long, up to this; a call without one takes one off.
const COUNT_AT_MOST: u32 = 16;
/// From this count on the calls of a caller of a kind run their steps off the runtime. So one step that was much too long suffices, and a
/// few that were hardly so do not.
const COUNT: u32 = 4;
/// For how long the count is remembered.
const REMEMBER: Duration = Duration::from_secs(600);
const REMEMBER_AT_MOST: usize = 10_000;
/// The longest that a step waits for its turn.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs steps off the runtime. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Compute(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    turns: Turns,
    hashes: RandomState,
    known: Mutex<HashMap<Work, CallDuration>>,
}

/// The facts about the calls of a caller of a kind.
#[derive(Clone, Copy, Debug)]
struct CallDuration {
    count: u32,
    learned: Instant,
}

/// A caller and a kind of call, as hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Work {
    caller: u64,
    kind: u64,
}

impl Compute {
    /// One step at once for each processor but one, and half of them for one caller.
    pub fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let turns = Turns::new(Rules::of_long_work((processors - 1).max(1), usize::MAX));
        Compute(Arc::new(Inner { turns, hashes: RandomState::new(), known: Mutex::default() }))
    }

    /// Runs the service of a request, with its long steps off the runtime.
    pub fn stack(&self, stack: Stack) -> Stack {
        let compute = self.clone();
        Stack::new(tower::service_fn(move |request: Request<tonic::body::Body>| {
            let guard = compute.guard(&request);
            let answer = stack.clone().oneshot(request);
            async move {
                let (answer, guard) = Steps { guard: Some(guard), inner: Box::pin(answer) }.await;
                let answer: Result<Response<tonic::body::Body>, BoxError> = answer;
                answer.map(|answer| {
                    answer.map(|inner| tonic::body::Body::new(ComputeBody { guard, inner }))
                })
            }
        }))
    }

    /// The same for work that makes one response of one request.
    pub async fn answer<B>(
        guard: Guard,
        work: impl Future<Output = Response<B>> + Send,
    ) -> Response<ComputeBody<B>> {
        let (answer, guard) = Steps { guard: Some(guard), inner: Box::pin(work) }.await;
        answer.map(|inner| ComputeBody { guard, inner })
    }

    /// Measures the steps of a request.
    pub fn guard<B>(&self, request: &Request<B>) -> Guard {
        let hash = |parts: &dyn Fn(&mut dyn Hasher)| {
            let mut hasher = self.0.hashes.build_hasher();
            parts(&mut hasher);
            hasher.finish()
        };
        let (headers, path) = (request.headers(), request.uri().path());
        let caller = hash(&|hasher| hasher.write(credential(headers)));
        let kind = hash(&|hasher| {
            hasher.write(request.method().as_str().as_bytes());
            // The beginning of a path and its length distinguish the methods of an API, and the ids in it do not.
            path.split('/').take(3).for_each(|segment| hasher.write(segment.as_bytes()));
            hasher.write_usize(path.matches('/').count());
        });
        let work = Work { caller, kind };
        let count = self
            .known()
            .get(&work)
            .filter(|known| known.learned.elapsed() < REMEMBER)
            .map_or(0, |known| known.count);
        let large = is_large(headers);
        if large {
            COMPUTE.reached();
        }
        let takes_long = large || count >= COUNT;
        Guard {
            compute: self.clone(),
            work,
            takes_long,
            is_known: count > 0,
            was_long: false,
            short_steps: 0,
            turn: None,
        }
    }

    /// Counts a step that took so long. Returns whether the next ones are to run off the runtime.
    fn learn(&self, work: Work, took: Duration) -> bool {
        let times = u32::try_from(took.as_micros() / LONG.as_micros()).unwrap_or(COUNT_AT_MOST);
        let mut known = self.known();
        if known.len() >= REMEMBER_AT_MOST {
            known.retain(|_, known| known.learned.elapsed() < REMEMBER);
        }
        if known.len() >= REMEMBER_AT_MOST {
            return times >= COUNT;
        }
        let learned = Instant::now();
        let known = known.entry(work).or_insert(CallDuration { count: 0, learned });
        *known = CallDuration {
            count: (known.count + times.min(COUNT_AT_MOST)).min(COUNT_AT_MOST),
            learned,
        };
        known.count >= COUNT
    }

    /// Takes one off the count, for a call without a long step.
    fn unlearn(&self, work: Work) {
        let mut known = self.known();
        if let Some(found) = known.get_mut(&work) {
            found.count = found.count.saturating_sub(1);
            if found.count == 0 {
                known.remove(&work);
            }
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Work, CallDuration>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Compute {
    fn default() -> Self {
        Self::new()
    }
}

fn credential(headers: &HeaderMap) -> &[u8] {
    headers
        .get(header::AUTHORIZATION)
        .or_else(|| headers.get("apikey"))
        .map_or(&[], |value| value.as_bytes())
}

fn is_large(headers: &HeaderMap) -> bool {
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    length.is_some_and(|length| length > COMPUTE_BYTES)
}

/// Watches over the steps of a call.
pub struct Guard {
    compute: Compute,
    work: Work,
    takes_long: bool,
    /// True if something was known of such calls when it began.
    is_known: bool,
    /// True if a step of it took long.
    was_long: bool,
    /// How many steps off the runtime did not take long, since the last that did.
    short_steps: u32,
    turn: Option<BoxFuture<'static, Option<Turn>>>,
}

impl Guard {
    /// Runs a step: here if it is not expected to take long, and otherwise off the runtime, when it is its turn.
    fn step<T>(
        &mut self,
        context: &mut Context<'_>,
        step: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if !self.takes_long || !can_leave_runtime() {
            let (done, took) = measured(|| step(context));
            if took > LONG {
                STEP.reached();
                self.was_long = true;
                self.takes_long = self.compute.learn(self.work, took);
                self.short_steps = 0;
            }
            return done;
        }
        let turn = self.turn.get_or_insert_with(|| turn(self.compute.clone(), self.work));
        let turn = ready!(turn.as_mut().poll(context));
        self.turn = None;
        let (done, took) = tokio::task::block_in_place(|| measured(|| step(context)));
        drop(turn);
        if took > LONG {
            self.was_long = true;
            self.compute.learn(self.work, took);
            self.short_steps = 0;
        } else {
            self.short_steps += 1;
            self.takes_long = self.short_steps < SHORT_STEPS;
        }
        done
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.is_known && !self.was_long {
            self.compute.unlearn(self.work);
        }
    }
}

fn turn(compute: Compute, work: Work) -> BoxFuture<'static, Option<Turn>> {
    let key = Uuid::from_u64_pair(work.caller, 0);
    let party = Party {
        realm: work.caller as i32,
        key,
        kind: Arc::default(),
        streams: false,
        heavy: false,
    };
    async move { compute.0.turns.acquire(Some(party), PATIENCE, |_| {}).await.ok() }.boxed()
}

/// Returns whether this thread can leave its other tasks to another one.
fn can_leave_runtime() -> bool {
    Handle::try_current()
        .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
}

thread_local! {
    /// The clock on the wall and that of this thread's processor time, as they were read last.
    static CLOCKS: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
}

/// For how long a reading of the thread's processor time serves: to read it is a system call, and there are several steps in a call.
const READING_SERVES: Duration = Duration::from_micros(STEP_MICROSECONDS / 4);

/// Runs the work and returns for how long it kept the processor busy, if that may have been [`LONG`]: the time on the wall clock would say
/// more about the other work of the machine. The result may be too long by one reading of the clock.
fn measured<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let processor =
        || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from);
    let begun = Instant::now();
    let (_, before) = CLOCKS
        .get()
        .filter(|(read, _)| begun.duration_since(*read) < READING_SERVES)
        .unwrap_or_else(|| {
            let clocks = (begun, processor());
            CLOCKS.set(Some(clocks));
            clocks
        });
    let done = work();
    let took = begun.elapsed();
    // The processor was not busy for longer than it took.
    (done, if took > LONG { took.min(processor().saturating_sub(before)) } else { took })
}

/// The work for a request, step by step.
struct Steps<F> {
    guard: Option<Guard>,
    inner: Pin<Box<F>>,
}

impl<F: Future> Future for Steps<F> {
    type Output = (F::Output, Guard);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let guard = this.guard.as_mut().expect("a future is not polled when it has ended");
        let heavy = guard.takes_long;
        let output = ready!(guard.step(context, |context| {
            let mut poll = || this.inner.as_mut().poll(context);
            if heavy { shares::heavily(poll) } else { poll() }
        }));
        let guard = this.guard.take().expect("it was there above");
        Poll::Ready((output, guard))
    }
}

/// The body of a response, of which each piece is made step by step.
pub struct ComputeBody<B> {
    guard: Guard,
    inner: B,
}

impl<B: Body + Unpin> Body for ComputeBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = &mut *self;
        this.guard.step(context, |context| Pin::new(&mut this.inner).poll_frame(context))
    }

    as_long_as!(inner);
}

#[cfg(test)]
mod tests;
