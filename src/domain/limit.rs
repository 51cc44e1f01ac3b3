//! Limits on how much a key, a team, an organization may ask for, and what is said to those who ask for more.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::ids::{KeyId, OrganizationId, TeamId};
use super::scope::matches;

/// Requests per minute of a key for which nobody said otherwise.
pub const DEFAULT_KEY_REQUESTS: u32 = 60;
/// No limit is higher; beyond it a number is a mistake.
pub const MAX_LIMIT: u64 = 1_000_000_000;

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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LimitOwner {
    /// All of an organization.
    Organization,
    /// All of a team.
    Team(TeamId),
    /// Those of one key.
    Key(KeyId),
    /// Those of each key of the organization that has no limit of its own, each counted alone.
    EachKey,
}

impl LimitOwner {
    /// The word for its kind.
    pub fn word(self) -> &'static str {
        match self {
            Self::Organization => "organization",
            Self::Team(_) => "team",
            Self::Key(_) => "key",
            Self::EachKey => "each_key",
        }
    }

    /// The id that stands for it in an organization.
    pub fn id(self, organization: OrganizationId) -> Uuid {
        match self {
            Self::Organization | Self::EachKey => organization.0,
            Self::Team(team) => team.0,
            Self::Key(key) => key.0,
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
    /// Whether it is about a request for a model that is known by any of `names`.
    pub fn covers<'n>(&self, mut names: impl Iterator<Item = &'n str>) -> bool {
        match &self.model {
            None => true,
            Some(pattern) => names.any(|name| matches(pattern, name)),
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
    let of_this_key = |model: &Option<Arc<str>>| LimitScope {
        owner: LimitOwner::Key(key),
        model: model.clone(),
    };
    for rule in rules.iter().filter(|rule| rule.enabled) {
        let scope = match rule.scope.owner {
            LimitOwner::EachKey => {
                let own = of_this_key(&rule.scope.model);
                if rules.iter().any(|other| other.enabled && other.scope == own) {
                    continue;
                }
                own
            }
            _ => rule.scope.clone(),
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
            LimitOwner::Organization => "this organization",
            LimitOwner::Team(_) => "this key's team",
            LimitOwner::Key(_) | LimitOwner::EachKey => "this key",
        };
        write!(f, "rate limit reached: {whose} may have {limit} {}", kind.words())?;
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
