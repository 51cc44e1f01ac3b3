//! What the proofs about past requests are good for.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Grant, May, ReadLogs, ReadUsage};
use crate::analytics::insights::Offered;
use crate::analytics::logs::Detail;
use crate::analytics::{Analytics, AnalyticsError, AttemptRow, KeyLabel, LogPage, Sight, tags};
use crate::domain::ids::{OrganizationId, RequestId};
use crate::domain::managed_key::KeyReach;
use crate::domain::pricing::Price;
use crate::domain::report::insight::Insights;
use crate::domain::report::log::LogFilter;
use crate::domain::report::usage::{GroupBy, UsageFilter, UsageQuestion, UsageReport};
use crate::domain::service::Service;
use crate::http::management::problem::Refusal;
use crate::routing::price_book::price_named;
use crate::upstream::endpoints::Tenant;

/// Which requests somebody asks about, before it is known which of them they may see.
#[derive(Clone, Default, Debug)]
pub struct Asked {
    /// Those of this key.
    pub key: Option<Uuid>,
    /// Those of keys of this team.
    pub team: Option<Uuid>,
    /// Those of keys with this tag.
    pub tag: Option<String>,
}

fn unavailable(error: AnalyticsError) -> Refusal {
    Refusal::unavailable(&error.into())
}

impl<G: Grant> May<G> {
    /// Whose requests the caller may see.
    async fn sight(&self) -> Result<Sight, Refusal> {
        Ok(match self.authority().sees() {
            Some(KeyReach::Organization) => Sight::All,
            Some(KeyReach::Team(team)) => Sight::Team(team),
            Some(KeyReach::Own(user)) => {
                let keys = self.management.analytics.keys_of(self.organization, user).await;
                Sight::Keys(keys.map_err(unavailable)?)
            }
            // A team's admin without a team, a member who is no user.
            None => Sight::Keys(BTreeSet::new()),
        })
    }

    /// What was asked for, as far as it may be seen: a team, and keys.
    pub(super) async fn narrowed(
        &self,
        asked: &Asked,
        organization: Option<OrganizationId>,
    ) -> Result<(Option<Uuid>, Option<BTreeSet<Uuid>>), Refusal> {
        let analytics = &self.management.analytics;
        let mut keys = asked.key.map(|key| BTreeSet::from([key]));
        if let Some(tag) = &asked.tag {
            let tagged = analytics.keys_with_tag(organization, tag).await.map_err(unavailable)?;
            keys = Some(match keys {
                Some(keys) => keys.intersection(&tagged).copied().collect(),
                None => tagged,
            });
        }
        Ok(self.sight().await?.narrow(asked.team, keys))
    }
}

/// The newest keys whose tags are offered as filters.
const OFFERED_KEYS: u64 = 500;

impl<G: Grant> May<G> {
    /// The names of keys, revoked ones included, as far as the caller may see their requests.
    async fn names_in_sight(&self, ids: Vec<Uuid>) -> Result<HashMap<Uuid, String>, Refusal> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let sight = self.sight().await?;
        let store = &self.management.analytics.store;
        let labels = store
            .key_labels_by_id(self.organization, ids)
            .await
            .map_err(unavailable)?;
        let seen = labels.into_iter().filter(|key| is_seen(&sight, key));
        Ok(seen.map(|key| (key.id, key.name)).collect())
    }

    /// Tags, as `name=value`, of the newest keys whose requests the caller may see: some to choose from, and not all there are.
    async fn tags_in_sight(&self) -> Result<Vec<String>, Refusal> {
        let sight = self.sight().await?;
        let store = &self.management.analytics.store;
        let labels = store
            .newest_key_labels(self.organization, OFFERED_KEYS)
            .await
            .map_err(unavailable)?;
        let seen = labels.iter().filter(|key| is_seen(&sight, key));
        Ok(seen.flat_map(tags).collect::<BTreeSet<_>>().into_iter().collect())
    }
}

fn is_seen(sight: &Sight, key: &KeyLabel) -> bool {
    match sight {
        Sight::All => true,
        Sight::Team(team) => key.team == Some(team.0),
        Sight::Keys(own) => own.contains(&key.id),
    }
}

impl May<ReadUsage> {
    /// The names of keys that requests, batches or budgets are about.
    pub async fn names_of(&self, keys: Vec<Uuid>) -> Result<HashMap<Uuid, String>, Refusal> {
        self.names_in_sight(keys).await
    }

    /// Tags to choose from.
    pub async fn tags(&self) -> Result<Vec<String>, Refusal> {
        self.tags_in_sight().await
    }

    /// Figures. Only whoever may see every organization gets them of all, by asking for them by organization without
    /// naming one.
    pub async fn usage(&self, asked: &Asked, mut question: UsageQuestion) -> Result<UsageReport, Refusal> {
        let everybody = question.group_by == Some(GroupBy::Organization) && self.everywhere;
        question.organization = (!everybody).then_some(self.organization);
        let (team, keys) = self.narrowed(asked, question.organization).await?;
        question.filter = UsageFilter {
            team,
            keys,
            ..question.filter
        };
        self.management.analytics.usage(&question).await.map_err(unavailable)
    }

    /// What could be done for less.
    pub async fn insights(&self, days: i64, now: DateTime<Utc>) -> Result<Insights, Refusal> {
        let (sight, offered) = (self.sight().await?, self.offered().await?);
        let found = self
            .management
            .analytics
            .insights(self.organization, &sight, &offered, (days, now))
            .await;
        found.map_err(unavailable)
    }

    /// What requests may go to now, and what it costs them there.
    async fn offered(&self) -> Result<Offered, Refusal> {
        let (organization, holdings) = (self.facts().await?, self.holdings().await?);
        let tenant = Tenant {
            organization: &organization.slug,
            shared: organization.shared_credentials,
        };
        let pipeline = &self.management.pipeline;
        let endpoints = pipeline.endpoints.now();
        Ok(Offered {
            policy: pipeline.policies.of(self.organization),
            catalog: pipeline.catalog_of(self.organization),
            scopes: holdings.scopes.into_iter().map(|(_, scope)| scope.into()).collect(),
            usable: endpoints.usable(tenant).map(|(provider, _)| provider).collect(),
        })
    }
}

impl May<ReadLogs> {
    /// The names of keys that requests, batches or budgets are about.
    pub async fn names_of(&self, keys: Vec<Uuid>) -> Result<HashMap<Uuid, String>, Refusal> {
        self.names_in_sight(keys).await
    }

    /// Tags to choose from.
    pub async fn tags(&self) -> Result<Vec<String>, Refusal> {
        self.tags_in_sight().await
    }

    /// What a filter and what was asked for come to, as far as it may be seen.
    pub async fn log_filter(&self, asked: &Asked, filter: LogFilter) -> Result<LogFilter, Refusal> {
        let (team, keys) = self.narrowed(asked, Some(self.organization)).await?;
        Ok(LogFilter {
            organization: self.organization,
            team,
            keys,
            ..filter
        })
    }

    /// A page of the log.
    pub async fn log(&self, filter: &LogFilter, before: Option<Uuid>, most: u64) -> Result<LogPage, Refusal> {
        let found = self.management.analytics.log(filter, before, most).await;
        found.map_err(unavailable)
    }

    /// One request.
    pub async fn request(&self, id: RequestId) -> Result<Detail, Refusal> {
        let sight = self.sight().await?;
        let found = self.management.analytics.request(self.organization, &sight, id).await;
        found.map_err(unavailable)?.ok_or_else(|| Refusal::not_found("request"))
    }

    /// The prices that attempts were charged by, by their versions: those that were kept, and for what is from before they were,
    /// those in force. Whoever may see a request sees what it was charged by.
    pub async fn prices_of(&self, attempts: &[AttemptRow]) -> Result<HashMap<String, Price>, Refusal> {
        let versions = attempts.iter().filter_map(|attempt| attempt.price_version.as_deref());
        let versions: Vec<&str> = versions.map(Service::bare).collect();
        let kept = self.management.analytics.kept_prices(&versions).await;
        let kept = kept.map_err(unavailable)?.into_iter();
        let mut prices: HashMap<String, Price> = kept.map(|price| (price.version.to_string(), price)).collect();
        let pipeline = &self.management.pipeline;
        for attempt in attempts {
            let Some(version) = attempt
                .price_version
                .as_deref()
                .map(Service::bare)
                .filter(|version| !prices.contains_key(*version))
            else {
                continue;
            };
            let policy = pipeline.policies.of(self.organization);
            let catalog = pipeline.catalog_of(self.organization);
            let deployment = (attempt.provider.as_str(), attempt.model.as_str());
            if let Some(price) = price_named(&catalog, &policy, deployment, version) {
                prices.insert(version.to_owned(), price);
            }
        }
        Ok(prices)
    }

    /// What an export reads from, page by page, after the answer has begun. The filter says what may be seen.
    pub fn pages(&self) -> Analytics {
        Analytics::clone(&self.management.analytics)
    }
}
