use std::io::Write as _;
use std::os::unix::net::UnixStream;

use super::*;

fn pair() -> (Vitals, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Vitals::new(ours.into(), None, Duration::from_secs(60)), theirs)
}

#[test]
fn a_probe_distinguishes_a_quiet_connection_from_one_that_has_ended() {
    let (vitals, mut peer) = pair();
    assert_eq!(vitals.socket_state(), SocketState::Quiet);
    peer.write_all(b"E").unwrap();
    assert_eq!(
        (vitals.socket_state(), vitals.socket_state()),
        (SocketState::Words, SocketState::Words),
        "what is only checked stays"
    );
    assert!(!vitals.has_ended(), "it is being set up, and may be found so");
    vitals.established(7);
    assert!(vitals.has_ended());
    let (vitals, peer) = pair();
    drop(peer);
    assert_eq!(vitals.socket_state(), SocketState::Closed);
}

#[test]
fn a_connection_that_is_given_up_is_closed_for_who_waits_on_it() {
    let (vitals, peer) = pair();
    vitals.give_up("of a test");
    assert_eq!(
        (vitals.socket_state(), vitals.ended()),
        (SocketState::Closed, Some(Fault::Unreachable))
    );
    drop(peer);
}

#[test]
fn a_statement_is_overdue_when_the_database_should_long_have_ended_it() {
    let (vitals, _peer) = pair();
    vitals.established(7);
    vitals.start();
    let now = Instant::now();
    assert!(
        !vitals.is_overdue(now + Duration::from_secs(64))
            && vitals.is_overdue(now + Duration::from_secs(66))
    );
    vitals.allow(Duration::ZERO);
    assert!(!vitals.is_overdue(now + Duration::from_secs(6_000)), "one without a timeout never is");
    vitals.allow(Duration::from_secs(60));
    vitals.finish();
    assert!(!vitals.is_overdue(now + Duration::from_secs(66)));
}

#[test]
fn a_backend_that_is_not_at_work_costs_its_connection_at_the_second_check() {
    let (vitals, _peer) = pair();
    vitals.established(7);
    vitals.start();
    let now = Instant::now() + Duration::from_secs(3);
    let statement = vitals.silent_statement(now).unwrap();
    assert_eq!(vitals.silent_statement(now), None, "it is not asked twice at once");
    let reported = [
        (statement, false),
        (statement, true),
        (statement, false),
        (statement + 1, false),
        (statement, false),
    ];
    let given_up: Vec<bool> =
        reported.into_iter().map(|(statement, at_work)| vitals.found(statement, at_work)).collect();
    assert_eq!(given_up, [false, false, false, false, true], "the fourth is of another statement");
}

#[test]
fn an_answer_that_has_come_is_waited_for() {
    let (vitals, mut peer) = pair();
    vitals.established(7);
    vitals.start();
    peer.write_all(b"D").unwrap();
    assert!(!vitals.found(1, false) && !vitals.found(1, false) && !vitals.found(1, false));
}
