use super::*;

fn now() -> DateTime<Utc> {
    "2026-11-01T10:00:00Z".parse().unwrap()
}

fn timestamp(text: &str) -> Option<prost_types::Timestamp> {
    let moment: DateTime<Utc> = text.parse().unwrap();
    Some(crate::proto::convert::timestamp(moment))
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn faults<T: std::fmt::Debug>(checked: Result<T>) -> Vec<String> {
    let error = checked.unwrap_err();
    error.violations().iter().map(|fault| fault.field.clone()).collect()
}

fn fields() -> KeyFields {
    KeyFields {
        name: "etl".to_owned(),
        email: Some("a@example.com".to_owned()),
        scopes: strings(&["entities:read", "later"]),
        allowed: vec!["10.0.0.0/8".parse().unwrap()],
        expires_at: Some(now()),
        api_version: None,
    }
}

fn masked(paths: &[&str]) -> v1::UpdateKeyRequest {
    v1::UpdateKeyRequest {
        key_id: Uuid::nil().to_string(),
        update_mask: Some(prost_types::FieldMask { paths: strings(paths) }),
        ..Default::default()
    }
}

#[test]
fn a_new_key_has_each_scope_and_network_once_and_the_latest_version() {
    let request = v1::CreateKeyRequest {
        scopes: strings(&["events:read", "entities:read", "events:read"]),
        allowed: strings(&["2001:db8::/32", "10.0.0.0/8", "10.0.0.0/8"]),
        expires_at: timestamp("2026-11-01T10:00:00.123456789Z"),
        ..Default::default()
    };
    let fields = KeyFields::check(request, now()).unwrap();
    assert_eq!(fields.scopes, ["entities:read", "events:read"]);
    let networks: Vec<String> = fields.allowed.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "2001:db8::/32"]);
    assert_eq!(fields.api_version, Some(ApiVersion::latest().day()));
    assert_eq!(fields.expires_at, Some("2026-11-01T10:00:00.123456Z".parse().unwrap()));
}

#[test]
fn every_fault_of_a_new_key_is_reported() {
    let request = v1::CreateKeyRequest {
        name: "x".repeat(257),
        email: Some("nobody".to_owned()),
        scopes: strings(&["entities:read", "Admin"]),
        allowed: strings(&["10.0.0.1", "10.0.0.1/8", "10.0.0.0/8"]),
        expires_at: timestamp("2026-11-01T10:00:00Z"),
        api_version: "2020-01-01".to_owned(),
    };
    let reported = faults(KeyFields::check(request, now()));
    let expected =
        ["name", "email", "scopes[1]", "allowed[0]", "allowed[1]", "expires_at", "api_version"];
    assert_eq!(reported, expected);
    assert_eq!(faults(KeyFields::check(Default::default(), now())), ["scopes"]);
}

#[test]
fn an_update_changes_what_the_mask_names_and_reports_what_is_another() {
    let request = v1::UpdateKeyRequest {
        name: Some("etl".to_owned()),
        scopes: strings(&["entities:read"]),
        ..masked(&["name", "email", "allowed", "expires_at", "expected_version"])
    };
    let (_, update) = KeyUpdate::check(request, now()).unwrap();
    let (after, changed) = update.apply(&fields());
    assert_eq!(changed, ["email", "allowed", "expires_at"]);
    let expected = KeyFields { email: None, allowed: Vec::new(), expires_at: None, ..fields() };
    assert_eq!(after, expected);
}

#[test]
fn without_a_mask_the_given_members_are_changed() {
    let request = v1::UpdateKeyRequest {
        scopes: strings(&["events:read"]),
        api_version: Some(ApiVersion::latest().to_string()),
        update_mask: None,
        ..masked(&[])
    };
    let (_, update) = KeyUpdate::check(request, now()).unwrap();
    let (after, changed) = update.apply(&fields());
    assert_eq!(changed, ["scopes", "api_version"]);
    assert_eq!(after.scopes, ["events:read"]);
    let (again, nothing) = update.apply(&after);
    assert_eq!((again, nothing), (after, Vec::new()));
}

#[test]
fn every_fault_of_an_update_is_reported() {
    assert_eq!(faults(KeyUpdate::check(masked(&[]), now())), ["update_mask"]);
    assert_eq!(faults(KeyUpdate::check(masked(&["expected_version"]), now())), ["update_mask"]);
    assert_eq!(faults(KeyUpdate::check(masked(&["secret", "id"]), now())), ["update_mask"; 2]);
    assert_eq!(faults(KeyUpdate::check(masked(&["*"]), now())), ["scopes", "api_version"]);
    let wrong = v1::UpdateKeyRequest {
        key_id: "k".to_owned(),
        expires_at: timestamp("2026-10-31T10:00:00Z"),
        ..masked(&["expires_at"])
    };
    assert_eq!(faults(KeyUpdate::check(wrong, now())), ["key_id", "expires_at"]);
}

#[test]
fn a_rotation_names_its_overlap() {
    let request = |overlap: Option<i64>| v1::RotateKeyRequest {
        key_id: Uuid::nil().to_string(),
        overlap: overlap.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        expected_version: None,
    };
    assert_eq!(faults(check_rotation(request(None))), ["overlap"]);
    assert_eq!(faults(check_rotation(request(Some(-1)))), ["overlap"]);
    assert_eq!(faults(check_rotation(request(Some(2_592_001)))), ["overlap"]);
    assert_eq!(check_rotation(request(Some(0))).unwrap().1, Duration::ZERO);
    assert_eq!(check_rotation(request(Some(2_592_000))).unwrap().1, MAX_OVERLAP);
    assert_eq!(faults(check_rotation(Default::default())), ["key_id", "overlap"]);
}

#[test]
fn a_revoked_key_changes_no_more_and_an_expired_one_is_not_rotated() {
    let allowed = |state: KeyState| {
        KeyAction::ALL.iter().map(|action| state.check(*action).is_ok()).collect::<Vec<_>>()
    };
    assert_eq!(allowed(KeyState::Active), [true, true, true]);
    assert_eq!(allowed(KeyState::Expired), [true, false, true]);
    assert_eq!(allowed(KeyState::Revoked), [false, false, false]);
    let refused = KeyState::Expired.check(KeyAction::Rotate).unwrap_err();
    assert_eq!(refused.member("allowed_transitions"), Some(r#"["update","revoke"]"#));
}
