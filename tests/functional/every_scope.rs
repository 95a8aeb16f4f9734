//! Every RPC by a key of every scope: what a key may do is what the proto files declare, and nothing else.

use crate::kit::*;

#[test]
fn every_rpc_declares_scopes_that_there_are() {
    let rpcs = rpcs();
    for rpc in &rpcs {
        let (required, further) = (rpc.scope(), rpc.further_scopes());
        let mut all = further.iter().chain([&required]);
        let name = &rpc.name;
        assert!(
            all.all(|scope| SCOPES.contains(&scope.as_str())),
            "{name}: {required} {further:?}"
        );
        assert!(!further.contains(&required), "{name}");
    }
    // Each scope is of use to some RPC.
    for scope in SCOPES.iter().map(|scope| (*scope).to_owned()) {
        let is_used = |rpc: &Rpc| rpc.scope() == scope || rpc.further_scopes().contains(&scope);
        assert!(rpcs.iter().any(is_used), "no RPC needs {scope}");
    }
}

scenario! {
    async fn a_key_of_one_scope_does_what_the_scope_is_for_and_nothing_else(world: &World) {
        for scope in SCOPES {
            let client = world.client("acme", "test", &[scope]);
            for rpc in rpcs() {
                let (name, required, further) = (&rpc.name, rpc.scope(), rpc.further_scopes());
                let outcome = client.call_any(&rpc, example(&rpc), &[]).await;
                let refused = outcome.err().filter(|failure| failure.code == "permission_denied");
                let Some(refused) = refused else {
                    assert!(*scope == "admin" || *scope == required, "{name} is open to {scope}");
                    continue;
                };
                let named = refused.members["required_scope"].as_str().unwrap();
                assert_ne!(*scope, "admin", "{name}: {refused:#?}");
                assert!(
                    if *scope == required { further.iter().any(|scope| scope == named) } else { named == required },
                    "{name} with {scope}: {refused:#?}"
                );
                assert_eq!(refused.http.unwrap_or(403), 403);
            }
        }
    }

    async fn a_secret_that_opens_nothing_is_refused_by_every_rpc(world: &World) {
        let nobody = world.client.with_secret(&format!("sk_test_{}", "A".repeat(43)));
        for rpc in rpcs() {
            let refused = nobody.call_any(&rpc, example(&rpc), &[]).await.unwrap_err();
            assert_eq!(refused.code, "invalid_credentials", "{}", rpc.name);
        }
    }
}
