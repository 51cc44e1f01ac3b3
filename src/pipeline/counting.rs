//! How many tokens a prompt has, before any are spent.
//!
//! The provider that would serve the request says so where it does that for nothing. Everywhere else, and where it does
//! not answer soon, it is what admission counts: an estimate. Agents ask before each of their turns, so a provider that
//! has no answer costs them little time, and is not asked by everybody at once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Pipeline;
use super::attempt::{target, understood};
use super::failover::tenant;
use super::route::Moment;
use crate::chat::request::{DialectHeaders, Request};
use crate::domain::call::{Dialect, Operation};
use crate::domain::error::GatewayError;
use crate::gates::key_gate::KeyGate;
use crate::providers::adapter::MediaLibrary;
use crate::routing::catalog::Deployment;
use crate::routing::plan::Readiness;
use crate::upstream::Propagated;
use crate::upstream::payload::SentMark;

/// How long a provider may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Questions under way at a time; whoever comes beside them gets the estimate.
const AT_ONCE: usize = 32;
/// Bytes of an answer that are read.
const MAX_ANSWER_BYTES: usize = 4 * 1024;

/// Places for questions under way.
#[derive(Clone, Debug)]
pub struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

/// A number of tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counted {
    /// By the provider.
    Reported(u64),
    /// By us.
    Estimated(u64),
}

impl Pipeline {
    /// How many tokens the prompt of a request has, if the key may ask that model at all.
    ///
    /// # Errors
    /// The request is not valid, or the model is unknown or not allowed.
    pub async fn count_tokens(
        &self,
        gate: &KeyGate,
        dialect: Dialect,
        headers: DialectHeaders,
        body: Bytes,
    ) -> Result<Counted, GatewayError> {
        let mut request =
            Request::parse(Operation::Chat, dialect, body, &self.limits.body).map_err(GatewayError::Invalid)?;
        request.headers = headers;
        let moment = Moment {
            id: 0,
            at: Utc::now(),
            headers: &[],
            budget_exhausted: false,
        };
        let plan = self.plan(&request, gate, &moment).0?;
        let estimate = Counted::Estimated(request.prompt.tokens());
        let Some(first) = plan.attempts.first() else {
            return Ok(estimate);
        };
        let asked = timeout(PATIENCE, self.ask_for_count(&request, gate, &first.deployment));
        Ok(asked.await.ok().flatten().map_or(estimate, Counted::Reported))
    }

    /// The provider's own count; `None`: it has none, or none for us right now.
    async fn ask_for_count(&self, request: &Request, gate: &KeyGate, deployment: &Deployment) -> Option<u64> {
        let keyed = self.pick(tenant(gate), deployment, &[])?;
        let endpoint = &keyed.endpoint;
        let media = MediaLibrary::default();
        let question = endpoint.adapter.counting(request, &target(deployment, &media))?;
        let is_out = keyed
            .spot
            .as_ref()
            .is_some_and(|spot| self.board.readiness(&gate.row.organization.slug, spot) == Readiness::Ejected);
        if is_out {
            return None;
        }
        let _place = self.counting.0.try_acquire().ok()?;
        let answer = self
            .upstream
            .send(endpoint, question.call, SentMark::default(), &Propagated::default())
            .await
            .ok()?;
        let answer = understood(answer, endpoint).await.ok()?;
        let body = answer.body.whole(MAX_ANSWER_BYTES).await.ok()?;
        (question.read)(&body)
    }
}
