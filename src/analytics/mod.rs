//! What became of past requests: figures, the log, and what could be done for less.
//!
//! [`usage`] answers questions about figures, [`logs`] about single requests, [`insights`] looks for what could be cheaper.
//! [`rollup`] makes the sums of hours and days that they are answered from, and removes what is too old. [`csv`] writes
//! tables. All SQL is the store's.

pub mod csv;
pub mod insights;
pub mod logs;
pub mod rollup;
pub mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use crate::domain::health::PastChange;
use crate::domain::ids::{OrganizationId, TeamId, UserId};
use crate::domain::pricing::Price;
use crate::domain::report::hour::Hour;
use crate::store::{Store, StoreError};

/// A key as it is called.
pub use crate::store::labels::KeyLabel;
/// A row of the ledger.
pub use crate::store::ledger::{AttemptRow, RequestRow};
/// A page of the log.
pub use crate::store::logs::LogPage;

/// How long one question may take, its turn included. Whoever asks gets a 503 then rather than wait on.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a question was not answered.
pub type AnalyticsError = StoreError;

/// Answers questions about past requests.
#[derive(Clone)]
pub struct Analytics {
    /// The database.
    pub store: Store,
}

/// Whose requests somebody may see, within an organization.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sight {
    /// Everybody's.
    All,
    /// Those of a team's keys.
    Team(TeamId),
    /// Those of these keys.
    Keys(BTreeSet<Uuid>),
}

impl Sight {
    /// Narrows what was asked for to what may be seen: which team, and which keys.
    pub fn narrow(&self, team: Option<Uuid>, keys: Option<BTreeSet<Uuid>>) -> (Option<Uuid>, Option<BTreeSet<Uuid>>) {
        match self {
            Self::All => (team, keys),
            // Another team's requests are none that they can see.
            Self::Team(own) if team.is_some_and(|team| team != own.0) => (team, Some(BTreeSet::new())),
            Self::Team(own) => (Some(own.0), keys),
            Self::Keys(own) => {
                let both = keys.map(|keys| keys.intersection(own).copied().collect());
                (team, Some(both.unwrap_or_else(|| own.clone())))
            }
        }
    }
}

/// The tags of a key, as `name=value`: texts, numbers and flags among its metadata, like budgets see them.
pub fn tags(key: &KeyLabel) -> impl Iterator<Item = String> {
    let all = key.metadata.as_object().into_iter().flatten();
    all.filter_map(|(name, value)| match value {
        Value::String(text) => Some(format!("{name}={text}")),
        Value::Number(number) => Some(format!("{name}={number}")),
        Value::Bool(flag) => Some(format!("{name}={flag}")),
        _ => None,
    })
}

impl Analytics {
    /// The keys that have a tag, `name=value` or `name` alone for any value, among those of an organization.
    ///
    /// # Errors
    /// The database fails.
    pub async fn keys_with_tag(
        &self,
        organization: Option<OrganizationId>,
        tag: &str,
    ) -> Result<BTreeSet<Uuid>, AnalyticsError> {
        let keys = self.store.key_labels(organization).await?;
        let has = |key: &KeyLabel| {
            tags(key).any(|own| own == tag || own.split_once('=').is_some_and(|(name, _)| name == tag))
        };
        Ok(keys.iter().filter(|key| has(key)).map(|key| key.id).collect())
    }

    /// The keys of an organization that belong to a user.
    ///
    /// # Errors
    /// The database fails.
    pub async fn keys_of(&self, organization: OrganizationId, user: UserId) -> Result<BTreeSet<Uuid>, AnalyticsError> {
        let keys = self.store.key_labels(Some(organization)).await?;
        Ok(keys
            .iter()
            .filter(|key| key.owner == Some(user.0))
            .map(|key| key.id)
            .collect())
    }

    /// How many attempts at a provider failed in each hour, those that another one made up for among them.
    ///
    /// # Errors
    /// The database fails, or takes too long.
    pub async fn failed_attempts(
        &self,
        organization: OrganizationId,
        provider: &str,
        from: Hour,
        to: Hour,
    ) -> Result<BTreeMap<DateTime<Utc>, i64>, AnalyticsError> {
        let counted = self.store.failed_attempts(organization, provider, from, to);
        Ok(self.in_turn(counted).await?.into_iter().collect())
    }

    /// The prices with these versions, as far as they are kept.
    ///
    /// # Errors
    /// The database fails, or takes too long.
    pub async fn kept_prices(&self, versions: &[&str]) -> Result<Vec<Price>, AnalyticsError> {
        crate::store::within(PATIENCE, self.store.kept_prices(versions)).await
    }

    /// The last changes of a provider's health as an organization's requests met it, newest first; with `shared` those of
    /// credentials that organizations share are among them.
    ///
    /// # Errors
    /// The database fails, or takes too long.
    pub async fn health_history(
        &self,
        organization: OrganizationId,
        shared: bool,
        provider: &str,
        most: u64,
    ) -> Result<Vec<PastChange>, AnalyticsError> {
        let found = self.store.health_history(organization, shared, provider, most);
        self.in_turn(found).await
    }

    /// Does something that reads a lot, when it is its turn.
    async fn in_turn<T>(&self, question: impl Future<Output = Result<T, StoreError>>) -> Result<T, AnalyticsError> {
        crate::store::within(PATIENCE, async {
            let _turn = self.store.report_turn().await?;
            question.await
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_sees_more_by_asking_for_it() {
        let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
        let keys = |ids: &[Uuid]| Some(ids.iter().copied().collect::<BTreeSet<_>>());
        assert_eq!(Sight::All.narrow(Some(a), keys(&[b])), (Some(a), keys(&[b])));
        let team = Sight::Team(TeamId(a));
        assert_eq!(team.narrow(None, None), (Some(a), None));
        assert_eq!(team.narrow(Some(a), keys(&[b])), (Some(a), keys(&[b])));
        assert_eq!(team.narrow(Some(b), None), (Some(b), keys(&[])));
        let own = Sight::Keys([a, b].into());
        assert_eq!(own.narrow(None, None), (None, keys(&[a, b])));
        assert_eq!(own.narrow(None, keys(&[b, c])), (None, keys(&[b])));
        assert_eq!(own.narrow(Some(c), keys(&[c])), (Some(c), keys(&[])));
    }
}
