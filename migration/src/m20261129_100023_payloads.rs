//! What was asked and answered, sealed, where an organization wants it kept.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{binary, timestamp_with_time_zone as timestamp, uuid};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Like the ledger it refers to nothing by foreign key.
        let table = Table::create()
            .table("gateway_payloads")
            .col(uuid("request_id").primary_key())
            .col(uuid("organization_id"))
            .col(timestamp("created_at"))
            .col(timestamp("expires_at"))
            .col(binary("sealed"))
            .to_owned();
        manager.create_table(table).await?;
        manager
            .create_index(
                Index::create()
                    .name("gateway_payloads_expiry")
                    .table("gateway_payloads")
                    .col("expires_at")
                    .to_owned(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table("gateway_payloads").to_owned())
            .await
    }
}
