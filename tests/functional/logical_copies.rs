//! Events and numbers when the service continues in a copy by logical replication. That copies rows, and no sequences.

use crate::events::reported;
use crate::kit::*;
use crate::restore_story::{Story, names, nothing_is_hidden_sent_twice_or_passed_over, serve};

/// Has the database copied into a second cluster, as it is and as it changes.
fn subscribe(home: &mut ClusterHome) {
    home.initdb("new");
    home.start_beside("new");
    sql(&home.url_beside("postgres"), "CREATE DATABASE offboard");
    let (file, from, to) = (home.path("schema"), home.url("offboard"), home.url_beside("offboard"));
    home.run("pg_dump", &["--schema-only", "-f", file.to_str().unwrap(), &from]);
    home.run("psql", &["-q", "-v", "ON_ERROR_STOP=1", "-f", file.to_str().unwrap(), &to]);
    sql(
        &from,
        "CREATE PUBLICATION everything FOR ALL TABLES WITH (publish_via_partition_root = true)",
    );
    sql(&to, &format!("CREATE SUBSCRIPTION copy CONNECTION '{from}' PUBLICATION everything"));
}

/// Ends the subscription when it has all that was committed so far.
fn unsubscribe(home: &ClusterHome) {
    let wait = |url: &str, declare: &str, lacks: &str| {
        sql(
            url,
            &format!(
                "DO $$ {declare} BEGIN WHILE {lacks} LOOP PERFORM pg_sleep(0.02); END LOOP; END $$"
            ),
        );
    };
    let to = home.url_beside("offboard");
    wait(&to, "", "EXISTS (SELECT FROM pg_subscription_rel WHERE srsubstate <> 'r')");
    let slot = "EXISTS (SELECT FROM pg_replication_slots WHERE confirmed_flush_lsn < so_far)";
    wait(&home.url("offboard"), "DECLARE so_far pg_lsn := pg_current_wal_lsn();", slot);
    sql(&to, "DROP SUBSCRIPTION copy");
}

/// Puts the copy in the place of the database.
fn switch(home: &mut ClusterHome) {
    home.stop("fast");
    home.stop_beside();
    home.start("new");
}

#[tokio::test]
async fn a_logical_copy_that_lacks_the_last_transactions_goes_on_by_itself() {
    nothing_is_hidden_sent_twice_or_passed_over(
        |home| {
            subscribe(home);
            unsubscribe(home);
        },
        |home| {
            switch(home);
            ("offboard", false)
        },
    )
    .await;
}

#[tokio::test]
async fn a_logical_copy_that_has_everything_goes_on_at_every_cursor() {
    let mut story = Story::begin().await;
    let before = story.chapter("a", 5, &json!("")).await;
    subscribe(&mut story.home);
    let meanwhile = story.chapter("b", 4, &before.token).await;
    story.published("b3").await;
    story.server.kill();
    unsubscribe(&story.home);
    switch(&mut story.home);
    story.server = serve(&story.home.url("offboard"), &story.nats).await;

    assert_eq!(
        story.list(&meanwhile.token).await.unwrap().events,
        Vec::<Value>::new(),
        "0 sent twice"
    );
    let after = story.chapter("c", 6, &meanwhile.token).await;
    let all = [names("a", 0, 5), names("b", 0, 4), names("c", 0, 6)].concat();
    assert_eq!(reported(&after.events), all[9..]);
    for (n, event) in before.events.iter().chain(&meanwhile.events).enumerate() {
        story.goes_on(&event["cursor"], &all[n + 1..]).await;
    }
    assert_eq!(reported(&story.list(&json!("")).await.unwrap().events), all, "0 hidden");
    assert_eq!(story.published("c5").await.len(), 15, "all of it was published, and nothing twice");
    assert_eq!(story.histories("offboard"), ["first", "line"]);
    story.numbers_are_given_out_once("offboard");
}
