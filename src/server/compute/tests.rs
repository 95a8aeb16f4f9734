use std::convert::Infallible;
use std::sync::mpsc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};

use super::*;

fn request(key: &str, path: &str, length: u64) -> Request<()> {
    let request = Request::post(path).header("apikey", key).header("content-length", length);
    request.body(()).expect("headers that are fit")
}

/// Keeps the thread until another task of the runtime has run; false if none does.
fn waits_for_another_task() -> bool {
    let (sender, receiver) = mpsc::channel();
    tokio::spawn(async move { sender.send(()) });
    receiver.recv_timeout(Duration::from_secs(20)).is_ok()
}

fn spend_time() {
    let now =
        || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).expect("a clock");
    let begun = now();
    while now() - begun < LONG * (COUNT + 1) {
        (0..1000).map(std::hint::black_box).sum::<u64>();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn while_a_large_request_is_worked_on_the_only_thread_does_other_work() {
    let guard = Compute::new().guard(&request("k", "/v1/entities", 1 << 20));
    let answer = tokio::spawn(async move {
        let answer = Compute::answer(guard, async {
            Response::new(Full::new(Bytes::from(waits_for_another_task().to_string())))
        });
        answer.await.into_body().collect().await
    });
    assert_eq!(answer.await.unwrap().unwrap().to_bytes(), "true");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_response_that_once_took_long_is_computed_off_the_runtime_the_next_time() {
    let compute = Compute::new();
    let made = |work: fn() -> bool| {
        let guard = compute.guard(&request("k", "/v1/entities/e", 0));
        let frames = futures::stream::once(async move {
            Ok::<_, Infallible>(Frame::data(Bytes::from(work().to_string())))
        });
        let answer = Compute::answer(
            guard,
            std::future::ready(Response::new(StreamBody::new(Box::pin(frames)))),
        );
        tokio::spawn(async { answer.await.into_body().collect().await.map(|body| body.to_bytes()) })
    };
    let first = made(|| {
        spend_time();
        true
    });
    assert_eq!(first.await.unwrap().unwrap(), "true");
    assert_eq!(made(waits_for_another_task).await.unwrap().unwrap(), "true");
    let takes_long = |key, path| compute.guard(&request(key, path, 0)).takes_long;
    assert!(takes_long("k", "/v1/entities/another"));
    assert!(
        !takes_long("other", "/v1/entities/e")
            && !takes_long("k", "/v1/portfolios/p")
            && !takes_long("k", "/v1/entities")
    );
}

#[test]
fn a_step_that_waits_is_not_long_and_one_that_computes_is() {
    let wait = || std::thread::park_timeout(LONG * 4);
    assert!(measured(wait).1 < LONG && measured(wait).1 < LONG);
    assert!(measured(spend_time).1 > LONG * COUNT);
}

#[test]
fn a_step_that_was_hardly_too_long_changes_nothing_and_calls_that_are_short_again_are_as_any_other()
{
    let compute = Compute::new();
    let guard = || compute.guard(&request("k", "/v1/entities/e", 0));
    let work = guard().work;
    assert!(!compute.learn(work, LONG * 3 / 2) && !guard().takes_long);
    assert!(compute.learn(work, LONG * 100) && guard().takes_long);
    let calls = (0..).take_while(|_| guard().takes_long).count();
    assert!(calls < COUNT_AT_MOST as usize, "{calls}");
    while guard().is_known {}
    assert!(compute.known().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_steps_are_short_again_is_done_as_any_other() {
    let mut guard = Compute::new().guard(&request("k", "/v1/events:watch", 1 << 20));
    let steps = tokio::spawn(async move {
        for step in 0..SHORT_STEPS {
            assert!(guard.takes_long, "{step}");
            std::future::poll_fn(|context| guard.step(context, |_| Poll::Ready(()))).await;
        }
        guard.takes_long
    });
    assert!(!steps.await.unwrap());
}
