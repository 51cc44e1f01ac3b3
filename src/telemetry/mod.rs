//! What operators see of the process: log lines and metrics.

pub mod budgets;
pub mod jobs;
pub mod limits;
pub mod logs;
pub mod metrics;
pub mod names;
