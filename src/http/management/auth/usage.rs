//! What the proofs about past requests are good for.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Grant, May, ReadLogs, ReadUsage};
use crate::analytics::insights::Offered;
use crate::analytics::logs::Detail;
use crate::analytics::{Analytics, AnalyticsError, LogPage, Sight, tags};
use crate::domain::ids::{OrganizationId, RequestId};
use crate::domain::managed_key::KeyReach;
use crate::domain::report::insight::Insights;
use crate::domain::report::log::LogFilter;
use crate::domain::report::usage::{GroupBy, UsageFilter, UsageQuestion, UsageReport};
use crate::http::management::problem::Refusal;
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
    async fn narrowed(
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

/// A key in the words of those who look at its requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyInSight {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its tags, as `name=value`.
    pub tags: Vec<String>,
}

impl<G: Grant> May<G> {
    /// The keys, revoked ones included, whose requests the caller may see, by their names.
    async fn keys_in_sight(&self) -> Result<Vec<KeyInSight>, Refusal> {
        let sight = self.sight().await?;
        let labels = self
            .management
            .analytics
            .store
            .key_labels(Some(self.organization))
            .await;
        let seen = labels.map_err(unavailable)?.into_iter().filter(|key| match &sight {
            Sight::All => true,
            Sight::Team(team) => key.team == Some(team.0),
            Sight::Keys(own) => own.contains(&key.id),
        });
        let mut keys: Vec<KeyInSight> = seen
            .map(|key| KeyInSight {
                tags: tags(&key).collect(),
                id: key.id,
                name: key.name,
            })
            .collect();
        keys.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(keys)
    }
}

impl May<ReadUsage> {
    /// The keys whose usage the caller may see, by their names.
    pub async fn keys(&self) -> Result<Vec<KeyInSight>, Refusal> {
        self.keys_in_sight().await
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
    /// The keys whose requests the caller may see, by their names.
    pub async fn keys(&self) -> Result<Vec<KeyInSight>, Refusal> {
        self.keys_in_sight().await
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

    /// What an export reads from, page by page, after the answer has begun. The filter says what may be seen.
    pub fn pages(&self) -> Analytics {
        Analytics::clone(&self.management.analytics)
    }
}
