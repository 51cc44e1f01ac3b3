//! The documentation: the generated OpenAPI documents, and the page that shows them without any other server.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderValue, Method, StatusCode};
use poem::{Endpoint, Request, Response};

use super::boundary::Arrival;
use super::inference::require;
use super::openai::document;
use super::{error, management};

/// The page is large and always the same; it is built when somebody first asks for it.
static PAGE: LazyLock<Bytes> = LazyLock::new(|| document::docs_page().into());

/// The page of the management API, likewise.
static MANAGEMENT_PAGE: LazyLock<Bytes> =
    LazyLock::new(|| document::page_of(management::TITLE, management::SPECIFICATION_PATH).into());

/// `/`: people who open the gateway in a browser want the dashboard, which knows whether they are signed in.
pub fn landing() -> impl Endpoint<Output = Response> {
    poem::endpoint::make_sync(|_: Request| {
        Response::builder()
            .status(StatusCode::FOUND)
            .header(LOCATION, "/gateway")
            .finish()
    })
}

/// `/docs`.
pub fn page() -> impl Endpoint<Output = Response> {
    poem::endpoint::make_sync(|request: Request| cached(&request, "text/html; charset=utf-8", || PAGE.clone()))
}

/// `/docs/management`.
pub fn management_page() -> impl Endpoint<Output = Response> {
    poem::endpoint::make_sync(|request: Request| {
        cached(&request, "text/html; charset=utf-8", || MANAGEMENT_PAGE.clone())
    })
}

/// The document of the management API.
pub fn management(public_url: &str) -> impl Endpoint<Output = Response> + use<> {
    let server_url: Arc<str> = public_url.into();
    let document: LazyLock<Bytes, _> = LazyLock::new(move || Bytes::from(management::specification(&server_url)));
    poem::endpoint::make_sync(move |request: Request| cached(&request, "application/json", || document.clone()))
}

/// The document of the inference surface.
pub fn inference(public_url: &str) -> impl Endpoint<Output = Response> + use<> {
    let server_url: Arc<str> = public_url.into();
    let document: LazyLock<Bytes, _> = LazyLock::new(move || Bytes::from(document::specification(&server_url)));
    poem::endpoint::make_sync(move |request: Request| cached(&request, "application/json", || document.clone()))
}

/// What is always the same, for those who want to read it.
fn cached(request: &Request, kind: &'static str, body: impl FnOnce() -> Bytes) -> Response {
    if let Err(refusal) = require(request, &Method::GET) {
        return error::response(&refusal, Arrival::of(request).id);
    }
    let mut response = Response::builder().content_type(kind).body(body());
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    response
}
