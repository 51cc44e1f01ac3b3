//! What keys have besides: a person they belong to, networks they may be used from, and the secret before a rotation.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{json_null, string_null, timestamp_with_time_zone_null as timestamp_null, uuid_null};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite adds one column at a time.
        for column in columns() {
            manager
                .alter_table(Table::alter().table("gateway_keys").add_column(column).to_owned())
                .await?;
        }
        // Two keys never share a secret, whether it is the present one or the one before.
        let by_previous = Index::create()
            .name("gateway_keys_previous_hash")
            .table("gateway_keys")
            .col("previous_hash")
            .unique()
            .to_owned();
        manager.create_index(by_previous).await?;
        // Lists go through an organization's keys from the newest on.
        let page = Index::create()
            .name("gateway_keys_page")
            .table("gateway_keys")
            .col("organization_id")
            .col("id")
            .to_owned();
        manager.create_index(page).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for name in ["gateway_keys_page", "gateway_keys_previous_hash"] {
            manager
                .drop_index(Index::drop().name(name).table("gateway_keys").to_owned())
                .await?;
        }
        for column in columns() {
            let name = column.get_column_name();
            manager
                .alter_table(Table::alter().table("gateway_keys").drop_column(name).to_owned())
                .await?;
        }
        Ok(())
    }
}

fn columns() -> [ColumnDef; 4] {
    [
        uuid_null("owner_id").to_owned(),
        json_null("allowed_ips").to_owned(),
        string_null("previous_hash").to_owned(),
        timestamp_null("previous_until").to_owned(),
    ]
}
