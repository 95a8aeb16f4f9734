//! `offboard bulk-delete start`.

use std::process::ExitCode;

use clap::Args;

use super::connect::Connection;
use super::selection::Selection;
use super::show::{entities, is_live, json, realm_of};
use super::watch::{self, Answered};
use super::{preview, wrong_usage};
use crate::cli::output::{note, print};
use crate::cli::refusal::refused;
use crate::cli::{ask, not_blank};
use crate::entity::unknown_value::EXCLUDES_NOTHING;
use crate::error::{Code, Error, Result};
use crate::limits::thousands;
use crate::proto::v1;

/// Arguments of `start`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,

    #[command(flatten)]
    selection: Selection,

    /// Start without asking
    #[arg(long)]
    yes: bool,

    /// Start without counting the selection first
    #[arg(long, requires = "yes")]
    no_preview: bool,

    /// End as soon as the task has started, and do not watch it
    #[arg(long)]
    detach: bool,

    /// Where a mail is sent when the task is over: an address, or `true` for that of the key
    #[arg(long, value_name = "ADDRESS", value_parser = not_blank)]
    send_mail: Option<String>,

    /// Key by which the service recognises the call when it is sent again, so that it starts one task however often it is sent; only with
    /// --no-preview, since the preview may differ each time
    #[arg(long, value_name = "KEY", requires = "no_preview", value_parser = not_blank)]
    idempotency_key: Option<String>,

    /// Print JSON: the task whenever it has moved, one a line
    #[arg(long)]
    json: bool,
}

/// Starts a task, after its preview, and watches it.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    if !arguments.yes && !ask::can_ask() {
        return Ok(ask::unasked("starts the task"));
    }
    if let Some(fault) = arguments.selection.misuse() {
        return Ok(wrong_usage(fault));
    }
    let hard = arguments.selection.is_hard();
    let mut request = arguments.selection.request()?;
    let service = arguments.connection.open().await?;
    if !arguments.no_preview {
        let previewed = preview::ask(&service, &request).await?;
        if !arguments.json {
            note(preview::describe(&previewed, hard));
        }
        let (realm, is_live) = (realm_of(&previewed), is_live(&previewed));
        let preview = previewed.preview.unwrap_or_default();
        if let Some(refusal) = foreseen(&preview, &request) {
            return Err(refusal);
        }
        let question = Question { count: preview.deletable_count, realm, hard, is_live };
        if !arguments.yes && !question.is_confirmed()? {
            note("Nothing was started.");
            return Ok(ExitCode::FAILURE);
        }
        // The deletion has the selection of the preview.
        request.expected_count = Some(preview.matched_count);
        if request.preview_token.is_empty() {
            request.preview_token = preview.token;
        }
    }
    request.send_mail = arguments.send_mail.unwrap_or_default();
    let mut call = service.request(request);
    if let Some(key) = &arguments.idempotency_key {
        let key = key.parse().map_err(|_| {
            Error::invalid("--idempotency-key", "invalid", "must be printable ASCII")
        })?;
        call.metadata_mut().insert("idempotency-key", key);
    }
    let task = service.client.clone().start_bulk_delete(call).await.map_err(refused)?.into_inner();
    if arguments.no_preview && !arguments.json {
        task.warnings.iter().for_each(|warning| note(format_args!("Warning: {}", warning.message)));
    }
    if arguments.detach {
        print(if arguments.json { json(&task)? } else { task.id })?;
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.json {
        note(format_args!("Task {} of {} has started.", task.id, self::realm_of(&task)));
    }
    watch::follow(&arguments.connection, &task.id, arguments.json, Answered::Before).await
}

/// The reasons to refuse a start, as the preview warns: nobody is asked to confirm it.
fn foreseen(
    preview: &v1::BulkDeletePreview,
    request: &v1::StartBulkDeleteRequest,
) -> Option<Error> {
    let is_hard = request.mode() == v1::DeleteMode::Hard;
    let refusals = [
        (Code::UnknownAttribute, !request.allow_unknown_attributes(), "--allow-unknown-attributes"),
        (Code::SuspectValue, is_hard && !request.allow_suspect_values(), "--allow-suspect-values"),
        (Code::UnknownValue, is_hard && !request.allow_suspect_values(), "--allow-suspect-values"),
        (
            Code::MissingExcludes,
            is_hard && !request.allow_missing_excludes(),
            "--allow-missing-excludes",
        ),
    ];
    // A type that nothing has and that is asked for selects nothing, which does no harm.
    let is_refused = |warning: &v1::Warning, code: Code| {
        code != Code::UnknownValue || EXCLUDES_NOTHING.iter().any(|so| warning.message.contains(so))
    };
    let (code, flag, warning) =
        refusals.into_iter().filter(|(_, refused, _)| *refused).find_map(|(code, _, flag)| {
            let warning = preview
                .warnings
                .iter()
                .find(|warning| warning.code == code.name() && is_refused(warning, code))?;
            Some((code, flag, warning))
        })?;
    let stop = if warning.message.ends_with('?') { "" } else { "." };
    Some(Error::new(
        code,
        format!(
            "Nothing was started: {}{stop} {flag} starts the task all the same.",
            warning.message
        ),
    ))
}

/// Above this many entities nobody confirms by habit.
const TYPED_ABOVE: i64 = 100;

/// The question at the terminal.
struct Question {
    /// How many entities would be deleted.
    count: i64,
    /// Those of whom.
    realm: String,
    hard: bool,
    is_live: bool,
}

impl Question {
    fn is_confirmed(&self) -> Result<bool> {
        Ok(self.is_yes(&ask::ask(&self.text())?))
    }

    /// Returns whether their number must be typed, which nobody does by habit: where there are many, and where they are of the mode live
    /// and would be erased.
    fn is_typed(&self) -> bool {
        self.count > TYPED_ABOVE || self.hard && self.is_live
    }

    fn text(&self) -> String {
        let Question { count, realm, hard, .. } = self;
        let (what, for_good) = if *hard { ("Erase", " for good") } else { ("Delete", "") };
        let how = if self.is_typed() {
            format!("Type their number, {}, to continue:", thousands(*count))
        } else {
            "[y/N]".to_owned()
        };
        format!("{what} {} of {realm}{for_good}? {how} ", entities(*count))
    }

    /// Returns whether an answer confirms it: the number where that must be typed, or else a word.
    fn is_yes(&self, answer: &str) -> bool {
        if self.is_typed() {
            return answer.replace([',', ' ', '_'], "") == self.count.to_string();
        }
        ask::is_yes(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_whose_entities_go_and_many_are_confirmed_by_their_number() {
        let question = |count, hard, is_live| {
            let realm = if is_live { "acme (live)" } else { "acme (test)" };
            Question { count, realm: realm.to_owned(), hard, is_live }
        };
        assert_eq!(question(2, false, true).text(), "Delete 2 entities of acme (live)? [y/N] ");
        assert_eq!(
            question(2, true, false).text(),
            "Erase 2 entities of acme (test) for good? [y/N] "
        );
        assert_eq!(
            question(1968, false, false).text(),
            "Delete 1,968 entities of acme (test)? Type their number, 1,968, to continue: "
        );
        let few = question(2, true, true);
        assert_eq!(
            few.text(),
            "Erase 2 entities of acme (live) for good? Type their number, 2, to continue: "
        );
        assert!(
            few.is_yes("2") && !few.is_yes("y") && !few.is_yes("yes") && !few.is_yes(""),
            "a habit erases nothing that is live"
        );
        let yes = |answer, count| question(count, false, true).is_yes(answer);
        assert!(yes("Y", 2) && yes("yes", 100) && yes("1968", 1968) && yes("1,968", 1968));
        assert!(
            !yes("y", 101)
                && !yes("yes", 1968)
                && !yes("1967", 1968)
                && !yes("", 2)
                && !yes("", 1968)
                && !yes("2", 2)
        );
    }

    #[test]
    fn what_would_be_refused_is_not_asked_for() {
        let warning = |code: &str| v1::Warning {
            code: code.to_owned(),
            message: "no entity has the attribute `Naem`".to_owned(),
        };
        let preview = |code: &str| v1::BulkDeletePreview {
            warnings: vec![warning(code)],
            ..Default::default()
        };
        let hard =
            v1::StartBulkDeleteRequest { mode: v1::DeleteMode::Hard.into(), ..Default::default() };
        let reported = foreseen(&preview("unknown_attribute"), &hard).unwrap();
        assert!(
            reported.message().contains("`Naem`")
                && reported.message().contains("--allow-unknown-attributes"),
            "{reported}"
        );
        assert!(
            foreseen(&preview("missing_excludes"), &hard).is_some()
                && foreseen(&preview("suspect_value"), &hard).is_some()
        );
        assert!(
            foreseen(&preview("suspect_value"), &v1::StartBulkDeleteRequest::default()).is_none()
        );
        assert!(
            foreseen(&preview("missing_excludes"), &v1::StartBulkDeleteRequest::default())
                .is_none()
        );
        let of_value = |message: &str| v1::BulkDeletePreview {
            warnings: vec![v1::Warning {
                code: "unknown_value".to_owned(),
                message: message.to_owned(),
            }],
            ..Default::default()
        };
        let denied =
            of_value("no entity has `pypii` at `attributes.Registry`, so it excludes nothing");
        assert!(foreseen(&denied, &hard).unwrap().message().contains("--allow-suspect-values"));
        assert!(foreseen(&of_value("no entity has the type `compny`"), &hard).is_none());
        let allowed = v1::StartBulkDeleteRequest { allow_unknown_attributes: Some(true), ..hard };
        assert!(
            foreseen(&preview("unknown_attribute"), &allowed).is_none()
                && foreseen(&preview("missing_uris"), &allowed).is_none()
        );
    }
}
