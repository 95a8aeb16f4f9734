//! The messages of faults of update masks, and how a whole resource is sent back with a mask.

use crate::advice::faults;
use crate::kit::*;

/// A caller who has sent no mask knows it as the body; one who has sent a mask, or its like, knows it by its own name.
#[tokio::test]
async fn a_mask_is_reported_by_its_own_name_wherever_the_caller_has_one() {
    let rest = Rest::start().await;
    rest.world
        .call("PortfolioService/CreatePortfolio", json!({"portfolio_id": "p", "name": "P"}))
        .await
        .unwrap();
    rest.world
        .call("EntityService/CreateEntity", json!({"entity": {"entity_id": "e", "type": "T"}}))
        .await
        .unwrap();
    let none =
        rest.send("PATCH", "/v1/portfolios/p", &[], r#"{"name":"P6","update_mask":null}"#).await;
    assert_eq!(
        (none.status, &none.json()["name"]),
        (200, &json!("P6")),
        "`null` is as good as left out: {}",
        none.text()
    );
    let of_kind = "must be a string, names with commas between them";
    let parameter = "is not known here; `update_mask` is a query parameter";
    for (path, body, field, reported) in [
        ("/v1/portfolios/p", r#"{"name":"x","update_mask":["name"]}"#, "update_mask", of_kind),
        ("/v1/portfolios/p", r#"{"name":"x","update_mask":5}"#, "update_mask", of_kind),
        (
            "/v1/portfolios/p?update_mask=name",
            r#"{"name":"x"}"#,
            "update_mask",
            "unknown query parameter `update_mask`; it goes into the body as `update_mask`",
        ),
        (
            "/v1/portfolios/p",
            r#"{"name":"x","updatemask":"name"}"#,
            "updatemask",
            "is not known here; did you mean `update_mask`?",
        ),
        (
            "/v1/portfolios/p",
            r#"{"name":"x","updated_at":"2026-01-01T00:00:00Z"}"#,
            "updated_at",
            "cannot be changed here",
        ),
        ("/v1/entities/e", r#"{"type":"z","update_mask":"type"}"#, "update_mask", parameter),
        (
            "/v1/removal-policy",
            r#"{"max_grace_period":"60s","update_mask":"max_grace_period"}"#,
            "update_mask",
            parameter,
        ),
        (
            "/v1/entities/e?update_masc=type",
            r#"{"type":"z"}"#,
            "update_masc",
            "unknown query parameter `update_masc`; did you mean `update_mask`?",
        ),
        (
            "/v1/removal-policy?update_masc=type",
            r#"{"max_grace_period":"60s"}"#,
            "update_masc",
            "unknown query parameter `update_masc`; did you mean `update_mask`?",
        ),
    ] {
        let reply = rest.send("PATCH", path, &[], body).await;
        assert_eq!(
            (reply.status, faults(&reply)),
            (400, vec![(field.to_owned(), reported.to_owned())]),
            "{path} {body}"
        );
        assert!(!reply.text().contains("`body`"), "{path} {body}: {}", reply.text());
    }
}

#[tokio::test]
async fn the_paths_of_a_mask_are_reported_as_they_were_sent() {
    let rest = Rest::start().await;
    rest.world
        .call("EntityService/CreateEntity", json!({"entity": {"entity_id": "e", "type": "T"}}))
        .await
        .unwrap();
    for (path, body, sent) in [
        ("/v1/entities/e?update_mask=entity.type", r#"{"type":"z"}"#, "entity.type"),
        (
            "/v1/removal-policy?update_mask=policy.min_grace_period",
            r#"{"min_grace_period":"1s"}"#,
            "policy.min_grace_period",
        ),
        (
            "/v1/removal-policy?update_mask=hardDelete.nope",
            r#"{"hard_delete":{"max_objects":1}}"#,
            "hardDelete.nope",
        ),
    ] {
        let reply = rest.send("PATCH", path, &[], body).await;
        let reported = faults(&reply);
        assert_eq!(
            (reply.status, reported.len(), reported[0].0.as_str()),
            (400, 1, "update_mask"),
            "{path}: {reported:?}"
        );
        assert!(reported[0].1.starts_with(&format!("`{sent}` ")), "{path}: {reported:?}");
        assert!(
            reply.json()["detail"]
                .as_str()
                .unwrap()
                .starts_with(&format!("update_mask: `{sent}` ")),
            "{path}: {}",
            reply.text()
        );
    }
    let grpc = rest.world.through(Protocol::Grpc);
    let of = json!({"entity_id": "e", "entity": {"type": "z"}, "update_mask": "entity.type"});
    let refused = grpc.call("EntityService/UpdateEntity", of).await.unwrap_err();
    assert!(
        refused.faults[0].description.starts_with("`entity.type` cannot be updated"),
        "{refused:#?}"
    );
}

/// A caller who reads a resource, changes a member and sends the whole has all members of the response in the body.
#[tokio::test]
async fn a_whole_thing_can_be_sent_back_with_a_mask() {
    let rest = Rest::start().await;
    rest.world
        .call("PortfolioService/CreatePortfolio", json!({"portfolio_id": "p", "name": "P"}))
        .await
        .unwrap();
    rest.world
        .call(
            "EntityService/CreateEntity",
            json!({"entity": {"entity_id": "e", "type": "T", "portfolio_id": "p"}}),
        )
        .await
        .unwrap();
    for (path, query, member, mask) in [
        ("/v1/entities/e", "?update_mask=type", "type", None),
        ("/v1/portfolios/p", "", "name", Some("name")),
        ("/v1/portfolios/p", "", "name", Some("*")),
        ("/v1/removal-policy", "?update_mask=max_grace_period", "max_grace_period", None),
    ] {
        let mut whole = rest.send("GET", path, &[], "").await.json();
        whole[member] = json!(if member == "max_grace_period" { "7200s" } else { "changed" });
        if member != "max_grace_period" {
            let bare = rest.send("PATCH", path, &[], &whole.to_string()).await;
            assert_eq!(bare.status, 400, "without a mask all is to be changed: {}", bare.text());
        }
        if let Some(mask) = mask {
            whole["update_mask"] = json!(mask);
        }
        let changed = rest.send("PATCH", &format!("{path}{query}"), &[], &whole.to_string()).await;
        assert_eq!(
            (changed.status, &changed.json()[member]),
            (200, &whole[member]),
            "{path}: {}",
            changed.text()
        );
        whole["frobnicate"] = json!(1);
        let reported =
            faults(&rest.send("PATCH", &format!("{path}{query}"), &[], &whole.to_string()).await);
        assert_eq!(
            reported.iter().map(|fault| fault.0.as_str()).collect::<Vec<_>>(),
            ["frobnicate"],
            "{path}"
        );
    }
    // Members that the mask names are not ignored.
    let named = rest
        .send(
            "PATCH",
            "/v1/entities/e?update_mask=type,state",
            &[],
            r#"{"type":"z","state":"active","hold":null}"#,
        )
        .await;
    let reported = faults(&named);
    assert_eq!(
        reported.iter().map(|fault| fault.0.as_str()).collect::<Vec<_>>(),
        ["state", "update_mask"],
        "{reported:?}"
    );
}
