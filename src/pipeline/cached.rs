//! An answer that was given before: looked for after the scopes were checked, and before anything is spent.

use std::sync::Arc;

use tokio::time::Instant;

use super::meter::Meter;
use super::{Answer, AnswerBody, Pipeline};
use crate::cache::{CacheKey, Entry, Found};
use crate::chat::request::Request;
use crate::domain::caching::Cacheable;
use crate::domain::call::{CacheStatus, Operation};
use crate::routing::plan::Plan;

impl Pipeline {
    /// An answer out of the cache, if there is one. Otherwise the meter holds the right to keep the answer that comes, where
    /// it may be kept.
    pub(super) async fn cached(&self, request: &Request, plan: &Plan, meter: &mut Meter) -> Option<Arc<Entry>> {
        let control = meter.cache_control();
        let cacheable = Cacheable {
            predictable: request.predictable || request.operation == Operation::Embedding,
            tools: request.tools,
        };
        let policy = self.policies.of(meter.gate().row.organization.id);
        let ttl = policy.terms.cache.applied_to(self.limits.caching).ttl_of(
            cacheable,
            meter.gate().row.cache_ttl,
            control,
        )?;
        let key = key_of(request, meter);
        if control.no_cache {
            meter.may_keep(self.cache.replace(key, ttl));
            return None;
        }
        // Only what a deployment of the plan has said: a key with a narrower scope must not read what it could not ask for,
        // and what stood in during an outage does not answer after it.
        let stage = plan.attempts.first().map(|first| first.stage);
        let fits = |entry: &Entry| {
            let mut attempts = plan.attempts.iter().filter(|attempt| Some(attempt.stage) == stage);
            attempts
                .any(|attempt| attempt.deployment.provider == entry.provider && attempt.deployment.model == entry.model)
        };
        match self.cache.find(key, ttl, control.max_age, fits).await {
            Found::Entry(entry) => Some(entry),
            Found::Nothing(fill) => {
                meter.may_keep(fill);
                None
            }
        }
    }
}

/// The answer that was kept, for the caller.
pub(super) fn answer(entry: &Entry, stream: bool, meter: &mut Meter) -> Answer {
    let body = entry.body.clone();
    let served = meter.served_from(entry);
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
