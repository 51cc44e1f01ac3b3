//! Rate limits besides those of the keys themselves, and which replicas there are to share them.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, big_integer_null, boolean, string, timestamp_with_time_zone as timestamp, uuid,
};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let limits = Table::create()
            .table("gateway_rate_limits")
            .col(uuid("id").primary_key())
            .col(uuid("organization_id"))
            .col(string("scope_kind"))
            .col(uuid("scope_id"))
            .col(string("model").default(""))
            .col(big_integer_null("requests_per_minute"))
            .col(big_integer_null("input_tokens_per_minute"))
            .col(big_integer_null("output_tokens_per_minute"))
            .col(big_integer_null("tokens_per_minute"))
            .col(big_integer_null("concurrency"))
            .col(string("when_apart"))
            .col(boolean("enabled"))
            .col(timestamp("created_at"))
            .col(timestamp("updated_at"))
            .foreign_key(
                ForeignKey::create()
                    .from("gateway_rate_limits", "organization_id")
                    .to("organizations", "id"),
            )
            .to_owned();
        manager.create_table(limits).await?;
        manager
            .create_index(
                Index::create()
                    .name("gateway_rate_limits_scope")
                    .table("gateway_rate_limits")
                    .col("organization_id")
                    .col("scope_kind")
                    .col("scope_id")
                    .col("model")
                    .unique()
                    .to_owned(),
            )
            .await?;
        let replicas = Table::create()
            .table("gateway_replicas")
            .col(uuid("id").primary_key())
            .col(big_integer("beats"))
            .col(timestamp("seen_at"))
            .to_owned();
        manager.create_table(replicas).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for name in ["gateway_replicas", "gateway_rate_limits"] {
            manager.drop_table(Table::drop().table(name).to_owned()).await?;
        }
        Ok(())
    }
}
