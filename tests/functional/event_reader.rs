//! The reader of events, on transactions that commit in any order.

use std::collections::{BTreeMap, HashSet};

use diesel::PgConnection;
use diesel::connection::SimpleConnection;
use offboard::events::queries::{self, Scope, read};
use offboard::events::sequencer::catch_up;
use offboard::events::{Cursor, Event};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::kit::*;

/// Writes an event of these subjects.
fn report(connection: &mut PgConnection, subjects: &[String]) {
    let subjects = subjects.join("','");
    let statement = format!(
        "INSERT INTO event (realm_id, type, subjects, principal_id)
         SELECT id, 'entity.created', ARRAY['{subjects}'], gen_random_uuid() FROM realm ORDER BY id LIMIT 1"
    );
    connection.batch_execute(&statement).unwrap();
}

fn one(subject: &str) -> Vec<String> {
    vec![subject.to_owned()]
}

/// The cursor behind everything that is committed now.
fn now(connection: &mut PgConnection) -> Result<Cursor, offboard::db::Fail> {
    catch_up(connection)?;
    queries::now(connection)
}

/// Reads until there is nothing more.
fn read_on(connection: &mut PgConnection, cursor: &mut Cursor, limit: i64) -> Vec<Event> {
    let mut events = Vec::new();
    catch_up(connection).unwrap();
    loop {
        let batch = read(connection, &Scope::all(), cursor, limit).unwrap();
        events.extend(batch.rows.iter().flat_map(|row| row.events().collect::<Vec<_>>()));
        *cursor = batch.cursor;
        if batch.caught_up {
            return events;
        }
    }
}

fn subjects(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.subject.as_str()).collect()
}

async fn with_realm() -> Database {
    let database = database().await;
    database.sql("INSERT INTO realm (org, mode) VALUES ('acme', 'test')");
    database
}

#[tokio::test]
async fn what_commits_late_is_seen_and_nothing_twice() {
    let database = with_realm().await;
    let (mut early, mut late, mut reader) =
        (database.connection(), database.connection(), database.connection());
    for start in [Cursor::beginning(), now(&mut reader).unwrap()] {
        let mut cursor = start;
        early.batch_execute("BEGIN").unwrap();
        late.batch_execute("BEGIN").unwrap();
        report(&mut early, &one("early"));
        report(&mut late, &one("late"));
        late.batch_execute("COMMIT").unwrap();
        assert_eq!(subjects(&read_on(&mut reader, &mut cursor, 10)), ["late"]);
        early.batch_execute("COMMIT").unwrap();
        assert_eq!(subjects(&read_on(&mut reader, &mut cursor, 10)), ["early"]);
        assert!(read_on(&mut reader, &mut cursor, 10).is_empty());
        reader.batch_execute("DELETE FROM event").unwrap();
    }
}

#[tokio::test]
async fn a_transaction_that_stays_open_delays_nothing() {
    let database = with_realm().await;
    let (mut open, mut writer, mut reader) =
        (database.connection(), database.connection(), database.connection());
    open.batch_execute("BEGIN; SELECT pg_current_xact_id()").unwrap();
    let mut cursor = now(&mut reader).unwrap();
    for n in 0..20 {
        report(&mut writer, &one(&format!("e{n}")));
        assert_eq!(subjects(&read_on(&mut reader, &mut cursor, 10)), [format!("e{n}")]);
    }
}

#[tokio::test]
async fn changes_of_an_entity_are_sent_in_their_order_whatever_the_ids_of_their_transactions() {
    let database = with_realm().await;
    let (mut early, mut late, mut reader) =
        (database.connection(), database.connection(), database.connection());
    let mut cursor = now(&mut reader).unwrap();
    // The one with the early id changes the entity last.
    early.batch_execute("BEGIN; SELECT pg_current_xact_id()").unwrap();
    late.batch_execute("BEGIN").unwrap();
    report(&mut late, &one("e"));
    late.batch_execute("COMMIT").unwrap();
    report(&mut early, &one("e"));
    early.batch_execute("COMMIT").unwrap();
    let ids: Vec<String> =
        read_on(&mut reader, &mut cursor, 10).into_iter().map(|event| event.id).collect();
    assert_eq!(ids[0], database.event_of_the_last_transaction().unwrap());
}

/// Transactions whose changes of one entity wait for each other, on a row that another sequencer gave a position to meanwhile.
#[tokio::test]
async fn what_was_passed_over_is_looked_up_until_it_can_come_no_more() {
    let database = with_realm().await;
    let (mut open, mut failed, mut writer, mut reader) = (
        database.connection(),
        database.connection(),
        database.connection(),
        database.connection(),
    );
    let passed =
        |database: &Database| database.text("SELECT older + younger FROM event_sequencer").unwrap();
    let mut cursor = now(&mut reader).unwrap();
    open.batch_execute("BEGIN").unwrap();
    report(&mut open, &one("late"));
    failed.batch_execute("BEGIN").unwrap();
    report(&mut failed, &one("never"));
    failed.batch_execute("ROLLBACK").unwrap();
    report(&mut writer, &one("early"));
    assert_eq!(subjects(&read_on(&mut reader, &mut cursor, 10)), ["early"]);
    assert_eq!(passed(&database), "{[1,3)}");
    report(&mut writer, &one("next"));
    assert_eq!(subjects(&read_on(&mut reader, &mut cursor, 10)), ["next"]);
    open.batch_execute("COMMIT").unwrap();
    assert_eq!(subjects(&read_on(&mut reader, &mut cursor, 10)), ["late"]);
    until("the number of the transaction that failed is forgotten", || {
        // Transactions of other databases of the cluster count among those that may still run.
        catch_up(&mut reader).unwrap();
        passed(&database) == "{}"
    })
    .await;
    report(&mut writer, &one("last"));
    assert_eq!(subjects(&read_on(&mut reader, &mut cursor, 10)), ["last"]);
    let dense = "SELECT count(*) = max(position) AND min(position) = 1 FROM event_position";
    assert_eq!(database.text(dense).unwrap(), "true", "positions have no gaps");
}

#[tokio::test]
async fn a_cursor_inside_a_row_goes_on_there() {
    let database = with_realm().await;
    let (mut writer, mut reader) = (database.connection(), database.connection());
    let many: Vec<String> = (0..10).map(|n| format!("e{n}")).collect();
    report(&mut writer, &many);
    report(&mut writer, &one("last"));
    let mut cursor = Cursor::beginning();
    let all = read_on(&mut reader, &mut cursor, 3);
    let row = database.text("SELECT id FROM event ORDER BY seq LIMIT 1").unwrap();
    assert_eq!(all[9].id, format!("{row}-10"));
    assert_eq!((all[0].source.as_str(), all.len()), ("/orgs/acme/test", 11));
    for (n, event) in all.iter().enumerate() {
        let mut cursor = event.cursor.clone();
        assert_eq!(read_on(&mut reader, &mut cursor, 2), all[n + 1..].to_vec(), "behind {n}");
        // Later events are after every cursor.
        report(&mut writer, &one("new"));
        assert_eq!(subjects(&read_on(&mut reader, &mut cursor, 2)), ["new"]);
        database.sql("DELETE FROM event WHERE subjects = ARRAY['new']");
    }
}

#[tokio::test]
async fn a_cursor_of_another_history_is_refused() {
    let database = with_realm().await;
    let mut reader = database.connection();
    catch_up(&mut reader).unwrap();
    let cursor: Cursor =
        serde_json::from_value(json!({"h": "00000000-0000-4000-8000-000000000001", "p": 1}))
            .unwrap();
    assert!(read(&mut reader, &Scope::all(), &cursor, 10).is_err());
}

/// Transactions that begin, take their id, change entities and end in any order; readers that page with any limit and resume from any cursor.
#[tokio::test]
async fn every_event_is_read_once_and_in_order_in_any_interleaving() {
    for seed in 0..12 {
        let database = with_realm().await;
        let mut random = StdRng::seed_from_u64(seed);
        let mut writers: Vec<(PgConnection, bool)> =
            (0..5).map(|_| (database.connection(), false)).collect();
        let mut reader = database.connection();
        let mut cursor =
            if seed % 2 == 0 { Cursor::beginning() } else { now(&mut reader).unwrap() };
        let mut seen: Vec<Event> = Vec::new();
        for step in 0..150 {
            let at = random.random_range(0..writers.len());
            let (writer, open) = &mut writers[at];
            match (*open, random.random_range(0..4)) {
                (false, _) => {
                    writer.batch_execute("BEGIN; SELECT pg_current_xact_id()").unwrap();
                    *open = true;
                }
                // Entities are the writer's own, so that their order is that of the writes; one row reports many now and then.
                (true, 0 | 1) => {
                    let count = if random.random_range(0..5) == 0 { 7 } else { 1 };
                    report(
                        writer,
                        &(0..count).map(|n| format!("e{at}.{step}.{n}")).collect::<Vec<_>>(),
                    );
                }
                (true, 2) => {
                    writer.batch_execute("COMMIT").unwrap();
                    *open = false;
                }
                (true, _) => {
                    writer
                        .batch_execute(if random.random_range(0..3) == 0 {
                            "ROLLBACK"
                        } else {
                            "COMMIT"
                        })
                        .unwrap();
                    *open = false;
                }
            }
            if random.random_range(0..3) == 0 {
                catch_up(&mut reader).unwrap();
            }
            if random.random_range(0..3) == 0 {
                let batch =
                    read(&mut reader, &Scope::all(), &cursor, random.random_range(1..6)).unwrap();
                let events: Vec<Event> =
                    batch.rows.iter().flat_map(|row| row.events().collect::<Vec<_>>()).collect();
                cursor = batch.cursor;
                // A reader that breaks off in the middle resumes behind the last event that it has kept.
                let keep = random.random_range(0..=events.len());
                if keep > 0 && keep < events.len() {
                    cursor = events[keep - 1].cursor.clone();
                    seen.extend(events.into_iter().take(keep));
                } else {
                    seen.extend(events);
                }
            }
        }
        writers
            .iter_mut()
            .filter(|(_, open)| *open)
            .for_each(|(writer, _)| writer.batch_execute("COMMIT").unwrap());
        seen.extend(read_on(&mut reader, &mut cursor, 3));

        let ids: HashSet<&str> = seen.iter().map(|event| event.id.as_str()).collect();
        assert_eq!(ids.len(), seen.len(), "seed {seed}: an event came twice");
        assert_eq!(seen.len() as i64, database.event_subjects(), "seed {seed}");
        let mut last: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
        for event in &seen {
            let (writer, rest) = event.subject.split_once('.').unwrap();
            let (step, n) = rest.split_once('.').unwrap();
            let place = (step.parse().unwrap(), n.parse().unwrap());
            assert!(
                last.insert(writer, place).is_none_or(|before| before < place),
                "seed {seed}: {} came too late",
                event.subject
            );
        }
    }
}
