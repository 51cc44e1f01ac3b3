//! The gateway's own probes of providers, asked by the pipeline.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use chrono::Utc;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::config::{ProbeBy, ProbeSettings};
use crate::domain::health::Outcome;
use crate::domain::money::NanoUsd;
use crate::domain::watched::SpotId;
use crate::gates::health_board::ProviderGate;
use crate::gates::prober::Prober;
use crate::pipeline::Pipeline;
use crate::pipeline::probe::Completed;
use crate::telemetry::providers::ProbeCount;

/// How old the latest answers may become before they are forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3_600);

/// Asks by the pipeline, which comes later.
pub struct Probes {
    by: ProbeBy,
    patience: Duration,
    places: Semaphore,
    pipeline: OnceLock<Weak<Pipeline>>,
    /// The latest answers, for others who watch the same credential: what it costs to ask does not grow with them.
    latest: Mutex<HashMap<SpotId, Latest>>,
}

/// What came of the latest question.
#[derive(Clone, Copy)]
struct Latest {
    asked_at: Instant,
    outcome: Option<Outcome>,
}

impl Probes {
    /// Probes of a kind.
    pub fn new(by: ProbeBy, settings: &ProbeSettings) -> Self {
        Self {
            by,
            patience: settings.patience,
            places: Semaphore::new(settings.places),
            pipeline: OnceLock::new(),
            latest: Mutex::default(),
        }
    }

    /// Tells who asks. It is not kept alive by that.
    pub fn ask_by(&self, pipeline: &Arc<Pipeline>) {
        // Whoever is first stays.
        let _ = self.pipeline.set(Arc::downgrade(pipeline));
    }

    fn known(&self, spot: SpotId, since: Instant) -> Option<Latest> {
        self.latest
            .lock()
            .get(&spot)
            .filter(|latest| latest.asked_at >= since)
            .copied()
    }

    fn keep(&self, spot: SpotId, latest: Latest) {
        let mut all = self.latest.lock();
        let old = |known: &Latest| latest.asked_at.saturating_duration_since(known.asked_at) > FORGOTTEN_AFTER;
        all.retain(|_, known| !old(known));
        all.insert(spot, latest);
    }
}

#[async_trait::async_trait]
impl Prober for Probes {
    async fn probe(&self, gate: &ProviderGate, since: Instant) -> Option<Outcome> {
        let _place = self.places.acquire().await.ok()?;
        let spot = &gate.watched.spot;
        if let Some(latest) = self.known(spot.id, since) {
            return latest.outcome;
        }
        let pipeline = self.pipeline.get()?.upgrade()?;
        let keyed = pipeline.endpoints.now().by_spot(spot.id)?;
        let asked_at = tokio::time::Instant::now().into_std();
        let (mut usage, mut cost) = ((0, 0), NanoUsd::ZERO);
        let outcome = match self.by {
            ProbeBy::Listing => pipeline.probe_by_listing(&keyed, self.patience).await,
            ProbeBy::Completion => {
                let organization = gate.watched.organization.as_deref();
                let completed: Option<Completed> =
                    pipeline.probe_by_completion(organization, &keyed, self.patience).await;
                // Without a model to ask, whether it is there at all is what can be found out.
                match completed {
                    Some(completed) => {
                        usage = (completed.usage.input, completed.usage.output);
                        cost = completed.cost;
                        Some(completed.outcome)
                    }
                    None => pipeline.probe_by_listing(&keyed, self.patience).await,
                }
            }
        };
        self.keep(spot.id, Latest { asked_at, outcome });
        let result = match outcome {
            Some(Outcome::Answered | Outcome::AnsweredSlowly | Outcome::Listed) => "answered",
            Some(Outcome::Failed) => "failed",
            Some(Outcome::Limited { .. }) => "limited",
            None => "inconclusive",
        };
        gate.was_probed(result == "failed", usage, cost, Utc::now());
        let (input_tokens, output_tokens) = usage;
        let count = ProbeCount {
            result,
            input_tokens,
            output_tokens,
            cost,
        };
        pipeline.metrics.probed(&spot.provider, count);
        outcome
    }
}
