//! The HTTP surface: poem endpoints, and the one function that lists every route and the order of what wraps them.
//!
//! Nothing below this layer knows that HTTP is served. Start with [`api`].

pub mod anthropic;
pub mod auth;
pub mod boundary;
pub mod dashboard;
pub mod docs;
pub mod early;
pub mod error;
pub mod inference;
pub mod linger;
pub mod management;
pub mod openai;
pub mod operations;
pub mod payload;
mod percent;
pub mod server;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use poem::endpoint::BoxEndpoint;
use poem::{EndpointExt as _, IntoEndpoint as _, Route};

use crate::config::Settings;
use crate::domain::call::Operation;
use crate::gates::keyring::Keyring;
use crate::gates::spend::Spend;
use crate::jobs::files::Files;
use crate::pipeline::Pipeline;
use crate::secrets::master_key::KeyHasher;
use crate::telemetry::metrics::Metrics;
use boundary::Boundary;
use inference::Inference;
use management::Management;

/// What handlers work with.
#[derive(Clone)]
pub struct HttpState {
    /// Serves inference.
    pub pipeline: Arc<Pipeline>,
    /// Knows the keys.
    pub keyring: Arc<Keyring>,
    /// Knows what they have spent.
    pub spend: Arc<dyn Spend>,
    /// Hashes what callers send.
    pub hasher: KeyHasher,
    /// Serves admins.
    pub management: Arc<Management>,
    /// Keeps files and batches.
    pub files: Files,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The configuration.
    pub settings: Arc<Settings>,
    /// Where people reach the gateway.
    pub public_url: String,
    /// Whether the process is stopping.
    pub stopping: Arc<AtomicBool>,
}

/// Every route of the main listener.
///
/// A request passes the boundary (id, panics, sane headers) and then its route. Inference routes authenticate before they
/// read anything of the body: their handlers take a [`auth::CallerKey`], which only authentication can make.
pub fn api(state: Arc<HttpState>) -> BoxEndpoint<'static, poem::Response> {
    let infer = |operation| Inference::new(state.clone(), operation, error::OPENAI_VOICE);
    let (metrics, tracer) = (state.metrics.clone(), state.pipeline.tracer.clone());
    let management = || management::endpoint(state.management.clone());
    let routes = dashboard::add_to(Route::new(), &state, management())
        .at("/", docs::landing())
        .at("/docs", docs::page())
        .at("/docs/management", docs::management_page())
        .at(management::SPECIFICATION_PATH, docs::management(&state.public_url))
        // Not nested: poem's nested routes slice the patterns of routes below them, and one that is empty ends in a panic.
        .at("/api/*path", management())
        .at(openai::document::SPECIFICATION_PATH, docs::inference(&state.public_url))
        .at("/v1/chat/completions", infer(Operation::Chat))
        .at("/v1/completions", infer(Operation::Completion))
        .at("/v1/embeddings", infer(Operation::Embedding))
        .at(
            "/v1/messages",
            Inference::new(state.clone(), Operation::Chat, error::ANTHROPIC_VOICE),
        )
        .at("/v1/messages/count_tokens", anthropic::CountTokens::new(state.clone()))
        .at("/v1/models", openai::models::List::new(state.clone()))
        .at("/v1/models/*id", openai::models::Retrieve::new(state.clone()))
        .at("/v1/files", openai::files::Collection::new(state.clone()))
        .at("/v1/files/:id", openai::files::One::new(state.clone()))
        .at("/v1/files/:id/content", openai::files::Content::new(state.clone()))
        .at("/v1/batches", openai::batches::Collection::new(state.clone()))
        .at("/v1/batches/:id", openai::batches::One::new(state.clone()))
        .at("/v1/batches/:id/cancel", openai::batches::Cancel::new(state.clone()))
        .at("/v1/capabilities", openai::capabilities::Matrix::new(state.clone()))
        .at("/v1/key", openai::key::Own::new(state));
    Boundary::new(routes.into_endpoint(), metrics, tracer).boxed()
}
