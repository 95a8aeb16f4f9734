//! The creation of many entities at once.

use std::collections::HashSet;
use std::sync::Arc;

use diesel::pg::PgConnection;
use tonic::{Request, Response, Status};

use crate::access::Once;
use crate::entity::new_entity::NewEntity;
use crate::entity::queries::{self, Inserted};
use crate::entity::service::{EntityService, MAX_BATCH, to_proto};
use crate::error::{Code, Error, Result, Violations};
use crate::proto::v1;

impl EntityService {
    pub(super) async fn batch_create_entities(
        &self,
        request: Request<v1::BatchCreateEntitiesRequest>,
    ) -> Result<Response<v1::BatchCreateEntitiesResponse>, Status> {
        let once = Once::of(&request)?;
        let batch: Arc<[NewEntity]> = check(request.into_inner().requests)?.into();
        let caller = once.caller().clone();
        batch.iter().try_for_each(|new| new.check_scope(&caller))?;
        let create = move |connection: &mut PgConnection| {
            let outcome = queries::insert(connection, &caller.realm, caller.principal_id, &batch)?;
            if let Some(refusal) = refusal(&batch, &outcome) {
                return Err(refusal.into());
            }
            let created_at =
                outcome.created_at.ok_or_else(|| Error::internal("a batch without a member"))?;
            let entities = batch
                .iter()
                .map(|new| to_proto(new.to_entity(created_at), &caller.realm))
                .collect();
            Ok(Response::new(v1::BatchCreateEntitiesResponse { entities }))
        };
        once.transaction(&self.db, create).await
    }
}

/// Checks every member. The faults of all of them are reported.
fn check(requests: Vec<v1::CreateEntityRequest>) -> Result<Vec<NewEntity>> {
    let mut faults = Violations::new();
    if requests.is_empty() {
        faults.add("requests", "required", "must have at least one member");
    }
    if requests.len() > MAX_BATCH {
        faults.add("requests", "too_many", "must have at most 1,000 members");
        faults.check()?;
        return Ok(Vec::new());
    }
    let mut ids = HashSet::new();
    let mut batch = Vec::with_capacity(requests.len());
    for (n, request) in requests.into_iter().enumerate() {
        let at = format!("requests[{n}].entity");
        let Some(message) = request.entity else {
            faults.add(at, "required", "must be given");
            continue;
        };
        if !message.entity_id.is_empty() && !ids.insert(message.entity_id.clone()) {
            faults.add(format!("{at}.entity_id"), "duplicate", "must be unique within the batch");
        }
        match NewEntity::check(message, &at) {
            Ok(new) => batch.push(new),
            Err(error) => faults.append(&error),
        }
    }
    faults.check()?;
    Ok(batch)
}

/// Why a batch was not created, naming every member that could not be.
fn refusal(batch: &[NewEntity], outcome: &Inserted) -> Option<Error> {
    let mut places = Violations::new();
    for (n, new) in batch.iter().enumerate() {
        let at = format!("requests[{n}].entity");
        if outcome.existing.contains(&n) {
            let description = format!(
                "the id `{}` is taken by another entity, or by one that was soft-deleted",
                new.id
            );
            places.add(format!("{at}.entity_id"), "already_exists", description);
        }
        if let Some(portfolio_id) =
            new.portfolio_id.as_ref().filter(|_| outcome.no_portfolio.contains(&n))
        {
            let description =
                format!("no portfolio with id `{portfolio_id}` is visible to this token");
            places.add(format!("{at}.portfolio_id"), "not_found", description);
        }
    }
    let (taken, missing) = (outcome.existing.len(), outcome.no_portfolio.len());
    let of_taken =
        format!("{taken} {} an id that is taken", if taken == 1 { "has" } else { "have" });
    let of_missing = format!(
        "{missing} {} a portfolio that is not visible to this token",
        if missing == 1 { "names" } else { "name" }
    );
    let (code, what) = match (taken, missing) {
        (0, 0) => return None,
        (0, _) => (Code::NotFound, of_missing),
        (_, 0) => (Code::AlreadyExists, of_taken),
        _ => (Code::AlreadyExists, format!("{of_taken}, and {of_missing}")),
    };
    let error = Error::new(code, format!("Of the batch {what}; nothing was created."))
        .with("taken_count", taken)
        .with("missing_portfolio_count", missing);
    Some(error.at(places))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: &str) -> v1::CreateEntityRequest {
        v1::CreateEntityRequest {
            entity: Some(v1::NewEntity {
                entity_id: id.to_owned(),
                r#type: "T".to_owned(),
                ..Default::default()
            }),
        }
    }

    #[test]
    fn the_faults_of_all_members_are_reported_by_their_paths() {
        let faulty = v1::CreateEntityRequest {
            entity: Some(v1::NewEntity { entity_id: "a".to_owned(), ..Default::default() }),
        };
        let error =
            check(vec![request("a"), v1::CreateEntityRequest::default(), request("b/c"), faulty])
                .unwrap_err();
        let fields: Vec<_> = error.violations().iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "requests[1].entity",
                "requests[2].entity.entity_id",
                "requests[3].entity.entity_id",
                "requests[3].entity.type"
            ]
        );
        assert_eq!(check(vec![request(""), request("")]).unwrap().len(), 2);
        assert_eq!(check(Vec::new()).unwrap_err().violations()[0].code, "required");
        assert_eq!(check(vec![request(""); 1_001]).unwrap_err().violations()[0].code, "too_many");
    }

    #[test]
    fn whatever_stands_in_the_way_is_named() {
        let mut batch = check(vec![request("a"), request("b"), request("c")]).unwrap();
        batch[2].portfolio_id = Some("p".to_owned());
        let outcome =
            Inserted { existing: [0, 1].into(), no_portfolio: [2].into(), ..Inserted::default() };
        let error = refusal(&batch, &outcome).unwrap();
        assert_eq!(error.code(), Code::AlreadyExists);
        assert_eq!(
            error.violations().iter().map(|place| place.code.as_ref()).collect::<Vec<_>>(),
            ["already_exists", "already_exists", "not_found"]
        );
        let missing = Inserted { existing: HashSet::new(), ..outcome };
        assert_eq!(refusal(&batch, &missing).unwrap().code(), Code::NotFound);
        assert!(refusal(&batch, &Inserted::default()).is_none());
    }
}
