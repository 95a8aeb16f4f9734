//! Whoever reads the log may stall, or leave: the service goes on.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::kit::*;

/// A server whose log is read up to the line that says that it is ready, and no further.
struct Unread {
    process: Child,
    log: BufReader<ChildStderr>,
    addresses: Addresses,
}

impl Unread {
    fn start(database: &Database, more: &[&str]) -> Unread {
        let arguments = [
            "serve",
            "--database-url",
            &database.url,
            "--log-format=json",
            "--grpc-addr=127.0.0.1:0",
            "--http-addr=127.0.0.1:0",
            "--admin-addr=127.0.0.1:0",
            // The calls have no key, and are as fast as they can be.
            "--address-rate-limit=0",
        ];
        let mut process = spawn(&[&arguments, more].concat());
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("\"message\":\"ready\"") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "it gets ready");
        }
        Unread { process, log, addresses: Addresses::of_line(&line).unwrap() }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().cast_signed()), signal).unwrap();
    }

    async fn ended(&mut self, within: Duration) -> Option<i32> {
        let begun = Instant::now();
        while begun.elapsed() < within {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it does not end");
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Calls that each leave lines in the log.
async fn call(server: &Unread, times: usize) {
    for n in 0..times {
        let (id, to) = (format!("call-{n}"), server.addresses.http);
        let headers = [("x-request-id", id.as_str())];
        let asked = http(to, "GET", "/v1/entities", &headers, "");
        let answer = tokio::time::timeout(Duration::from_secs(5), asked)
            .await
            .unwrap_or_else(|_| panic!("call {n} hangs"));
        assert_eq!(answer.status, 401, "{}", answer.text());
    }
}

#[tokio::test]
async fn a_reader_that_stalls_stops_nothing_and_learns_what_it_missed() {
    let database = database().await;
    // A short queue and many lines, so that it is full soon.
    let mut server = Unread::start(&database, &["--log=trace", "--log-queue-bytes=65536"]);
    let is_full = async || {
        get(server.addresses.admin, "/metrics")
            .await
            .is_some_and(|text| text.lines().any(|line| line.contains("\"log_queue\"")))
    };
    let mut rounds = 0;
    while !is_full().await {
        call(&server, 20).await;
        rounds += 1;
        assert!(rounds < 100, "the queue is never full");
    }
    assert!(get(server.addresses.admin, "/livez").await.is_some());
    // It is read again: each line is whole, and one says how many are not there.
    let mut log = std::mem::replace(
        &mut server.log,
        BufReader::new(spawn(&["version"]).stderr.take().unwrap()),
    );
    let reading = std::thread::spawn(move || {
        let mut reported = None;
        let mut line = String::new();
        while log.read_line(&mut line).unwrap() > 0 {
            let read: Value =
                serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if read["message"].as_str().unwrap().contains("were dropped") {
                reported = read["lines"].as_u64();
            }
            line.clear();
        }
        reported
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.signal(Signal::SIGTERM);
    assert_eq!(server.ended(Duration::from_secs(40)).await, Some(0));
    assert!(
        reading.join().unwrap().is_some_and(|lines| lines > 0),
        "the log says how many are missing"
    );
}

#[tokio::test]
async fn a_server_whose_log_nobody_reads_ends_at_a_signal() {
    let database = database().await;
    for (signals, code) in [(1, 0), (2, 1)] {
        let more: &[&str] =
            if signals == 1 { &["--drain-timeout=2"] } else { &["--drain-delay=600"] };
        let mut server = Unread::start(&database, more);
        call(&server, 600).await;
        for _ in 0..signals {
            server.signal(Signal::SIGTERM);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert_eq!(server.ended(Duration::from_secs(20)).await, Some(code), "{signals}");
    }
}

#[tokio::test]
async fn every_line_of_a_server_that_is_read_is_there_to_the_last() {
    let database = database().await;
    let mut server = Unread::start(&database, &[]);
    let mut log = std::mem::replace(
        &mut server.log,
        BufReader::new(spawn(&["version"]).stderr.take().unwrap()),
    );
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut log, &mut text).unwrap();
        text
    });
    call(&server, 300).await;
    server.signal(Signal::SIGTERM);
    assert_eq!(server.ended(Duration::from_secs(40)).await, Some(0));
    let log = reading.join().unwrap();
    let ended = log.lines().filter(|line| line.contains("\"call-")).count();
    assert!(ended >= 300 && log.contains("Stopped") && !log.contains("were dropped"), "{ended}");
}

#[tokio::test]
async fn a_reader_that_leaves_ends_nothing() {
    let database = database().await;
    let mut server = Unread::start(&database, &[]);
    drop(std::mem::replace(
        &mut server.log,
        BufReader::new(spawn(&["version"]).stderr.take().unwrap()),
    ));
    call(&server, 300).await;
    server.signal(Signal::SIGTERM);
    assert_eq!(server.ended(Duration::from_secs(40)).await, Some(0));
}
