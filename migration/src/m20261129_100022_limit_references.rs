//! Rate limits for what has no id: the keys with a tag, and the requests that go to a provider.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::string;

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

const TABLE: &str = "gateway_rate_limits";
/// One limit for each scope, as the table was made.
const BEFORE: (&str, &[&str]) = (
    "gateway_rate_limits_scope",
    &["organization_id", "scope_kind", "scope_id", "model"],
);
/// The same with the reference. Under a name of its own: on SQLite another connection of the pool may still take the old
/// one for existing.
const AFTER: (&str, &[&str]) = (
    "gateway_rate_limits_reference",
    &["organization_id", "scope_kind", "scope_id", "scope_reference", "model"],
);

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let reference = string("scope_reference").default("").to_owned();
        manager
            .alter_table(Table::alter().table(TABLE).add_column(reference).to_owned())
            .await?;
        replace_index(manager, BEFORE.0, AFTER).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // What the step before has no place for.
        let strangers = Query::delete()
            .from_table(TABLE)
            .cond_where(Expr::col("scope_reference").ne(""))
            .to_owned();
        manager.execute(strangers).await?;
        replace_index(manager, AFTER.0, BEFORE).await?;
        manager
            .alter_table(Table::alter().table(TABLE).drop_column("scope_reference").to_owned())
            .await
    }
}

/// Puts a unique index in the place of another one.
async fn replace_index(
    manager: &SchemaManager<'_>,
    before: &'static str,
    (name, columns): (&'static str, &[&'static str]),
) -> Result<(), DbErr> {
    manager
        .drop_index(Index::drop().name(before).table(TABLE).to_owned())
        .await?;
    let mut index = Index::create().name(name).table(TABLE).unique().to_owned();
    for column in columns {
        index.col(*column);
    }
    manager.create_index(index).await
}
