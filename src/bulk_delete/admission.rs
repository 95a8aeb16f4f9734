//! Whether a task may start: all that is looked at in the transaction that starts it, and what a dry run warns of.

use std::time::Duration;

use diesel::pg::PgConnection;

use crate::access::{Caller, Scope};
use crate::bulk_delete::bound::Bound;
use crate::bulk_delete::lists::Lists;
use crate::bulk_delete::model::{FILTER, NewTask, Target};
use crate::bulk_delete::selector::Selector;
use crate::bulk_delete::shown::Shown;
use crate::bulk_delete::unmet::Unmet;
use crate::bulk_delete::{admission_queries, guards, preview_queries};
use crate::consistency::queries::has_clean_report;
use crate::db::{Realm, Seal, Work, clock};
use crate::entity::requirements::Requirements;
use crate::entity::suspect_value::{self, Evidence, Suspect};
use crate::entity::unknown::{self, Seen, Unknown};
use crate::entity::unknown_value::UnknownValue;
use crate::entity::walk_queries::Among;
use crate::entity::{suspect_value_queries, unknown_value_queries};
use crate::error::{Error, Result};
use crate::filter::NamedValue;
use crate::limits::requests::ATTRIBUTE_LOOK_MILLIS;
use crate::proto::v1;
use crate::task::model::{Mode, full_type};

/// How long a call looks for the attributes of a filter. A worker finds out about what is left, before anything is deleted.
const PATIENCE: Duration = Duration::from_millis(ATTRIBUTE_LOOK_MILLIS.0);

/// What the caller may see of what a task is compared with.
#[derive(Clone, Copy, Debug)]
pub struct May {
    /// What entities have.
    pub read: bool,
    /// Portfolios, those without members among them.
    pub see_portfolios: bool,
}

impl May {
    /// What this caller may see.
    pub fn of(caller: &Caller) -> Self {
        May { read: caller.may(Scope::EntitiesRead), see_portfolios: caller.may(Scope::PortfoliosRead) }
    }
}

/// What became known of a task that may start.
#[derive(Debug, Default)]
pub struct Admission {
    /// Its number, if it was needed: what was counted is what the task will mean.
    pub ordinal: Option<i64>,
    /// How many entities it may take up while it runs, whatever comes to be selected meanwhile.
    pub cap: Option<i64>,
    /// What its lists of ids came to.
    pub lists: Lists,
    /// The attributes of its filter of which nobody knows yet whether they are there.
    pub unchecked: Vec<String>,
    /// What is probably not as it was meant, though the task may start.
    pub warnings: Vec<v1::Warning>,
}

/// Holds the task to its guards and to what the realm demands.
pub fn admit(connection: &mut PgConnection, realm: &Realm, task: &NewTask, seal: &Seal, may: May) -> Work<Admission> {
    let (guards, may_read) = (&task.guards, may.read);
    let shown = shown_before(realm, task, seal)?;
    let mut unchecked = Vec::new();
    if !guards.allow_unknown_attributes {
        let Seen { mut unknown, unchecked: open } = attributes(connection, realm, task)?;
        if !unknown.is_empty() {
            if !may_read {
                unknown = unknown.into_iter().map(Unknown::without_names).collect();
            }
            return Err(unknown::refusal(&unknown, FILTER).into());
        }
        unchecked = open;
    }
    let suspects = suspects(connection, realm, task)?;
    if task.mode == Mode::Hard && !guards.allow_suspect_values {
        let sure: Vec<&Suspect> = suspects.iter().filter(|suspect| suspect.is_sure()).collect();
        if !sure.is_empty() {
            return Err(suspect_value::refusal(&sure, "spec.objects.filter").into());
        }
    }
    let lists = lists(connection, realm, task)?;
    let mut warnings = if may_read { unknown_values(connection, realm, task, &[], may)? } else { Vec::new() };
    warnings.extend(suspects.iter().filter(|suspect| may_read || suspect.evidence == Evidence::Form).map(Suspect::warning));
    warnings.extend(lists.warnings());
    lists.hold(task.mode, guards.allow_missing_excludes)?;
    let required = admission_queries::requirements(connection, realm, task.mode)?;
    let (mut ordinal, mut matched) = (None, None);
    if guards.need_a_count() || required.max_objects.is_some() || shown.is_some() {
        let drawn = admission_queries::next_ordinal(connection)?;
        ordinal = Some(drawn);
        matched = Some(match &shown {
            Some(shown) => {
                let now = preview_queries::shown(connection, realm, task, Bound::Ordinal(drawn))?;
                // Told below, with what else is wanted.
                (now.matched, shown.hold(&now))
            }
            None => (preview_queries::count(connection, realm, task, drawn)?, Ok(())),
        });
    }
    let mut unmet = demands(connection, realm, &required, matched.as_ref().map(|(count, _)| *count))?;
    if required.expected_count && guards.expected_count.is_none() {
        unmet.expected_count();
    }
    if let Some(within) = required.preview_within {
        unmet.preview(within, shown.as_ref().map(|shown| clock::now() - shown.at));
    }
    unmet.check()?;
    if let Some((count, still)) = matched {
        still?;
        guards.hold(count)?;
    }
    ask_for_a_report(connection, realm, task)?;
    let cap = guards.cap().into_iter().chain(required.max_objects).chain(shown.map(|shown| shown.matched)).min();
    Ok(Admission { ordinal, cap, lists, unchecked, warnings })
}

/// What is probably not as it was meant in a request that is only looked at, and selects so many; and what its lists came to.
pub fn warnings(connection: &mut PgConnection, realm: &Realm, task: &NewTask, matched: i64, may: May) -> Work<(Vec<v1::Warning>, Lists)> {
    let seen = attributes(connection, realm, task)?;
    let values = unknown_values(connection, realm, task, &seen.unknown, may)?;
    let mut warnings = unknown::warnings(seen);
    warnings.extend(values);
    warnings.extend(suspects(connection, realm, task)?.iter().map(Suspect::warning));
    let lists = lists(connection, realm, task)?;
    warnings.extend(lists.warnings());
    let required = admission_queries::requirements(connection, realm, task.mode)?;
    warnings.extend(demands(connection, realm, &required, Some(matched))?.warnings());
    Ok((warnings, lists))
}

/// The token of a dry run, where the realm asks for one.
pub fn token(connection: &mut PgConnection, realm: &Realm, task: &NewTask, seal: &Seal) -> Work<String> {
    if admission_queries::requirements(connection, realm, task.mode)?.preview_within.is_none() {
        return Ok(String::new());
    }
    let shown = preview_queries::shown(connection, realm, task, Bound::None)?;
    Ok(shown.token(seal, realm, task)?)
}

/// Fails if the task asks for a clean report and there is none.
pub fn ask_for_a_report(connection: &mut PgConnection, realm: &Realm, task: &NewTask) -> Work<()> {
    match task.guards.clean_report_within {
        Some(within) if !has_clean_report(connection, realm, within)? => Err(guards::report_required(within).into()),
        _ => Ok(()),
    }
}

/// What the realm demands and does not find, whatever the request says.
fn demands(connection: &mut PgConnection, realm: &Realm, required: &Requirements, matched: Option<i64>) -> Work<Unmet> {
    let mut unmet = Unmet::default();
    if let (Some(most), Some(matched)) = (required.max_objects, matched) {
        unmet.max_objects(most, matched);
    }
    if let Some(within) = required.clean_report_within
        && !has_clean_report(connection, realm, within)?
    {
        unmet.clean_report(within);
    }
    Ok(unmet)
}

fn shown_before(realm: &Realm, task: &NewTask, seal: &Seal) -> Result<Option<Shown>> {
    let Some(token) = &task.guards.preview_token else { return Ok(None) };
    let wrong = || Error::invalid("preview_token", "invalid", "must be the token of a dry run of the same request");
    Shown::of_token(seal, realm, task, token).map(Some).ok_or_else(wrong)
}

fn attributes(connection: &mut PgConnection, realm: &Realm, task: &NewTask) -> Work<Seen> {
    let Target::Matching { filter: Some((_, filter)), entity_type } = &task.target else { return Ok(Seen::default()) };
    let selector = Selector::new(task.mode, false, Some(filter), entity_type.as_deref(), Bound::None);
    selector.look_for_attributes(connection, realm, Some(PATIENCE))
}

/// What the type and the filter name that nothing has, but for values of these attributes.
fn unknown_values(connection: &mut PgConnection, realm: &Realm, task: &NewTask, unknown: &[Unknown], may: May) -> Work<Vec<v1::Warning>> {
    let Target::Matching { filter, entity_type } = &task.target else { return Ok(Vec::new()) };
    let of_type = entity_type.as_ref().and_then(|given| NamedValue::of_type(&[given.clone(), full_type(given)]));
    let of_filter = filter.as_ref().map(|(_, filter)| filter.named_values()).unwrap_or_default();
    let named = of_type.into_iter().chain(unknown::values_of_known(of_filter, unknown)).collect();
    let unknown = unknown_value_queries::look(connection, realm, named, (task.mode == Mode::Soft, may.see_portfolios))?;
    Ok(unknown.iter().map(UnknownValue::warning).collect())
}

/// What the filter compares otherwise than it looks.
fn suspects(connection: &mut PgConnection, realm: &Realm, task: &NewTask) -> Work<Vec<Suspect>> {
    let Target::Matching { filter: Some((_, filter)), entity_type } = &task.target else { return Ok(Vec::new()) };
    let types = entity_type.as_ref().map(|given| [given.clone(), full_type(given)]);
    let among = Among { types: types.as_ref().map(|types| types.as_slice()), live: task.mode == Mode::Soft };
    let mut suspects: Vec<Suspect> = Suspect::by_form(filter).collect();
    suspects.extend(suspect_value_queries::look(connection, realm, filter, among, |_| true)?);
    Ok(suspects)
}

fn lists(connection: &mut PgConnection, realm: &Realm, task: &NewTask) -> Work<Lists> {
    Ok(Lists {
        excluded: admission_queries::missing(connection, realm, task.mode, &task.excluded)?,
        listed: admission_queries::missing(connection, realm, task.mode, task.listed().unwrap_or_default())?,
        unselected: preview_queries::unselected(connection, realm, task)?,
    })
}
