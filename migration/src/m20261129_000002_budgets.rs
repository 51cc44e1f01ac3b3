//! Budgets: their terms, what was spent of them, what is set aside for whom, and the thresholds that were reached.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, big_integer_null, boolean, integer, json, string, timestamp_with_time_zone as timestamp,
    timestamp_with_time_zone_null as timestamp_null, uuid,
};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [budgets(), spend(), slices(), events()] {
            manager.create_table(table).await?;
        }
        for index in indexes() {
            manager.create_index(index).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for name in [
            "gateway_budget_events",
            "gateway_budget_slices",
            "gateway_budget_spend",
            "gateway_budgets",
        ] {
            manager.drop_table(Table::drop().table(name).to_owned()).await?;
        }
        Ok(())
    }
}

fn budgets() -> TableCreateStatement {
    Table::create()
        .table("gateway_budgets")
        .col(uuid("id").primary_key())
        .col(uuid("organization_id"))
        .col(string("scope_kind"))
        .col(string("scope_reference"))
        .col(big_integer("amount_nanousd"))
        .col(string("period"))
        .col(string("time_zone"))
        .col(string("enforcement"))
        .col(string("unpriced"))
        .col(big_integer_null("default_output_tokens"))
        .col(json("thresholds"))
        .col(boolean("enabled"))
        .col(timestamp("counts_from"))
        .col(timestamp("created_at"))
        .col(timestamp("updated_at"))
        .col(big_integer("revision"))
        .foreign_key(
            ForeignKey::create()
                .from("gateway_budgets", "organization_id")
                .to("organizations", "id"),
        )
        .to_owned()
}

fn spend() -> TableCreateStatement {
    Table::create()
        .table("gateway_budget_spend")
        .col(uuid("budget_id"))
        .col(timestamp("period_start"))
        .col(uuid("organization_id"))
        .col(big_integer("spent_nanousd"))
        .col(integer("alerted_percent"))
        .col(timestamp_null("wanted_at"))
        .primary_key(Index::create().col("budget_id").col("period_start"))
        .to_owned()
}

fn slices() -> TableCreateStatement {
    Table::create()
        .table("gateway_budget_slices")
        .col(uuid("budget_id"))
        .col(timestamp("period_start"))
        .col(uuid("replica_id"))
        .col(big_integer("amount_nanousd"))
        .col(timestamp("expires_at"))
        .col(timestamp_null("reclaim_at"))
        .primary_key(Index::create().col("budget_id").col("period_start").col("replica_id"))
        .to_owned()
}

fn events() -> TableCreateStatement {
    Table::create()
        .table("gateway_budget_events")
        .col(uuid("id").primary_key())
        .col(uuid("organization_id"))
        .col(uuid("budget_id"))
        .col(timestamp("period_start"))
        .col(integer("threshold"))
        .col(big_integer("spent_nanousd"))
        .col(big_integer("amount_nanousd"))
        .col(timestamp("created_at"))
        .col(timestamp_null("noticed_at"))
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
        // The ledger asks which budgets a batch counts against. One for each scope and period.
        index(
            "gateway_budgets_scope",
            "gateway_budgets",
            &["organization_id", "scope_kind", "scope_reference", "period"],
        )
        .unique()
        .to_owned(),
        // A replica renews its own, and looks for those nobody renews.
        index(
            "gateway_budget_slices_replica",
            "gateway_budget_slices",
            &["replica_id"],
        ),
        index("gateway_budget_slices_expiry", "gateway_budget_slices", &["expires_at"]),
        index(
            "gateway_budget_events_threshold",
            "gateway_budget_events",
            &["budget_id", "period_start", "threshold"],
        )
        .unique()
        .to_owned(),
        index(
            "gateway_budget_events_noticed",
            "gateway_budget_events",
            &["noticed_at"],
        ),
    ]
}
