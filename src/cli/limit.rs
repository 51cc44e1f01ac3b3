//! `bonito limit …`: rate limits from the command line, straight in the database.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{ArgGroup, Args, Subcommand};
use serde_json::json;
use uuid::Uuid;

use super::key::{find, named};
use super::say;
use crate::config::Settings;
use crate::domain::audit::Author;
use crate::domain::error::BoxError;
use crate::domain::ids::OrganizationId;
use crate::domain::limit::{LimitKind, LimitOwner, LimitRule, LimitScope, LimitValues, MAX_LIMIT, WhenApart};
use crate::domain::managed_key::KeyReach;
use crate::domain::managed_limit::Outcome;
use crate::store::Store;
use crate::store::organizations::FIRST_SLUG;

/// Longest name of a model, in bytes, as in requests.
const MAX_MODEL_BYTES: usize = 256;

/// What can be done with limits.
#[derive(Subcommand)]
pub enum Command {
    /// Set the limit of a scope, in place of the one it has. Running gateways know within a second.
    ///
    /// Without --team, --key or --each-key it is about the whole organization; with --model it is about its requests for
    /// those models alone. What is not given is not limited.
    Set(Set),
    /// List an organization's limits.
    List {
        /// The organization, by its short name.
        #[arg(long, default_value = FIRST_SLUG)]
        organization: String,
        /// Print one JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Delete a limit.
    Delete {
        /// Its id.
        id: Uuid,
        /// The organization, by its short name.
        #[arg(long, default_value = FIRST_SLUG)]
        organization: String,
    },
}

/// A limit to be set.
#[derive(Args)]
#[command(group(ArgGroup::new("owner").args(["team", "key", "each_key", "tag", "at_provider"])))]
#[command(group(
    ArgGroup::new("values").required(true).multiple(true)
        .args(["requests", "input_tokens", "output_tokens", "tokens", "concurrency"])
))]
pub struct Set {
    /// The organization, by its short name.
    #[arg(long, default_value = FIRST_SLUG)]
    organization: String,
    /// A team of it, by its short name: all of its keys together.
    #[arg(long, value_name = "SLUG")]
    team: Option<String>,
    /// A key of it: its id, or as much of its prefix as is unique.
    #[arg(long)]
    key: Option<String>,
    /// Each of its keys that has no limit of its own, counted alone.
    #[arg(long)]
    each_key: bool,
    /// All keys that have this pair in their metadata, together.
    #[arg(long, value_name = "NAME=VALUE", conflicts_with = "model")]
    tag: Option<String>,
    /// The organization's requests that go to this provider first.
    #[arg(long = "provider", value_name = "ID", conflicts_with = "model")]
    at_provider: Option<String>,
    /// Requests for a model alone: a name, an alias or a glob such as 'claude-*', whose matches count together.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Requests per minute.
    #[arg(long, value_name = "PER_MINUTE", value_parser = clap::value_parser!(u64).range(..=MAX_LIMIT))]
    requests: Option<u64>,
    /// Input tokens per minute.
    #[arg(long, value_name = "PER_MINUTE", value_parser = clap::value_parser!(u64).range(..=MAX_LIMIT))]
    input_tokens: Option<u64>,
    /// Output tokens per minute.
    #[arg(long, value_name = "PER_MINUTE", value_parser = clap::value_parser!(u64).range(..=MAX_LIMIT))]
    output_tokens: Option<u64>,
    /// Input and output tokens together, per minute.
    #[arg(long, value_name = "PER_MINUTE", value_parser = clap::value_parser!(u64).range(..=MAX_LIMIT))]
    tokens: Option<u64>,
    /// Requests under way at a time.
    #[arg(long, value_name = "REQUESTS", value_parser = clap::value_parser!(u64).range(..=MAX_LIMIT))]
    concurrency: Option<u64>,
    /// What becomes of requests while Redis is away: local, closed or open. Left out: as configured.
    #[arg(long, value_name = "POLICY", value_parser = policy)]
    when_redis_is_away: Option<WhenApart>,
    /// Keep it, and do not enforce it.
    #[arg(long)]
    disabled: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn policy(text: &str) -> Result<WhenApart, String> {
    WhenApart::parse(text).ok_or_else(|| "write local, closed or open".to_owned())
}

/// Runs one of them.
pub async fn run(command: Command, settings: &Settings) -> Result<ExitCode, BoxError> {
    let opened = super::open(settings).await?;
    let store = &opened.store;
    match command {
        Command::Set(set) => {
            let organization = find(store, &set.organization).await?;
            let when_apart = set
                .when_redis_is_away
                .unwrap_or(settings.rate_limits.when_redis_is_away);
            let json = set.json;
            let rule = set_limit(store, organization, set, when_apart).await?;
            let text = if json {
                shown(&rule).to_string()
            } else {
                format!("{}: {}", rule.id, in_words(&rule))
            };
            say(&text);
        }
        Command::List { organization, json } => {
            let rules = store.rate_limits_of(find(store, &organization).await?).await?;
            let text = if json {
                serde_json::Value::from(rules.iter().map(shown).collect::<Vec<_>>()).to_string()
            } else {
                listed(&rules)?
            };
            say(&text);
        }
        Command::Delete { id, organization } => {
            let organization = find(store, &organization).await?;
            let (reach, by) = (KeyReach::Organization, Author::system("bonito limit delete"));
            if store.remove_limit(organization, reach, id, &by).await? != Outcome::Done(()) {
                return Err(format!("there is no limit {id}").into());
            }
            say(&format!("deleted {id}"));
        }
    }
    opened.store.close().await;
    Ok(ExitCode::SUCCESS)
}

async fn set_limit(
    store: &Store,
    organization: OrganizationId,
    set: Set,
    when_apart: WhenApart,
) -> Result<LimitRule, BoxError> {
    let named_scope = |kind: &str, name: &str| {
        let scope = LimitScope::parse(kind, name, None);
        scope
            .map(|scope| scope.owner)
            .map_err(|(_, problem)| format!("--{kind}: {problem}"))
    };
    let owner = match (&set.team, &set.key, set.each_key) {
        _ if set.tag.is_some() => named_scope("tag", set.tag.as_deref().unwrap_or_default())?,
        _ if set.at_provider.is_some() => named_scope("provider", set.at_provider.as_deref().unwrap_or_default())?,
        (Some(slug), ..) => {
            let team = store.team_by_slug(organization, slug).await?;
            LimitOwner::Team(team.ok_or_else(|| format!("there is no team {slug:?}"))?)
        }
        (None, Some(key), _) => LimitOwner::Key(named(&store.keys_of(organization).await?, key)?),
        (None, None, true) => LimitOwner::EachKey,
        (None, None, false) => LimitOwner::Organization,
    };
    let model = set.model;
    if let Some(model) = &model
        && (model.trim().is_empty() || model.len() > MAX_MODEL_BYTES || model.chars().any(char::is_control))
    {
        return Err(format!("--model must have 1 to {MAX_MODEL_BYTES} printable characters").into());
    }
    let rule = LimitRule {
        id: Uuid::now_v7(),
        scope: LimitScope {
            owner,
            model: model.map(Into::into),
        },
        values: LimitValues {
            requests: set.requests,
            input_tokens: set.input_tokens,
            output_tokens: set.output_tokens,
            tokens: set.tokens,
            concurrency: set.concurrency,
        },
        when_apart,
        enabled: !set.disabled,
    };
    let set = store
        .set_limit(organization, &rule, &Author::system("bonito limit set"))
        .await?;
    set.ok_or_else(|| "that team or key is not there any more".into())
}

fn shown(rule: &LimitRule) -> serde_json::Value {
    let LimitValues {
        requests,
        input_tokens,
        output_tokens,
        tokens,
        concurrency,
    } = rule.values;
    let scope_id = match &rule.scope.owner {
        LimitOwner::Team(team) => Some(team.0),
        LimitOwner::Key(key) => Some(key.0),
        LimitOwner::Organization | LimitOwner::EachKey | LimitOwner::Tag(_) | LimitOwner::Provider(_) => None,
    };
    json!({
        "id": rule.id, "scope": rule.scope.owner.word(), "scope_id": scope_id, "name": rule.scope.owner.name(),
        "model": rule.scope.model,
        "requests_per_minute": requests, "input_tokens_per_minute": input_tokens,
        "output_tokens_per_minute": output_tokens, "tokens_per_minute": tokens, "concurrency": concurrency,
        "when_redis_is_away": rule.when_apart.as_str(), "enabled": rule.enabled,
    })
}

fn in_words(rule: &LimitRule) -> String {
    let mut text = rule.scope.owner.word().to_owned();
    match &rule.scope.owner {
        LimitOwner::Team(team) => text.push_str(&format!(" {team}")),
        LimitOwner::Key(key) => text.push_str(&format!(" {key}")),
        LimitOwner::Tag(name) | LimitOwner::Provider(name) => text.push_str(&format!(" {name}")),
        LimitOwner::Organization | LimitOwner::EachKey => {}
    }
    if let Some(model) = &rule.scope.model {
        text.push_str(&format!(", model {model}"));
    }
    for kind in LimitKind::ALL {
        if let Some(value) = rule.values.of(kind) {
            text.push_str(&format!(", {value} {}", kind.words()));
        }
    }
    if !rule.enabled {
        text.push_str(", not enforced");
    }
    text
}

fn listed(rules: &[LimitRule]) -> Result<String, std::fmt::Error> {
    let mut text = format!("{:<36}  {}", "ID", "LIMIT");
    for rule in rules {
        write!(text, "\n{:<36}  {}", rule.id, in_words(rule))?;
    }
    Ok(text)
}
