//! Organizations' gateway configs: one in force for each, and all that were before it.

use std::collections::HashMap;

use chrono::Utc;
use entity::{gateway_configs, organizations};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, Condition, EntityTrait, PaginatorTrait as _, QueryFilter, QueryOrder, QuerySelect, Set};

use serde_json::{Value, json};
use uuid::Uuid;

use super::revisions::CONFIGS;
use super::{Store, StoreError, audit, storable, storable_text};
use crate::domain::audit::Deed;
use crate::domain::config::{ConfigVersion, NewConfig, Saved};
use crate::domain::ids::OrganizationId;
use crate::domain::key::Revision;

/// Organizations that a query names one by one.
const MAX_NAMED: usize = 500;

/// Configs that changed.
#[derive(Debug)]
pub struct ConfigChanges {
    /// Everything up to this number is in here.
    pub revision: Revision,
    /// Those in force that changed, with their organizations and the slugs of these.
    pub configs: Vec<(OrganizationId, String, ConfigVersion)>,
}

impl Store {
    /// The config of an organization that is in force.
    ///
    /// # Errors
    /// The database fails.
    pub async fn config(&self, organization: OrganizationId) -> Result<Option<ConfigVersion>, StoreError> {
        let found = gateway_configs::Entity::find()
            .filter(gateway_configs::Column::OrganizationId.eq(organization.0))
            .filter(gateway_configs::Column::Active.eq(true))
            .one(&self.db)
            .await?;
        Ok(found.map(version_of))
    }

    /// What was in force before a version of an organization's config: so many, the newest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn configs_before(
        &self,
        organization: OrganizationId,
        version: i64,
        most: u64,
    ) -> Result<Vec<ConfigVersion>, StoreError> {
        let found = gateway_configs::Entity::find()
            .filter(gateway_configs::Column::OrganizationId.eq(organization.0))
            .filter(gateway_configs::Column::Version.lt(version))
            .order_by_desc(gateway_configs::Column::Version)
            .limit(most)
            .all(&self.db)
            .await?;
        Ok(found.into_iter().map(version_of).collect())
    }

    /// One version of an organization's config.
    ///
    /// # Errors
    /// The database fails.
    pub async fn config_version(
        &self,
        organization: OrganizationId,
        version: i64,
    ) -> Result<Option<ConfigVersion>, StoreError> {
        let found = gateway_configs::Entity::find_by_id((organization.0, version))
            .one(&self.db)
            .await?;
        Ok(found.map(version_of))
    }

    /// Versions of an organization's config, newest first, before a version if one is given.
    ///
    /// # Errors
    /// The database fails.
    pub async fn config_versions(
        &self,
        organization: OrganizationId,
        before: Option<i64>,
        limit: u64,
    ) -> Result<Vec<ConfigVersion>, StoreError> {
        let mut query = gateway_configs::Entity::find()
            .filter(gateway_configs::Column::OrganizationId.eq(organization.0))
            .order_by_desc(gateway_configs::Column::Version)
            .limit(limit);
        if let Some(before) = before {
            query = query.filter(gateway_configs::Column::Version.lt(before));
        }
        Ok(query.all(&self.db).await?.into_iter().map(version_of).collect())
    }

    /// Puts a config into force, if the one in force is still the one that its author saw.
    ///
    /// # Errors
    /// The database fails; then nothing changed.
    pub async fn save_config(&self, config: NewConfig) -> Result<Saved, StoreError> {
        use gateway_configs::Column;
        // Changes of configs take turns, so nothing comes between the look and the change.
        let change = self.begin_change(&CONFIGS).await?;
        let known = organizations::Entity::find_by_id(config.organization.0)
            .count(&change.transaction)
            .await?;
        if known == 0 {
            change.finish(0).await?;
            return Ok(Saved::NoSuchOrganization);
        }
        let newest = gateway_configs::Entity::find()
            .filter(Column::OrganizationId.eq(config.organization.0))
            .order_by_desc(Column::Version)
            .one(&change.transaction)
            .await?;
        let version = newest.as_ref().map_or(0, |newest| newest.version);
        if config.replaces.is_some_and(|seen| seen != version) {
            change.finish(0).await?;
            return Ok(Saved::Changed { version });
        }
        gateway_configs::Entity::update_many()
            .col_expr(Column::Active, Expr::value(false))
            .filter(Column::OrganizationId.eq(config.organization.0))
            .filter(Column::Active.eq(true))
            .exec(&change.transaction)
            .await?;
        let row = gateway_configs::Model {
            organization_id: config.organization.0,
            version: version + 1,
            document: storable_text(&config.document),
            author: storable_text(&config.by.subject),
            created_at: storable(Utc::now()),
            active: true,
            revision: change.revision,
        };
        let insert = gateway_configs::ActiveModel {
            organization_id: Set(row.organization_id),
            version: Set(row.version),
            document: Set(row.document.clone()),
            author: Set(row.author.clone()),
            created_at: Set(row.created_at),
            active: Set(row.active),
            revision: Set(row.revision),
        };
        gateway_configs::Entity::insert(insert)
            .exec_without_returning(&change.transaction)
            .await?;
        let deed = Deed::new(config.action, row.version).after(described(&row));
        let deed = newest.as_ref().map(described).into_iter().fold(deed, Deed::before);
        audit::record(&change.transaction, config.organization, &config.by, deed).await?;
        change.finish(1).await?;
        Ok(Saved::Saved(version_of(row)))
    }

    /// The configs in force that changed after a revision; all of them, if none is given.
    ///
    /// # Errors
    /// The database fails.
    pub async fn configs_changed_since(&self, since: Option<Revision>) -> Result<ConfigChanges, StoreError> {
        // The counter first: what commits after it is found by the next look.
        let revision = self.revision(&CONFIGS).await?;
        if since == Some(revision) {
            return Ok(ConfigChanges {
                revision,
                configs: Vec::new(),
            });
        }
        let mut query = gateway_configs::Entity::find().filter(gateway_configs::Column::Active.eq(true));
        if let Some(since) = since {
            query = query.filter(gateway_configs::Column::Revision.gt(since.0));
        }
        let configs = query.all(&self.db).await?;
        let of_all = configs.len() > MAX_NAMED;
        let named = (!of_all).then(|| {
            let ids = configs.iter().map(|row| row.organization_id);
            organizations::Column::Id.is_in(ids)
        });
        let slugs: Vec<(Uuid, String)> = organizations::Entity::find()
            .select_only()
            .columns([organizations::Column::Id, organizations::Column::Slug])
            .filter(Condition::all().add_option(named))
            .into_tuple()
            .all(&self.db)
            .await?;
        let slugs: HashMap<Uuid, String> = slugs.into_iter().collect();
        let known = configs.into_iter().filter_map(|row| {
            let slug = slugs.get(&row.organization_id)?.clone();
            Some((OrganizationId(row.organization_id), slug, version_of(row)))
        });
        Ok(ConfigChanges {
            revision,
            configs: known.collect(),
        })
    }
}

/// A version as the audit log has it.
fn described(row: &gateway_configs::Model) -> Value {
    let document: Value = serde_json::from_str(&row.document).unwrap_or(Value::Null);
    json!({"version": row.version, "document": document})
}

fn version_of(row: gateway_configs::Model) -> ConfigVersion {
    ConfigVersion {
        version: row.version,
        document: row.document,
        author: row.author,
        created_at: row.created_at,
        active: row.active,
    }
}
