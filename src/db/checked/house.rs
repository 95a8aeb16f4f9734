//! Reads the sources, so that no statement remains unchecked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// The code of every file of `src/` but these, by its path: no comments, and nothing that only tests have.
pub(super) fn sources() -> BTreeMap<String, String> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files);
    let name = |path: &Path| {
        path.strip_prefix(&root).expect("below the root").to_str().expect("a plain name").to_owned()
    };
    let own = |name: &String| name.starts_with("src/db/checked/");
    let files =
        files.iter().map(|path| (name(path), code(&fs::read_to_string(path).expect("a source"))));
    files.filter(|(name, _)| !own(name)).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The text without comments and without the first module of tests and everything after it.
fn code(text: &str) -> String {
    let tests = Regex::new(r"(?m)^#\[cfg\(test\)\]\n(pub(\([a-z]+\))? )?mod [a-z_]+ \{")
        .expect("an expression");
    let end = tests.find(text).map_or(text.len(), |found| found.start());
    text[..end]
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The captures of an expression, file by file.
pub(super) fn captured(
    sources: &BTreeMap<String, String>,
    expression: &str,
) -> Vec<(String, String)> {
    let expression = Regex::new(expression).expect("an expression");
    let found = |(file, code): (&String, &String)| {
        expression
            .captures_iter(code)
            .map(|found| (file.clone(), found[1].to_owned()))
            .collect::<Vec<_>>()
    };
    sources.iter().flat_map(found).collect()
}
