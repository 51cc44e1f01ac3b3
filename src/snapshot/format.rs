//! A snapshot as text, before it is sealed: one JSON object on each line, the first of which says what it is.
//!
//! What is read back is what was written, or nothing: a line that cannot be understood makes the whole of it unreadable. So
//! a version that knows another shape starts without, instead of with half of it.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use secrecy::ExposeSecret as _;
use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{Facts, Known, KnownConfig, Moment};
use crate::config::{CredentialPath, Fields, Stored};
use crate::domain::budget::calendar::Period;
use crate::domain::budget::{Budget, BudgetId, BudgetScope, BudgetTerms, Enforcement, Unpriced};
use crate::domain::call::ParameterPolicy;
use crate::domain::config::ConfigVersion;
use crate::domain::ids::{KeyId, OrganizationId, TeamId, UserId};
use crate::domain::key::{KeyHash, KeyRow, Named, Revision};
use crate::domain::limit::{LimitKind, LimitRule, LimitScope, LimitValues, WhenApart};
use crate::domain::money::NanoUsd;
use crate::domain::network;
use crate::domain::scope::Scope;

/// Raised with every change of what is below.
const FORMAT: u32 = 1;

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Snapshot(Head),
    Key(Box<KeyLine>),
    Config(ConfigLine),
    Credential(CredentialLine),
    /// Nothing is missing at the end.
    End {},
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    format: u32,
    heard: Option<DateTime<Utc>>,
    keys_revision: Option<i64>,
    configs_revision: Option<i64>,
    replicas: u64,
    credentials_read: Option<DateTime<Utc>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedLine {
    id: Uuid,
    slug: String,
    name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeLine {
    models: Vec<String>,
    providers: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyLine {
    hash: String,
    since: DateTime<Utc>,
    id: Uuid,
    organization: NamedLine,
    shared_credentials: bool,
    team: Option<NamedLine>,
    owner: Option<Uuid>,
    name: String,
    prefix: String,
    scope: ScopeLine,
    scopes: Vec<ScopeLine>,
    rate_limit: u32,
    budgets: Vec<BudgetLine>,
    parameter_policy: Option<String>,
    parameters: Option<String>,
    cache_ttl_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u64>,
    limits: Vec<LimitLine>,
    metadata: Value,
    allowed_ips: Vec<String>,
    disabled: bool,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    previous: Option<(String, DateTime<Utc>)>,
    revision: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BudgetLine {
    id: Uuid,
    organization: Uuid,
    kind: String,
    reference: String,
    label: String,
    amount_nanousd: i64,
    period: String,
    zone: String,
    enforcement: String,
    unpriced: String,
    default_output_tokens: Option<u64>,
    thresholds: Vec<u16>,
    enabled: bool,
    revision: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitLine {
    id: Uuid,
    kind: String,
    reference: String,
    model: Option<String>,
    /// In the order of [`LimitKind::ALL`].
    values: [Option<u64>; LimitKind::ALL.len()],
    when_apart: String,
    enabled: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigLine {
    organization: Uuid,
    slug: String,
    version: i64,
    document: String,
    author: String,
    created_at: DateTime<Utc>,
    active: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CredentialLine {
    path: String,
    fields: Vec<(String, String)>,
}

/// The bytes of everything. They hold secrets, and are wiped when they are dropped.
pub(super) fn write(facts: &Facts) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::new());
    let mut add = |line: &Line| {
        serde_json::to_writer(&mut *bytes, line).expect("text can be written as JSON into memory");
        bytes.push(b'\n');
    };
    let Facts {
        heard,
        keys_revision,
        configs_revision,
        replicas,
        keys,
        configs,
        credentials,
    } = facts;
    add(&Line::Snapshot(Head {
        format: FORMAT,
        heard: heard.map(|heard| heard.calendar),
        keys_revision: keys_revision.map(|revision| revision.0),
        configs_revision: configs_revision.map(|revision| revision.0),
        replicas: *replicas,
        credentials_read: credentials.as_ref().map(|(_, at)| at.calendar),
    }));
    for (hash, known) in keys {
        add(&Line::Key(Box::new(key_line(*hash, known))));
    }
    for known in configs.values() {
        add(&Line::Config(config_line(known)));
    }
    for (path, fields) in credentials.iter().flat_map(|(stored, _)| &stored.credentials) {
        let fields = fields.iter();
        add(&Line::Credential(CredentialLine {
            path: path.to_string(),
            fields: fields
                .map(|(name, value)| (name.to_owned(), value.expose_secret().to_owned()))
                .collect(),
        }));
    }
    add(&Line::End {});
    bytes
}

/// What was written.
pub(super) fn read(bytes: &[u8], now: Moment) -> Result<Facts, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is no text".to_owned())?;
    let mut facts = Facts::default();
    let mut stored = Stored::default();
    let (mut head, mut ended) = (None, false);
    for (number, line) in text.lines().enumerate() {
        // Not the parser's own words: they may quote what is in there.
        let line: Line = serde_json::from_str(line).map_err(|error| {
            format!(
                "line {} is not of this version's shape ({:?})",
                number + 1,
                error.classify()
            )
        })?;
        match line {
            Line::Snapshot(line) if head.is_none() && number == 0 => head = Some(line),
            Line::Key(line) => {
                let (hash, known) = key_of(*line)?;
                facts.keys.insert(hash, known);
            }
            Line::Config(line) => {
                let known = config_of(line);
                facts.configs.insert(known.organization, known);
            }
            Line::Credential(line) => {
                let path = CredentialPath::parse(&line.path).ok_or("the path of a credential is none")?;
                stored
                    .credentials
                    .insert(path, line.fields.into_iter().collect::<Fields>());
            }
            Line::End {} => ended = true,
            Line::Snapshot(_) => return Err(format!("line {} begins another one", number + 1)),
        }
    }
    let head = head.ok_or("its first line is missing")?;
    if head.format != FORMAT {
        return Err(format!(
            "it is of format {}, and this version reads {FORMAT}",
            head.format
        ));
    }
    if !ended {
        return Err("its end is missing".to_owned());
    }
    facts.heard = head.heard.map(|heard| Moment::at(heard, now));
    facts.keys_revision = head.keys_revision.map(Revision);
    facts.configs_revision = head.configs_revision.map(Revision);
    facts.replicas = head.replicas;
    facts.credentials = head
        .credentials_read
        .map(|read| (Arc::new(stored), Moment::at(read, now)));
    Ok(facts)
}

fn named<Id>(named: &Named<Id>, id: Uuid) -> NamedLine {
    NamedLine {
        id,
        slug: named.slug.clone(),
        name: named.name.clone(),
    }
}

fn scope_line(scope: &Scope) -> ScopeLine {
    ScopeLine {
        models: scope.models().to_vec(),
        providers: scope.providers().to_vec(),
    }
}

fn scope_of(line: ScopeLine) -> Scope {
    Scope::new(line.models, line.providers)
}

fn key_line(hash: KeyHash, known: &Known) -> KeyLine {
    // Every field by its name, so that a new one has to be placed.
    let KeyRow {
        id,
        organization,
        shared_credentials,
        team,
        owner,
        name,
        prefix,
        scope,
        scopes,
        rate_limit,
        budgets,
        parameter_policy,
        parameters,
        cache_ttl,
        max_output_tokens,
        limits,
        metadata,
        allowed_ips,
        disabled,
        expires_at,
        revoked_at,
        last_used_at,
        created_at,
        previous,
        revision,
    } = &*known.row;
    let policy = |policy: &Option<ParameterPolicy>| policy.map(|policy| policy.as_str().to_owned());
    KeyLine {
        hash: hash.to_hex(),
        since: known.since,
        id: id.0,
        organization: named(organization, organization.id.0),
        shared_credentials: *shared_credentials,
        team: team.as_ref().map(|team| named(team, team.id.0)),
        owner: owner.map(|owner| owner.0),
        name: name.clone(),
        prefix: prefix.clone(),
        scope: scope_line(scope),
        scopes: scopes.iter().map(|scope| scope_line(scope)).collect(),
        rate_limit: *rate_limit,
        budgets: budgets.iter().map(|budget| budget_line(budget)).collect(),
        parameter_policy: policy(parameter_policy),
        parameters: policy(parameters),
        cache_ttl_ms: cache_ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        max_output_tokens: *max_output_tokens,
        limits: limits.iter().map(limit_line).collect(),
        metadata: metadata.clone(),
        allowed_ips: allowed_ips.iter().map(ToString::to_string).collect(),
        disabled: *disabled,
        expires_at: *expires_at,
        revoked_at: *revoked_at,
        last_used_at: *last_used_at,
        created_at: *created_at,
        previous: previous.map(|(hash, until)| (hash.to_hex(), until)),
        revision: revision.0,
    }
}

fn key_of(line: KeyLine) -> Result<(KeyHash, Known), String> {
    let hash = |hex: &str| KeyHash::from_hex(hex).ok_or_else(|| "the hash of a key is none".to_owned());
    let policy = |name: Option<String>| match name {
        None => Ok(None),
        Some(name) => match ParameterPolicy::of(&name) {
            Some(policy) => Ok(Some(policy)),
            None => Err(format!("there is no parameter policy {name:?}")),
        },
    };
    let networks = line.allowed_ips.iter().map(|network| network::read(network));
    let networks: Result<Vec<_>, String> = networks.collect();
    let budgets: Result<Vec<_>, String> = line.budgets.into_iter().map(budget_of).collect();
    let limits: Result<Vec<_>, String> = line.limits.into_iter().map(limit_of).collect();
    let row = KeyRow {
        id: KeyId(line.id),
        organization: Named {
            id: OrganizationId(line.organization.id),
            slug: line.organization.slug,
            name: line.organization.name,
        },
        shared_credentials: line.shared_credentials,
        team: line.team.map(|team| Named {
            id: TeamId(team.id),
            slug: team.slug,
            name: team.name,
        }),
        owner: line.owner.map(UserId),
        name: line.name,
        prefix: line.prefix,
        scope: scope_of(line.scope),
        scopes: line.scopes.into_iter().map(|scope| Arc::new(scope_of(scope))).collect(),
        rate_limit: line.rate_limit,
        budgets: budgets?.into_iter().map(Arc::new).collect(),
        parameter_policy: policy(line.parameter_policy)?,
        parameters: policy(line.parameters)?,
        cache_ttl: line.cache_ttl_ms.map(Duration::from_millis),
        max_output_tokens: line.max_output_tokens,
        limits: limits?,
        metadata: line.metadata,
        allowed_ips: networks?,
        disabled: line.disabled,
        expires_at: line.expires_at,
        revoked_at: line.revoked_at,
        last_used_at: line.last_used_at,
        created_at: line.created_at,
        previous: match line.previous {
            Some((previous, until)) => Some((hash(&previous)?, until)),
            None => None,
        },
        revision: Revision(line.revision),
    };
    let known = Known {
        row: Arc::new(row),
        since: line.since,
    };
    Ok((hash(&line.hash)?, known))
}

fn budget_line(budget: &Budget) -> BudgetLine {
    let Budget {
        id,
        organization,
        scope,
        label,
        terms,
        revision,
    } = budget;
    let BudgetTerms {
        amount,
        period,
        zone,
        enforcement,
        unpriced,
        default_output_tokens,
        thresholds,
        enabled,
    } = terms;
    BudgetLine {
        id: id.0,
        organization: organization.0,
        kind: scope.kind().to_owned(),
        reference: scope.reference(),
        label: label.clone(),
        amount_nanousd: amount.0,
        period: period.as_str().to_owned(),
        zone: zone.name().to_owned(),
        enforcement: enforcement.as_str().to_owned(),
        unpriced: unpriced.as_str().to_owned(),
        default_output_tokens: *default_output_tokens,
        thresholds: thresholds.to_vec(),
        enabled: *enabled,
        revision: revision.0,
    }
}

fn budget_of(line: BudgetLine) -> Result<Budget, String> {
    let of = |words: &[&'static str], text: &str| words.iter().position(|word| *word == text);
    let enforcement = [Enforcement::Hard, Enforcement::Soft];
    let unpriced = [Unpriced::Refuse, Unpriced::Allow];
    let hard_or_soft = of(&enforcement.map(Enforcement::as_str), &line.enforcement);
    let refuse_or_allow = of(&unpriced.map(Unpriced::as_str), &line.unpriced);
    Ok(Budget {
        id: BudgetId(line.id),
        organization: OrganizationId(line.organization),
        scope: BudgetScope::parse(&line.kind, &line.reference)?,
        label: line.label,
        terms: BudgetTerms {
            amount: NanoUsd(line.amount_nanousd),
            period: Period::parse(&line.period).ok_or("a budget has no such period")?,
            zone: Tz::from_str(&line.zone).map_err(|_| "there is no such time zone")?,
            enforcement: enforcement[hard_or_soft.ok_or("a budget is neither hard nor soft")?],
            unpriced: unpriced[refuse_or_allow.ok_or("a budget neither refuses nor allows")?],
            default_output_tokens: line.default_output_tokens,
            thresholds: line.thresholds.into(),
            enabled: line.enabled,
        },
        revision: Revision(line.revision),
    })
}

fn limit_line(rule: &LimitRule) -> LimitLine {
    let LimitRule {
        id,
        scope,
        values,
        when_apart,
        enabled,
    } = rule;
    let (kind, reference, model) = scope.written();
    LimitLine {
        id: *id,
        kind: kind.to_owned(),
        reference,
        model: model.map(ToOwned::to_owned),
        values: LimitKind::ALL.map(|kind| values.of(kind)),
        when_apart: when_apart.as_str().to_owned(),
        enabled: *enabled,
    }
}

fn limit_of(line: LimitLine) -> Result<LimitRule, String> {
    let scope = LimitScope::parse(&line.kind, &line.reference, line.model.as_deref());
    let mut values = LimitValues::default();
    for (kind, value) in LimitKind::ALL.into_iter().zip(line.values) {
        *values.of_mut(kind) = value;
    }
    Ok(LimitRule {
        id: line.id,
        scope: scope.map_err(|(field, problem)| format!("{field} of a limit {problem}"))?,
        values,
        when_apart: WhenApart::parse(&line.when_apart).ok_or("a limit says nothing of a Redis that is away")?,
        enabled: line.enabled,
    })
}

fn config_line(known: &KnownConfig) -> ConfigLine {
    let ConfigVersion {
        version,
        document,
        author,
        created_at,
        active,
    } = &known.config;
    ConfigLine {
        organization: known.organization.0,
        slug: known.slug.clone(),
        version: *version,
        document: document.clone(),
        author: author.clone(),
        created_at: *created_at,
        active: *active,
    }
}

fn config_of(line: ConfigLine) -> KnownConfig {
    KnownConfig {
        organization: OrganizationId(line.organization),
        slug: line.slug,
        config: ConfigVersion {
            version: line.version,
            document: line.document,
            author: line.author,
            created_at: line.created_at,
            active: line.active,
        },
    }
}
