//! The path of one inference request, from checked key to metered answer.
//!
//! [`Pipeline::run`] is the whole path on one screen. Each step has a file of its own: `admit` (may it?), `failover` and
//! `attempt` (who answers?), `budget` (is there money for it?), `relay` (the stream to the caller), `meter` (what did it
//! cost?). It knows no actors, no SQL and no HTTP server: it meets the actors in [`crate::gates`], and speaks to its caller
//! through a [`Voice`].

mod admit;
mod attempt;
mod budget;
mod cached;
mod capture;
pub mod counting;
mod failover;
mod held;
mod limit;
mod media;
mod meter;
pub mod probe;
mod relay;
pub mod route;
#[cfg(test)]
mod testing;
mod traced;
mod turn;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cache::ResponseCache;
use crate::chat::param::Dropped;
use crate::chat::request::{BodyLimits, DialectHeaders, Request};
use crate::cluster::Limiter;
use crate::domain::caching::{CacheControl, CachePolicy};
use crate::domain::call::{CacheStatus, Dialect, Operation, ParameterPolicy};
use crate::domain::error::GatewayError;
use crate::domain::ids::{ModelName, ProviderId, RequestId};
use crate::domain::money::NanoUsd;
use crate::gates::budgets::Budgets;
use crate::gates::health_board::HealthBoard;
use crate::gates::key_gate::KeyGate;
use crate::gates::load_gate::{CredentialGates, LagGate, LoadGate};
use crate::gates::measurements::{Measurements, SlowCalls};
use crate::gates::payloads::PayloadGate;
use crate::gates::policies::Policies;
use crate::gates::retry_gate::RetryGate;
use crate::journal::Journal;
use crate::providers::adapter::StreamLimits;
use crate::routing::catalog::Catalog;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names::trace::span;
use crate::telemetry::trace::{Ambient, Tracer, gen_ai};
use crate::upstream::Upstream;
use crate::upstream::endpoints::Endpoints;
use crate::upstream::fetcher::Fetcher;

pub use budget::BudgetRules;
pub use meter::Meter;

/// Everything a request needs on its way.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Which models there are.
    pub catalog: Arc<ArcSwap<Catalog>>,
    /// How to reach their providers.
    pub endpoints: Arc<Endpoints>,
    /// Calls them.
    pub upstream: Upstream,
    /// Fetches what requests name by address.
    pub fetcher: Fetcher,
    /// How they are doing.
    pub board: Arc<HealthBoard>,
    /// How deployments are doing.
    pub measurements: Arc<Measurements>,
    /// How each organization's requests are routed.
    pub policies: Arc<Policies>,
    /// What may be spent.
    pub budgets: Arc<Budgets>,
    /// Counts requests against their limits.
    pub limiter: Arc<Limiter>,
    /// How much this replica takes on.
    pub load: Arc<LoadGate>,
    /// How late the thread is that this pipeline serves on.
    pub lag: Arc<LagGate>,
    /// How much it sends with each credential that has a bound.
    pub credentials: Arc<CredentialGates>,
    /// Answers that were given before.
    pub cache: Arc<ResponseCache>,
    /// How many further attempts an outage may cause.
    pub retries: Arc<RetryGate>,
    /// Places for questions how many tokens a prompt has.
    pub counting: counting::Places,
    /// Takes prompts and answers that are to be kept.
    pub payloads: Arc<PayloadGate>,
    /// Takes the records.
    pub journal: Arc<Journal>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Begins traces.
    pub tracer: Tracer,
    /// The numbers.
    pub limits: PipelineLimits,
    /// Cancelled when streams must end, because the process does.
    pub stop: CancellationToken,
}

/// The numbers a request is held to.
#[derive(Clone, Copy, Debug)]
pub struct PipelineLimits {
    /// Bounds on bodies.
    pub body: BodyLimits,
    /// Bounds on streams.
    pub stream: StreamLimits,
    /// The largest whole answer, in bytes.
    pub max_answer_bytes: usize,
    /// Attempts for one request.
    pub max_attempts: usize,
    /// How an attempt is made again where nobody else is left to ask.
    pub again: Again,
    /// Which answers count as slow.
    pub slow_calls: SlowCalls,
    /// Which answers are kept.
    pub caching: CachePolicy,
    /// What becomes of parameters that a provider cannot express, where neither key nor organization says.
    pub parameters: ParameterPolicy,
    /// Silence after which a keep-alive comment is sent.
    pub keep_alive: Duration,
    /// How the worst case of a call is computed.
    pub budgets: BudgetRules,
    /// Output tokens that a request is taken to need at most, as far as limits are concerned.
    pub assumed_output_tokens: u64,
}

/// How a deployment is asked again after it failed.
#[derive(Clone, Copy, Debug)]
pub struct Again {
    /// Whether it is at all.
    pub enabled: bool,
    /// The longest wait before the second attempt; it doubles for each further one.
    pub base: Duration,
    /// The longest wait of all. A provider that asks for more is not asked again.
    pub most: Duration,
}

/// A request of a caller whose key was checked, before its body was read.
#[derive(Debug)]
pub struct Call {
    /// Its id.
    pub id: RequestId,
    /// When its first byte came, for durations.
    pub received: Instant,
    /// The same moment, for the record.
    pub admitted_at: DateTime<Utc>,
    /// The key.
    pub gate: Arc<KeyGate>,
    /// What is asked for.
    pub operation: Operation,
    /// How the caller is answered.
    pub voice: Voice,
    /// Headers of the caller's dialect that belong to the body.
    pub headers: DialectHeaders,
    /// Headers that the organization lets rules look at.
    pub visible_headers: Vec<(String, String)>,
    /// What the caller said about the response cache.
    pub cache_control: CacheControl,
}

/// How errors are said in the caller's dialect. The HTTP layer fills it in, so that there is one place that knows.
#[derive(Clone, Copy, Debug)]
pub struct Voice {
    /// The dialect.
    pub dialect: Dialect,
    /// The status of an error.
    pub status: fn(&GatewayError) -> u16,
    /// An error inside a stream, as bytes of the stream.
    pub event: fn(&GatewayError, RequestId) -> Bytes,
    /// What keeps a silent stream alive without saying anything.
    pub keep_alive: &'static [u8],
}

/// An answer for the caller.
pub struct Answer {
    /// Who answered; `None` where a stream's headers had to go out before that was known.
    pub served: Option<Served>,
    /// What it had to do with the response cache.
    pub cache: CacheStatus,
    /// How old it is, where it came out of the cache.
    pub age: Option<Duration>,
    /// What they said.
    pub body: AnswerBody,
}

/// Who answered, for the answer's headers.
#[derive(Clone, Debug)]
pub struct Served {
    /// The provider.
    pub provider: ProviderId,
    /// The model, by its catalogue name.
    pub model: ModelName,
    /// Attempts so far, this one included.
    pub attempts: usize,
    /// Time so far that was not spent waiting for a provider.
    pub overhead: Duration,
    /// What it cost; `None` for streams, and where there is no price.
    pub cost: Option<NanoUsd>,
    /// What of the request the provider could not express.
    pub dropped: Dropped,
}

/// What the caller gets.
pub enum AnswerBody {
    /// JSON.
    Whole(Bytes),
    /// Server-sent events.
    Stream(BoxStream<'static, Result<Bytes, std::io::Error>>),
}

impl Pipeline {
    /// Serves a request whose body has arrived.
    ///
    /// Its stages are pinned where they are made: awaited by value, the state of each would be copied into its place.
    ///
    /// # Errors
    /// Everything that can be said with a status of its own. What goes wrong after a stream has begun is said in it.
    pub async fn run(self: Arc<Self>, mut meter: Meter, body: Bytes) -> Result<Answer, GatewayError> {
        let dialect = meter.voice().dialect;
        let mut request = match Request::parse(meter.operation(), dialect, body, &self.limits.body) {
            Ok(mut request) => {
                request.identity = meter.identity();
                request.headers = meter.take_headers();
                request
            }
            Err(fault) => return Err(meter.refuse(GatewayError::Invalid(fault))),
        };
        meter.asked_for(&request);
        meter.capture(&request);
        if let Some(most) = meter.gate().row.max_output_tokens {
            request.cap_output(most);
        }
        let mut step = Ambient::step(span::PLAN);
        let (plan, explained) = self.plan(&request, meter.gate(), &meter.moment());
        self.tell_of(&explained, &mut step);
        if let Err(refusal) = &plan {
            gen_ai::refused(&mut step, refusal);
        }
        step.end();
        meter.routed(explained.reasons);
        let plan = match plan {
            Ok(plan) => plan,
            Err(refusal) => return Err(meter.refuse(refusal)),
        };
        self.limit_output(&mut request, &plan, meter.gate());
        let request = Arc::new(request);
        let found = pin!(self.limited_or_cached(&request, &plan, &mut meter)).await;
        match found {
            Err(refusal) => return Err(meter.refuse(refusal)),
            Ok(Some(entry)) => {
                let answer = cached::answer(&entry, request.stream, &mut meter);
                if let Some(written) = meter.finish(None) {
                    let _step = Ambient::step(span::JOURNAL);
                    written.reached().await;
                }
                return Ok(answer);
            }
            Ok(None) => {}
        }
        let journaled = meter.may_cost();
        if request.stream {
            return pin!(held::stream(self, request, plan, meter, journaled)).await;
        }
        let mut answered = pin!(self.whole(&request, &plan, &mut meter)).await;
        if let Err(error) = &answered
            && let Some(plan) = self.plan_for_less(&request, &mut meter, error)
        {
            // Seldom enough to have a place of its own.
            answered = Box::pin(self.whole(&request, &plan, &mut meter)).await;
        }
        match answered {
            Ok(body) => {
                meter.keep(body.clone());
                meter.was_answered(&body);
                meter.trace_answer(&body);
                let cache = meter.cache_status();
                let (served, journaled) = meter.finish_served();
                if let Some(written) = journaled {
                    let _step = Ambient::step(span::JOURNAL);
                    written.reached().await;
                }
                Ok(Answer {
                    served,
                    cache,
                    age: None,
                    body: AnswerBody::Whole(body),
                })
            }
            Err(error) => Err(meter.refuse(error)),
        }
    }
}
