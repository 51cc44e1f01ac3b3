//! The audit log: what was done through management. Rows are written and never changed.
//!
//! A write that has a transaction records its deed in it, by [`record`]: then there is never the one without the other.

use chrono::Utc;
use entity::audit_log;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Set};
use serde_json::Value;
use uuid::Uuid;

use super::{Store, StoreError, storable, storable_text};
use crate::domain::audit::{AuditFilter, AuditRow, Author, Deed};
use crate::domain::ids::OrganizationId;
use crate::domain::role::Role;

/// Writes down what is done in an organization, in the transaction that does it.
pub(super) async fn record(
    db: &impl ConnectionTrait,
    organization: OrganizationId,
    by: &Author,
    deed: Deed,
) -> Result<(), StoreError> {
    let resource = deed.resource();
    let deed = deed.without_secrets();
    let row = audit_log::ActiveModel {
        id: Set(Uuid::now_v7()),
        organization_id: Set(organization.0),
        at: Set(storable(Utc::now())),
        actor: Set(storable_text(&by.subject)),
        actor_role: Set(by.role.map(|role| Role::as_str(role).to_owned())),
        via: Set(by.via.as_str().to_owned()),
        address: Set(by.address.map(|address| address.to_string())),
        action: Set(deed.action.to_owned()),
        resource: Set(resource.to_owned()),
        resource_id: Set(storable_text(&deed.id)),
        before: Set(deed.before.map(|state| state.to_string())),
        after: Set(deed.after.map(|state| state.to_string())),
        request_id: Set(by.request.map(|request| request.header())),
    };
    audit_log::Entity::insert(row)
        .exec_without_returning(db)
        .await
        .map(drop)
}

impl Store {
    /// Writes down what was done in an organization by something that has no transaction.
    ///
    /// # Errors
    /// The database fails.
    pub async fn append_audit(&self, organization: OrganizationId, by: &Author, deed: Deed) -> Result<(), StoreError> {
        record(&self.db, organization, by, deed).await
    }

    /// Rows of an organization's audit log, newest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn audit_rows(
        &self,
        organization: OrganizationId,
        filter: AuditFilter,
    ) -> Result<Vec<AuditRow>, StoreError> {
        use audit_log::Column;
        let mut query = audit_log::Entity::find()
            .filter(Column::OrganizationId.eq(organization.0))
            .order_by_desc(Column::Id)
            .limit(filter.limit);
        let texts = [
            (Column::Actor, filter.actor),
            (Column::Action, filter.action),
            (Column::Resource, filter.resource),
            (Column::ResourceId, filter.resource_id),
        ];
        for (column, wanted) in texts {
            if let Some(wanted) = wanted {
                query = query.filter(column.eq(storable_text(&wanted)));
            }
        }
        if let Some(from) = filter.from {
            query = query.filter(Column::At.gte(storable(from)));
        }
        if let Some(to) = filter.to {
            query = query.filter(Column::At.lt(storable(to)));
        }
        if let Some(before) = filter.before {
            query = query.filter(Column::Id.lt(before));
        }
        Ok(query.all(&self.db).await?.into_iter().map(read).collect())
    }
}

fn read(row: audit_log::Model) -> AuditRow {
    let state = |text: Option<String>| text.map(|text| serde_json::from_str(&text).unwrap_or(Value::Null));
    AuditRow {
        id: row.id,
        at: row.at,
        actor: row.actor,
        actor_role: row.actor_role,
        via: row.via,
        address: row.address,
        action: row.action,
        resource: row.resource,
        resource_id: row.resource_id,
        before: state(row.before),
        after: state(row.after),
        request_id: row.request_id,
    }
}
