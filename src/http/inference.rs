//! The inference endpoints of every dialect: who is calling, what is asked, and the answer with its headers.

use std::pin::pin;
use std::sync::{Arc, OnceLock};

use http::header::{AGE, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use poem::{Body, Endpoint, Request, Response};

use super::HttpState;
use super::auth::CallerKey;
use super::boundary::Arrival;
use super::{error, payload};
use crate::chat::request::DialectHeaders;
use crate::domain::caching::CacheControl;
use crate::domain::call::{Dialect, Operation};
use crate::domain::error::GatewayError;
use crate::domain::ids::{ModelName, ProviderId};
use crate::domain::limit::{Standing, Standings, short_duration};
use crate::pipeline::{Answer, AnswerBody, Call, Voice};
use crate::telemetry::names::trace::span;
use crate::telemetry::trace::{Ambient, Span, gen_ai};

const X_PROVIDER: HeaderName = HeaderName::from_static("x-bonito-provider");
const X_MODEL: HeaderName = HeaderName::from_static("x-bonito-model");
const X_ATTEMPTS: HeaderName = HeaderName::from_static("x-bonito-attempts");
const X_OVERHEAD: HeaderName = HeaderName::from_static("x-bonito-overhead-ms");
const X_CACHE: HeaderName = HeaderName::from_static("x-bonito-cache");
const X_COST: HeaderName = HeaderName::from_static("x-bonito-cost-usd");
/// The name of a request in Anthropic's dialect.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// Says which version of Anthropic's dialect a caller speaks, and so that it is the one.
pub const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");
const ANTHROPIC_BETA: HeaderName = HeaderName::from_static("anthropic-beta");
/// Real ones have about thirty bytes, and clients send a handful.
const MAX_BETA_BYTES: usize = 100;
const MAX_BETAS: usize = 32;
const X_DROPPED: HeaderName = HeaderName::from_static("x-bonito-dropped-params");

/// An inference endpoint: an operation in a dialect.
pub struct Inference {
    state: Arc<HttpState>,
    operation: Operation,
    voice: Voice,
    max_body_bytes: usize,
}

impl Inference {
    /// The endpoint of an operation, answering in a voice.
    pub fn new(state: Arc<HttpState>, operation: Operation, voice: Voice) -> Self {
        let limits = &state.settings.limits;
        let max_body_bytes = match operation {
            Operation::Chat => limits.chat_body_bytes,
            Operation::Completion => limits.completion_body_bytes,
            Operation::Embedding => limits.embedding_body_bytes,
        };
        Self {
            state,
            operation,
            voice,
            max_body_bytes,
        }
    }

    /// Answers, and puts where the key's limits stand into `standings` as soon as there is something to say.
    async fn answer(
        &self,
        request: &mut Request,
        arrival: Arrival,
        standings: &mut Option<Arc<OnceLock<Standings>>>,
    ) -> Result<Response, GatewayError> {
        require(request, &Method::POST)?;
        let step = Ambient::step(span::AUTHENTICATE);
        let caller = CallerKey::check(&self.state, request, arrival.at).await;
        let caller = traced(step, caller)?;
        let pipeline = self.state.pipeline.clone();
        let step = Ambient::step(span::ADMIT);
        let place = traced(step, pipeline.enter().await)?;
        let call = Call {
            id: arrival.id,
            received: arrival.received,
            admitted_at: arrival.at,
            gate: caller.gate().clone(),
            operation: self.operation,
            voice: self.voice,
            headers: dialect_headers(request.headers(), self.voice.dialect),
            visible_headers: self.state.pipeline.visible_headers(caller.gate(), request.headers()),
            cache_control: CacheControl::parse(
                request
                    .headers()
                    .get_all(CACHE_CONTROL)
                    .iter()
                    .filter_map(|line| line.to_str().ok()),
            ),
        };
        let mut meter = pipeline.admit(call)?;
        meter.hold(place);
        *standings = Some(meter.standings());
        let patience = self.state.settings.server.body_read_timeout;
        let step = Ambient::step(span::READ_BODY);
        match traced(step, payload::read(request, self.max_body_bytes, patience).await) {
            Ok(body) => pin!(pipeline.run(meter, body)).await.map(response),
            Err(refusal) => Err(meter.refuse(refusal)),
        }
    }
}

impl Endpoint for Inference {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let arrival = Arrival::of(&request);
        let mut standings = None;
        // Boxed here, where it is made: the endpoints around this one box and move what they are given, so that the state of
        // the whole pipeline would be copied by each of them.
        let answer = Box::pin(self.answer(&mut request, arrival, &mut standings)).await;
        let dialect = self.voice.dialect;
        let mut response = answer.unwrap_or_else(|refusal| {
            let response = error::response_in(dialect, &refusal, arrival.id);
            let status = response.status().as_u16();
            Ambient::with(|ambient| ambient.root(|root| gen_ai::ended_badly(root, refusal.class(), status)));
            response
        });
        if let Some(standings) = standings.as_ref().and_then(|standings| standings.get()) {
            limit_headers(response.headers_mut(), standings);
        }
        if dialect == Dialect::Anthropic
            && let Ok(id) = HeaderValue::try_from(arrival.id.header())
        {
            // The name Anthropic's SDKs show it under.
            response.headers_mut().insert(REQUEST_ID, id);
        }
        Ok(response)
    }
}

/// Ends a step with what came of it.
fn traced<T>(mut step: Span, result: Result<T, GatewayError>) -> Result<T, GatewayError> {
    if let Err(refusal) = &result {
        gen_ai::refused(&mut step, refusal);
    }
    result
}

/// The headers that belong to a body of this dialect. What is too long to be meant is left out.
pub(super) fn dialect_headers(headers: &HeaderMap, dialect: Dialect) -> DialectHeaders {
    if dialect == Dialect::OpenAi {
        return DialectHeaders::default();
    }
    let version = headers.get(ANTHROPIC_VERSION).and_then(|value| value.to_str().ok());
    let mut betas: Vec<String> = Vec::new();
    let lines = headers
        .get_all(ANTHROPIC_BETA)
        .iter()
        .filter_map(|line| line.to_str().ok());
    for beta in lines.flat_map(|line| line.split(',')).map(str::trim) {
        let new = !beta.is_empty() && beta.len() <= MAX_BETA_BYTES && betas.iter().all(|known| known != beta);
        if new && betas.len() < MAX_BETAS {
            betas.push(beta.to_owned());
        }
    }
    DialectHeaders {
        anthropic_version: version
            .filter(|version| version.len() <= MAX_BETA_BYTES)
            .map(ToOwned::to_owned),
        anthropic_betas: betas,
    }
}

fn response(answer: Answer) -> Response {
    let (kind, body) = match answer.body {
        AnswerBody::Whole(bytes) => ("application/json", Body::from_bytes(bytes)),
        AnswerBody::Stream(events) => ("text/event-stream; charset=utf-8", Body::from_bytes_stream(events)),
    };
    let mut response = Response::builder().body(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if kind.starts_with("text/event-stream") {
        // Proxies must neither keep nor collect events (nginx reads the second header).
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
    headers.insert(X_CACHE, HeaderValue::from_static(answer.cache.as_str()));
    if let Some(age) = answer.age {
        headers.insert(AGE, HeaderValue::from(age.as_secs()));
    }
    if let Some(served) = answer.served {
        attempt_headers(headers, &served.provider, &served.model, served.attempts);
        let overhead_us = served.overhead.as_micros();
        insert(
            headers,
            X_OVERHEAD,
            format!("{}.{:03}", overhead_us / 1_000, overhead_us % 1_000),
        );
        if let Some(cost) = served.cost {
            insert(headers, X_COST, cost.to_string());
        }
        if !served.dropped.is_empty() {
            insert(headers, X_DROPPED, served.dropped.shown());
        }
    }
    response
}

/// Headers that say where a kind of limit stands.
type LimitHeaders = [HeaderName; 3];

const X_RATELIMIT_REQUESTS: LimitHeaders = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const X_RATELIMIT_TOKENS: LimitHeaders = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// The headers that say where the key's limits stand.
///
/// # Source
/// Names, and the form of durations, are OpenAI's: <https://platform.openai.com/docs/guides/rate-limits>, "Rate limits in
/// headers".
fn limit_headers(headers: &mut HeaderMap, standings: &Standings) {
    let mut say = |[limit, remaining, reset]: LimitHeaders, standing: Option<Standing>| {
        if let Some(standing) = standing {
            headers.insert(limit, HeaderValue::from(standing.limit));
            headers.insert(remaining, HeaderValue::from(standing.remaining));
            insert(headers, reset, short_duration(standing.resets_in));
        }
    };
    say(X_RATELIMIT_REQUESTS, standings.requests);
    say(X_RATELIMIT_TOKENS, standings.tokens);
}

/// The headers that say who was asked.
pub fn attempt_headers(headers: &mut HeaderMap, provider: &ProviderId, model: &ModelName, attempts: usize) {
    insert(headers, X_PROVIDER, provider.as_str());
    insert(headers, X_MODEL, model.as_str());
    headers.insert(X_ATTEMPTS, HeaderValue::from(attempts));
}

/// Sets a header, unless the text cannot be one: a model's name may hold any script.
fn insert(headers: &mut HeaderMap, name: HeaderName, text: impl AsRef<str>) {
    if let Ok(value) = HeaderValue::from_str(text.as_ref()) {
        headers.insert(name, value);
    }
}

/// Refuses every method but one.
pub fn require(request: &Request, method: &Method) -> Result<(), GatewayError> {
    if request.method() == method || (*method == Method::GET && request.method() == Method::HEAD) {
        return Ok(());
    }
    Err(GatewayError::MethodNotAllowed {
        allowed: if *method == Method::POST { "POST" } else { "GET" },
    })
}

/// JSON as an answer.
pub fn json(value: &serde_json::Value) -> Response {
    Response::builder()
        .content_type("application/json")
        .body(value.to_string())
}
