//! What callers and workers may do, and what may prevent a removal.

use proptest::prelude::*;

use super::rules::{Call, RequestCall};
use super::{CALLERS, ENTITIES};

/// An operation of one of them.
#[derive(Clone, Debug)]
pub enum Operation {
    /// A caller, through one of the listeners, with an entity of its realm.
    Call { caller: usize, protocol: usize, entity: usize, call: Call },
    /// The same with a request, be it of its realm or not.
    CallRequest { caller: usize, protocol: usize, request: prop::sample::Index, call: RequestCall },
    /// A worker claims ready requests.
    Claim,
    /// Time passes: whoever claimed something and has not ended it has lost it.
    LeasesEnd,
    /// A worker does what it claimed, if it still may and nothing prevents it.
    Finish { claim: prop::sample::Index, prevented: Prevented },
}

/// What prevents a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prevented {
    Not,
    /// The database refuses it, this time.
    Refused,
    /// A hold was placed on the entity though it is on its way out, as an older version of the service may have done.
    Held,
}

/// An operation of a worker. Claims are counted from 0.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    Claim,
    LeasesEnd,
    Finish { claim: usize, prevented: Prevented },
}

pub fn operation() -> impl Strategy<Value = Operation> {
    let call = prop_oneof![
        3 => (prop::bool::weighted(0.2), 0..3_i64).prop_map(|(onboarding, tasks)| Call::Create { onboarding, tasks }),
        1 => Just(Call::CompleteOnboarding),
        2 => Just(Call::PlaceHold),
        1 => Just(Call::ReleaseHold),
        1 => Just(Call::GetEntity),
        2 => Just(Call::Preview),
        4 => Just(Call::Remove),
        5 => prop::bool::weighted(0.4).prop_map(|waits| Call::Request { waits }),
    ];
    let request_call = prop_oneof![3 => Just(RequestCall::Cancel), 1 => Just(RequestCall::GetRequest), 1 => Just(RequestCall::GetJob)];
    let prevented =
        prop_oneof![Just(Prevented::Not), Just(Prevented::Refused), Just(Prevented::Held)];
    let caller = || (0..CALLERS.len(), 0..2_usize);
    prop_oneof![
        20 => (caller(), 0..ENTITIES, call).prop_map(|((caller, protocol), entity, call)| Operation::Call { caller, protocol, entity, call }),
        6 => (caller(), any::<prop::sample::Index>(), request_call)
            .prop_map(|((caller, protocol), request, call)| Operation::CallRequest { caller, protocol, request, call }),
        6 => Just(Operation::Claim),
        3 => Just(Operation::LeasesEnd),
        6 => (any::<prop::sample::Index>(), prevented).prop_map(|(claim, prevented)| Operation::Finish { claim, prevented }),
    ]
}
