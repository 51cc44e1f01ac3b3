//! Exports: tables that jobs write, in sealed pieces.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, blob, integer, string, string_null, text, timestamp_with_time_zone as timestamp,
    timestamp_with_time_zone_null as timestamp_null, uuid, uuid_null,
};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

/// Its tables.
const TABLE: &str = "gateway_exports";
const PIECES: &str = "gateway_export_pieces";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::create()
            .table(TABLE)
            .col(uuid("id").primary_key())
            .col(uuid("organization_id"))
            .col(uuid("job_id"))
            .col(string("author"))
            .col(text("question"))
            .col(string("state"))
            .col(string_null("failure"))
            .col(big_integer("rows"))
            .col(big_integer("bytes"))
            .col(integer("pieces"))
            .col(uuid_null("position"))
            .col(timestamp("created_at"))
            .col(timestamp_null("finished_at"))
            .col(timestamp("expires_at"))
            .foreign_key(
                ForeignKey::create()
                    .from(TABLE, "organization_id")
                    .to("organizations", "id")
                    .on_delete(ForeignKeyAction::Cascade),
            )
            .to_owned();
        manager.create_table(table).await?;
        let pieces = Table::create()
            .table(PIECES)
            .col(uuid("export_id"))
            .col(integer("number"))
            .col(blob("sealed"))
            .primary_key(Index::create().col("export_id").col("number"))
            .foreign_key(
                ForeignKey::create()
                    .from(PIECES, "export_id")
                    .to(TABLE, "id")
                    .on_delete(ForeignKeyAction::Cascade),
            )
            .to_owned();
        manager.create_table(pieces).await?;
        let list = Index::create()
            .name("gateway_exports_list")
            .table(TABLE)
            .col("organization_id")
            .col("id")
            .to_owned();
        manager.create_index(list).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [PIECES, TABLE] {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}
