//! How a task is shown while it is watched: a bar on a terminal, lines elsewhere, or JSON.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::show::{self, about, entities, to_std};
use crate::cli::output::{note, print};
use crate::error::Result;
use crate::limits::thousands;
use crate::proto::v1;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows a task whenever it has moved.
pub enum Display {
    /// A line of JSON on standard output each time.
    Json,
    /// A bar on standard error, and at the end a line on standard output.
    Bar(ProgressBar),
    /// Lines on standard output: when the status changes, and now and then.
    Lines {
        /// The status that the last line showed, and when it was written.
        last: Option<(i32, Instant)>,
    },
}

impl Display {
    /// Chooses the form that suits the output: a bar on a terminal, lines elsewhere.
    pub fn new(json: bool) -> Display {
        if json {
            return Display::Json;
        }
        if !std::io::stderr().is_terminal() || !std::io::stdout().is_terminal() {
            return Display::Lines { last: None };
        }
        let style = ProgressStyle::with_template("{spinner} [{bar:30}] {pos}/{len} {msg}")
            .expect("the template is one");
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
            .with_style(style.progress_chars("=> "));
        bar.enable_steady_tick(Duration::from_millis(200));
        Display::Bar(bar)
    }

    /// Shows how far a task has come. That nobody reads any more does not end the watching.
    pub fn show(&mut self, task: &v1::Task) -> Result<()> {
        let is_over = super::outcome(task).is_some();
        match self {
            Display::Json => {
                print(show::json(task)?)?;
            }
            Display::Bar(bar) => {
                let progress = task.current_state.clone().unwrap_or_default();
                if progress.number_of_selected_objects > 0 {
                    bar.set_length(progress.number_of_selected_objects.unsigned_abs());
                }
                bar.set_position(progress.number_of_matched_objects.unsigned_abs());
                bar.set_message(words(task));
                if is_over {
                    bar.finish_and_clear();
                    print(end(task))?;
                }
            }
            Display::Lines { .. } if is_over => {
                print(end(task))?;
            }
            Display::Lines { last } => {
                let said = last
                    .is_some_and(|(status, at)| status == task.status && at.elapsed() < LINE_EVERY);
                if !said {
                    *last = Some((task.status, Instant::now()));
                    print(line(task))?;
                }
            }
        }
        Ok(())
    }

    /// Prints a message on standard error.
    pub fn note(&self, text: &str) {
        match self {
            Display::Bar(bar) => bar.suspend(|| note(text)),
            Display::Json | Display::Lines { .. } => note(text),
        }
    }

    /// Gives the terminal back.
    pub fn leave(&self) {
        if let Display::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// How far a task has come, in one line.
fn line(task: &v1::Task) -> String {
    let progress = task.current_state.clone().unwrap_or_default();
    let (met, selected) = (progress.number_of_matched_objects, progress.number_of_selected_objects);
    let far = if selected > 0 {
        format!(
            "{} of {} ({:.0} %)",
            thousands(met),
            thousands(selected),
            met as f64 * 100.0 / selected as f64
        )
    } else {
        thousands(met)
    };
    format!("{far} {}", words(task))
}

/// The rest of the line: the status, the rate, what is left and what failed.
fn words(task: &v1::Task) -> String {
    let progress = task.current_state.clone().unwrap_or_default();
    let mut words = vec![show::status(task).to_ascii_lowercase().replace('_', " ")];
    if progress.current_throughput > 0.0 {
        words.push(format!("{}/s", thousands(progress.current_throughput.round() as i64)));
    }
    if let Some(left) = progress.estimated_remaining {
        words.push(format!("{} left", about(to_std(left))));
    }
    if progress.objects_failed_to_delete_count > 0 {
        words.push(format!("{} failed", thousands(progress.objects_failed_to_delete_count)));
    }
    words.join(", ")
}

/// The account of a task that is over.
fn end(task: &v1::Task) -> String {
    let progress = task.current_state.clone().unwrap_or_default();
    let status = show::status(task).to_ascii_lowercase().replace('_', " ");
    let took = about(task.duration.map(to_std).unwrap_or_default());
    let mut text =
        format!("{status}: {} deleted in {took}", entities(progress.number_of_processed_objects));
    for (count, what) in [
        (progress.objects_failed_to_delete_count, "failed"),
        (progress.number_of_excluded_objects, "excluded"),
        (progress.number_of_skipped_objects, "skipped"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {} {what}", thousands(count)));
        }
    }
    if let Some(message) = &task.error_message {
        text.push_str(&format!(". {message}"));
    }
    if progress.objects_failed_to_delete_count > 0 {
        text.push_str(&format!("; `offboard bulk-delete failures {}` lists what failed", task.id));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(status: v1::TaskStatus) -> v1::Task {
        let current_state = v1::TaskProgress {
            number_of_selected_objects: 4_000,
            number_of_matched_objects: 1_000,
            number_of_processed_objects: 998,
            objects_failed_to_delete_count: 2,
            current_throughput: 499.6,
            estimated_remaining: Some(prost_types::Duration { seconds: 6, nanos: 0 }),
            ..Default::default()
        };
        let duration = Some(prost_types::Duration { seconds: 2, nanos: 0 });
        v1::Task {
            id: "t".to_owned(),
            status: status.into(),
            duration,
            current_state: Some(current_state),
            ..Default::default()
        }
    }

    #[test]
    fn a_line_reports_how_far_how_fast_and_how_long() {
        assert_eq!(
            line(&task(v1::TaskStatus::Processing)),
            "1,000 of 4,000 (25 %) processing, 500/s, 6 seconds left, 2 failed"
        );
    }

    #[test]
    fn the_end_reports_what_became_of_it() {
        let reported = end(&task(v1::TaskStatus::CompletedWithErrors));
        assert_eq!(
            reported,
            "completed with errors: 998 entities deleted in 2 seconds, 2 failed; `offboard bulk-delete failures t` lists what failed"
        );
    }
}
