//! The rates behind the names that rows of the ledger have of their prices.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{string, text, timestamp_with_time_zone as timestamp};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

/// Its table.
const TABLE: &str = "gateway_price_versions";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::create()
            .table(TABLE)
            .col(string("version").primary_key())
            .col(text("rates"))
            .col(timestamp("first_seen_at"))
            .to_owned();
        manager.create_table(table).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table(TABLE).to_owned()).await
    }
}
