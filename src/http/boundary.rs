//! What every request passes first and last: an id, a check of its headers, and a wall that a panic does not pass.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;
use http::header::HOST;
use http::{HeaderName, HeaderValue, Method};
use poem::{Endpoint, IntoResponse as _, Request, Response};
use tokio::time::Instant;
use uuid::Uuid;

use super::{error, openai};
use crate::domain::error::GatewayError;
use crate::domain::ids::RequestId;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names::trace as names;
use crate::telemetry::trace::{Ambient, Span, Tracer};

/// The header that names a request, on every answer.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// When and as what a request came in.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its id.
    pub id: RequestId,
    /// When, for durations.
    pub received: Instant,
    /// When, for the record.
    pub at: DateTime<Utc>,
}

impl Arrival {
    fn now() -> Self {
        Self {
            id: RequestId(Uuid::now_v7()),
            received: Instant::now(),
            at: Utc::now(),
        }
    }

    /// The arrival of a request that passed the boundary.
    pub fn of(request: &Request) -> Self {
        request.extensions().get().copied().unwrap_or_else(Self::now)
    }
}

/// The outermost endpoint.
pub struct Boundary<E> {
    inner: E,
    metrics: Arc<Metrics>,
    tracer: Tracer,
}

impl<E> Boundary<E> {
    /// A boundary around `inner`.
    pub fn new(inner: E, metrics: Arc<Metrics>, tracer: Tracer) -> Self {
        Self { inner, metrics, tracer }
    }
}

impl<E: Endpoint> Endpoint for Boundary<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let arrival = Arrival::now();
        let ambient = self.trace(&request, arrival.id);
        let mut response = match check_host(&request) {
            Err(refusal) => error::response(&refusal, arrival.id),
            Ok(()) => {
                request.extensions_mut().insert(arrival);
                let answer = pin!(AssertUnwindSafe(self.inner.call(request)).catch_unwind());
                match ambient.clone().scope(answer).await {
                    Ok(Ok(output)) => output.into_response(),
                    // No route: the only way our endpoints have of refusing is an answer.
                    Ok(Err(_)) => {
                        let unknown = GatewayError::UnknownPath {
                            endpoints: openai::ENDPOINTS,
                        };
                        error::response(&unknown, arrival.id)
                    }
                    Err(_panic) => {
                        // The panic hook has logged where; what was being worked on may hold a prompt.
                        self.metrics.panics.inc();
                        ambient.root(Span::panicked);
                        let failure = GatewayError::internal("a handler panicked");
                        error::response(&failure, arrival.id)
                    }
                }
            }
        };
        if let Ok(value) = HeaderValue::try_from(arrival.id.header()) {
            response.headers_mut().insert(X_REQUEST_ID, value);
        }
        ambient.root(|root| {
            let status = response.status();
            root.set(names::HTTP_STATUS, || status.as_u16());
            // Inference says better why; of everything else the status is what is known.
            if status.is_server_error() && !root.has_failed() {
                root.failed(status.as_str());
            }
        });
        Ok(response)
    }
}

impl<E> Boundary<E> {
    /// Begins our part of the request's trace. Nothing of the path is in it but what our own routes say.
    fn trace(&self, request: &Request, id: RequestId) -> Ambient {
        let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let route = || openai::route_of(request.uri().path());
        let method = method_of(request);
        let ambient = self.tracer.serve(
            id,
            text("traceparent"),
            || text("tracestate").map(ToOwned::to_owned),
            || match route() {
                Some(route) => format!("{method} {route}"),
                None => method.to_owned(),
            },
        );
        ambient.note(names::HTTP_METHOD, || method);
        ambient.root(|root| {
            root.set_if(names::HTTP_ROUTE, route());
            root.set(names::REQUEST_ID, || id.header());
        });
        ambient
    }
}

/// The method, where it is one that is known: others are what a caller made up.
fn method_of(request: &Request) -> &'static str {
    match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        // What the conventions call a method that is none of the known ones.
        _ => "_OTHER",
    }
}

/// HTTP wants exactly one `Host` that is a host and nothing else; hyper lets everything through, and whoever stands in
/// front of us may have read another one (RFC 9112, section 3.2).
fn check_host(request: &Request) -> Result<(), GatewayError> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let problem = match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            let plain = host
                .as_bytes()
                .iter()
                .all(|byte| !matches!(byte, b'/' | b'?' | b'#' | b'@' | b' '));
            if plain && !host.is_empty() {
                return Ok(());
            }
            "must be a host name with an optional port"
        }
        (None, _) if request.version() == http::Version::HTTP_10 => return Ok(()),
        (None, _) => "is required",
        (Some(_), Some(_)) => "must be given once",
    };
    Err(GatewayError::invalid("Host", problem))
}
