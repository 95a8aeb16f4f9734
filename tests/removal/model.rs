//! Several callers and workers do whatever comes to their minds, and every response, and what is left in the end, is as the rules say.

mod operation;
mod rules;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use offboard::db::{Db, Options};
use offboard::jobs::{Executor, Lease};
use offboard::offboarding::OffboardingExecutor;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio_util::sync::CancellationToken;

use crate::kit::*;
use operation::{Operation, Prevented, Work, operation};
use rules::{About, Call, EntityRef, Expected, RequestCall, Rules};

/// How many entities a run is about, in each of the realms.
const ENTITIES: usize = 3;
/// How many of them are there from the beginning.
const GIVEN: usize = 2;
/// The organisations of the realms.
const REALMS: [&str; 2] = ["acme", "globex"];
/// The callers, by the number of their realm: two keys of one and one of the other.
const CALLERS: [usize; 3] = [0, 0, 1];

/// Where all runs take place.
struct Stage {
    world: World,
    /// Each caller through gRPC and through REST.
    clients: [[Client; 2]; 3],
    executor: OffboardingExecutor,
    runs: AtomicUsize,
    /// How often each thing happened, to check that enough did.
    tally: Mutex<BTreeMap<String, usize>>,
}

impl Stage {
    /// Only the workers of the model work here.
    async fn set() -> Stage {
        let world = World::start_with(Protocol::Grpc, &["--roles=grpc,gateway"]).await;
        let clients = CALLERS.map(|realm| {
            let key = Key::create(&world.database, REALMS[realm], "test", SCOPES);
            [Protocol::Grpc, Protocol::Rest]
                .map(|protocol| Client::new(&world.server, &key, protocol))
        });
        world.database.sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '58000'; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON tombstone FOR EACH ROW EXECUTE FUNCTION refuse();
             ALTER TABLE tombstone DISABLE TRIGGER refuse",
        );
        let lease = Lease { owner: "test".to_owned(), duration: Duration::from_secs(600) };
        let executor = OffboardingExecutor::new(Db::new(Options::new(&world.database.url)), lease);
        Stage { world, clients, executor, runs: AtomicUsize::new(0), tally: Mutex::default() }
    }

    fn count(&self, what: &str) {
        *self.tally.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }

    /// One run with entities of its own.
    async fn run(&self, operations: Vec<Operation>) {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        // Rows that an earlier run has left, if it failed in the middle, are for nobody to take up.
        self.world.database.sql("UPDATE offboarding_request SET due_at = now() + interval '1 day' WHERE due_at IS NOT NULL");
        let mut play =
            Play { stage: self, run, rules: Rules::default(), ids: Vec::new(), claims: Vec::new() };
        let create = Call::Create { onboarding: false, tasks: 1 };
        let given = (0..GIVEN).flat_map(|entity| {
            [0, 2].map(|caller| Operation::Call { caller, protocol: 0, entity, call: create })
        });
        for operation in given.chain(operations) {
            play.operation(operation).await;
        }
        play.end().await;
    }
}

type Claim = <OffboardingExecutor as Executor>::Job;

/// One run.
struct Play<'a> {
    stage: &'a Stage,
    run: usize,
    rules: Rules,
    /// The ids of the requests, by their number.
    ids: Vec<String>,
    /// The claims of workers that are not done yet, by the number of the claim.
    claims: Vec<Option<Claim>>,
}

impl Play<'_> {
    fn entity(&self, entity: usize) -> String {
        format!("r{}-e{entity}", self.run)
    }

    async fn operation(&mut self, operation: Operation) {
        match operation {
            Operation::Call { caller, protocol, entity, call } => {
                let expected = self.rules.call((CALLERS[caller], entity), call);
                let (method, request) = asked_of_an_entity(&self.entity(entity), call);
                self.compare(caller, protocol, method, request, expected).await;
            }
            Operation::CallRequest { caller, protocol, request, call } if !self.ids.is_empty() => {
                let number = request.index(self.ids.len());
                let expected = self.rules.call_request(CALLERS[caller], number, call);
                let (method, member) = match call {
                    RequestCall::Cancel => {
                        ("OffboardingService/CancelOffboardingRequest", "offboarding_request_id")
                    }
                    RequestCall::GetRequest => {
                        ("OffboardingService/GetOffboardingRequest", "offboarding_request_id")
                    }
                    RequestCall::GetJob => ("RemovalService/GetRemovalJob", "job_id"),
                };
                self.compare(caller, protocol, method, json!({member: self.ids[number]}), expected)
                    .await;
            }
            Operation::CallRequest { .. } => {}
            Operation::Claim => {
                let claimed = self.stage.executor.claim().await.unwrap();
                assert_eq!(
                    claimed.is_some(),
                    self.rules.work(Work::Claim),
                    "a worker finds what is due, and nothing else"
                );
                self.claims.extend(claimed.map(Some));
            }
            Operation::LeasesEnd => {
                self.stage
                    .world
                    .database
                    .sql("UPDATE offboarding_request SET due_at = now() WHERE status = 'running' AND due_at < now() + interval '1 hour'");
                self.rules.work(Work::LeasesEnd);
            }
            Operation::Finish { claim, prevented } => {
                let open: Vec<usize> =
                    (0..self.claims.len()).filter(|claim| self.claims[*claim].is_some()).collect();
                if !open.is_empty() {
                    self.finish(*claim.get(&open), prevented).await;
                }
            }
        }
    }

    async fn finish(&mut self, claim: usize, prevented: Prevented) {
        let claimed = self.claims[claim].take().expect("it is open");
        let (before, after) = match prevented {
            Prevented::Not => ("", ""),
            Prevented::Refused => (
                "ALTER TABLE tombstone ENABLE TRIGGER refuse",
                "ALTER TABLE tombstone DISABLE TRIGGER refuse",
            ),
            Prevented::Held => (
                "UPDATE entity SET hold_reason = 'too late', hold_placed_by = gen_random_uuid(), hold_placed_at = now() WHERE state = 'offboarding'",
                "UPDATE entity SET hold_reason = NULL, hold_placed_by = NULL, hold_placed_at = NULL WHERE hold_reason = 'too late'",
            ),
        };
        let database = &self.stage.world.database;
        if !before.is_empty() {
            database.sql(before);
        }
        self.stage.executor.execute(claimed, &CancellationToken::new()).await.unwrap();
        if !after.is_empty() {
            database.sql(after);
        }
        let had_the_lease = self.rules.work(Work::Finish { claim, prevented });
        self.stage.count(&if had_the_lease {
            format!("{prevented:?}")
        } else {
            "lease lost".to_owned()
        });
    }

    /// Calls, and compares the response with what it must be.
    async fn compare(
        &mut self,
        caller: usize,
        protocol: usize,
        method: &str,
        request: Value,
        expected: Expected,
    ) {
        let answer = self.stage.clients[caller][protocol].call(method, request.clone()).await;
        let reported = format!(
            "{method} {request} by caller {caller} is {expected:?}, and not {answer:#?}, of {:#?}",
            self.rules
        );
        match (answer, expected) {
            (Ok(answer), Expected::Done { http, members, about }) => {
                assert!(answer.http.is_none_or(|found| found == http), "{reported}");
                for (pointer, value) in members {
                    assert_eq!(
                        answer.json.pointer(pointer).unwrap_or(&Value::Null),
                        &value,
                        "{pointer}: {reported}"
                    );
                }
                let id = |pointer: &str| {
                    answer
                        .json
                        .pointer(pointer)
                        .and_then(Value::as_str)
                        .unwrap_or_else(|| panic!("{reported}"))
                        .to_owned()
                };
                match about {
                    Some(About::Known(number, pointer)) => {
                        assert_eq!(id(pointer), self.ids[number], "{reported}")
                    }
                    Some(About::New) => {
                        assert!(!self.ids.contains(&id("/id")), "{reported}");
                        self.ids.push(id("/id"));
                    }
                    None => {}
                }
                self.stage.count(&format!("{method} {http}"));
            }
            (Err(failure), Expected::Refused { code, http, current_state }) => {
                assert_eq!(
                    (failure.code.as_str(), failure.http.unwrap_or(http)),
                    (code, http),
                    "{reported}"
                );
                assert_eq!(
                    failure.members.get("current_state").and_then(Value::as_str),
                    current_state,
                    "{reported}"
                );
                self.stage.count(&format!("{method} {code}"));
            }
            _ => panic!("{reported}"),
        }
    }

    async fn finish_all(&mut self) {
        for claim in 0..self.claims.len() {
            if self.claims[claim].is_some() {
                self.finish(claim, Prevented::Not).await;
            }
        }
    }

    /// Lets the workers do all that is left, and compares what there is with what there must be.
    async fn end(mut self) {
        self.finish_all().await;
        self.operation(Operation::LeasesEnd).await;
        self.operation(Operation::Claim).await;
        self.finish_all().await;
        let database = &self.stage.world.database;
        for (number, id) in self.ids.iter().enumerate() {
            let (realm, entity) = self.rules.requests[number].place;
            let expected = format!(
                "{} {} {}",
                REALMS[realm],
                self.entity(entity),
                self.rules.requests[number].status
            );
            let found = database.text(&format!(
                "SELECT concat_ws(' ', m.org, r.entity_id, r.status)
                 FROM offboarding_request r JOIN realm m ON m.id = r.realm_id WHERE r.id = '{id}'"
            ));
            assert_eq!(found, Some(expected), "request {number} of {:#?}", self.rules);
        }
        for (realm, org) in REALMS.into_iter().enumerate() {
            for entity in 0..ENTITIES {
                self.compare_left(database, org, (realm, entity));
            }
        }
        let made =
            database.rows(&format!("offboarding_request WHERE entity_id LIKE 'r{}-%'", self.run));
        assert_eq!(
            made,
            i64::try_from(self.ids.len()).unwrap(),
            "no request was made that nobody was recorded"
        );
    }

    /// Holds an entity, the events about it and its tombstones to what there must be of them.
    fn compare_left(&self, database: &Database, org: &str, place: EntityRef) {
        let id = self.entity(place.1);
        let of_realm =
            format!("realm_id = (SELECT id FROM realm WHERE org = '{org}' AND mode = 'test')");
        let left = database.text(&format!(
            "SELECT jsonb_build_object(
                'entity', (SELECT concat_ws(' ', e.state, (e.hold_reason IS NOT NULL)::text, e.version,
                                  (SELECT count(*) FROM dependent d WHERE (d.realm_id, d.entity_id) = (e.realm_id, e.id)))
                           FROM entity e WHERE {of_realm} AND id = '{id}'),
                'events', (SELECT string_agg(type, ' ' ORDER BY seq) FROM event WHERE {of_realm} AND '{id}' = ANY(subjects)),
                'tombstones', (SELECT count(*) FROM tombstone WHERE {of_realm} AND entity_id = '{id}'))"
        ));
        let left: Value = serde_json::from_str(&left.expect("a query of one row")).unwrap();
        assert_eq!(left, self.rules.left(place), "{id} of {org} in {:#?}", self.rules);
    }
}

/// The method and the request of a call about an entity.
fn asked_of_an_entity(id: &str, call: Call) -> (&'static str, Value) {
    let plain = json!({"entity_id": id});
    match call {
        Call::Create { onboarding, tasks } => {
            let dependents: Vec<Value> = (0..tasks).map(|_| json!({"kind": "task"})).collect();
            let state = if onboarding { "onboarding" } else { "active" };
            (
                "EntityService/CreateEntity",
                json!({"entity": {"entity_id": id, "type": "HCP", "state": state, "dependents": dependents}}),
            )
        }
        Call::CompleteOnboarding => ("EntityService/CompleteOnboarding", plain),
        Call::PlaceHold => ("EntityService/PlaceHold", json!({"entity_id": id, "reason": "audit"})),
        Call::ReleaseHold => ("EntityService/ReleaseHold", plain),
        Call::GetEntity => ("EntityService/GetEntity", plain),
        Call::Preview => ("RemovalService/PreviewRemoval", plain),
        Call::Remove => ("RemovalService/RemoveEntity", plain),
        Call::Request { waits } => {
            let grace = if waits { "3600s" } else { "0s" };
            (
                "OffboardingService/RequestOffboarding",
                json!({"entity_id": id, "grace_period": grace}),
            )
        }
    }
}

#[test]
fn whatever_callers_and_workers_do_the_rules_hold() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let stage = runtime.block_on(Stage::set());
    let config =
        Config { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..Config::default() };
    let outcome =
        TestRunner::new(config).run(&prop::collection::vec(operation(), 60), |operations| {
            runtime.block_on(stage.run(operations));
            Ok(())
        });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    stage.world.database.assert_sound();
    let tally = stage.tally.lock().unwrap();
    println!("{tally:#?}");
    // The rules say little where nothing ever happens. What is here happens so often that none of it is left out by chance.
    for what in [
        "Not",
        "Refused",
        "Held",
        "lease lost",
        "RemovalService/RemoveEntity 202",
        "RemovalService/RemoveEntity 200",
        "RemovalService/RemoveEntity not_found",
        "OffboardingService/RequestOffboarding 201",
        "OffboardingService/RequestOffboarding 200",
        "OffboardingService/CancelOffboardingRequest 200",
        "OffboardingService/CancelOffboardingRequest not_cancelable",
        "OffboardingService/CancelOffboardingRequest not_found",
    ] {
        assert!(tally.contains_key(what), "no run had {what}: {tally:#?}");
    }
    drop(tally);
    runtime.block_on(async { drop(stage) });
}
