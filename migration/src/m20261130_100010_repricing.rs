//! Re-pricing of past calls: how far it is, and what rows have to say for it to be exact.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer_null, boolean, string, string_null, text, timestamp_with_time_zone as timestamp,
    timestamp_with_time_zone_null as timestamp_null, uuid, uuid_null,
};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Null in rows from before: nobody has noted it.
        let column = Table::alter()
            .table("gateway_attempts")
            .add_column(big_integer_null("cache_write_1h_tokens"))
            .to_owned();
        manager.alter_table(column).await?;
        let table = Table::create()
            .table("gateway_repricings")
            .col(uuid("id").primary_key())
            .col(uuid("organization_id"))
            .col(uuid("job_id"))
            .col(boolean("dry_run"))
            .col(timestamp("from_at"))
            .col(timestamp("to_at"))
            .col(string_null("provider"))
            .col(string_null("model"))
            .col(string("author"))
            .col(text("prices"))
            .col(string("state"))
            .col(uuid_null("position"))
            .col(text("sums"))
            .col(timestamp("created_at"))
            .col(timestamp_null("finished_at"))
            .foreign_key(
                ForeignKey::create()
                    .from("gateway_repricings", "organization_id")
                    .to("organizations", "id")
                    .on_delete(ForeignKeyAction::Cascade),
            )
            .to_owned();
        manager.create_table(table).await?;
        // Two at a time would be in each other's way.
        manager
            .get_connection()
            .execute_unprepared(
                "CREATE UNIQUE INDEX gateway_repricings_one ON gateway_repricings (organization_id) \
                 WHERE state = 'running'",
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("gateway_repricings_list")
                    .table("gateway_repricings")
                    .col("organization_id")
                    .col("id")
                    .to_owned(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table("gateway_repricings").to_owned())
            .await?;
        let column = Table::alter()
            .table("gateway_attempts")
            .drop_column("cache_write_1h_tokens")
            .to_owned();
        manager.alter_table(column).await
    }
}
