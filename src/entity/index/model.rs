//! A declared attribute, and how its index is built and dropped. Pure.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::Value as Json;

use crate::db::text_enum;
use crate::error::{Code, Error, Result, Violations};
use crate::filter::{self, AttributePath};
use crate::limits::requests::{INDEXED_VALUES, MAX_INDEXED_VALUES};
use crate::proto::object::Object;

/// The most attributes that a realm may have declared.
pub const MAX_INDEXES: i64 = 16;
const MAX_PATH_CHARACTERS: usize = 256;

text_enum! {
    /// The state of an index. A dropped one has no row, and so no state.
    pub enum IndexState {
        /// The entities that were there before are being read.
        Building = "building",
        /// In use.
        Ready = "ready",
        /// It could not be built.
        Failed = "failed",
        /// Used no more, and being removed.
        Dropping = "dropping",
    }
}

text_enum! {
    /// The change of an index.
    pub enum IndexAction {
        /// The build is done.
        Complete = "complete",
        /// The build cannot be done.
        Fail = "fail",
        /// It is not wanted any more.
        Drop = "drop",
    }
}

impl IndexState {
    /// The state that an action leads to, or `invalid_state_transition`.
    pub fn transition(self, action: IndexAction) -> Result<IndexState> {
        self.after(action).ok_or_else(|| {
            let allowed = self.allowed().into_iter().map(IndexAction::as_str);
            Error::new(
                Code::InvalidStateTransition,
                format!("An index that is {self} cannot {action}."),
            )
            .with("current_state", self)
            .with("attempted_transition", action)
            .with_choices("allowed_transitions", allowed)
        })
    }

    /// The actions that are possible.
    pub fn allowed(self) -> Vec<IndexAction> {
        IndexAction::ALL.iter().copied().filter(|action| self.after(*action).is_some()).collect()
    }

    fn after(self, action: IndexAction) -> Option<IndexState> {
        match (self, action) {
            (IndexState::Building, IndexAction::Complete) => Some(IndexState::Ready),
            (IndexState::Building, IndexAction::Fail) => Some(IndexState::Failed),
            (IndexState::Building | IndexState::Ready | IndexState::Failed, IndexAction::Drop) => {
                Some(IndexState::Dropping)
            }
            _ => None,
        }
    }
}

text_enum! {
    /// The actions of the worker for an index.
    pub enum Phase {
        /// Waits for transactions that may write entities without knowing of the index.
        Waiting = "waiting",
        /// Writes the rows of the existing entities.
        Walking = "walking",
        /// Waits for transactions that changed or removed entities during the walk.
        Settling = "settling",
        /// Deletes the rows of changed or removed entities.
        Checking = "checking",
        /// Waits for transactions that may still use the index, or write to it.
        Retiring = "retiring",
        /// Removes the rows.
        Clearing = "clearing",
    }
}

impl Phase {
    /// The next phase; none after the last.
    pub fn next(self) -> Option<Phase> {
        match self {
            Phase::Waiting => Some(Phase::Walking),
            Phase::Walking => Some(Phase::Settling),
            Phase::Settling => Some(Phase::Checking),
            Phase::Retiring => Some(Phase::Clearing),
            Phase::Checking | Phase::Clearing => None,
        }
    }
}

/// The index of an attribute, as responses show it.
#[derive(Clone, Debug)]
pub struct AttributeIndex {
    /// The canonical path of the attribute.
    pub attribute: String,
    /// Where it is in its life.
    pub state: IndexState,
    /// How many entities the build has read.
    pub entities_done: i64,
    /// How many there were when it began.
    pub entities_total: Option<i64>,
    /// How many rows it has written.
    pub rows_written: i64,
    /// When it was declared.
    pub created_at: DateTime<Utc>,
    /// When its build was done.
    pub ready_at: Option<DateTime<Utc>>,
    /// Why it could not be built: a code and a sentence.
    pub error: Option<(String, String)>,
}

/// An attribute for which rows are to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its canonical path.
    pub attribute: String,
    /// The names that lead to its values.
    pub path: Vec<String>,
}

impl Declared {
    /// Reads what [`super::queries::DECLARED`] returns: an object of paths by attribute, or nothing.
    pub fn read(object: Option<Json>) -> Vec<Declared> {
        let Some(Json::Object(members)) = object else { return Vec::new() };
        let names = |path: Json| {
            path.as_array()
                .into_iter()
                .flatten()
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect()
        };
        members
            .into_iter()
            .map(|(attribute, path)| Declared { attribute, path: names(path) })
            .collect()
    }

    /// The keys of the values that an entity has.
    pub fn keys(&self, attributes: Object<'_>) -> BTreeSet<String> {
        let keys = filter::keys(attributes, &self.path, MAX_INDEXED_VALUES);
        if keys.iter().any(|key| filter::is_many(key)) {
            INDEXED_VALUES.reached();
        }
        keys
    }
}

/// Rows of indexes.
#[derive(Debug, Default)]
pub struct Rows<'a> {
    /// Of which index.
    pub attributes: Vec<&'a str>,
    /// The keys of the values.
    pub values: Vec<String>,
    /// The entities that have them.
    pub entities: Vec<&'a str>,
}

impl<'a> Rows<'a> {
    /// Adds the rows of an entity.
    pub fn extend(
        &mut self,
        attribute: &'a str,
        entity: &'a str,
        keys: impl IntoIterator<Item = String>,
    ) {
        for key in keys {
            self.attributes.push(attribute);
            self.values.push(key);
            self.entities.push(entity);
        }
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// Reads the path of an attribute.
pub fn check_attribute(text: &str, faults: &mut Violations) -> Option<AttributePath> {
    if text.is_empty() {
        faults.add("attribute", "required", "must be given");
        return None;
    }
    if text.chars().count() > MAX_PATH_CHARACTERS || text.contains('\0') {
        faults.add("attribute", "too_long", "must be at most 256 characters, none of them U+0000");
        return None;
    }
    match AttributePath::parse(text) {
        // Quotes that the canonical spelling needs count.
        Ok(path) if path.canonical.chars().count() <= MAX_PATH_CHARACTERS => Some(path),
        _ => {
            let description = "must be the path of an attribute as a filter has it behind `attributes.`, such as `LastName` or `Address.City`";
            faults.add("attribute", "invalid", description);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::object::Struct;
    use serde_json::json;

    #[test]
    fn an_index_is_built_once_and_dropped_once() {
        use IndexState::{Building, Dropping, Failed, Ready};
        let after = |state: IndexState| {
            IndexAction::ALL.iter().map(|action| state.transition(*action).ok()).collect::<Vec<_>>()
        };
        assert_eq!(after(Building), [Some(Ready), Some(Failed), Some(Dropping)]);
        assert_eq!(after(Ready), [None, None, Some(Dropping)]);
        assert_eq!(after(Failed), [None, None, Some(Dropping)]);
        assert_eq!(after(Dropping), [None, None, None]);
        let refused = Dropping.transition(IndexAction::Drop).unwrap_err();
        assert_eq!(
            (refused.code(), refused.member("allowed_transitions")),
            (Code::InvalidStateTransition, Some("[]"))
        );
    }

    #[test]
    fn what_is_declared_is_read_with_its_paths() {
        let declared =
            Declared::read(Some(json!({"Address.City": ["Address", "City"], "n": ["n"]})));
        assert_eq!(declared.len(), 2);
        assert_eq!(declared[0].path, ["Address", "City"]);
        let keys = declared[0].keys(
            Struct::from_json(
                &json!({"Address": [{"City": "Köln"}, {"City": ["BONN", "Bonn"]}, {"Zip": 1}]}),
            )
            .view(),
        );
        assert_eq!(keys.into_iter().collect::<Vec<_>>(), ["tbonn", "tköln"]);
        assert_eq!(Declared::read(None), []);
    }

    #[test]
    fn a_path_that_is_none_is_refused() {
        let faults = |text: &str| {
            let mut faults = Violations::new();
            let path = check_attribute(text, &mut faults);
            (
                path.map(|path| path.canonical),
                faults.as_slice().first().map(|fault| fault.code.clone()),
            )
        };
        assert_eq!(faults("'Address'.City"), (Some("Address.City".to_owned()), None));
        assert_eq!(faults(""), (None, Some("required".into())));
        assert_eq!(faults("a b"), (None, Some("invalid".into())));
        assert_eq!(faults(&"a".repeat(257)), (None, Some("too_long".into())));
        assert_eq!(faults(&"a b".repeat(85)), (None, Some("invalid".into())));
        assert_eq!(
            faults(&format!("'{}'", "a ".repeat(127))),
            (Some(format!("'{}'", "a ".repeat(127))), None)
        );
    }
}
