//! The strategies: which of the deployments that may serve a request is asked first, and which after it.
//!
//! Pure arithmetic over what is known at one moment. A lower score is better; `docs/routing.md` has the formulas for the
//! people who choose between them. Candidates are first put into tiers, and a score only decides within a tier: those
//! that are to be probed, those that pass, those that are ejected; the models of an alias in their order; first choices
//! before spares; those with a weight before those without; those with a price before those without.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::Serialize;

use super::catalog::Deployment;
use super::hash;
use super::plan::Readiness;
pub use crate::domain::call::Strategy;
use crate::domain::measurement::Measured;
use crate::domain::money::NanoUsd;
use crate::domain::usage::TokenUsage;

/// How much worse than the best a deployment may be and still share the traffic of the balanced strategy.
const AS_GOOD_AS_THE_BEST: f64 = 1.05;
/// How much worse than the best one part of the balanced score can make a deployment look.
const WORST_PART: f64 = 10.0;

/// What the parts of the balanced score count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Balance {
    /// What the request costs.
    pub cost: u32,
    /// How long it should take.
    pub latency: u32,
    /// How often attempts fail.
    pub errors: u32,
    /// How many attempts are under way.
    pub load: u32,
}

impl Default for Balance {
    fn default() -> Self {
        Self {
            cost: 40,
            latency: 30,
            errors: 20,
            load: 10,
        }
    }
}

/// A deployment that may serve a request, and what is known about it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The deployment.
    pub deployment: Arc<Deployment>,
    /// The place of its model among those of an alias or a route, from 0.
    pub group: usize,
    /// How its provider is doing.
    pub readiness: Readiness,
    /// How it is doing.
    pub measured: Measured,
    /// Its share among those that are equally good; 0: only when nothing else is left.
    pub weight: f64,
    /// Its place in the fixed order; the highest: it is not in it.
    pub rank: usize,
}

/// What decides besides the candidates.
#[derive(Clone, Copy, Debug)]
pub struct Question<'q> {
    /// The strategy.
    pub strategy: Strategy,
    /// What the parts of the balanced score count.
    pub balance: Balance,
    /// Tokens of the prompt, estimated.
    pub input_tokens: u64,
    /// Tokens of the answer, expected.
    pub output_tokens: u64,
    /// What is random about it.
    pub seed: u64,
    /// The session it belongs to.
    pub session: Option<&'q str>,
    /// How much worse than the best, as a factor, the deployment of the session may be.
    pub session_tolerance: f64,
}

/// What the score of a deployment is made of.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Parts {
    /// The score; lower is better. It compares deployments of one decision and nothing else.
    pub score: f64,
    /// What the request should cost there, in nano-dollars; absent where there is no price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_nanousd: Option<i64>,
    /// Milliseconds the answer should take; absent where nothing was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_ms: Option<f64>,
    /// The share of attempts that failed, from 0 to 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub error_rate: f64,
    /// Attempts under way.
    #[serde(skip_serializing_if = "is_none")]
    pub in_flight: u32,
    /// How its provider is doing, if it does not pass.
    #[serde(skip_serializing_if = "is_passing")]
    pub readiness: Readiness,
    /// Whether it is where the request's session belongs.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub session: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_none(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_passing(readiness: &Readiness) -> bool {
    *readiness == Readiness::Passing
}

/// What a request of so many tokens should cost at a deployment.
fn cost(deployment: &Deployment, question: &Question<'_>, cached_share: f64) -> Option<NanoUsd> {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share, from 0 to 1, of an estimate"
    )]
    let cached_input = (question.input_tokens as f64 * cached_share.clamp(0.0, 1.0)) as u64;
    let usage = TokenUsage {
        input: question.input_tokens,
        cached_input,
        output: question.output_tokens,
        ..TokenUsage::default()
    };
    deployment.price.as_ref()?.cost(&usage).ok()
}

/// A candidate with what decides about it.
struct Scored {
    candidate: Candidate,
    parts: Parts,
    tier: (u8, usize, bool, bool, bool),
    /// Its place among those that are equally good; lower first.
    lot: f64,
}

/// Puts candidates into the order in which they are to be tried.
pub fn order(candidates: Vec<Candidate>, question: &Question<'_>) -> Vec<(Candidate, Parts)> {
    let at_home = home(&candidates, question);
    let mut scored: Vec<Scored> = candidates
        .into_iter()
        .enumerate()
        .map(|(index, candidate)| {
            let session = at_home == Some(index);
            let id = candidate.deployment.id.as_str();
            let lot = hash::rendezvous(hash::seeded(question.seed, id), candidate.weight);
            // Only the deployment that has seen the session before can have its prompt in the cache.
            let cached_share = if session { candidate.measured.cached_share } else { 0.0 };
            let cost = cost(&candidate.deployment, question, cached_share);
            let parts = Parts {
                score: 0.0,
                cost_nanousd: cost.map(|cost| cost.0),
                expected_ms: candidate.measured.expected_ms(question.output_tokens).map(rounded),
                error_rate: rounded(candidate.measured.error_rate),
                in_flight: candidate.measured.in_flight,
                readiness: candidate.readiness,
                session,
            };
            let by_price = matches!(question.strategy, Strategy::CostOptimized | Strategy::Balanced);
            let tier = (
                match candidate.readiness {
                    // A probe goes first, or it would never happen; if it fails, the request moves on.
                    Readiness::Probing => 0,
                    Readiness::Passing => 1,
                    Readiness::Resting => 2,
                    Readiness::Ejected => 3,
                },
                candidate.group,
                candidate.deployment.spare,
                candidate.weight <= 0.0,
                by_price && cost.is_none(),
            );
            Scored {
                candidate,
                parts,
                tier,
                lot,
            }
        })
        .collect();
    score(&mut scored, question);
    let fixed = question.strategy == Strategy::Failover;
    // Stable, so that what the fixed order does not tell apart stays in the catalogue's.
    scored.sort_by(|a, b| {
        let by_score = a.tier.cmp(&b.tier).then(a.parts.score.total_cmp(&b.parts.score));
        by_score.then(if fixed {
            Ordering::Equal
        } else {
            a.lot.total_cmp(&b.lot)
        })
    });
    if !fixed {
        // Each state of health has a best tier of its own; whoever is probed first is followed by the first that passes.
        let mut from = 0;
        while from < scored.len() {
            let state = scored[from].tier.0;
            let tier = scored[from].tier;
            let best = scored[from..].iter().take_while(|one| one.tier == tier).count();
            choose_first(&mut scored[from..from + best], question);
            from += scored[from..].iter().take_while(|one| one.tier.0 == state).count();
        }
    }
    scored.into_iter().map(|one| (one.candidate, one.parts)).collect()
}

/// Where the session of a request belongs: the winner of a rendezvous among those that pass in the first group.
fn home(candidates: &[Candidate], question: &Question<'_>) -> Option<usize> {
    let session = question.session.filter(|_| question.strategy != Strategy::Failover)?;
    let group = candidates.iter().map(|candidate| candidate.group).min()?;
    let eligible = candidates.iter().enumerate().filter(|(_, candidate)| {
        candidate.readiness == Readiness::Passing
            && candidate.group == group
            && candidate.weight > 0.0
            && !candidate.deployment.spare
    });
    let place =
        |candidate: &Candidate| hash::rendezvous(hash::of(session, candidate.deployment.id.as_str()), candidate.weight);
    eligible
        .min_by(|(_, a), (_, b)| place(a).total_cmp(&place(b)))
        .map(|(index, _)| index)
}

/// Gives each its score.
fn score(scored: &mut [Scored], question: &Question<'_>) {
    match question.strategy {
        Strategy::Failover => {
            for one in scored {
                #[expect(clippy::cast_precision_loss, reason = "a place among a few dozen")]
                let rank = one.candidate.rank.min(1_000) as f64;
                one.parts.score = rank;
            }
        }
        Strategy::CostOptimized => {
            for one in scored {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "to the nano-dollar up to nine million dollars"
                )]
                let cost = one.parts.cost_nanousd.unwrap_or(0) as f64;
                one.parts.score = cost;
            }
        }
        Strategy::LatencyOptimized => {
            for one in scored {
                let load = f64::from(one.parts.in_flight);
                let failures = 1.0 + (WORST_PART - 1.0) * one.parts.error_rate;
                // One that nobody has asked is tried at once, but only by one request at a time until it answers.
                let ms = match one.parts.expected_ms {
                    Some(ms) => ms * (load + 1.0),
                    None => load * 10_000.0,
                };
                one.parts.score = rounded(ms * failures);
            }
        }
        Strategy::Balanced => balanced(scored, question.balance),
    }
}

fn balanced(scored: &mut [Scored], balance: Balance) {
    let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
    #[expect(clippy::cast_precision_loss, reason = "only the proportion matters")]
    let cost_of = |one: &Scored| one.parts.cost_nanousd.map(|cost| cost as f64);
    let load_of = |one: &Scored| f64::from(one.parts.in_flight) + 1.0;
    let cheapest = least(&mut scored.iter().filter_map(cost_of));
    let fastest = least(&mut scored.iter().filter_map(|one| one.parts.expected_ms));
    let idlest = least(&mut scored.iter().map(load_of));
    let weights = [balance.cost, balance.latency, balance.errors, balance.load].map(f64::from);
    let all: f64 = weights.iter().sum::<f64>().max(1.0);
    for one in scored {
        let parts = [
            cost_of(one).map_or(WORST_PART, |cost| relative(cost, cheapest)),
            one.parts.expected_ms.map_or(1.0, |ms| relative(ms, fastest)),
            1.0 + (WORST_PART - 1.0) * one.parts.error_rate,
            relative(load_of(one), idlest),
        ];
        let sum: f64 = parts.iter().zip(weights).map(|(part, weight)| part * weight).sum();
        one.parts.score = rounded(sum / all);
    }
}

/// How many times the best a value is, from 1 to [`WORST_PART`].
fn relative(value: f64, best: f64) -> f64 {
    if value <= best {
        1.0
    } else if best <= 0.0 {
        WORST_PART
    } else {
        (value / best).min(WORST_PART)
    }
}

/// Brings the one to be asked first to the front of the best tier, which is sorted by score.
fn choose_first(tier: &mut [Scored], question: &Question<'_>) {
    if tier.len() < 2 {
        return;
    }
    let best = tier[0].parts.score;
    // A home that is much worse than the best is no home.
    let home = tier
        .iter()
        .position(|one| one.parts.session && one.parts.score <= best * question.session_tolerance);
    if let Some(home) = home {
        tier[..=home].rotate_right(1);
        return;
    }
    match question.strategy {
        Strategy::LatencyOptimized => {
            // Of two random ones the better. If everybody went to the best of all, all replicas would go there at once.
            let mut by_lot: Vec<usize> = (0..tier.len()).collect();
            by_lot.sort_by(|&a, &b| tier[a].lot.total_cmp(&tier[b].lot));
            let chosen = by_lot[0].min(by_lot[1]);
            tier[..=chosen].rotate_right(1);
        }
        Strategy::Balanced => {
            let equals = tier
                .iter()
                .take_while(|one| one.parts.score <= best * AS_GOOD_AS_THE_BEST)
                .count();
            tier[..equals].sort_by(|a, b| a.lot.total_cmp(&b.lot));
        }
        Strategy::CostOptimized | Strategy::Failover => {}
    }
}

/// Three decimals: more would only fill the log.
fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}
