//! The schema, step by step. A step that has been released is never changed; a new one is added after it.
//!
//! Each step is done as a whole or not at all, on every database: a process that dies in the middle of one leaves nothing of
//! it. Steps of newer versions that a database has seen are left alone ([`bring_up`]), because those versions only add: an
//! older one serves beside them, and can be started again.

pub use sea_orm_migration::MigratorTrait;
use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DatabaseConnection;

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
mod m20261130_100070_restraints_of_keys;
mod m20261130_200010_health_history;
mod m20261130_200020_price_versions;
mod m20261130_200030_output_cap_of_keys;
mod m20261201_000010_exports;

/// Runs the steps a database has not seen yet.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let steps: Vec<Box<dyn MigrationTrait>> = vec![
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
            Box::new(m20261130_100070_restraints_of_keys::Migration),
            Box::new(m20261130_200010_health_history::Migration),
            Box::new(m20261130_200020_price_versions::Migration),
            Box::new(m20261130_200030_output_cap_of_keys::Migration),
            Box::new(m20261201_000010_exports::Migration),
        ];
        steps.into_iter().map(|step| Box::new(Whole(step)) as _).collect()
    }
}

/// A step that is done as a whole or not at all. Postgres would do so by itself, SQLite would not.
struct Whole(Box<dyn MigrationTrait>);

impl MigrationName for Whole {
    fn name(&self) -> &str {
        self.0.name()
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Whole {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        self.0.up(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        self.0.down(manager).await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

/// A step of a newer version, which a database has seen.
struct Newer(String);

impl MigrationName for Newer {
    fn name(&self) -> &str {
        &self.0
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Newer {
    async fn up(&self, _manager: &SchemaManager) -> Result<(), DbErr> {
        Ok(())
    }

    async fn down(&self, _manager: &SchemaManager) -> Result<(), DbErr> {
        Err(DbErr::Custom(format!("only a newer version can take {} back", self.0)))
    }
}

/// Our steps, and those that only the database knows.
struct Beside(Vec<String>);

impl sea_orm_migration::MigratorTraitSelf for Beside {
    fn migrations(&self) -> Vec<Box<dyn MigrationTrait>> {
        let newer = self.0.iter().map(|name| Box::new(Newer(name.clone())) as _);
        let ours = <Migrator as MigratorTrait>::migrations();
        ours.into_iter().chain(newer).collect()
    }
}

/// Runs the steps that a database has not seen yet. Gives the steps of newer versions that it has seen.
///
/// # Errors
/// A step failed; nothing of it was done, and it is done the next time.
pub async fn bring_up(db: &DatabaseConnection) -> Result<Vec<String>, DbErr> {
    let ours: Vec<String> = Migrator::migrations()
        .iter()
        .map(|step| step.name().to_owned())
        .collect();
    let seen = Migrator::get_migration_models(db).await?;
    let seen = seen.into_iter().map(|step| step.version);
    let newer: Vec<String> = seen.filter(|name| !ours.contains(name)).collect();
    sea_orm_migration::MigratorTraitSelf::up(&Beside(newer.clone()), db, None).await?;
    Ok(newer)
}

/// Whether there are steps that a database has not seen yet.
///
/// # Errors
/// The database fails, or never saw a step.
pub async fn is_behind(db: &DatabaseConnection) -> Result<bool, DbErr> {
    let seen = Migrator::get_migration_models(db).await?;
    Ok(Migrator::migrations()
        .iter()
        .any(|step| seen.iter().all(|seen| seen.version != step.name())))
}
