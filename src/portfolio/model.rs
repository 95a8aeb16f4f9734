//! What a portfolio is and what makes a new one valid. Pure.

use chrono::{DateTime, Utc};
use serde_json::Value as Json;

use crate::db::id;
use crate::error::{Code, Error, Result, Violations};
use crate::proto::{convert, v1};

/// How many members an answer lists.
pub const MEMBERS_SHOWN: i64 = 1_000;
const MAX_METADATA_BYTES: usize = 64 << 10;
const MAX_METADATA_DEPTH: usize = 32;
const MAX_NAME_CHARACTERS: usize = 256;
const MAX_AGENT_CHARACTERS: usize = 128;

/// A portfolio with its first members.
#[derive(Clone, Debug, diesel::Queryable)]
pub struct Portfolio {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The registered agent that its members share.
    pub shared_registered_agent_id: Option<String>,
    /// Whether they share a compliance calendar.
    pub shared_compliance_calendar: bool,
    /// The caller's own data, a JSON object.
    pub metadata: Json,
    /// How many members it has.
    pub entity_count: i64,
    /// Steps with every change, also of membership.
    pub version: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// The first [`MEMBERS_SHOWN`] members, in attach order.
    pub entity_ids: Vec<String>,
}

/// A valid portfolio that is to be created.
#[derive(Clone, Debug)]
pub struct NewPortfolio {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The registered agent that its members share.
    pub shared_registered_agent_id: Option<String>,
    /// Whether they share a compliance calendar.
    pub shared_compliance_calendar: bool,
    /// The caller's own data, a JSON object.
    pub metadata: Json,
}

impl NewPortfolio {
    /// Checks a request and fills in what the caller left to us. Every fault is told.
    pub fn check(request: v1::CreatePortfolioRequest) -> Result<NewPortfolio> {
        let mut faults = Violations::new();
        let id = if request.portfolio_id.is_empty() { id::new_id().to_string() } else { request.portfolio_id };
        id::check_id(&id, "portfolio_id", &mut faults);
        if request.name.is_empty() {
            faults.add("name", "required", "must be given");
        }
        check_text(&request.name, "name", MAX_NAME_CHARACTERS, &mut faults);
        if let Some(agent) = &request.shared_registered_agent_id {
            check_text(agent, "shared_registered_agent_id", MAX_AGENT_CHARACTERS, &mut faults);
        }
        let metadata = request.metadata.unwrap_or_default();
        if prost::Message::encoded_len(&metadata) > MAX_METADATA_BYTES {
            faults.add("metadata", "too_long", "must be at most 64 KiB");
        }
        let metadata = convert::from_struct(metadata, MAX_METADATA_DEPTH).unwrap_or_else(|fault| {
            faults.add("metadata", "invalid", fault);
            Json::Null
        });
        faults.check()?;
        Ok(NewPortfolio {
            id,
            name: request.name,
            shared_registered_agent_id: request.shared_registered_agent_id,
            shared_compliance_calendar: request.shared_compliance_calendar,
            metadata,
        })
    }
}

fn check_text(text: &str, field: &str, max: usize, faults: &mut Violations) {
    if text.chars().count() > max {
        faults.add(field, "too_long", format!("must be at most {max} characters"));
    }
    if text.contains('\0') {
        faults.add(field, "invalid", "must not hold the character U+0000");
    }
}

/// The answer to a change of membership when the portfolio or the entity is missing or invisible. It is the same whatever the reason.
pub fn no_membership(portfolio_id: &str, entity_id: &str) -> Error {
    let message = format!("No entity with id `{entity_id}` beside a portfolio with id `{portfolio_id}` is visible to this token.");
    Error::new(Code::NotFound, message).with("resource_type", "entity").with("resource_name", entity_id).with("portfolio_id", portfolio_id)
}

/// The refusal to detach an entity that is in another portfolio.
pub fn in_another(entity_id: &str, current: &str) -> Error {
    Error::new(Code::StateConflict, format!("The entity `{entity_id}` is in the portfolio `{current}`."))
        .with("entity_id", entity_id)
        .with("current_portfolio_id", current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_new_portfolio_is_told() {
        let request = v1::CreatePortfolioRequest {
            portfolio_id: "a/b".to_owned(),
            shared_registered_agent_id: Some("x".repeat(129)),
            ..Default::default()
        };
        let error = NewPortfolio::check(request).unwrap_err();
        let fields: Vec<_> = error.violations().iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["portfolio_id", "name", "shared_registered_agent_id"]);
    }

    #[test]
    fn an_id_is_made_where_none_is_given() {
        let new = NewPortfolio::check(v1::CreatePortfolioRequest { name: "Studio".to_owned(), ..Default::default() }).unwrap();
        assert!(id::is_id(&new.id));
        assert_eq!(new.metadata, serde_json::json!({}));
    }
}
