//! Organizations, the first of them, and their teams.
//!
//! Every change of one counts as a change of its keys, so all replicas open those anew. It takes the keys' counter, and
//! so nothing that belongs to keys comes between what a deletion looked at and its end.

use chrono::Utc;
use entity::{
    gateway_budgets, gateway_configs, gateway_keys, gateway_rate_limits, organizations, refresh_tokens, teams, users,
};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel as _, PaginatorTrait,
    QueryFilter, QueryOrder, QuerySelect, Set,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::keys::{read_scope, stored_scope};
use super::{Store, StoreError, audit, refusal, storable, storable_text};
use crate::domain::audit::{Author, Deed};
use crate::domain::call::ParameterPolicy;
use crate::domain::ids::{OrganizationId, TeamId};
use crate::domain::key::{NewKey, NewTeam};
use crate::domain::restraint::Restraints;
use crate::domain::scope::Scope;
use crate::domain::tenancy::{
    Needed, NewOrganization, Organization, OrganizationChange, OrganizationChanged, Team, TeamChange, TeamChanged,
};

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
            rate_limit_ceiling: Set(None),
            created_at: Set(now),
            updated_at: Set(now),
            revision: Set(0),
        };
        organizations::Entity::insert(organization)
            .exec_without_returning(&turn)
            .await?;
        Self::insert_key(&turn, key(OrganizationId(id)), &Restraints::default()).await?;
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
        Ok(found.map(read_organization))
    }

    /// Organizations, oldest first, after one of them. For those who may see all.
    ///
    /// # Errors
    /// The database fails.
    pub async fn organizations(
        &self,
        after: Option<OrganizationId>,
        limit: u64,
    ) -> Result<Vec<Organization>, StoreError> {
        let mut query = organizations::Entity::find()
            .order_by_asc(organizations::Column::Id)
            .limit(limit);
        if let Some(after) = after {
            query = query.filter(organizations::Column::Id.gt(after.0));
        }
        Ok(query.all(&self.db).await?.into_iter().map(read_organization).collect())
    }

    /// Creates an organization.
    ///
    /// # Errors
    /// The database fails; then nothing was created.
    pub async fn create_tenant(&self, new: NewOrganization, by: &Author) -> Result<OrganizationChanged, StoreError> {
        let change = self.begin_key_change().await?;
        let db = &change.transaction;
        let taken = organizations::Entity::find()
            .filter(organizations::Column::Slug.eq(&new.slug))
            .count(db)
            .await?;
        if taken > 0 {
            change.finish(0).await?;
            return Ok(OrganizationChanged::SlugTaken);
        }
        let now = storable(Utc::now());
        let row = organizations::Model {
            id: new.id.0,
            slug: new.slug,
            name: storable_text(&new.name),
            allowed_models: stored_scope(&new.scope),
            shared_credentials: new.shared_credentials,
            parameter_policy: new.parameter_policy.map(|policy| policy.as_str().to_owned()),
            rate_limit_ceiling: new.rate_limit_ceiling.map(stored_ceiling),
            created_at: now,
            updated_at: now,
            revision: change.revision,
        };
        organizations::Entity::insert(row.clone().into_active_model())
            .exec_without_returning(db)
            .await?;
        let organization = read_organization(row);
        let deed = Deed::new("organization.create", organization.id).after(described(&organization));
        audit::record(db, organization.id, by, deed).await?;
        change.finish(1).await?;
        Ok(OrganizationChanged::Done(organization))
    }

    /// Changes an organization.
    ///
    /// # Errors
    /// The database fails; then nothing changed.
    pub async fn change_tenant(
        &self,
        id: OrganizationId,
        wanted: &OrganizationChange,
        by: &Author,
    ) -> Result<OrganizationChanged, StoreError> {
        let change = self.begin_key_change().await?;
        let db = &change.transaction;
        let Some(before) = organizations::Entity::find_by_id(id.0).one(db).await? else {
            change.finish(0).await?;
            return Ok(OrganizationChanged::NoSuchOrganization);
        };
        let mut row = before.clone();
        if let Some(name) = &wanted.name {
            row.name = storable_text(name);
        }
        if let Some(scope) = &wanted.scope {
            row.allowed_models = stored_scope(scope);
        }
        if let Some(policy) = wanted.parameter_policy {
            row.parameter_policy = policy.map(|policy| policy.as_str().to_owned());
        }
        if let Some(granted) = wanted.shared_credentials {
            row.shared_credentials = granted;
        }
        if let Some(ceiling) = wanted.rate_limit_ceiling {
            row.rate_limit_ceiling = ceiling.map(stored_ceiling);
        }
        row.updated_at = storable(Utc::now());
        row.revision = change.revision;
        organizations::Entity::update(row.clone().into_active_model().reset_all())
            .exec(db)
            .await?;
        let (before, after) = (read_organization(before), read_organization(row));
        let deed = Deed::new("organization.update", id)
            .before(described(&before))
            .after(described(&after));
        audit::record(db, id, by, deed).await?;
        change.finish(1).await?;
        Ok(OrganizationChanged::Done(after))
    }

    /// Deletes an organization that has no teams, no keys that work, no limits and no budgets any more. Its users, their
    /// sessions, its revoked keys and its configs go with it; the ledger and the audit log stay.
    ///
    /// # Errors
    /// The database fails; then nothing was deleted.
    pub async fn delete_tenant(&self, id: OrganizationId, by: &Author) -> Result<OrganizationChanged, StoreError> {
        let change = self.begin_key_change().await?;
        let db = &change.transaction;
        let Some(row) = organizations::Entity::find_by_id(id.0).one(db).await? else {
            change.finish(0).await?;
            return Ok(OrganizationChanged::NoSuchOrganization);
        };
        let needed = counted([
            ("teams", teams_of(id).count(db).await?),
            ("keys that are not revoked", working_keys_of(id).count(db).await?),
            ("rate limits", rate_limits_of(id).count(db).await?),
            ("budgets", budgets_of(id).count(db).await?),
        ]);
        if !needed.is_empty() {
            change.finish(0).await?;
            return Ok(OrganizationChanged::Needed(needed));
        }
        let organization = read_organization(row);
        let deed = Deed::new("organization.delete", id).before(described(&organization));
        audit::record(db, id, by, deed).await?;
        match delete_with_what_is_its_own(db, id).await {
            Ok(()) => {}
            // Something of a kind that is not counted above.
            Err(error) if refusal(&error).is_some() => {
                change.finish(0).await?;
                let what = "other things, such as webhooks or files";
                return Ok(OrganizationChanged::Needed(vec![Needed { what, count: 0 }]));
            }
            Err(error) => return Err(error),
        }
        change.finish(1).await?;
        Ok(OrganizationChanged::Done(organization))
    }

    /// A team.
    ///
    /// # Errors
    /// The database fails.
    pub async fn team(&self, organization: OrganizationId, id: TeamId) -> Result<Option<Team>, StoreError> {
        let found = find_team(&self.db, organization, id).await?;
        Ok(found.map(read_team))
    }

    /// Teams of an organization, oldest first, after one of them.
    ///
    /// # Errors
    /// The database fails.
    pub async fn teams(
        &self,
        organization: OrganizationId,
        after: Option<TeamId>,
        limit: u64,
    ) -> Result<Vec<Team>, StoreError> {
        let mut query = teams_of(organization).order_by_asc(teams::Column::Id).limit(limit);
        if let Some(after) = after {
            query = query.filter(teams::Column::Id.gt(after.0));
        }
        Ok(query.all(&self.db).await?.into_iter().map(read_team).collect())
    }

    /// Creates a team and writes it down.
    ///
    /// # Errors
    /// The database fails; then nothing was created.
    pub async fn add_team(&self, new: NewTeam, by: &Author) -> Result<TeamChanged, StoreError> {
        let change = self.begin_key_change().await?;
        let db = &change.transaction;
        if organizations::Entity::find_by_id(new.organization.0).count(db).await? == 0 {
            change.finish(0).await?;
            return Ok(TeamChanged::NoSuchOrganization);
        }
        let taken = teams_of(new.organization)
            .filter(teams::Column::Slug.eq(&new.slug))
            .count(db)
            .await?;
        if taken > 0 {
            change.finish(0).await?;
            return Ok(TeamChanged::SlugTaken);
        }
        let now = storable(Utc::now());
        let row = teams::Model {
            id: new.id.0,
            organization_id: new.organization.0,
            slug: new.slug,
            name: storable_text(&new.name),
            allowed_models: stored_scope(&new.scope),
            created_at: now,
            updated_at: now,
            revision: change.revision,
        };
        teams::Entity::insert(row.clone().into_active_model())
            .exec_without_returning(db)
            .await?;
        let team = read_team(row);
        let deed = Deed::new("team.create", team.id).after(described_team(&team));
        audit::record(db, team.organization, by, deed).await?;
        change.finish(1).await?;
        Ok(TeamChanged::Done(team))
    }

    /// Changes a team.
    ///
    /// # Errors
    /// The database fails; then nothing changed.
    pub async fn change_team(
        &self,
        organization: OrganizationId,
        id: TeamId,
        wanted: &TeamChange,
        by: &Author,
    ) -> Result<TeamChanged, StoreError> {
        let change = self.begin_key_change().await?;
        let db = &change.transaction;
        let Some(before) = find_team(db, organization, id).await? else {
            change.finish(0).await?;
            return Ok(TeamChanged::NoSuchTeam);
        };
        let mut row = before.clone();
        if let Some(name) = &wanted.name {
            row.name = storable_text(name);
        }
        if let Some(scope) = &wanted.scope {
            row.allowed_models = stored_scope(scope);
        }
        row.updated_at = storable(Utc::now());
        row.revision = change.revision;
        teams::Entity::update(row.clone().into_active_model().reset_all())
            .exec(db)
            .await?;
        let (before, after) = (read_team(before), read_team(row));
        let deed = Deed::new("team.update", id)
            .before(described_team(&before))
            .after(described_team(&after));
        audit::record(db, organization, by, deed).await?;
        change.finish(1).await?;
        Ok(TeamChanged::Done(after))
    }

    /// Deletes a team that has no users, no keys that work, no limits and no budgets any more. Its revoked keys stay,
    /// without a team.
    ///
    /// # Errors
    /// The database fails; then nothing was deleted.
    pub async fn delete_team(
        &self,
        organization: OrganizationId,
        id: TeamId,
        by: &Author,
    ) -> Result<TeamChanged, StoreError> {
        let change = self.begin_key_change().await?;
        let db = &change.transaction;
        let Some(row) = find_team(db, organization, id).await? else {
            change.finish(0).await?;
            return Ok(TeamChanged::NoSuchTeam);
        };
        let users = users::Entity::find()
            .filter(users::Column::TeamId.eq(id.0))
            .count(db)
            .await?;
        let keys = working_keys_of(organization)
            .filter(gateway_keys::Column::TeamId.eq(id.0))
            .count(db)
            .await?;
        let limits = rate_limits_of(organization)
            .filter(gateway_rate_limits::Column::ScopeKind.eq("team"))
            .filter(gateway_rate_limits::Column::ScopeId.eq(id.0))
            .count(db)
            .await?;
        let budgets = budgets_of(organization)
            .filter(gateway_budgets::Column::ScopeKind.eq("team"))
            .filter(gateway_budgets::Column::ScopeReference.eq(id.0.to_string()))
            .count(db)
            .await?;
        let needed = counted([
            ("users", users),
            ("keys that are not revoked", keys),
            ("rate limits", limits),
            ("budgets", budgets),
        ]);
        if !needed.is_empty() {
            change.finish(0).await?;
            return Ok(TeamChanged::Needed(needed));
        }
        gateway_keys::Entity::update_many()
            .col_expr(gateway_keys::Column::TeamId, Expr::value(Option::<Uuid>::None))
            .filter(gateway_keys::Column::TeamId.eq(id.0))
            .exec(db)
            .await?;
        match teams::Entity::delete_by_id(id.0).exec(db).await {
            Ok(_) => {}
            // Somebody joined it meanwhile, or something of a kind that is not counted above needs it.
            Err(error) if refusal(&error).is_some() => {
                change.finish(0).await?;
                let what = "other things";
                return Ok(TeamChanged::Needed(vec![Needed { what, count: 0 }]));
            }
            Err(error) => return Err(error),
        }
        let team = read_team(row);
        let deed = Deed::new("team.delete", id).before(described_team(&team));
        audit::record(db, organization, by, deed).await?;
        change.finish(1).await?;
        Ok(TeamChanged::Done(team))
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
            rate_limit_ceiling: Set(None),
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

fn teams_of(organization: OrganizationId) -> sea_orm::Select<teams::Entity> {
    teams::Entity::find().filter(teams::Column::OrganizationId.eq(organization.0))
}

fn working_keys_of(organization: OrganizationId) -> sea_orm::Select<gateway_keys::Entity> {
    gateway_keys::Entity::find()
        .filter(gateway_keys::Column::OrganizationId.eq(organization.0))
        .filter(gateway_keys::Column::RevokedAt.is_null())
}

fn rate_limits_of(organization: OrganizationId) -> sea_orm::Select<gateway_rate_limits::Entity> {
    gateway_rate_limits::Entity::find().filter(gateway_rate_limits::Column::OrganizationId.eq(organization.0))
}

fn budgets_of(organization: OrganizationId) -> sea_orm::Select<gateway_budgets::Entity> {
    gateway_budgets::Entity::find().filter(gateway_budgets::Column::OrganizationId.eq(organization.0))
}

async fn find_team(
    db: &impl ConnectionTrait,
    organization: OrganizationId,
    id: TeamId,
) -> Result<Option<teams::Model>, StoreError> {
    teams_of(organization).filter(teams::Column::Id.eq(id.0)).one(db).await
}

/// What there is of what is in the way.
fn counted<const N: usize>(counts: [(&'static str, u64); N]) -> Vec<Needed> {
    let there = counts.into_iter().filter(|(_, count)| *count > 0);
    there.map(|(what, count)| Needed { what, count }).collect()
}

/// Deletes an organization and what means nothing without it.
async fn delete_with_what_is_its_own(db: &impl ConnectionTrait, id: OrganizationId) -> Result<(), StoreError> {
    let members = users::Entity::find()
        .select_only()
        .column(users::Column::Id)
        .filter(users::Column::OrganizationId.eq(id.0));
    refresh_tokens::Entity::delete_many()
        .filter(refresh_tokens::Column::UserId.in_subquery(sea_orm::QueryTrait::into_query(members)))
        .exec(db)
        .await?;
    users::Entity::delete_many()
        .filter(users::Column::OrganizationId.eq(id.0))
        .exec(db)
        .await?;
    gateway_keys::Entity::delete_many()
        .filter(gateway_keys::Column::OrganizationId.eq(id.0))
        .exec(db)
        .await?;
    gateway_configs::Entity::delete_many()
        .filter(gateway_configs::Column::OrganizationId.eq(id.0))
        .exec(db)
        .await?;
    organizations::Entity::delete_by_id(id.0).exec(db).await.map(drop)
}

fn stored_ceiling(ceiling: u32) -> i32 {
    i32::try_from(ceiling).unwrap_or(i32::MAX)
}

fn read_organization(row: organizations::Model) -> Organization {
    Organization {
        id: OrganizationId(row.id),
        slug: row.slug,
        name: row.name,
        scope: read_scope(row.allowed_models.as_ref()),
        parameter_policy: row.parameter_policy.as_deref().and_then(ParameterPolicy::of),
        shared_credentials: row.shared_credentials,
        rate_limit_ceiling: row.rate_limit_ceiling.and_then(|ceiling| u32::try_from(ceiling).ok()),
        created_at: row.created_at,
        updated_at: row.updated_at,
    }
}

fn read_team(row: teams::Model) -> Team {
    Team {
        id: TeamId(row.id),
        organization: OrganizationId(row.organization_id),
        slug: row.slug,
        name: row.name,
        scope: read_scope(row.allowed_models.as_ref()),
        created_at: row.created_at,
        updated_at: row.updated_at,
    }
}

/// An organization as the audit log has it.
fn described(organization: &Organization) -> Value {
    json!({
        "slug": organization.slug,
        "name": organization.name,
        "allowed_models": stored_scope(&organization.scope),
        "parameter_policy": organization.parameter_policy.map(ParameterPolicy::as_str),
        "shared_credentials": organization.shared_credentials,
        "rate_limit_ceiling": organization.rate_limit_ceiling,
    })
}

/// A team as the audit log has it.
fn described_team(team: &Team) -> Value {
    json!({"slug": team.slug, "name": team.name, "allowed_models": stored_scope(&team.scope)})
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
            lazy: false,
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
