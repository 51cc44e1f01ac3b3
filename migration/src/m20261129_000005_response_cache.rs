//! The response cache: how long a key's answers are kept, and what a request had to do with the cache.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer_null, string};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite adds one column at a time.
        for (table, column) in columns() {
            manager
                .alter_table(Table::alter().table(table).add_column(column).to_owned())
                .await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (table, column) in columns() {
            let name = column.get_column_name();
            manager
                .alter_table(Table::alter().table(table).drop_column(name).to_owned())
                .await?;
        }
        Ok(())
    }
}

fn columns() -> [(&'static str, ColumnDef); 3] {
    [
        ("gateway_keys", big_integer_null("cache_ttl_ms").to_owned()),
        ("gateway_requests", string("cache").default("bypass").to_owned()),
        ("gateway_requests", big_integer_null("saved_nanousd").to_owned()),
    ]
}
