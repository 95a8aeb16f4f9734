//! The access policy of a realm: where its callers may come from. Pure.

use chrono::{DateTime, Utc};
use ipnet::IpNet;

use crate::access::addresses::check_networks;
use crate::access::{Answer, Caller, Subject};
use crate::db::Realm;
use crate::error::{Code, Error, Result, Violations};
use crate::proto::mask::{Mask, spelled_out};
use crate::proto::{convert, v1};

/// The version of a policy that was never changed.
pub const FIRST_VERSION: i64 = 1;

/// The policy of a realm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessPolicy {
    /// Where every key of the realm may be used from; anywhere if empty.
    pub allowed: Vec<IpNet>,
    /// Steps with every change.
    pub version: i64,
    /// When it was last changed.
    pub updated_at: Option<DateTime<Utc>>,
}

impl Default for AccessPolicy {
    fn default() -> Self {
        AccessPolicy { allowed: Vec::new(), version: FIRST_VERSION, updated_at: None }
    }
}

impl AccessPolicy {
    /// Fails with `state_conflict` if the policy is at another version than the caller expects.
    pub fn expect(&self, version: Option<i64>) -> Result<()> {
        let Some(expected) = version.filter(|expected| *expected != self.version) else {
            return Ok(());
        };
        let message = format!("The access policy is at version {}, not {expected}.", self.version);
        Err(Error::new(Code::StateConflict, message)
            .with("expected_version", expected)
            .with("current_version", self.version))
    }

    /// The policy as a message.
    pub fn to_proto(&self, realm: &Realm) -> v1::AccessPolicy {
        v1::AccessPolicy {
            allowed: self.allowed.iter().map(ToString::to_string).collect(),
            version: self.version,
            updated_at: self.updated_at.map(convert::timestamp),
            tenant: realm.org().to_owned(),
            mode: v1::Mode::from(realm.mode()).into(),
        }
    }
}

impl Answer for v1::AccessPolicy {
    fn shows(&self) -> Vec<Subject> {
        Vec::new()
    }

    // Who may change it may read it.
    fn withhold(&mut self, _caller: &Caller) {}
}

/// A valid change of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyChange {
    /// The networks from now on.
    pub allowed: Vec<IpNet>,
    /// The version that the policy must be at.
    pub expected_version: Option<i64>,
    /// True if the caller may be excluded.
    pub allow_lockout: bool,
}

/// The members that a change may be of.
const UPDATABLE: [&str; 1] = ["allowed"];
/// The members of the body of a `PATCH` that are not fields to change.
const BESIDE: [&str; 2] = ["expected_version", "allow_lockout"];

impl PolicyChange {
    /// Checks a request. Every fault is reported.
    pub fn check(request: v1::UpdateAccessPolicyRequest) -> Result<PolicyChange> {
        let mut faults = Violations::new();
        let given = (!request.allowed.is_empty()).then(|| UPDATABLE[0].to_owned());
        let is_known = |path: &str| UPDATABLE.contains(&path) || BESIDE.contains(&path);
        let reported = format!("is not among {}", spelled_out(&UPDATABLE));
        let mask = Mask::check(request.update_mask, given, is_known, &reported, &mut faults);
        let allowed = check_networks(&request.allowed, &mut faults);
        let is_mask_faulty = faults.as_slice().iter().any(|fault| fault.field == "update_mask");
        if !is_mask_faulty && !mask.is_of_any(&UPDATABLE) {
            faults.add(
                "update_mask",
                "required",
                "`allowed` must be given; an empty list, named by the mask, is from anywhere",
            );
        }
        faults.check()?;
        let v1::UpdateAccessPolicyRequest { expected_version, allow_lockout, .. } = request;
        Ok(PolicyChange { allowed, expected_version, allow_lockout })
    }
}

#[cfg(test)]
mod tests {
    use prost_types::FieldMask;

    use super::*;

    fn request(allowed: &[&str], mask: Option<&[&str]>) -> v1::UpdateAccessPolicyRequest {
        v1::UpdateAccessPolicyRequest {
            allowed: allowed.iter().map(|text| (*text).to_owned()).collect(),
            update_mask: mask.map(|paths| FieldMask {
                paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_list_is_replaced_or_emptied_by_name_and_nothing_is_no_change() {
        let allowed = |request| PolicyChange::check(request).map(|change| change.allowed.len());
        assert_eq!(allowed(request(&["10.0.0.0/8"], None)).unwrap(), 1);
        assert_eq!(allowed(request(&[], Some(&["allowed"]))).unwrap(), 0);
        assert_eq!(allowed(request(&[], Some(&["*"]))).unwrap(), 0);
        let fields = |request| {
            let refused = PolicyChange::check(request).unwrap_err();
            refused.violations().iter().map(|fault| fault.field.clone()).collect::<Vec<_>>()
        };
        assert_eq!(fields(request(&[], None)), ["update_mask"]);
        assert_eq!(fields(request(&[], Some(&["allow_lockout"]))), ["update_mask"]);
        assert_eq!(fields(request(&["x"], Some(&["denied"]))), ["update_mask", "allowed[0]"]);
    }

    #[test]
    fn a_policy_that_was_never_changed_has_a_version_to_expect() {
        let policy = AccessPolicy::default();
        assert!(policy.expect(None).is_ok() && policy.expect(Some(FIRST_VERSION)).is_ok());
        let refused = policy.expect(Some(2)).unwrap_err();
        assert_eq!(
            (refused.code(), refused.member("current_version")),
            (Code::StateConflict, Some("1"))
        );
    }
}
