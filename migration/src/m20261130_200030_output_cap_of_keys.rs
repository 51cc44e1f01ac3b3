//! The longest answer a key may ask for.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::big_integer_null;

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut table = Table::alter().table("gateway_keys").to_owned();
        manager
            .alter_table(table.add_column(big_integer_null("max_output_tokens")).to_owned())
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut table = Table::alter().table("gateway_keys").to_owned();
        manager
            .alter_table(table.drop_column("max_output_tokens").to_owned())
            .await
    }
}
