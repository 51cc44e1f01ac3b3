//! Bonito Gateway: one OpenAI-compatible door in front of every model provider.
//!
//! The modules are layers, lowest first. A module imports from lower layers only; `tests/suite/layers.rs` checks it.
//!
//! | layer | modules | what they are |
//! |---|---|---|
//! | 0 | [`domain`] | pure values and arithmetic |
//! | 1 | [`chat`] [`config`] [`telemetry`] | requests, settings, logs and metrics |
//! | 2 | [`providers`] [`routing`] | pure adapters and pure choice |
//! | 3 | [`store`] [`upstream`] [`secrets`] [`cluster`] [`gates`] [`journal`] [`analytics`] [`queue`] [`snapshot`] | effects, one concern each |
//! | 4 | [`pipeline`] [`actors`] [`jobs`] | the path of a request; those who keep watch; work that is done later |
//! | 5 | [`http`] | the surface |
//! | 6 | [`app`] [`cli`] | puts it together |
//!
//! To follow a request, start at [`http::openai`] and [`pipeline::Pipeline::run`].

pub mod actors;
pub mod analytics;
pub mod app;
pub mod cache;
pub mod chat;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod domain;
pub mod gates;
pub mod http;
pub mod jobs;
pub mod journal;
pub mod pipeline;
pub mod providers;
pub mod queue;
pub mod routing;
pub mod secrets;
pub mod snapshot;
pub mod store;
pub mod telemetry;
pub mod upstream;
