//! Metrics of providers' health, of the gateway's own probes, and of routing. Labels are providers, states and reasons,
//! never an organization, a credential or a region: there may be any number of those.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::metrics::Word;
use super::names;
use crate::domain::ids::ProviderId;
use crate::domain::money::NanoUsd;

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ProviderLabels {
    provider: ProviderId,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct HealthLabels {
    provider: ProviderId,
    health: Word,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ProbeLabels {
    provider: ProviderId,
    result: Word,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct TokenLabels {
    provider: ProviderId,
    kind: Word,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct DecisionLabels {
    strategy: Word,
    result: Word,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ReasonLabels {
    reason: Word,
}

type Count = Counter<u64, AtomicU64>;

/// Metrics of providers' health, of probes and of routing.
#[derive(Default, Debug)]
pub struct ProviderMetrics {
    health: Family<ProviderLabels, Gauge>,
    watched: Family<HealthLabels, Gauge>,
    outcomes_dropped: Family<ProviderLabels, Gauge>,
    probes: Family<ProbeLabels, Count>,
    probe_tokens: Family<TokenLabels, Count>,
    probe_cost: Family<ProviderLabels, Count>,
    decisions: Family<DecisionLabels, Count>,
    exclusions: Family<ReasonLabels, Count>,
    shown: OnceLock<()>,
}

/// What a probe of the gateway's own came to.
#[derive(Clone, Copy, Debug)]
pub struct ProbeCount {
    /// In one word.
    pub result: &'static str,
    /// Tokens it asked with.
    pub input_tokens: u64,
    /// Tokens it was answered with.
    pub output_tokens: u64,
    /// What it cost, as far as there is a price.
    pub cost: NanoUsd,
}

impl ProviderMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            names::PROVIDER_HEALTH,
            "Provider health: 0 passing, 1 probing, 2 ejected",
            self.health.clone(),
        );
        registry.register(
            names::PROVIDER_WATCHED,
            "Organizations at credentials and regions of a provider, by how it is doing there",
            self.watched.clone(),
        );
        registry.register(
            names::OUTCOMES_DROPPED,
            "Outcomes dropped, mailbox full",
            self.outcomes_dropped.clone(),
        );
        registry.register(
            names::PROBES,
            "The gateway's own probes, by what came of them",
            self.probes.clone(),
        );
        registry.register(
            names::PROBE_TOKENS,
            "Tokens of the gateway's own probes",
            self.probe_tokens.clone(),
        );
        registry.register(
            names::PROBE_COST,
            "Known cost of the gateway's own probes in nano-dollars",
            self.probe_cost.clone(),
        );
        registry.register(
            names::ROUTING_DECISIONS,
            "Decisions where requests go, by strategy and result",
            self.decisions.clone(),
        );
        registry.register(
            names::ROUTING_EXCLUSIONS,
            "Deployments that decisions left out, by reason",
            self.exclusions.clone(),
        );
    }

    /// Shows every series of a provider as zero.
    pub(super) fn announce(&self, provider: &ProviderId) {
        let labels = ProviderLabels {
            provider: provider.clone(),
        };
        self.health.get_or_create(&labels).inc_by(0);
        self.outcomes_dropped.get_or_create(&labels).inc_by(0);
        self.probe_cost.get_or_create(&labels).inc_by(0);
        for kind in ["input", "output"] {
            let labels = TokenLabels {
                provider: provider.clone(),
                kind: Word(kind),
            };
            self.probe_tokens.get_or_create(&labels).inc_by(0);
        }
        let (provider, result) = (provider.clone(), Word("answered"));
        self.probes.get_or_create(&ProbeLabels { provider, result }).inc_by(0);
    }

    /// Shows how a provider is doing, and how many see it in which state.
    pub fn health(&self, provider: &ProviderId, health: i64, watched: impl IntoIterator<Item = (&'static str, usize)>) {
        let labels = ProviderLabels {
            provider: provider.clone(),
        };
        self.health.get_or_create(&labels).set(health);
        for (health, count) in watched {
            let labels = HealthLabels {
                provider: provider.clone(),
                health: Word(health),
            };
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.watched.get_or_create(&labels).set(count);
        }
    }

    pub(super) fn outcomes_dropped(&self, provider: ProviderId, dropped: u32) {
        let labels = ProviderLabels { provider };
        self.outcomes_dropped.get_or_create(&labels).inc_by(dropped.into());
    }

    pub(super) fn probed(&self, provider: &ProviderId, probe: ProbeCount) {
        let (provider, result) = (provider.clone(), Word(probe.result));
        let labels = ProbeLabels { provider, result };
        self.probes.get_or_create(&labels).inc();
        let provider = labels.provider;
        for (kind, tokens) in [("input", probe.input_tokens), ("output", probe.output_tokens)] {
            if tokens > 0 {
                let (provider, kind) = (provider.clone(), Word(kind));
                self.probe_tokens
                    .get_or_create(&TokenLabels { provider, kind })
                    .inc_by(tokens);
            }
        }
        let cost = u64::try_from(probe.cost.0).unwrap_or(0);
        self.probe_cost.get_or_create(&ProviderLabels { provider }).inc_by(cost);
    }

    /// Counts a decision where a request goes, and what it left out.
    pub fn decided(
        &self,
        strategy: &'static str,
        result: &'static str,
        excluded: impl IntoIterator<Item = (&'static str, usize)>,
    ) {
        let (strategy, result) = (Word(strategy), Word(result));
        self.decisions.get_or_create(&DecisionLabels { strategy, result }).inc();
        // The first one shows every reason that there is.
        let is_first = self.shown.set(()).is_ok();
        for (reason, count) in excluded {
            if count > 0 || is_first {
                let reason = Word(reason);
                self.exclusions
                    .get_or_create(&ReasonLabels { reason })
                    .inc_by(count as u64);
            }
        }
    }
}
