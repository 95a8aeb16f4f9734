//! The expected responses of every call, and the expected state in the end: the rules of removal without a service, a database or a clock.

use std::collections::BTreeMap;

use super::{Prevented, Work};
use crate::kit::*;

/// An entity: the number of its realm, and of its id.
pub type EntityRef = (usize, usize);

/// A call about one entity.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    Create { onboarding: bool, tasks: i64 },
    CompleteOnboarding,
    PlaceHold,
    ReleaseHold,
    GetEntity,
    Preview,
    Remove,
    Request { waits: bool },
}

/// A call about a request.
#[derive(Clone, Copy, Debug)]
pub enum RequestCall {
    Cancel,
    GetRequest,
    GetJob,
}

/// The expected response.
#[derive(Clone, Debug)]
pub enum Expected {
    /// It succeeds; by REST with this status. Members by their JSON pointer; what is left out of a response is null.
    Done { http: u16, members: Vec<(&'static str, Value)>, about: Option<About> },
    /// It is refused with this code and `current_state`; by REST with this status.
    Refused { code: &'static str, http: u16, current_state: Option<&'static str> },
}

/// Which request a response is about.
#[derive(Clone, Copy, Debug)]
pub enum About {
    /// One that was not there before.
    New,
    /// One of those that were, by its number, with its id at this JSON pointer.
    Known(usize, &'static str),
}

#[derive(Clone, Debug)]
struct Entity {
    state: &'static str,
    held: bool,
    version: i64,
    tasks: i64,
}

/// An offboarding request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub place: EntityRef,
    pub status: &'static str,
    attempts: i64,
    error: Option<&'static str>,
    last_error: Option<&'static str>,
    removed: Option<i64>,
    /// True if a worker may take it up.
    due: bool,
    /// The claim that has its lease.
    claim: Option<usize>,
}

/// The whole world of one run.
#[derive(Debug, Default)]
pub struct Rules {
    entities: BTreeMap<EntityRef, Entity>,
    pub requests: Vec<Asked>,
    /// The types of the events about each entity, in order.
    histories: BTreeMap<EntityRef, Vec<&'static str>>,
    tombstones: BTreeMap<EntityRef, i64>,
    claims: usize,
}

/// How often a removal is tried.
const MAX_ATTEMPTS: i64 = 10;

const NOT_FOUND: Expected = Expected::Refused { code: "not_found", http: 404, current_state: None };

fn refused_by_state(state: &'static str) -> Expected {
    Expected::Refused { code: "invalid_state_transition", http: 409, current_state: Some(state) }
}

impl Entity {
    fn answer(&self, http: u16) -> Expected {
        let reason = if self.held { json!("audit") } else { Value::Null };
        let members = vec![
            ("/state", json!(self.state)),
            ("/version", json!(self.version)),
            ("/hold/reason", reason),
        ];
        Expected::Done { http, members, about: None }
    }

    /// The kind of obstacle of a removal, if there is one.
    fn obstacle(&self) -> Option<&'static str> {
        match self.state {
            "active" if self.held => Some("on_hold"),
            "active" => None,
            state => Some(state),
        }
    }
}

impl Asked {
    fn is_live(&self) -> bool {
        matches!(self.status, "pending" | "running")
    }

    fn answer(&self, number: usize, http: u16, as_job: bool, about: About) -> Expected {
        let mut members = vec![
            ("/status", json!(self.status)),
            ("/attempts", json!(self.attempts)),
            ("/error/code", json!(self.error)),
            ("/last_error/code", json!(self.last_error)),
        ];
        if as_job {
            let removed = self.removed.map_or(
                json!({}),
                |tasks| json!({"assessments": 0, "tasks": tasks, "data_overrides": 0}),
            );
            members.push(("/removed", removed));
        }
        let about = if let About::New = about { about } else { About::Known(number, "/id") };
        Expected::Done { http, members, about: Some(about) }
    }
}

impl Rules {
    /// The expected state of an entity in the end: its state, hold, version and dependents, the events about it in order, and how many
    /// tombstones.
    pub fn left(&self, place: EntityRef) -> Value {
        let entity = self.entities.get(&place).map(|entity| {
            format!("{} {} {} {}", entity.state, entity.held, entity.version, entity.tasks)
        });
        let events = self.histories.get(&place).map(|history| history.join(" "));
        json!({"entity": entity, "events": events, "tombstones": self.tombstones.get(&place).unwrap_or(&0)})
    }

    /// The expected response of a call about an entity.
    pub fn call(&mut self, place: EntityRef, call: Call) -> Expected {
        match call {
            Call::Create { onboarding, tasks } => self.create(place, onboarding, tasks),
            Call::Remove => self.ask(place, false, true),
            Call::Request { waits } => self.ask(place, waits, false),
            Call::Preview => self.preview(place),
            Call::GetEntity => {
                self.entities.get(&place).map_or(NOT_FOUND, |entity| entity.answer(200))
            }
            Call::CompleteOnboarding => {
                self.change(place, "entity.onboarded", |entity| match entity.state {
                    "onboarding" => {
                        entity.state = "active";
                        Ok(true)
                    }
                    state => Err(state),
                })
            }
            Call::PlaceHold => self.change(place, "entity.held", |entity| match entity.state {
                "offboarding" => Err("offboarding"),
                _ if entity.held => Err("on_hold"),
                _ => {
                    entity.held = true;
                    Ok(true)
                }
            }),
            Call::ReleaseHold => {
                self.change(place, "entity.released", |entity| match entity.state {
                    "offboarding" => Err("offboarding"),
                    _ => Ok(std::mem::take(&mut entity.held)),
                })
            }
        }
    }

    /// The expected response of a call about a request to somebody of a realm.
    pub fn call_request(&mut self, realm: usize, number: usize, call: RequestCall) -> Expected {
        let asked = &mut self.requests[number];
        if asked.place.0 != realm {
            return NOT_FOUND;
        }
        let known = About::Known(number, "/id");
        match call {
            RequestCall::GetRequest => asked.answer(number, 200, false, known),
            RequestCall::GetJob => asked.answer(number, 200, true, known),
            RequestCall::Cancel if asked.status == "pending" => {
                (asked.status, asked.due) = ("canceled", false);
                let answer = asked.answer(number, 200, false, known);
                self.restore(number, "entity.offboarding_canceled");
                answer
            }
            RequestCall::Cancel => {
                let words = [
                    ("running", "Running"),
                    ("succeeded", "Succeeded"),
                    ("failed", "Failed"),
                    ("canceled", "Canceled"),
                ];
                let current_state =
                    words.iter().find(|(status, _)| *status == asked.status).map(|(_, word)| *word);
                Expected::Refused { code: "not_cancelable", http: 400, current_state }
            }
        }
    }

    /// An operation of a worker. Returns whether that changed a request.
    pub fn work(&mut self, work: Work) -> bool {
        match work {
            Work::Claim => {
                let claim = self.claims;
                let due = self.requests.iter_mut().filter(|asked| asked.due);
                let claimed = due.map(|asked| {
                    (asked.status, asked.due, asked.claim) = ("running", false, Some(claim));
                    asked.attempts += 1;
                });
                let found = claimed.count() > 0;
                self.claims += usize::from(found);
                found
            }
            Work::LeasesEnd => {
                self.requests
                    .iter_mut()
                    .filter(|asked| asked.status == "running")
                    .for_each(|asked| asked.due = true);
                false
            }
            Work::Finish { claim, prevented } => {
                // A worker whose lease another one has taken over changes nothing.
                let leased = (0..self.requests.len())
                    .filter(|number| self.requests[*number].claim == Some(claim));
                let leased: Vec<usize> = leased.collect();
                leased.iter().for_each(|number| self.finish(*number, prevented));
                !leased.is_empty()
            }
        }
    }

    fn finish(&mut self, number: usize, prevented: Prevented) {
        let asked = &mut self.requests[number];
        (asked.claim, asked.due) = (None, false);
        match prevented {
            Prevented::Not => {
                let entity = self
                    .entities
                    .remove(&asked.place)
                    .expect("an entity stays while its request is open");
                (asked.status, asked.removed) = ("succeeded", Some(entity.tasks));
                self.histories.entry(asked.place).or_default().push("entity.offboarded");
                *self.tombstones.entry(asked.place).or_default() += 1;
            }
            // It is put off, and due when leases end.
            Prevented::Refused if asked.attempts < MAX_ATTEMPTS => {
                asked.last_error = Some("internal")
            }
            Prevented::Refused => self.fail(number, "internal"),
            Prevented::Held => self.fail(number, "on_hold"),
        }
    }

    fn fail(&mut self, number: usize, code: &'static str) {
        let asked = &mut self.requests[number];
        (asked.status, asked.error, asked.last_error) = ("failed", Some(code), Some(code));
        self.restore(number, "entity.offboarding_failed");
    }

    fn restore(&mut self, number: usize, reported: &'static str) {
        let place = self.requests[number].place;
        let entity =
            self.entities.get_mut(&place).expect("an entity stays while its request is open");
        entity.state = "active";
        entity.version += 1;
        self.histories.entry(place).or_default().push(reported);
    }

    fn create(&mut self, place: EntityRef, onboarding: bool, tasks: i64) -> Expected {
        if self.entities.contains_key(&place) {
            return Expected::Refused { code: "already_exists", http: 409, current_state: None };
        }
        let entity = Entity {
            state: if onboarding { "onboarding" } else { "active" },
            held: false,
            version: 1,
            tasks,
        };
        let answer = entity.answer(201);
        self.entities.insert(place, entity);
        self.histories.entry(place).or_default().push("entity.created");
        answer
    }

    /// A change of an entity: it reports whether there was one, or the state that prevents it.
    fn change(
        &mut self,
        place: EntityRef,
        reported: &'static str,
        change: impl Fn(&mut Entity) -> Result<bool, &'static str>,
    ) -> Expected {
        let Some(entity) = self.entities.get_mut(&place) else { return NOT_FOUND };
        match change(entity) {
            Err(state) => refused_by_state(state),
            Ok(changed) => {
                entity.version += i64::from(changed);
                let answer = entity.answer(200);
                self.histories.entry(place).or_default().extend(changed.then_some(reported));
                answer
            }
        }
    }

    /// Removal is asked for, by contract A as a job or by contract D.
    fn ask(&mut self, place: EntityRef, waits: bool, as_job: bool) -> Expected {
        let latest = self.requests.iter().rposition(|asked| asked.place == place);
        let known = |rules: &Rules, number: usize| {
            rules.requests[number].answer(number, 200, as_job, About::Known(number, "/id"))
        };
        let Some(entity) = self.entities.get_mut(&place) else {
            // It never was, or its removal is over: contract A remembers that, contract D knows entities alone.
            return latest.filter(|_| as_job).map_or(NOT_FOUND, |number| known(self, number));
        };
        match (entity.obstacle(), latest) {
            (Some("offboarding"), Some(live)) => known(self, live),
            (Some(state), _) => refused_by_state(state),
            (None, _) => {
                entity.state = "offboarding";
                entity.version += 1;
                self.histories.entry(place).or_default().push("entity.offboarding_requested");
                let asked = Asked {
                    place,
                    status: "pending",
                    attempts: 0,
                    error: None,
                    last_error: None,
                    removed: None,
                    due: !waits,
                    claim: None,
                };
                self.requests.push(asked.clone());
                asked.answer(
                    self.requests.len() - 1,
                    if as_job { 202 } else { 201 },
                    as_job,
                    About::New,
                )
            }
        }
    }

    fn preview(&self, place: EntityRef) -> Expected {
        let Some(entity) = self.entities.get(&place) else { return NOT_FOUND };
        let mut blockers: Vec<&str> = Vec::new();
        blockers.extend((entity.state == "onboarding").then_some("onboarding"));
        blockers.extend(entity.held.then_some("on_hold"));
        blockers.extend((entity.state == "offboarding").then_some("offboarding"));
        let blocker = |place: usize| json!(blockers.get(place));
        let members = vec![
            ("/removable", json!(blockers.is_empty())),
            ("/blockers/0/code", blocker(0)),
            ("/blockers/1/code", blocker(1)),
            ("/dependents", json!({"assessments": 0, "tasks": entity.tasks, "data_overrides": 0})),
        ];
        let live = self.requests.iter().position(|asked| asked.place == place && asked.is_live());
        Expected::Done {
            http: 200,
            members,
            about: live.map(|live| About::Known(live, "/blockers/0/job_id")),
        }
    }
}
