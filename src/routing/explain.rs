//! A decision in the words that explanations and records show.

use serde::Serialize;

use super::plan::{Attempt, Decision, Exclusion, NoPlan, Stage};
use super::strategy::{Parts, Strategy};
use crate::domain::ids::DeploymentId;

/// Most bytes of the reasons that a record keeps.
pub const MAX_RECORDED_BYTES: usize = 4_096;

/// Why a request goes where it goes.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Reasons {
    /// The version of the organization's config; 0: it has none.
    pub config_version: i64,
    /// The strategy that ordered the deployments.
    pub strategy: Strategy,
    /// The rules that held, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// What is tried, in order; after a failure of its class, what has a stage of that class.
    pub attempts: Vec<AttemptReason>,
    /// What is not, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<ExclusionReason>,
    /// Why nothing is tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// Deployments that are not shown, because a record keeps only so much.
    #[serde(skip_serializing_if = "is_none")]
    pub omitted: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_none(number: &usize) -> bool {
    *number == 0
}

/// Why a deployment stands where it stands.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct AttemptReason {
    /// The deployment.
    pub deployment: String,
    /// When it is tried.
    pub stage: Stage,
    /// What its score is made of.
    #[serde(flatten)]
    pub parts: Parts,
}

/// Why a deployment is left out.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ExclusionReason {
    /// The deployment.
    pub deployment: String,
    /// Why.
    pub reason: Exclusion,
    /// What it was measured by, where it came so far.
    #[serde(flatten)]
    pub parts: Option<Parts>,
}

/// Why nothing is tried.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Refusal {
    /// What kind of refusal it is: `not_found`, `not_allowed`, `left_out` or `denied`.
    pub kind: &'static str,
    /// In words.
    pub message: String,
}

impl Reasons {
    /// The reasons of a decision.
    pub fn of(decision: &Decision<'_>) -> Self {
        let attempt = |attempt: &Attempt| AttemptReason {
            deployment: attempt.deployment.id.to_string(),
            stage: attempt.stage,
            parts: attempt.parts.clone(),
        };
        let excluded = decision.excluded.iter().map(|excluded| ExclusionReason {
            deployment: excluded.deployment.to_string(),
            reason: excluded.reason,
            parts: excluded.parts.clone(),
        });
        Self {
            config_version: decision.version,
            strategy: decision.strategy,
            rules: decision.rules.iter().map(|&name| name.to_owned()).collect(),
            attempts: decision.attempts.iter().map(attempt).collect(),
            excluded: excluded.collect(),
            refusal: decision.refusal.as_ref().map(Refusal::of),
            omitted: 0,
        }
    }

    /// The form a record keeps: JSON of at most [`MAX_RECORDED_BYTES`]. What comes last is left out first.
    pub fn recorded(mut self) -> Box<str> {
        loop {
            let text = serde_json::to_string(&self).expect("texts and finite numbers always serialise");
            if text.len() <= MAX_RECORDED_BYTES {
                return text.into();
            }
            // Halved rather than shortened by one: each round writes everything once more.
            let before = self.excluded.len() + self.attempts.len() + self.rules.len();
            if !self.excluded.is_empty() {
                self.excluded.truncate(self.excluded.len() / 2);
            } else if self.attempts.len() > 1 {
                self.attempts.truncate(self.attempts.len() / 2);
            } else if !self.rules.is_empty() {
                self.rules.truncate(self.rules.len() / 2);
            } else {
                self.attempts.clear();
                self.refusal = None;
            }
            self.omitted += before - (self.excluded.len() + self.attempts.len() + self.rules.len());
        }
    }
}

impl Refusal {
    fn of(refusal: &NoPlan) -> Self {
        let message = match refusal {
            NoPlan::NotFound { model } => format!("no configured provider serves {model:?}"),
            NoPlan::NotAllowed => {
                "the scopes exclude everything that serves the model, or there is no credential".to_owned()
            }
            NoPlan::LeftOut(why) => format!("the config leaves nothing that may serve: {}", why.in_words()),
            NoPlan::Denied { rule, reason } => format!("rule {rule:?}: {reason}"),
        };
        Self {
            kind: refusal.kind(),
            message,
        }
    }
}

/// A decision in a few words and numbers, for traces and metrics.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The strategy that decided.
    pub strategy: Strategy,
    /// In one word: `planned`, or the kind of the refusal.
    pub result: &'static str,
    /// Deployments that were considered.
    pub candidates: usize,
    /// The one that is asked first.
    pub chosen: Option<DeploymentId>,
    /// How many were left out for each reason.
    pub excluded: [(Exclusion, usize); Exclusion::ALL.len()],
}

impl Summary {
    /// The summary of a decision.
    pub fn of(decision: &Decision<'_>) -> Self {
        let of_reason = |reason| decision.excluded.iter().filter(|one| one.reason == reason).count();
        Self {
            strategy: decision.strategy,
            result: decision.refusal.as_ref().map_or("planned", NoPlan::kind),
            candidates: decision.attempts.len() + decision.excluded.len(),
            chosen: decision.attempts.first().map(|attempt| attempt.deployment.id.clone()),
            excluded: Exclusion::ALL.map(|reason| (reason, of_reason(reason))),
        }
    }

    /// The reasons that left anything out, each with how many: `scope=2`.
    pub fn reasons(&self) -> Vec<String> {
        let some = self.excluded.iter().filter(|(_, count)| *count > 0);
        some.map(|(reason, count)| format!("{}={count}", reason.as_str()))
            .collect()
    }
}

impl NoPlan {
    /// In one word.
    fn kind(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::NotAllowed => "not_allowed",
            Self::LeftOut(_) => "left_out",
            Self::Denied { .. } => "denied",
        }
    }
}

impl Exclusion {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Scope,
        Self::NoCredential,
        Self::ProviderOff,
        Self::PinnedElsewhere,
        Self::Residency,
        Self::ContextWindow,
        Self::AttemptLimit,
    ];

    /// In one word, as records have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scope => "scope",
            Self::NoCredential => "no_credential",
            Self::ProviderOff => "provider_off",
            Self::PinnedElsewhere => "pinned_elsewhere",
            Self::Residency => "residency",
            Self::ContextWindow => "context_window",
            Self::AttemptLimit => "attempt_limit",
        }
    }

    /// In words, for callers and people.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Scope => "a scope excludes it",
            Self::NoCredential => "the organization has no credential for its provider",
            Self::ProviderOff => "its provider is switched off",
            Self::PinnedElsewhere => "a rule lets only others serve",
            Self::Residency => "it is not, or not surely, where the organization's requests may be served",
            Self::ContextWindow => "the prompt does not fit",
            Self::AttemptLimit => "enough others come before it",
        }
    }
}
