//! Proof that a preview was seen: the token of a dry run, and the check that its selection is still the same. Pure.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::bulk_delete::model::{NewTask, Target};
use crate::db::{Realm, Seal, binding};
use crate::error::{Code, Error, Result};
use crate::proto::v1;
use crate::task::model::{DeleteMode, entities};

/// The entities of a selection at a moment, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// How many entities.
    pub matched: i64,
    /// Which, and what would become of each: all of it in one number, which is another as soon as one of them is another.
    pub digest: i64,
    /// When, by the clock of the database.
    pub at: DateTime<Utc>,
}

impl Shown {
    /// The token, which opens for the same request alone.
    pub fn token(&self, seal: &Seal, realm: &Realm, task: &NewTask) -> Result<String> {
        seal.close(&bound_to(realm, task), self)
    }

    /// Reads a token; none if it is not of a dry run of the same request.
    pub fn of_token(seal: &Seal, realm: &Realm, task: &NewTask, token: &str) -> Option<Shown> {
        seal.open(&bound_to(realm, task), token)
    }

    /// Fails with `count_mismatch` unless the selection contains the same entities now.
    pub fn compare(&self, now: &Shown) -> Result<()> {
        if (self.matched, self.digest) == (now.matched, now.digest) {
            return Ok(());
        }
        let message = match now.matched - self.matched {
            0 => "The selection contains other entities than the preview showed, or others of them can be deleted. Nothing was started.".to_owned(),
            _ => format!("The selection contains {}, and the preview showed {}. Nothing was started.", entities(now.matched), self.matched),
        };
        Err(Error::new(Code::CountMismatch, message)
            .with("matched_count", now.matched)
            .with("expected_count", self.matched))
    }
}

/// The request of a task without its guards, whichever way it was written.
fn bound_to(realm: &Realm, task: &NewTask) -> Vec<u8> {
    let (filter, entity_type, uri_list) = match &task.target {
        Target::Matching { filter, entity_type } => {
            (filter.as_ref().map(|(text, _)| text.clone()), entity_type.clone(), Vec::new())
        }
        Target::Listed(ids) => (None, None, ids.clone()),
    };
    let objects =
        v1::Selection { filter, entity_type, uri_list, exclude_list: task.excluded.clone() };
    let mode = match task.mode {
        DeleteMode::Soft => v1::DeleteMode::Soft,
        DeleteMode::Hard => v1::DeleteMode::Hard,
    };
    let spec = v1::BulkDeleteSpec {
        objects: Some(objects),
        match_all: task.matches_all(),
        ..Default::default()
    };
    binding(
        realm,
        "BulkDeletePreview",
        &v1::StartBulkDeleteRequest { mode: mode.into(), spec: Some(spec), ..Default::default() },
    )
}
