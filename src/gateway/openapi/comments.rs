//! The comments of proto files, as text for the published document.

use std::collections::HashMap;

use prost_reflect::{DescriptorPool, FileDescriptor};

use crate::error::Code;

/// The comments of all items of a descriptor set.
#[derive(Debug)]
pub struct Comments(HashMap<String, HashMap<Vec<i32>, String>>);

impl Comments {
    /// Reads the comments of every file that has its source information with it.
    pub fn of(pool: &DescriptorPool) -> Comments {
        let files = pool.files().map(|file| {
            let locations = file
                .file_descriptor_proto()
                .source_code_info
                .iter()
                .flat_map(|info| &info.location);
            let comments = locations.filter_map(|location| {
                let comment = location
                    .leading_comments
                    .as_deref()
                    .or(location.trailing_comments.as_deref())?;
                Some((location.path.clone(), flowing(comment)))
            });
            (file.name().to_owned(), comments.collect())
        });
        Comments(files.collect())
    }

    /// The comment of the item at this path of a file, in Markdown; empty if it has none.
    pub fn get(&self, file: &FileDescriptor, path: &[i32]) -> &str {
        self.0.get(file.name()).and_then(|comments| comments.get(path)).map_or("", String::as_str)
    }
}

/// A comment as text that flows: one line a paragraph, or an item of a list.
fn flowing(comment: &str) -> String {
    let mut text = String::with_capacity(comment.len());
    for line in comment.lines().map(str::trim) {
        let breaks = line.is_empty() || line.starts_with("- ");
        if !text.is_empty() && !text.ends_with('\n') {
            text.push_str(if breaks { "\n" } else { " " });
        }
        text.push_str(line);
        if line.is_empty() && !text.is_empty() {
            text.push('\n');
        }
    }
    text.trim().to_owned()
}

/// The first sentence, without its full stop.
pub fn summary(comment: &str) -> &str {
    let paragraph = comment.lines().next().unwrap_or_default();
    let sentence = paragraph.find(". ").map_or(paragraph, |end| &paragraph[..end]);
    sentence.trim_end_matches('.')
}

/// The codes of the catalogue that a comment names behind `Errors:`, but not those of single items of a batch.
pub fn codes(comment: &str) -> Vec<Code> {
    let Some((_, named)) = comment.split_once("Errors:") else { return Vec::new() };
    let named = named.split("\n\n").next().unwrap_or_default();
    let named = named.split("Of an item:").next().unwrap_or_default();
    let quoted = named.split('`').skip(1).step_by(2);
    quoted.filter_map(|word| Code::ALL.iter().copied().find(|code| code.name() == word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_flows_in_paragraphs_and_lists() {
        let comment = " Makes one\n thing.\n\n These:\n - one\n - two\n   of it\n";
        assert_eq!(flowing(comment), "Makes one thing.\n\nThese:\n- one\n- two of it");
    }

    #[test]
    fn the_summary_is_the_first_sentence() {
        assert_eq!(summary("Makes `a.b` one. Or two.\n\nMore."), "Makes `a.b` one");
        assert_eq!(summary("Lists."), "Lists");
        assert_eq!(summary(""), "");
    }

    #[test]
    fn the_codes_are_those_that_the_call_as_a_whole_fails_with() {
        let comment = "Does `internal` things.\n\nErrors: `not_found` with `id`; `state_conflict`. Of an item: `already_exists`.\n\n`unavailable`.";
        assert_eq!(codes(comment), [Code::NotFound, Code::StateConflict]);
        assert_eq!(codes("No errors."), []);
    }
}
