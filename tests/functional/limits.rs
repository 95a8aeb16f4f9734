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
            let text = |name: &str| headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.clone()).unwrap();
            assert_eq!(text("ratelimit-policy"), "\"key\";q=5000;w=1, \"realm\";q=20000;w=1");
            let left = number(headers, "x-ratelimit-remaining");
            assert!(text("ratelimit").starts_with(&format!("\"key\";r={left};t=1, \"realm\";r=199")), "{headers:?}");
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
        missing.headers.iter().all(|(name, _)| !name.contains("ratelimit")),
        "{:?}",
        missing.headers
    );
}

/// The refusal of a call that is repeated until there is one.
async fn refused(client: &Client, method: &str, request: Value) -> Failure {
    for _ in 0..200 {
        let outcome = match method {
            "EventService/WatchEvents" => client.stream(method, request.clone(), &[]).await.err(),
            _ => client.call(method, request.clone()).await.err(),
        };
        if let Some(failure) = outcome.filter(|failure| failure.code == "rate_limit_exceeded") {
            return failure;
        }
    }
    panic!("{method} is not refused");
}

#[tokio::test]
async fn each_class_of_calls_has_a_rate_of_its_own_and_a_realm_one_for_all_its_keys() {
    let cases = [
        ("write", "PortfolioService/CreatePortfolio", json!({"name": "Fund"})),
        ("task", "BulkDeleteService/CheckConsistency", json!({"fix": false})),
        ("stream", "EventService/WatchEvents", json!({})),
    ];
    for protocol in [Protocol::Grpc, Protocol::Rest] {
        for (class, method, request) in &cases {
            for (of, owner) in [("", "key"), ("realm-", "realm")] {
                let limit = format!("--{of}{class}-rate-limit=2");
                let world = World::start_with(protocol, &[&limit]).await;
                let failure = refused(&world.client, method, request.clone()).await;
                let policy = format!("\"{owner}-{class}\"");
                let left = failure.header("ratelimit").unwrap();
                assert!(left.contains(&format!("{policy};r=0;t=1")), "{left}");
                let policies = failure.header("ratelimit-policy").unwrap();
                assert!(policies.contains(&format!("{policy};q=2;w=1")), "{policies}");
                assert_eq!(failure.members["retry_after"], 1);
                // Calls of another class are not affected.
                world.call("PortfolioService/ListPortfolios", json!({})).await.unwrap();
                let metrics = get(world.server.addresses.admin, "/metrics").await.unwrap();
                let name = format!("{}{class}_rate", of.replace('-', "_"));
                assert!(metrics.contains(&format!("\"{name}\"")), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn a_realm_that_calls_too_often_delays_no_other_and_whose_key_is_refused_costs_it_nothing() {
    let limits = ["--rate-limit=3", "--realm-rate-limit=5"];
    let world = World::start_with(Protocol::Rest, &limits).await;
    let list = "PortfolioService/ListPortfolios";
    let second = world.client("acme", "test", SCOPES);
    let other = world.client("other", "test", SCOPES);
    let (mut by_realm, mut by_key) = (0, 0);
    for _ in 0..20 {
        for client in [&world.client, &second] {
            let Err(failure) = client.call(list, json!({})).await else { continue };
            let left = failure.header("ratelimit").unwrap();
            match left.contains("\"realm\"") {
                true => by_realm += 1,
                false => by_key += 1,
            }
        }
    }
    assert!(by_realm > 0 && by_key > 0, "{by_realm} {by_key}");
    other.call(list, json!({})).await.unwrap();
}

#[tokio::test]
async fn an_address_without_a_valid_key_waits_and_keys_in_use_and_probes_do_not() {
    for protocol in [Protocol::Grpc, Protocol::Rest] {
        let world = World::start_with(protocol, &["--address-rate-limit=3"]).await;
        let list = "PortfolioService/ListPortfolios";
        world.call(list, json!({})).await.unwrap();
        let mut refusals = Vec::new();
        for guess in 0..100 {
            let guesser = world.client.with_secret(&format!("sk_test_{guess:0>43}"));
            let failure = guesser.call(list, json!({})).await.unwrap_err();
            if failure.code == "rate_limit_exceeded" {
                refusals.push(failure);
                world.call(list, json!({})).await.expect("its key is in use");
            } else {
                assert_eq!(failure.code, "invalid_credentials");
            }
        }
        let refusal = refusals.first().expect("one of a hundred");
        assert_eq!(
            (refusal.http.unwrap_or(429), &refusal.members["retry_after"]),
            (429, &json!(1))
        );
        if protocol == Protocol::Rest {
            assert_eq!(refusal.header("retry-after"), Some("1"));
        }
        let address = world.server.addresses.grpc.to_string();
        grpcurl(&[&address, "grpc.health.v1.Health/Check"]).expect("health needs no key");
        assert!(get(world.server.addresses.admin, "/livez").await.unwrap().contains("200"));
        let page = http(world.server.addresses.http, "GET", "/openapi.json", &[], "").await;
        assert_eq!(page.status, 200);
        let metrics = get(world.server.addresses.admin, "/metrics").await.unwrap();
        assert!(metrics.contains("\"address_rate\""));
    }
}
