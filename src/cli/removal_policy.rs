//! `offboard removal-policy`.

use std::process::ExitCode;

use clap::{ArgMatches, Args, Subcommand};
use serde_json::{Map, Value};
use tonic::metadata::MetadataMap;

use super::client::{Server, bodies_of, realm_of, request};
use super::output::{Spelling, note, print};
use super::refusal::{refused, refused_here};
use super::{ask, not_blank};
use crate::error::Result;
use crate::proto::v1;
use crate::proto::v1::removal_service_client::RemovalServiceClient;

/// The word that takes a value back.
const NONE: &str = "none";

/// Arguments of `removal-policy`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Show the policy
    Get(Get),
    /// Change what is named and leave the rest; `none` takes a value back. Asks where a retention is set, since what has had its time is removed, and where the policy would protect less than it does
    Set(Box<Set>),
}

#[derive(Args, Debug)]
struct Get {
    #[command(flatten)]
    server: Server,

    /// Secret of a key with the scope `policies:read`
    #[arg(long, env = "OFFBOARD_KEY", hide_env_values = true)]
    key: String,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Set {
    #[command(flatten)]
    server: Server,

    /// Secret of a key with the scope `policies:write`; without --yes also `policies:read`, for the policy as it is
    #[arg(long, env = "OFFBOARD_KEY", hide_env_values = true)]
    key: String,

    #[command(flatten)]
    values: Values,

    /// Set a retention, or have the policy protect less, without asking
    #[arg(long)]
    yes: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
struct Values {
    /// Grace period of a removal that does not say one, such as 3600s, 1h or P1D
    #[arg(long, value_name = "DURATION", value_parser = not_blank)]
    default_grace_period: Option<String>,

    /// Longest grace period that a call may ask for
    #[arg(long, value_name = "DURATION", value_parser = not_blank)]
    max_grace_period: Option<String>,

    /// Shortest grace period that a removal may have
    #[arg(long, value_name = "DURATION", value_parser = not_blank)]
    min_grace_period: Option<String>,

    /// How long tombstones are kept
    #[arg(long, value_name = "DURATION", value_parser = not_blank)]
    tombstone_retention: Option<String>,

    /// How long offboarding requests are kept after their end
    #[arg(long, value_name = "DURATION", value_parser = not_blank)]
    request_retention: Option<String>,

    /// How long tasks keep the text of their filter after their end
    #[arg(long, value_name = "DURATION", value_parser = not_blank)]
    filter_retention: Option<String>,

    /// Domain that mails about tasks may be sent to; repeat it for more, or `none`. Those so far are replaced
    #[arg(long = "mail-domain", value_name = "DOMAIN", value_parser = not_blank)]
    mail_domains: Vec<String>,

    /// Require `expected_count` of hard bulk deletes
    #[arg(long, value_name = "BOOL")]
    hard_expected_count: Option<bool>,

    /// Most entities that a hard bulk delete may select
    #[arg(long, value_name = "COUNT", value_parser = count)]
    hard_max_objects: Option<Value>,

    /// Oldest preview that a hard bulk delete may rely on
    #[arg(long, value_name = "DURATION", value_parser = not_blank)]
    hard_preview_within: Option<String>,

    /// Oldest clean consistency check that a hard bulk delete may rely on
    #[arg(long, value_name = "DURATION", value_parser = not_blank)]
    hard_clean_report_within: Option<String>,

    /// Require `expected_count` of soft bulk deletes
    #[arg(long, value_name = "BOOL")]
    soft_expected_count: Option<bool>,

    /// Most entities that a soft bulk delete may select
    #[arg(long, value_name = "COUNT", value_parser = count)]
    soft_max_objects: Option<Value>,

    /// Oldest preview that a soft bulk delete may rely on
    #[arg(long, value_name = "DURATION", value_parser = not_blank)]
    soft_preview_within: Option<String>,

    /// Oldest clean consistency check that a soft bulk delete may rely on
    #[arg(long, value_name = "DURATION", value_parser = not_blank)]
    soft_clean_report_within: Option<String>,
}

impl Values {
    /// The body of the change, as REST has it.
    fn body(self) -> Value {
        let text = |value: Option<String>| {
            value.map(|text| if text == NONE { Value::Null } else { text.into() })
        };
        let domains = (!self.mail_domains.is_empty())
            .then(|| self.mail_domains.into_iter().filter(|name| name != NONE).collect::<Vec<_>>());
        let of = |members: [(&str, Option<Value>); 4]| {
            let named = given(members);
            (!named.is_empty()).then_some(Value::Object(named))
        };
        let hard = of([
            ("expected_count", self.hard_expected_count.map(Value::from)),
            ("max_objects", self.hard_max_objects),
            ("preview_within", text(self.hard_preview_within)),
            ("clean_report_within", text(self.hard_clean_report_within)),
        ]);
        let soft = of([
            ("expected_count", self.soft_expected_count.map(Value::from)),
            ("max_objects", self.soft_max_objects),
            ("preview_within", text(self.soft_preview_within)),
            ("clean_report_within", text(self.soft_clean_report_within)),
        ]);
        Value::Object(given([
            ("default_grace_period", text(self.default_grace_period)),
            ("max_grace_period", text(self.max_grace_period)),
            ("min_grace_period", text(self.min_grace_period)),
            ("tombstone_retention", text(self.tombstone_retention)),
            ("request_retention", text(self.request_retention)),
            ("filter_retention", text(self.filter_retention)),
            ("mail_domains", domains.map(Value::from)),
            ("hard_delete", hard),
            ("soft_delete", soft),
        ]))
    }

    /// Returns whether the policy removes data after a retention.
    fn sets_a_retention(&self) -> bool {
        let retentions =
            [&self.tombstone_retention, &self.request_retention, &self.filter_retention];
        retentions.into_iter().flatten().any(|retention| retention != NONE)
    }
}

fn given<const N: usize>(members: [(&str, Option<Value>); N]) -> Map<String, Value> {
    members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn count(text: &str) -> Result<Value, String> {
    if text == NONE {
        return Ok(Value::Null);
    }
    text.parse::<u32>()
        .map(Value::from)
        .map_err(|_| format!("must be a whole number from 0, or `{NONE}`"))
}

/// Returns the faults of the flags in combination.
pub fn misuse(matches: &ArgMatches) -> Option<String> {
    let mut domains = matches.subcommand_matches("set")?.get_many::<String>("mail_domains")?;
    let is_mixed = domains.len() > 1 && domains.any(|domain| domain == NONE);
    is_mixed.then(|| {
        format!("--mail-domain {NONE} removes all domains, so it cannot be combined with others")
    })
}

/// Shows the policy, or changes it and shows the result.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.action {
        Action::Get(Get { server, key, json }) => {
            let (policy, realm) = get(&server, &key).await?;
            show(&policy, &realm, json)
        }
        Action::Set(set) => change(*set).await,
    }
}

async fn get(server: &Server, key: &str) -> Result<(v1::RemovalPolicy, String)> {
    let mut client = RemovalServiceClient::new(server.connect().await?);
    let answer = client
        .get_removal_policy(request(v1::GetRemovalPolicyRequest {}, key)?)
        .await
        .map_err(refused)?;
    let realm = realm_or_default(answer.metadata());
    Ok((answer.into_inner(), realm))
}

async fn change(Set { server, key, values, yes, json }: Set) -> Result<ExitCode> {
    let sets_a_retention = values.sets_a_retention();
    if sets_a_retention && !yes && !ask::can_ask() {
        return Ok(ask::unasked("sets the retention"));
    }
    let body = values.body();
    let update: v1::UpdateRemovalPolicyRequest =
        bodies_of("offboard.v1.RemovalService.UpdateRemovalPolicy")?
            .read_sound(body.to_string().as_bytes())
            .map_err(|error| refused_here(error, "policy"))?;
    if !yes {
        let (policy, realm) = get(&server, &key).await?;
        let loosened = loosened(&policy, &update)?;
        if !loosened.is_empty() && !ask::can_ask() {
            loosened
                .iter()
                .for_each(|change| note(format_args!("{realm} would be protected less: {change}")));
            return Ok(ask::unasked("changes the policy"));
        }
        if (sets_a_retention || !loosened.is_empty())
            && !ask::is_yes(&ask::ask(&question(&realm, sets_a_retention, &loosened))?)
        {
            note("Nothing was changed.");
            return Ok(ExitCode::FAILURE);
        }
    }
    let mut client = RemovalServiceClient::new(server.connect().await?);
    let answer = client.update_removal_policy(request(update, &key)?).await.map_err(refused)?;
    let realm = realm_or_default(answer.metadata());
    show(answer.get_ref(), &realm, json)
}

fn question(realm: &str, sets_a_retention: bool, loosened: &[String]) -> String {
    let mut text = String::new();
    for change in loosened {
        text.push_str(&format!("{realm} would be protected less: {change}\n"));
    }
    if sets_a_retention {
        text.push_str("Data past its retention is removed, including data that exists now. This cannot be undone.\n");
    }
    let what = if sets_a_retention && loosened.is_empty() {
        "Set the retention"
    } else {
        "Change the removal policy"
    };
    format!("{text}{what} of {realm}? [y/N] ")
}

/// The requirements that the change of the policy would loosen: each as `member: from A to B`.
fn loosened(
    policy: &v1::RemovalPolicy,
    update: &v1::UpdateRemovalPolicyRequest,
) -> Result<Vec<String>> {
    let now = as_json(policy)?;
    let then = as_json(update.policy.as_ref().unwrap_or(&v1::RemovalPolicy::default()))?;
    let paths = update.update_mask.as_ref().map(|mask| mask.paths.as_slice()).unwrap_or_default();
    let value = |policy: &Value, path: &str| {
        path.split('.')
            .fold(policy.clone(), |value, name| value.get(name).cloned().unwrap_or_default())
    };
    let changes = paths.iter().filter_map(|path| {
        let (from, to) = (value(&now, path), value(&then, path));
        protects_less(path, &from, &to)
            .then(|| format!("{path}: from {} to {}", in_words(&from), in_words(&to)))
    });
    Ok(changes.collect())
}

/// Returns whether a value of the policy protects less than the one that it had.
fn protects_less(path: &str, from: &Value, to: &Value) -> bool {
    let duration =
        |value: &Value| value.as_str().and_then(|text| text.strip_suffix('s')?.parse::<f64>().ok());
    let number = |value: &Value| value.as_f64().or_else(|| duration(value));
    match path.rsplit('.').next().unwrap_or_default() {
        "default_grace_period" | "min_grace_period" => {
            duration(to).unwrap_or_default() < duration(from).unwrap_or_default()
        }
        "expected_count" => from == true && to != true,
        // A bound that is not set does not bound.
        "max_objects" | "preview_within" | "clean_report_within" => {
            number(from).is_some_and(|from| number(to).is_none_or(|to| to > from))
        }
        _ => false,
    }
}

/// A value, for people.
fn in_words(value: &Value) -> String {
    match value {
        Value::Null => NONE.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn realm_or_default(metadata: &MetadataMap) -> String {
    realm_of(metadata).unwrap_or_else(|| "the organisation".to_owned())
}

fn show(policy: &v1::RemovalPolicy, realm: &str, json: bool) -> Result<ExitCode> {
    let members = as_json(policy)?;
    if json {
        print(members)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!("The removal policy of {realm}:");
    for (name, value) in members
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| !matches!(name.as_str(), "tenant" | "mode"))
    {
        let value = match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        text.push_str(&format!("\n  {name:<20}  {value}"));
    }
    print(text)?;
    Ok(ExitCode::SUCCESS)
}

/// A policy as REST shows it.
fn as_json(policy: &v1::RemovalPolicy) -> Result<Value> {
    static SPELLING: Spelling = Spelling::of("offboard.v1.RemovalService");
    SPELLING.value(policy)
}

#[cfg(test)]
mod tests;
