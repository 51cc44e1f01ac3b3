//! Facts about the installation: today the check value that tells a wrong master key from the right one.

use entity::gateway_meta;
use sea_orm::sea_query::OnConflict;
use sea_orm::{EntityTrait, Set};

use super::{Store, StoreError};

impl Store {
    /// Stores a fact if it is not there yet, and gives the one that is there.
    ///
    /// # Errors
    /// The database fails.
    pub async fn remember(&self, name: &str, value: &str) -> Result<String, StoreError> {
        let fact = gateway_meta::ActiveModel {
            name: Set(name.into()),
            value: Set(value.into()),
        };
        let unless_there = OnConflict::column(gateway_meta::Column::Name).do_nothing().to_owned();
        gateway_meta::Entity::insert(fact)
            .on_conflict(unless_there)
            .exec_without_returning(&self.db)
            .await?;
        let stored = gateway_meta::Entity::find_by_id(name).one(&self.db).await?;
        Ok(stored.map_or_else(|| value.to_owned(), |fact| fact.value))
    }
}
