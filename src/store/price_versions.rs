//! Prices under their versions: written when they are first charged, and never changed or removed. There is one for each
//! price that a deployment ever had and that was used.

use chrono::Utc;
use entity::gateway_price_versions;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, Set};

use super::{Store, StoreError, storable, storable_text};
use crate::domain::price_version::{kept, of_kept};
use crate::domain::pricing::Price;

/// Rows of one statement.
const AT_ONCE: usize = 500;

impl Store {
    /// Keeps prices whose versions are not kept yet.
    ///
    /// # Errors
    /// The database fails; some of them may be kept.
    pub async fn keep_prices(&self, prices: &[Price]) -> Result<(), StoreError> {
        keep(&self.db, prices).await
    }

    /// The prices with these versions, as far as they are kept.
    ///
    /// # Errors
    /// The database fails.
    pub async fn kept_prices(&self, versions: &[&str]) -> Result<Vec<Price>, StoreError> {
        let mut prices = Vec::new();
        for part in versions.chunks(AT_ONCE) {
            let rows = gateway_price_versions::Entity::find()
                .filter(gateway_price_versions::Column::Version.is_in(part.iter().copied()))
                .all(&self.db)
                .await?;
            prices.extend(rows.iter().filter_map(|row| of_kept(&row.version, &row.rates)));
        }
        Ok(prices)
    }
}

/// The same inside of a transaction.
pub(super) async fn keep(db: &impl ConnectionTrait, prices: &[Price]) -> Result<(), StoreError> {
    let now = storable(Utc::now());
    for part in prices.chunks(AT_ONCE) {
        let rows = part.iter().map(|price| gateway_price_versions::ActiveModel {
            version: Set(storable_text(price.version.as_str())),
            rates: Set(kept(price)),
            first_seen_at: Set(now),
        });
        let unless_there = OnConflict::column(gateway_price_versions::Column::Version)
            .do_nothing()
            .to_owned();
        gateway_price_versions::Entity::insert_many(rows)
            .on_conflict(unless_there)
            .exec_without_returning(db)
            .await?;
    }
    Ok(())
}
