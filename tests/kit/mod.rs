//! The base of functional tests: a database of their own, the real binary, keys, and a client that speaks either protocol.
//!
//! A scenario is written once, in the words of the protos (members in snake case, enum values in lower snake case without prefix, times in
//! milliseconds since the Unix epoch), and runs through gRPC and through REST:
//!
//! ```ignore
//! mod kit;
//! use kit::*;
//!
//! scenario! {
//!     async fn a_portfolio_is_found_again(world: &World) {
//!         world.call("PortfolioService/CreatePortfolio", json!({"portfolio_id": "p", "name": "Fund"})).await.unwrap();
//!         let found = world.call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"})).await.unwrap();
//!         assert_eq!(found.json["mode"], "test");
//!         let missing = world.call("PortfolioService/GetPortfolio", json!({"portfolio_id": "q"})).await.unwrap_err();
//!         assert_eq!(missing.code, "not_found");
//!     }
//! }
//! ```
#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "each test file compiles the kit for itself, and none uses all of it"
)]
#![allow(
    clippy::unwrap_used,
    clippy::result_large_err,
    reason = "a test ends where it cannot go on"
)]

mod client;
mod clock;
mod cluster;
mod examples;
mod grpc;
mod http;
mod names;
mod nats;
mod port;
mod postgres;
pub mod rest;
pub mod routes;
mod rows;
mod rpcs;
mod seen;
mod sender;
mod server;
mod smtp;
pub mod spelling;
pub mod stream;
mod tls;
mod world;

pub use client::{Answer, Client, Failure, Fault, Protocol};
pub use clock::SteppingPostgres;
pub use cluster::{ClusterHome, sql};
pub use examples::{example, examples_of_nothing};
pub use http::{Reply, curl, grpcurl, http};
pub use names::{Place, Thing};
pub use nats::{NatsServer, Stored};
pub use port::free_port;
pub use postgres::{Database, database, database_on, empty_database};
pub use rpcs::{Rpc, rpcs};
pub use seen::Seen;
pub use sender::Rest;
pub use serde_json::{Value, json};
pub use server::{
    Addresses, Ended, Key, SCOPES, Server, get, offboard, run, run_unread, run_with, spawn,
};
pub use smtp::{Mail, SmtpSink};
pub use stream::MessageStream;
pub use tls::TlsFront;
pub use world::{World, until};

/// Runs the body of a test once through each listener: as the tests `NAME::grpc` and `NAME::rest`.
macro_rules! scenario {
    ($($(#[$attribute:meta])* async fn $name:ident($world:ident: &World) $body:block)+) => {$(
        $(#[$attribute])*
        mod $name {
            use super::*;

            async fn scenario($world: &World) $body

            #[tokio::test]
            async fn grpc() {
                scenario(&World::start(Protocol::Grpc).await).await;
            }

            #[tokio::test]
            async fn rest() {
                scenario(&World::start(Protocol::Rest).await).await;
            }
        }
    )+};
}
pub(crate) use scenario;

/// Compares a whole answer or a whole refusal with its snapshot, which is in `snapshots/` beside the test. By both protocols it is the same one.
macro_rules! assert_seen {
    ($name:expr, $seen:expr) => {
        insta::with_settings!({ omit_expression => true }, {
            insta::assert_json_snapshot!($name, Seen::seen(&$seen));
        })
    };
}
pub(crate) use assert_seen;
