//! Which request each method is, read from the `google.api.http` options of the descriptor set by the contracts' own rules: apart from the
//! gateway, which these requests try. A snapshot of all of them holds the contracts still.

use std::sync::LazyLock;

use prost_reflect::DynamicMessage;

use super::rpcs::{Rpc, option, rpcs};

/// The part of a request that goes into the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing: what is not in the path goes into the query.
    None,
    /// All that is not in the path.
    Rest,
    /// This member; what else is not in the path goes into the query.
    Member(String),
    /// One member a line, from a stream of requests.
    Lines(String),
}

/// How a caller shows its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// `apikey: KEY`
    ApiKey,
    /// `Authorization: Bearer KEY`
    Bearer,
}

/// One request of a contract.
#[derive(Clone, Debug)]
pub struct Route {
    /// The method that it calls.
    pub rpc: String,
    /// The HTTP method.
    pub method: &'static str,
    /// The path, with members of the request in braces.
    pub path: String,
    /// The contents of the body.
    pub body: Body,
    /// How the contract's callers show their key.
    pub credential: Credential,
    /// True if the contract spells members in camel case.
    pub camel_case: bool,
    /// The member of the response that is its body; all of it, if there is none.
    pub answer: Option<String>,
}

/// Every request, in the order of the protos.
pub static ROUTES: LazyLock<Vec<Route>> =
    LazyLock::new(|| rpcs().iter().flat_map(Route::of).collect());

/// The contract of entity removal is the one whose callers have another header for their key.
const BY_API_KEY: &str = "/v5/";

/// The number of `JSON_STYLE_CAMEL_CASE`.
const CAMEL_CASE: i32 = 2;

const METHODS: [(&str, &str); 5] =
    [("get", "GET"), ("put", "PUT"), ("post", "POST"), ("delete", "DELETE"), ("patch", "PATCH")];

impl Route {
    /// The requests of an RPC: the rule that it has, and those beside it.
    fn of(rpc: &Rpc) -> Vec<Route> {
        let http = option("google.api.http");
        let options = rpc.method.options();
        if !options.has_extension(&http) {
            return Vec::new();
        }
        let rule = options.get_extension(&http);
        let rule = rule.as_message().expect("a rule is a message");
        let others = rule.get_field_by_name("additional_bindings").expect("rules have others");
        let others = others.as_list().unwrap_or_default();
        let others = others.iter().filter_map(|other| other.as_message());
        std::iter::once(rule).chain(others).map(|rule| Route::of_rule(rpc, rule)).collect()
    }

    fn of_rule(rpc: &Rpc, rule: &DynamicMessage) -> Route {
        let text = |name: &str| {
            let value = rule.get_field_by_name(name).expect("a member of a rule");
            value.as_str().expect("it is text").to_owned()
        };
        let (member, method) = METHODS
            .into_iter()
            .find(|(member, _)| rule.has_field_by_name(member))
            .unwrap_or_else(|| panic!("{}: no contract has the method of {rule:?}", rpc.name));
        let path = text(member);
        assert!(!path.contains(['=', '*']), "{path}: no contract has a pattern in a path");
        let body = match text("body") {
            none if none.is_empty() => Body::None,
            all if all == "*" => Body::Rest,
            member if rpc.takes_a_stream() => Body::Lines(member),
            member => Body::Member(member),
        };
        let style = rpc.method.parent_service().options();
        let style = style.get_extension(&option("offboard.v1.json_style")).as_enum_number();
        Route {
            rpc: rpc.name.clone(),
            method,
            credential: match path.starts_with(BY_API_KEY) {
                true => Credential::ApiKey,
                false => Credential::Bearer,
            },
            path,
            body,
            camel_case: style == Some(CAMEL_CASE),
            answer: Some(text("response_body")).filter(|member| !member.is_empty()),
        }
    }

    /// The first request of an RPC.
    pub fn first(rpc: &str) -> &'static Route {
        ROUTES
            .iter()
            .find(|route| route.rpc == rpc)
            .unwrap_or_else(|| panic!("no contract has a request for {rpc}"))
    }

    /// The request of an RPC that a caller with these members sends: the one whose body is one of them, or else one whose body is no single member.
    pub fn fitting(rpc: &str, holds: impl Fn(&str) -> bool) -> &'static Route {
        let of_rpc = || ROUTES.iter().filter(move |route| route.rpc == rpc);
        of_rpc()
            .find(|route| matches!(&route.body, Body::Member(member) if holds(member)))
            .or_else(|| of_rpc().find(|route| !matches!(route.body, Body::Member(_))))
            .unwrap_or_else(|| Route::first(rpc))
    }
}
