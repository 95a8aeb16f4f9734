//! The pages of states are made of the state machines.

use std::fmt::{Display, Write};
use std::fs;

use offboard::entity::model::{Action, State};
use offboard::offboarding::model::{OffboardingAction, OffboardingState};
use offboard::task::state::{TaskAction, TaskState};

use super::{check, file};

/// The call of an action, in the words of the API.
fn who_acts(action: Action) -> &'static str {
    match action {
        Action::CompleteOnboarding => "`CompleteOnboarding`",
        Action::Update => "`UpdateEntity`, `PutDependent`, `DeleteDependent`",
        Action::Attach => "`AttachEntity`",
        Action::PlaceHold => "`PlaceHold`",
        Action::ReleaseHold => "`ReleaseHold`",
        Action::RequestOffboarding => "`RequestOffboarding`, `RemoveEntity`",
        Action::Restore => "the service, when an offboarding is canceled or fails",
    }
}

/// The call of an action on a request, in the words of the API.
fn who_acts_on_a_request(action: OffboardingAction) -> &'static str {
    match action {
        OffboardingAction::Start => {
            "a worker, when the grace period is over; another one, when the lease of the first has run out"
        }
        OffboardingAction::Cancel => "`CancelOffboardingRequest`",
        OffboardingAction::Succeed => "the worker, with the removal of the entity",
        OffboardingAction::Fail => {
            "the worker, when the entity cannot be removed; the entity is active again"
        }
    }
}

/// A state machine, as its code has it.
struct Machine<'a, S, A> {
    states: &'a [S],
    actions: &'a [A],
    after: fn(S, A) -> Option<S>,
}

impl<S: Copy + PartialEq + Display, A: Copy + Display> Machine<'_, S, A> {
    /// A diagram of every move from one state to another, with ways in and out.
    fn diagram(&self, ways_in: &str, ways_out: &str) -> String {
        let mut diagram = format!("```mermaid\nstateDiagram-v2\n{ways_in}");
        for state in self.states {
            for action in self.actions {
                if let Some(next) = (self.after)(*state, *action).filter(|next| next != state) {
                    writeln!(diagram, "    {state} --> {next}: {action}").unwrap();
                }
            }
        }
        diagram + ways_out + "```\n"
    }

    /// A table of what each action does in each state, with a last column of the page's own if it has a title.
    fn table(
        &self,
        who: fn(A) -> &'static str,
        last: &str,
        last_of: impl Fn(A) -> &'static str,
    ) -> String {
        let mut table = String::from("| action | by |");
        self.states.iter().for_each(|state| write!(table, " `{state}` |").unwrap());
        table.push_str(last);
        table.push_str("\n| --- | --- |");
        table.push_str(&" --- |".repeat(self.states.len() + usize::from(!last.is_empty())));
        for action in self.actions {
            write!(table, "\n| `{action}` | {} |", who(*action)).unwrap();
            for state in self.states {
                match (self.after)(*state, *action) {
                    Some(next) if next == *state => table.push_str(" stays |"),
                    Some(next) => write!(table, " becomes `{next}` |").unwrap(),
                    None => table.push_str(" - |"),
                }
            }
            table.push_str(last_of(*action));
        }
        table + "\n"
    }
}

#[test]
fn the_page_of_states_is_the_state_machine() {
    let machine = Machine { states: State::ALL, actions: Action::ALL, after: State::after };
    let on_hold = |action: Action| {
        let refused = State::ALL.iter().any(|state| {
            state.transition(action).is_ok() && state.transition_on_hold(action).is_err()
        });
        if refused { " refused |" } else { " possible |" }
    };
    let page = format!(
        "# The states of an entity\n\nThe page is made of the state machine in `src/entity/model.rs`.\n\n{}\n\
         What was removed has no state: a hard removal leaves a tombstone (`ListTombstones`), and an entity that was soft-deleted is not visible any more.\n\n\
         ## What can be done\n\nA dash means `invalid_state_transition`, with the `allowed_transitions` of the state. An entity on hold also refuses what \
         the last column says, with the `current_state` `on_hold`; a bulk delete counts it as failed. A hold is not replaced: release it first. While an offboarding \
         is pending or running nothing of its entity can be changed and no hold can be placed: cancel the offboarding first. Detaching is possible \
         in every state.\n\n{}",
        machine.diagram(
            "    [*] --> onboarding: create\n    [*] --> active: create\n",
            "    active --> [*]: bulk delete\n    offboarding --> [*]: the job is done\n",
        ),
        machine.table(who_acts, " on hold |", on_hold),
    );
    check("docs/entity-states.md", &page);
}

#[test]
fn the_page_of_the_states_of_a_request_is_its_state_machine() {
    let machine = Machine {
        states: OffboardingState::ALL,
        actions: OffboardingAction::ALL,
        after: OffboardingState::after,
    };
    let ended = |state: &&OffboardingState| !state.is_open();
    let ways_out: String = OffboardingState::ALL
        .iter()
        .filter(ended)
        .map(|state| format!("    {state} --> [*]\n"))
        .collect();
    let page = format!(
        "# The states of an offboarding request\n\nThe page is made of the state machine in `src/offboarding/model.rs` and of the migrations. The job of \
         `RemovalService` is the same request, with the same states. On the wire `OffboardingService` spells them with a capital: `Pending`.\n\n{}\n\
         An entity is `offboarding` while its request is `pending` or `running`, and no longer: it is removed with `succeeded`, and active again with `failed` \
         or `canceled`. What a request moves to, what becomes of its entity, and its event are one transaction.\n\n\
         ## What can be done\n\nA dash means that it is not possible. A cancel is refused with `not_cancelable` then, with the `current_state`; cancel and start are \
         one compare-and-set, so exactly one of the two wins. A worker that lost its lease changes nothing: each lease has a higher `lease_token` than all before it.\n\n{}\n\
         ## Constraints of the database\n\nThese are constraints of the table `offboarding_request`, so no statement can leave a row that breaks them. The index \
         `offboarding_request_one_live` is unique over the open requests of an entity: there is one at most.\n\n{}",
        machine.diagram("    [*] --> pending: request\n", &ways_out),
        machine.table(who_acts_on_a_request, "", |_| ""),
        constraints("offboarding_request"),
    );
    check("docs/offboarding-states.md", &page);
}

/// A table of the named CHECKs of a table, as the migrations leave them.
fn constraints(table: &str) -> String {
    let mut folders: Vec<_> =
        fs::read_dir(file("migrations")).unwrap().map(|folder| folder.unwrap().path()).collect();
    folders.sort();
    let mut held: Vec<(String, String)> = Vec::new();
    for folder in folders {
        let text = fs::read_to_string(folder.join("up.sql")).unwrap();
        for (at, word) in text.match_indices("CONSTRAINT ") {
            let rest = text[at + word.len()..].trim_start_matches("IF EXISTS ");
            let name: String = rest
                .chars()
                .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
                .collect();
            if name.strip_prefix(table).is_none_or(|rest| !rest.starts_with('_'))
                || name.starts_with("bulk_delete_slice")
            {
                continue;
            }
            held.retain(|(other, _)| *other != name);
            if let Some(condition) = rest[name.len()..].strip_prefix(" CHECK (") {
                held.push((name, in_parentheses(condition)));
            }
        }
    }
    let rows: String =
        held.iter().map(|(name, condition)| format!("| `{name}` | `{condition}` |\n")).collect();
    format!("| constraint | condition |\n| --- | --- |\n{rows}")
}

/// The text up to the parenthesis that closes it, as one line.
fn in_parentheses(text: &str) -> String {
    let mut depth = 1;
    let end = text.find(|letter| {
        depth += i32::from(letter == '(') - i32::from(letter == ')');
        depth == 0
    });
    text[..end.expect("a condition ends")].split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The call of an action on a task, in the words of the API.
fn who_acts_on_a_task(action: TaskAction) -> &'static str {
    match action {
        TaskAction::Start => "a worker that takes up a slice",
        TaskAction::Pause => "`PauseTask`",
        TaskAction::Paused => {
            "whoever gives back the last slice, or frees it of a worker that was lost"
        }
        TaskAction::Resume => "`ResumeTask`",
        TaskAction::Stop => "`StopTask`",
        TaskAction::Stopped => {
            "whoever gives back the last slice, or frees it of a worker that was lost"
        }
        TaskAction::Update => "`UpdateTask`",
        TaskAction::Wait => "its last worker, when it turns to another task that waits",
        TaskAction::Lose => {
            "its last worker, when it ends or has failed; another process, when the lease has run out"
        }
        TaskAction::Complete | TaskAction::CompleteWithErrors => {
            "the worker that does the last chunk"
        }
        TaskAction::Fail => "a worker, when a slice has not moved for ten tries",
    }
}

#[test]
fn the_page_of_the_states_of_a_task_is_its_state_machine() {
    let machine =
        Machine { states: TaskState::ALL, actions: TaskAction::ALL, after: TaskState::after };
    let ways_out: String = TaskState::ALL
        .iter()
        .filter(|state| state.is_ended())
        .map(|state| format!("    {state} --> [*]\n"))
        .collect();
    let page = format!(
        "# The states of a task\n\nThe page is made of the state machine in `src/task/state.rs` and of the migrations. On the wire a status is spelled in capitals: \
         `PROCESSING`. `docs/bulk-delete.md` explains how tasks are worked on.\n\n{}\n\
         What a task moves to and its event are one transaction.\n\n\
         ## What can be done\n\nA dash means that it is not possible: `invalid_state_transition`, with the `allowed_transitions` of the state. What is asked for twice \
         is done once. A task that no worker has a slice of has nothing to end first: it pauses and stops at once, also before it was ever taken up. A task that \
         was to pause when its last chunk was in hand is complete; one that was to stop is canceled.\n\n{}\n\
         ## Constraints of the database\n\nThese are constraints of the table `bulk_delete`, so no statement can leave a row that breaks them.\n\n{}",
        machine.diagram("    [*] --> scheduled: start of a bulk delete or a check\n", &ways_out),
        machine.table(who_acts_on_a_task, "", |_| ""),
        constraints("bulk_delete"),
    );
    check("docs/task-states.md", &page);
}
