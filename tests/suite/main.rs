//! The integration suite: one binary, one gateway per test, everything through the public way in.
//!
//! It runs on SQLite, and on Postgres with `BONITO_TEST_DATABASE=postgres` (see `support::database`).

#![allow(
    clippy::unwrap_used,
    reason = "a test fails loudly, and the helpers outside of test functions are tests too"
)]

mod anthropic;
mod audit;
mod azure;
mod bad_input;
mod batches;
mod bedrock;
mod book;
mod browser;
mod budgets;
mod cache;
mod capabilities;
mod chat;
mod clients;
mod cloud_credentials;
mod command_line;
mod costs;
mod documentation;
mod examples;
mod exports;
mod failures;
mod fetcher;
mod fuzz;
mod gemini;
mod health;
mod import;
mod jobs;
mod key_management;
mod keys;
mod layers;
mod ledger;
mod lifecycle;
mod limits;
mod limits_together;
mod management;
mod messages;
mod models;
mod new_admin;
mod observability;
mod oidc;
mod operations;
mod overload;
mod owasp;
mod packaging;
mod parameters;
mod people;
mod promises;
mod provider_management;
mod repricing;
mod routing;
mod schemathesis;
mod streams;
mod support;
mod traces;
mod transactions;
mod usage;
mod usage_sums;
mod vault;
mod webhooks;
