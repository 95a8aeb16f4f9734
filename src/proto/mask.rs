//! Update masks (AIP-134): which fields of a message an update is of.

use prost_types::FieldMask;

use crate::error::{Violations, cut};

/// The path that means all fields: members that are not given are reset.
const ALL: &str = "*";

/// Which fields an update is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    paths: Vec<String>,
    is_all: bool,
}

impl Mask {
    /// Reads a mask; an empty one is of the `given` members. An unknown path is a fault, with `reported` after the path in its description.
    pub fn check(
        mask: Option<FieldMask>,
        given: impl IntoIterator<Item = String>,
        is_known: impl Fn(&str) -> bool,
        reported: &str,
        faults: &mut Violations,
    ) -> Mask {
        let paths = mask.map(|mask| mask.paths).unwrap_or_default();
        if paths.is_empty() {
            return Mask { paths: given.into_iter().collect(), is_all: false };
        }
        for unknown in paths.iter().filter(|path| *path != ALL && !is_known(path)) {
            faults.add("update_mask", "unknown_field", format!("`{}` {reported}", cut(unknown)));
        }
        Mask { is_all: paths.iter().any(|path| path == ALL), paths }
    }

    /// Returns whether it is of all fields, so that the given value replaces the old one.
    pub fn is_all(&self) -> bool {
        self.is_all
    }

    /// Returns whether it is of this field as a whole.
    pub fn names(&self, field: &str) -> bool {
        self.is_all || self.paths.iter().any(|path| path == field)
    }

    /// The fields of the message in this field that it names; none for the whole message.
    pub fn within<'m>(&'m self, field: &'m str) -> impl Iterator<Item = Option<&'m str>> {
        let whole = self.is_all.then_some(None);
        whole.into_iter().chain(self.paths.iter().filter_map(move |path| part_of(path, field)))
    }

    /// Returns whether it is of any of these fields, or of a part of one.
    pub fn is_of_any(&self, fields: &[&str]) -> bool {
        self.is_all
            || self
                .paths
                .iter()
                .any(|path| fields.iter().any(|field| part_of(path, field).is_some()))
    }
}

/// The field of the message in a field that a path names: none if it is the whole; nothing at all if the path is of another field.
pub fn part_of<'p>(path: &'p str, field: &str) -> Option<Option<&'p str>> {
    match path.strip_prefix(field)? {
        "" => Some(None),
        rest => rest.strip_prefix('.').map(Some),
    }
}

/// Names for people, each in its marks.
pub fn spelled_out(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(paths: &[&str], faults: &mut Violations) -> Mask {
        let mask = FieldMask { paths: paths.iter().map(ToString::to_string).collect() };
        let is_known = |path: &str| path == "name" || part_of(path, "rules").is_some();
        Mask::check(
            Some(mask),
            ["name".to_owned(), "rules.most".to_owned()],
            is_known,
            "is not a field",
            faults,
        )
    }

    #[test]
    fn an_empty_mask_is_of_what_is_given_and_a_star_of_all() {
        let mut faults = Violations::new();
        let given = mask(&[], &mut faults);
        assert!(given.names("name") && !given.names("rules") && !given.is_all());
        assert_eq!(given.within("rules").collect::<Vec<_>>(), [Some("most")]);
        let all = mask(&["*"], &mut faults);
        assert!(all.names("name") && all.names("rules") && all.is_all());
        assert_eq!(all.within("rules").collect::<Vec<_>>(), [None]);
        let named = mask(&["rules", "rules.least"], &mut faults);
        assert_eq!(named.within("rules").collect::<Vec<_>>(), [None, Some("least")]);
        assert!(named.is_of_any(&["name", "rules"]) && !named.is_of_any(&["name", "rule"]));
        assert!(faults.as_slice().is_empty());
    }

    #[test]
    fn every_path_that_is_not_known_is_a_fault() {
        let mut faults = Violations::new();
        mask(&["nam", "name", "rulesmost"], &mut faults);
        let reported: Vec<_> = faults
            .as_slice()
            .iter()
            .map(|fault| (fault.code.as_ref(), fault.description.as_str()))
            .collect();
        assert_eq!(
            reported,
            [
                ("unknown_field", "`nam` is not a field"),
                ("unknown_field", "`rulesmost` is not a field")
            ]
        );
    }
}
