//! Which trace a request is a part of, and where in one a job was enqueued.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::string_null;

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

fn columns() -> [(&'static str, ColumnDef); 2] {
    [
        ("gateway_requests", string_null("trace_id").to_owned()),
        ("gateway_jobs", string_null("traceparent").to_owned()),
    ]
}
