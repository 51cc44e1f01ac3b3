//! The record of one request: what the ledger, the log and the bill are made of.
//!
//! One request has one record with one entry for each attempt. It carries no prompt, no answer and no secret.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::call::{CacheStatus, Dialect, ErrorClass, Operation};
use super::ids::{DeploymentId, KeyId, ModelName, OrganizationId, PriceVersion, ProviderId, RequestId, TeamId};
use super::money::NanoUsd;
use super::trace::TraceContext;
use super::usage::{TokenUsage, UsageSource};

/// Who a request belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The organization that pays.
    pub organization: OrganizationId,
    /// The key's team, if it has one.
    pub team: Option<TeamId>,
    /// The key that was used.
    pub key: KeyId,
}

/// Everything that is kept of one request.
#[derive(Clone, Debug)]
pub struct UsageRecord {
    /// The request's id, which callers see in `x-request-id`.
    pub id: RequestId,
    /// Whom it belongs to.
    pub owner: Owner,
    /// When it was admitted.
    pub admitted_at: DateTime<Utc>,
    /// What was asked for.
    pub operation: Operation,
    /// In whose dialect.
    pub dialect: Dialect,
    /// The model's name as the caller wrote it; empty where the request could not be read that far.
    pub requested_model: String,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// The HTTP status the caller got; 499 where it left before there was one.
    pub status: u16,
    /// Why the request did not end well, if it did not.
    pub error: Option<ErrorClass>,
    /// Whether the caller left before the end.
    pub client_cancelled: bool,
    /// From the first byte of the request to the end of the answer.
    pub latency: Duration,
    /// From the first byte of the request to the first event handed to the caller.
    pub first_token: Option<Duration>,
    /// The part of `latency` that was not spent waiting for a provider.
    pub overhead: Duration,
    /// What it had to do with the response cache.
    pub cache: CacheStatus,
    /// Whose answer it got out of the cache.
    pub cached_from: Option<CachedFrom>,
    /// The attempts in order. The last one answered, if any did.
    pub attempts: Vec<AttemptRecord>,
    /// Why it went where it went: JSON of bounded size, as explanations of routing show it. `None`: it was refused
    /// before there was anything to decide.
    pub routing: Option<Box<str>>,
    /// Where it is in a trace: the first span of ours, or the caller's own where we record none.
    pub trace: Option<TraceContext>,
}

/// The attempt of an earlier request, whose answer stood for another one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CachedFrom {
    /// Its provider.
    pub provider: ProviderId,
    /// Its model.
    pub model: ModelName,
    /// What it cost then; `None` where that is not known.
    pub saved: Option<NanoUsd>,
}

impl UsageRecord {
    /// The attempt that answered, or else the last one that was tried.
    pub fn served(&self) -> Option<&AttemptRecord> {
        self.attempts.last()
    }

    /// Who gave the answer, now or when it was kept; or else who was tried last.
    pub fn origin(&self) -> Option<(&ProviderId, &ModelName)> {
        match &self.cached_from {
            Some(from) => Some((&from.provider, &from.model)),
            None => self.served().map(|attempt| (&attempt.provider, &attempt.model)),
        }
    }

    /// The usage of all attempts together.
    pub fn usage(&self) -> TokenUsage {
        self.attempts.iter().fold(TokenUsage::default(), |sum, attempt| {
            let usage = attempt.charge.usage;
            TokenUsage {
                input: sum.input + usage.input,
                cached_input: sum.cached_input + usage.cached_input,
                cache_write: sum.cache_write + usage.cache_write,
                cache_write_1h: sum.cache_write_1h + usage.cache_write_1h,
                output: sum.output + usage.output,
                reasoning: sum.reasoning + usage.reasoning,
                audio_input: sum.audio_input + usage.audio_input,
                audio_output: sum.audio_output + usage.audio_output,
                service: None,
            }
        })
    }

    /// The cost of all attempts together; `None` as soon as one of them has tokens without a price.
    pub fn cost(&self) -> Option<NanoUsd> {
        self.attempts.iter().try_fold(NanoUsd::ZERO, |sum, attempt| {
            let cost = attempt.charge.cost?;
            Some(NanoUsd(sum.0.saturating_add(cost.0)))
        })
    }

    /// How far the figures can be trusted, for the request as a whole.
    pub fn metering(&self) -> Metering {
        let least = match self.error {
            // Nobody was there any more to hear what the provider had to say.
            Some(ErrorClass::Interrupted) => Metering::Estimated,
            _ => Metering::Reported,
        };
        let attempts = self.attempts.iter().map(|attempt| attempt.charge.metering());
        attempts.fold(least, Metering::max)
    }
}

/// One attempt at one deployment.
#[derive(Clone, Debug)]
pub struct AttemptRecord {
    /// The deployment, `provider/model`.
    pub deployment: DeploymentId,
    /// Its provider.
    pub provider: ProviderId,
    /// Its model, by its catalogue name.
    pub model: ModelName,
    /// When the attempt began, counted from the request's admission.
    pub started_after: Duration,
    /// How long it took.
    pub latency: Duration,
    /// From its start to the first event of a stream.
    pub first_token: Option<Duration>,
    /// The provider's status, if it answered.
    pub status: Option<u16>,
    /// Why it failed, if it did.
    pub error: Option<ErrorClass>,
    /// The provider's own id for it.
    pub upstream_request_id: Option<Arc<str>>,
    /// What it consumed and what that costs.
    pub charge: Charge,
}

/// A usage with its price.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Charge {
    /// The tokens. How they were served is in the price's version.
    pub usage: TokenUsage,
    /// Whether the provider said so.
    pub source: UsageSource,
    /// What they cost; `None` where no price is known, which is never the same as nothing.
    pub cost: Option<NanoUsd>,
    /// The price that was applied, with [`Service::marks`](super::service::Service::marks).
    pub price_version: Option<PriceVersion>,
}

impl Charge {
    /// The charge of an attempt that consumed nothing.
    pub fn nothing() -> Self {
        Self {
            usage: TokenUsage::default(),
            source: UsageSource::Reported,
            cost: Some(NanoUsd::ZERO),
            price_version: None,
        }
    }

    /// How far the figures can be trusted.
    pub fn metering(&self) -> Metering {
        match (self.cost, self.source) {
            (None, _) => Metering::Unpriced,
            (Some(_), UsageSource::Estimated) => Metering::Estimated,
            (Some(_), UsageSource::Reported) => Metering::Reported,
        }
    }
}

/// How far a record's figures can be trusted, from best to worst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Metering {
    /// The provider reported the tokens, and they have a price.
    Reported,
    /// We counted the tokens ourselves.
    Estimated,
    /// There is no price for them: the cost is unknown, not zero.
    Unpriced,
}

impl Metering {
    /// The text form used in the database and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Estimated => "estimated",
            Self::Unpriced => "unpriced",
        }
    }
}
