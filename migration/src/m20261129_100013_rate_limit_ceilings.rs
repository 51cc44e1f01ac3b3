//! How many requests per minute the keys of an organization may have at most.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::integer_null;

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let ceiling = Table::alter()
            .table("organizations")
            .add_column(integer_null("rate_limit_ceiling"))
            .to_owned();
        manager.alter_table(ceiling).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let ceiling = Table::alter()
            .table("organizations")
            .drop_column("rate_limit_ceiling")
            .to_owned();
        manager.alter_table(ceiling).await
    }
}
