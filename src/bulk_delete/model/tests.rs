//! Requests for a bulk delete, and which of them are refused.

use super::*;
use crate::error::Code;
use crate::task::model::type_of;

fn check(request: v1::StartBulkDeleteRequest) -> Result<NewTask> {
    NewTask::check(request, Violations::new())
}

fn by(objects: v1::Selection) -> v1::StartBulkDeleteRequest {
    v1::StartBulkDeleteRequest {
        spec: Some(v1::BulkDeleteSpec { objects: Some(objects), ..Default::default() }),
        ..Default::default()
    }
}

#[test]
fn what_would_match_everything_is_refused() {
    for request in [Default::default(), by(Default::default())] {
        assert_eq!(check(request).unwrap_err().code(), Code::ValidationFailed);
    }
    for blank in ["", "  "] {
        let blank = v1::Selection {
            filter: Some(blank.to_owned()),
            entity_type: Some("T".to_owned()),
            ..Default::default()
        };
        assert_eq!(
            check(by(blank)).unwrap_err().code(),
            Code::InvalidFilter,
            "a blank filter beside a type is not a filter left out"
        );
    }
    let untyped = v1::Selection {
        entity_type: Some(String::new()),
        filter: Some("exists(uri)".to_owned()),
        ..Default::default()
    };
    assert_eq!(check(by(untyped)).unwrap_err().violations()[0].field, "spec.objects.entity_type");
}

#[test]
fn a_list_and_a_filter_exclude_each_other() {
    let both = v1::Selection {
        filter: Some("exists(uri)".to_owned()),
        uri_list: vec!["a".to_owned()],
        ..Default::default()
    };
    assert_eq!(check(by(both)).unwrap_err().code(), Code::ValidationFailed);
    let twice = v1::StartBulkDeleteRequest {
        entity_type: "HCP".to_owned(),
        uris: vec!["a".to_owned()],
        ..Default::default()
    };
    assert_eq!(check(twice).unwrap_err().code(), Code::ValidationFailed);
}

#[test]
fn what_is_said_in_two_ways_is_reported_with_all_else_that_is_wrong() {
    let bad = v1::Selection { uri_list: vec!["a b".to_owned()], ..Default::default() };
    let request = v1::StartBulkDeleteRequest {
        uris: vec!["c d".to_owned()],
        entity_type: "\0".to_owned(),
        mode: 9,
        ..by(bad)
    };
    let error = check(request).unwrap_err();
    let fields: Vec<_> = error.violations().iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(
        fields,
        ["mode", "entity_type", "uris[0]", "entity_type", "spec.objects.uri_list[0]"]
    );
}

#[test]
fn uris_and_ids_are_one_and_repeats_count_once() {
    let uris = ["entities/b", "a", "b", "entities/a"].map(str::to_owned).to_vec();
    let task = check(v1::StartBulkDeleteRequest { uris, ..Default::default() }).unwrap();
    assert!(matches!(task.target, Target::Listed(ids) if ids == ["a", "b"]));
    let bad = v1::StartBulkDeleteRequest {
        uris: vec!["entities/a/b".to_owned(), String::new()],
        ..Default::default()
    };
    assert_eq!(check(bad).unwrap_err().violations().len(), 2);
}

#[test]
fn a_filter_fault_reports_where_and_what_was_expected() {
    let wrong =
        v1::Selection { filter: Some("equals(nosuch, 'x')".to_owned()), ..Default::default() };
    let error = check(by(wrong)).unwrap_err();
    assert_eq!(error.code(), Code::InvalidFilter);
    assert!(error.message().contains('^'));
}

#[test]
fn a_mix_of_and_and_or_needs_parentheses() {
    let mixed = "exists(uri) AND exists(type) OR missing(type)";
    let selection =
        |filter: &str| v1::Selection { filter: Some(filter.to_owned()), ..Default::default() };
    assert_eq!(check(by(selection(mixed))).unwrap_err().code(), Code::InvalidFilter);
    assert!(check(by(selection("(exists(uri) AND exists(type)) OR missing(type)"))).is_ok());
}

#[test]
fn everything_is_selected_by_saying_so_and_by_nothing_else() {
    let all = |objects| v1::StartBulkDeleteRequest {
        spec: Some(v1::BulkDeleteSpec { match_all: true, objects, ..Default::default() }),
        ..Default::default()
    };
    let excluded =
        v1::Selection { exclude_list: vec!["entities/a".to_owned()], ..Default::default() };
    let blank = v1::Selection { filter: Some(" ".to_owned()), ..Default::default() };
    for objects in [None, Some(v1::Selection::default()), Some(excluded), Some(blank)] {
        let task = check(all(objects)).unwrap();
        assert!(task.matches_all());
        assert_eq!(
            (task.name().as_str(), task.parameters("acme")["matchAll"].as_str()),
            ("Soft Delete All Entities", "true")
        );
    }
    for objects in [
        v1::Selection { filter: Some("exists(uri)".to_owned()), ..Default::default() },
        v1::Selection { entity_type: Some("T".to_owned()), ..Default::default() },
        v1::Selection { uri_list: vec!["a".to_owned()], ..Default::default() },
    ] {
        assert_eq!(check(all(Some(objects))).unwrap_err().violations()[0].field, "spec.match_all");
    }
}

#[test]
fn every_fault_is_reported_at_once() {
    let request = v1::StartBulkDeleteRequest {
        mode: 9,
        spec: Some(v1::BulkDeleteSpec {
            objects: Some(v1::Selection {
                exclude_list: vec!["a b".to_owned()],
                ..Default::default()
            }),
            expected_count: Some(1),
            ..Default::default()
        }),
        expected_count: Some(2),
        max_objects: Some(-1),
        max_objects_per_second: Some(0),
        ..Default::default()
    };
    let mut faults = Violations::new();
    faults.add("send_mail", "invalid", "x");
    let error = NewTask::check(request, faults).unwrap_err();
    let fields: Vec<_> = error.violations().iter().map(|fault| fault.field.as_str()).collect();
    let expected = [
        "send_mail",
        "mode",
        "spec.expected_count",
        "max_objects",
        "max_objects_per_second",
        "spec.objects.filter",
        "spec.objects.exclude_list[0]",
    ];
    assert_eq!(fields, expected);
}

#[test]
fn a_task_of_one_type_is_named_by_it_however_that_is_said() {
    let full = "configuration/entityTypes/HCP";
    let name = |filter: Option<&str>, entity_type: Option<&str>| {
        let selection = v1::Selection {
            filter: filter.map(str::to_owned),
            entity_type: entity_type.map(str::to_owned),
            ..Default::default()
        };
        check(v1::StartBulkDeleteRequest { mode: v1::DeleteMode::Hard.into(), ..by(selection) })
            .unwrap()
            .name()
    };
    for (filter, entity_type) in [
        (None, Some("HCP")),
        (None, Some(full)),
        (Some("exists(attributes.Name)"), Some("HCP")),
        (Some("equals(type, 'configuration/entityTypes/HCP')"), None),
        (Some("equals(type, HCP) and startsWith(attributes.LastName, 'Ind')"), None),
        (Some("in(type, HCP)"), None),
    ] {
        let name = name(filter, entity_type);
        assert_eq!(
            name,
            format!("Hard Delete Entities By Type: {full}"),
            "{filter:?} {entity_type:?}"
        );
        assert_eq!(type_of(None, &name), full);
    }
    for filter in
        ["startsWith(attributes.LastName, 'Ind')", "in(type, 'HCP,HCO')", "not(equals(type, HCP))"]
    {
        let name = name(Some(filter), None);
        assert_eq!(
            (name.as_str(), type_of(None, &name).as_str()),
            ("Hard Delete Entities By Filter", ""),
            "{filter}"
        );
    }
    assert_eq!(type_of(Some("HCP"), "Soft Delete All Entities"), full);
}
