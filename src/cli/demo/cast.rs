//! The entities of the file that the operations use.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use super::Surprise;
use crate::filter::{Datum, Filter, Record};
use crate::proto::object::{Struct, View};

/// The portfolio of most operations.
pub const FUND: &str = "fund-i";
/// The other one.
pub const OTHER_FUND: &str = "fund-ii";

/// The selection of the hard bulk delete.
pub const CLOUDS: &str =
    "equals(attributes.Registry, pypi) and in(attributes.Keyword, azure, aws, alibabacloud)";
/// The selection of the soft bulk delete.
pub const SOFT_TYPE: &str = "NodePackage";

#[derive(Deserialize)]
struct PackageLine {
    entity_id: String,
    r#type: String,
    #[serde(default)]
    state: Option<String>,
    #[serde(default, deserialize_with = "object")]
    attributes: Struct,
    #[serde(default)]
    dependents: Vec<Value>,
}

fn object<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Struct, D::Error> {
    Value::deserialize(deserializer).map(|value| Struct::from_json(&value))
}

impl PackageLine {
    fn is_onboarding(&self) -> bool {
        self.state.as_deref() == Some("onboarding")
    }

    fn is_soft_type(&self) -> bool {
        self.r#type.rsplit('/').next() == Some(SOFT_TYPE)
    }
}

/// The entities of the operations, and the expected results.
pub struct Cast {
    /// Every id of the file.
    pub all: Vec<String>,
    /// How many dependents they have.
    pub dependents: usize,
    /// Is detached from its portfolio.
    pub detached: String,
    /// Is in the other portfolio.
    pub elsewhere: String,
    /// Still onboarding.
    pub onboarding: String,
    /// Is offboarded.
    pub offboarded: String,
    /// Is nearly offboarded.
    pub canceled: String,
    /// Are selected by [`CLOUDS`] and on its exclude list.
    pub excluded: [String; 2],
    /// Is selected by [`CLOUDS`] and a member of a portfolio.
    pub bulk_deleted: String,
    /// Those that [`CLOUDS`] selects.
    pub clouds: Selected,
    /// Those of [`SOFT_TYPE`].
    pub soft: Selected,
}

/// The entities of a selection.
#[derive(Default)]
pub struct Selected {
    /// All of them.
    pub ids: BTreeSet<String>,
    /// Those that are still onboarding, and cannot be deleted.
    pub onboarding: BTreeSet<String>,
}

impl Selected {
    fn add(&mut self, line: &PackageLine) {
        self.ids.insert(line.entity_id.clone());
        if line.is_onboarding() {
            self.onboarding.insert(line.entity_id.clone());
        }
    }
}

/// The members of a line before its entity exists.
impl Record for PackageLine {
    fn datum(&self, property: &str) -> Datum<'_> {
        match property {
            "type" => Datum::Text(&self.r#type),
            "uri" => Datum::Text(&self.entity_id),
            "attributes" => Datum::Json(self.attributes.view()),
            _ => Datum::None,
        }
    }
}

impl Cast {
    /// Chooses from the lines of a file.
    pub fn choose(file: &[u8]) -> Result<Cast, Surprise> {
        let lines = file.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        let lines = lines.map(serde_json::from_slice::<PackageLine>).collect::<Result<Vec<_>, _>>();
        let lines = lines.map_err(|error| {
            Surprise::new(format!("the file of entities cannot be read: {error}"))
        })?;
        let filter: Filter = CLOUDS
            .parse()
            .map_err(|error| Surprise::new(format!("the filter cannot be read: {error}")))?;

        let (mut clouds, mut soft) = (Selected::default(), Selected::default());
        let (mut cloud_parts, mut other_parts, mut onboarding) = (Vec::new(), Vec::new(), None);
        for line in &lines {
            let is_cloud = filter.matches(line);
            if is_cloud {
                clouds.add(line);
            }
            if line.is_soft_type() {
                soft.add(line);
            }
            match (line.is_onboarding(), is_cloud, line.is_soft_type()) {
                (true, false, false) => {
                    onboarding = onboarding.or_else(|| Some(line.entity_id.clone()))
                }
                (false, true, false) => cloud_parts.push(line),
                (false, false, false) if line.dependents.len() > 2 => other_parts.push(line),
                _ => {}
            }
        }
        let (Some(onboarding), Some([a, b, c]), Some([d, e, f, g])) =
            (onboarding, best(cloud_parts), best(other_parts))
        else {
            return Err(Surprise::new(
                "the file contains too few entities of the kinds that the operations need; see demo/entities.ndjson",
            ));
        };
        Ok(Cast {
            all: lines.iter().map(|line| line.entity_id.clone()).collect(),
            dependents: lines.iter().map(|line| line.dependents.len()).sum(),
            detached: d,
            elsewhere: e,
            onboarding,
            offboarded: f,
            canceled: g,
            excluded: [a, b],
            bulk_deleted: c,
            clouds,
            soft,
        })
    }
}

/// The first `N` by their rank.
fn best<const N: usize>(mut lines: Vec<&PackageLine>) -> Option<[String; N]> {
    let rank = |line: &PackageLine| match line.attributes.view().get("Rank") {
        Some(View::Number(rank)) => rank.text().parse().unwrap_or(u64::MAX),
        _ => u64::MAX,
    };
    lines.sort_by_key(|line| rank(line));
    let ids: Vec<_> = lines.iter().take(N).map(|line| line.entity_id.clone()).collect();
    ids.try_into().ok()
}
