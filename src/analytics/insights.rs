//! What an organization could do for less, from its last weeks and today's prices.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::usage::BY_DEPLOYMENT;
use super::{Analytics, AnalyticsError, Sight};
use crate::domain::ids::OrganizationId;
use crate::domain::pricing::Price;
use crate::domain::report::figures::Figures;
use crate::domain::report::hour::Hour;
use crate::domain::report::insight::{AtRisk, Caching, Cheaper, IdleKey, Insights, runs_out};
use crate::domain::report::usage::UsageFilter;
use crate::domain::usage::TokenUsage;
use crate::routing::catalog::{Catalog, Deployment};
use crate::store::usage::SumsQuestion;

impl Analytics {
    /// Looks at the last days.
    ///
    /// # Errors
    /// The database fails, or takes too long.
    pub async fn insights(
        &self,
        organization: OrganizationId,
        sight: &Sight,
        days: i64,
        now: DateTime<Utc>,
    ) -> Result<Insights, AnalyticsError> {
        self.in_turn(self.look(organization, sight, days, now)).await
    }

    async fn look(
        &self,
        organization: OrganizationId,
        sight: &Sight,
        days: i64,
        now: DateTime<Utc>,
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
        let catalog = self.catalog.load();
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
            cheaper: cheaper(&served, &catalog),
            caching: caching(&served, &catalog),
            idle_keys: idle,
            // Others' budgets are nobody's business who does not see everything.
            at_risk: match sight {
                Sight::All => self.at_risk(organization, now).await?,
                Sight::Team(_) | Sight::Keys(_) => Vec::new(),
            },
        })
    }

    async fn at_risk(&self, organization: OrganizationId, now: DateTime<Utc>) -> Result<Vec<AtRisk>, AnalyticsError> {
        let mut found = Vec::new();
        for budget in self.store.budgets_of(organization).await? {
            if !budget.terms.enabled {
                continue;
            }
            let span = budget.terms.period.span(budget.terms.zone, now);
            let spent = self.store.spent_of(budget.id, span.start).await?.spent;
            let Some(end) = span.end else { continue };
            let amount = budget.terms.amount;
            if let Some((expected, used_up_at)) = runs_out((span.start, end), now, amount.0, spent.0) {
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

/// Traffic that another deployment of the same model would have served for less, at today's prices.
fn cheaper(served: &BTreeMap<(String, String), Figures>, catalog: &Catalog) -> Vec<Cheaper> {
    let mut found = Vec::new();
    for ((provider, model), figures) in served {
        if provider.is_empty() || figures.cost_nanousd == 0 {
            continue;
        }
        let usage = usage_of(figures);
        let others = same_model(catalog, model).filter(|other| other.provider.as_str() != provider);
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

fn same_model<'c>(catalog: &'c Catalog, model: &str) -> impl Iterator<Item = &'c Arc<Deployment>> {
    catalog
        .deployments()
        .filter(move |deployment| deployment.model.as_str() == model)
}

/// What caches did, and what those of prompts could do.
fn caching(served: &BTreeMap<(String, String), Figures>, catalog: &Catalog) -> Caching {
    let mut caching = Caching::default();
    for ((provider, model), figures) in served {
        caching.requests += figures.requests;
        caching.hits += figures.cache_hits;
        caching.saved_nanousd += figures.saved_nanousd;
        let deployment = same_model(catalog, model).find(|deployment| deployment.provider.as_str() == provider);
        let Some(price) = deployment.and_then(|deployment| deployment.price.as_ref()) else {
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
