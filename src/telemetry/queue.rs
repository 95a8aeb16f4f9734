//! The way of log lines to standard error: a queue, and a thread that writes what is in it. Whoever reads may stall, as a collector of logs that is
//! stopped does, and then a write never ends; nobody but that thread waits for it. A line that finds the queue full is dropped and counted, and the
//! log says how many were, once its reader continues.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use super::limit_reached;

/// The limit's name in the metric.
const LOG_QUEUE: &str = "log_queue";
/// How many bytes are written at once, about.
const BATCH: usize = 64 << 10;
/// How soon a pipe is tried again that is full and does not block.
const AGAIN: Duration = Duration::from_millis(10);

/// The queue. Clones are one and the same.
#[derive(Clone, Debug)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// A line has come.
    filled: Condvar,
    /// The lines that were taken are written.
    written: Condvar,
    bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Whether the thread is at what it has taken.
    writes: bool,
    /// How many were dropped, of which the log has not said so yet.
    dropped: u64,
}

impl State {
    fn is_done(&self) -> bool {
        self.lines.is_empty() && !self.writes && self.dropped == 0
    }
}

impl Queue {
    /// A queue of so many bytes of lines for standard error, and the thread that writes them.
    pub(super) fn start(bytes: usize) -> io::Result<Queue> {
        // Not the one of the standard library, whose lock everyone would wait for.
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        Queue::start_to(stderr, bytes)
    }

    fn start_to(mut to: impl Write + Send + 'static, bytes: usize) -> io::Result<Queue> {
        let queue = Queue(Arc::new(Shared {
            state: Mutex::default(),
            filled: Condvar::new(),
            written: Condvar::new(),
            bytes,
        }));
        let taken = queue.clone();
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || taken.write_on(&mut to))?;
        Ok(queue)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a line written, or drops it where there is no room.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.state();
        // However long, one is taken.
        let fits = state.lines.is_empty() || state.bytes + line.len() <= self.0.bytes;
        if fits {
            state.bytes += line.len();
            state.lines.push_back(line.to_vec());
        } else {
            state.dropped += 1;
        }
        drop(state);
        self.0.filled.notify_one();
        if !fits {
            limit_reached(LOG_QUEUE);
        }
    }

    /// Waits until all is written, for no longer than this. Returns whether it is.
    pub(super) fn flush(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.state();
        while !state.is_done() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state =
                self.0.written.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn write_on(&self, to: &mut impl Write) {
        loop {
            write(to, &self.take());
            let mut state = self.state();
            // The log says so by a line like any other, which comes by this queue too and needs room.
            let dropped = if state.bytes <= self.0.bytes / 2 {
                std::mem::take(&mut state.dropped)
            } else {
                0
            };
            drop(state);
            if dropped > 0 {
                tracing::warn!(
                    lines = dropped,
                    "lines of the log were dropped: nobody read it in time"
                );
            }
            self.state().writes = false;
            self.0.written.notify_all();
        }
    }

    /// The next lines, once there are any.
    fn take(&self) -> Vec<u8> {
        let mut state = self.state();
        while state.lines.is_empty() {
            state = self.0.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.writes = true;
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(line) = state.lines.pop_front()
        {
            state.bytes -= line.len();
            batch.extend(line);
        }
        batch
    }
}

/// Writes all of it, however long that takes. What nobody is there to read is lost.
#[expect(clippy::disallowed_methods, reason = "on a thread of its own, not on the runtime's")]
fn write(to: &mut impl Write, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return,
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(AGAIN),
            Err(_) => return,
        }
    }
}

/// Puts a line in the queue.
#[derive(Debug)]
pub(super) struct QueueWriter<'a>(&'a Queue);

impl Write for QueueWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = QueueWriter<'a>;

    fn make_writer(&'a self) -> QueueWriter<'a> {
        QueueWriter(self)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn lines_are_written_in_their_order_and_all_of_them_by_the_end() {
        let (reader, writer) = io::pipe().unwrap();
        let queue = Queue::start_to(writer, 1 << 20).unwrap();
        let read = std::thread::spawn(|| {
            BufReader::new(reader).lines().take(10_000).map(Result::unwrap).collect::<Vec<_>>()
        });
        for line in 0..10_000 {
            queue.push(format!("{line}\n").as_bytes());
        }
        assert!(queue.flush(LONG));
        assert_eq!(
            read.join().unwrap(),
            (0..10_000).map(|line| line.to_string()).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_and_nobody_time() {
        let (reader, writer) = io::pipe().unwrap();
        let queue = Queue::start_to(writer, 1 << 20).unwrap();
        let line = [b"x".repeat(1 << 10), b"\n".to_vec()].concat();
        let begun = Instant::now();
        for _ in 0..10_000 {
            queue.push(&line);
        }
        assert!(begun.elapsed() < LONG && !queue.flush(Duration::from_millis(50)), "nobody reads");
        assert!(queue.state().bytes <= 1 << 20);
        let dropped = queue.state().dropped;
        assert!((8_000..10_000).contains(&dropped), "{dropped}");
        std::thread::spawn(move || BufReader::new(reader).lines().for_each(drop));
        assert!(queue.flush(LONG), "it is read again");
    }

    #[test]
    fn a_reader_that_has_gone_ends_nothing() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let queue = Queue::start_to(writer, 1 << 20).unwrap();
        for _ in 0..100 {
            queue.push(b"x\n");
            assert!(queue.flush(LONG));
        }
    }
}
