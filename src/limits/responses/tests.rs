use http_body_util::{BodyExt, Full};

use super::*;

const MIB: usize = 1 << 20;

fn call(memory: &ResponseMemory, realm: i32) -> Responding {
    let responding = memory.open();
    responding.charge_to(realm);
    responding
}

fn written(
    responding: &Responding,
    bytes: usize,
    cut: Option<Cut>,
) -> impl Body<Data = Bytes, Error = Error> + Unpin + use<> {
    let body = Full::new(Bytes::from(vec![b'x'; bytes])).map_err(|never| match never {});
    responding.written(body, Err, cut)
}

#[tokio::test(start_paused = true)]
async fn what_is_large_is_paid_for_until_it_is_written() {
    let memory = ResponseMemory::new(8 * MIB);
    let responding = call(&memory, 1);
    let mut body = written(&responding, 2 * MIB, None);
    assert_eq!(body.size_hint().exact(), Some(2 * MIB as u64));
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!((first.len(), memory.0.built.free()), (PIECE, 4 * MIB));
    assert!(
        responding.clone().memory.try_reserve(2, 3 * MIB).is_some(),
        "another realm has a part of its own"
    );
    let waited = call(&memory, 1).memory.reserve(1, 2 * MIB, false).await;
    assert_eq!(waited.unwrap_err().code(), Code::Unavailable);
    drop(first);
    assert_eq!(memory.0.built.free(), 4 * MIB + PIECE, "a piece that is written is free");
    let rest = body.collect().await.unwrap().to_bytes();
    assert_eq!((rest.len(), memory.0.built.free()), (2 * MIB - PIECE, 6 * MIB));
}

#[tokio::test(start_paused = true)]
async fn what_is_small_costs_nothing_and_what_waits_is_bounded_too() {
    let memory = ResponseMemory::new(8 * MIB);
    let all = [1, 2].map(|realm| memory.try_reserve(realm, 3 * MIB).unwrap());
    let small = written(&call(&memory, 3), FREE_RESPONSE_BYTES, None);
    assert_eq!(small.collect().await.unwrap().to_bytes().len(), FREE_RESPONSE_BYTES);
    let begun = tokio::time::Instant::now();
    let waiting = call(&memory, 3);
    let first = tokio::spawn(async move { waiting.built(MIB).await.map(|()| waiting) });
    tokio::task::yield_now().await;
    assert_eq!(call(&memory, 3).built(MIB).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(begun.elapsed(), Duration::ZERO, "as many wait as may");
    drop(all);
    first.await.unwrap().unwrap();
    assert_eq!((memory.0.built.free(), memory.0.waiting.free()), (6 * MIB, 2 * MIB));
}

#[tokio::test(start_paused = true)]
async fn what_is_expected_is_what_is_built_by() {
    let memory = ResponseMemory::new(8 * MIB);
    let responding = call(&memory, 1);
    responding.expect(16 * MIB).await.unwrap();
    assert!(call(&memory, 1).check().is_err() && call(&memory, 2).check().is_ok());
    responding.built(MIB).await.unwrap();
    assert_eq!(memory.0.built.free(), 5 * MIB);
    let body = written(&responding, MIB, None);
    assert_eq!(
        (body.collect().await.unwrap().to_bytes().len(), memory.0.built.free()),
        (MIB, 6 * MIB)
    );
}

#[tokio::test(start_paused = true)]
async fn who_reads_a_byte_now_and_then_is_not_waited_for() {
    let memory = ResponseMemory::new(8 * MIB);
    let is_cut = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&is_cut);
    let cut = Cut::new(move || {
        count.fetch_add(1, Relaxed);
    });
    let mut body = written(&call(&memory, 1), 2 * MIB, Some(cut));
    let window = Duration::from_secs(UNREAD_SECONDS);
    body.frame().await.unwrap().unwrap();
    // Enough for a while, and never at the moment at which it is checked.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..3 {
        for _ in 0..LEAST_READ_BYTES / PIECE {
            body.frame().await.unwrap().unwrap();
        }
        tokio::time::sleep(window).await;
    }
    let stuck = body.frame().await.unwrap().unwrap();
    assert!(memory.0.built.free() < 6 * MIB);
    tokio::time::sleep(window + Duration::from_secs(1)).await;
    assert_eq!(memory.0.built.free(), 6 * MIB - PIECE, "what nobody reads is dropped");
    assert_eq!(is_cut.load(Relaxed), 0);
    assert_eq!(body.frame().await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    tokio::time::sleep(window).await;
    assert_eq!(is_cut.load(Relaxed), 1, "what is on its way stays there");
    drop(stuck);
    assert_eq!(memory.0.built.free(), 6 * MIB);
}

#[tokio::test(start_paused = true)]
async fn who_reads_all_at_once_leaves_nothing_behind() {
    let memory = ResponseMemory::new(8 * MIB);
    let body = written(&call(&memory, 1), MIB, None);
    drop(body.collect().await.unwrap());
    let mut half = written(&call(&memory, 1), MIB, None);
    half.frame().await.unwrap().unwrap();
    drop(half);
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(memory.0.built.free(), 6 * MIB);
    assert_eq!(
        tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        0,
        "nobody watches them"
    );
}
