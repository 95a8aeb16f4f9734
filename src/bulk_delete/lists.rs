//! The accounts of the lists of ids that a task is started with. Pure.

use serde_json::{Value as Json, json};

use crate::error::{Code, Error, Violations};
use crate::limits::requests::{IDS_SHOWN, LISTED_IDS};
use crate::proto::v1;
use crate::task::model::DeleteMode;

/// Where the exclude list is in a request.
pub(super) const EXCLUDES: &str = "spec.objects.exclude_list";

/// Some of the ids of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// How many.
    pub count: i64,
    /// The first of them in the order of ids.
    pub first: Vec<String>,
}

/// The accounts of the lists of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// The excluded ids that are of no entity.
    pub excluded: Ids,
    /// The listed URIs that are of no entity.
    pub listed: Ids,
    /// The excluded ids of entities that are not selected anyway.
    pub unselected: Ids,
}

impl Lists {
    /// Fails with `missing_excludes` if a task of this mode may not start for them: a caller who erases relies on the exclude list.
    pub fn check(&self, mode: DeleteMode, allowed: bool) -> Result<(), Error> {
        if mode == DeleteMode::Soft || allowed || self.excluded.count == 0 {
            return Ok(());
        }
        let sentence = self.excluded.sentence("the exclude list", ", which exclude nothing");
        let mut places = Violations::new();
        places.add(EXCLUDES, Code::MissingExcludes.name(), sentence.clone());
        let message = format!("Nothing was started: {sentence}");
        Err(Error::new(Code::MissingExcludes, message)
            .with("missing_count", self.excluded.count)
            .with_list("missing", &self.excluded.first)
            .at(places))
    }

    /// The same as warnings.
    pub fn warnings(&self) -> impl Iterator<Item = v1::Warning> {
        let warning = |missing: &Ids, code: &str, list: &str, so: &str| {
            (missing.count > 0)
                .then(|| v1::Warning { code: code.to_owned(), message: missing.sentence(list, so) })
        };
        let excluded = warning(
            &self.excluded,
            Code::MissingExcludes.name(),
            "the exclude list",
            ", which exclude nothing",
        );
        excluded.into_iter().chain(warning(&self.listed, "missing_uris", "the list of URIs", ""))
    }

    /// As it is stored with a task that excludes these; none if there is nothing to show.
    pub fn to_json(&self, excluded: &[String]) -> Option<Json> {
        if excluded.is_empty() && self.listed.count == 0 {
            return None;
        }
        let shown: Vec<&String> = excluded.iter().take(LISTED_IDS as usize).collect();
        if [excluded.len() as i64, self.excluded.count, self.listed.count]
            .iter()
            .any(|count| *count > LISTED_IDS)
        {
            IDS_SHOWN.reached();
        }
        Some(json!({
            "excluded_count": excluded.len(), "excluded": shown,
            "missing_excluded_count": self.excluded.count, "missing_excluded": self.excluded.first,
            "missing_uri_count": self.listed.count, "missing_uris": self.listed.first,
            "unselected_excluded_count": self.unselected.count, "unselected_excluded": self.unselected.first,
        }))
    }
}

impl Ids {
    fn sentence(&self, list: &str, so: &str) -> String {
        let shown: Vec<_> = self.first.iter().take(3).map(|id| format!("`{id}`")).collect();
        let more = if self.count > shown.len() as i64 { ", …" } else { "" };
        let ids = if self.count == 1 { "id" } else { "ids" };
        format!("{list} has {} {ids} of no entity{so}: {}{more}", self.count, shown.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::answers::lists_to_proto;

    #[test]
    fn a_hard_delete_is_refused_for_ids_that_exclude_nothing() {
        let missing = Ids { count: 2, first: vec!["a".to_owned(), "b".to_owned()] };
        let lists = Lists { excluded: missing.clone(), ..Lists::default() };
        let refused = lists.check(DeleteMode::Hard, false).unwrap_err();
        assert_eq!(
            (refused.member("missing_count"), refused.member("missing")),
            (Some("2"), Some(r#"["a","b"]"#))
        );
        assert_eq!(refused.violations()[0].field, EXCLUDES);
        assert!(
            lists.check(DeleteMode::Hard, true).is_ok()
                && lists.check(DeleteMode::Soft, false).is_ok()
        );
        assert!(
            Lists { listed: missing, ..Lists::default() }.check(DeleteMode::Hard, false).is_ok()
        );
        assert_eq!(lists.warnings().count(), 1);
    }

    #[test]
    fn a_task_keeps_the_first_ids_and_the_counts() {
        let excluded: Vec<String> = (0..150).map(|n| format!("e{n}")).collect();
        let stored =
            Lists { listed: Ids { count: 1, first: vec!["x".to_owned()] }, ..Lists::default() }
                .to_json(&excluded)
                .unwrap();
        let reported = lists_to_proto(&stored);
        assert_eq!(
            (
                reported.excluded_count,
                reported.excluded.len(),
                reported.missing_uri_count,
                reported.missing_uris
            ),
            (150, 100, 1, vec!["x".to_owned()])
        );
        assert_eq!(Lists::default().to_json(&[]), None);
    }
}
