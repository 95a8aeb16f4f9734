//! A server that is killed under callers who change memberships, one by one and together: a change with a response is done once, one without is done once
//! or not at all, and whoever asks again learns which.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::given::Many;
use crate::kit::*;

const CALLERS: usize = 64;
const PORTFOLIOS: usize = 4;
const DEATHS: usize = 8;
/// Within so many milliseconds of its start a server dies.
const WINDOW: u64 = 250;

/// The statements that servers have under way in the database.
const SESSIONS: &str =
    "pg_stat_activity WHERE datname = current_database() AND application_name = 'offboard'";

fn entity(caller: usize) -> String {
    format!("e-{:06}", caller + 1)
}

/// Whoever has an odd number sends idempotency keys, so each of its calls is done by itself; those of the others are done together.
fn sends_keys(caller: usize) -> bool {
    caller % 2 == 1
}

/// The shared state of all callers.
struct Stage {
    server: watch::Receiver<Option<Client>>,
    over: AtomicBool,
    /// How many calls of each have a response.
    answered: Vec<AtomicUsize>,
    /// How many were not.
    unanswered: AtomicUsize,
}

/// A response: the version that it shows, and whether it is of the first call for the change.
type RecordedChange = (i64, bool);

/// Attaches its own entity and detaches it, in turns, and calls again until each has a response. Returns the responses.
async fn caller(stage: Arc<Stage>, caller: usize) -> Vec<RecordedChange> {
    let mut server = stage.server.clone();
    let mut reported = Vec::new();
    while !stage.over.load(Ordering::Relaxed) {
        let method = if reported.len() % 2 == 0 {
            "PortfolioService/AttachEntity"
        } else {
            "PortfolioService/DetachEntity"
        };
        let request = json!({"portfolio_id": format!("p{}", caller % PORTFOLIOS), "entity_id": entity(caller), "view": "basic"});
        let key = format!("{caller}-{}", reported.len());
        let headers: &[(&str, &str)] =
            if sends_keys(caller) { &[("idempotency-key", &key)] } else { &[] };
        let mut first = true;
        loop {
            let client =
                server.wait_for(Option::is_some).await.unwrap().clone().expect("it is one");
            match client.attempt(method, &request, headers).await {
                Some(Ok(answer)) => {
                    reported.push((answer.get("version").as_i64().unwrap(), first));
                    stage.answered[caller].fetch_add(1, Ordering::SeqCst);
                    break;
                }
                Some(Err(refused)) => panic!("caller {caller} is refused: {refused:#?}"),
                None => {
                    stage.unanswered.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            first = false;
        }
    }
    reported
}

/// How many changes of the membership of each caller's entity were reported.
fn changes(database: &Database) -> Vec<usize> {
    let query = "SELECT string_agg(coalesce(t.n, 0)::text, ' ' ORDER BY e.id)
                 FROM entity e LEFT JOIN (SELECT data->'entity_ids'->>0 AS id, count(*) AS n FROM event WHERE type LIKE 'portfolio.entity_%' GROUP BY 1) t
                 USING (id)";
    database.text(query).unwrap().split(' ').map(|count| count.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn memberships_survive_deaths_of_the_server_at_any_instant() {
    let arguments = ["--roles", "grpc,gateway"];
    let mut world = World::start_with(Protocol::Grpc, &arguments).await;
    for portfolio in 0..PORTFOLIOS {
        world.given_portfolio(&format!("p{portfolio}")).await;
    }
    world.database.given_many(Many {
        prefix: "e",
        count: CALLERS as i64,
        dependents: 0,
        portfolio: None,
    });
    // A change takes a while, as with a slower disk, so an instant is more often in the middle of one; and Postgres checks whether its client is still
    // there, so some end with the server while others end without it.
    world.database.sql(
        "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.002); RETURN NEW; END $$;
         CREATE TRIGGER linger BEFORE INSERT ON event FOR EACH ROW EXECUTE FUNCTION linger();
         DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET client_connection_check_interval = 1', current_database()); END $$",
    );
    let (open, server) = watch::channel(None);
    let answered = (0..CALLERS).map(|_| AtomicUsize::new(0)).collect();
    let stage = Arc::new(Stage {
        server,
        over: AtomicBool::new(false),
        answered,
        unanswered: AtomicUsize::new(0),
    });
    let callers: Vec<_> =
        (0..CALLERS).map(|number| tokio::spawn(caller(stage.clone(), number))).collect();
    let (mut done, mut undone) = (0, 0);
    for death in 0.. {
        // On a busy machine most instants may be of one kind.
        if death >= 4 * DEATHS || death >= DEATHS && done > 0 && undone > 0 {
            break;
        }
        world.server.kill();
        world.server = Server::start_with(&world.database, &arguments, &[]).await;
        open.send_replace(Some(Client::new(&world.server, &world.key, Protocol::Grpc)));
        tokio::time::sleep(Duration::from_millis(50 + rand::random::<u64>() % WINDOW)).await;
        let lost = stage.unanswered.load(Ordering::SeqCst);
        world.server.kill();
        open.send_replace(None);
        until("every call that was open has failed", || {
            stage.unanswered.load(Ordering::SeqCst) > lost
        })
        .await;
        until("what is under way in the database has ended", || world.database.rows(SESSIONS) == 0)
            .await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        for (caller, changes) in changes(&world.database).into_iter().enumerate() {
            let answered = stage.answered[caller].load(Ordering::SeqCst);
            assert!(
                (answered..=answered + 1).contains(&changes),
                "caller {caller} has {answered} answers for {changes} changes"
            );
            *(if changes > answered { &mut done } else { &mut undone }) += 1;
        }
    }
    world.server = Server::start_with(&world.database, &arguments, &[]).await;
    stage.over.store(true, Ordering::Relaxed);
    open.send_replace(Some(Client::new(&world.server, &world.key, Protocol::Grpc)));
    let mut reported = Vec::new();
    for caller in callers {
        reported.push(caller.await.unwrap());
    }
    let unanswered = stage.unanswered.load(Ordering::SeqCst);
    println!(
        "{unanswered} calls had no answer; of the last ones before a death {done} were done and {undone} were not"
    );
    assert!(unanswered > 0 && done > 0 && undone > 0, "no death was in the middle");
    for (caller, reported) in reported.iter().enumerate() {
        let events = world.database.text(&format!(
            "SELECT string_agg(substr(type, 18) || ' ' || (data->>'version'), ',' ORDER BY seq) FROM event
             WHERE type LIKE 'portfolio.entity_%' AND data->'entity_ids'->>0 = '{}'",
            entity(caller)
        ));
        let events = events.unwrap_or_default();
        let events: Vec<(&str, i64)> = events
            .split(',')
            .filter_map(|event| event.split_once(' '))
            .map(|(kind, version)| (kind, version.parse().unwrap()))
            .collect();
        assert_eq!(events.len(), reported.len(), "caller {caller}: {events:?}, {reported:?}");
        for (number, ((kind, version), (shown, first))) in events.iter().zip(reported).enumerate() {
            assert_eq!(*kind, ["attached", "detached"][number % 2], "caller {caller}: {events:?}");
            // Whoever sends a key gets the response of the first call. Of others a call that comes again shows the portfolio as it is by then.
            assert!(
                shown == version || !sends_keys(caller) && !first && shown > version,
                "caller {caller} got {shown} of {version}"
            );
        }
        let version = world
            .database
            .count(&format!("SELECT version FROM entity WHERE id = '{}'", entity(caller)));
        assert_eq!(version, 1 + reported.len() as i64, "caller {caller}");
    }
    let transactions = world
        .database
        .count("SELECT count(DISTINCT xid) FROM event WHERE type LIKE 'portfolio.entity_%'");
    let all = reported.iter().map(Vec::len).sum::<usize>() as i64;
    println!("{all} changes in {transactions} transactions");
    assert!(transactions < all, "none were done together");
    world.database.assert_sound();
}
