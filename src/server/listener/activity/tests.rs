use super::*;

const PATIENCE: Patience = Patience {
    head: Duration::from_secs(10),
    idle: Some(Duration::from_secs(120)),
    idle_without_key: None,
    unread: Duration::from_secs(60),
};
const SETTINGS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// Lets it be as it is until something is over, and reports what and after how many seconds.
async fn over(activity: &Activity) -> (&'static str, u64) {
    over_for(activity, &PATIENCE).await
}

async fn over_for(activity: &Activity, patience: &Patience) -> (&'static str, u64) {
    let started = Instant::now();
    loop {
        match activity.due(patience) {
            NextCheck::Over(limit) => return (limit.name, started.elapsed().as_secs()),
            NextCheck::At(at) => tokio::time::sleep_until(at).await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_half_of_something_has_the_time_of_a_head() {
    assert_eq!(over(&Activity::new()).await, ("head_time", 10));
    for half in [b"GET / HTTP/1.1\r\nhost:".as_slice(), b"P", &SETTINGS[..24]] {
        let activity = Activity::new();
        activity.received(half);
        assert_eq!(over(&activity).await, ("head_time", 10), "{half:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_byte_now_and_then_does_not_prolong_it() {
    let activity = Activity::new();
    for _ in 0..3 {
        activity.received(b"G");
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    assert_eq!(over(&activity).await, ("head_time", 1));
}

#[tokio::test(start_paused = true)]
async fn who_has_asked_may_be_idle_and_has_the_time_of_a_head_for_the_next() {
    let activity = Activity::new();
    activity.received(b"GET / HTTP/1.1\r\n\r\n");
    activity.begin(false);
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert!(
        matches!(activity.due(&PATIENCE), NextCheck::At(_)),
        "a call takes as long as it takes"
    );
    activity.end(false);
    assert_eq!(over(&activity).await, ("idle_time", 120));
    activity.received(b"GET");
    assert_eq!(over(&activity).await, ("head_time", 10));
}

#[tokio::test(start_paused = true)]
async fn a_connection_of_http2_is_idle_once_it_has_begun() {
    let activity = Activity::new();
    activity.received(SETTINGS);
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(20)).await;
        activity.received(b"\0\0\0\x06\0\0\0\0\0");
    }
    assert_eq!(over(&activity).await, ("idle_time", 20));
}

#[tokio::test(start_paused = true)]
async fn headers_by_http2_have_the_time_of_a_head_whatever_else_is_asked() {
    for half in [b"\0\0".as_slice(), b"\0\0\x05\x01\x04\0\0\0\x01ab", b"\0\0\0\x01\0\0\0\0\x01"] {
        let activity = Activity::new();
        activity.received(SETTINGS);
        activity.begin(true);
        tokio::time::sleep(Duration::from_secs(100)).await;
        activity.received(half);
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(over(&activity).await, ("head_time", 6), "{half:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_head_after_the_other_is_no_long_one() {
    let activity = Activity::new();
    activity.received(SETTINGS);
    let head = b"\0\0\x02\x01\x04\0\0\0\x01ab";
    activity.received(&head[..5]);
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(9)).await;
        activity.received(&[&head[5..], &head[..5]].concat());
        assert!(matches!(activity.due(&PATIENCE), NextCheck::At(_)));
    }
    assert_eq!(over(&activity).await, ("head_time", 10));
}

#[tokio::test(start_paused = true)]
async fn who_has_shown_no_key_may_be_idle_for_a_shorter_time() {
    let patience = Patience { idle_without_key: Some(Duration::from_secs(20)), ..PATIENCE };
    for (is_proven, patience, expected) in [
        (false, patience, ("idle_time_without_key", 20)),
        (true, patience, ("idle_time", 120)),
        (false, Patience { idle: Some(Duration::from_secs(15)), ..patience }, ("idle_time", 15)),
        (false, Patience { idle: None, ..patience }, ("idle_time_without_key", 20)),
    ] {
        let activity = Activity::new();
        activity.begin(false);
        if is_proven {
            activity.prove();
        }
        activity.end(is_proven);
        assert_eq!(over_for(&activity, &patience).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_not_waited_for() {
    let activity = Activity::new();
    activity.received(b"GET / HTTP/1.1\r\n\r\n");
    activity.begin(false);
    activity.sent(None);
    activity.flushed();
    activity.sent(None);
    assert_eq!(over(&activity).await, ("unread_time", 60));
}

#[tokio::test(start_paused = true)]
async fn a_byte_that_is_read_now_and_then_does_not_prolong_it_and_enough_does() {
    let activity = Activity::new();
    activity.begin(true);
    for (bytes, over_after) in [(1, 30), (LEAST_SENT_BYTES, 60)] {
        activity.flushed();
        activity.sent(None);
        tokio::time::sleep(Duration::from_secs(30)).await;
        activity.sent(Some(bytes));
        activity.sent(None);
        assert_eq!(over(&activity).await, ("unread_time", over_after));
    }
}
