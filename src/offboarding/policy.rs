//! The removal policy of a realm. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::db::Realm;
use crate::entity::requirements::{Requirements, RequirementsChange};
use crate::error::{Form, Result, Violations, cut};
use crate::limits::mail::{MAIL_DOMAINS, MAX_DOMAINS};
use crate::offboarding::model::MAX_GRACE;
use crate::proto::mask::{Mask, part_of, spelled_out};
use crate::proto::{convert, v1};

/// The shortest retention: as long as a response for an idempotency key is kept, so that nothing is removed that a caller may still ask for blindly.
const MIN_RETENTION: Duration = Duration::from_secs(24 * 3600);
/// The longest retention that has an end: a hundred years.
const MAX_RETENTION: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The fields that a caller may name.
const FIELDS: [&str; 9] = [
    "default_grace_period",
    "max_grace_period",
    "min_grace_period",
    "tombstone_retention",
    "request_retention",
    "filter_retention",
    "mail_domains",
    "hard_delete",
    "soft_delete",
];

/// The fields that name the realm of the policy.
const OUTPUT_ONLY: [&str; 2] = ["tenant", "mode"];

/// The removal policy of a realm; without one, [`Policy::default`] applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The grace period of a removal that does not say one.
    pub default_grace: Duration,
    /// The longest grace period that a call may ask for.
    pub max_grace: Duration,
    /// The shortest grace period that a removal may have.
    pub min_grace: Duration,
    /// How long tombstones are kept; for ever if not set.
    pub tombstone_retention: Option<Duration>,
    /// How long requests are kept after their end; for ever if not set.
    pub request_retention: Option<Duration>,
    /// How long tasks keep the text of their filter after their end; as long as they are kept if not set.
    pub filter_retention: Option<Duration>,
    /// The domains that mails about tasks may be sent to, in lower case.
    pub mail_domains: Vec<String>,
    /// The requirements for a hard bulk delete.
    pub hard_delete: Requirements,
    /// The requirements for a soft bulk delete.
    pub soft_delete: Requirements,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            default_grace: Duration::ZERO,
            max_grace: MAX_GRACE,
            min_grace: Duration::ZERO,
            tombstone_retention: None,
            request_retention: None,
            filter_retention: None,
            mail_domains: Vec::new(),
            hard_delete: Requirements::default(),
            soft_delete: Requirements::default(),
        }
    }
}

/// A change of a policy: the fields that it names, each with its new value.
#[derive(Clone, Debug, Default)]
pub struct Change {
    default_grace: Option<Duration>,
    max_grace: Option<Duration>,
    min_grace: Option<Duration>,
    tombstone_retention: Option<Option<Duration>>,
    request_retention: Option<Option<Duration>>,
    filter_retention: Option<Option<Duration>>,
    mail_domains: Option<Vec<String>>,
    hard_delete: RequirementsChange,
    soft_delete: RequirementsChange,
}

impl Change {
    /// Reads a change of the policy of this realm; every fault is reported. A policy that says to be of another realm is not taken for this
    /// one, whatever the mask names: it was read with another key.
    pub fn check(
        policy: Option<v1::RemovalPolicy>,
        mask: Option<prost_types::FieldMask>,
        realm: &Realm,
    ) -> Result<Change> {
        let mut faults = Violations::new();
        let policy = policy.unwrap_or_default();
        let (fields, members) = (spelled_out(&FIELDS), spelled_out(&RequirementsChange::MEMBERS));
        let reported = format!(
            "is not one of {fields}, nor after `hard_delete.` and `soft_delete.` one of {members}"
        );
        let mask = Mask::check(mask, given(&policy), is_known, &reported, &mut faults);
        if faults.as_slice().is_empty() && !mask.is_of_any(&FIELDS) && !mask.is_of_any(&OUTPUT_ONLY)
        {
            faults.add(
                "update_mask",
                "required",
                format!("must name at least one of {fields}, or the policy have one"),
            );
        }
        check_whose(&policy, realm, &mut faults);
        let mut change = Change::default();
        let defaults = Policy::default();
        for field in FIELDS.into_iter().filter(|field| mask.names(field)) {
            let at = format!("policy.{field}");
            match field {
                "default_grace_period" => {
                    change.default_grace =
                        grace(policy.default_grace_period, defaults.default_grace, &at, &mut faults)
                }
                "max_grace_period" => {
                    change.max_grace =
                        grace(policy.max_grace_period, defaults.max_grace, &at, &mut faults)
                }
                "min_grace_period" => {
                    change.min_grace =
                        grace(policy.min_grace_period, defaults.min_grace, &at, &mut faults)
                }
                "tombstone_retention" => {
                    change.tombstone_retention =
                        Some(retention(policy.tombstone_retention, &at, &mut faults))
                }
                "request_retention" => {
                    change.request_retention =
                        Some(retention(policy.request_retention, &at, &mut faults))
                }
                "filter_retention" => {
                    change.filter_retention =
                        Some(retention(policy.filter_retention, &at, &mut faults))
                }
                "mail_domains" => {
                    change.mail_domains = Some(domains(&policy.mail_domains, &at, &mut faults))
                }
                // The requirements are read below, member by member.
                _ => {}
            }
        }
        let mut requirements = |message, name: &str| {
            let members: Vec<Option<&str>> = mask.within(name).collect();
            RequirementsChange::check(message, &members, &format!("policy.{name}"), &mut faults)
        };
        change.hard_delete = requirements(policy.hard_delete, "hard_delete");
        change.soft_delete = requirements(policy.soft_delete, "soft_delete");
        change.check_graces(change.default_grace, change.max_grace, change.min_grace, &mut faults);
        faults.check()?;
        Ok(change)
    }

    /// Checks the rules between grace periods, as far as these are known. The faults are at what the change names.
    fn check_graces(
        &self,
        default: Option<Duration>,
        max: Option<Duration>,
        min: Option<Duration>,
        faults: &mut Violations,
    ) {
        if default.zip(max).is_some_and(|(default, max)| default > max) {
            let field = if self.default_grace.is_some() {
                "policy.default_grace_period"
            } else {
                "policy.max_grace_period"
            };
            faults.add(field, "out_of_range", "the default must not be longer than the maximum");
        }
        if default.zip(min).is_some_and(|(default, min)| default < min) {
            let field = if self.min_grace.is_some() {
                "policy.min_grace_period"
            } else {
                "policy.default_grace_period"
            };
            faults.add(
                field,
                "out_of_range",
                "the default must not be shorter than the minimum, since it is what a removal has that says none",
            );
        }
    }

    /// The policy after the change, or the faults of the change.
    pub fn apply(&self, to: Policy) -> Result<Policy> {
        let changed = Policy {
            default_grace: self.default_grace.unwrap_or(to.default_grace),
            max_grace: self.max_grace.unwrap_or(to.max_grace),
            min_grace: self.min_grace.unwrap_or(to.min_grace),
            tombstone_retention: self.tombstone_retention.unwrap_or(to.tombstone_retention),
            request_retention: self.request_retention.unwrap_or(to.request_retention),
            filter_retention: self.filter_retention.unwrap_or(to.filter_retention),
            mail_domains: self.mail_domains.clone().unwrap_or(to.mail_domains),
            hard_delete: self.hard_delete.apply(to.hard_delete),
            soft_delete: self.soft_delete.apply(to.soft_delete),
        };
        let mut faults = Violations::new();
        self.check_graces(
            Some(changed.default_grace),
            Some(changed.max_grace),
            Some(changed.min_grace),
            &mut faults,
        );
        faults.check()?;
        Ok(changed)
    }
}

/// Returns whether a mask may have this path: that of a field, of a demand or of what a caller sends back as it was read.
fn is_known(path: &str) -> bool {
    let is_demand = |name| {
        part_of(path, name)
            .is_some_and(|part| part.is_none_or(|part| RequirementsChange::MEMBERS.contains(&part)))
    };
    FIELDS.contains(&path)
        || OUTPUT_ONLY.contains(&path)
        || is_demand("hard_delete")
        || is_demand("soft_delete")
}

/// The paths of what a policy has, of demands too: what a change without a mask is of.
fn given(policy: &v1::RemovalPolicy) -> Vec<String> {
    let there = [
        policy.default_grace_period.is_some(),
        policy.max_grace_period.is_some(),
        policy.min_grace_period.is_some(),
        policy.tombstone_retention.is_some(),
        policy.request_retention.is_some(),
        policy.filter_retention.is_some(),
        !policy.mail_domains.is_empty(),
    ];
    let mut paths: Vec<_> = FIELDS
        .into_iter()
        .zip(there)
        .filter(|(_, there)| *there)
        .map(|(name, _)| name.to_owned())
        .collect();
    for (name, demands) in
        [("hard_delete", &policy.hard_delete), ("soft_delete", &policy.soft_delete)]
    {
        let Some(demands) = demands else { continue };
        let members = RequirementsChange::given(demands);
        // One that is empty is named itself, which says that it demands nothing.
        paths.extend(if members.is_empty() {
            vec![name.to_owned()]
        } else {
            members.iter().map(|part| format!("{name}.{part}")).collect()
        });
    }
    paths
}

fn check_whose(policy: &v1::RemovalPolicy, realm: &Realm, faults: &mut Violations) {
    if !policy.tenant.is_empty() && policy.tenant != realm.org() {
        faults.add(
            "policy.tenant",
            "conflict",
            format!("is `{}`, and the key is of `{}`", cut(&policy.tenant), realm.org()),
        );
    }
    if policy.mode != v1::Mode::Unspecified as i32 && policy.mode() != realm.mode().into() {
        let given = policy.mode().as_str_name().trim_start_matches("MODE_").to_ascii_lowercase();
        faults.add(
            "policy.mode",
            "conflict",
            format!("is `{given}`, and the key is of `{}`", realm.mode()),
        );
    }
}

/// A grace period, or the default if the change resets it; none if it could not be read. In a request whose form has faults a missing one
/// may not have been reset.
fn grace(
    message: Option<prost_types::Duration>,
    otherwise: Duration,
    field: &str,
    faults: &mut Violations,
) -> Option<Duration> {
    match message {
        None => Form::check_current().is_ok().then_some(otherwise),
        given => within(
            given,
            Duration::ZERO..=MAX_GRACE,
            "must be from 0s to 7776000s (90 days)",
            field,
            faults,
        ),
    }
}

fn retention(
    message: Option<prost_types::Duration>,
    field: &str,
    faults: &mut Violations,
) -> Option<Duration> {
    within(
        message,
        MIN_RETENTION..=MAX_RETENTION,
        "must be from 86400s (a day) to 3153600000s (100 years)",
        field,
        faults,
    )
}

/// Domains, in order and each once.
fn domains(given: &[String], field: &str, faults: &mut Violations) -> Vec<String> {
    if given.len() > MAX_DOMAINS {
        MAIL_DOMAINS.reached();
        faults.add(field, "too_many", format!("must be at most {MAX_DOMAINS}"));
        return Vec::new();
    }
    let mut domains = BTreeSet::new();
    for (n, domain) in given.iter().enumerate() {
        if is_domain(domain) {
            domains.insert(domain.to_ascii_lowercase());
        } else {
            faults.add(
                format!("{field}[{n}]"),
                "invalid",
                "must be the name of a domain, such as `example.com`",
            );
        }
    }
    domains.into_iter().collect()
}

/// Returns whether this is the name of a domain (RFC 1123, section 2.1); one in another script is written as DNS has it (`xn--…`).
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        let characters = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (1..=63).contains(&label.len())
            && characters
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.contains('.') && text.split('.').all(is_label)
}

fn within(
    message: Option<prost_types::Duration>,
    bounds: std::ops::RangeInclusive<Duration>,
    description: &str,
    field: &str,
    faults: &mut Violations,
) -> Option<Duration> {
    convert::check_duration(message?, bounds, description, field, faults)
}

impl Policy {
    /// As a message: the policy of this realm.
    pub fn to_proto(&self, realm: &Realm) -> v1::RemovalPolicy {
        let message = |duration: Duration| prost_types::Duration::try_from(duration).ok();
        v1::RemovalPolicy {
            default_grace_period: message(self.default_grace),
            max_grace_period: message(self.max_grace),
            tombstone_retention: self.tombstone_retention.and_then(message),
            request_retention: self.request_retention.and_then(message),
            mail_domains: self.mail_domains.clone(),
            filter_retention: self.filter_retention.and_then(message),
            min_grace_period: message(self.min_grace),
            hard_delete: self.hard_delete.clone().into(),
            soft_delete: self.soft_delete.clone().into(),
            tenant: realm.org().to_owned(),
            mode: v1::Mode::from(realm.mode()).into(),
        }
    }

    /// In the form of its event: durations as everywhere in JSON, and no unset members.
    pub fn to_event(&self) -> Json {
        let mut members = json!({"mail_domains": self.mail_domains});
        let durations = [
            ("default_grace_period", Some(self.default_grace)),
            ("max_grace_period", Some(self.max_grace)),
            ("min_grace_period", Some(self.min_grace)),
            ("tombstone_retention", self.tombstone_retention),
            ("request_retention", self.request_retention),
            ("filter_retention", self.filter_retention),
        ];
        for (name, duration) in
            durations.into_iter().filter_map(|(name, duration)| Some((name, duration?)))
        {
            members[name] = convert::std_duration_text(duration).into();
        }
        for (name, demands) in [
            ("hard_delete", self.hard_delete.to_event()),
            ("soft_delete", self.soft_delete.to_event()),
        ] {
            if let Some(demands) = demands {
                members[name] = demands;
            }
        }
        members
    }
}

#[cfg(test)]
mod tests;
