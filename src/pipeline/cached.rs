//! An answer that was given before: looked for after the scopes were checked, and before anything is spent.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::meter::Meter;
use super::{Answer, AnswerBody, Pipeline};
use crate::cache::{CacheKey, Entry, Found};
use crate::chat::request::Request;
use crate::domain::caching::Cacheable;
use crate::domain::call::{CacheStatus, Operation};
use crate::domain::error::GatewayError;
use crate::domain::limit::Demand;
use crate::routing::plan::Plan;
use crate::telemetry::names::trace::{CACHE_STATUS, span};
use crate::telemetry::trace::Ambient;

/// Where the answer to a request may be.
enum Looked {
    /// In this process.
    Here(Arc<Entry>),
    /// Perhaps with another replica: that is being found out.
    Elsewhere(BoxFuture<'static, Option<Entry>>),
    /// Nowhere, or it is not looked for.
    Nowhere,
}

impl Pipeline {
    /// Takes what a request needs of its limits, or hands it an answer that was given before. That one counts as a request,
    /// and as no tokens. Where replicas share answers, theirs are asked for while the limits are counted.
    ///
    /// Without an answer, the meter holds the right to keep the one that comes, where it may be kept.
    ///
    /// # Errors
    /// A limit is reached, or it cannot be counted and must not be let through.
    pub(super) async fn limited_or_cached(
        &self,
        request: &Request,
        plan: &Plan,
        meter: &mut Meter,
    ) -> Result<Option<Arc<Entry>>, GatewayError> {
        let needs = self.demand(request);
        let mut step = Ambient::step(span::CACHE);
        let looked = self.look(request, plan, meter).await;
        step.set(CACHE_STATUS, || match looked {
            Looked::Here(_) => CacheStatus::Hit.as_str(),
            Looked::Elsewhere(_) | Looked::Nowhere => meter.cache_status().as_str(),
        });
        step.end();
        match looked {
            Looked::Here(entry) => {
                self.limit(request, plan, Demand::default(), meter).await?;
                Ok(Some(entry))
            }
            Looked::Nowhere => {
                self.limit(request, plan, needs, meter).await?;
                Ok(None)
            }
            Looked::Elsewhere(look) => {
                let max_age = meter.cache_control().max_age;
                let (limited, found) = tokio::join!(self.limit(request, plan, needs, meter), look);
                let good = |entry: &Entry| entry.is_good(Instant::now(), max_age) && may_answer(plan, entry);
                let Some(entry) = found.filter(good) else {
                    return limited.map(|()| None);
                };
                if limited.is_err() {
                    // It may have been tokens that were missing, and now there is no need of any.
                    self.limit(request, plan, Demand::default(), meter).await?;
                }
                Ok(meter.adopt(entry))
            }
        }
    }

    /// Looks for an answer in this process, and says where else there may be one.
    async fn look(&self, request: &Request, plan: &Plan, meter: &mut Meter) -> Looked {
        let control = meter.cache_control();
        let cacheable = Cacheable {
            predictable: request.predictable || request.operation == Operation::Embedding,
            tools: request.tools,
        };
        let policy = self.policies.of(meter.gate().row.organization.id);
        let settings = policy.terms.cache.applied_to(self.limits.caching);
        let Some(ttl) = settings.ttl_of(cacheable, meter.gate().row.cache_ttl, control) else {
            return Looked::Nowhere;
        };
        let key = key_of(request, meter);
        if control.no_cache {
            meter.may_keep(self.cache.replace(key, ttl));
            return Looked::Nowhere;
        }
        let fits = |entry: &Entry| may_answer(plan, entry);
        match self.cache.find(key, ttl, control.max_age, fits).await {
            Found::Entry(entry) => Looked::Here(entry),
            Found::Nothing(fill) => {
                let elsewhere = fill.elsewhere();
                meter.may_keep(fill);
                elsewhere.map_or(Looked::Nowhere, Looked::Elsewhere)
            }
        }
    }
}

/// Whether an answer may stand for this request's. Only what a deployment of the plan has said: a key with a narrower scope
/// must not read what it could not ask for, and what stood in during an outage does not answer after it.
fn may_answer(plan: &Plan, entry: &Entry) -> bool {
    let stage = plan.attempts.first().map(|first| first.stage);
    let mut attempts = plan.attempts.iter().filter(|attempt| Some(attempt.stage) == stage);
    attempts.any(|attempt| attempt.deployment.provider == entry.provider && attempt.deployment.model == entry.model)
}

/// The answer that was kept, for the caller.
pub(super) fn answer(entry: &Entry, stream: bool, meter: &mut Meter) -> Answer {
    let body = entry.body.clone();
    let served = meter.served_from(entry);
    meter.answer_says(&body);
    meter.was_answered(&body);
    Answer {
        served: Some(served),
        cache: CacheStatus::Hit,
        age: Some(entry.age(Instant::now())),
        body: if stream {
            let events = futures_util::stream::once(std::future::ready(Ok(body)));
            AnswerBody::Stream(Box::pin(events))
        } else {
            AnswerBody::Whole(body)
        },
    }
}

/// Everything of a request that its answer depends on.
fn key_of(request: &Request, meter: &Meter) -> CacheKey {
    let headers = &request.headers;
    let betas = headers.anthropic_betas.iter().map(String::as_bytes);
    let parts = [
        request.operation.as_str().as_bytes(),
        request.dialect.as_str().as_bytes(),
        request.body.as_ref(),
        headers.anthropic_version.as_deref().unwrap_or_default().as_bytes(),
    ];
    CacheKey::new(meter.gate().owner().organization, parts.into_iter().chain(betas))
}
