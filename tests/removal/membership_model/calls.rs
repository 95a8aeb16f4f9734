//! The calls of a round, and the faults that are injected.

use proptest::prelude::*;

use super::{CALLERS, ENTITIES, PORTFOLIOS, REALMS};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Get { entity: usize },
    Attach { portfolio: usize, entity: usize, full: bool },
    Detach { portfolio: usize, entity: usize, full: bool },
}

/// The caller, its protocol, and its operation.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    pub caller: usize,
    pub protocol: usize,
    pub call: Call,
}

/// The fault that is injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    Nothing,
    /// The database refuses every change of an entity of a realm.
    Entity {
        realm: usize,
        entity: usize,
    },
    /// The session of the first change ends in the middle of it, and with it all that are done together.
    Session,
}

/// Calls that are made at once; if they pile up, the first that changes something waits until the others are there.
#[derive(Clone, Debug)]
pub struct Round {
    pub calls: Vec<Made>,
    pub piled_up: bool,
    pub harm: Harm,
}

pub fn round() -> impl Strategy<Value = Round> {
    let change = || (0..=PORTFOLIOS, 0..=ENTITIES, any::<bool>());
    let call = prop_oneof![
        1 => (0..=ENTITIES).prop_map(|entity| Call::Get { entity }),
        3 => change().prop_map(|(portfolio, entity, full)| Call::Attach { portfolio, entity, full }),
        3 => change().prop_map(|(portfolio, entity, full)| Call::Detach { portfolio, entity, full }),
    ];
    let made = (0..CALLERS.len(), 0..2_usize, call).prop_map(|(caller, protocol, call)| Made {
        caller,
        protocol,
        call,
    });
    let calls = prop_oneof![1 => prop::collection::vec(made.clone(), 1..4), 3 => prop::collection::vec(made, 4..32)];
    let harm = prop_oneof![
        4 => Just(Harm::Nothing),
        2 => (0..REALMS.len(), 0..ENTITIES).prop_map(|(realm, entity)| Harm::Entity { realm, entity }),
        1 => Just(Harm::Session),
    ];
    (calls, prop::bool::weighted(0.7), harm).prop_map(|(calls, piled_up, harm)| Round {
        calls,
        piled_up,
        harm,
    })
}
