//! Several callers read entities and change memberships at once, together and by themselves, while members of a group and whole groups fail. The events
//! say in which order the changes were made: each must be a step that may be made, and every response must be what was so at some moment of its call.

mod calls;
mod comparison;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use futures::future::join_all;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::kit::*;
use calls::{Call, Harm, Made, Round, round};
use rules::{RecordedChange, Rules};

/// How many portfolios and entities a run is about, in each of the realms. What has the next number is not there.
const PORTFOLIOS: usize = 3;
const ENTITIES: usize = 5;
/// The organisations of the realms, whose ids are the same.
const REALMS: [&str; 2] = ["acme", "globex"];
/// The callers, by the number of their realm.
const CALLERS: [usize; 3] = [0, 0, 1];

/// Where all runs take place.
struct Stage {
    world: World,
    clients: [[Client; 2]; 3],
    /// The principal of each caller, as in events.
    principals: [String; 3],
    database: Mutex<diesel::PgConnection>,
    runs: AtomicUsize,
    /// How often each thing happened.
    tally: Mutex<BTreeMap<String, usize>>,
}

impl Stage {
    async fn set() -> Stage {
        let world =
            World::start_with(Protocol::Grpc, &["--roles=grpc,gateway", "--db-lock-timeout=60"])
                .await;
        world.database.sql(
            "CREATE TABLE harm (realm_id int4, entity text);
             CREATE SEQUENCE harmed;
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF EXISTS (SELECT FROM harm h WHERE h.realm_id = NEW.realm_id AND h.entity = NEW.id) THEN RAISE 'not this one'; END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON entity FOR EACH ROW EXECUTE FUNCTION refuse();
             CREATE FUNCTION end_session() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF EXISTS (SELECT FROM harm h WHERE h.entity IS NULL) AND nextval('harmed') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER end_session BEFORE INSERT ON event FOR EACH ROW EXECUTE FUNCTION end_session();",
        );
        let keys = CALLERS.map(|realm| Key::create(&world.database, REALMS[realm], "test", SCOPES));
        let clients = [&keys[0], &keys[1], &keys[2]].map(|key| {
            [Protocol::Grpc, Protocol::Rest]
                .map(|protocol| Client::new(&world.server, key, protocol))
        });
        let principals = [&keys[0], &keys[1], &keys[2]].map(|key| {
            world
                .database
                .text(&format!("SELECT principal_id FROM api_key WHERE id = '{}'", key.id))
                .unwrap()
        });
        let database = Mutex::new(world.database.connection());
        Stage {
            world,
            clients,
            principals,
            database,
            runs: AtomicUsize::new(0),
            tally: Mutex::default(),
        }
    }

    fn sql(&self, text: &str) {
        self.database
            .lock()
            .unwrap()
            .batch_execute(text)
            .unwrap_or_else(|error| panic!("{text}: {error}"));
    }

    fn count(&self, what: String) {
        *self.tally.lock().unwrap().entry(what).or_default() += 1;
    }

    /// One run with entities and portfolios of its own.
    async fn run(&self, rounds: Vec<Round>) {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        self.sql(&format!(
            "DELETE FROM harm;
             INSERT INTO entity (realm_id, id, incarnation, type, state)
             SELECT r.id, 'r{run}-e' || n, gen_random_uuid(), 'T', 'active' FROM realm r, generate_series(0, {ENTITIES} - 1) n WHERE r.org IN ('acme', 'globex');
             INSERT INTO portfolio (realm_id, id, name)
             SELECT r.id, 'r{run}-p' || n, 'P' FROM realm r, generate_series(0, {PORTFOLIOS} - 1) n WHERE r.org IN ('acme', 'globex');
             INSERT INTO event (realm_id, type, subjects, principal_id, data)
             SELECT realm_id, 'portfolio.created', ARRAY[id], gen_random_uuid(), '{{\"version\": 1}}' FROM portfolio WHERE id LIKE 'r{run}-p%';"
        ));
        let mut play = Play { stage: self, run, seq: 0, rules: [Rules::new(), Rules::new()] };
        for round in rounds {
            play.round(&round).await;
        }
        play.end();
    }
}

type Outcome = Result<Answer, Failure>;

/// One run.
struct Play<'a> {
    stage: &'a Stage,
    run: usize,
    seq: i64,
    rules: [Rules; 2],
}

impl Play<'_> {
    fn id(&self, kind: char, number: usize) -> String {
        format!("r{}-{kind}{number}", self.run)
    }

    fn number(&self, id: &str) -> usize {
        id[format!("r{}-e", self.run).len()..].parse().unwrap()
    }

    async fn round(&mut self, round: &Round) {
        let before = self.rules.clone().map(|rules| rules.versions());
        self.harm(round.harm);
        let calls = join_all(round.calls.iter().map(|made| self.call(*made)));
        let answers = if round.piled_up { self.piled_up(calls).await } else { calls.await };
        self.stage.sql("DELETE FROM harm");
        let reported = self.replay();
        self.stage.count(format!("{:?}", std::mem::discriminant(&round.harm)));
        for (made, answer) in round.calls.iter().zip(&answers) {
            self.compare(*made, answer, round.harm, &before[CALLERS[made.caller]]);
        }
        self.match_up(round, &answers, &reported);
    }

    fn harm(&self, harm: Harm) {
        match harm {
            Harm::Nothing => {}
            Harm::Entity { realm, entity } => self.stage.sql(&format!(
                "INSERT INTO harm SELECT id, '{}' FROM realm WHERE org = '{}'",
                self.id('e', entity),
                REALMS[realm]
            )),
            Harm::Session => self
                .stage
                .sql("ALTER SEQUENCE harmed RESTART; INSERT INTO harm VALUES (NULL, NULL)"),
        }
    }

    async fn call(&self, made: Made) -> Outcome {
        let view = |full| if full { "full" } else { "basic" };
        let change = |portfolio, entity, full| json!({"portfolio_id": self.id('p', portfolio), "entity_id": self.id('e', entity), "view": view(full)});
        let (method, request) = match made.call {
            Call::Get { entity } => {
                ("EntityService/GetEntity", json!({"entity_id": self.id('e', entity)}))
            }
            Call::Attach { portfolio, entity, full } => {
                ("PortfolioService/AttachEntity", change(portfolio, entity, full))
            }
            Call::Detach { portfolio, entity, full } => {
                ("PortfolioService/DetachEntity", change(portfolio, entity, full))
            }
        };
        self.stage.clients[made.caller][made.protocol].call(method, request).await
    }

    async fn piled_up<T>(&self, calls: impl Future<Output = T>) -> T {
        let mut held = self.stage.world.database.connection();
        held.batch_execute("BEGIN; LOCK TABLE entity IN EXCLUSIVE MODE").unwrap();
        let release = async {
            tokio::time::sleep(Duration::from_millis(60)).await;
            held.batch_execute("COMMIT").unwrap();
        };
        tokio::join!(calls, release).0
    }

    /// Makes the changes that were reported since the last round, in their order.
    fn replay(&mut self) -> Vec<RecordedChange> {
        let query = format!(
            "SELECT coalesce(jsonb_agg(jsonb_build_object('seq', v.seq, 'realm', r.org, 'xid', v.xid::text, 'attached', v.type = 'portfolio.entity_attached',
                                       'portfolio', v.subjects[1], 'entity', v.data->'entity_ids'->>0, 'principal', v.principal_id,
                                       'version', (v.data->>'version')::int8) ORDER BY v.seq), '[]')
             FROM event v JOIN realm r ON r.id = v.realm_id
             WHERE v.seq > {} AND v.type LIKE 'portfolio.entity_%' AND v.subjects[1] LIKE 'r{}-p%'",
            self.seq, self.run
        );
        let reported: Vec<RecordedChange> =
            serde_json::from_str(&self.stage.world.database.text(&query).unwrap()).unwrap();
        for (place, change) in reported.iter().enumerate() {
            let of_move = |before: &RecordedChange| {
                change.attached
                    && !before.attached
                    && (&before.xid, &before.realm, &before.entity)
                        == (&change.xid, &change.realm, &change.entity)
            };
            let moves = reported[..place].iter().rev().any(of_move);
            let (portfolio, entity) = (self.number(&change.portfolio), self.number(&change.entity));
            let realm = REALMS.iter().position(|org| *org == change.realm).unwrap();
            self.rules[realm].change(change, portfolio, entity, moves);
            self.seq = change.seq;
        }
        reported
    }

    /// The final state is the one that the events describe.
    fn end(&self) {
        for (realm, org) in REALMS.into_iter().enumerate() {
            let found = self.stage.world.database.text(&format!(
                "SELECT jsonb_build_object(
                    'entities', (SELECT jsonb_agg(jsonb_build_array(e.version, e.portfolio_id) ORDER BY e.id) FROM entity e
                                 WHERE e.realm_id = r.id AND e.id LIKE 'r{run}-e%'),
                    'portfolios', (SELECT jsonb_agg(jsonb_build_array(p.version, p.entity_count) ORDER BY p.id) FROM portfolio p
                                   WHERE p.realm_id = r.id AND p.id LIKE 'r{run}-p%'))
                 FROM realm r WHERE r.org = '{org}'",
                run = self.run
            ));
            let rules = &self.rules[realm];
            let place = |places: &Vec<Option<usize>>| {
                places.last().copied().flatten().map(|portfolio| self.id('p', portfolio))
            };
            let expected = json!({
                "entities": rules.entities.iter().map(|places| json!([places.len(), place(places)])).collect::<Vec<_>>(),
                "portfolios": rules.portfolios.iter().map(|states| json!([states.len(), states.last().map(BTreeSet::len)])).collect::<Vec<_>>(),
            });
            assert_eq!(
                serde_json::from_str::<Value>(&found.unwrap()).unwrap(),
                expected,
                "{org} of run {}",
                self.run
            );
        }
    }
}

#[test]
fn whatever_is_done_together_is_as_if_one_came_after_the_other() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let stage = runtime.block_on(Stage::set());
    let config =
        Config { cases: 24, max_shrink_iters: 50, failure_persistence: None, ..Config::default() };
    let together = "SELECT count(*) FROM (
        SELECT FROM event WHERE type = 'portfolio.entity_attached' GROUP BY xid HAVING count(*) > 1) t";
    let together = || stage.world.database.count(together);
    // On a busy machine calls may come too far apart to be done together: then more are made.
    for _ in 0..5 {
        let rounds = prop::collection::vec(round(), 1..8);
        let outcome = TestRunner::new(config.clone()).run(&rounds, |rounds| {
            runtime.block_on(stage.run(rounds));
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{error}"));
        if together() > 10 {
            break;
        }
    }
    stage.world.database.assert_sound();
    let tally = stage.tally.lock().unwrap();
    println!("{tally:#?}");
    for what in [
        "get done",
        "get not_found",
        "attach done",
        "attach not_found",
        "attach refused_by_database",
        "detach done",
        "detach not_found",
        "detach state_conflict",
    ] {
        assert!(tally.contains_key(what), "no run had {what}: {tally:#?}");
    }
    assert!(
        tally.contains_key("attach unavailable") || tally.contains_key("detach unavailable"),
        "no group was lost: {tally:#?}"
    );
    drop(tally);
    assert!(together() > 10, "few were done together");
    runtime.block_on(async { drop(stage) });
}
