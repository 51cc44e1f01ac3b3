//! The schema, step by step. A step that has been released is never changed; a new one is added after it.

pub use sea_orm_migration::MigratorTrait;
use sea_orm_migration::prelude::*;

mod m20261101_000001_foundation;
mod m20261124_000001_shared_credentials;
mod m20261124_000002_revisions;
mod m20261124_000003_spend_of_keys;
mod m20261129_000001_rate_limits;
mod m20261129_000002_budgets;
mod m20261129_000003_gateway_configs;
mod m20261129_000004_parameter_policy;
mod m20261129_000005_response_cache;
mod m20261129_100011_audit_log;
mod m20261129_100012_users;
mod m20261129_100013_rate_limit_ceilings;
mod m20261129_100021_key_attributes;
mod m20261129_100022_limit_references;
mod m20261129_100023_payloads;
mod m20261129_100031_jobs;
mod m20261129_100032_webhooks;
mod m20261129_100033_batches;
mod m20261129_100041_requests_by_time;
mod m20261129_100042_usage_rollups;
mod m20261130_100010_repricing;
mod m20261130_100020_traces;
mod m20261130_100060_batches_by_organization;

/// Runs the steps a database has not seen yet.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261101_000001_foundation::Migration),
            Box::new(m20261124_000001_shared_credentials::Migration),
            Box::new(m20261124_000002_revisions::Migration),
            Box::new(m20261124_000003_spend_of_keys::Migration),
            Box::new(m20261129_000001_rate_limits::Migration),
            Box::new(m20261129_000002_budgets::Migration),
            Box::new(m20261129_000003_gateway_configs::Migration),
            Box::new(m20261129_000004_parameter_policy::Migration),
            Box::new(m20261129_000005_response_cache::Migration),
            Box::new(m20261129_100011_audit_log::Migration),
            Box::new(m20261129_100012_users::Migration),
            Box::new(m20261129_100013_rate_limit_ceilings::Migration),
            Box::new(m20261129_100031_jobs::Migration),
            Box::new(m20261129_100021_key_attributes::Migration),
            Box::new(m20261129_100022_limit_references::Migration),
            Box::new(m20261129_100023_payloads::Migration),
            Box::new(m20261129_100032_webhooks::Migration),
            Box::new(m20261129_100033_batches::Migration),
            Box::new(m20261129_100041_requests_by_time::Migration),
            Box::new(m20261129_100042_usage_rollups::Migration),
            Box::new(m20261130_100010_repricing::Migration),
            Box::new(m20261130_100020_traces::Migration),
            Box::new(m20261130_100060_batches_by_organization::Migration),
        ]
    }
}
