//! Sealed prompts and answers: written in batches, read one by one, and forgotten when their time is over.

use chrono::{DateTime, Utc};
use entity::gateway_payloads;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Set};
use uuid::Uuid;

use super::{Store, StoreError, storable};
use crate::domain::ids::{OrganizationId, RequestId};

/// A sealed payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealedPayload {
    /// Whose it is.
    pub organization: OrganizationId,
    /// Of which request.
    pub request: RequestId,
    /// When that came.
    pub created_at: DateTime<Utc>,
    /// From when on it is deleted.
    pub expires_at: DateTime<Utc>,
    /// What it holds.
    pub sealed: Vec<u8>,
}

impl Store {
    /// Keeps payloads. One that is there already stays as it is.
    ///
    /// # Errors
    /// The database fails; then none of them was written.
    pub async fn keep_payloads(&self, payloads: Vec<SealedPayload>) -> Result<(), StoreError> {
        if payloads.is_empty() {
            return Ok(());
        }
        let rows = payloads.into_iter().map(|payload| gateway_payloads::ActiveModel {
            request_id: Set(payload.request.0),
            organization_id: Set(payload.organization.0),
            created_at: Set(storable(payload.created_at)),
            expires_at: Set(storable(payload.expires_at)),
            sealed: Set(payload.sealed),
        });
        let unless_there = OnConflict::column(gateway_payloads::Column::RequestId)
            .do_nothing()
            .to_owned();
        gateway_payloads::Entity::insert_many(rows)
            .on_conflict(unless_there)
            .exec_without_returning(&self.db)
            .await
            .map(drop)
    }

    /// The payload of a request, if it is kept.
    ///
    /// # Errors
    /// The database fails.
    pub async fn payload(
        &self,
        organization: OrganizationId,
        request: RequestId,
    ) -> Result<Option<SealedPayload>, StoreError> {
        let found = gateway_payloads::Entity::find_by_id(request.0)
            .filter(gateway_payloads::Column::OrganizationId.eq(organization.0))
            .filter(gateway_payloads::Column::ExpiresAt.gt(storable(Utc::now())))
            .one(&self.db)
            .await?;
        Ok(found.map(|row| SealedPayload {
            organization: OrganizationId(row.organization_id),
            request: RequestId(row.request_id),
            created_at: row.created_at,
            expires_at: row.expires_at,
            sealed: row.sealed,
        }))
    }

    /// Forgets payloads whose time is over, so many at most. Says how many.
    ///
    /// # Errors
    /// The database fails.
    pub async fn forget_payloads(&self, most: u64) -> Result<u64, StoreError> {
        let over: Vec<Uuid> = gateway_payloads::Entity::find()
            .select_only()
            .column(gateway_payloads::Column::RequestId)
            .filter(gateway_payloads::Column::ExpiresAt.lte(storable(Utc::now())))
            .order_by_asc(gateway_payloads::Column::ExpiresAt)
            .limit(most)
            .into_tuple()
            .all(&self.db)
            .await?;
        if over.is_empty() {
            return Ok(0);
        }
        let deleted = gateway_payloads::Entity::delete_many()
            .filter(gateway_payloads::Column::RequestId.is_in(over))
            .exec(&self.db)
            .await?;
        Ok(deleted.rows_affected)
    }
}
