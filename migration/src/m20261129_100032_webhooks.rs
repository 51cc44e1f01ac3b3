//! Webhooks, what was sent to them, and what was told of already.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    boolean, json, string, string_null, text, text_null, timestamp_with_time_zone as timestamp,
    timestamp_with_time_zone_null as timestamp_null, uuid,
};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [webhooks(), deliveries(), notices()] {
            manager.create_table(table).await?;
        }
        for index in indexes() {
            manager.create_index(index).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for name in ["gateway_notices", "webhook_deliveries", "webhooks"] {
            manager.drop_table(Table::drop().table(name).to_owned()).await?;
        }
        Ok(())
    }
}

fn webhooks() -> TableCreateStatement {
    Table::create()
        .table("webhooks")
        .col(uuid("id").primary_key())
        .col(uuid("organization_id"))
        .col(text("url"))
        .col(text("description"))
        .col(json("events"))
        .col(boolean("enabled"))
        .col(text_null("disabled_reason"))
        .col(timestamp_null("failing_since"))
        .col(text("secret"))
        .col(text_null("previous_secret"))
        .col(timestamp_null("previous_until"))
        .col(timestamp("created_at"))
        .col(timestamp("updated_at"))
        .foreign_key(
            ForeignKey::create()
                .from("webhooks", "organization_id")
                .to("organizations", "id")
                .on_delete(ForeignKeyAction::Cascade),
        )
        .to_owned()
}

fn deliveries() -> TableCreateStatement {
    Table::create()
        .table("webhook_deliveries")
        .col(uuid("id").primary_key())
        .col(uuid("organization_id"))
        .col(uuid("webhook_id"))
        .col(uuid("event_id"))
        .col(string("event_type"))
        .col(text("body"))
        .col(string("state"))
        .col(json("attempts"))
        .col(timestamp("created_at"))
        .col(timestamp_null("finished_at"))
        .foreign_key(
            ForeignKey::create()
                .from("webhook_deliveries", "webhook_id")
                .to("webhooks", "id")
                .on_delete(ForeignKeyAction::Cascade),
        )
        .to_owned()
}

fn notices() -> TableCreateStatement {
    Table::create()
        .table("gateway_notices")
        .col(string("name").primary_key())
        .col(string_null("state"))
        .col(timestamp("changed_at"))
        .to_owned()
}

fn indexes() -> Vec<IndexCreateStatement> {
    let index = |name: &'static str, table: &'static str, columns: &[&'static str]| {
        let mut index = Index::create().name(name).table(table).to_owned();
        for column in columns {
            index.col(*column);
        }
        index
    };
    vec![
        index("webhooks_organization", "webhooks", &["organization_id", "id"]),
        index(
            "webhook_deliveries_webhook",
            "webhook_deliveries",
            &["webhook_id", "id"],
        ),
        index("webhook_deliveries_finished", "webhook_deliveries", &["finished_at"]),
    ]
}
