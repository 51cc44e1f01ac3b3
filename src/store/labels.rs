//! Names of what figures are about.

use chrono::{DateTime, Utc};
use entity::{gateway_keys, organizations, teams};
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::Value;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::domain::ids::OrganizationId;

/// A key as figures show it.
#[derive(Clone, PartialEq, Debug)]
pub struct KeyLabel {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its team now.
    pub team: Option<Uuid>,
    /// The user it belongs to.
    pub owner: Option<Uuid>,
    /// What its owner wants to remember about it; the texts in it are its tags.
    pub metadata: Value,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last used.
    pub last_used_at: Option<DateTime<Utc>>,
    /// Whether it can still be used.
    pub usable: bool,
}

impl Store {
    /// The keys of an organization, or of everybody, those included that were revoked.
    ///
    /// # Errors
    /// The database fails.
    pub async fn key_labels(&self, organization: Option<OrganizationId>) -> Result<Vec<KeyLabel>, StoreError> {
        use gateway_keys::Column;
        let of = organization.map(|organization| Column::OrganizationId.eq(organization.0));
        let keys = gateway_keys::Entity::find()
            .filter(Condition::all().add_option(of))
            .order_by_asc(Column::Id)
            .all(&self.db)
            .await?;
        let now = Utc::now();
        Ok(keys.into_iter().map(|key| label(key, now)).collect())
    }

    /// The keys of an organization that have one of these ids, those included that were revoked.
    ///
    /// # Errors
    /// The database fails.
    pub async fn key_labels_by_id(
        &self,
        organization: OrganizationId,
        ids: Vec<Uuid>,
    ) -> Result<Vec<KeyLabel>, StoreError> {
        use gateway_keys::Column;
        let keys = gateway_keys::Entity::find()
            .filter(Column::OrganizationId.eq(organization.0))
            .filter(Column::Id.is_in(ids))
            .all(&self.db)
            .await?;
        let now = Utc::now();
        Ok(keys.into_iter().map(|key| label(key, now)).collect())
    }

    /// The newest keys of an organization.
    ///
    /// # Errors
    /// The database fails.
    pub async fn newest_key_labels(
        &self,
        organization: OrganizationId,
        most: u64,
    ) -> Result<Vec<KeyLabel>, StoreError> {
        use gateway_keys::Column;
        let keys = gateway_keys::Entity::find()
            .filter(Column::OrganizationId.eq(organization.0))
            .order_by_desc(Column::Id)
            .limit(most)
            .all(&self.db)
            .await?;
        let now = Utc::now();
        Ok(keys.into_iter().map(|key| label(key, now)).collect())
    }

    /// The ids and names of an organization's teams, or of everybody's.
    ///
    /// # Errors
    /// The database fails.
    pub async fn team_names(&self, organization: Option<OrganizationId>) -> Result<Vec<(Uuid, String)>, StoreError> {
        let of = organization.map(|organization| teams::Column::OrganizationId.eq(organization.0));
        teams::Entity::find()
            .select_only()
            .columns([teams::Column::Id, teams::Column::Slug])
            .filter(Condition::all().add_option(of))
            .into_tuple()
            .all(&self.db)
            .await
    }

    /// The ids and short names of all organizations.
    ///
    /// # Errors
    /// The database fails.
    pub async fn organization_names(&self) -> Result<Vec<(Uuid, String)>, StoreError> {
        organizations::Entity::find()
            .select_only()
            .columns([organizations::Column::Id, organizations::Column::Slug])
            .into_tuple()
            .all(&self.db)
            .await
    }
}

fn label(key: gateway_keys::Model, now: DateTime<Utc>) -> KeyLabel {
    KeyLabel {
        id: key.id,
        name: key.name,
        team: key.team_id,
        owner: key.owner_id,
        metadata: key.metadata,
        created_at: key.created_at,
        last_used_at: key.last_used_at,
        usable: !key.disabled && key.revoked_at.is_none() && key.expires_at.is_none_or(|end| end > now),
    }
}
