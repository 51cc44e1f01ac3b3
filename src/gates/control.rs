//! What the management API asks of the database, in a form that knows none: handlers meet the store here.

use chrono::{DateTime, Utc};

use crate::domain::config::{ConfigVersion, NewConfig, Saved};
use crate::domain::error::BoxError;
use crate::domain::ids::{KeyId, OrganizationId, RequestId};
use crate::domain::key::RoutedKey;
use crate::domain::scope::Scope;
use crate::routing::simulate::Recorded;

/// An organization as routing needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OrganizationFacts {
    /// Its id.
    pub id: OrganizationId,
    /// Its short name.
    pub slug: String,
    /// Whether it may use the shared credentials.
    pub shared_credentials: bool,
    /// What its keys may use.
    pub scope: Scope,
}

/// Knows organizations, their keys and what they have asked.
#[async_trait::async_trait]
pub trait Directory: Send + Sync {
    /// An organization.
    ///
    /// # Errors
    /// It cannot be found out right now.
    async fn organization(&self, id: OrganizationId) -> Result<Option<OrganizationFacts>, BoxError>;

    /// Those of an organization's keys that have these ids.
    ///
    /// # Errors
    /// It cannot be found out right now.
    async fn keys(&self, organization: OrganizationId, ids: &[KeyId]) -> Result<Vec<RoutedKey>, BoxError>;

    /// The last requests of an organization that reached a provider, newest first, with their keys.
    ///
    /// # Errors
    /// It cannot be found out right now.
    async fn last_requests(&self, organization: OrganizationId, most: u64) -> Result<Vec<(KeyId, Recorded)>, BoxError>;
}

/// Keeps organizations' gateway configs.
#[async_trait::async_trait]
pub trait Configs: Send + Sync {
    /// The config in force.
    ///
    /// # Errors
    /// It cannot be found out right now.
    async fn current(&self, organization: OrganizationId) -> Result<Option<ConfigVersion>, BoxError>;

    /// One version.
    ///
    /// # Errors
    /// It cannot be found out right now.
    async fn version(&self, organization: OrganizationId, version: i64) -> Result<Option<ConfigVersion>, BoxError>;

    /// Versions, newest first, before one of them.
    ///
    /// # Errors
    /// It cannot be found out right now.
    async fn versions(
        &self,
        organization: OrganizationId,
        before: Option<i64>,
        most: u64,
    ) -> Result<Vec<ConfigVersion>, BoxError>;

    /// Puts a config into force.
    ///
    /// # Errors
    /// It cannot be written right now.
    async fn save(&self, config: NewConfig) -> Result<Saved, BoxError>;
}

/// What was asked and answered, as it was kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptPayload {
    /// The body of the request.
    pub request: String,
    /// What was answered.
    pub answer: String,
    /// Whether something was too long to be kept.
    pub truncated: bool,
    /// When the request came.
    pub created_at: DateTime<Utc>,
    /// When it will be deleted.
    pub expires_at: DateTime<Utc>,
}

/// Reads what was kept of requests.
#[async_trait::async_trait]
pub trait PayloadReader: Send + Sync {
    /// The payload of a request.
    ///
    /// # Errors
    /// It cannot be found out right now.
    async fn payload(&self, organization: OrganizationId, request: RequestId) -> Result<Option<KeptPayload>, BoxError>;
}
