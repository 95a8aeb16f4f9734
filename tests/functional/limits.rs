//! The headers of every response: the version of the API, and how many calls are left.

use std::time::Duration;

use crate::kit::*;

fn number(headers: &[(String, String)], name: &str) -> i64 {
    let value = headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str());
    value.unwrap_or_else(|| panic!("no {name} in {headers:?}")).parse().unwrap()
}

scenario! {
    async fn every_answer_reports_the_version_and_what_is_left(world: &World) {
        world.portfolios(&["p"]).await;
        let good = world.call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"})).await.unwrap();
        let missing = world.call("PortfolioService/GetPortfolio", json!({"portfolio_id": "q"})).await.unwrap_err();
        let wrong = world.call("PortfolioService/CreatePortfolio", json!({"name": ""})).await.unwrap_err();
        for headers in [&good.headers, &missing.headers, &wrong.headers] {
            assert_eq!(headers.iter().find(|(name, _)| name == "api-version").map(|(_, value)| value.as_str()), Some("2026-11-01"));
            assert_eq!(number(headers, "x-ratelimit-limit"), 5000);
            assert!((4990..5000).contains(&number(headers, "x-ratelimit-remaining")), "{headers:?}");
            assert_eq!(number(headers, "x-ratelimit-reset"), 1);
        }
    }

    async fn a_call_may_name_a_version_that_there_is(world: &World) {
        world.portfolios(&["p"]).await;
        let get = json!({"portfolio_id": "p"});
        let answer = world.client.call_with("PortfolioService/GetPortfolio", get.clone(), &[("api-version", "2026-11-01")]).await.unwrap();
        assert_eq!(answer.header("api-version"), Some("2026-11-01"));
        for unknown in ["2019-01-01", "latest", "2026-11-01 "] {
            let refused = world.client.call_with("PortfolioService/GetPortfolio", get.clone(), &[("api-version", unknown)]).await;
            // HTTP takes no notice of blanks around a value; gRPC keeps them.
            let Err(refused) = refused else { continue };
            assert_eq!((refused.code.as_str(), refused.http.unwrap_or(400)), ("validation_failed", 400));
            assert_eq!(refused.faults[0].code, "unknown_version");
            assert!(refused.faults[0].description.contains("2026-11-01"), "the versions that there are: {:?}", refused.faults);
        }
        assert_eq!(world.database.api_version().as_deref(), Some("2026-11-01"), "a new key is pinned");
    }

    async fn a_key_of_an_older_day_speaks_the_version_of_that_day(world: &World) {
        world.database.sql("UPDATE api_key SET api_version = '2027-03-05'");
        let missing = world.call("PortfolioService/GetPortfolio", json!({"portfolio_id": "q"})).await.unwrap_err();
        assert_eq!(missing.header("api-version"), Some("2026-11-01"));
    }
}

#[tokio::test]
async fn a_key_that_calls_too_often_learns_when_to_come_back_and_another_is_not_delayed() {
    for protocol in [Protocol::Grpc, Protocol::Rest] {
        let world = World::start_with(protocol, &["--rate-limit=5"]).await;
        let get = || world.call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"}));
        let mut answers = Vec::new();
        for _ in 0..60 {
            answers.push(get().await.unwrap_err());
        }
        let refused: Vec<_> =
            answers.iter().filter(|answer| answer.code == "rate_limit_exceeded").collect();
        assert!(answers[0].code == "not_found" && !refused.is_empty());
        for refusal in &refused {
            assert_eq!(refusal.http.unwrap_or(429), 429);
            assert_eq!(refusal.members["retry_after"], 1);
            assert_eq!(
                (
                    number(&refusal.headers, "x-ratelimit-limit"),
                    number(&refusal.headers, "x-ratelimit-remaining")
                ),
                (5, 0)
            );
            if protocol == Protocol::Rest {
                assert_eq!(refusal.header("retry-after"), Some("1"));
            }
        }
        let other = world.client("acme", "test", SCOPES);
        assert_eq!(
            other
                .call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"}))
                .await
                .unwrap_err()
                .code,
            "not_found"
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(get().await.unwrap_err().code, "not_found");
    }
}

#[tokio::test]
async fn without_a_limit_there_is_no_word_of_it() {
    let world = World::start_with(Protocol::Rest, &["--rate-limit=0"]).await;
    let missing = world
        .call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"}))
        .await
        .unwrap_err();
    assert!(
        missing.headers.iter().all(|(name, _)| !name.starts_with("x-ratelimit")),
        "{:?}",
        missing.headers
    );
}
