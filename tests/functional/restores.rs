//! Events when the database becomes another one: a dump, a point-in-time restore, a promotion, a copy. Nothing is hidden, nothing is
//! reported twice as new, nothing is passed over, whoever reads: lists, streams by gRPC and as server-sent events, NATS, and cursors that
//! were kept.

use crate::events::reported;
use crate::kit::*;
use crate::restore_story::nothing_is_hidden_sent_twice_or_passed_over;

#[tokio::test]
async fn a_dump_in_a_fresh_cluster_goes_on_where_it_was_taken() {
    nothing_is_hidden_sent_twice_or_passed_over(
        |home| {
            let (file, url) = (home.path("dump"), home.url("offboard"));
            home.run("pg_dump", &["-f", file.to_str().unwrap(), &url]);
        },
        |home| {
            home.stop("fast");
            home.initdb("new");
            home.start("new");
            home.sql("postgres", "CREATE DATABASE offboard");
            let (file, url) = (home.path("dump"), home.url("offboard"));
            home.run("psql", &["-q", "-v", "ON_ERROR_STOP=1", "-f", file.to_str().unwrap(), &url]);
            ("offboard", false)
        },
    )
    .await;
}

#[tokio::test]
async fn a_restore_to_a_point_in_time_goes_on_from_there() {
    nothing_is_hidden_sent_twice_or_passed_over(
        |home| {
            home.copy("new");
            home.sql("postgres", "SELECT pg_create_restore_point('there')");
        },
        |home| {
            home.sql("postgres", "SELECT pg_switch_wal()");
            home.stop("fast");
            let restore = format!(
                "restore_command = 'cp {}/%f %p'\nrecovery_target_name = 'there'\nrecovery_target_action = promote\n",
                home.path("archive").display()
            );
            home.append("new", "postgresql.conf", &restore);
            home.append("new", "recovery.signal", "");
            home.start("new");
            wait_for_promotion(home);
            ("offboard", false)
        },
    )
    .await;
}

#[tokio::test]
async fn a_standby_that_lagged_is_promoted_and_goes_on() {
    nothing_is_hidden_sent_twice_or_passed_over(
        |home| home.copy("new"),
        |home| {
            home.stop("immediate");
            home.append("new", "standby.signal", "");
            home.start("new");
            let data = home.path("new");
            home.run("pg_ctl", &["-D", data.to_str().unwrap(), "-w", "promote"]);
            wait_for_promotion(home);
            ("offboard", false)
        },
    )
    .await;
}

#[tokio::test]
async fn a_copy_in_another_database_of_the_cluster_goes_on_by_itself() {
    nothing_is_hidden_sent_twice_or_passed_over(
        |home| {
            home.sql("postgres", "CREATE DATABASE copy");
            let (file, from, to) = (home.path("dump"), home.url("offboard"), home.url("copy"));
            home.run("pg_dump", &["-f", file.to_str().unwrap(), &from]);
            home.run("psql", &["-q", "-v", "ON_ERROR_STOP=1", "-f", file.to_str().unwrap(), &to]);
        },
        |_| ("copy", true),
    )
    .await;
}

/// A history that is begun by hand, where the database itself says nothing; and one that is begun because this process knows better.
#[tokio::test]
async fn a_database_that_went_back_unannounced_is_detected_by_the_rows_that_were_sent() {
    let world = World::start(Protocol::Grpc).await;
    let mut watching = world.watch(json!({})).await;
    world.entities(&["a"]).await;
    world.entities(&["b"]).await;
    let events = watching.events(2).await;
    until("the positions are given", || world.database.last_position() == 2).await;
    // As if the volume had been put back by a snapshot.
    world.database.sql(
        "DELETE FROM event WHERE 'b' = ANY (subjects); DELETE FROM event_position WHERE position = 2;
         UPDATE event_sequencer SET position = 1",
    );
    world.entities(&["c"]).await;
    world.entities(&["d"]).await;
    assert_eq!(watching.end().await.code, "out_of_range");
    let mut again = world.watch(json!({"cursor": events[0]["cursor"]})).await;
    assert_eq!(reported(&again.events(2).await), ["entity.created c", "entity.created d"]);
    let refused = world
        .client
        .stream("EventService/WatchEvents", json!({"cursor": events[1]["cursor"]}), &[])
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code, "out_of_range");

    let printed =
        offboard(&["events", "--database-url", &world.database.url, "new-history", "--yes"]);
    assert!(printed.contains("position 4"), "{printed}");
    let printed = offboard(&["events", "--database-url", &world.database.url, "history"]);
    let reasons: Vec<&str> =
        printed.lines().map(|line| line.split_whitespace().nth(2).unwrap()).collect();
    assert_eq!(reasons, ["first", "lost", "forced"], "{printed}");
    let mut on =
        world.watch(json!({"cursor": world.all_events(json!({}), 10).await[2]["cursor"]})).await;
    world.entities(&["e"]).await;
    assert_eq!(
        reported(&on.events(1).await),
        ["entity.created e"],
        "who has lost nothing notices nothing"
    );
}

/// The same where nobody had a stream open: what a list has sent counts as well.
#[tokio::test]
async fn a_database_that_went_back_is_found_out_by_what_lists_have_sent() {
    let world = World::start(Protocol::Rest).await;
    world.entities(&["a"]).await;
    world.entities(&["b"]).await;
    let page = world.call("EventService/ListEvents", json!({})).await.unwrap();
    let behind = page.get("next_page_token").clone();
    assert_eq!(
        reported(page.get("events").as_array().unwrap()),
        ["entity.created a", "entity.created b"]
    );
    // A list of what is old says nothing of what is new.
    world.call("EventService/ListEvents", json!({"page_size": 1})).await.unwrap();
    world.database.sql(
        "DELETE FROM event WHERE 'b' = ANY (subjects); DELETE FROM event_position WHERE position = 2;
         UPDATE event_sequencer SET position = 1",
    );
    for name in ["c", "d", "e"] {
        let refused =
            world.call("EventService/ListEvents", json!({"page_token": behind})).await.unwrap_err();
        assert_eq!(
            (refused.code.as_str(), refused.members["parted_at"].as_i64()),
            ("out_of_range", Some(1)),
            "before {name}: {refused:#?}"
        );
        world.entities(&[name]).await;
    }
    assert_eq!(world.database.rows("event_history"), 2);
}

/// Rows sent before a history that another process began say nothing of that history, and hide no later loss.
#[tokio::test]
async fn what_was_sent_of_an_earlier_history_hides_no_later_loss() {
    let world = World::start(Protocol::Rest).await;
    world.entities(&["a"]).await;
    world.entities(&["b"]).await;
    let back = |name: &str| {
        world.database.sql(&format!(
            "DELETE FROM event WHERE '{name}' = ANY (subjects); DELETE FROM event_position WHERE position = 2;
             UPDATE event_sequencer SET position = 1"
        ));
    };
    world.call("EventService/ListEvents", json!({})).await.unwrap();
    back("b");
    offboard(&["events", "--database-url", &world.database.url, "new-history", "--yes"]);
    world.entities(&["c"]).await;
    let behind = world
        .call("EventService/ListEvents", json!({}))
        .await
        .unwrap()
        .get("next_page_token")
        .clone();
    back("c");
    world.entities(&["d"]).await;
    let refused =
        world.call("EventService/ListEvents", json!({"page_token": behind})).await.unwrap_err();
    assert_eq!(
        (refused.code.as_str(), refused.members["parted_at"].as_i64()),
        ("out_of_range", Some(1)),
        "{refused:#?}"
    );
    let reasons = world.database.histories();
    assert_eq!(reasons.as_deref(), Some("first,forced,lost"));
}

fn wait_for_promotion(home: &ClusterHome) {
    home.run(
        "psql",
        &[
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            "DO $$ BEGIN WHILE pg_is_in_recovery() LOOP PERFORM pg_sleep(0.02); END LOOP; END $$",
            &home.url("postgres"),
        ],
    );
}
