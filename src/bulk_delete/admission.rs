//! Decides whether a task may start, in the transaction that starts it, and returns the warnings of a dry run.

use std::time::Duration;

use diesel::pg::PgConnection;

use crate::access::{Caller, Scope};
use crate::bulk_delete::bound::Bound;
use crate::bulk_delete::lists::Lists;
use crate::bulk_delete::model::{FILTER, NewTask, Target};
use crate::bulk_delete::shown::Shown;
use crate::bulk_delete::unmet::Unmet;
use crate::bulk_delete::{admission_queries, guards, preview_queries};
use crate::consistency::queries::has_clean_report;
use crate::db::{Realm, Seal, Work, clock};
use crate::entity::filter_check::{self, FilterCheck, Unchecked};
use crate::entity::filter_check_queries::{self, Asking};
use crate::entity::requirements::Requirements;
use crate::entity::suspect_value::{self, Evidence, Suspect};
use crate::entity::unknown::{self, AttributeCheck, Unknown};
use crate::entity::unknown_value::{self, UnknownValue};
use crate::entity::walk_queries::Among;
use crate::error::{Error, Result};
use crate::filter::{Filter, NamedValue};
use crate::limits::requests::ATTRIBUTE_LOOK_MILLIS;
use crate::proto::v1;
use crate::task::model::{DeleteMode, full_type};

/// How long a call searches for the attributes of a filter. A worker searches for the rest, before anything is deleted.
const PATIENCE: Duration = Duration::from_millis(ATTRIBUTE_LOOK_MILLIS.0);

/// How much the caller may see of the data that a task is compared with.
#[derive(Clone, Copy, Debug)]
pub struct May {
    /// Attributes and values of entities.
    pub read: bool,
    /// Portfolios, those without members among them.
    pub sees_portfolios: bool,
}

impl May {
    /// That of this caller.
    pub fn of(caller: &Caller) -> Self {
        May {
            read: caller.may(Scope::EntitiesRead),
            sees_portfolios: caller.may(Scope::PortfoliosRead),
        }
    }
}

/// The findings about a task that may start.
#[derive(Debug, Default)]
pub struct Admission {
    /// Its number, if it was needed: the count is of the entities that the task will mean.
    pub ordinal: Option<i64>,
    /// How many entities it may take up while it runs, whatever comes to be selected meanwhile.
    pub cap: Option<i64>,
    /// The accounts of its lists of ids.
    pub lists: Lists,
    /// The attributes of its filter of which nobody knows yet whether they are there.
    pub unchecked: Vec<String>,
    /// The warnings: probable mistakes, though the task may start.
    pub warnings: Vec<v1::Warning>,
}

/// Checks the task against its guards and the requirements of the realm.
pub fn admit(
    connection: &mut PgConnection,
    realm: &Realm,
    task: &NewTask,
    seal: &Seal,
    may: May,
) -> Work<Admission> {
    let (guards, may_read) = (&task.guards, may.read);
    let shown = shown_before(realm, task, seal)?;
    // A value of an attribute that no entity has says no more than the attribute.
    let asks_for_values = task.mode == DeleteMode::Hard && !guards.allow_suspect_values;
    let check = check_filter(
        connection,
        realm,
        task,
        may,
        (!guards.allow_unknown_attributes || asks_for_values, true),
    )?;
    let lists = lists(connection, realm, task)?;
    let mut refusals = refusals(task, &check, may_read);
    refusals.extend(lists.check(task.mode, guards.allow_missing_excludes).err());
    let FilterCheck { attributes: AttributeCheck { unchecked, .. }, .. } = &check;
    let unchecked = if guards.allow_unknown_attributes { Vec::new() } else { unchecked.clone() };
    let mut warnings: Vec<v1::Warning> = if may_read {
        check.values.iter().map(UnknownValue::warning).collect()
    } else {
        Vec::new()
    };
    warnings.extend(
        suspects_for(&check.suspects, may_read)
            .iter()
            .filter(|suspect| may_read || suspect.evidence == Evidence::Form)
            .map(Suspect::warning),
    );
    warnings.extend(check.unchecked.iter().filter(|_| may_read).map(Unchecked::warning));
    warnings.extend(lists.warnings());
    let required = admission_queries::requirements(connection, realm, task.mode)?;
    let (mut ordinal, mut matched) = (None, None);
    // Where it is refused anyway nothing is counted.
    if refusals.is_empty()
        && (guards.need_a_count() || required.max_objects.is_some() || shown.is_some())
    {
        let drawn = admission_queries::next_ordinal(connection)?;
        ordinal = Some(drawn);
        matched = Some(match &shown {
            Some(shown) => {
                let now = preview_queries::shown(connection, realm, task, Bound::Ordinal(drawn))?;
                // Returned below, with what else is wanted.
                (now.matched, shown.compare(&now))
            }
            None => (preview_queries::count(connection, realm, task, drawn)?, Ok(())),
        });
    }
    let count = matched.as_ref().map(|(count, _)| *count);
    let unmet = demands(connection, realm, (task, shown.as_ref()), &required, count)?;
    refusals.extend(unmet.check().err());
    if let Some((count, still)) = matched {
        refusals.extend(still.and_then(|()| guards.compare(count)).err());
    }
    if let Some(refusal) = Error::of_all(refusals) {
        return Err(refusal.into());
    }
    ask_for_a_report(connection, realm, task)?;
    let cap = guards
        .cap()
        .into_iter()
        .chain(required.max_objects)
        .chain(shown.map(|shown| shown.matched))
        .min();
    Ok(Admission { ordinal, cap, lists, unchecked, warnings })
}

/// The warnings about a dry run that selects so many; and the entities of its lists.
pub fn warnings(
    connection: &mut PgConnection,
    realm: &Realm,
    task: &NewTask,
    seal: &Seal,
    matched: i64,
    may: May,
) -> Work<(Vec<v1::Warning>, Lists)> {
    let check = check_filter(connection, realm, task, may, (true, false))?;
    let mut warnings = unknown::warnings(check.attributes);
    warnings.extend(check.values.iter().map(UnknownValue::warning));
    warnings.extend(check.suspects.iter().map(Suspect::warning));
    warnings.extend(check.unchecked.iter().map(Unchecked::warning));
    let lists = lists(connection, realm, task)?;
    warnings.extend(lists.warnings());
    let required = admission_queries::requirements(connection, realm, task.mode)?;
    let shown = shown_before(realm, task, seal)?;
    let unmet = demands(connection, realm, (task, shown.as_ref()), &required, Some(matched))?;
    warnings.extend(unmet.warnings());
    Ok((warnings, lists))
}

/// Fails if the task asks for a clean report and there is none.
pub fn ask_for_a_report(connection: &mut PgConnection, realm: &Realm, task: &NewTask) -> Work<()> {
    match task.guards.clean_report_within {
        Some(within) if !has_clean_report(connection, realm, within)? => {
            Err(guards::report_required(within).into())
        }
        _ => Ok(()),
    }
}

/// The requirements of the realm that a task which selects so many does not meet; with the preview that its request names.
fn demands(
    connection: &mut PgConnection,
    realm: &Realm,
    (task, shown): (&NewTask, Option<&Shown>),
    required: &Requirements,
    matched: Option<i64>,
) -> Work<Unmet> {
    let mut unmet = Unmet::default();
    if let (Some(most), Some(matched)) = (required.max_objects, matched) {
        unmet.max_objects(most, matched);
    }
    if let Some(within) = required.clean_report_within
        && !has_clean_report(connection, realm, within)?
    {
        unmet.clean_report(within);
    }
    if required.expected_count && task.guards.expected_count.is_none() {
        unmet.expected_count();
    }
    if let Some(within) = required.preview_within {
        unmet.preview(within, shown.map(|shown| clock::now() - shown.at));
    }
    Ok(unmet)
}

fn shown_before(realm: &Realm, task: &NewTask, seal: &Seal) -> Result<Option<Shown>> {
    let Some(token) = &task.guards.preview_token else { return Ok(None) };
    let wrong = || {
        Error::invalid(
            "preview_token",
            "invalid",
            "must be the token of a dry run of the same request",
        )
    };
    Shown::of_token(seal, realm, task, token).map(Some).ok_or_else(wrong)
}

/// Searches for what the type and the filter name. `with_attributes` says whether attributes that no entity has are of interest.
fn check_filter(
    connection: &mut PgConnection,
    realm: &Realm,
    task: &NewTask,
    may: May,
    (with_attributes, starts): (bool, bool),
) -> Work<FilterCheck> {
    let Target::Matching { filter, entity_type } = &task.target else {
        return Ok(FilterCheck::default());
    };
    let filter = filter.as_ref().map(|(_, filter)| filter);
    let of_type = entity_type
        .as_ref()
        .and_then(|given| NamedValue::of_type(&[given.clone(), full_type(given)]));
    let of_filter = filter.map(Filter::named_values).unwrap_or_default();
    let types = entity_type.as_ref().map(|given| [given.clone(), full_type(given)]);
    let is_soft = task.mode == DeleteMode::Soft;
    let asking = Asking {
        filter,
        named: of_type.into_iter().chain(of_filter).collect(),
        compared: &|_| true,
        among: Among { types: types.as_ref().map(|types| types.as_slice()), undeleted: false },
        of_type: entity_type.as_deref().or_else(|| filter.and_then(Filter::only_type)),
        undeleted_values: is_soft,
        sees_portfolios: may.sees_portfolios,
        with_attributes,
        // Who starts a task that says that they are meant need not wait for it.
        is_far: !(is_soft || starts && task.guards.allow_suspect_values),
        patience: PATIENCE,
    };
    filter_check_queries::check_filter(connection, realm, asking)
}

/// The same as a caller may see them.
fn suspects_for(suspects: &[Suspect], may_read: bool) -> Vec<Suspect> {
    suspects
        .iter()
        .cloned()
        .map(|suspect| if may_read { suspect } else { suspect.without_example() })
        .collect()
}

/// The findings that keep the task from starting.
fn refusals(task: &NewTask, check: &FilterCheck, may_read: bool) -> Vec<Error> {
    let mut refusals = Vec::new();
    let FilterCheck { attributes: AttributeCheck { unknown, .. }, values, suspects, unchecked } =
        check;
    if !task.guards.allow_unknown_attributes && !unknown.is_empty() {
        let without_names = |unknown: &Unknown| {
            if may_read { unknown.clone() } else { unknown.clone().without_names() }
        };
        let unknown: Vec<Unknown> = unknown.iter().map(without_names).collect();
        refusals.push(unknown::refusal(&unknown, FILTER));
    }
    if task.mode == DeleteMode::Soft || task.guards.allow_suspect_values {
        return refusals;
    }
    let suspects = suspects_for(suspects, may_read);
    if !suspects.is_empty() {
        refusals.push(suspect_value::refusal(&suspects.iter().collect::<Vec<_>>(), FILTER));
    }
    let denied: Vec<UnknownValue> = values
        .iter()
        .filter(|value| value.denied)
        .map(|value| if may_read { value.clone() } else { value.clone().without_nearest() })
        .collect();
    if !denied.is_empty() {
        refusals.push(unknown_value::refusal(&denied.iter().collect::<Vec<_>>(), FILTER));
    }
    let unchecked: Vec<&Unchecked> =
        unchecked.iter().filter(|unchecked| unchecked.is_needed).collect();
    if !unchecked.is_empty() {
        refusals.push(filter_check::inconclusive(&unchecked, FILTER));
    }
    refusals
}

fn lists(connection: &mut PgConnection, realm: &Realm, task: &NewTask) -> Work<Lists> {
    Ok(Lists {
        excluded: admission_queries::missing(connection, realm, task.mode, &task.excluded)?,
        listed: admission_queries::missing(
            connection,
            realm,
            task.mode,
            task.listed().unwrap_or_default(),
        )?,
        unselected: preview_queries::unselected(connection, realm, task)?,
    })
}
