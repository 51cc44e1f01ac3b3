//! Files of callers, sealed and in pieces, and batches of requests with their results so far.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, blob, boolean, integer, json, json_null, string, string_null, timestamp_with_time_zone as timestamp,
    timestamp_with_time_zone_null as timestamp_null, uuid, uuid_null,
};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [files(), chunks(), batches(), results()] {
            manager.create_table(table).await?;
        }
        for (name, table) in [("files_key", "files"), ("batches_key", "batches")] {
            let mut index = Index::create().name(name).table(table).to_owned();
            manager.create_index(index.col("key_id").col("id").to_owned()).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for name in ["batch_results", "batches", "file_chunks", "files"] {
            manager.drop_table(Table::drop().table(name).to_owned()).await?;
        }
        Ok(())
    }
}

fn of_organization(table: &'static str) -> ForeignKeyCreateStatement {
    ForeignKey::create()
        .from(table, "organization_id")
        .to("organizations", "id")
        .on_delete(ForeignKeyAction::Cascade)
        .to_owned()
}

fn part_of(table: &'static str, column: &'static str, whole: &'static str) -> ForeignKeyCreateStatement {
    ForeignKey::create()
        .from(table, column)
        .to(whole, "id")
        .on_delete(ForeignKeyAction::Cascade)
        .to_owned()
}

fn files() -> TableCreateStatement {
    Table::create()
        .table("files")
        .col(uuid("id").primary_key())
        .col(uuid("organization_id"))
        .col(uuid("key_id"))
        .col(string("purpose"))
        .col(string("filename"))
        .col(big_integer("bytes"))
        .col(integer("chunks"))
        .col(boolean("complete"))
        .col(timestamp("created_at"))
        .col(timestamp("expires_at"))
        .foreign_key(&mut of_organization("files"))
        .to_owned()
}

fn chunks() -> TableCreateStatement {
    Table::create()
        .table("file_chunks")
        .col(uuid("file_id"))
        .col(integer("number"))
        .col(blob("sealed"))
        .primary_key(Index::create().col("file_id").col("number"))
        .foreign_key(&mut part_of("file_chunks", "file_id", "files"))
        .to_owned()
}

fn batches() -> TableCreateStatement {
    Table::create()
        .table("batches")
        .col(uuid("id").primary_key())
        .col(uuid("organization_id"))
        .col(uuid("key_id"))
        .col(string("endpoint"))
        .col(string("completion_window"))
        .col(uuid("input_file_id"))
        .col(uuid_null("output_file_id"))
        .col(uuid_null("error_file_id"))
        .col(string("status"))
        .col(json_null("errors"))
        .col(json("metadata"))
        .col(integer("total"))
        .col(integer("completed"))
        .col(integer("failed"))
        .col(string_null("ending"))
        .col(timestamp("created_at"))
        .col(timestamp("expires_at"))
        .col(timestamp_null("in_progress_at"))
        .col(timestamp_null("finalizing_at"))
        .col(timestamp_null("cancelling_at"))
        .col(timestamp_null("finished_at"))
        .foreign_key(&mut of_organization("batches"))
        .to_owned()
}

fn results() -> TableCreateStatement {
    Table::create()
        .table("batch_results")
        .col(uuid("batch_id"))
        .col(integer("line"))
        .col(boolean("ok"))
        .col(blob("sealed"))
        .primary_key(Index::create().col("batch_id").col("line"))
        .foreign_key(&mut part_of("batch_results", "batch_id", "batches"))
        .to_owned()
}
