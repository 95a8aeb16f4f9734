//! What a bulk delete is and what it selects. Pure.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::bulk_delete::guards::Guards;
use crate::bulk_delete::state::TaskState;
use crate::db::{id, text_enum};
use crate::entity::list::invalid_filter;
use crate::error::{Result, Violations};
use crate::filter::Filter;
use crate::proto::v1;

/// The prefix of an entity's URI.
const URI_PREFIX: &str = "entities/";
/// The prefix of a type in full.
const TYPE_PREFIX: &str = "configuration/entityTypes/";
/// What stands in the name of a task before the one type that it is about.
const BY_TYPE: &str = " By Type: ";
const MAX_LISTED: usize = 100_000;
const MAX_FILTER_BYTES: usize = 64 << 10;
/// How many failed ids a task shows.
pub const FAILURES_SHOWN: i64 = 100;

text_enum! {
    /// What a task does.
    pub enum Kind {
        /// Deletes entities.
        Delete = "delete",
        /// Looks for what should not be, and mends it.
        CheckConsistency = "check_consistency",
    }
}

impl Kind {
    /// The contract's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Delete => "DeleteEntitiesTask",
            Kind::CheckConsistency => "CheckConsistencyTask",
        }
    }
}

text_enum! {
    /// How thoroughly to delete.
    pub enum Mode {
        /// Marked as deleted.
        Soft = "soft",
        /// Erased but for a tombstone.
        Hard = "hard",
    }
}

impl Mode {
    /// What of it can be undone, and what cannot.
    pub fn undo(self) -> &'static str {
        match self {
            Mode::Soft => {
                "Nobody sees what is marked as deleted, nor restores it by this API. Its data stays until a hard bulk delete takes it."
            }
            Mode::Hard => "This cannot be undone: of what is erased only ids, types, versions and times stay, as tombstones.",
        }
    }
}

text_enum! {
    /// Why an entity could not be deleted.
    pub enum Reason {
        /// It is still being taken in.
        Onboarding = "onboarding",
        /// It is on hold.
        OnHold = "on_hold",
        /// An offboarding is live for it.
        Offboarding = "offboarding",
        /// Others kept changing it.
        Locked = "locked",
        /// It is listed but is not there.
        NotFound = "not_found",
        /// The database refuses to have it deleted.
        Refused = "refused_by_database",
    }
}

impl Reason {
    /// The reason as a sentence.
    pub fn message(self) -> &'static str {
        match self {
            Reason::Onboarding => "The entity is still onboarding.",
            Reason::OnHold => "The entity is on hold.",
            Reason::Offboarding => "An offboarding of the entity is pending or running.",
            Reason::Locked => "The entity was being changed by others each time it was tried.",
            Reason::NotFound => "No such entity is visible.",
            Reason::Refused => "The database refused to delete the entity; the service's log tells why.",
        }
    }
}

/// Where the filter is in a request.
pub const FILTER: &str = "spec.objects.filter";

/// What a task selects.
#[derive(Clone, Debug)]
pub enum Target {
    /// Every entity that the filter holds for and that is of the type; every entity, where there is neither.
    Matching {
        /// The filter, as it was given and as it was read.
        filter: Option<(String, Filter)>,
        /// The type, as it was given.
        entity_type: Option<String>,
    },
    /// These, in order and each once.
    Listed(Vec<String>),
}

/// A valid request.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// How thoroughly.
    pub mode: Mode,
    /// What.
    pub target: Target,
    /// What is spared whatever selects it, in order and each once.
    pub excluded: Vec<String>,
    /// What must hold, or it does not start.
    pub guards: Guards,
}

impl NewTask {
    /// Checks a request of which these `faults` are known. Every fault is told, a filter's by its own code.
    pub fn check(request: v1::StartBulkDeleteRequest, mut faults: Violations) -> Result<NewTask> {
        let mode = match v1::DeleteMode::try_from(request.mode) {
            Ok(v1::DeleteMode::Unspecified | v1::DeleteMode::Soft) => Mode::Soft,
            Ok(v1::DeleteMode::Hard) => Mode::Hard,
            Err(_) => {
                faults.add("mode", "invalid", "must be `soft` or `hard`");
                Mode::Soft
            }
        };
        let guards = Guards::check(&request, &mut faults);
        let Asked { selection, match_all, at } = Asked::of(request, &mut faults);
        let list = if at.is_empty() { "uris".to_owned() } else { format!("{at}uri_list") };
        let listed = check_uris(&selection.uri_list, &list, &mut faults);
        let excluded = check_uris(&selection.exclude_list, &format!("{at}exclude_list"), &mut faults);
        let v1::Selection { filter, entity_type, .. } = selection;
        // A blank filter holds for everything, so it stands beside `match_all` alone; elsewhere reading it tells what is wrong with it.
        let filter = filter.filter(|filter| !(match_all && filter.trim().is_empty()));
        let is_matching = filter.is_some() || entity_type.is_some();
        if !selection.uri_list.is_empty() && is_matching {
            faults.add(&list, "invalid", "must not be given together with `filter` or `entity_type`");
        }
        if match_all && (is_matching || !selection.uri_list.is_empty()) {
            faults.add("spec.match_all", "invalid", "must not be given together with `filter`, `entity_type` or `uri_list`");
        }
        if let Some(entity_type) = &entity_type {
            check_type(entity_type, &format!("{at}entity_type"), &mut faults);
        }
        let is_fit = |filter: &String| filter.len() <= MAX_FILTER_BYTES && !filter.contains('\0');
        if filter.as_ref().is_some_and(|filter| !is_fit(filter)) {
            faults.add(format!("{at}filter"), "invalid", "must be at most 64 KiB and must not hold the character U+0000");
        }
        let filter = filter.filter(is_fit).map(|filter| parse_filter(filter, &format!("{at}filter"))).transpose();
        let filter = faults.check_with(filter)?;
        let target = if listed.is_empty() { Target::Matching { filter, entity_type } } else { Target::Listed(listed) };
        Ok(NewTask { mode, target, excluded, guards })
    }

    /// Whether it selects everything, but for what is excluded.
    pub fn matches_all(&self) -> bool {
        matches!(self.target, Target::Matching { filter: None, entity_type: None })
    }

    /// The ids of its list, in order; none if it is none.
    pub fn listed(&self) -> Option<&[String]> {
        match &self.target {
            Target::Listed(ids) => Some(ids),
            Target::Matching { .. } => None,
        }
    }

    /// What the task does, for people.
    pub fn name(&self) -> String {
        let mode = match self.mode {
            Mode::Soft => "Soft",
            Mode::Hard => "Hard",
        };
        match &self.target {
            Target::Matching { filter: None, entity_type: None } => format!("{mode} Delete All Entities"),
            Target::Matching { filter, entity_type } => {
                let of_filter = || filter.as_ref().and_then(|(_, filter)| filter.only_type());
                match entity_type.as_deref().or_else(of_filter) {
                    Some(entity_type) => format!("{mode} Delete Entities{BY_TYPE}{}", full_type(entity_type)),
                    None => format!("{mode} Delete Entities By Filter"),
                }
            }
            Target::Listed(_) => format!("{mode} Delete Entities By URIs"),
        }
    }

    /// How the task was started, as the contract shows it.
    pub fn parameters(&self, tenant: &str) -> BTreeMap<&'static str, String> {
        let mut parameters = BTreeMap::from([("tenantId", tenant.to_owned()), ("mode", self.mode.to_string())]);
        match &self.target {
            Target::Matching { filter, entity_type } => {
                parameters.extend(filter.as_ref().map(|(text, _)| ("filter", text.clone())));
                parameters.extend(entity_type.as_ref().map(|entity_type| ("entityType", entity_type.clone())));
                if self.matches_all() {
                    parameters.insert("matchAll", "true".to_owned());
                }
            }
            Target::Listed(ids) => {
                parameters.insert("uriCount", ids.len().to_string());
            }
        }
        if !self.excluded.is_empty() {
            parameters.insert("excludeCount", self.excluded.len().to_string());
        }
        parameters.extend(self.guards.parameters());
        parameters
    }
}

/// What a request asks to delete, whichever way it says so.
#[derive(Default)]
struct Asked {
    selection: v1::Selection,
    match_all: bool,
    /// Where the selection is in the request.
    at: &'static str,
}

impl Asked {
    fn of(request: v1::StartBulkDeleteRequest, faults: &mut Violations) -> Asked {
        let v1::StartBulkDeleteRequest { spec, entity_type, uris, .. } = request;
        match (spec, entity_type.is_empty(), uris.is_empty()) {
            (None, false, true) => {
                Asked { selection: v1::Selection { entity_type: Some(entity_type), ..Default::default() }, ..Asked::default() }
            }
            (None, true, false) => Asked { selection: v1::Selection { uri_list: uris, ..Default::default() }, ..Asked::default() },
            (Some(spec), true, true) => Asked::of_spec(spec, faults),
            (None, true, true) => {
                // Which of the three a caller can give depends on its way in.
                faults.add("entity_type", "required", "must be given and must not be empty: nothing else says what to delete");
                Asked::default()
            }
            (spec, no_type, _) => {
                let (field, other) = match (&spec, no_type) {
                    (Some(_), true) => ("uris", "spec"),
                    (Some(_), false) => ("entity_type", "spec"),
                    (None, _) => ("entity_type", "uris"),
                };
                faults.add(field, "invalid", format!("must not be given together with `{other}`, which says what to delete as well"));
                check_uris(&uris, "uris", faults);
                if !no_type {
                    check_type(&entity_type, "entity_type", faults);
                }
                spec.map_or_else(Asked::default, |spec| Asked::of_spec(spec, faults))
            }
        }
    }

    fn of_spec(spec: v1::BulkDeleteSpec, faults: &mut Violations) -> Asked {
        let v1::BulkDeleteSpec { objects, match_all, .. } = spec;
        match &objects {
            None if !match_all => faults.add("spec.objects", "required", "must be given"),
            Some(v1::Selection { filter, entity_type, uri_list, .. })
                if !match_all && filter.is_none() && entity_type.is_none() && uri_list.is_empty() =>
            {
                let message = "`filter`, `entity_type` or `uri_list` must be given and must not be empty; `match_all` selects everything";
                faults.add(FILTER, "required", message);
            }
            _ => {}
        }
        Asked { selection: objects.unwrap_or_default(), match_all, at: "spec.objects." }
    }
}

/// The one type that a task is about, in full: the one that was asked for, or the one that the filter names. A filter is blanked in time, so the
/// name is what keeps that.
pub fn type_of(entity_type: Option<&str>, name: &str) -> String {
    entity_type.map(full_type).or_else(|| name.split_once(BY_TYPE).map(|(_, named)| named.to_owned())).unwrap_or_default()
}

/// Reads a filter, which stands at this path, for a call that destroys: `AND` and `OR` must not stand side by side without parentheses.
pub fn parse_filter(text: String, field: &str) -> Result<(String, Filter)> {
    let filter = Filter::parse_strict(&text).map_err(|error| invalid_filter(&error, &text, field))?;
    Ok((text, filter))
}

/// A type in full, where it was given by its last part.
pub fn full_type(entity_type: &str) -> String {
    if entity_type.contains('/') { entity_type.to_owned() } else { format!("{TYPE_PREFIX}{entity_type}") }
}

fn check_type(entity_type: &str, field: &str, faults: &mut Violations) {
    if entity_type.is_empty() || entity_type.chars().count() > 256 || entity_type.contains('\0') {
        faults.add(field, "invalid", "must be 1 to 256 characters, none of them U+0000");
    }
}

/// Ids of a list of URIs or ids, in order and each once.
fn check_uris(uris: &[String], field: &str, faults: &mut Violations) -> Vec<String> {
    if uris.len() > MAX_LISTED {
        faults.add(field, "too_many", "must have at most 100,000 members");
        return Vec::new();
    }
    let mut ids = BTreeSet::new();
    for (n, uri) in uris.iter().enumerate() {
        let id = uri.strip_prefix(URI_PREFIX).unwrap_or(uri);
        if id::is_id(id) {
            ids.insert(id.to_owned());
        } else {
            faults.add(format!("{field}[{n}]"), "invalid", "must be `entities/ID` or `ID`");
        }
    }
    ids.into_iter().collect()
}

/// A task with its account, as it is stored.
#[derive(Clone, Debug, diesel::Queryable)]
pub struct Task {
    /// Its id.
    pub id: Uuid,
    /// What it does.
    pub kind: Kind,
    /// Where it stands.
    pub state: TaskState,
    /// Its name for people.
    pub name: String,
    /// The type that was asked for, as it was given.
    pub entity_type: Option<String>,
    /// How it was started, a JSON object of strings.
    pub parameters: serde_json::Value,
    /// Who started it.
    pub principal_id: Uuid,
    /// Who last acted on it.
    pub updated_by: Uuid,
    /// How many the selection held when it was taken up.
    pub selected: Option<i64>,
    /// Which replicas worked on it.
    pub instances: Vec<String>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it first started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was paused, while it is.
    pub paused_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// The moment that this account is of.
    pub now: DateTime<Utc>,
    /// How many the selection met.
    pub matched: i64,
    /// How many were deleted.
    pub processed: i64,
    /// How many could not be deleted.
    pub failed: i64,
    /// How many were spared.
    pub excluded: i64,
    /// How many had changed or gone.
    pub skipped: i64,
    /// The first ids that could not be deleted.
    pub first_failures: Vec<String>,
    /// How many of its events a publisher has tried and could not deliver so far.
    pub unpublished: i64,
    /// For how many seconds it has been at work.
    pub worked: f64,
    /// Since when it has been at work, while it is.
    pub working_since: Option<DateTime<Utc>>,
    /// How many objects it may take up a second.
    pub max_objects_per_second: Option<i32>,
    /// How many objects the selection met in this sample of ten seconds and the two before it, since it has been at work.
    pub met_lately: i64,
    /// How many objects were processed within the last hour.
    pub processed_in_hour: i64,
    /// The code of what ended it, if it failed.
    pub error_code: Option<String>,
    /// The same as a sentence.
    pub error_message: Option<String>,
    /// What a check has found so far: an object with `[found, mended]` for each kind.
    pub findings: serde_json::Value,
    /// What became of its mail, if one was asked for: an object with `status` and `reason`.
    pub mail: Option<serde_json::Value>,
    /// What the lists came to that it was asked for with, if there were any: see [`super::lists`].
    pub lists: Option<serde_json::Value>,
}

#[cfg(test)]
mod tests;
