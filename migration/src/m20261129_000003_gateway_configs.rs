//! Organizations' gateway configs with all their versions, and the reasons of routing on every row of the ledger.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, boolean, string, text, text_null, timestamp_with_time_zone as timestamp, uuid,
};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let configs = Table::create()
            .table("gateway_configs")
            .col(uuid("organization_id"))
            .col(big_integer("version"))
            .col(text("document"))
            .col(string("author"))
            .col(timestamp("created_at"))
            .col(boolean("active"))
            .col(big_integer("revision"))
            .primary_key(Index::create().col("organization_id").col("version"))
            .foreign_key(
                ForeignKey::create()
                    .from("gateway_configs", "organization_id")
                    .to("organizations", "id"),
            )
            .to_owned();
        manager.create_table(configs).await?;
        let changed = Index::create()
            .name("gateway_configs_revision")
            .table("gateway_configs")
            .col("revision")
            .to_owned();
        manager.create_index(changed).await?;
        let counter = Query::insert()
            .into_table("gateway_revisions")
            .columns(["name", "value"])
            .values_panic(["configs".into(), 0_i64.into()])
            .to_owned();
        manager.execute(counter).await?;
        let reasons = Table::alter()
            .table("gateway_requests")
            .add_column(text_null("routing"))
            .to_owned();
        manager.alter_table(reasons).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let reasons = Table::alter()
            .table("gateway_requests")
            .drop_column("routing")
            .to_owned();
        manager.alter_table(reasons).await?;
        let counter = Query::delete()
            .from_table("gateway_revisions")
            .and_where(Expr::col("name").eq("configs"))
            .to_owned();
        manager.execute(counter).await?;
        manager
            .drop_table(Table::drop().table("gateway_configs").to_owned())
            .await
    }
}
