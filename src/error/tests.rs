use super::*;
use crate::limits::faults::MAX_FAULT_BYTES;

#[test]
fn every_code_is_found_by_its_reason() {
    for code in Code::ALL {
        assert_eq!(Code::from_reason(&code.reason()), Some(*code));
        assert!(!code.description().is_empty());
    }
}

#[test]
fn a_filter_that_cannot_be_read_is_one_fault_among_others() {
    let filter = || Error::invalid_filter("filter", "wanted `(`\n^", ["wanted `(`".to_owned()]);
    assert_eq!(
        Violations::new().check_with::<()>(Err(filter())).expect_err("a fault").code(),
        Code::InvalidFilter
    );
    let faults = || {
        let mut faults = Violations::new();
        faults.add("page_size", "out_of_range", "must be from 1 to 100");
        faults
    };
    let both = faults().check_with::<()>(Err(filter())).expect_err("two faults");
    let reported: Vec<_> =
        both.violations().iter().map(|fault| (fault.field.as_str(), fault.code.as_ref())).collect();
    assert_eq!(
        (both.code(), reported),
        (Code::ValidationFailed, vec![("page_size", "out_of_range"), ("filter", "invalid_filter")])
    );
    assert_eq!(
        faults().check_with::<()>(Err(Error::internal("x"))).expect_err("a failure").code(),
        Code::Internal
    );
    let moved = filter().moved_to("spec.objects.filter");
    assert_eq!(
        (moved.violations()[0].field.as_str(), moved.member("field")),
        ("spec.objects.filter", Some("spec.objects.filter"))
    );
    assert_eq!(Violations::new().check_with(Ok(7)).ok(), Some(7));
}

#[test]
fn a_status_carries_the_details_and_not_the_cause() {
    let error = Error::unavailable("The database is unreachable.")
        .caused_by("connection to /run/secret refused");
    let status = tonic::Status::from(error);
    let details = status.get_error_details();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert_eq!(details.error_info().map(|info| info.reason.as_str()), Some("UNAVAILABLE"));
    assert_eq!(
        details.retry_info().and_then(|info| info.retry_delay),
        Some(Duration::from_secs(1))
    );
    assert!(!format!("{status:?}").contains("secret"));
}

#[test]
fn what_a_failure_repeats_of_a_request_is_cut() {
    let long = "x".repeat(5_000);
    assert_eq!(
        Error::new(Code::InvalidFilter, "").with_list("expected", [""; 0]).member("expected"),
        None,
        "what is empty says nothing"
    );
    let missing =
        Error::not_found("task", &long).with("other", &long).with_list("expected", [&long, "`,`"]);
    assert!(missing.message().len() < 256, "{missing}");
    let status = tonic::Status::from(missing);
    assert!(status.details().len() < 1024, "{}", status.details().len());
    let list = status
        .get_error_details()
        .error_info()
        .map(|info| info.metadata["expected"].clone())
        .unwrap_or_default();
    assert_eq!(serde_json::from_str::<Vec<String>>(&list).expect("a JSON array")[1], "`,`");
    assert!(
        Error::new(Code::AlreadyExists, format!("The id `{long}` is taken.")).message().len()
            < 1100
    );
}

#[test]
fn what_is_reported_of_faults_stays_small_and_says_how_many_there_were() {
    let mut violations = Violations::new();
    for n in 0..100_000 {
        violations.add(format!("{n}{}", "ä".repeat(2_000)), "invalid", "é".repeat(2_000));
    }
    let first = violations.as_slice()[0].clone();
    assert_eq!((first.field.chars().count(), first.description.chars().count()), (257, 1025));
    assert!(first.field.ends_with('…') && first.description.ends_with('…'));
    let error = Error::validation(violations);
    assert_eq!(
        (error.message(), error.member(FAULT_COUNT)),
        ("The request has 100000 faults.", Some("100000"))
    );
    let mut others = Violations::new();
    others.add("a", "invalid", "is wrong");
    others.append(&error);
    let status = tonic::Status::from(Error::validation(others));
    assert!(status.details().len() < 2 * MAX_FAULT_BYTES, "{}", status.details().len());
    let reported = status.get_details_bad_request().expect("a bad request").field_violations;
    let last = reported.last().expect("one");
    assert_eq!(
        last.description,
        format!(
            "there are {} more faults, which do not fit into the response",
            100_002 - reported.len()
        )
    );
}

#[test]
fn an_answer_stays_small_whatever_its_request_held() {
    let long = "x".repeat(1_000_000);
    let errors = [
        Error::not_found("entity", &long),
        Error::new(Code::InvalidFilter, long.clone())
            .with("position", 1)
            .with_list("expected", vec![long.clone(); 100]),
        Error::invalid(long.clone(), "invalid", long.clone()),
    ];
    for error in errors {
        let status = tonic::Status::from(error);
        assert!(
            status.details().len() + status.message().len() < 16 << 10,
            "{}",
            status.details().len()
        );
    }
    assert_eq!(
        (cut_at("äö".to_owned(), 2), cut_at("äöü".to_owned(), 2)),
        ("äö".to_owned(), "äö…".to_owned())
    );
}

#[test]
fn all_faults_are_reported_at_once() {
    let mut violations = Violations::new();
    violations.add("name", "required", "must be given");
    violations.add("metadata", "too_long", "must be at most 64 KiB");
    let status = tonic::Status::from(violations.check().expect_err("there were faults"));
    let request = status.get_details_bad_request().expect("a bad request");
    assert_eq!(request.field_violations.len(), 2);
    assert_eq!(request.field_violations[1].reason, "TOO_LONG");
}
