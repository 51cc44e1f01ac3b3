//! Organizations, and the first of them.

use chrono::Utc;
use entity::organizations;
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, Set};
use uuid::Uuid;

use super::{Store, StoreError, storable};
use crate::domain::ids::OrganizationId;
use crate::domain::key::NewKey;

/// The organization the first start creates.
pub const FIRST_SLUG: &str = "default";

impl Store {
    /// Creates the first organization and its first key, unless there is an organization already. Says whether it did.
    ///
    /// # Errors
    /// The database fails; then nothing was created.
    pub async fn create_first_organization(
        &self,
        key: impl FnOnce(OrganizationId) -> NewKey,
    ) -> Result<bool, StoreError> {
        let turn = self.begin_setup().await?;
        if organizations::Entity::find().count(&turn).await? > 0 {
            turn.rollback().await?;
            return Ok(false);
        }
        let now = storable(Utc::now());
        let id = Uuid::now_v7();
        let organization = organizations::ActiveModel {
            id: Set(id),
            slug: Set(FIRST_SLUG.into()),
            name: Set("Default".into()),
            allowed_models: Set(None),
            created_at: Set(now),
            updated_at: Set(now),
            revision: Set(0),
        };
        organizations::Entity::insert(organization)
            .exec_without_returning(&turn)
            .await?;
        Self::insert_key(&turn, key(OrganizationId(id))).await?;
        turn.commit().await?;
        Ok(true)
    }

    /// The organization with a slug.
    ///
    /// # Errors
    /// The database fails.
    pub async fn organization_by_slug(&self, slug: &str) -> Result<Option<OrganizationId>, StoreError> {
        let found = organizations::Entity::find()
            .filter(organizations::Column::Slug.eq(slug))
            .one(&self.db)
            .await?;
        Ok(found.map(|organization| OrganizationId(organization.id)))
    }
}
