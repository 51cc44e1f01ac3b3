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
