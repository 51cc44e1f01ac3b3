//! Rate limits for what has no id: the keys with a tag, and the requests that go to a provider.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::string;

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

const TABLE: &str = "gateway_rate_limits";
const SCOPE: &str = "gateway_rate_limits_scope";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let reference = string("scope_reference").default("").to_owned();
        manager
            .alter_table(Table::alter().table(TABLE).add_column(reference).to_owned())
            .await?;
        replace_index(
            manager,
            &["organization_id", "scope_kind", "scope_id", "scope_reference", "model"],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // What the step before has no place for.
        let strangers = Query::delete()
            .from_table(TABLE)
            .cond_where(Expr::col("scope_reference").ne(""))
            .to_owned();
        manager.execute(strangers).await?;
        replace_index(manager, &["organization_id", "scope_kind", "scope_id", "model"]).await?;
        manager
            .alter_table(Table::alter().table(TABLE).drop_column("scope_reference").to_owned())
            .await
    }
}

/// One limit for each scope: the index that says so, over other columns.
async fn replace_index(manager: &SchemaManager<'_>, columns: &[&'static str]) -> Result<(), DbErr> {
    manager
        .drop_index(Index::drop().name(SCOPE).table(TABLE).to_owned())
        .await?;
    let mut index = Index::create().name(SCOPE).table(TABLE).unique().to_owned();
    for column in columns {
        index.col(*column);
    }
    manager.create_index(index).await
}
