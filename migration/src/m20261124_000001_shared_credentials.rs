//! Which organizations may use the credentials that are shared by all.
//!
//! Nobody may unless it is granted; the first organization is whose gateway it is, and has the grant.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::boolean;

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = boolean("shared_credentials").default(false).to_owned();
        manager
            .alter_table(Table::alter().table("organizations").add_column(column).to_owned())
            .await?;
        // Ids are in the order in which they were made.
        let first = Query::select()
            .column("id")
            .from("organizations")
            .order_by("id", Order::Asc)
            .limit(1)
            .to_owned();
        let grant = Query::update()
            .table("organizations")
            .value("shared_credentials", true)
            .and_where(Expr::col("id").in_subquery(first))
            .to_owned();
        manager.execute(grant).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::alter()
            .table("organizations")
            .drop_column("shared_credentials")
            .to_owned();
        manager.alter_table(table).await
    }
}
