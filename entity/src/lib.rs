//! The tables as sea-orm entities. Only `store` uses them: all SQL lives there.
//!
//! Times are UTC with microseconds, which both databases keep. Money is nano-dollars as `i64`; there is no
//! floating-point column. Ids are UUIDs of version 7.

pub mod audit_log;
pub mod batch_results;
pub mod batches;
pub mod file_chunks;
pub mod files;
pub mod gateway_attempts;
pub mod gateway_budget_events;
pub mod gateway_budget_slices;
pub mod gateway_budget_spend;
pub mod gateway_budgets;
pub mod gateway_configs;
pub mod gateway_export_pieces;
pub mod gateway_exports;
pub mod gateway_health_history;
pub mod gateway_job_schedules;
pub mod gateway_jobs;
pub mod gateway_keys;
pub mod gateway_meta;
pub mod gateway_notices;
pub mod gateway_payloads;
pub mod gateway_price_versions;
pub mod gateway_rate_limits;
pub mod gateway_replicas;
pub mod gateway_repricings;
pub mod gateway_requests;
pub mod gateway_revisions;
pub mod organizations;
pub mod refresh_tokens;
pub mod teams;
pub mod usage_pending;
pub mod usage_rollups;
pub mod users;
pub mod webhook_deliveries;
pub mod webhooks;
