//! A mail tells whoever asked for it that a task is over. It is sent at least once, and what becomes of it changes nothing of the task.

use crate::given::{Account, id};
use crate::kit::*;

const START: &str = "BulkDeleteService/StartBulkDelete";
const FROM: &str = "Offboard <offboard@example.com>";

/// A world whose server gives its mails to a sink.
async fn world_with(sink: &SmtpSink, door: Door) -> World {
    World::start_with(door, &["--smtp-url", &sink.url(), "--mail-from", FROM, "--public-url", "https://api.example.com"]).await
}

/// What the database says of the mails: recipient and status.
fn stored(database: &Database) -> String {
    database.text("SELECT string_agg(recipient || ' ' || status, ', ' ORDER BY recipient) FROM bulk_delete_mail").unwrap_or_default()
}

async fn mail(sink: &SmtpSink) -> Mail {
    until("a mail is there", || !sink.mails().is_empty()).await;
    let mut mails = sink.mails();
    assert_eq!(mails.len(), 1, "{mails:#?}");
    mails.remove(0)
}

#[tokio::test]
async fn the_end_of_a_task_is_told_by_mail() {
    for door in [Door::Grpc, Door::Rest] {
        let sink = SmtpSink::start().await;
        let world = world_with(&sink, door).await;
        for id in ["a", "b", "held"] {
            world.given_entity(id, json!({})).await;
        }
        world.database.hold("held");
        let spec = json!({"objects": {"filter": "equals(type, 'HCP')\r\n and exists(uri)", "exclude_list": ["b"]}});
        let started = world.done(START, json!({"mode": "hard", "spec": spec, "send_mail": "someone@example.com"})).await;
        let task = world.task_ended(&id(&started)).await;
        let mail = mail(&sink).await;
        assert_eq!((mail.header("From"), mail.header("To")), (FROM, "someone@example.com"));
        assert_eq!(mail.header("Subject"), "Hard Delete Entities By Filter: completed with errors");
        assert_eq!(mail.header("Message-ID"), format!("<{}@example.com>", id(&task)));
        assert_eq!((mail.header("Auto-Submitted"), mail.header("Content-Type").starts_with("text/plain")), ("auto-generated", true));
        for line in [
            "The task is over: completed with errors.".to_owned(),
            format!("  Task                   {}", id(&task)),
            "  Organisation           acme (test)".to_owned(),
            format!("  Asked for by           {}", task.get("created_by").as_str().unwrap()),
            "  filter                 equals(type, 'HCP')   and exists(uri)".to_owned(),
            "  mode                   hard".to_owned(),
            "  Matched                3".to_owned(),
            "  Done                   1".to_owned(),
            "  Failed                 1".to_owned(),
            "  Spared                 1".to_owned(),
            "  held: The entity is on hold.".to_owned(),
            format!("  GET https://api.example.com/api/acme/tasks/{}/failures", id(&task)),
            format!("  offboard bulk-delete failures {}", id(&task)),
        ] {
            assert!(mail.text.lines().any(|told| told == line), "{line:?} is not in\n{}", mail.text);
        }
        until("it is written down", || stored(&world.database) == "someone@example.com sent").await;
    }
}

#[tokio::test]
async fn true_is_the_address_of_the_callers_key() {
    let sink = SmtpSink::start().await;
    let world = world_with(&sink, Door::Rest).await;
    let refusal = world.refused(START, json!({"uris": ["x"], "send_mail": "true"})).await;
    assert_eq!((refusal.code.as_str(), refusal.faults[0].field.as_str()), ("validation_failed", "send_mail"));
    assert!(refusal.message.contains("no address is registered"), "{}", refusal.message);
    for door in [Door::Rest, Door::Grpc] {
        let key = Key::create_with(&world.database, "acme", "test", SCOPES, &["--email", "owner@example.com"]);
        let client = Client::new(&world.server, &key, door);
        let answer = client.call(START, json!({"uris": ["x"], "send_mail": "true"})).await.unwrap();
        world.task_ended(&id(&answer)).await;
    }
    until("both are sent", || sink.mails().len() == 2).await;
    assert!(sink.mails().iter().all(|mail| mail.header("To") == "owner@example.com"));
    let bad = run(&["key", "create", "--database-url", &world.database.url, "--org", "acme", "--scope", "admin", "--email", "nobody"]);
    assert!(bad.code == Some(1) && bad.stderr.contains("--email must be an address"), "{bad:?}");
}

#[tokio::test]
async fn what_is_no_address_is_refused_and_nothing_is_no_mail() {
    let sink = SmtpSink::start().await;
    let world = world_with(&sink, Door::Rest).await;
    for bad in ["nobody", "a@b.c, d@e.f", "a@b.c\r\nBcc: x@y.z", "Jo <jo@example.com>"] {
        let refusal = world.refused(START, json!({"uris": ["x"], "send_mail": bad})).await;
        assert_eq!((refusal.code.as_str(), refusal.faults[0].field.as_str()), ("validation_failed", "send_mail"), "{bad:?}");
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
    for door in [Door::Grpc, Door::Rest] {
        let world = World::start(door).await;
        for asked in ["true", "jo@example.com"] {
            let refusal = world.refused(START, json!({"uris": ["x"], "send_mail": asked})).await;
            assert_eq!((refusal.code.as_str(), refusal.faults[0].field.as_str()), ("validation_failed", "send_mail"));
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
    assert!(ended.stderr.contains("--smtp-url must use TLS") && !ended.stderr.contains("secret"), "{}", ended.stderr);
    assert_eq!(run(&["serve", "--smtp-url", "smtp://mail"]).code, Some(2), "a sender is needed");
}

/// A mail server that is away holds nothing up: the mail waits for it, also over a restart of the service.
#[tokio::test]
async fn a_mail_waits_for_its_server() {
    let mut sink = SmtpSink::not_started();
    let mut world = world_with(&sink, Door::Rest).await;
    let task = world.bulk_delete(json!({"uris": ["x"], "send_mail": "jo@example.com"})).await;
    assert_eq!((task.get("status"), Account::of(&task).failed), (&json!("completed_with_errors"), 1), "the task is what it is");
    until("it was tried", || world.database.rows("bulk_delete_mail WHERE attempts > 0 AND last_error IS NOT NULL") == 1).await;
    assert_eq!(stored(&world.database), "jo@example.com pending");
    world.server.kill();
    sink.start_again(&[]).await;
    let _next = Server::start_with(&world.database, &["--smtp-url", &sink.url(), "--mail-from", FROM], &[]).await;
    mail(&sink).await;
    until("it is written down", || stored(&world.database) == "jo@example.com sent").await;
}

/// A mail that will never be taken is given up at once, and the task is as if nobody had asked.
#[tokio::test]
async fn a_mail_that_is_refused_fails_alone() {
    let mut sink = SmtpSink::not_started();
    sink.start_again(&["--size", "100"]).await;
    let world = world_with(&sink, Door::Grpc).await;
    let task = world.bulk_delete(json!({"uris": ["x"], "send_mail": "jo@example.com"})).await;
    until("it is given up", || stored(&world.database) == "jo@example.com failed").await;
    assert_eq!(world.database.rows("bulk_delete_mail WHERE attempts = 1 AND last_error LIKE '%552%'"), 1);
    let again = world.done("BulkDeleteService/GetTask", json!({"task_id": id(&task)})).await;
    assert_eq!((again.get("status"), again.get("end_time")), (task.get("status"), task.get("end_time")));
    assert!(sink.mails().is_empty());
}

/// The mail of a task that is not over is not due, whatever happens to the service meanwhile.
#[tokio::test]
async fn no_mail_tells_of_an_end_that_has_not_come() {
    let sink = SmtpSink::start().await;
    let world = world_with(&sink, Door::Rest).await;
    let task = world.bulk_delete(json!({"uris": ["x"], "send_mail": "first@example.com"})).await;
    mail(&sink).await;
    world.database.sql(&format!(
        "UPDATE bulk_delete SET status = 'paused', ended_at = NULL WHERE id = '{}';
         UPDATE bulk_delete_mail SET status = 'pending', finished_at = NULL, due_at = now(), recipient = 'again@example.com'",
        id(&task)
    ));
    world.bulk_delete(json!({"uris": ["x"], "send_mail": "second@example.com"})).await;
    until("the second is there", || sink.mails().len() == 2).await;
    assert_eq!(stored(&world.database).matches("again@example.com pending").count(), 1);
    world.database.sql("UPDATE bulk_delete SET status = 'canceled', ended_at = now() WHERE status = 'paused'");
    until("the third is there", || sink.mails().len() == 3).await;
    let last = sink.mails().into_iter().find(|mail| mail.header("To") == "again@example.com").unwrap();
    assert!(last.header("Subject").ends_with(": canceled"), "{last:?}");
}

/// Two replicas send one mail once between them.
#[tokio::test]
async fn several_replicas_send_a_mail_once() {
    let sink = SmtpSink::start().await;
    let world = world_with(&sink, Door::Rest).await;
    let _other = Server::start_with(&world.database, &["--smtp-url", &sink.url(), "--mail-from", FROM], &[]).await;
    for n in 0..6 {
        world.schedule(json!({"uris": ["x"], "send_mail": format!("jo{n}@example.com")})).await;
    }
    until("all are sent", || world.database.rows("bulk_delete_mail WHERE status = 'sent'") == 6).await;
    assert_eq!(sink.mails().len(), 6);
    assert_eq!(world.database.rows("bulk_delete_mail WHERE attempts <> 1"), 0);
}
