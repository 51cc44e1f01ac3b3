//! Before each attempt, what it may cost is reserved of every hard budget that it counts against.
//!
//! The reservation belongs to the meter, which settles it with what the request really cost, however it ends. A failed
//! attempt that the provider charges for stays in it, and the next one comes on top.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::Pipeline;
use super::meter::Meter;
use crate::chat::request::Request;
use crate::domain::budget::Unpriced;
use crate::domain::budget::refusal::{BudgetRefusal, Reason};
use crate::domain::budget::worst_case::{Bound, CallSize, ModelSize};
use crate::domain::call::Operation;
use crate::domain::error::GatewayError;
use crate::domain::money::NanoUsd;
use crate::gates::budgets::{BudgetGate, Need};
use crate::gates::key_gate::KeyGate;
use crate::routing::catalog::Deployment;
use crate::routing::plan::Plan;

/// When a caller may come back whose call waited for a budget while the gateway stopped: to another replica.
const STOPPING_RETRY: Duration = Duration::from_secs(1);

/// What the worst case of a call is computed with.
#[derive(Clone, Copy, Debug)]
pub struct BudgetRules {
    /// Tokens of an answer where nobody names a limit, written into the request; `None`: what the model can at most.
    pub default_output_tokens: Option<u64>,
    /// Tokens of the dearest picture.
    pub image_tokens: u64,
}

impl Pipeline {
    /// Writes a limit on the answer into a request that has none, if a hard budget wants one.
    pub(super) fn limit_output(&self, request: &mut Request, plan: &Plan, gate: &KeyGate) {
        let budgets = gate.budgets.iter().filter(|budget| budget.refuses());
        let mut limits = budgets.map(|budget| {
            let own = budget.budget().terms.default_output_tokens;
            own.or(self.limits.budgets.default_output_tokens)
        });
        // Without a hard budget there is no limit.
        let Some(first) = limits.next() else { return };
        let wanted = limits.flatten().chain(first).min();
        let models = plan
            .attempts
            .iter()
            .filter_map(|attempt| attempt.deployment.max_output_tokens);
        if let Some(wanted) = wanted {
            request.limit_output(models.fold(wanted, u64::min));
        }
    }

    /// Reserves what an attempt may cost. `others` says whether another deployment may be tried instead.
    ///
    /// # Errors
    /// A budget does not have enough. Nothing was sent for this attempt.
    pub(super) async fn cover(
        &self,
        request: &Request,
        deployment: &Deployment,
        others: bool,
        meter: &mut Meter,
    ) -> Result<(), GatewayError> {
        // The usual case costs nothing.
        if meter.gate().budgets.is_empty() {
            return Ok(());
        }
        let gate = meter.gate_handle();
        let covers = |budget: &&Arc<BudgetGate>| {
            budget.refuses() && budget.scope.covers(&deployment.provider, &deployment.model)
        };
        let budgets = || gate.budgets.iter().filter(covers);
        let Some(price) = &deployment.price else {
            let strict = budgets().find(|budget| budget.budget().terms.unpriced == Unpriced::Refuse);
            return match strict {
                Some(strict) => {
                    let reason = Reason::Unpriced {
                        provider: deployment.provider.clone(),
                        model: deployment.model.clone(),
                    };
                    let refusal = BudgetRefusal::new(&strict.budget(), reason, NanoUsd::ZERO, None);
                    self.metrics.budgets.refused(refusal.scope, refusal.reason.as_str());
                    Err(GatewayError::Budget(Box::new(refusal)))
                }
                None => Ok(()),
            };
        };
        let bound = bound(request, deployment, self.limits.budgets.image_tokens);
        let worst = bound.cost(price);
        if worst == NanoUsd::ZERO {
            return Ok(());
        }
        let mut needs: SmallVec<[Need<'_>; 4]> = budgets()
            .map(|budget| Need {
                gate: budget,
                total: NanoUsd(meter.charged(&budget.scope).0.saturating_add(worst.0)),
                bound: &bound,
                price,
            })
            .collect();
        let at = meter.admitted_at();
        tokio::select! {
            biased;
            extended = self.budgets.extend(meter.reservation(), &mut needs, at, others) => {
                extended.map_err(GatewayError::Budget)
            }
            () = self.stop.cancelled() => Err(GatewayError::Overloaded { retry_after: STOPPING_RETRY }),
        }
    }
}

/// The tokens that a request can have at most at a deployment.
fn bound(request: &Request, deployment: &Deployment, image_tokens: u64) -> Bound {
    let call = CallSize {
        body_bytes: request.body.len() as u64,
        attachments: request.attachments,
        max_output_tokens: request.max_output_tokens,
        generations: match request.operation {
            Operation::Embedding => 0,
            Operation::Chat | Operation::Completion => request.generations,
        },
        service: request.service,
    };
    let model = ModelSize {
        context_tokens: deployment.context_tokens,
        max_output_tokens: deployment.max_output_tokens,
        image_tokens,
    };
    Bound::of(&call, &model)
}
