//! `offboard token`.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::output::{note, print};
use crate::access::tokens::{Options, Report, inspect};
use crate::error::{Error, Result};

/// The word that names standard input.
const STDIN: &str = "-";
/// How much of a file or of standard input is read at most: more than a token may ever have.
const READ_BYTES: u64 = 64 << 10;
/// How old keys may be matters to a service alone: here they are fetched for each token.
const AGE: Duration = Duration::from_secs(3600);

/// Arguments of `token`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Show what the service would make of a token: who calls, for which organisation, with which scopes, until when; or everything that is wrong with it. The keys of its issuer are fetched
    Check(Check),
}

#[derive(Args, Debug)]
struct Check {
    #[command(flatten)]
    given: Given,

    /// File in TOML with the issuers, as `serve` reads it
    #[arg(long, env = "OFFBOARD_AUTH_FILE", value_name = "FILE")]
    auth_file: PathBuf,

    /// Bytes that a token may have
    #[arg(long, env = "OFFBOARD_MAX_TOKEN_BYTES", default_value_t = 8192, value_name = "BYTES")]
    max_token_bytes: usize,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Given {
    /// The token, or `-` to read it from standard input, so that no shell keeps it
    token: Option<String>,

    /// File with the token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Shows what a service would make of a token.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Action::Check(check) = arguments.action;
    let token = read(check.given)?;
    let options = Options {
        file: check.auth_file,
        token_bytes: check.max_token_bytes,
        refresh: AGE,
        refetch: AGE,
        outage: AGE,
    };
    let report = inspect(&options, token.trim()).await?;
    if check.json {
        print(as_json(&report))?;
    } else {
        for line in lines(&report) {
            if !print(line)? {
                break;
            }
        }
    }
    if report.faults.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if !check.json {
        note("The service would refuse this token.");
    }
    Ok(ExitCode::FAILURE)
}

/// The token that was given, in whichever way.
fn read(given: Given) -> Result<String> {
    let (at, source): (_, Box<dyn Read>) = match (given.token, given.token_file) {
        (Some(token), _) if token != STDIN => return Ok(token),
        (_, Some(file)) => match std::fs::File::open(&file) {
            Ok(opened) => ("--token-file", Box::new(opened)),
            Err(error) => return Err(unreadable("--token-file", &error)),
        },
        _ => ("TOKEN", Box::new(std::io::stdin().lock())),
    };
    let mut text = String::new();
    source.take(READ_BYTES).read_to_string(&mut text).map_err(|error| unreadable(at, &error))?;
    Ok(text)
}

fn unreadable(at: &'static str, error: &std::io::Error) -> Error {
    Error::invalid(at, "invalid", format!("cannot be read: {error}"))
}

fn shown(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn as_json(report: &Report) -> Value {
    let names = |scopes: &[crate::access::Scope]| {
        scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>()
    };
    let faults: Vec<Value> = report
        .faults
        .iter()
        .map(|fault| json!({"code": fault.reason.as_str(), "at": fault.at, "description": fault.text}))
        .collect();
    json!({
        "accepted": report.faults.is_empty(),
        "issuer": report.issuer,
        "org": report.org,
        "mode": report.mode.map(|mode| mode.as_str()),
        "scopes": names(&report.scopes),
        "ignored": report.ignored,
        "subject": report.subject,
        "principal_id": report.principal_id,
        "not_before": report.not_before.map(shown),
        "expires_at": report.expires_at.map(shown),
        "algorithm": report.algorithm,
        "key_id": report.key_id,
        "faults": faults,
    })
}

/// The report for people: what is known, and then what is wrong.
fn lines(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    let mut row = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("{name:<11}{}", plain(&value))));
    };
    let realm = report.org.as_ref().map(|org| match report.mode {
        Some(mode) => format!("{org} ({mode})"),
        None => org.clone(),
    });
    let principal = report.principal_id.map(|id| match &report.subject {
        Some(subject) if *subject != id.to_string() => format!("{id} ({subject})"),
        _ => id.to_string(),
    });
    let scopes = report.issuer.is_some().then(|| match report.scopes.as_slice() {
        [] => "none".to_owned(),
        scopes => scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(", "),
    });
    let signed = report.algorithm.zip(report.key_id.as_ref());
    row("issuer", report.issuer.clone());
    row("realm", realm);
    row("principal", principal);
    row("scopes", scopes);
    row("ignored", (!report.ignored.is_empty()).then(|| report.ignored.join(", ")));
    row("valid from", report.not_before.map(shown));
    row("expires", report.expires_at.map(shown));
    row("signed", signed.map(|(algorithm, key)| format!("{algorithm} by the key {key}")));
    lines.extend(
        report.faults.iter().map(|fault| plain(&format!("fault: {} {}", fault.at, fault.text))),
    );
    lines
}

/// Text of a token as a terminal may show it.
fn plain(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { '\u{fffd}' } else { one }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_token_says_takes_no_terminal_over() {
        let report = Report {
            issuer: Some("https://login.example.com".to_owned()),
            key_id: Some("a\u{1b}[2Jb\nc".to_owned()),
            algorithm: Some("ES256"),
            ..Report::default()
        };
        assert_eq!(
            lines(&report),
            [
                "issuer     https://login.example.com",
                "scopes     none",
                "signed     ES256 by the key a\u{fffd}[2Jb\u{fffd}c"
            ]
        );
    }
}
