//! Budgets: how much money an organization, a team, a key, a tag, a provider or a model may use up in a period.
//!
//! Everything here is pure; time is passed in. [`calendar`] says when a period begins and ends, [`purse`] is the state
//! machine of one replica's part of a budget and the arithmetic of the database's part, [`worst_case`] says what a call
//! can cost at most, [`refusal`] says no. The rules as people read them are in `docs/budgets.md`.

pub mod calendar;
pub mod purse;
pub mod refusal;
pub mod worst_case;

use std::fmt;

use chrono_tz::Tz;
use serde_json::{Value, json};
use smallvec::SmallVec;
use uuid::Uuid;

use super::ids::{KeyId, ModelName, OrganizationId, ProviderId, TeamId};
use super::key::Revision;
use super::money::NanoUsd;
use super::record::{AttemptRecord, UsageRecord};
use super::scope::canonical_provider;
use calendar::Period;

/// Percentages at which an event is raised, unless somebody says otherwise.
pub const DEFAULT_THRESHOLDS: [u16; 3] = [50, 80, 100];
/// Thresholds that one budget may have.
pub const MAX_THRESHOLDS: usize = 10;
/// The highest threshold: a budget that is ten times overspent is known to be.
pub const MAX_THRESHOLD: u16 = 1_000;
/// Longest name of a tag, provider or model that a budget can be for.
const MAX_NAME_BYTES: usize = 256;

/// A budget.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BudgetId(pub Uuid);

impl fmt::Display for BudgetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a budget is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BudgetScope {
    /// Everything of the organization.
    Organization,
    /// Everything of a team's keys.
    Team(TeamId),
    /// Everything of a key.
    Key(KeyId),
    /// Everything of the keys that have this pair in their metadata, written `name=value`.
    Tag(String),
    /// What the organization spends at a provider.
    Provider(ProviderId),
    /// What the organization spends on a model, by its name in the catalogue.
    Model(ModelName),
}

impl BudgetScope {
    /// The kinds, as the database and the metrics name them.
    pub const KINDS: [&str; 6] = ["organization", "team", "key", "tag", "provider", "model"];

    /// Which kind it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Organization => "organization",
            Self::Team(_) => "team",
            Self::Key(_) => "key",
            Self::Tag(_) => "tag",
            Self::Provider(_) => "provider",
            Self::Model(_) => "model",
        }
    }

    /// Which one of its kind, as the database keeps it; empty for the organization.
    pub fn reference(&self) -> String {
        match self {
            Self::Organization => String::new(),
            Self::Team(TeamId(id)) | Self::Key(KeyId(id)) => id.to_string(),
            Self::Tag(tag) => tag.clone(),
            Self::Provider(provider) => provider.to_string(),
            Self::Model(model) => model.to_string(),
        }
    }

    /// The scope that these two texts mean.
    ///
    /// # Errors
    /// Says what is wrong with them.
    pub fn parse(kind: &str, reference: &str) -> Result<Self, String> {
        let id = || {
            reference
                .parse::<Uuid>()
                .map_err(|_| format!("{reference:?} is not the id of a {kind}"))
        };
        let name = || {
            let fits = !reference.is_empty() && reference.len() <= MAX_NAME_BYTES;
            match fits && !reference.chars().any(char::is_control) {
                true => Ok(reference),
                false => Err(format!("a {kind} has a name of 1 to {MAX_NAME_BYTES} printable bytes")),
            }
        };
        match kind {
            "organization" if reference.is_empty() => Ok(Self::Organization),
            "organization" => Err("the organization is not named again in the scope".to_owned()),
            "team" => Ok(Self::Team(TeamId(id()?))),
            "key" => Ok(Self::Key(KeyId(id()?))),
            "tag" if name()?.contains('=') => Ok(Self::Tag(reference.to_owned())),
            "tag" => Err(format!("a tag is written name=value, not {reference:?}")),
            "provider" => Ok(Self::Provider(canonical_provider(name()?).into())),
            "model" => Ok(Self::Model(name()?.into())),
            _ => Err(format!("a scope is one of {}", Self::KINDS.join(", "))),
        }
    }

    /// Whether it is about who serves a call, and not about whose call it is.
    pub fn is_of_deployments(&self) -> bool {
        matches!(self, Self::Provider(_) | Self::Model(_))
    }

    /// Whether an attempt at this deployment counts, for a call of somebody the budget is for.
    pub fn covers(&self, provider: &ProviderId, model: &ModelName) -> bool {
        match self {
            Self::Provider(own) => own == provider,
            Self::Model(own) => own == model,
            Self::Organization | Self::Team(_) | Self::Key(_) | Self::Tag(_) => true,
        }
    }

    /// What of a call counts, for a call of somebody the budget is for: the known costs of its attempts.
    pub fn counted(&self, record: &UsageRecord) -> NanoUsd {
        self.charged(&record.attempts)
    }

    /// What of these attempts counts. A cost that nobody knows cannot.
    pub fn charged(&self, attempts: &[AttemptRecord]) -> NanoUsd {
        let counted = attempts
            .iter()
            .filter(|attempt| self.covers(&attempt.provider, &attempt.model));
        NanoUsd(counted.fold(0, |sum: i64, attempt| {
            sum.saturating_add(attempt.charge.cost.unwrap_or_default().0)
        }))
    }
}

/// What becomes of calls when a budget is used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Enforcement {
    /// They are refused.
    Hard,
    /// They are served; events are all there is.
    Soft,
}

impl Enforcement {
    /// The text form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Soft => "soft",
        }
    }
}

/// What becomes of calls whose cost nobody can know, because the deployment has no price.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unpriced {
    /// A hard budget refuses them: it could not be held.
    Refuse,
    /// They are served and do not count.
    Allow,
}

impl Unpriced {
    /// The text form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Allow => "allow",
        }
    }
}

/// A budget as somebody sets it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BudgetTerms {
    /// How much.
    pub amount: NanoUsd,
    /// In which period.
    pub period: Period,
    /// Whose calendar.
    pub zone: Tz,
    /// Whether calls are refused.
    pub enforcement: Enforcement,
    /// What becomes of calls without a price.
    pub unpriced: Unpriced,
    /// Tokens of an answer where the caller names no limit of its own; they are written into the call.
    pub default_output_tokens: Option<u64>,
    /// Percentages at which an event is raised, in rising order.
    pub thresholds: SmallVec<[u16; 4]>,
    /// Whether it is in force. One that is not still counts.
    pub enabled: bool,
}

impl BudgetTerms {
    /// The terms as the audit log keeps them.
    pub fn recorded(&self) -> Value {
        json!({
            "amount_usd": self.amount.to_string(),
            "period": self.period.as_str(),
            "time_zone": self.zone.name(),
            "enforcement": self.enforcement.as_str(),
            "unpriced": self.unpriced.as_str(),
            "default_output_tokens": self.default_output_tokens,
            "thresholds": self.thresholds.as_slice(),
            "enabled": self.enabled,
        })
    }

    /// Says what is wrong with them, if anything is.
    ///
    /// # Errors
    /// The first fault: which field of a budget, as the API names it, and a sentence without its subject.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let thresholds = |problem: String| Err(("thresholds", problem));
        if self.amount.0 <= 0 {
            return Err(("amount_usd", "must be more than nothing".to_owned()));
        }
        if self.thresholds.len() > MAX_THRESHOLDS {
            return thresholds(format!("must be at most {MAX_THRESHOLDS}"));
        }
        if self
            .thresholds
            .iter()
            .any(|&percent| percent == 0 || percent > MAX_THRESHOLD)
        {
            return thresholds(format!("must lie between 1 and {MAX_THRESHOLD} percent"));
        }
        if !self.thresholds.is_sorted_by(|lower, higher| lower < higher) {
            return thresholds("must rise, and none may be there twice".to_owned());
        }
        if self.default_output_tokens == Some(0) {
            return Err(("default_output_tokens", "must be at least 1".to_owned()));
        }
        Ok(())
    }
}

/// A budget as it is in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Its id.
    pub id: BudgetId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// What it is for.
    pub scope: BudgetScope,
    /// What it is for, as people call it: `key "search"`.
    pub label: String,
    /// How much, and how.
    pub terms: BudgetTerms,
    /// The number of its last change.
    pub revision: Revision,
}

impl Budget {
    /// Whether it can refuse a call.
    pub fn refuses(&self) -> bool {
        self.terms.enabled && self.terms.enforcement == Enforcement::Hard
    }
}

/// The highest of the thresholds that so much of an amount reaches; `None` where it reaches none.
pub fn reached(thresholds: &[u16], amount: NanoUsd, spent: NanoUsd) -> Option<u16> {
    let reaches = |&&percent: &&u16| i128::from(spent.0) * 100 >= i128::from(amount.0) * i128::from(percent);
    thresholds.iter().filter(reaches).max().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_survives_being_written_and_read() {
        let id = Uuid::from_u128(7);
        for scope in [
            BudgetScope::Organization,
            BudgetScope::Team(TeamId(id)),
            BudgetScope::Key(KeyId(id)),
            BudgetScope::Tag("cost-center=42".into()),
            BudgetScope::Provider("openai".into()),
            BudgetScope::Model("gpt-4o".into()),
        ] {
            assert_eq!(BudgetScope::parse(scope.kind(), &scope.reference()), Ok(scope));
        }
        assert_eq!(
            BudgetScope::parse("provider", "bedrock"),
            Ok(BudgetScope::Provider("aws".into())),
            "a synonym means the provider"
        );
    }

    #[test]
    fn what_is_no_scope_is_refused_with_its_reason() {
        for (kind, reference) in [
            ("key", "search"),
            ("tag", "blue"),
            ("model", ""),
            ("organization", "acme"),
            ("user", "x"),
            ("provider", "a\nb"),
        ] {
            assert!(BudgetScope::parse(kind, reference).is_err(), "{kind} {reference}");
        }
    }

    #[test]
    fn a_threshold_is_reached_by_exactly_its_part() {
        let spent = |nano| reached(&DEFAULT_THRESHOLDS, NanoUsd(1_000), NanoUsd(nano));
        assert_eq!((spent(499), spent(500), spent(799)), (None, Some(50), Some(50)));
        assert_eq!(
            (spent(999), spent(1_000), spent(i64::MAX)),
            (Some(80), Some(100), Some(100))
        );
    }
}
