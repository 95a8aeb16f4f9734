use super::*;
use crate::db::Mode;

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn change(policy: v1::RemovalPolicy, paths: &[&str]) -> Result<Change> {
    let mask =
        prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() };
    Change::check(Some(policy), Some(mask), &Realm::from_row(1, "acme".to_owned(), Mode::Live))
}

#[test]
fn only_what_is_named_changes_and_what_is_not_set_goes_back() {
    let was = Policy {
        default_grace: Duration::from_secs(60),
        tombstone_retention: Some(MIN_RETENTION),
        ..Policy::default()
    };
    let message = v1::RemovalPolicy {
        max_grace_period: seconds(3600),
        default_grace_period: seconds(7),
        ..Default::default()
    };
    let after =
        change(message, &["max_grace_period", "tombstone_retention"]).unwrap().apply(was).unwrap();
    assert_eq!(after.default_grace.as_secs(), 60);
    assert_eq!((after.max_grace.as_secs(), after.tombstone_retention), (3600, None));
}

#[test]
fn an_event_reports_what_is_set_as_everywhere_in_json() {
    let policy = Policy {
        tombstone_retention: Some(MIN_RETENTION),
        hard_delete: Requirements {
            preview_within: Some(Duration::from_millis(1500)),
            ..Requirements::default()
        },
        ..Policy::default()
    };
    let reported = json!({
        "default_grace_period": "0s", "max_grace_period": "7776000s", "min_grace_period": "0s", "tombstone_retention": "86400s", "mail_domains": [],
        "hard_delete": {"preview_within": "1.500s"},
    });
    assert_eq!(policy.to_event(), reported);
}

#[test]
fn every_fault_of_a_change_is_reported() {
    let message = v1::RemovalPolicy {
        default_grace_period: seconds(-1),
        request_retention: seconds(5),
        ..Default::default()
    };
    let error =
        change(message, &["default_grace_period", "request_retention", "nonsense"]).unwrap_err();
    let fields: Vec<_> = error.violations().iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(fields, ["update_mask", "policy.default_grace_period", "policy.request_retention"]);
    assert!(change(v1::RemovalPolicy::default(), &[]).is_err());
}

#[test]
fn without_a_mask_what_is_given_changes_and_by_a_star_all_does() {
    let demands = |most, count| {
        Some(v1::BulkDeleteRequirements {
            max_objects: most,
            expected_count: count,
            ..Default::default()
        })
    };
    let was = change(
        v1::RemovalPolicy {
            max_grace_period: seconds(3600),
            hard_delete: demands(Some(5), true),
            ..Default::default()
        },
        &["max_grace_period", "hard_delete"],
    );
    let was = was.unwrap().apply(Policy::default()).unwrap();
    let message = || v1::RemovalPolicy {
        default_grace_period: seconds(7),
        hard_delete: demands(Some(9), false),
        ..Default::default()
    };
    let given = change(message(), &[]).unwrap().apply(was.clone()).unwrap();
    assert_eq!((given.default_grace.as_secs(), given.max_grace.as_secs()), (7, 3600));
    assert_eq!((given.hard_delete.max_objects, given.hard_delete.expected_count), (Some(9), true));
    let all = change(message(), &["*"]).unwrap().apply(was).unwrap();
    assert_eq!(
        (all.default_grace.as_secs(), all.max_grace),
        (7, MAX_GRACE),
        "what is not given is reset"
    );
    assert_eq!((all.hard_delete.max_objects, all.hard_delete.expected_count), (Some(9), false));
}

#[test]
fn a_policy_of_another_realm_is_not_taken_for_this_one() {
    let of = |tenant: &str, mode: v1::Mode| v1::RemovalPolicy {
        tenant: tenant.to_owned(),
        mode: mode.into(),
        ..Default::default()
    };
    for own in [of("", v1::Mode::Unspecified), of("acme", v1::Mode::Live)] {
        assert!(change(own, &["mail_domains"]).is_ok());
    }
    let error = change(of("other", v1::Mode::Test), &["mail_domains"]).unwrap_err();
    let reported: Vec<_> = error
        .violations()
        .iter()
        .map(|fault| format!("{} {}", fault.field, fault.description))
        .collect();
    assert_eq!(
        reported,
        [
            "policy.tenant is `other`, and the key is of `acme`",
            "policy.mode is `test`, and the key is of `live`"
        ]
    );
}

#[test]
fn domains_are_names_in_lower_case_and_each_once() {
    let set = |domains: &[&str]| {
        let mail_domains = domains.iter().map(|domain| (*domain).to_owned()).collect();
        change(v1::RemovalPolicy { mail_domains, ..Default::default() }, &["mail_domains"])
    };
    let after = set(&["b.example", "A.Example", "a.example", "x-1.b.example"])
        .unwrap()
        .apply(Policy::default())
        .unwrap();
    assert_eq!(after.mail_domains, ["a.example", "b.example", "x-1.b.example"]);
    for bad in [
        "",
        "localhost",
        "*.example.com",
        "jo@example.com",
        "a..b",
        "-a.b",
        "a-.b",
        "a.b.",
        "ä.example",
        "a b.c",
        &format!("{}.example", "x".repeat(64)),
    ] {
        assert_eq!(
            set(&["a.example", bad]).unwrap_err().violations()[0].field,
            "policy.mail_domains[1]",
            "{bad}"
        );
    }
    assert_eq!(set(&["a.example"; 101]).unwrap_err().violations()[0].code, "too_many");
}

#[test]
fn the_minimum_is_never_longer_than_the_default() {
    let least = |more: v1::RemovalPolicy, paths: &[&str]| {
        change(more, paths).unwrap().apply(Policy::default())
    };
    let message = v1::RemovalPolicy {
        min_grace_period: seconds(30),
        default_grace_period: seconds(30),
        ..Default::default()
    };
    assert_eq!(
        least(message.clone(), &["min_grace_period"]).unwrap_err().violations()[0].field,
        "policy.min_grace_period"
    );
    let both = least(message, &["min_grace_period", "default_grace_period"]).unwrap();
    let shorter =
        change(v1::RemovalPolicy::default(), &["default_grace_period"]).unwrap().apply(both);
    assert_eq!(shorter.unwrap_err().violations()[0].field, "policy.default_grace_period");
}

#[test]
fn the_default_is_never_longer_than_the_maximum() {
    let message = v1::RemovalPolicy { max_grace_period: seconds(30), ..Default::default() };
    let shorter = change(message, &["max_grace_period"]).unwrap();
    let was = Policy { default_grace: Duration::from_secs(60), ..Policy::default() };
    assert_eq!(shorter.apply(was).unwrap_err().violations()[0].field, "policy.max_grace_period");
    assert!(shorter.apply(Policy::default()).is_ok());
}
