//! The result of each line of a batch.

use crate::access::{Caller, shows_nothing};
use crate::entity::new_entity::NewEntity;
use crate::entity::queries;
use crate::error::{Error, Form, cut_at, with_others};
use crate::limits::faults::{MAX_DESCRIPTION_CHARACTERS, MAX_FIELD_CHARACTERS};
use crate::proto::v1;

use super::source::ImportLine;

/// Why a line has failed that the database did not take.
const REFUSED: &str = "The database refused to store the entity; the service's log says why.";

/// The results of a batch; also the record of one under an idempotency key.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Results {
    #[prost(message, repeated, tag = "1")]
    pub results: Vec<v1::ImportResult>,
}

shows_nothing!(Results);

impl Results {
    /// Without the content of the batch itself, which is most of it: a caller who sends it again sends that too.
    pub fn packed(mut self, named: &[(i64, String)]) -> Self {
        for (result, (_, name)) in self.results.iter_mut().zip(named) {
            result.line = 0;
            if result.entity_id == *name {
                result.entity_id.clear();
            }
        }
        self
    }

    /// The results of the batch that has these lines, and names these entities.
    pub fn unpacked(mut self, named: Vec<(i64, String)>) -> Self {
        for (result, (line, name)) in self.results.iter_mut().zip(named) {
            result.line = line;
            if result.entity_id.is_empty() {
                result.entity_id = name;
            }
        }
        self
    }
}

/// The lines of a batch: those that are valid, and the results of those that are not, with their places.
pub struct Checked {
    /// The lines of the entities, and their places.
    lines: Vec<(usize, i64)>,
    pub batch: Vec<NewEntity>,
    refused: Vec<(usize, v1::ImportResult)>,
}

impl Checked {
    pub fn of(lines: Vec<ImportLine>, caller: &Caller) -> Self {
        let mut checked = Checked {
            lines: Vec::with_capacity(lines.len()),
            batch: Vec::with_capacity(lines.len()),
            refused: Vec::new(),
        };
        for (place, line) in lines.into_iter().enumerate() {
            let (number, entity_id) = (line.number, line.entity_id().to_owned());
            match check(line, caller) {
                Ok(new) => {
                    checked.lines.push((place, number));
                    checked.batch.push(new);
                }
                Err(error) => checked.refused.push((place, refused(number, entity_id, &error))),
            }
        }
        checked
    }

    pub fn results(&self, outcome: &queries::Inserted) -> Results {
        let mut results = self.refused.clone();
        for (index, ((place, line), new)) in self.lines.iter().zip(&self.batch).enumerate() {
            let result = if outcome.refused.contains(&index) {
                let error = v1::JobError {
                    code: "refused_by_database".to_owned(),
                    message: REFUSED.to_owned(),
                };
                v1::ImportResult {
                    line: *line,
                    entity_id: new.id.clone(),
                    outcome: v1::ImportOutcome::Failed.into(),
                    error: Some(error),
                    ..Default::default()
                }
            } else if outcome.no_portfolio.contains(&index) {
                let portfolio_id = new.portfolio_id.as_deref().unwrap_or_default();
                refused(*line, new.id.clone(), &Error::not_found("portfolio", portfolio_id))
            } else {
                let existing = outcome.existing.contains(&index);
                let (soft_deleted, different) =
                    (outcome.soft_deleted.contains(&index), outcome.different.contains(&index));
                let outcome =
                    if existing { v1::ImportOutcome::Existing } else { v1::ImportOutcome::Created };
                v1::ImportResult {
                    line: *line,
                    entity_id: new.id.clone(),
                    outcome: outcome.into(),
                    error: None,
                    soft_deleted,
                    different,
                }
            };
            results.push((*place, result));
        }
        results.sort_unstable_by_key(|(place, _)| *place);
        Results { results: results.into_iter().map(|(_, result)| result).collect() }
    }
}

/// The entity of a line, or all that is wrong with it.
fn check(line: ImportLine, caller: &Caller) -> Result<NewEntity, Error> {
    let ImportLine { message, faults, .. } = line;
    let message =
        message.entity.ok_or_else(|| Error::invalid("entity", "required", "must be given"));
    let new = message.and_then(|message| NewEntity::check(message, "entity"));
    let new = new.and_then(|new| new.check_scope(caller).map(|()| new));
    if faults.is_empty() {
        return new;
    }
    Err(with_others(faults, new.err()))
}

/// The faults of a line whose form has faults, which are returned elsewhere.
pub fn fault_of(line: ImportLine, caller: &Caller) -> Error {
    check(line, caller).err().unwrap_or_else(Form::refusal)
}

fn refused(line: i64, entity_id: String, error: &Error) -> v1::ImportResult {
    // As where one entity is created: a line of a file is that entity.
    let within = |field: &str| field.strip_prefix("entity.").unwrap_or(field).to_owned();
    let faults: Vec<_> = error
        .violations()
        .iter()
        .map(|fault| format!("{}: {}", within(&fault.field), fault.description))
        .collect();
    let message = if faults.is_empty() {
        error.message().to_owned()
    } else {
        cut_at(faults.join("; "), MAX_DESCRIPTION_CHARACTERS)
    };
    let entity_id = cut_at(entity_id, MAX_FIELD_CHARACTERS);
    let error = v1::JobError { code: error.code().name().to_owned(), message };
    v1::ImportResult {
        line,
        entity_id,
        outcome: v1::ImportOutcome::Failed.into(),
        error: Some(error),
        ..Default::default()
    }
}
