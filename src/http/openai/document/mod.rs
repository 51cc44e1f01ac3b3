//! The inference surface as an OpenAPI document, and the page that shows it.
//!
//! Only documentation: `/v1/*` is served by raw endpoints, which forward bytes that no derived type may parse twice or
//! strip of unknown fields. `Inference` therefore mounts nothing, and nothing here is on the path of a request.
//!
//! Each endpoint has a module with its operation and the types it shows. `operation` adds what all operations share,
//! `errors` says what can go wrong, `schema` holds what poem-openapi's derives cannot say. To document another
//! endpoint, write its module and add it to `operations`.

mod batches;
mod capabilities;
mod chat;
mod completions;
mod embeddings;
mod errors;
mod files;
mod headers;
mod key;
mod messages;
mod models;
mod operation;
mod page;
mod schema;
mod security;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::HashMap;

use poem::{endpoint::BoxEndpoint, http::Method};
use poem_openapi::{
    LicenseObject, OpenApi, OpenApiService, ServerObject,
    registry::{MetaApi, MetaPath, MetaTag, Registry},
};

use self::operation::Operation;
pub use self::page::{docs_page, page_of};

/// Where the document is served, and where [`docs_page`] looks for it.
pub const SPECIFICATION_PATH: &str = "/openapi/inference.json";

const TITLE: &str = "Bonito Gateway: inference API";

/// The sections of the documentation.
const TAGS: &[(&str, &str)] = &[
    (capabilities::TAG, "What each provider takes, parameter by parameter."),
    (chat::TAG, "Talk to a model."),
    (
        messages::TAG,
        "The same in Anthropic's dialect, for its SDKs and for coding agents.",
    ),
    (completions::TAG, "Have a model continue a text, as before chat."),
    (embeddings::TAG, "Compare texts by their meaning."),
    (files::TAG, "What batches read, and what they write."),
    (batches::TAG, "Many requests that are served when there is time."),
    (key::TAG, "What the key of the request is allowed."),
    (
        models::TAG,
        "Which models there are, what they can do and what they cost.",
    ),
];

/// The OpenAPI document of the inference surface, as JSON. The same input gives the same bytes.
///
/// `server_url` is where clients reach the gateway, without `/v1`: `https://llm.example.com`.
pub fn specification(server_url: &str) -> String {
    let server_url = server_url.trim_end_matches('/');
    OpenApiService::new(Inference, TITLE, env!("CARGO_PKG_VERSION"))
        .description(include_str!("introduction.md").replace("{server}", server_url))
        .license(LicenseObject::new("Apache-2.0"))
        .server(ServerObject::new(server_url))
        .spec()
}

/// Every operation, in the order of the document.
fn operations() -> [Operation; 18] {
    [
        chat::create(),
        messages::create(),
        messages::count(),
        completions::create(),
        embeddings::create(),
        models::list(),
        models::retrieve(),
        files::upload(),
        files::list(),
        files::retrieve(),
        files::delete(),
        files::content(),
        batches::create(),
        batches::list(),
        batches::retrieve(),
        batches::cancel(),
        capabilities::list(),
        key::retrieve(),
    ]
}

/// The inference surface, to be described and never to be mounted.
struct Inference;

impl OpenApi for Inference {
    fn meta() -> Vec<MetaApi> {
        // A path is there once, however many methods it has.
        let mut paths: Vec<MetaPath> = Vec::new();
        for path in operations().into_iter().map(Operation::into_path) {
            match paths.iter_mut().find(|known| known.path == path.path) {
                Some(known) => known.operations.extend(path.operations),
                None => paths.push(path),
            }
        }
        vec![MetaApi { paths }]
    }

    fn register(registry: &mut Registry) {
        security::register(registry);
        for (name, description) in TAGS {
            registry.create_tag(MetaTag {
                name,
                description: Some(description),
                external_docs: None,
            });
        }
        for operation in operations() {
            operation.register(registry);
        }
    }

    fn add_routes(self, _: &mut HashMap<String, HashMap<Method, BoxEndpoint<'static>>>) {}
}
