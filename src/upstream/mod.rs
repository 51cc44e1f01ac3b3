//! Calling providers: the only module that does.
//!
//! One pooled client for all of them, and another for the endpoints that organizations chose themselves (`guarded`). Redirects are never followed, because a redirect would carry the credential to
//! another origin; every byte that is read is counted against a limit; and each call is exactly one attempt, so that every
//! attempt is seen, timed and priced.

mod allowance;
pub mod answer;
pub mod endpoint;
pub mod endpoints;
pub mod fetcher;
mod guarded;
pub mod payload;
pub mod rest;

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::config::{Timeouts, UpstreamSettings};
use crate::domain::address::AddressRules;
use crate::domain::call::ErrorClass;
use crate::domain::trace::TraceContext;
use crate::providers::adapter::{AnswerForm, Failure, Listing, Payload, WireRequest};
use crate::secrets::aws::sigv4::Unsigned;
use answer::{Answer, AnswerBody};
use endpoint::Endpoint;
use fetcher::SystemResolver;
use guarded::JudgedNames;
use payload::{PayloadBody, SentMark};

/// What we call ourselves.
const AGENT: &str = concat!("bonito-gateway/", env!("CARGO_PKG_VERSION"));

/// What is read ahead of one provider connection, and the most its answer's head may have.
const READ_BUFFER_BYTES: usize = 64 * 1024;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What the other end of a call is told of the trace it is a part of.
#[derive(Clone, Default, Debug)]
pub struct Propagated {
    parent: Option<HeaderValue>,
    state: Option<HeaderValue>,
}

impl Propagated {
    /// This place, and what the caller's own tools want to be passed on.
    pub fn new(context: Option<TraceContext>, state: Option<&str>) -> Self {
        let parent = context.and_then(|context| HeaderValue::from_bytes(&context.header()).ok());
        Self {
            state: parent
                .as_ref()
                .and(state)
                .and_then(|state| HeaderValue::from_str(state).ok()),
            parent,
        }
    }

    /// The headers of a call that say so.
    pub fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let headers = [(TRACEPARENT, &self.parent), (TRACESTATE, &self.state)];
        headers
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.clone()?)))
    }
}

/// The client for all providers.
#[derive(Clone, Debug)]
pub struct Upstream {
    client: Client<HttpsConnector<HttpConnector>, PayloadBody>,
    guarded: Client<HttpsConnector<HttpConnector<JudgedNames>>, PayloadBody>,
    names: JudgedNames,
}

impl Upstream {
    /// A client with an empty pool.
    ///
    /// `addresses` says where endpoints may be that organizations chose themselves.
    pub fn new(settings: &UpstreamSettings, timeouts: &Timeouts, addresses: AddressRules) -> Self {
        let names = JudgedNames::new(addresses, Arc::new(SystemResolver::default()));
        Self {
            client: client(HttpConnector::new(), settings, timeouts),
            guarded: client(HttpConnector::new_with_resolver(names.clone()), settings, timeouts),
            names,
        }
    }

    /// Sends one request and waits for the head of its answer, without a time limit of its own. `sent` is set as soon as
    /// the provider has it. What is said of the trace is no part of what is signed, so that a proxy may change it.
    ///
    /// # Errors
    /// No answer came: the connection could not be made, or broke.
    pub async fn send(
        &self,
        endpoint: &Endpoint,
        wire: WireRequest,
        sent: SentMark,
        trace: &Propagated,
    ) -> Result<Answer, Failure> {
        self.call(endpoint, &Method::POST, wire, sent, trace).await
    }

    /// Asks a question that asks for no work.
    ///
    /// # Errors
    /// No answer came: the connection could not be made, or broke.
    pub async fn list(&self, endpoint: &Endpoint, listing: Listing) -> Result<Answer, Failure> {
        let wire = WireRequest {
            path: listing.path,
            payload: Payload::default(),
            auth: listing.auth,
            headers: listing.headers,
            answer: AnswerForm::Whole,
        };
        let trace = Propagated::default();
        self.call(endpoint, &Method::GET, wire, SentMark::default(), &trace)
            .await
    }

    async fn call(
        &self,
        endpoint: &Endpoint,
        method: &Method,
        wire: WireRequest,
        sent: SentMark,
        trace: &Propagated,
    ) -> Result<Answer, Failure> {
        let mut uri = endpoint.origin.parts();
        uri.path_and_query = Some(wire.path);
        let uri = Uri::from_parts(uri).map_err(|_| Failure::new(ErrorClass::Internal, "the address is not valid"))?;
        let mut headers = HeaderMap::with_capacity(8 + wire.headers.len() + endpoint.headers.len());
        if !wire.payload.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(CONTENT_LENGTH, HeaderValue::from(wire.payload.len()));
        }
        headers.insert(ACCEPT, HeaderValue::from_static(wire.answer.media_type()));
        // Decoding is not offered: a small compressed answer could stand for gigabytes.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        for (name, value) in wire.headers {
            headers.insert(name, value);
        }
        for (name, value) in &endpoint.headers {
            headers.insert(name.clone(), value.clone());
        }
        let mut unsigned = Unsigned {
            method,
            uri: &uri,
            headers: &mut headers,
            payload: wire.payload.parts(),
        };
        let authorized = endpoint.credential.authorize(&wire.auth, &mut unsigned, Utc::now());
        let used = authorized.await.map_err(|error| {
            // Operators need the reason; callers could only learn from it how the gateway is set up.
            tracing::warn!(provider = %endpoint.id, %error, "no credential could be had");
            Failure::new(
                ErrorClass::ProviderAuth,
                "could not be asked: the gateway has no credential for it right now",
            )
        })?;
        headers.extend(trace.headers());
        let mut request = Request::new(PayloadBody::new(wire.payload, sent));
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let response = match endpoint.is_guarded {
            false => self.client.request(request).await,
            true if self.names.may_connect(request.uri()) => self.guarded.request(request).await,
            true => return Err(Failure::new(ErrorClass::Connect, "cannot be reached")),
        };
        let response = response.map_err(|error| {
            if error.is_connect() {
                return Failure::new(ErrorClass::Connect, "cannot be reached");
            }
            Failure::new(ErrorClass::Cut, "closed the connection before it answered")
        })?;
        let (head, body) = response.into_parts();
        let refused = endpoint.credential.is_refusal(head.status, &head.headers);
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            credential_renewed: refused && endpoint.credential.drop_refused(&used),
            body: AnswerBody::Network(body),
        })
    }
}

fn client<R>(
    mut tcp: HttpConnector<R>,
    settings: &UpstreamSettings,
    timeouts: &Timeouts,
) -> Client<HttpsConnector<HttpConnector<R>>, PayloadBody>
where
    HttpsConnector<HttpConnector<R>>: Connect + Clone,
{
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(timeouts.connect));
    tcp.set_keepalive(Some(Duration::from_secs(60)));
    // HTTP/1.1 keep-alive beats HTTP/2 at the concurrency one replica has towards one provider, and a cancelled stream
    // ends its connection at once instead of leaving a reset to be sent.
    let https = HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(settings.pool_idle)
        .pool_max_idle_per_host(settings.pool_idle_per_host)
        .http1_max_buf_size(READ_BUFFER_BYTES)
        .build(https)
}
