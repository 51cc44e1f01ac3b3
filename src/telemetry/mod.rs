//! What operators see of the process: log lines, metrics and traces.

pub mod budgets;
pub mod jobs;
pub mod limits;
pub mod logs;
pub mod metrics;
pub mod names;
pub mod providers;
pub mod redaction;
pub mod trace;
pub mod traces;
