//! How mails are sent: each at least once, by one of several replicas, and none delays another for long.

use std::time::Duration;

use offboard::task::mail_queries;

use crate::bulk_delete_mail::{FROM, START, mail, stored, strict_world_with, world_with};
use crate::given::{Account, id};
use crate::kit::*;

/// A mail server that is unreachable delays nothing: the mail waits for it, also over a restart of the service.
#[tokio::test]
async fn a_mail_waits_for_its_server() {
    let mut sink = SmtpSink::not_started();
    let mut world = world_with(&sink, Protocol::Rest).await;
    let task = world.bulk_delete(json!({"uris": ["x"], "send_mail": "jo@example.com"})).await;
    assert_eq!(
        (task.get("status"), Account::of(&task).failed),
        (&json!("completed_with_errors"), 1),
        "the task is what it is"
    );
    until("it was tried", || {
        world.database.rows("bulk_delete_mail WHERE attempts > 0 AND last_error IS NOT NULL") == 1
    })
    .await;
    assert_eq!(stored(&world.database), "jo@example.com pending");
    world.server.kill();
    sink.start_again(&[]).await;
    let _next =
        Server::start_with(&world.database, &["--smtp-url", &sink.url(), "--mail-from", FROM], &[])
            .await;
    mail(&sink).await;
    until("it is written down", || stored(&world.database) == "jo@example.com sent").await;
}

/// A mail that will never be taken is given up at once, and the task is as if nobody had asked.
#[tokio::test]
async fn a_mail_that_is_refused_fails_alone() {
    let mut sink = SmtpSink::not_started();
    sink.start_again(&["--size", "100"]).await;
    let world = world_with(&sink, Protocol::Grpc).await;
    let task = world.bulk_delete(json!({"uris": ["x"], "send_mail": "jo@example.com"})).await;
    until("it is given up", || stored(&world.database) == "jo@example.com failed").await;
    assert_eq!(
        world.database.rows("bulk_delete_mail WHERE attempts = 1 AND last_error LIKE '%552%'"),
        1
    );
    let again = world.done("BulkDeleteService/GetTask", json!({"task_id": id(&task)})).await;
    assert_eq!(
        (again.get("status"), again.get("end_time")),
        (task.get("status"), task.get("end_time"))
    );
    assert!(sink.mails().is_empty());
}

/// The mail of a task that has not ended is not sent, whatever happens to the service meanwhile.
#[tokio::test]
async fn no_mail_reports_of_an_end_that_has_not_come() {
    let sink = SmtpSink::start().await;
    let world = world_with(&sink, Protocol::Rest).await;
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
    world.database.sql(
        "UPDATE bulk_delete SET status = 'canceled', ended_at = now() WHERE status = 'paused'",
    );
    until("the third is there", || sink.mails().len() == 3).await;
    let last =
        sink.mails().into_iter().find(|mail| mail.header("To") == "again@example.com").unwrap();
    assert!(last.header("Subject").ends_with(": canceled"), "{last:?}");
}

/// Two replicas send one mail once between them.
#[tokio::test]
async fn several_replicas_send_a_mail_once() {
    let sink = SmtpSink::start().await;
    let world = world_with(&sink, Protocol::Rest).await;
    let _other =
        Server::start_with(&world.database, &["--smtp-url", &sink.url(), "--mail-from", FROM], &[])
            .await;
    for n in 0..6 {
        world.schedule(json!({"uris": ["x"], "send_mail": format!("jo{n}@example.com")})).await;
    }
    until("all are sent", || world.database.rows("bulk_delete_mail WHERE status = 'sent'") == 6)
        .await;
    assert_eq!(sink.mails().len(), 6);
    assert_eq!(world.database.rows("bulk_delete_mail WHERE attempts <> 1"), 0);
}

/// Mails are sent one by one, and a server of mails may take its time for each.
#[tokio::test]
async fn many_mails_of_one_realm_do_not_delay_that_of_another() {
    let sink = SmtpSink::start().await;
    let world = strict_world_with(&sink, Protocol::Grpc, &["--roles", "grpc,gateway"]).await;
    let other = world.client("umbrella", "test", SCOPES);
    world.database.sql(
        "INSERT INTO removal_policy (realm_id, mail_domains, updated_by) SELECT id, ARRAY['example.com'], gen_random_uuid() FROM realm",
    );
    for _ in 0..8 {
        world
            .schedule(
                json!({"entity_type": "HCP", "mode": "hard", "send_mail": "many@example.com"}),
            )
            .await;
    }
    other
        .call(START, json!({"entity_type": "HCP", "mode": "hard", "send_mail": "one@example.com"}))
        .await
        .unwrap();
    // This one does what is to be done, and sends no mail.
    let _worker = Server::start(&world.database).await;
    until("all are over", || world.database.rows("bulk_delete WHERE ended_at IS NULL") == 0).await;
    let mut connection = world.database.connection();
    let mut sent = Vec::new();
    while let Some(claimed) =
        mail_queries::claim(&mut connection, "x", Duration::from_secs(60)).unwrap()
    {
        assert!(mail_queries::admit(&mut connection, &claimed, 60).unwrap());
        sent.push(claimed.recipient);
    }
    assert_eq!(sent.len(), 9);
    assert!(sent[..2].iter().any(|recipient| recipient == "one@example.com"), "{sent:?}");
}
