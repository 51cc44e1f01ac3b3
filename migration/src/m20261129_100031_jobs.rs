//! The queue of jobs, and when jobs that come by themselves were last due.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, boolean, integer, json, string, string_null, text_null, timestamp_with_time_zone as timestamp,
    timestamp_with_time_zone_null as timestamp_null, uuid, uuid_null,
};

/// This step.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(jobs()).await?;
        manager.create_table(schedules()).await?;
        for index in indexes() {
            manager.create_index(index).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for name in ["gateway_job_schedules", "gateway_jobs"] {
            manager.drop_table(Table::drop().table(name).to_owned()).await?;
        }
        Ok(())
    }
}

fn jobs() -> TableCreateStatement {
    Table::create()
        .table("gateway_jobs")
        .col(uuid("id").primary_key())
        .col(uuid_null("organization_id"))
        .col(string("kind"))
        .col(string("state"))
        .col(json("payload"))
        .col(string_null("dedup_key"))
        .col(boolean("again"))
        .col(uuid_null("lane"))
        .col(timestamp("run_at"))
        .col(integer("attempts"))
        .col(big_integer("claim"))
        .col(uuid_null("worker"))
        .col(timestamp_null("lease_until"))
        .col(text_null("last_error"))
        .col(timestamp("created_at"))
        .col(timestamp_null("finished_at"))
        .foreign_key(
            ForeignKey::create()
                .from("gateway_jobs", "organization_id")
                .to("organizations", "id")
                .on_delete(ForeignKeyAction::Cascade),
        )
        .to_owned()
}

fn schedules() -> TableCreateStatement {
    Table::create()
        .table("gateway_job_schedules")
        .col(string("kind").primary_key())
        .col(big_integer("tick"))
        .to_owned()
}

fn indexes() -> Vec<IndexCreateStatement> {
    let index = |name: &'static str, columns: &[&'static str]| {
        let mut index = Index::create().name(name).table("gateway_jobs").to_owned();
        for column in columns {
            index.col(*column);
        }
        index
    };
    vec![
        // Workers ask for what is due, and for what nobody works on any more.
        index("gateway_jobs_due", &["state", "run_at"]),
        index("gateway_jobs_worker", &["worker"]),
        // Of a kind, one for each key; it is null when the job is over.
        index("gateway_jobs_dedup", &["kind", "dedup_key"]).unique().to_owned(),
        index("gateway_jobs_organization", &["organization_id", "id"]),
    ]
}
