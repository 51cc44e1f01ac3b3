//! What becomes of parameters that a provider cannot express, where an organization or a key says so itself.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::text_null;

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

const TABLES: [&str; 2] = ["organizations", "gateway_keys"];
const COLUMN: &str = "parameter_policy";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in TABLES {
            let change = Table::alter().table(table).add_column(text_null(COLUMN)).to_owned();
            manager.alter_table(change).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in TABLES {
            manager
                .alter_table(Table::alter().table(table).drop_column(COLUMN).to_owned())
                .await?;
        }
        Ok(())
    }
}
