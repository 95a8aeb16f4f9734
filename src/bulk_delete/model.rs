//! A bulk delete and its selection. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::bulk_delete::guards::Guards;
use crate::db::id;
use crate::error::{Result, Violations};
use crate::filter::{Filter, has_fit_length, invalid_filter};
use crate::proto::v1;
use crate::task::model::{BY_TYPE, DeleteMode, full_type};

/// The prefix of an entity's URI.
const URI_PREFIX: &str = "entities/";
const MAX_LISTED: usize = 100_000;

/// Where the filter is in a request.
pub const FILTER: &str = "spec.objects.filter";

/// The selection of a task.
#[derive(Clone, Debug)]
pub enum Target {
    /// Every entity that matches the filter and is of the type; every entity, if there is neither.
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
    pub mode: DeleteMode,
    /// The selection.
    pub target: Target,
    /// The excluded ids, in order and each once.
    pub excluded: Vec<String>,
    /// The guards.
    pub guards: Guards,
}

impl NewTask {
    /// Checks a request of which these `faults` are known. Every fault is reported, a filter's by its own code.
    pub fn check(request: v1::StartBulkDeleteRequest, mut faults: Violations) -> Result<NewTask> {
        let mode = match v1::DeleteMode::try_from(request.mode) {
            Ok(v1::DeleteMode::Unspecified | v1::DeleteMode::Soft) => DeleteMode::Soft,
            Ok(v1::DeleteMode::Hard) => DeleteMode::Hard,
            Err(_) => {
                faults.add("mode", "invalid", "must be `soft` or `hard`");
                DeleteMode::Soft
            }
        };
        let guards = Guards::check(&request, &mut faults);
        let Asked { selection, match_all, at } = Asked::of(request, &mut faults);
        let list = if at.is_empty() { "uris".to_owned() } else { format!("{at}uri_list") };
        let listed = check_uris(&selection.uri_list, &list, &mut faults);
        let excluded =
            check_uris(&selection.exclude_list, &format!("{at}exclude_list"), &mut faults);
        let v1::Selection { filter, entity_type, .. } = selection;
        // A blank filter matches everything, so it is accepted beside `match_all` alone; elsewhere the parser finds the fault.
        let filter = filter.filter(|filter| !(match_all && filter.trim().is_empty()));
        let is_matching = filter.is_some() || entity_type.is_some();
        if !selection.uri_list.is_empty() && is_matching {
            faults.add(
                &list,
                "invalid",
                "must not be given together with `filter` or `entity_type`",
            );
        }
        if match_all && (is_matching || !selection.uri_list.is_empty()) {
            faults.add(
                "spec.match_all",
                "invalid",
                "must not be given together with `filter`, `entity_type` or `uri_list`",
            );
        }
        if let Some(entity_type) = &entity_type {
            check_type(entity_type, &format!("{at}entity_type"), &mut faults);
        }
        let field = format!("{at}filter");
        let filter = filter
            .filter(|filter| has_fit_length(filter, &field, &mut faults))
            .map(|filter| parse_filter(filter, &field))
            .transpose();
        let filter = faults.check_with(filter)?;
        let target = if listed.is_empty() {
            Target::Matching { filter, entity_type }
        } else {
            Target::Listed(listed)
        };
        Ok(NewTask { mode, target, excluded, guards })
    }

    /// Returns whether it selects everything, except the excluded ones.
    pub fn matches_all(&self) -> bool {
        matches!(self.target, Target::Matching { filter: None, entity_type: None })
    }

    /// The ids of its list, in order; none if it is not a list.
    pub fn listed(&self) -> Option<&[String]> {
        match &self.target {
            Target::Listed(ids) => Some(ids),
            Target::Matching { .. } => None,
        }
    }

    /// The name of the task, for people.
    pub fn name(&self) -> String {
        let mode = match self.mode {
            DeleteMode::Soft => "Soft",
            DeleteMode::Hard => "Hard",
        };
        match &self.target {
            Target::Matching { filter: None, entity_type: None } => {
                format!("{mode} Delete All Entities")
            }
            Target::Matching { filter, entity_type } => {
                let of_filter = || filter.as_ref().and_then(|(_, filter)| filter.only_type());
                match entity_type.as_deref().or_else(of_filter) {
                    Some(entity_type) => {
                        format!("{mode} Delete Entities{BY_TYPE}{}", full_type(entity_type))
                    }
                    None => format!("{mode} Delete Entities By Filter"),
                }
            }
            Target::Listed(_) => format!("{mode} Delete Entities By URIs"),
        }
    }

    /// How the task was started, as the contract shows it.
    pub fn parameters(&self, tenant: &str) -> BTreeMap<&'static str, String> {
        let mut parameters =
            BTreeMap::from([("tenantId", tenant.to_owned()), ("mode", self.mode.to_string())]);
        match &self.target {
            Target::Matching { filter, entity_type } => {
                parameters.extend(filter.as_ref().map(|(text, _)| ("filter", text.clone())));
                parameters.extend(
                    entity_type.as_ref().map(|entity_type| ("entityType", entity_type.clone())),
                );
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

/// The selection of a request, in whichever of its forms it comes.
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
            (None, false, true) => Asked {
                selection: v1::Selection { entity_type: Some(entity_type), ..Default::default() },
                ..Asked::default()
            },
            (None, true, false) => Asked {
                selection: v1::Selection { uri_list: uris, ..Default::default() },
                ..Asked::default()
            },
            (Some(spec), true, true) => Asked::of_spec(spec, faults),
            (None, true, true) => {
                // Which of the three a caller can give depends on its way in.
                faults.add(
                    "entity_type",
                    "required",
                    "must be given and must not be empty: nothing else says what to delete",
                );
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
                if !match_all
                    && filter.is_none()
                    && entity_type.is_none()
                    && uri_list.is_empty() =>
            {
                let message = "`filter`, `entity_type` or `uri_list` must be given and must not be empty; `match_all` selects everything";
                faults.add(FILTER, "required", message);
            }
            _ => {}
        }
        Asked { selection: objects.unwrap_or_default(), match_all, at: "spec.objects." }
    }
}

/// Reads the filter at this path for a call that destroys: `AND` and `OR` must not be side by side without parentheses.
pub fn parse_filter(text: String, field: &str) -> Result<(String, Filter)> {
    let filter =
        Filter::parse_strict(&text).map_err(|error| invalid_filter(&error, &text, field))?;
    Ok((text, filter))
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

#[cfg(test)]
mod tests;
