//! `bonito key …`: keys from the command line, straight in the database.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Subcommand, ValueEnum};
use ipnet::IpNet;
use serde_json::json;
use uuid::Uuid;

use super::say;
use crate::config::Settings;
use crate::domain::audit::Author;
use crate::domain::call::{MAX_OUTPUT_TOKENS, ParameterPolicy};
use crate::domain::error::BoxError;
use crate::domain::ids::{KeyId, OrganizationId, TeamId, UserId};
use crate::domain::key::{KeyHash, KeyRow, NewKey};
use crate::domain::limit::DEFAULT_KEY_REQUESTS;
use crate::domain::managed_key::{KeyChange, KeyOutcome, KeyReach, KeyState, check_name};
use crate::domain::network::{self, MAX_NETWORKS};
use crate::domain::scope::Scope;
use crate::domain::tenancy::{OrganizationChange, OrganizationChanged};
use crate::routing::catalog::Catalog;
use crate::routing::unknown::unknown_names;
use crate::secrets::master_key::new_api_key;
use crate::store::Store;
use crate::store::organizations::FIRST_SLUG;

/// What can be done with keys.
#[derive(Subcommand)]
pub enum Command {
    /// Create a key and show its secret, this once.
    Create {
        /// Name for people.
        #[arg(long)]
        name: String,
        /// A model the key may use: a name, an alias or a glob such as 'claude-*'. Repeatable; none: all.
        #[arg(long = "model", value_name = "NAME")]
        models: Vec<String>,
        /// A provider the key may use. Repeatable; none: all.
        #[arg(long = "provider", value_name = "ID")]
        providers: Vec<String>,
        /// Requests per minute.
        #[arg(long, default_value_t = DEFAULT_KEY_REQUESTS, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        rate_limit: u32,
        /// What becomes of parameters that a provider cannot express. Where the organization has said something, too,
        /// the stricter of the two holds; where nobody has, the setting parameters.policy does.
        #[arg(long, value_name = "POLICY")]
        parameters: Option<Parameters>,
        /// Seconds its answers are kept in the response cache; 0: none is. Left out: as `cache.ttl_ms` says.
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(..=31_536_000))]
        cache_seconds: Option<u32>,
        /// The longest answer it may ask for, in tokens: requests that allow more, or set no limit, are sent with this one.
        #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u64).range(1..=MAX_OUTPUT_TOKENS))]
        max_output_tokens: Option<u64>,
        /// When it stops working, RFC 3339: 2027-01-31T00:00:00Z.
        #[arg(long, value_name = "TIME")]
        expires_at: Option<DateTime<Utc>>,
        /// Something to remember about it: name=value. Repeatable. Budgets and limits can be for such a tag.
        #[arg(long, value_name = "NAME=VALUE")]
        metadata: Vec<String>,
        /// Its team, by its short name.
        #[arg(long, value_name = "SLUG")]
        team: Option<String>,
        /// The user it belongs to, by their id.
        #[arg(long, value_name = "ID")]
        owner: Option<Uuid>,
        /// A network it may be used from, such as 203.0.113.0/24, or an address. Repeatable; none: from everywhere.
        #[arg(long = "allow-from", value_name = "NETWORK", value_parser = network::read)]
        allowed_ips: Vec<IpNet>,
        /// The organization, by its short name.
        #[arg(long, default_value = FIRST_SLUG)]
        organization: String,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// List the keys of an organization.
    List {
        /// Only those of a team, by its short name.
        #[arg(long, value_name = "SLUG")]
        team: Option<String>,
        /// Only those that belong to a user, by their id.
        #[arg(long, value_name = "ID")]
        owner: Option<Uuid>,
        /// Only those with this pair in their metadata.
        #[arg(long, value_name = "NAME=VALUE", value_parser = tag)]
        tag: Option<(String, String)>,
        /// Only those in a state: active, disabled, expired or revoked.
        #[arg(long, value_name = "STATE", value_parser = key_state)]
        state: Option<KeyState>,
        /// The organization, by its short name.
        #[arg(long, default_value = FIRST_SLUG)]
        organization: String,
        /// Print one JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Change what becomes of parameters that a provider cannot express. Running gateways follow within a second.
    Parameters {
        /// The key's id, or as much of its prefix as is unique; none: the organization itself.
        key: Option<String>,
        /// What becomes of them.
        #[arg(long, value_name = "POLICY", required_unless_present = "inherit")]
        policy: Option<Parameters>,
        /// Say nothing any more: a key follows its organization, an organization the installation.
        #[arg(long, conflicts_with = "policy")]
        inherit: bool,
        /// The organization, by its short name.
        #[arg(long, default_value = FIRST_SLUG)]
        organization: String,
    },
    /// Change a key's requests per minute. Running gateways know within a second.
    Update {
        /// Its id, or as much of its prefix as is unique.
        key: String,
        /// Requests per minute.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        rate_limit: u32,
        /// The organization, by its short name.
        #[arg(long, default_value = FIRST_SLUG)]
        organization: String,
    },
    /// Revoke a key, for good. Running gateways refuse it within a second.
    Revoke {
        /// Its id, or as much of its prefix as is unique.
        key: String,
        /// The organization, by its short name.
        #[arg(long, default_value = FIRST_SLUG)]
        organization: String,
    },
}

/// What becomes of parameters that a provider cannot express, as the command line writes it.
#[derive(Clone, Copy, ValueEnum)]
pub enum Parameters {
    /// Ask another provider, or refuse.
    Reject,
    /// Drop them without a word.
    Drop,
    /// Drop them and name them in the answer's headers.
    Warn,
}

impl From<Parameters> for ParameterPolicy {
    fn from(word: Parameters) -> Self {
        match word {
            Parameters::Reject => Self::Reject,
            Parameters::Drop => Self::Drop,
            Parameters::Warn => Self::Warn,
        }
    }
}

/// Runs one of them.
pub async fn run(command: Command, settings: &Settings) -> Result<ExitCode, BoxError> {
    let opened = super::open(settings).await?;
    let store = &opened.store;
    match command {
        Command::Create {
            name,
            models,
            providers,
            rate_limit,
            parameters,
            cache_seconds,
            max_output_tokens,
            expires_at,
            metadata,
            team,
            owner,
            allowed_ips,
            organization,
            json,
        } => {
            let organization = find(store, &organization).await?;
            check_name(&name).map_err(|problem| format!("--name {problem}"))?;
            if allowed_ips.len() > MAX_NETWORKS {
                return Err(format!("--allow-from may be there {MAX_NETWORKS} times").into());
            }
            let team = match team {
                None => None,
                Some(slug) => Some(find_team(store, organization, &slug).await?),
            };
            if expires_at.is_some_and(|at| at <= Utc::now()) {
                return Err("--expires-at must lie in the future".into());
            }
            let scope = Scope::new(models, providers);
            let enabled = settings.providers.iter().filter(|provider| provider.enabled);
            let providers: Vec<String> = enabled.map(|provider| provider.id.to_string()).collect();
            let warnings = unknown_names(&scope, &Catalog::build(settings), &providers);
            let key = new_api_key();
            let id = KeyId(Uuid::now_v7());
            let new = NewKey {
                id,
                organization,
                team,
                owner: owner.map(UserId),
                name: name.clone(),
                prefix: key.display_prefix().to_owned(),
                hash: KeyHash(opened.master_key.key_hasher().hash(&key)),
                scope,
                rate_limit,
                parameter_policy: parameters.map(ParameterPolicy::from),
                cache_ttl: cache_seconds.map(|seconds| Duration::from_secs(seconds.into())),
                max_output_tokens,
                metadata: pairs(&metadata)?,
                allowed_ips,
                expires_at,
            };
            let by = Author::system("bonito key create");
            done(store.issue_key(new, None, &[], &by).await?)?;
            if json {
                let made = json!({
                    "id": id.0, "name": name, "prefix": key.display_prefix(), "key": key.expose(), "warnings": warnings,
                });
                say(&made.to_string());
            } else {
                for warning in &warnings {
                    super::complain(warning);
                }
                say(&format!(
                    "{}\n\n{name} ({id}); the key is shown this once",
                    key.expose()
                ));
            }
        }
        Command::List {
            team,
            owner,
            tag,
            state,
            organization,
            json,
        } => {
            let organization = find(store, &organization).await?;
            let team = match team {
                None => None,
                Some(slug) => Some(find_team(store, organization, &slug).await?),
            };
            let now = Utc::now();
            let mut keys = store.keys_of(organization).await?;
            keys.retain(|key| {
                team.is_none_or(|team| key.team.as_ref().is_some_and(|own| own.id == team))
                    && owner.is_none_or(|owner| key.owner == Some(UserId(owner)))
                    && tag.as_ref().is_none_or(|(name, value)| key.metadata[name] == *value)
                    && state.is_none_or(|state| state_of(key, now) == state)
            });
            say(&if json { listed_json(&keys) } else { listed(&keys)? });
        }
        Command::Parameters {
            key,
            policy,
            inherit: _,
            organization,
        } => {
            let slug = organization;
            let organization = find(store, &slug).await?;
            let policy = policy.map(ParameterPolicy::from);
            let whose = match &key {
                Some(key) => {
                    let id = named(&store.keys_of(organization).await?, key)?;
                    let different = KeyChange {
                        parameter_policy: Some(policy),
                        ..KeyChange::default()
                    };
                    change(store, organization, id, different, "bonito key parameters").await?;
                    format!("key {id}")
                }
                None => {
                    let different = OrganizationChange {
                        parameter_policy: Some(policy),
                        ..OrganizationChange::default()
                    };
                    let by = Author::system("bonito key parameters");
                    if let OrganizationChanged::NoSuchOrganization =
                        store.change_tenant(organization, &different, &by).await?
                    {
                        return Err(format!("the organization {slug:?} is not there any more").into());
                    }
                    format!("organization {slug}")
                }
            };
            let what = policy.map_or("as is said above it", ParameterPolicy::as_str);
            say(&format!("parameters of {whose}: {what}"));
        }
        Command::Update {
            key,
            rate_limit,
            organization,
        } => {
            let organization = find(store, &organization).await?;
            let id = named(&store.keys_of(organization).await?, &key)?;
            let different = KeyChange {
                rate_limit: Some(rate_limit),
                ..KeyChange::default()
            };
            change(store, organization, id, different, "bonito key update").await?;
            say(&format!("{id} may make {rate_limit} requests per minute"));
        }
        Command::Revoke { key, organization } => {
            let organization = find(store, &organization).await?;
            let keys = store.keys_of(organization).await?;
            let id = named(&keys, &key)?;
            if keys.iter().any(|key| key.id == id && key.revoked_at.is_some()) {
                return Err(format!("key {id} is revoked already").into());
            }
            let (reach, by) = (KeyReach::Organization, Author::system("bonito key revoke"));
            done(store.revoke_managed_key(organization, reach, id, &by).await?)?;
            say(&format!("revoked {id}"));
        }
    }
    opened.store.close().await;
    Ok(ExitCode::SUCCESS)
}

/// Changes a key as the management API does: with a row in the audit log.
async fn change(
    store: &Store,
    organization: OrganizationId,
    key: KeyId,
    different: KeyChange,
    command: &str,
) -> Result<(), BoxError> {
    let (reach, by) = (KeyReach::Organization, Author::system(command));
    done(store.change_key(organization, reach, key, different, &by).await?)
}

/// What came of it, as an error of a command where it was not done.
fn done(outcome: KeyOutcome) -> Result<(), BoxError> {
    match outcome {
        KeyOutcome::Done(_) => Ok(()),
        KeyOutcome::NoSuchKey => Err("there is no such key".into()),
        KeyOutcome::Revoked => Err("the key is revoked, which is for good".into()),
        KeyOutcome::NoSuchTeam => Err("the organization has no such team".into()),
        KeyOutcome::NoSuchOwner => Err("the organization has no such user".into()),
        // Commands are above everybody; a reader of the type need not know that.
        KeyOutcome::Held(faults) => {
            let faults = faults
                .iter()
                .map(|fault| format!("{} {}", fault.pointer, fault.problem));
            Err(faults.collect::<Vec<_>>().join("; ").into())
        }
    }
}

/// The organization of this short name.
pub(super) async fn find(store: &Store, slug: &str) -> Result<OrganizationId, BoxError> {
    let found = store.organization_by_slug(slug).await?;
    found.ok_or_else(|| format!("there is no organization {slug:?}").into())
}

/// The key that an id, or the beginning of a prefix, means.
pub(super) fn named(keys: &[KeyRow], text: &str) -> Result<KeyId, BoxError> {
    if let Ok(id) = text.parse::<Uuid>() {
        let found = keys.iter().find(|key| key.id.0 == id);
        return found
            .map(|key| key.id)
            .ok_or_else(|| format!("there is no key {id}").into());
    }
    let mut matching = keys.iter().filter(|key| text.len() > 3 && key.prefix.starts_with(text));
    match (matching.next(), matching.next()) {
        (Some(key), None) => Ok(key.id),
        (None, _) => Err(format!("no key's prefix begins with {text:?}").into()),
        (Some(_), Some(_)) => Err(format!("several keys' prefixes begin with {text:?}; use the id").into()),
    }
}

fn pairs(texts: &[String]) -> Result<serde_json::Value, BoxError> {
    let mut pairs = serde_json::Map::new();
    for text in texts {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("--metadata {text}: write NAME=VALUE"))?;
        pairs.insert(name.to_owned(), value.into());
    }
    Ok(pairs.into())
}

fn state_of(key: &KeyRow, now: DateTime<Utc>) -> KeyState {
    KeyState::of(key.disabled, key.expires_at, key.revoked_at, now)
}

fn state(key: &KeyRow) -> &'static str {
    state_of(key, Utc::now()).as_str()
}

fn key_state(text: &str) -> Result<KeyState, String> {
    let names = KeyState::ALL.map(KeyState::as_str).join(", ");
    KeyState::parse(text).ok_or_else(|| format!("must be one of {names}"))
}

fn tag(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// The team of this short name.
async fn find_team(store: &Store, organization: OrganizationId, slug: &str) -> Result<TeamId, BoxError> {
    let found = store.team_by_slug(organization, slug).await?;
    found.ok_or_else(|| format!("there is no team {slug:?}").into())
}

fn listed(keys: &[KeyRow]) -> Result<String, std::fmt::Error> {
    let mut text = format!(
        "{:<36}  {:<11}  {:<8}  {:<20}  {:<10}  {:<12}  {}",
        "ID", "PREFIX", "STATE", "LAST USED", "PARAMETERS", "TEAM", "NAME"
    );
    for key in keys {
        let used = key
            .last_used_at
            .map_or("never".into(), |at| at.to_rfc3339_opts(SecondsFormat::Secs, true));
        write!(
            text,
            "\n{:<36}  {:<11}  {:<8}  {used:<20}  {:<10}  {:<12}  {}",
            key.id,
            key.prefix,
            state(key),
            key.parameters.map_or("-", ParameterPolicy::as_str),
            key.team.as_ref().map_or("-", |team| team.slug.as_str()),
            key.name
        )?;
    }
    Ok(text)
}

fn listed_json(keys: &[KeyRow]) -> String {
    let rows: Vec<_> = keys
        .iter()
        .map(|key| {
            json!({
                "id": key.id.0, "name": key.name, "prefix": key.prefix, "state": state(key),
                "team": key.team.as_ref().map(|team| &team.slug), "owner_id": key.owner.map(|owner| owner.0),
                "allowed_ips": key.allowed_ips.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "previous_secret_until": key.previous.map(|(_, until)| until),
                "allowed_models": {"models": key.scope.models(), "providers": key.scope.providers()},
                "rate_limit": key.rate_limit, "parameter_policy": key.parameter_policy.map(ParameterPolicy::as_str),
                "parameters": key.parameters.map(ParameterPolicy::as_str), "cache_seconds": key.cache_ttl.map(|ttl| ttl.as_secs()),
                "max_output_tokens": key.max_output_tokens, "metadata": key.metadata, "expires_at": key.expires_at,
                "revoked_at": key.revoked_at, "last_used_at": key.last_used_at, "created_at": key.created_at,
            })
        })
        .collect();
    serde_json::Value::from(rows).to_string()
}
