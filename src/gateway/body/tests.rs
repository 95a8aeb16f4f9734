use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use http::HeaderValue;

use super::*;
use crate::limits::memory::BodyMemory;

fn chunks(chunks: &'static [&'static str]) -> Body {
    Body::from_stream(
        stream::iter(chunks)
            .map(|chunk| Ok::<_, std::io::Error>(Bytes::from_static(chunk.as_bytes()))),
    )
}

fn reading(body: Body, limit: usize) -> Reading {
    let budget = BodyMemory::new(1 << 20, Duration::from_secs(5), Duration::from_secs(30));
    Reading::new(body, None, budget.open(), limit)
}

async fn read(body: Body, limit: usize) -> Result<Bytes, Error> {
    reading(body, limit).whole_json().await.map(|(body, _)| body)
}

fn lines(body: Body, limit: usize) -> impl Stream<Item = Result<(u64, Bytes), Error>> {
    reading(body, limit).lines()
}

#[tokio::test]
async fn a_body_is_read_up_to_its_limit() {
    assert_eq!(read(chunks(&["abc", "de"]), 5).await.unwrap(), "abcde");
    assert_eq!(read(chunks(&["abc", "def"]), 5).await.unwrap_err().code(), Code::PayloadTooLarge);
    assert_eq!(read(Body::from("abcdef"), 5).await.unwrap_err().code(), Code::PayloadTooLarge);
    assert_eq!(read(Body::from("abcde"), 5).await.unwrap(), "abcde");
}

#[tokio::test]
async fn lines_are_found_wherever_the_chunks_end() {
    let found: Vec<_> =
        lines(chunks(&["{1}\n{", "2", "}\r\n\n", "  \n{5}"]), 9).try_collect().await.unwrap();
    let found: Vec<_> = found.iter().map(|(number, line)| (*number, line.as_ref())).collect();
    assert_eq!(found, [(1, b"{1}".as_slice()), (2, b"{2}\r"), (5, b"{5}")]);
}

#[tokio::test]
async fn blank_lines_give_way_to_others_and_end() {
    let blank = |bytes: usize| {
        Body::from_stream(
            stream::iter(vec!["\n".repeat(4096); bytes / 4096]).map(Ok::<_, std::io::Error>),
        )
    };
    let mut many = std::pin::pin!(lines(blank(BLANK_BYTES_AT_MOST), 9));
    let mut steps = 0;
    while futures::poll!(many.next()).is_pending() {
        steps += 1;
    }
    assert!(steps >= BLANK_BYTES_AT_MOST / STEP / 2, "{steps}");
    let error =
        lines(blank(BLANK_BYTES_AT_MOST + 4096), 9).try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.code(), Code::ValidationFailed);
}

#[tokio::test]
async fn a_line_that_is_too_long_is_named_before_it_ends() {
    let endless = stream::iter(["1\n", "23"])
        .chain(stream::repeat("4"))
        .map(|chunk| Ok::<_, std::io::Error>(chunk.as_bytes()));
    let error = lines(Body::from_stream(endless), 10).try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(
        error.message(),
        "Line 2 of the body is larger than the 10 bytes that this service takes."
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_or_line_that_stops_arriving_is_given_up_and_a_stream_may_rest_between_lines() {
    let stuck = |beginning: &'static str| {
        let beginning =
            stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(beginning.as_bytes()))]);
        Body::from_stream(beginning.chain(stream::pending()))
    };
    assert_eq!(read(stuck("{"), 9).await.unwrap_err().code(), Code::DeadlineExceeded);
    let mut half = std::pin::pin!(lines(stuck("{1}\n{"), 9));
    assert_eq!(half.next().await.unwrap().unwrap().0, 1);
    assert_eq!(half.next().await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    let mut whole = std::pin::pin!(lines(stuck("{1}\n"), 9));
    assert!(whole.next().await.is_some());
    assert!(tokio::time::timeout(Duration::from_secs(3600), whole.next()).await.is_err());
}

#[test]
fn media_types_are_reported_apart() {
    let form = |media_type: &'static str, is_stream| {
        let headers =
            HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(media_type))]);
        form(&headers, is_stream).map_err(|error| error.code())
    };
    for json in ["application/json", "Application/JSON; charset=UTF-8"] {
        assert_eq!(form(json, false), Ok(Form::Json), "{json}");
    }
    assert_eq!(form("application/x-ndjson", true), Ok(Form::JsonLines));
    for other in ["text/plain", "application/json; charset=latin1", "application/x-ndjson", ""] {
        assert_eq!(form(other, false), Err(Code::UnsupportedMediaType), "{other}");
    }
    for patch in [
        "application/merge-patch+json",
        "application/json-patch+json",
        "application/vnd.api+json",
        "application/foo+json",
    ] {
        for is_stream in [false, true] {
            assert_eq!(form(patch, is_stream), Err(Code::UnsupportedMediaType), "{patch}");
        }
    }
}
