//! What became of providers' health, and an index by which failed attempts at one are counted.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    string, string_null, timestamp_with_time_zone as timestamp, timestamp_with_time_zone_null as timestamp_null, uuid,
    uuid_null,
};
use sea_orm_migration::sea_orm::DatabaseBackend;

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

/// Its table.
const TABLE: &str = "gateway_health_history";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::create()
            .table(TABLE)
            .col(uuid("id").primary_key())
            // Null: every organization without a place of its own there.
            .col(uuid_null("organization_id"))
            .col(uuid("replica_id"))
            .col(string("provider"))
            .col(string_null("credential"))
            .col(string_null("region"))
            .col(string("from_health"))
            .col(string("to_health"))
            .col(timestamp_null("ejected_until"))
            .col(string("reason"))
            .col(timestamp("at"))
            .foreign_key(
                ForeignKey::create()
                    .from(TABLE, "organization_id")
                    .to("organizations", "id")
                    .on_delete(ForeignKeyAction::Cascade),
            )
            .to_owned();
        manager.create_table(table).await?;
        let index = Index::create()
            .name("gateway_health_history_provider")
            .table(TABLE)
            .col("provider")
            .col("organization_id")
            .col("id")
            .to_owned();
        manager.create_index(index).await?;
        let index = Index::create()
            .name("gateway_health_history_at")
            .table(TABLE)
            .col("at")
            .to_owned();
        manager.create_index(index).await?;
        let db = manager.get_connection();
        if manager.get_database_backend() == DatabaseBackend::Postgres {
            // It takes as long as it takes.
            db.execute_unprepared("SET LOCAL statement_timeout = 0").await?;
        }
        db.execute_unprepared(
            "CREATE INDEX IF NOT EXISTS gateway_attempts_failed ON gateway_attempts \
             (organization_id, provider, request_id) WHERE error_class IS NOT NULL",
        )
        .await
        .map(drop)
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .get_connection()
            .execute_unprepared("DROP INDEX IF EXISTS gateway_attempts_failed")
            .await?;
        manager.drop_table(Table::drop().table(TABLE).to_owned()).await
    }
}
