//! Organizations, teams, keys and the ledger: what the first request needs.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, big_integer_null, boolean, integer, integer_null, json, json_null, string, string_null, string_uniq,
    timestamp_with_time_zone as timestamp, timestamp_with_time_zone_null as timestamp_null, uuid, uuid_null,
};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [meta(), organizations(), teams(), keys(), requests(), attempts()] {
            manager.create_table(table).await?;
        }
        for index in indexes() {
            manager.create_index(index).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for name in [
            "gateway_attempts",
            "gateway_requests",
            "gateway_keys",
            "teams",
            "organizations",
            "gateway_meta",
        ] {
            manager.drop_table(Table::drop().table(name).to_owned()).await?;
        }
        Ok(())
    }
}

fn meta() -> TableCreateStatement {
    Table::create()
        .table("gateway_meta")
        .col(string("name").primary_key())
        .col(string("value"))
        .to_owned()
}

fn organizations() -> TableCreateStatement {
    Table::create()
        .table("organizations")
        .col(uuid("id").primary_key())
        .col(string_uniq("slug"))
        .col(string("name"))
        .col(json_null("allowed_models"))
        .col(timestamp("created_at"))
        .col(timestamp("updated_at"))
        .to_owned()
}

fn teams() -> TableCreateStatement {
    Table::create()
        .table("teams")
        .col(uuid("id").primary_key())
        .col(uuid("organization_id"))
        .col(string("slug"))
        .col(string("name"))
        .col(json_null("allowed_models"))
        .col(timestamp("created_at"))
        .col(timestamp("updated_at"))
        .foreign_key(
            ForeignKey::create()
                .from("teams", "organization_id")
                .to("organizations", "id"),
        )
        .to_owned()
}

fn keys() -> TableCreateStatement {
    Table::create()
        .table("gateway_keys")
        .col(uuid("id").primary_key())
        .col(uuid("organization_id"))
        .col(uuid_null("team_id"))
        .col(string("name"))
        .col(string("prefix"))
        .col(string_uniq("hash"))
        .col(json_null("allowed_models"))
        .col(integer("rate_limit"))
        .col(json("metadata"))
        .col(boolean("disabled"))
        .col(timestamp_null("expires_at"))
        .col(timestamp_null("revoked_at"))
        .col(timestamp_null("last_used_at"))
        .col(timestamp("created_at"))
        .col(timestamp("updated_at"))
        .foreign_key(
            ForeignKey::create()
                .from("gateway_keys", "organization_id")
                .to("organizations", "id"),
        )
        .foreign_key(ForeignKey::create().from("gateway_keys", "team_id").to("teams", "id"))
        .to_owned()
}

// The ledger refers to nothing by foreign key: a row must get in whatever happened to its key in the meantime, and each
// check would cost a look-up for each of thousands of rows a second.
fn requests() -> TableCreateStatement {
    let mut table = Table::create()
        .table("gateway_requests")
        .col(uuid("id").primary_key())
        .col(uuid("organization_id"))
        .col(uuid_null("team_id"))
        .col(uuid("key_id"))
        .col(timestamp("created_at"))
        .col(string("operation"))
        .col(string("dialect"))
        .col(string("requested_model"))
        .col(string_null("model"))
        .col(string_null("provider"))
        .col(boolean("stream"))
        .col(integer("status"))
        .col(string_null("error_class"))
        .to_owned();
    usage_columns(&mut table);
    table
        .col(big_integer("latency_us"))
        .col(big_integer_null("first_token_us"))
        .col(big_integer("overhead_us"))
        .col(integer("attempts"))
        .col(boolean("client_cancelled"))
        .col(string_null("upstream_request_id"))
        .to_owned()
}

fn attempts() -> TableCreateStatement {
    let mut table = Table::create()
        .table("gateway_attempts")
        .col(uuid("request_id"))
        .col(integer("number"))
        .col(uuid("organization_id"))
        .col(timestamp("created_at"))
        .col(string("provider"))
        .col(string("model"))
        .col(integer_null("status"))
        .col(string_null("error_class"))
        .col(big_integer("latency_us"))
        .col(big_integer_null("first_token_us"))
        .to_owned();
    usage_columns(&mut table);
    table
        .col(string_null("upstream_request_id"))
        .primary_key(Index::create().col("request_id").col("number"))
        .to_owned()
}

fn usage_columns(table: &mut TableCreateStatement) {
    table
        .col(big_integer("input_tokens"))
        .col(big_integer("cached_tokens"))
        .col(big_integer("cache_write_tokens"))
        .col(big_integer("output_tokens"))
        .col(big_integer("reasoning_tokens"))
        .col(big_integer_null("cost_nanousd"))
        .col(string_null("price_version"))
        .col(string("metering"));
}

fn indexes() -> Vec<IndexCreateStatement> {
    vec![
        Index::create()
            .name("teams_organization_slug")
            .table("teams")
            .col("organization_id")
            .col("slug")
            .unique()
            .to_owned(),
        Index::create()
            .name("gateway_keys_organization")
            .table("gateway_keys")
            .col("organization_id")
            .col("id")
            .to_owned(),
        // Replicas ask for what changed since they last looked.
        Index::create()
            .name("gateway_keys_updated")
            .table("gateway_keys")
            .col("updated_at")
            .to_owned(),
        Index::create()
            .name("gateway_requests_organization")
            .table("gateway_requests")
            .col("organization_id")
            .col("created_at")
            .to_owned(),
    ]
}
