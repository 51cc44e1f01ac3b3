//! Pure values and arithmetic: no input, output, clock or randomness of its own.
//!
//! Everything else is built from these. Start with [`money`] and [`usage`], then [`pricing`], which joins them.

pub mod address;
pub mod api_key;
pub mod audit;
pub mod authority;
pub mod batch;
pub mod budget;
pub mod caching;
pub mod call;
pub mod config;
pub mod difference;
pub mod error;
pub mod event;
pub mod health;
pub mod ids;
pub mod job;
pub mod key;
pub mod key_policy;
pub mod limit;
pub mod managed_key;
pub mod managed_limit;
pub mod measurement;
pub mod model;
pub mod money;
pub mod network;
pub mod overload;
pub mod pricing;
pub mod record;
pub mod redaction;
pub mod report;
pub mod repricing;
pub mod restraint;
pub mod retry_budget;
pub mod role;
pub mod scope;
pub mod seconds;
pub mod service;
pub mod tenancy;
pub mod throttle;
pub mod trace;
pub mod usage;
pub mod user;
pub mod watched;
pub mod webhook;
pub mod window;
