//! The audit log: what was done through management.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{string, string_null, text_null, timestamp_with_time_zone as timestamp, uuid};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // No foreign key: what was done in an organization is known for longer than the organization.
        let table = Table::create()
            .table("audit_log")
            .col(uuid("id").primary_key())
            .col(uuid("organization_id"))
            .col(timestamp("at"))
            .col(string("actor"))
            .col(string_null("actor_role"))
            .col(string("via"))
            .col(string_null("address"))
            .col(string("action"))
            .col(string("resource"))
            .col(string("resource_id"))
            .col(text_null("before"))
            .col(text_null("after"))
            .col(string_null("request_id"))
            .to_owned();
        manager.create_table(table).await?;
        let newest = Index::create()
            .name("audit_log_newest")
            .table("audit_log")
            .col("organization_id")
            .col("id")
            .to_owned();
        manager.create_index(newest).await?;
        let about = Index::create()
            .name("audit_log_about")
            .table("audit_log")
            .col("organization_id")
            .col("resource")
            .col("resource_id")
            .col("id")
            .to_owned();
        manager.create_index(about).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("audit_log").to_owned()).await
    }
}
