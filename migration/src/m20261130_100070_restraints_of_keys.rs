//! Who set what holds a key back.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::json_null;

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut table = Table::alter().table("gateway_keys").to_owned();
        manager
            .alter_table(table.add_column(json_null("set_by")).to_owned())
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut table = Table::alter().table("gateway_keys").to_owned();
        manager.alter_table(table.drop_column("set_by").to_owned()).await
    }
}
