//! Lines to paste, for people who want to try the service by hand.

use serde_json::json;

use super::caller::Caller;
use super::cast::FUND;
use super::cast::{CLOUDS, Cast};

/// Five commands for a shell, each of which works on its own and may be repeated.
pub fn lines(caller: &Caller, cast: &Cast) -> [String; 5] {
    let Caller { org, secret, http_url, grpc_addr, .. } = caller;
    let curl = "curl -sS --fail-with-body";
    let bearer = format!("-H 'Authorization: Bearer {secret}'");
    let exclude: Vec<_> = cast.excluded.iter().map(|id| format!("entities/{id}")).collect();
    // The filter contains no single quote, so that single quotes can enclose it.
    let selection = json!({"objects": {"filter": CLOUDS, "excludeList": exclude}});
    let detach = json!({"portfolio_id": FUND, "entity_id": cast.detached});
    [
        format!("{curl} {bearer} {http_url}/v1/portfolios/{FUND}"),
        format!("grpcurl -plaintext {grpc_addr} describe offboard.v1.PortfolioService"),
        format!(
            "grpcurl -plaintext {bearer} -d '{detach}' {grpc_addr} offboard.v1.PortfolioService/DetachEntity"
        ),
        format!(
            "{curl} -X DELETE -H 'apikey: {secret}' {http_url}/v5/entities/{}",
            cast.offboarded
        ),
        format!(
            "{curl} {bearer} -H 'Content-Type: application/json' -d '{selection}' '{http_url}/api/{org}/entities/_delete?mode=soft'"
        ),
    ]
}
