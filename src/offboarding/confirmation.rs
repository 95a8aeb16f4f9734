//! Steps outside the database: others who must agree before an entity is removed.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::db::Realm;
use crate::error::Result;
use crate::offboarding::removal_queries::ClaimedRequest;

/// Somebody who must confirm the removal of an entity, for instance a service that has to close its accounts first.
///
/// A request is `Running` while it waits, for as long as that takes; the lease is given back meanwhile, so any replica may ask again. A
/// response may be lost and is then asked for once more, so asking must be harmless when it is repeated: the id of the request
/// distinguishes repeats.
#[tonic::async_trait]
pub trait Confirmation: Send + Sync + 'static {
    /// Its name; shown to those who read a request that waits.
    fn name(&self) -> &'static str;

    /// The answer for each departure, in their order. A failure counts as an attempt that came to nothing, for all of them.
    async fn confirm(&self, departures: &[Departure]) -> Result<Vec<Verdict>>;
}

/// An entity that is about to go.
#[derive(Clone, Debug)]
pub struct Departure {
    /// The realm.
    pub realm: Realm,
    /// The request, which stays the same however often it is asked about.
    pub request_id: Uuid,
    /// The entity.
    pub entity_id: String,
}

/// The answer of somebody outside to a removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The entity may go.
    Confirmed,
    /// Not yet; ask again after this time. It counts as no attempt.
    Later(Duration),
    /// It must not go; the sentence reports people why.
    Refused(String),
}

/// Asks everybody about everything, and returns the first word against each departure; none where all have confirmed.
pub(super) async fn ask(everybody: &[Arc<dyn Confirmation>], claimed: &[ClaimedRequest]) -> Result<Vec<Option<(&'static str, Verdict)>>> {
    let departures =
        claimed.iter().map(|claim| Departure { realm: claim.realm.clone(), request_id: claim.id, entity_id: claim.entity_id.clone() });
    let departures: Vec<Departure> = departures.collect();
    let mut against: Vec<Option<(&'static str, Verdict)>> = vec![None; departures.len()];
    for somebody in everybody {
        let verdicts = somebody.confirm(&departures).await?;
        for (place, verdict) in against.iter_mut().zip(verdicts) {
            if place.is_none() && verdict != Verdict::Confirmed {
                *place = Some((somebody.name(), verdict));
            }
        }
    }
    Ok(against)
}
