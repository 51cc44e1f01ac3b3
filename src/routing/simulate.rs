//! What a draft of a config would have done with requests that were recorded.
//!
//! Each recorded request is decided twice, by the present config and by the draft, with the same prices, health and
//! measurements of now; the differences are therefore the draft's. A record has tokens and no payload: what rules see of
//! headers, tools, images and users is not in it, and is taken to be absent.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::facts::{Caller, Facts};
use super::plan::{Decision, Situation, decide};
use crate::domain::call::Operation;
use crate::domain::usage::TokenUsage;

/// A recorded request.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its id.
    pub id: u128,
    /// What was asked for.
    pub operation: Operation,
    /// The model as its caller wrote it.
    pub model: String,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// The tokens it used.
    pub usage: TokenUsage,
    /// What it cost, in nano-dollars, where that is known.
    pub cost_nanousd: Option<i64>,
    /// When it came.
    pub at: DateTime<Utc>,
}

/// What came out of it.
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
pub struct Report {
    /// Requests that were looked at.
    pub requests: u64,
    /// Known cost of those requests as it was, in nano-dollars.
    pub recorded_cost_nanousd: i64,
    /// By the present config.
    pub current: Side,
    /// By the draft.
    pub draft: Side,
    /// Requests that the draft sends elsewhere first.
    pub moved: u64,
}

/// What one config does with them.
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
pub struct Side {
    /// How many requests go to each deployment first.
    pub split: BTreeMap<String, u64>,
    /// Requests that are refused.
    pub refused: u64,
    /// What those with a price would cost, in nano-dollars.
    pub cost_nanousd: i64,
    /// Requests that go where there is no price.
    pub unpriced: u64,
    /// Mean of the milliseconds their answers should take, of those that go where something was measured.
    pub mean_expected_ms: Option<f64>,
    /// Requests that go where nothing was measured.
    pub unmeasured: u64,
}

/// A side, with sums in the place of means.
#[derive(Default)]
struct Sums {
    side: Side,
    ms: f64,
    measured: u64,
}

/// Decides recorded requests by two configs. `situations` gives both for a request's caller, with what rules may know of
/// the caller; `None`: the caller is no more, and the request is not looked at.
pub fn replay<'s>(recorded: impl IntoIterator<Item = (Recorded, Option<(Caller<'s>, [Situation<'s>; 2])>)>) -> Report {
    let mut report = Report::default();
    let mut sides = [Sums::default(), Sums::default()];
    for (request, about) in recorded {
        let Some((caller, situations)) = about else { continue };
        let facts = Facts {
            id: request.id,
            operation: request.operation,
            model: &request.model,
            stream: request.stream,
            tools: false,
            vision: false,
            input_tokens: request.usage.input,
            max_output_tokens: None,
            caller,
            headers: &[],
            prompt_cache_key: None,
            user: None,
            at: request.at,
        };
        report.requests += 1;
        report.recorded_cost_nanousd = report
            .recorded_cost_nanousd
            .saturating_add(request.cost_nanousd.unwrap_or(0));
        let decisions = situations.map(|situation| decide(&facts, &situation));
        for (sums, decision) in sides.iter_mut().zip(&decisions) {
            sums.add(decision, &request.usage, &situations[0]);
        }
        let first = |decision: &Decision<'_>| decision.attempts.first().map(|first| first.deployment.id.clone());
        report.moved += u64::from(first(&decisions[0]) != first(&decisions[1]));
    }
    let [current, draft] = sides.map(Sums::finish);
    report.current = current;
    report.draft = draft;
    report
}

impl Sums {
    fn add(&mut self, decision: &Decision<'_>, usage: &TokenUsage, situation: &Situation<'_>) {
        let side = &mut self.side;
        let Some(first) = decision.attempts.first() else {
            side.refused += 1;
            return;
        };
        *side.split.entry(first.deployment.id.to_string()).or_default() += 1;
        match first.deployment.price.as_ref().and_then(|price| price.cost(usage).ok()) {
            Some(cost) => side.cost_nanousd = side.cost_nanousd.saturating_add(cost.0),
            None => side.unpriced += 1,
        }
        match (situation.measured)(&first.deployment).expected_ms(usage.output) {
            Some(ms) => {
                self.ms += ms;
                self.measured += 1;
            }
            None => side.unmeasured += 1,
        }
    }

    fn finish(mut self) -> Side {
        #[expect(clippy::cast_precision_loss, reason = "a mean over a few thousand requests")]
        let mean = (self.measured > 0).then(|| (self.ms / self.measured as f64 * 10.0).round() / 10.0);
        self.side.mean_expected_ms = mean;
        self.side
    }
}
