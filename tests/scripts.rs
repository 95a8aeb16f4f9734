//! The scripts that people run, as far as they can be run without doing anything.

#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

fn run(script: &str, arguments: &[&str]) -> (bool, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Output { status, stdout, stderr } = Command::new(root.join("script").join(script))
        .args(arguments)
        .current_dir("/")
        .output()
        .unwrap();
    (status.success(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
}

#[test]
fn help_lists_every_script_with_a_sentence() {
    let (done, listed) = run("help", &[]);
    assert!(done, "{listed}");
    let scripts = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("script"))
        .unwrap()
        .map(|entry| entry.unwrap());
    let mut scripts: Vec<_> = scripts
        .filter(|entry| {
            entry.file_type().unwrap().is_file()
                && entry.metadata().unwrap().permissions().mode() & 0o111 != 0
        })
        .map(|entry| format!("script/{}", entry.file_name().to_str().unwrap()))
        .collect();
    scripts.sort();
    let names: Vec<_> = listed.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, scripts);
    for line in listed.lines() {
        assert!(line.ends_with('.') && line.split_whitespace().count() > 4, "{line}");
    }
}

#[test]
fn a_dry_run_of_a_release_shows_what_it_would_edit_and_edits_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = [
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "docs/openapi.json",
        "helm/offboard/Chart.yaml",
    ];
    let read = || files.map(|file| fs::read_to_string(root.join(file)).unwrap());
    let before = read();
    let (done, shown) = run("release", &["--dry-run", "99.0.0"]);
    assert!(done, "{shown}");
    assert_eq!(read(), before);
    for file in files {
        assert!(shown.contains(&format!("+++ {file}\n")), "{file} is not edited: {shown}");
    }
    for line in [
        "+version = \"99.0.0\"",
        "+    \"version\": \"99.0.0\",",
        "+appVersion: \"99.0.0\"",
        "+## [99.0.0] - ",
    ] {
        assert!(shown.contains(&format!("\n{line}")), "{line}: {shown}");
    }
    assert_eq!(shown.matches("\n+version = ").count(), 2, "of this crate alone: {shown}");
}

#[test]
fn a_version_that_cannot_be_released_is_refused() {
    for (version, why) in [
        ("1.2", "not a version"),
        ("01.0.0", "not a version"),
        ("0.0.1", "comes before"),
        ("x", "not a version"),
    ] {
        let (done, reported) = run("release", &["--dry-run", version]);
        assert!(!done && reported.contains(why), "{version}: {reported}");
    }
}
