//! How full the buckets of a call are, as headers say it. Pure.

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The buckets that a call is of. All of them fill up in a second.
const WINDOW_SECONDS: u32 = 1;
/// The policy that `x-ratelimit-*` are of.
const OF_KEY: &str = "key";

/// How full a bucket is.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// Its name.
    pub policy: &'static str,
    /// How many calls there are in it when it is full.
    pub limit: u32,
    /// How many are left.
    pub left: u32,
}

impl State {
    /// In how many seconds it is full again.
    fn full_in(self) -> u32 {
        if self.left < self.limit { WINDOW_SECONDS } else { 0 }
    }
}

/// The states of the buckets of a call.
#[derive(Debug, Default)]
pub struct Reported(Vec<State>);

impl Reported {
    /// Adds one.
    pub fn add(&mut self, state: State) {
        self.0.push(state);
    }

    /// The headers.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.0.is_empty() {
            return headers;
        }
        if let Some(key) = self.0.iter().find(|state| state.policy == OF_KEY) {
            for (name, value) in [
                ("x-ratelimit-limit", key.limit),
                ("x-ratelimit-remaining", key.left),
                ("x-ratelimit-reset", key.full_in()),
            ] {
                headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
            }
        }
        let (mut policy, mut left) = (String::with_capacity(64), String::with_capacity(64));
        for state in &self.0 {
            let separator = if policy.is_empty() { "" } else { ", " };
            let State { policy: name, limit, left: remaining } = state;
            let _ = write!(policy, "{separator}\"{name}\";q={limit};w={WINDOW_SECONDS}");
            let _ = write!(left, "{separator}\"{name}\";r={remaining};t={}", state.full_in());
        }
        for (name, value) in [("ratelimit-policy", policy), ("ratelimit", left)] {
            headers.extend(
                HeaderValue::try_from(value)
                    .ok()
                    .map(|value| (HeaderName::from_static(name), value)),
            );
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(states: &[(&'static str, u32, u32)]) -> HeaderMap {
        let mut reported = Reported::default();
        for (policy, limit, left) in states {
            reported.add(State { policy, limit: *limit, left: *left });
        }
        reported.headers()
    }

    #[test]
    fn every_bucket_is_listed_and_the_one_of_the_key_once_more() {
        let headers = of(&[("key", 100, 99), ("key-task", 5, 0), ("realm", 400, 400)]);
        for (name, value) in [
            ("x-ratelimit-limit", "100"),
            ("x-ratelimit-remaining", "99"),
            ("x-ratelimit-reset", "1"),
            ("ratelimit-policy", "\"key\";q=100;w=1, \"key-task\";q=5;w=1, \"realm\";q=400;w=1"),
            ("ratelimit", "\"key\";r=99;t=1, \"key-task\";r=0;t=1, \"realm\";r=400;t=0"),
        ] {
            assert_eq!(headers[name], value, "{name}");
        }
        assert_eq!(of(&[("key", 5, 5)])["x-ratelimit-reset"], "0");
    }

    #[test]
    fn without_a_limit_there_is_no_header() {
        assert!(of(&[]).is_empty());
        assert!(!of(&[("realm", 5, 4)]).contains_key("x-ratelimit-limit"));
    }
}
