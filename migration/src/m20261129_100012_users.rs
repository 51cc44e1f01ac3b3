//! People who manage the gateway, and their sessions.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, boolean, integer, string, string_null, string_uniq, text_null, timestamp_with_time_zone as timestamp,
    timestamp_with_time_zone_null as timestamp_null, uuid, uuid_null,
};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let users = Table::create()
            .table("users")
            .col(uuid("id").primary_key())
            .col(uuid("organization_id"))
            .col(uuid_null("team_id"))
            .col(string_uniq("email"))
            .col(string("name"))
            .col(string("role"))
            .col(text_null("password_hash"))
            .col(boolean("must_change_password"))
            .col(boolean("disabled"))
            // The issuer and the subject of whoever is vouched for from outside, in one text: one person each.
            .col(string_null("external_id").unique_key())
            .col(timestamp_null("last_sign_in_at"))
            .col(timestamp("created_at"))
            .col(timestamp("updated_at"))
            .col(big_integer("revision"))
            .foreign_key(
                ForeignKey::create()
                    .from("users", "organization_id")
                    .to("organizations", "id"),
            )
            .foreign_key(ForeignKey::create().from("users", "team_id").to("teams", "id"))
            .to_owned();
        manager.create_table(users).await?;
        // One row for each session: its newest token is the only good one.
        let tokens = Table::create()
            .table("refresh_tokens")
            .col(uuid("id").primary_key())
            .col(uuid("user_id"))
            .col(string_uniq("hash"))
            .col(integer("generation"))
            .col(string("via"))
            .col(timestamp("created_at"))
            .col(timestamp("refreshed_at"))
            .col(timestamp("expires_at"))
            .col(timestamp("ends_at"))
            .foreign_key(
                ForeignKey::create()
                    .from("refresh_tokens", "user_id")
                    .to("users", "id")
                    .on_delete(ForeignKeyAction::Cascade),
            )
            .to_owned();
        manager.create_table(tokens).await?;
        for (name, table, columns) in [
            ("users_organization", "users", &["organization_id", "id"][..]),
            ("users_team", "users", &["team_id"]),
            ("refresh_tokens_user", "refresh_tokens", &["user_id"]),
        ] {
            let mut index = Index::create().name(name).table(table).to_owned();
            for column in columns {
                index.col(*column);
            }
            manager.create_index(index).await?;
        }
        let counter = Query::insert()
            .into_table("gateway_revisions")
            .columns(["name", "value"])
            .values_panic(["users".into(), 0_i64.into()])
            .to_owned();
        manager.execute(counter).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let counter = Query::delete()
            .from_table("gateway_revisions")
            .and_where(Expr::col("name").eq("users"))
            .to_owned();
        manager.execute(counter).await?;
        for table in ["refresh_tokens", "users"] {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}
