//! OpenAI's dialect: models, the caller's own key, and the document that describes it all. Chat, completions and embeddings
//! are [`super::inference`]'s.

pub mod batches;
pub mod capabilities;
pub mod document;
pub mod files;
pub mod key;
mod lookup;
pub mod models;

/// The endpoints there are, for whoever asks for another one.
pub const ENDPOINTS: &str = "POST /v1/chat/completions, POST /v1/completions, POST /v1/embeddings, POST /v1/messages, \
                         POST /v1/messages/count_tokens, GET /v1/models, GET /v1/models/{id}, GET /v1/capabilities, \
                         POST, GET /v1/files, GET, DELETE /v1/files/{id}, GET /v1/files/{id}/content, POST, GET /v1/batches, \
                         GET /v1/batches/{id}, POST /v1/batches/{id}/cancel and \
                         GET /v1/key; /docs describes them";

/// The route of a path with the names of its variable parts; `None` for what is no route of ours outside of management, whose
/// document knows its own.
pub fn route_of(path: &str) -> Option<&'static str> {
    const WHOLE: [&str; 12] = [
        "/",
        "/docs",
        "/docs/management",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/models",
        "/v1/files",
        "/v1/batches",
        "/v1/capabilities",
    ];
    if let Some(whole) = WHOLE.iter().find(|whole| **whole == path) {
        return Some(whole);
    }
    let parts: Vec<&str> = path.strip_prefix("/v1/")?.splitn(4, '/').collect();
    match parts.as_slice() {
        ["key"] => Some("/v1/key"),
        ["models", ..] => Some("/v1/models/{id}"),
        ["files", _] => Some("/v1/files/{id}"),
        ["files", _, "content"] => Some("/v1/files/{id}/content"),
        ["batches", _] => Some("/v1/batches/{id}"),
        ["batches", _, "cancel"] => Some("/v1/batches/{id}/cancel"),
        _ => None,
    }
}
