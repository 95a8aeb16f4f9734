//! `offboard bulk-delete`: a file for each thing that can be done.
//!
//! The exit codes are for scripts: 0 done, 1 an error, 2 wrong usage, 3 done but some entities could not be deleted, 4 the task was stopped,
//! 5 the task failed, 130 left by Ctrl-C.

mod connect;
mod control;
mod list;
mod preview;
mod progress;
mod selection;
mod show;
mod start;
mod watch;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::cli::ask::USAGE;
use crate::cli::output::note;
use crate::error::Result;
use crate::proto::v1;

/// Arguments of `bulk-delete`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Show what a task would delete; changes nothing
    Preview(Box<preview::Arguments>),
    /// Show what a task would delete, ask, start it and watch it: ends as `watch` does
    Start(Box<start::Arguments>),
    /// Watch a task until it is over: ends with 0 when all is deleted, 3 when some entities could not be, 4 when it was stopped, 5 when it failed, and 130 on Ctrl-C, which does not stop the task
    Watch(watch::Arguments),
    /// Pause a task at the end of the chunk in hand
    Pause(control::Arguments),
    /// Let a paused task continue where it stopped
    Resume(control::Arguments),
    /// Stop a task for good at the end of the chunk in hand; deleted entities stay deleted
    Stop(control::Arguments),
    /// List the tasks that are not over, or those that ended within the last 30 days
    List(list::Arguments),
    /// List what a task could not delete, each with its reason
    Failures(list::FailuresArguments),
    /// List what a task excludes
    Excludes(list::ExcludesArguments),
}

/// Some entities could not be deleted.
const WITH_ERRORS: u8 = 3;
/// The task was stopped.
const CANCELED: u8 = 4;
/// The task ended by an error of its own.
const FAILED: u8 = 5;
/// The exit code of shells for Ctrl-C.
const DETACHED: u8 = 130;

/// Does what the command line asks for.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.action {
        Action::Preview(arguments) => preview::run(*arguments).await,
        Action::Start(arguments) => start::run(*arguments).await,
        Action::Watch(arguments) => watch::run(arguments).await,
        Action::Pause(arguments) => control::run(arguments, control::TaskAction::Pause).await,
        Action::Resume(arguments) => control::run(arguments, control::TaskAction::Resume).await,
        Action::Stop(arguments) => control::run(arguments, control::TaskAction::Stop).await,
        Action::List(arguments) => list::run(arguments).await,
        Action::Failures(arguments) => list::failures(arguments).await,
        Action::Excludes(arguments) => list::excludes(arguments).await,
    }
}

/// Returns the faults of a command line that the argument parser let through.
fn wrong_usage(fault: &str) -> ExitCode {
    note(format_args!("offboard: {fault}"));
    USAGE.into()
}

/// The exit code of a task that is over; none while it is not.
fn outcome(task: &v1::Task) -> Option<ExitCode> {
    match task.status() {
        v1::TaskStatus::Completed => Some(ExitCode::SUCCESS),
        v1::TaskStatus::CompletedWithErrors => Some(WITH_ERRORS.into()),
        v1::TaskStatus::Canceled => Some(CANCELED.into()),
        v1::TaskStatus::Failed => Some(FAILED.into()),
        _ => None,
    }
}
