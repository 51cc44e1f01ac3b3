//! The composition root: builds everything, starts it, and drains it.

pub mod budgets;
pub mod builder;
pub mod config_file;
pub mod control;
mod exports;
pub mod first_start;
pub mod inference;
mod key_control;
pub mod notices;
pub mod payloads;
pub mod people;
pub mod probes;
pub mod run;
pub mod spend;
pub mod webhooks;
pub mod work;
pub mod workers;
