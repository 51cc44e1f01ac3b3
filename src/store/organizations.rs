//! Organizations, the first of them, and their teams.

use chrono::Utc;
use entity::{organizations, teams};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, Set};
use uuid::Uuid;

use super::keys::{read_scope, stored_scope};
use super::{Store, StoreError, storable, storable_text};
use crate::domain::call::ParameterPolicy;
use crate::domain::ids::{OrganizationId, TeamId};
use crate::domain::key::{NewKey, NewTeam};
use crate::domain::scope::Scope;

/// An organization as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Organization {
    /// Its id.
    pub id: OrganizationId,
    /// Its short name.
    pub slug: String,
    /// Whether it may use the shared credentials.
    pub shared_credentials: bool,
    /// What its keys may use.
    pub scope: Scope,
}

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
            parameter_policy: Set(None),
            // Who sets a gateway up owns the credentials it is given.
            shared_credentials: Set(true),
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

    /// Creates a team.
    ///
    /// # Errors
    /// The database fails, or the organization has a team with that slug.
    pub async fn create_team(&self, team: NewTeam) -> Result<(), StoreError> {
        let now = storable(Utc::now());
        let row = teams::ActiveModel {
            id: Set(team.id.0),
            organization_id: Set(team.organization.0),
            slug: Set(team.slug),
            name: Set(storable_text(&team.name)),
            allowed_models: Set(stored_scope(&team.scope)),
            created_at: Set(now),
            updated_at: Set(now),
            revision: Set(0),
        };
        teams::Entity::insert(row)
            .exec_without_returning(&self.db)
            .await
            .map(drop)
    }

    /// Changes what a team's keys may use. Says whether there is such a team.
    ///
    /// # Errors
    /// The database fails.
    pub async fn set_team_scope(
        &self,
        organization: OrganizationId,
        team: TeamId,
        scope: &Scope,
    ) -> Result<bool, StoreError> {
        let change = self.begin_key_change().await?;
        let result = teams::Entity::update_many()
            .col_expr(teams::Column::AllowedModels, Expr::value(stored_scope(scope)))
            .col_expr(teams::Column::UpdatedAt, Expr::value(storable(Utc::now())))
            .col_expr(teams::Column::Revision, Expr::value(change.revision))
            .filter(teams::Column::OrganizationId.eq(organization.0))
            .filter(teams::Column::Id.eq(team.0))
            .exec(&change.transaction)
            .await?;
        change.finish(result.rows_affected).await
    }

    /// Changes what an organization's keys may use. Says whether there is such an organization.
    ///
    /// # Errors
    /// The database fails.
    pub async fn set_organization_scope(
        &self,
        organization: OrganizationId,
        scope: &Scope,
    ) -> Result<bool, StoreError> {
        let change = self.begin_key_change().await?;
        let result = organizations::Entity::update_many()
            .col_expr(organizations::Column::AllowedModels, Expr::value(stored_scope(scope)))
            .col_expr(organizations::Column::UpdatedAt, Expr::value(storable(Utc::now())))
            .col_expr(organizations::Column::Revision, Expr::value(change.revision))
            .filter(organizations::Column::Id.eq(organization.0))
            .exec(&change.transaction)
            .await?;
        change.finish(result.rows_affected).await
    }

    /// An organization.
    ///
    /// # Errors
    /// The database fails.
    pub async fn organization(&self, id: OrganizationId) -> Result<Option<Organization>, StoreError> {
        let found = organizations::Entity::find_by_id(id.0).one(&self.db).await?;
        Ok(found.map(|row| Organization {
            id,
            scope: read_scope(row.allowed_models.as_ref()),
            slug: row.slug,
            shared_credentials: row.shared_credentials,
        }))
    }

    /// Changes what holds for an organization's keys about parameters that a provider cannot express, unless a key is
    /// stricter. Says whether there is such an organization.
    ///
    /// # Errors
    /// The database fails.
    pub async fn set_organization_parameter_policy(
        &self,
        organization: OrganizationId,
        policy: Option<ParameterPolicy>,
    ) -> Result<bool, StoreError> {
        let change = self.begin_key_change().await?;
        let result = organizations::Entity::update_many()
            .col_expr(
                organizations::Column::ParameterPolicy,
                Expr::value(policy.map(ParameterPolicy::as_str)),
            )
            .col_expr(organizations::Column::UpdatedAt, Expr::value(storable(Utc::now())))
            .col_expr(organizations::Column::Revision, Expr::value(change.revision))
            .filter(organizations::Column::Id.eq(organization.0))
            .exec(&change.transaction)
            .await?;
        change.finish(result.rows_affected).await
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

    /// The team of an organization with a slug.
    ///
    /// # Errors
    /// The database fails.
    pub async fn team_by_slug(&self, organization: OrganizationId, slug: &str) -> Result<Option<TeamId>, StoreError> {
        let found = teams::Entity::find()
            .filter(teams::Column::OrganizationId.eq(organization.0))
            .filter(teams::Column::Slug.eq(slug))
            .one(&self.db)
            .await?;
        Ok(found.map(|team| TeamId(team.id)))
    }

    /// Lets an organization use the shared credentials, or not any more. Says whether there is such an organization.
    ///
    /// Its keys count as changed, so every gateway knows as soon as it looks for changes.
    ///
    /// # Errors
    /// The database fails.
    pub async fn set_shared_credentials(&self, slug: &str, granted: bool) -> Result<bool, StoreError> {
        let change = self.begin_key_change().await?;
        let result = organizations::Entity::update_many()
            .col_expr(organizations::Column::SharedCredentials, Expr::value(granted))
            .col_expr(organizations::Column::UpdatedAt, Expr::value(storable(Utc::now())))
            .col_expr(organizations::Column::Revision, Expr::value(change.revision))
            .filter(organizations::Column::Slug.eq(slug))
            .exec(&change.transaction)
            .await?;
        change.finish(result.rows_affected).await
    }

    /// Creates an organization, without the grant of shared credentials.
    ///
    /// # Errors
    /// The database fails, or the slug is taken.
    pub async fn create_organization(&self, slug: &str, name: &str) -> Result<OrganizationId, StoreError> {
        let now = storable(Utc::now());
        let id = Uuid::now_v7();
        let organization = organizations::ActiveModel {
            id: Set(id),
            slug: Set(slug.into()),
            name: Set(storable_text(name)),
            allowed_models: Set(None),
            parameter_policy: Set(None),
            shared_credentials: Set(false),
            created_at: Set(now),
            updated_at: Set(now),
            revision: Set(0),
        };
        organizations::Entity::insert(organization)
            .exec_without_returning(&self.db)
            .await?;
        Ok(OrganizationId(id))
    }
}

#[cfg(test)]
mod tests {
    use migration::MigratorTrait as _;
    use sea_orm::ConnectionTrait as _;

    use super::*;
    use crate::store::StoreOptions;

    #[tokio::test]
    async fn an_installation_from_before_the_grant_gives_it_to_its_first_organization_alone() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            url: StoreOptions::embedded_url(dir.path()),
            max_connections: 2,
            min_connections: 0,
            statement_timeout: None,
            acquire_timeout: std::time::Duration::from_secs(5),
        };
        let store = Store::connect(&options).await.unwrap();
        migration::Migrator::up(&store.db, Some(1)).await.unwrap();
        for (id, slug) in [(1, "first"), (2, "second")] {
            let id = format!("{id:032x}");
            let insert = format!(
                "INSERT INTO organizations (id, slug, name, created_at, updated_at) \
                 VALUES (x'{id}', '{slug}', '{slug}', '2026-11-01T00:00:00Z', '2026-11-01T00:00:00Z')"
            );
            store.db.execute_unprepared(&insert).await.unwrap();
        }
        store.migrate().await.unwrap();
        let mut granted: Vec<(String, bool)> = organizations::Entity::find()
            .all(&store.db)
            .await
            .unwrap()
            .into_iter()
            .map(|organization| (organization.slug, organization.shared_credentials))
            .collect();
        granted.sort();
        assert_eq!(granted, [("first".to_owned(), true), ("second".to_owned(), false)]);
        store.close().await;
    }
}
