//! A mail informs the caller that a task has ended. It is sent at least once, and its failure changes nothing of the task.

use crate::given::id;
use crate::kit::*;

pub const START: &str = "BulkDeleteService/StartBulkDelete";
pub const FROM: &str = "Offboard <offboard@example.com>";

/// A world whose server gives its mails to a sink, and whose realm allows mail to `example.com`.
pub async fn world_with(sink: &SmtpSink, protocol: Protocol) -> World {
    let world = strict_world_with(sink, protocol, &[]).await;
    allow(&world, &["example.com"]).await;
    world
}

/// The same with more arguments, whose realm allows mail to nobody but the owners of keys.
pub async fn strict_world_with(sink: &SmtpSink, protocol: Protocol, more: &[&str]) -> World {
    let url = sink.url();
    let arguments = [
        &["--smtp-url", &url, "--mail-from", FROM, "--public-url", "https://api.example.com"],
        more,
    ]
    .concat();
    World::start_with(protocol, &arguments).await
}

/// Has the realm allow mail to these domains.
async fn allow(world: &World, domains: &[&str]) {
    let policy = json!({"policy": {"mail_domains": domains}, "update_mask": "mailDomains"});
    world.done("RemovalService/UpdateRemovalPolicy", policy).await;
}

/// The outcome of the mail of a task, once it is neither waiting nor on its way.
async fn mail_ended(world: &World, task: &str) -> Value {
    let ended = world
        .call_until("BulkDeleteService/GetTask", json!({"task_id": task}), |task| {
            task["mail"]["status"] != "pending"
        })
        .await;
    ended.get("mail").clone()
}

/// The mails in the database: recipient and status.
pub fn stored(database: &Database) -> String {
    database.text("SELECT string_agg(recipient || ' ' || status, ', ' ORDER BY recipient) FROM bulk_delete_mail").unwrap_or_default()
}

pub async fn mail(sink: &SmtpSink) -> Mail {
    until("a mail is there", || !sink.mails().is_empty()).await;
    let mut mails = sink.mails();
    assert_eq!(mails.len(), 1, "{mails:#?}");
    mails.remove(0)
}

#[tokio::test]
async fn the_end_of_a_task_is_reported_by_mail() {
    for protocol in [Protocol::Grpc, Protocol::Rest] {
        let sink = SmtpSink::start().await;
        let world = world_with(&sink, protocol).await;
        for id in ["a", "b", "held"] {
            world.given_entity(id, json!({})).await;
        }
        world.database.hold("held");
        let spec = json!({"objects": {"filter": "equals(type, 'HCP')\r\n and exists(uri)", "exclude_list": ["b"]}});
        let started = world
            .done(START, json!({"mode": "hard", "spec": spec, "send_mail": "someone@example.com"}))
            .await;
        let task = world.task_ended(&id(&started)).await;
        let mail = mail(&sink).await;
        assert_eq!((mail.header("From"), mail.header("To")), (FROM, "someone@example.com"));
        assert_eq!(mail.header("Subject"), "Hard Delete Entities By Type: completed with errors");
        assert_eq!(mail.header("Message-ID"), format!("<{}@example.com>", id(&task)));
        assert_eq!(
            (mail.header("Auto-Submitted"), mail.header("Content-Type").starts_with("text/plain")),
            ("auto-generated", true)
        );
        for line in [
            "The task is over: completed with errors.".to_owned(),
            format!("  Task                   {}", id(&task)),
            "  Organisation           acme (test)".to_owned(),
            format!("  Asked for by           {}", task.get("created_by").as_str().unwrap()),
            "  mode                   hard".to_owned(),
            "  Matched                3".to_owned(),
            "  Done                   1".to_owned(),
            "  Failed                 1".to_owned(),
            "  Excluded               1".to_owned(),
            "  1: The entity is on hold.".to_owned(),
            format!("  GET https://api.example.com/api/acme/tasks/{}/failures", id(&task)),
            format!("  offboard bulk-delete failures {}", id(&task)),
        ] {
            assert!(
                mail.text.lines().any(|reported| reported == line),
                "{line:?} is not in\n{}",
                mail.text
            );
        }
        until("it is written down", || stored(&world.database) == "someone@example.com sent").await;
    }
}

/// Whoever may delete may not write to whomever they like.
#[tokio::test]
async fn mail_goes_to_the_owner_of_the_key_and_to_whom_the_realm_allows() {
    for protocol in [Protocol::Grpc, Protocol::Rest] {
        let sink = SmtpSink::start().await;
        let world = strict_world_with(&sink, protocol, &[]).await;
        let key = Key::create_with(
            &world.database,
            "acme",
            "test",
            SCOPES,
            &["--email", "Owner@own.example"],
        );
        let owner = Client::new(&world.server, &key, protocol);
        for client in [&world.client, &owner] {
            for (method, request) in [
                (START, json!({"uris": ["x"], "send_mail": "victim@elsewhere.example"})),
                (
                    START,
                    json!({"uris": ["x"], "send_mail": "victim@elsewhere.example", "dry_run": true}),
                ),
                (START, json!({"uris": ["x"], "send_mail": "another@own.example"})),
                (
                    "BulkDeleteService/CheckConsistency",
                    json!({"send_mail": "victim@elsewhere.example"}),
                ),
            ] {
                let refusal = client.call(method, request.clone()).await.unwrap_err();
                let fault = &refusal.faults[0];
                assert_eq!(
                    (refusal.code.as_str(), fault.field.as_str(), fault.code.as_str()),
                    ("validation_failed", "send_mail", "not_allowed")
                );
                assert!(
                    refusal.message.contains("mail_domains")
                        || refusal.message.contains("mailDomains"),
                    "{}",
                    refusal.message
                );
            }
        }
        assert_eq!(
            (world.database.rows("bulk_delete"), world.database.rows("bulk_delete_mail")),
            (0, 0)
        );
        let started = owner
            .call(START, json!({"uris": ["x"], "send_mail": "owner@OWN.example"}))
            .await
            .unwrap();
        assert_eq!(mail_ended(&world, &id(&started)).await["status"], "sent");

        allow(&world, &["Elsewhere.example"]).await;
        let policy = world.done("RemovalService/GetRemovalPolicy", json!({})).await;
        assert_eq!(policy.get("mail_domains"), &json!(["elsewhere.example"]));
        let started = world
            .done(START, json!({"uris": ["x"], "send_mail": "someone@elsewhere.example"}))
            .await;
        assert_eq!(
            mail_ended(&world, &id(&started)).await,
            json!({"status": "sent", "reason": null, "message": null})
        );
        let below = world
            .refused(START, json!({"uris": ["x"], "send_mail": "someone@sub.elsewhere.example"}))
            .await;
        assert_eq!(below.faults[0].code, "not_allowed");
        let other = world.client("other", "test", SCOPES);
        let refusal = other
            .call(START, json!({"uris": ["x"], "send_mail": "someone@elsewhere.example"}))
            .await
            .unwrap_err();
        assert_eq!(
            refusal.faults[0].code, "not_allowed",
            "what one realm allows, another does not"
        );
        let plain = world.done(START, json!({"uris": ["x"]})).await;
        assert_eq!(plain.get("mail"), &Value::Null);
    }
}

/// An address that was allowed at the request may not be allowed any more when the mail is to be sent.
#[tokio::test]
async fn a_mail_that_is_allowed_no_longer_is_not_sent_and_the_task_says_so() {
    let mut sink = SmtpSink::not_started();
    let world = world_with(&sink, Protocol::Rest).await;
    let task = id(&world.bulk_delete(json!({"uris": ["x"], "send_mail": "jo@example.com"})).await);
    let waiting = world
        .call_until("BulkDeleteService/GetTask", json!({"task_id": task}), |task| {
            task["mail"]["reason"] == "unreachable"
        })
        .await;
    assert_eq!(waiting.get("mail.status"), "pending");
    allow(&world, &[]).await;
    sink.start_again(&[]).await;
    let mail = mail_ended(&world, &task).await;
    assert_eq!((&mail["status"], &mail["reason"]), (&json!("failed"), &json!("not_allowed")));
    assert!(
        mail["message"]
            .as_str()
            .is_some_and(|message| message.contains("allows mail to the address no longer")),
        "{mail}"
    );
    assert!(sink.mails().is_empty());
}

#[tokio::test]
async fn a_realm_sends_so_many_mails_an_hour_and_the_tasks_beyond_say_so() {
    for protocol in [Protocol::Grpc, Protocol::Rest] {
        let sink = SmtpSink::start().await;
        let world = strict_world_with(&sink, protocol, &["--mails-per-hour=2"]).await;
        allow(&world, &["example.com"]).await;
        let _other = Server::start_with(
            &world.database,
            &["--smtp-url", &sink.url(), "--mail-from", FROM, "--mails-per-hour=2"],
            &[],
        )
        .await;
        let mut outcomes = Vec::new();
        let mut tasks = Vec::new();
        for n in 0..5 {
            tasks.push(
                world
                    .schedule(json!({"uris": ["x"], "send_mail": format!("jo{n}@example.com")}))
                    .await,
            );
        }
        for task in &tasks {
            let mail = mail_ended(&world, task).await;
            let word = |name: &str| mail[name].as_str().unwrap_or_default().to_owned();
            outcomes.push(format!("{} {}", word("status"), word("reason")));
        }
        outcomes.sort_unstable();
        assert_eq!(outcomes, ["failed limit", "failed limit", "failed limit", "sent ", "sent "]);
        assert_eq!(sink.mails().len(), 2);
        let listed = world.done("BulkDeleteService/ListTaskHistory", json!({"max": 10})).await;
        let shown = listed
            .get("tasks")
            .as_array()
            .unwrap()
            .iter()
            .filter(|task| task["mail"]["reason"] == "limit")
            .count();
        assert_eq!(shown, 3, "lists say so as well");

        let key = Key::create_with(
            &world.database,
            "other",
            "test",
            SCOPES,
            &["--email", "other@example.org"],
        );
        let other = Client::new(&world.server, &key, protocol);
        other.call(START, json!({"uris": ["x"], "send_mail": "true"})).await.unwrap();
        until("another realm has a limit of its own", || sink.mails().len() == 3).await;
        world
            .database
            .sql("UPDATE bulk_delete_mail SET admitted_at = admitted_at - interval '61 minutes'");
        let later = world.schedule(json!({"uris": ["x"], "send_mail": "later@example.com"})).await;
        assert_eq!(mail_ended(&world, &later).await["status"], "sent");
    }
}

/// A mail is written in our words: a filter, a type or an id would be those of whoever asked for it.
#[tokio::test]
async fn a_mail_carries_no_words_of_its_caller() {
    let sink = SmtpSink::start().await;
    let world = world_with(&sink, Protocol::Rest).await;
    world.given_entity("buy.evil.example", json!({"type": "visit http://evil.example now"})).await;
    world.database.hold("buy.evil.example");
    for request in [
        json!({"entity_type": "visit http://evil.example now"}),
        json!({"spec": {"objects": {"filter": "equals(type, 'visit http://evil.example now')"}}}),
        json!({"uris": ["buy.evil.example", "more.evil.example"]}),
    ] {
        let mut request = request;
        request["send_mail"] = json!("jo@example.com");
        let task = world.schedule(request).await;
        assert_eq!(mail_ended(&world, &task).await["status"], "sent");
    }
    let mails = sink.mails();
    assert_eq!(mails.len(), 3);
    for mail in mails {
        assert!(
            !mail.header("Subject").contains("evil") && !mail.text.contains("evil"),
            "{mail:?}"
        );
        assert!(
            mail.text.contains("GET https://api.example.com/api/acme/tasks/"),
            "but where the task is to be seen: {mail:?}"
        );
    }
}

#[tokio::test]
async fn true_is_the_address_of_the_callers_key() {
    let sink = SmtpSink::start().await;
    let world = world_with(&sink, Protocol::Rest).await;
    let refusal = world.refused(START, json!({"uris": ["x"], "send_mail": "true"})).await;
    assert_eq!(
        (refusal.code.as_str(), refusal.faults[0].field.as_str()),
        ("validation_failed", "send_mail")
    );
    assert!(refusal.message.contains("no address is registered"), "{}", refusal.message);
    for protocol in [Protocol::Rest, Protocol::Grpc] {
        let key = Key::create_with(
            &world.database,
            "acme",
            "test",
            SCOPES,
            &["--email", "owner@example.com"],
        );
        let client = Client::new(&world.server, &key, protocol);
        let answer = client.call(START, json!({"uris": ["x"], "send_mail": "true"})).await.unwrap();
        world.task_ended(&id(&answer)).await;
    }
    until("both are sent", || sink.mails().len() == 2).await;
    assert!(sink.mails().iter().all(|mail| mail.header("To") == "owner@example.com"));
    let bad = run(&[
        "key",
        "create",
        "--database-url",
        &world.database.url,
        "--org",
        "acme",
        "--scope",
        "admin",
        "--email",
        "nobody",
    ]);
    assert!(bad.code == Some(2) && bad.stderr.contains("must be an address, such as"), "{bad:?}");
}

#[tokio::test]
async fn what_is_no_address_is_refused_and_nothing_is_no_mail() {
    let sink = SmtpSink::start().await;
    let world = world_with(&sink, Protocol::Rest).await;
    for bad in ["nobody", "a@b.c, d@e.f", "a@b.c\r\nBcc: x@y.z", "Jo <jo@example.com>"] {
        let refusal = world.refused(START, json!({"uris": ["x"], "send_mail": bad})).await;
        assert_eq!(
            (refusal.code.as_str(), refusal.faults[0].field.as_str()),
            ("validation_failed", "send_mail"),
            "{bad:?}"
        );
    }
    assert_eq!(world.database.rows("bulk_delete"), 0);
    for none in [
        json!({"uris": ["x"]}),
        json!({"uris": ["x"], "send_mail": "false"}),
        json!({"uris": ["x"], "send_mail": "jo@example.com", "dry_run": true}),
    ] {
        world.done(START, none).await;
    }
    assert_eq!(stored(&world.database), "");
}

#[tokio::test]
async fn without_a_mail_server_nobody_may_ask_for_mail() {
    for protocol in [Protocol::Grpc, Protocol::Rest] {
        let world = World::start(protocol).await;
        for asked in ["true", "jo@example.com"] {
            let refusal = world.refused(START, json!({"uris": ["x"], "send_mail": asked})).await;
            assert_eq!(
                (refusal.code.as_str(), refusal.faults[0].field.as_str()),
                ("validation_failed", "send_mail")
            );
            assert!(refusal.message.contains("no mail server"), "{}", refusal.message);
        }
        assert_eq!(world.database.rows("bulk_delete"), 0);
    }
    let ended = run(&[
        "serve",
        "--smtp-url",
        "smtp://someone:secret@mail.example.com",
        "--mail-from",
        FROM,
        "--database-url",
        "postgresql://127.0.0.1:1/x",
    ]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("--smtp-url: must use TLS") && !ended.stderr.contains("secret"),
        "{}",
        ended.stderr
    );
    assert_eq!(run(&["serve", "--smtp-url", "smtp://mail"]).code, Some(2), "a sender is needed");
}
