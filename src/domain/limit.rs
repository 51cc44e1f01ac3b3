//! Limits on how much a key, a team, an organization may ask for, and what is said to those who ask for more.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::ids::{KeyId, OrganizationId, TeamId};
use super::scope::{canonical_provider, matches};

/// Requests per minute of a key for which nobody said otherwise.
pub const DEFAULT_KEY_REQUESTS: u32 = 60;
/// No limit is higher; beyond it a number is a mistake.
pub const MAX_LIMIT: u64 = 1_000_000_000;
/// Longest name of a model, a tag or a provider that a limit can be for, in bytes, as in requests.
pub const MAX_SCOPE_NAME_BYTES: usize = 256;
/// The kinds of scopes a limit can be for.
pub const SCOPE_KINDS: [&str; 7] = ["organization", "team", "key", "each_key", "tag", "provider", "model"];

/// What a limit counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LimitKind {
    /// Requests per minute.
    Requests,
    /// Input tokens per minute.
    InputTokens,
    /// Output tokens per minute.
    OutputTokens,
    /// Input and output tokens together, per minute.
    Tokens,
    /// Requests under way.
    Concurrency,
}

impl LimitKind {
    /// Those that are counted per minute.
    pub const PER_MINUTE: [Self; 4] = [Self::Requests, Self::InputTokens, Self::OutputTokens, Self::Tokens];
    /// Every one.
    pub const ALL: [Self; 5] = [
        Self::Requests,
        Self::InputTokens,
        Self::OutputTokens,
        Self::Tokens,
        Self::Concurrency,
    ];

    /// The text form in metrics, in Redis and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::Tokens => "tokens",
            Self::Concurrency => "concurrency",
        }
    }

    /// Its field in the management API.
    pub fn field(self) -> &'static str {
        match self {
            Self::Requests => "requests_per_minute",
            Self::InputTokens => "input_tokens_per_minute",
            Self::OutputTokens => "output_tokens_per_minute",
            Self::Tokens => "tokens_per_minute",
            Self::Concurrency => "concurrency",
        }
    }

    /// In words, after a number.
    pub fn words(self) -> &'static str {
        match self {
            Self::Requests => "requests per minute",
            Self::InputTokens => "input tokens per minute",
            Self::OutputTokens => "output tokens per minute",
            Self::Tokens => "tokens per minute",
            Self::Concurrency => "requests at a time",
        }
    }
}

/// How much is allowed; `None`: any amount.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LimitValues {
    /// Requests per minute.
    pub requests: Option<u64>,
    /// Input tokens per minute.
    pub input_tokens: Option<u64>,
    /// Output tokens per minute.
    pub output_tokens: Option<u64>,
    /// Input and output tokens together, per minute.
    pub tokens: Option<u64>,
    /// Requests under way.
    pub concurrency: Option<u64>,
}

impl LimitValues {
    /// The limit of one kind.
    pub fn of(&self, kind: LimitKind) -> Option<u64> {
        match kind {
            LimitKind::Requests => self.requests,
            LimitKind::InputTokens => self.input_tokens,
            LimitKind::OutputTokens => self.output_tokens,
            LimitKind::Tokens => self.tokens,
            LimitKind::Concurrency => self.concurrency,
        }
    }

    /// The limit of one kind, to be set.
    pub fn of_mut(&mut self, kind: LimitKind) -> &mut Option<u64> {
        match kind {
            LimitKind::Requests => &mut self.requests,
            LimitKind::InputTokens => &mut self.input_tokens,
            LimitKind::OutputTokens => &mut self.output_tokens,
            LimitKind::Tokens => &mut self.tokens,
            LimitKind::Concurrency => &mut self.concurrency,
        }
    }

    /// The strictest of two, kind by kind.
    #[must_use]
    pub fn strictest(self, other: Self) -> Self {
        let least = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Self {
            requests: least(self.requests, other.requests),
            input_tokens: least(self.input_tokens, other.input_tokens),
            output_tokens: least(self.output_tokens, other.output_tokens),
            tokens: least(self.tokens, other.tokens),
            concurrency: least(self.concurrency, other.concurrency),
        }
    }

    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What becomes of a request while the replicas cannot count together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub enum WhenApart {
    /// Each replica allows its share of the limit.
    #[default]
    Local,
    /// It is refused.
    Closed,
    /// It is let through.
    Open,
}

impl WhenApart {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Local, Self::Closed, Self::Open];

    /// The text form in the database and in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Closed => "closed",
            Self::Open => "open",
        }
    }

    /// The one with a text form.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == text)
    }
}

/// Whose requests are counted together.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LimitOwner {
    /// All of an organization.
    Organization,
    /// All of a team.
    Team(TeamId),
    /// Those of one key.
    Key(KeyId),
    /// Those of each key of the organization that has no limit of its own, each counted alone.
    EachKey,
    /// Those of the keys that have this pair in their metadata, written `name=value`.
    Tag(Arc<str>),
    /// Those of the organization that go to this provider first. A limit of this kind is never about a model alone.
    Provider(Arc<str>),
}

impl LimitOwner {
    /// The word for its kind.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Organization => "organization",
            Self::Team(_) => "team",
            Self::Key(_) => "key",
            Self::EachKey => "each_key",
            Self::Tag(_) => "tag",
            Self::Provider(_) => "provider",
        }
    }

    /// The id that stands for it in an organization.
    pub fn id(&self, organization: OrganizationId) -> Uuid {
        match self {
            Self::Organization | Self::EachKey | Self::Tag(_) | Self::Provider(_) => organization.0,
            Self::Team(team) => team.0,
            Self::Key(key) => key.0,
        }
    }

    /// The name that stands for it where no id does.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Tag(name) | Self::Provider(name) => Some(name),
            Self::Organization | Self::Team(_) | Self::Key(_) | Self::EachKey => None,
        }
    }
}

/// What a limit is about: an owner's requests, or those of them that ask for certain models.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LimitScope {
    /// Whose.
    pub owner: LimitOwner,
    /// For which models: a name or a glob. `None`: all. What a glob matches is counted together.
    pub model: Option<Arc<str>>,
}

impl LimitScope {
    /// Whether it is about a request for a model that is known by any of `names`, and goes to `provider` first.
    pub fn covers<'n>(&self, mut names: impl Iterator<Item = &'n str>, provider: Option<&str>) -> bool {
        if let LimitOwner::Provider(own) = &self.owner {
            return provider == Some(own);
        }
        match &self.model {
            None => true,
            Some(pattern) => names.any(|name| matches(pattern, name)),
        }
    }
}

impl LimitScope {
    /// The scope that these texts mean: its kind as people name it, which one of its kind, and the models it is about.
    /// `model` is a kind of its own: an organization's requests for what `reference` names.
    ///
    /// # Errors
    /// What is wrong, with the field it is about: `scope`, `reference` or `model`.
    pub fn parse(kind: &str, reference: &str, model: Option<&str>) -> Result<Self, (&'static str, String)> {
        let name = |text: &str, what: &str| -> Result<Arc<str>, String> {
            let fits = !text.trim().is_empty() && text.len() <= MAX_SCOPE_NAME_BYTES;
            match fits && !text.chars().any(char::is_control) {
                true => Ok(text.into()),
                false => Err(format!("{what} has 1 to {MAX_SCOPE_NAME_BYTES} printable characters")),
            }
        };
        let id = || {
            reference
                .parse::<Uuid>()
                .map_err(|_| ("reference", format!("{reference:?} is not the id of a {kind}")))
        };
        let none = |owner| match reference.is_empty() {
            true => Ok(owner),
            false => Err(("reference", format!("must be left out for the scope {kind}"))),
        };
        let of_reference = |what| name(reference, what).map_err(|problem| ("reference", problem));
        let owner = match kind {
            "organization" => none(LimitOwner::Organization)?,
            "each_key" => none(LimitOwner::EachKey)?,
            "team" => LimitOwner::Team(TeamId(id()?)),
            "key" => LimitOwner::Key(KeyId(id()?)),
            "tag" if reference.contains('=') => LimitOwner::Tag(of_reference("a tag")?),
            "tag" => return Err(("reference", format!("a tag is written name=value, not {reference:?}"))),
            "provider" => LimitOwner::Provider(canonical_provider(&of_reference("a provider")?).into()),
            "model" if model.is_some() => return Err(("model", "is what reference says already".to_owned())),
            "model" => {
                return Ok(Self {
                    owner: LimitOwner::Organization,
                    model: Some(of_reference("a model")?),
                });
            }
            _ => return Err(("scope", format!("must be one of {}", SCOPE_KINDS.join(", ")))),
        };
        if model.is_some() && owner.name().is_some() {
            return Err(("model", format!("a limit for a {kind} is about all models")));
        }
        let model = model.map(|model| name(model, "a model")).transpose();
        Ok(Self {
            owner,
            model: model.map_err(|problem| ("model", problem))?,
        })
    }

    /// The three texts that [`LimitScope::parse`] reads.
    pub fn written(&self) -> (&'static str, String, Option<&str>) {
        let model = self.model.as_deref();
        match &self.owner {
            LimitOwner::Organization if model.is_some() => ("model", model.unwrap_or_default().to_owned(), None),
            LimitOwner::Organization | LimitOwner::EachKey => (self.owner.word(), String::new(), model),
            LimitOwner::Team(TeamId(id)) | LimitOwner::Key(KeyId(id)) => (self.owner.word(), id.to_string(), model),
            LimitOwner::Tag(name) | LimitOwner::Provider(name) => (self.owner.word(), name.to_string(), model),
        }
    }
}

/// A limit as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitRule {
    /// Its id.
    pub id: Uuid,
    /// What it is about.
    pub scope: LimitScope,
    /// How much is allowed.
    pub values: LimitValues,
    /// What becomes of requests while Redis is away.
    pub when_apart: WhenApart,
    /// Whether it is in force.
    pub enabled: bool,
}

impl LimitRule {
    /// The limit as the audit log keeps it.
    pub fn recorded(&self) -> Value {
        let (scope, reference, model) = self.scope.written();
        let mut state = json!({
            "scope": scope,
            "reference": reference,
            "model": model,
            "when_redis_is_away": self.when_apart.as_str(),
            "enabled": self.enabled,
        });
        for kind in LimitKind::ALL {
            state[kind.field()] = self.values.of(kind).into();
        }
        state
    }
}

/// Everything that limits one scope of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// What it is about.
    pub scope: LimitScope,
    /// How much is allowed.
    pub values: LimitValues,
    /// What becomes of requests while Redis is away; `None`: as everywhere.
    pub when_apart: Option<WhenApart>,
}

/// What limits a key: its own requests per minute, and the rules in force for it. Each scope is there once. What is said
/// of each key holds for this one unless something is said of it alone.
pub fn applied(key: KeyId, requests: u32, rules: &[LimitRule]) -> Vec<Applied> {
    let own = LimitValues {
        requests: Some(requests.into()),
        ..LimitValues::default()
    };
    let mut all = vec![Applied {
        scope: LimitScope {
            owner: LimitOwner::Key(key),
            model: None,
        },
        values: own,
        when_apart: None,
    }];
    for rule in rules {
        let Some(scope) = scope_for(key, rule, rules) else {
            continue;
        };
        match all.iter_mut().find(|known| known.scope == scope) {
            Some(known) => {
                known.values = known.values.strictest(rule.values);
                known.when_apart = Some(rule.when_apart);
            }
            None => all.push(Applied {
                scope,
                values: rule.values,
                when_apart: Some(rule.when_apart),
            }),
        }
    }
    all
}

/// The rules that a limit of a key is made of, of those in force for it.
pub fn behind<'r>(key: KeyId, scope: &LimitScope, rules: &'r [LimitRule]) -> impl Iterator<Item = &'r LimitRule> {
    rules
        .iter()
        .filter(move |rule| scope_for(key, rule, rules).as_ref() == Some(scope))
}

/// What a rule counts together where a key's requests are concerned; `None`: it is not in force for them.
fn scope_for(key: KeyId, rule: &LimitRule, rules: &[LimitRule]) -> Option<LimitScope> {
    if !rule.enabled {
        return None;
    }
    if rule.scope.owner != LimitOwner::EachKey {
        return Some(rule.scope.clone());
    }
    let own = LimitScope {
        owner: LimitOwner::Key(key),
        model: rule.scope.model.clone(),
    };
    let said = rules.iter().any(|other| other.enabled && other.scope == own);
    (!said).then_some(own)
}

/// What one request asks of the limits.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Demand {
    /// Input tokens.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
}

impl Demand {
    /// How much of one kind it is.
    pub fn of(&self, kind: LimitKind) -> u64 {
        match kind {
            LimitKind::Requests | LimitKind::Concurrency => 1,
            LimitKind::InputTokens => self.input_tokens,
            LimitKind::OutputTokens => self.output_tokens,
            LimitKind::Tokens => self.input_tokens.saturating_add(self.output_tokens),
        }
    }
}

/// A limit was reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reached {
    /// What it counts.
    pub kind: LimitKind,
    /// Whose.
    pub scope: LimitScope,
    /// How much is allowed.
    pub limit: u64,
    /// How much counts now.
    pub used: u64,
    /// How much the request would need.
    pub need: u64,
    /// When it would fit; `None`: never, because it is more than the whole limit.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            scope,
            limit,
            used,
            need,
            retry_after,
        } = self;
        let whose = match scope.owner {
            LimitOwner::Organization | LimitOwner::Provider(_) => "this organization",
            LimitOwner::Team(_) => "this key's team",
            LimitOwner::Key(_) | LimitOwner::EachKey => "this key",
            LimitOwner::Tag(_) => "all keys with this key's tag",
        };
        write!(f, "rate limit reached: {whose} may have {limit} {}", kind.words())?;
        match &scope.owner {
            LimitOwner::Tag(tag) => write!(f, " for the tag {tag}")?,
            LimitOwner::Provider(provider) => write!(f, " at the provider {provider}")?,
            LimitOwner::Organization | LimitOwner::Team(_) | LimitOwner::Key(_) | LimitOwner::EachKey => {}
        }
        if let Some(model) = &scope.model {
            write!(f, " for the model {model}")?;
        }
        match (kind, retry_after) {
            (LimitKind::Concurrency, _) => write!(f, ", and has {used} under way"),
            (_, None) => write!(
                f,
                ", and this request alone needs {need}; make it shorter or ask for fewer tokens"
            ),
            (LimitKind::Requests, Some(wait)) => {
                write!(f, ", and has used {used}; try again in {}", short_duration(*wait))
            }
            (_, Some(wait)) => write!(
                f,
                ", has used {used} and needs {need} more; try again in {}",
                short_duration(*wait)
            ),
        }
    }
}

/// Where a limit stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// How much is allowed.
    pub limit: u64,
    /// How much is left.
    pub remaining: u64,
    /// When everything is, if nothing else is asked for.
    pub resets_in: Duration,
}

impl Standing {
    /// The one that is nearer to its limit.
    fn tighter(self, other: Self) -> Self {
        if (other.remaining, other.limit) < (self.remaining, self.limit) {
            other
        } else {
            self
        }
    }
}

/// Where the limits of one request stand: of those for requests and of those for tokens, the ones nearest to refusing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Standings {
    /// Requests per minute.
    pub requests: Option<Standing>,
    /// Tokens per minute, of whichever kind.
    pub tokens: Option<Standing>,
}

impl Standings {
    /// Adds one limit.
    pub fn add(&mut self, kind: LimitKind, standing: Standing) {
        let place = match kind {
            LimitKind::Requests => &mut self.requests,
            LimitKind::InputTokens | LimitKind::OutputTokens | LimitKind::Tokens => &mut self.tokens,
            LimitKind::Concurrency => return,
        };
        *place = Some(place.map_or(standing, |other| other.tighter(standing)));
    }
}

/// A replica's part of a limit that replicas cannot count together. Never nothing, or a low limit would be none.
pub fn share_of(limit: u64, replicas: u64) -> u64 {
    (limit / replicas.max(1)).max(1).min(limit)
}

/// A duration as OpenAI writes it in its headers, which is as Go writes it: `12ms`, `1.5s`, `6m0s`, `1h2m3s`. To the
/// millisecond, rounded up.
pub fn short_duration(duration: Duration) -> String {
    let ms = duration.as_nanos().div_ceil(1_000_000);
    if ms < 1_000 && ms > 0 {
        return format!("{ms}ms");
    }
    let (seconds, rest) = (ms / 1_000, ms % 1_000);
    let mut text = String::new();
    if seconds >= 3_600 {
        text = format!("{}h", seconds / 3_600);
    }
    if seconds >= 60 {
        text.push_str(&format!("{}m", seconds / 60 % 60));
    }
    text.push_str(&(seconds % 60).to_string());
    if rest > 0 {
        text.push_str(format!(".{rest:03}").trim_end_matches('0'));
    }
    text.push('s');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_openai_writes_them() {
        let written = |ms| short_duration(Duration::from_millis(ms));
        for (ms, text) in [
            (0, "0s"),
            (12, "12ms"),
            (1_000, "1s"),
            (8_640, "8.64s"),
            (60_500, "1m0.5s"),
            (360_000, "6m0s"),
            (3_723_000, "1h2m3s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(written(ms), text);
        }
        assert_eq!(short_duration(Duration::from_micros(10)), "1ms", "never too early");
    }

    #[test]
    fn the_strictest_wins_kind_by_kind() {
        let own = LimitValues {
            requests: Some(60),
            concurrency: Some(5),
            ..LimitValues::default()
        };
        let row = LimitValues {
            requests: Some(100),
            concurrency: Some(2),
            tokens: Some(1_000),
            ..LimitValues::default()
        };
        let both = own.strictest(row);
        assert_eq!(both, row.strictest(own));
        assert_eq!(
            (both.requests, both.concurrency, both.tokens),
            (Some(60), Some(2), Some(1_000))
        );
    }

    #[test]
    fn what_is_said_of_each_key_holds_unless_something_is_said_of_this_one() {
        let key = KeyId(Uuid::from_u128(1));
        let rule = |owner, requests, concurrency| LimitRule {
            id: Uuid::nil(),
            scope: LimitScope { owner, model: None },
            values: LimitValues {
                requests: Some(requests),
                concurrency,
                ..LimitValues::default()
            },
            when_apart: WhenApart::Closed,
            enabled: true,
        };
        let each = rule(LimitOwner::EachKey, 30, Some(2));
        let of_organization = rule(LimitOwner::Organization, 500, None);
        let all = applied(key, 60, &[each.clone(), of_organization.clone()]);
        assert_eq!(all.len(), 2, "a key's own limits are one scope");
        assert_eq!(all[0].scope.owner, LimitOwner::Key(key));
        assert_eq!((all[0].values.requests, all[0].values.concurrency), (Some(30), Some(2)));
        assert_eq!(all[0].when_apart, Some(WhenApart::Closed));

        let own = rule(LimitOwner::Key(key), 50, None);
        let all = applied(key, 60, &[each.clone(), own.clone(), of_organization]);
        assert_eq!((all[0].values.requests, all[0].values.concurrency), (Some(50), None));
        let off = LimitRule { enabled: false, ..own };
        assert_eq!(applied(key, 60, &[off, each])[0].values.requests, Some(30));
        assert_eq!(applied(key, 60, &[])[0].values.requests, Some(60));
    }

    #[test]
    fn shares_add_up_to_no_more_than_the_limit_unless_there_are_more_replicas_than_requests() {
        for limit in 1..200 {
            for replicas in 1..20 {
                let all = share_of(limit, replicas) * replicas;
                assert!(all <= limit.max(replicas), "{limit} over {replicas}");
            }
        }
        assert_eq!(share_of(0, 3), 0, "a limit of nothing is nothing");
    }

    #[test]
    fn a_scope_survives_being_written_and_read() {
        let id = Uuid::from_u128(7);
        for owner in [
            LimitOwner::Organization,
            LimitOwner::EachKey,
            LimitOwner::Team(TeamId(id)),
            LimitOwner::Key(KeyId(id)),
            LimitOwner::Tag("cost-center=42".into()),
            LimitOwner::Provider("aws".into()),
        ] {
            for model in [None, Some("gpt-*")] {
                let scope = LimitScope {
                    owner: owner.clone(),
                    model: model.map(Into::into),
                };
                let (kind, reference, model) = scope.written();
                match LimitScope::parse(kind, &reference, model) {
                    Ok(read) => assert_eq!(read, scope),
                    Err((field, _)) => assert!(field == "model" && owner.name().is_some(), "{kind} {reference}"),
                }
            }
        }
        for (kind, reference, model, field) in [
            ("user", "x", None, "scope"),
            ("organization", "acme", None, "reference"),
            ("key", "bn-abc", None, "reference"),
            ("tag", "blue", None, "reference"),
            ("model", "", None, "reference"),
            ("model", "gpt-4o", Some("gpt-4o"), "model"),
            ("provider", "openai", Some("gpt-4o"), "model"),
            ("organization", "", Some("a\nb"), "model"),
        ] {
            assert_eq!(
                LimitScope::parse(kind, reference, model).unwrap_err().0,
                field,
                "{kind} {reference}"
            );
        }
    }

    #[test]
    fn a_limit_at_a_provider_is_about_what_goes_there_first() {
        let scope = LimitScope::parse("provider", "bedrock", None).unwrap();
        assert!(scope.covers(["m"].into_iter(), Some("aws")));
        assert!(!scope.covers(["m"].into_iter(), Some("openai")));
        assert!(!scope.covers(["m"].into_iter(), None));
    }

    #[test]
    fn the_standing_that_is_shown_is_the_one_nearest_to_refusing() {
        let standing = |limit, remaining| Standing {
            limit,
            remaining,
            resets_in: Duration::ZERO,
        };
        let mut shown = Standings::default();
        shown.add(LimitKind::Requests, standing(60, 50));
        shown.add(LimitKind::Requests, standing(1_000, 3));
        shown.add(LimitKind::Concurrency, standing(1, 0));
        shown.add(LimitKind::InputTokens, standing(10_000, 900));
        shown.add(LimitKind::Tokens, standing(900, 900));
        assert_eq!(shown.requests, Some(standing(1_000, 3)));
        assert_eq!(shown.tokens, Some(standing(900, 900)));
    }

    #[test]
    fn a_refusal_names_the_limit_its_scope_its_number_and_the_wait() {
        let mut reached = Reached {
            kind: LimitKind::Requests,
            scope: LimitScope {
                owner: LimitOwner::Organization,
                model: Some("gpt-*".into()),
            },
            limit: 60,
            used: 60,
            need: 1,
            retry_after: Some(Duration::from_millis(12_345)),
        };
        assert_eq!(
            reached.to_string(),
            "rate limit reached: this organization may have 60 requests per minute for the model gpt-*, and has used 60; \
             try again in 12.345s"
        );
        reached.kind = LimitKind::Tokens;
        reached.need = 90;
        reached.scope.model = None;
        reached.retry_after = None;
        assert_eq!(
            reached.to_string(),
            "rate limit reached: this organization may have 60 tokens per minute, and this request alone needs 90; make it \
             shorter or ask for fewer tokens"
        );
    }
}
