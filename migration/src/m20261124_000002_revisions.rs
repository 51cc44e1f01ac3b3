//! Changes of keys get numbers, because the clocks of replicas cannot tell what came after what.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, string};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

/// What requests are decided by.
const TABLES: [&str; 3] = ["organizations", "teams", "gateway_keys"];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let counters = Table::create()
            .table("gateway_revisions")
            .col(string("name").primary_key())
            .col(big_integer("value"))
            .to_owned();
        manager.create_table(counters).await?;
        let keys = Query::insert()
            .into_table("gateway_revisions")
            .columns(["name", "value"])
            .values_panic(["keys".into(), 0_i64.into()])
            .to_owned();
        manager.execute(keys).await?;
        for table in TABLES {
            let column = big_integer("revision").default(0).take();
            manager
                .alter_table(Table::alter().table(table).add_column(column).to_owned())
                .await?;
        }
        manager
            .drop_index(
                Index::drop()
                    .name("gateway_keys_updated")
                    .table("gateway_keys")
                    .to_owned(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("gateway_keys_revision")
                    .table("gateway_keys")
                    .col("revision")
                    .to_owned(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_index(
                Index::drop()
                    .name("gateway_keys_revision")
                    .table("gateway_keys")
                    .to_owned(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("gateway_keys_updated")
                    .table("gateway_keys")
                    .col("updated_at")
                    .to_owned(),
            )
            .await?;
        for table in TABLES {
            manager
                .alter_table(Table::alter().table(table).drop_column("revision").to_owned())
                .await?;
        }
        manager
            .drop_table(Table::drop().table("gateway_revisions").to_owned())
            .await
    }
}
