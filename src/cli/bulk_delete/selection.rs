//! The selection and the guards of a bulk delete, from the command line.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};

use crate::cli::not_blank;
use crate::error::{Error, Result};
use crate::proto::{duration, v1};

/// The selection and the guards of a bulk delete.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("selection").required(true).multiple(true).args(["filter", "entity_type", "uris", "uris_from", "all"]))]
pub struct Selection {
    /// Filter expression; with --type, both must match
    #[arg(long, value_name = "EXPRESSION", value_parser = not_blank, conflicts_with_all = ["uris", "uris_from", "all"])]
    filter: Option<String>,

    /// Type, in full or by its last part
    #[arg(long = "type", id = "entity_type", value_name = "TYPE", value_parser = not_blank, conflicts_with_all = ["uris", "uris_from", "all"])]
    entity_type: Option<String>,

    /// URI (entities/ID) or id; repeat it for more
    #[arg(long = "uri", id = "uris", value_name = "URI", value_parser = not_blank, conflicts_with = "all")]
    uris: Vec<String>,

    /// File of URIs or ids, one a line; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    uris_from: Option<PathBuf>,

    /// Everything, except the excluded ones
    #[arg(long)]
    all: bool,

    /// URI or id that is excluded whatever selects it; repeat it for more
    #[arg(long = "exclude", value_name = "URI", value_parser = not_blank)]
    excluded: Vec<String>,

    /// File of URIs or ids that are excluded, one a line; `-` is standard input
    #[arg(long, value_name = "FILE")]
    exclude_from: Option<PathBuf>,

    /// Erase, so that nothing but tombstones is left; without it entities are marked as deleted
    #[arg(long)]
    hard: bool,

    /// Refuse to start unless exactly so many entities are selected
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i64).range(0..))]
    expected_count: Option<i64>,

    /// Refuse to start if more entities than this are selected
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i64).range(0..))]
    max_objects: Option<i64>,

    /// Entities that the task may take up a second [default: no limit]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..))]
    max_objects_per_second: Option<i32>,

    /// Refuse to start unless a consistency check that began within this time, such as `1h`, has left nothing that should not be, and none has since
    #[arg(long, value_name = "DURATION", value_parser = report_age)]
    clean_report_within: Option<prost_types::Duration>,

    /// Take the filter as it is, though it names attributes that no entity has
    #[arg(long)]
    allow_unknown_attributes: bool,

    /// Start a hard delete though its filter compares otherwise than it looks, such as with numbers where there are texts, or denies values that nothing has
    #[arg(long)]
    allow_suspect_values: bool,

    /// Start a hard delete although excluded ids are of no entity
    #[arg(long)]
    allow_missing_excludes: bool,

    /// Token of a preview of the same selection; refuse to start if it has other entities now [default: that of the preview that is shown]
    #[arg(long, value_name = "TOKEN", value_parser = not_blank)]
    preview_token: Option<String>,
}

impl Selection {
    /// True for a hard delete.
    pub fn is_hard(&self) -> bool {
        self.hard
    }

    /// Returns the faults of the flags in combination.
    pub fn misuse(&self) -> Option<&'static str> {
        let files = [&self.uris_from, &self.exclude_from];
        let is_read_twice = files.iter().all(|file| file.as_deref().is_some_and(is_standard_input));
        is_read_twice.then_some("--uris-from and --exclude-from cannot both read standard input")
    }

    /// The request, with files read.
    pub fn request(self) -> Result<v1::StartBulkDeleteRequest> {
        let mut uri_list = self.uris;
        uri_list.extend(
            self.uris_from
                .as_deref()
                .map(|file| read(file, "--uris-from"))
                .transpose()?
                .unwrap_or_default(),
        );
        let mut exclude_list = self.excluded;
        exclude_list.extend(
            self.exclude_from
                .as_deref()
                .map(|file| read(file, "--exclude-from"))
                .transpose()?
                .unwrap_or_default(),
        );
        let objects = v1::Selection {
            filter: self.filter,
            entity_type: self.entity_type,
            uri_list,
            exclude_list,
        };
        Ok(v1::StartBulkDeleteRequest {
            mode: if self.hard { v1::DeleteMode::Hard } else { v1::DeleteMode::Soft }.into(),
            spec: Some(v1::BulkDeleteSpec {
                objects: Some(objects),
                match_all: self.all,
                ..Default::default()
            }),
            expected_count: self.expected_count,
            max_objects: self.max_objects,
            max_objects_per_second: self.max_objects_per_second,
            clean_report_within: self.clean_report_within,
            allow_unknown_attributes: self.allow_unknown_attributes.then_some(true),
            allow_suspect_values: self.allow_suspect_values.then_some(true),
            allow_missing_excludes: self.allow_missing_excludes.then_some(true),
            preview_token: self.preview_token.unwrap_or_default(),
            ..Default::default()
        })
    }
}

/// The oldest check that a start may go by, in seconds.
const OLDEST_REPORT: i64 = 2_592_000;

/// A duration as people write it; a number alone is of seconds.
fn report_age(text: &str) -> std::result::Result<prost_types::Duration, String> {
    let seconds = text.parse::<u32>().ok().map(|seconds| (i64::from(seconds), 0));
    let (seconds, nanos) = seconds
        .or_else(|| duration::read(text))
        .filter(|given| ((0, 1)..=(OLDEST_REPORT, 0)).contains(given))
        .ok_or_else(|| {
            format!("must be a duration of at most {OLDEST_REPORT}s, such as `1h`, `90s` or `P1D`")
        })?;
    Ok(prost_types::Duration { seconds, nanos })
}

fn is_standard_input(file: &Path) -> bool {
    file.as_os_str() == "-" || file == Path::new("/dev/stdin")
}

/// The lines of a file that are not blank. A file without any is refused: it would select or exclude nothing, which nobody means who names
/// a file.
fn read(file: &Path, flag: &str) -> Result<Vec<String>> {
    let text = if is_standard_input(file) {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.map_err(|error| {
        Error::invalid(flag, "invalid", format!("{} cannot be read: {error}", file.display()))
    })?;
    let lines: Vec<_> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if lines.is_empty() {
        return Err(Error::invalid(flag, "invalid", "names a file without a URI"));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::report_age;

    #[test]
    fn the_age_of_a_report_is_a_duration_or_seconds() {
        for (text, seconds) in
            [("60", 60), ("1h", 3600), ("90s", 90), ("P1D", 86_400), ("2592000", 2_592_000)]
        {
            assert_eq!(report_age(text).map(|age| age.seconds), Ok(seconds), "{text}");
        }
        for bad in ["0", "0s", "-1h", "31d", "2592000.1s", "1x", "", "1.5"] {
            assert!(report_age(bad).unwrap_err().contains("such as `1h`"), "{bad}");
        }
    }
}
