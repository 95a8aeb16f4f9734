//! A portfolio and the rules for a new one. Pure.

use chrono::{DateTime, Utc};
use diesel::deserialize::FromSql;
use diesel::pg::{Pg, PgValue};
use diesel::sql_types::Text;

use crate::db::id;
use crate::error::{Code, Error, Result, Violations};
use crate::limits::bodies::MAX_METADATA_BYTES;
use crate::proto::mask::{Mask, spelled_out};
use crate::proto::object::{Fault, Struct};
use crate::proto::v1;

/// How many members a response lists.
const MEMBERS_SHOWN: i64 = 1_000;
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
    /// True if they share a compliance calendar.
    pub shared_compliance_calendar: bool,
    /// The caller's own data, a JSON object.
    pub metadata: Struct,
    /// How many members it has.
    pub entity_count: i64,
    /// Steps with every change, also of membership.
    pub version: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// The first [`MEMBERS_SHOWN`] members, in attach order; none in the basic view.
    #[diesel(deserialize_as = Joined)]
    pub entity_ids: Vec<String>,
}

/// Ids that the database has joined with spaces, of which no id has any: a text is read in half the time of an array.
#[derive(diesel::deserialize::FromSqlRow)]
pub struct Joined(String);

impl FromSql<Text, Pg> for Joined {
    fn from_sql(value: PgValue<'_>) -> diesel::deserialize::Result<Self> {
        <String as FromSql<Text, Pg>>::from_sql(value).map(Joined)
    }
}

impl From<Joined> for Vec<String> {
    fn from(Joined(ids): Joined) -> Self {
        ids.split_terminator(' ').map(str::to_owned).collect()
    }
}

/// How much of a portfolio a response shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// All but the members.
    Basic,
    /// All of it.
    Full,
}

impl View {
    /// The view that a request names; not set is the full one.
    pub fn check(view: i32, faults: &mut Violations) -> View {
        match v1::PortfolioView::try_from(view) {
            Ok(v1::PortfolioView::Basic) => View::Basic,
            Ok(v1::PortfolioView::Unspecified | v1::PortfolioView::Full) => View::Full,
            Err(_) => {
                faults.add("view", "invalid", "must be `basic` or `full`");
                View::Full
            }
        }
    }

    /// How many members it shows.
    pub fn shown(self) -> i64 {
        match self {
            View::Basic => 0,
            View::Full => MEMBERS_SHOWN,
        }
    }
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
    /// True if they share a compliance calendar.
    pub shared_compliance_calendar: bool,
    /// The caller's own data, a JSON object.
    pub metadata: Struct,
}

impl NewPortfolio {
    /// Checks a request and fills in what the caller left to us. Every fault is reported.
    pub fn check(request: v1::CreatePortfolioRequest) -> Result<NewPortfolio> {
        let mut faults = Violations::new();
        let id = if request.portfolio_id.is_empty() {
            id::new_id().to_string()
        } else {
            request.portfolio_id
        };
        id::check_new_id(&id, "portfolio_id", &mut faults);
        check_name(&request.name, &mut faults);
        check_agent(request.shared_registered_agent_id.as_deref(), &mut faults);
        let metadata = check_metadata(request.metadata, &mut faults);
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

/// A valid change of a portfolio's own fields. Unset ones stay as they are.
#[derive(Clone, Debug)]
pub struct PortfolioUpdate {
    /// Its new name.
    pub name: Option<String>,
    /// The registered agent that its members share from now on, or that they share none.
    pub shared_registered_agent_id: Option<Option<String>>,
    /// True if they share a compliance calendar from now on.
    pub shared_compliance_calendar: Option<bool>,
    /// The caller's own data as a whole, a JSON object.
    pub metadata: Option<Struct>,
    /// The version that the portfolio must be at.
    pub expected_version: Option<i64>,
    /// How much of the portfolio the response shows.
    pub view: View,
}

/// The members that an update may change.
const UPDATABLE: [&str; 4] =
    ["name", "shared_registered_agent_id", "shared_compliance_calendar", "metadata"];
/// The members of the body of a `PATCH` that are not fields to change.
const BESIDE: [&str; 3] = ["portfolio_id", "expected_version", "view"];

impl PortfolioUpdate {
    /// Checks a request whose mask names the changes; without one, the given members are changed. Every fault is reported.
    pub fn check(request: v1::UpdatePortfolioRequest) -> Result<PortfolioUpdate> {
        let mut faults = Violations::new();
        id::check_id(&request.portfolio_id, "portfolio_id", &mut faults);
        let there = [
            request.name.is_some(),
            request.shared_registered_agent_id.is_some(),
            request.shared_compliance_calendar.is_some(),
            request.metadata.is_some(),
        ];
        let given = UPDATABLE
            .into_iter()
            .zip(there)
            .filter(|(_, there)| *there)
            .map(|(name, _)| name.to_owned());
        let is_known = |path: &str| UPDATABLE.contains(&path) || BESIDE.contains(&path);
        let reported = format!("is not among {}", spelled_out(&UPDATABLE));
        let mask = Mask::check(request.update_mask, given, is_known, &reported, &mut faults);
        let mut update = PortfolioUpdate {
            name: None,
            shared_registered_agent_id: None,
            shared_compliance_calendar: None,
            metadata: None,
            expected_version: request.expected_version,
            view: View::check(request.view, &mut faults),
        };
        if mask.names("name") {
            let name = request.name.unwrap_or_default();
            check_name(&name, &mut faults);
            update.name = Some(name);
        }
        if mask.names("shared_registered_agent_id") {
            check_agent(request.shared_registered_agent_id.as_deref(), &mut faults);
            update.shared_registered_agent_id = Some(request.shared_registered_agent_id);
        }
        if mask.names("shared_compliance_calendar") {
            if request.shared_compliance_calendar.is_none() {
                faults.add("shared_compliance_calendar", "required", "must be true or false");
            }
            update.shared_compliance_calendar = request.shared_compliance_calendar;
        }
        if mask.names("metadata") {
            update.metadata = Some(check_metadata(request.metadata, &mut faults));
        }
        let is_mask_faulty = faults.as_slice().iter().any(|fault| fault.field == "update_mask");
        if !is_mask_faulty && !mask.is_of_any(&UPDATABLE) {
            faults.add(
                "update_mask",
                "required",
                format!("at least one of {} must be given", spelled_out(&UPDATABLE)),
            );
        }
        faults.check()?;
        Ok(update)
    }
}

fn check_name(name: &str, faults: &mut Violations) {
    if name.is_empty() {
        faults.add("name", "required", "must be given");
    }
    if name.trim() != name {
        faults.add("name", "invalid", "must not begin or end with a blank");
    }
    check_text(name, "name", MAX_NAME_CHARACTERS, faults);
}

fn check_agent(agent: Option<&str>, faults: &mut Violations) {
    check_text(
        agent.unwrap_or_default(),
        "shared_registered_agent_id",
        MAX_AGENT_CHARACTERS,
        faults,
    );
}

fn check_metadata(metadata: Option<Struct>, faults: &mut Violations) -> Struct {
    let metadata = metadata.unwrap_or_default().in_order();
    let fault = metadata.fault();
    if fault == Some(Fault::TooLarge) || metadata.json_size() > MAX_METADATA_BYTES {
        faults.add(
            "metadata",
            "too_long",
            "must be at most 64 KiB of JSON, without blanks and with numbers written out",
        );
    } else if let Some(fault) = fault {
        faults.add("metadata", fault.code(), fault.description());
    }
    metadata
}

fn check_text(text: &str, field: &str, max: usize, faults: &mut Violations) {
    if text.chars().count() > max {
        faults.add(field, "too_long", format!("must be at most {max} characters"));
    }
    if text.contains('\0') {
        faults.add(field, "invalid", "must not contain the character U+0000");
    }
}

/// The response where there is no portfolio of this id.
pub fn missing(portfolio_id: &str) -> Error {
    Error::not_found("portfolio", portfolio_id)
}

/// The response to a change of membership when the portfolio or the entity is missing or invisible. It is the same whatever the reason.
pub fn no_membership(portfolio_id: &str, entity_id: &str) -> Error {
    let message = format!(
        "No entity with id `{entity_id}` beside a portfolio with id `{portfolio_id}` is visible to this token."
    );
    Error::new(Code::NotFound, message)
        .with("resource_type", "entity")
        .with("resource_name", entity_id)
        .with("portfolio_id", portfolio_id)
}

/// The refusal to detach an entity that is in another portfolio.
pub fn in_another(entity_id: &str, current: &str) -> Error {
    Error::new(
        Code::StateConflict,
        format!("The entity `{entity_id}` is in the portfolio `{current}`."),
    )
    .with("entity_id", entity_id)
    .with("current_portfolio_id", current)
}

/// The refusal to change a portfolio that is at another version than the caller believes.
pub fn at_another_version(portfolio_id: &str, expected: i64, current: i64) -> Error {
    Error::new(
        Code::StateConflict,
        format!("The portfolio `{portfolio_id}` is at version {current}, not {expected}."),
    )
    .with("portfolio_id", portfolio_id)
    .with("expected_version", expected)
    .with("current_version", current)
}

/// The refusal to delete a portfolio that has members: so many, where the caller may read how many.
pub fn not_empty(portfolio_id: &str, entity_count: Option<i64>) -> Error {
    let members = match entity_count {
        Some(1) => "a member".to_owned(),
        Some(count) => format!("{count} members"),
        None => "members".to_owned(),
    };
    let error = Error::new(
        Code::PortfolioNotEmpty,
        format!("The portfolio `{portfolio_id}` has {members}; detach or move them first."),
    )
    .with("portfolio_id", portfolio_id);
    match entity_count {
        Some(count) => error.with("entity_count", count),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(paths: &[&str]) -> v1::UpdatePortfolioRequest {
        let update_mask =
            prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() };
        v1::UpdatePortfolioRequest {
            portfolio_id: "p".to_owned(),
            update_mask: Some(update_mask),
            ..Default::default()
        }
    }

    impl PortfolioUpdate {
        /// The names of the fields that it changes.
        fn fields(&self) -> Vec<&'static str> {
            let is_set = [
                self.name.is_some(),
                self.shared_registered_agent_id.is_some(),
                self.shared_compliance_calendar.is_some(),
                self.metadata.is_some(),
            ];
            UPDATABLE
                .into_iter()
                .zip(is_set)
                .filter_map(|(field, is_set)| is_set.then_some(field))
                .collect()
        }
    }

    #[test]
    fn the_mask_says_what_is_cleared_and_without_one_what_is_given_is_changed() {
        let cleared = PortfolioUpdate::check(masked(&[
            "shared_registered_agent_id",
            "metadata",
            "expected_version",
        ]))
        .unwrap();
        assert_eq!(cleared.fields(), ["shared_registered_agent_id", "metadata"]);
        assert_eq!(
            (cleared.shared_registered_agent_id, cleared.metadata),
            (Some(None), Some(Struct::default()))
        );
        let given = v1::UpdatePortfolioRequest { name: Some("New".to_owned()), ..masked(&[]) };
        assert_eq!(PortfolioUpdate::check(given).unwrap().fields(), ["name"]);
        let ignored = v1::UpdatePortfolioRequest {
            name: Some("New".to_owned()),
            shared_compliance_calendar: Some(true),
            ..masked(&["name"])
        };
        assert_eq!(PortfolioUpdate::check(ignored).unwrap().shared_compliance_calendar, None);
    }

    #[test]
    fn every_fault_of_an_update_is_reported() {
        let fields = |request| {
            let error = PortfolioUpdate::check(request).unwrap_err();
            error.violations().iter().map(|fault| fault.field.clone()).collect::<Vec<_>>()
        };
        assert_eq!(fields(masked(&["*"])), ["name", "shared_compliance_calendar"]);
        assert_eq!(fields(masked(&["entity_ids", "version"])), ["update_mask", "update_mask"]);
        assert_eq!(fields(masked(&["expected_version"])), ["update_mask"]);
        let agent = Some("x".repeat(129));
        let wrong = v1::UpdatePortfolioRequest {
            portfolio_id: String::new(),
            shared_registered_agent_id: agent,
            ..masked(&[])
        };
        assert_eq!(fields(wrong), ["portfolio_id", "shared_registered_agent_id"]);
    }

    #[test]
    fn every_fault_of_a_new_portfolio_is_reported() {
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
        let new = NewPortfolio::check(v1::CreatePortfolioRequest {
            name: "Studio".to_owned(),
            ..Default::default()
        })
        .unwrap();
        assert!(id::is_id(&new.id));
        assert_eq!(new.metadata, Struct::default());
    }
}
