//! Which processes serve from this database: each makes its row's number rise, and watches those of the others.

use chrono::Utc;
use entity::gateway_replicas;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, Set};
use uuid::Uuid;

use super::{Store, StoreError, storable};

impl Store {
    /// Says that a replica lives, and gives everybody's numbers.
    ///
    /// # Errors
    /// The database fails.
    pub async fn beat(&self, replica: Uuid) -> Result<Vec<(Uuid, i64)>, StoreError> {
        use gateway_replicas::Column;
        let now = storable(Utc::now());
        let risen = gateway_replicas::Entity::update_many()
            .col_expr(Column::Beats, Expr::col(Column::Beats).add(1))
            .col_expr(Column::SeenAt, Expr::value(now))
            .filter(Column::Id.eq(replica))
            .exec(&self.db)
            .await?;
        if risen.rows_affected == 0 {
            let row = gateway_replicas::ActiveModel {
                id: Set(replica),
                beats: Set(1),
                seen_at: Set(now),
            };
            gateway_replicas::Entity::insert(row)
                .exec_without_returning(&self.db)
                .await?;
        }
        let rows = gateway_replicas::Entity::find().all(&self.db).await?;
        Ok(rows.into_iter().map(|row| (row.id, row.beats)).collect())
    }

    /// Forgets replicas that are gone.
    ///
    /// # Errors
    /// The database fails.
    pub async fn forget_replicas(&self, gone: &[Uuid]) -> Result<(), StoreError> {
        gateway_replicas::Entity::delete_many()
            .filter(gateway_replicas::Column::Id.is_in(gone.iter().copied()))
            .exec(&self.db)
            .await
            .map(drop)
    }
}
