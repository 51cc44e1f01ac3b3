//! What a key has spent is summed from its rows of the ledger, and from nobody else's.

use sea_orm_migration::prelude::*;

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // The cost is part of it, so that the sum need not look at the rows.
        let index = Index::create()
            .name("gateway_requests_key")
            .table("gateway_requests")
            .col("key_id")
            .col("cost_nanousd")
            .to_owned();
        manager.create_index(index).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_index(
                Index::drop()
                    .name("gateway_requests_key")
                    .table("gateway_requests")
                    .to_owned(),
            )
            .await
    }
}
