//! What an organization could do for less, from its last weeks and today's prices: its own, at the providers that its
//! requests may go to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::usage::BY_DEPLOYMENT;
use super::{Analytics, AnalyticsError, Sight};
use crate::domain::ids::{OrganizationId, ProviderId};
use crate::domain::pricing::Price;
use crate::domain::report::figures::Figures;
use crate::domain::report::hour::Hour;
use crate::domain::report::insight::{AtRisk, Caching, Cheaper, IdleKey, Insights, runs_out};
use crate::domain::report::usage::UsageFilter;
use crate::domain::scope::Scope;
use crate::domain::usage::TokenUsage;
use crate::routing::catalog::{Catalog, Deployment};
use crate::routing::document::Policy;
use crate::routing::plan::Bounds;
use crate::store::usage::SumsQuestion;

/// What an organization's requests may go to now, and what it costs them there.
#[derive(Clone, Debug)]
pub struct Offered {
    /// The organization's config.
    pub policy: Arc<Policy>,
    /// Its catalogue.
    pub catalog: Arc<Catalog>,
    /// The scopes of the organization, and of the team whose requests are looked at.
    pub scopes: Vec<Arc<Scope>>,
    /// The providers that there is a credential for.
    pub usable: BTreeSet<ProviderId>,
}

impl Offered {
    /// The deployments of a model at the organization's prices, whether requests may go there or not.
    fn listed(&self, model: &str, at: DateTime<Utc>) -> impl Iterator<Item = Arc<Deployment>> {
        self.catalog
            .deployments()
            .filter(move |deployment| deployment.model.as_str() == model)
            .map(move |deployment| self.policy.terms.priced(deployment, at))
    }

    /// Whether requests may go to a deployment.
    fn admits(&self, deployment: &Deployment) -> bool {
        let bounds = Bounds {
            policy: &self.policy,
            scopes: &self.scopes,
            may_use: &|provider| self.usable.contains(provider),
        };
        bounds.exclude(deployment, None).is_none()
    }
}

impl Analytics {
    /// Looks at the last days.
    ///
    /// # Errors
    /// The database fails, or takes too long.
    pub async fn insights(
        &self,
        organization: OrganizationId,
        sight: &Sight,
        offered: &Offered,
        (days, now): (i64, DateTime<Utc>),
    ) -> Result<Insights, AnalyticsError> {
        self.in_turn(self.look(organization, sight, offered, (days, now))).await
    }

    async fn look(
        &self,
        organization: OrganizationId,
        sight: &Sight,
        offered: &Offered,
        (days, now): (i64, DateTime<Utc>),
    ) -> Result<Insights, AnalyticsError> {
        let (team, keys) = sight.narrow(None, None);
        let from = now - TimeDelta::days(days);
        let question = SumsQuestion {
            organization: Some(organization),
            from: Hour::at(from),
            to: Hour::at(now).plus(1),
            cut: BY_DEPLOYMENT,
            filter: UsageFilter {
                team,
                keys: keys.clone(),
                ..UsageFilter::default()
            },
            by_hour: false,
            percentiles: false,
        };
        let mut served: BTreeMap<(String, String), Figures> = BTreeMap::new();
        self.store
            .fold_usage(&question, |_, cell, figures| {
                served.entry((cell.provider, cell.model)).or_default().merge(&figures);
            })
            .await?;
        let labels = self.store.key_labels(Some(organization)).await?.into_iter();
        let mut idle: Vec<IdleKey> = labels
            .filter(|key| key.usable && key.created_at < from && key.last_used_at.is_none_or(|at| at < from))
            .filter(|key| team.is_none_or(|team| key.team == Some(team)))
            .filter(|key| keys.as_ref().is_none_or(|keys| keys.contains(&key.id)))
            .map(|key| IdleKey {
                id: key.id,
                name: key.name,
                last_used_at: key.last_used_at,
                created_at: key.created_at,
            })
            .collect();
        idle.sort_by_key(|key| key.last_used_at);
        Ok(Insights {
            cheaper: cheaper(&served, offered, now),
            caching: caching(&served, offered, now),
            idle_keys: idle,
            // Others' budgets are nobody's business who does not see everything.
            at_risk: match sight {
                Sight::All => self.at_risk(organization, now).await?,
                Sight::Team(_) | Sight::Keys(_) => Vec::new(),
            },
        })
    }

    async fn at_risk(&self, organization: OrganizationId, now: DateTime<Utc>) -> Result<Vec<AtRisk>, AnalyticsError> {
        let mut running = Vec::new();
        for budget in self.store.budgets_of(organization).await? {
            let span = budget.terms.period.span(budget.terms.zone, now);
            if let Some(end) = span.end.filter(|_| budget.terms.enabled) {
                running.push((budget, span.start, end));
            }
        }
        let periods: Vec<_> = running.iter().map(|(budget, start, _)| (budget.id, *start)).collect();
        let spent = self.store.spent_of_each(&periods).await?;
        let mut found = Vec::new();
        for (budget, start, end) in running {
            let spent = spent.get(&budget.id).copied().unwrap_or_default().spent;
            let amount = budget.terms.amount;
            if let Some((expected, used_up_at)) = runs_out((start, end), now, amount.0, spent.0) {
                found.push(AtRisk {
                    id: budget.id.0,
                    scope: budget.scope.kind().to_owned(),
                    reference: budget.scope.reference(),
                    amount_nanousd: amount.0,
                    spent_nanousd: spent.0,
                    expected_nanousd: expected,
                    used_up_at,
                    ends_at: end,
                });
            }
        }
        found.sort_by_key(|budget| budget.used_up_at);
        Ok(found)
    }
}

/// The tokens of figures as a price takes them.
fn usage_of(figures: &Figures) -> TokenUsage {
    let count = |tokens: i64| u64::try_from(tokens).unwrap_or(0);
    TokenUsage {
        input: count(figures.input_tokens),
        cached_input: count(figures.cached_tokens),
        cache_write: count(figures.cache_write_tokens),
        output: count(figures.output_tokens),
        reasoning: count(figures.reasoning_tokens),
        ..TokenUsage::default()
    }
}

/// What tokens of many requests cost at a price. A second set of rates for long prompts is left out: the requests are
/// not known one by one any more.
fn at(price: &Price, usage: &TokenUsage) -> Option<i64> {
    let plain = Price {
        long_prompt: None,
        ..price.clone()
    };
    plain.cost(usage).ok().map(|cost| cost.0)
}

/// Traffic that another deployment of the same model, which it may go to, would have served for less at today's prices.
fn cheaper(served: &BTreeMap<(String, String), Figures>, offered: &Offered, now: DateTime<Utc>) -> Vec<Cheaper> {
    let mut found = Vec::new();
    for ((provider, model), figures) in served {
        if provider.is_empty() || figures.cost_nanousd == 0 {
            continue;
        }
        let usage = usage_of(figures);
        let others = offered.listed(model, now);
        let others = others.filter(|other| other.provider.as_str() != provider && offered.admits(other));
        let priced = others.filter_map(|other| Some((at(other.price.as_ref()?, &usage)?, other)));
        let Some((cost, best)) = priced.min_by_key(|(cost, _)| *cost) else {
            continue;
        };
        if cost < figures.cost_nanousd {
            found.push(Cheaper {
                deployment: format!("{provider}/{model}"),
                requests: figures.requests,
                cost_nanousd: figures.cost_nanousd,
                alternative: best.id.to_string(),
                alternative_nanousd: cost,
            });
        }
    }
    found.sort_by_key(|cheaper| cheaper.alternative_nanousd - cheaper.cost_nanousd);
    found
}

/// What caches did, and what those of prompts could do.
fn caching(served: &BTreeMap<(String, String), Figures>, offered: &Offered, now: DateTime<Utc>) -> Caching {
    let mut caching = Caching::default();
    for ((provider, model), figures) in served {
        caching.requests += figures.requests;
        caching.hits += figures.cache_hits;
        caching.saved_nanousd += figures.saved_nanousd;
        let deployment = offered
            .listed(model, now)
            .find(|deployment| deployment.provider.as_str() == provider);
        let Some(price) = deployment.as_ref().and_then(|deployment| deployment.price.as_ref()) else {
            continue;
        };
        if price.rates.cache_read.is_none() {
            continue;
        }
        let usage = usage_of(figures);
        let with = |cached_input: u64| at(price, &TokenUsage { cached_input, ..usage });
        let (Some(now), Some(none), Some(all)) = (
            with(usage.cached_input),
            with(0),
            with(usage.input.saturating_sub(usage.cache_write)),
        ) else {
            continue;
        };
        caching.input_tokens += figures.input_tokens;
        caching.cached_tokens += figures.cached_tokens;
        caching.prompt_saved_nanousd += none - now;
        caching.prompt_possible_nanousd += now - all;
    }
    caching
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::Author;
    use crate::domain::budget::calendar::Period;
    use crate::domain::budget::{BudgetScope, BudgetTerms, Enforcement, Unpriced};
    use crate::domain::money::NanoUsd;
    use crate::store::{Store, StoreOptions};
    use crate::telemetry::metrics::Metrics;

    /// Statements that the database was asked.
    fn statements(metrics: &Metrics) -> u64 {
        let text = metrics.encode();
        let count = text
            .lines()
            .find_map(|line| line.strip_prefix("bonito_database_duration_seconds_count "));
        count.map_or(0, |count| count.parse().unwrap())
    }

    #[tokio::test]
    async fn budgets_at_risk_are_found_in_as_many_statements_however_many_budgets_there_are() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            url: StoreOptions::embedded_url(dir.path()),
            max_connections: 4,
            min_connections: 0,
            lazy: false,
            statement_timeout: None,
            acquire_timeout: std::time::Duration::from_secs(5),
        };
        let store = Store::connect(&options).await.unwrap();
        store.migrate().await.unwrap();
        let (metrics, by) = (Arc::new(Metrics::default()), Author::system("a test"));
        store.count_with(metrics.clone());
        let organization = store.create_organization("acme", "Acme").await.unwrap();
        let analytics = Analytics { store: store.clone() };
        let terms = BudgetTerms {
            amount: NanoUsd(1_000),
            period: Period::Monthly,
            zone: chrono_tz::UTC,
            enforcement: Enforcement::Soft,
            unpriced: Unpriced::Allow,
            default_output_tokens: None,
            thresholds: [100].into_iter().collect(),
            enabled: true,
        };
        let now = Utc::now();
        let look = async || {
            let before = statements(&metrics);
            let found = analytics.at_risk(organization, now).await.unwrap();
            (statements(&metrics) - before, found)
        };
        let mut asked = Vec::new();
        for budgets in [3, 300] {
            for number in 0..budgets {
                let scope = BudgetScope::Tag(format!("number={number}"));
                store
                    .set_budget(organization, &scope, &terms, &by)
                    .await
                    .unwrap()
                    .unwrap();
            }
            asked.push(look().await);
        }
        assert_eq!(
            asked[0].0, asked[1].0,
            "one hundred times the budgets, as many statements"
        );
        assert!(asked[1].0 < 10, "{}", asked[1].0);
        assert!(asked.iter().all(|(_, found)| found.is_empty()), "nothing was spent");
        store.close().await;
    }
}
