//! Spans on their way to a collector: OTLP over HTTP, as protobuf.
//!
//! `Outbox::put` never waits: where the queue is full, the span is dropped and counted. A task of its own takes spans out
//! and sends them; a collector that is down or hangs costs the queue's memory and nothing else, and is told of in the log
//! once a minute.
//!
//! # Source
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp>: the path, the content type, and which answers are worth another
//! try.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use secrecy::ExposeSecret as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::span::attribute;
use crate::config::TracingSettings;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names::trace::{
    SCHEMA, SCOPE, SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, TELEMETRY_SDK_LANGUAGE, TELEMETRY_SDK_NAME,
    TELEMETRY_SDK_VERSION,
};

/// Tries of one batch.
const TRIES: u32 = 3;
/// The first wait between them; the second is twice that.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait that a collector may ask for.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// How often the log says that spans do not arrive.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// How long what is left may take at the end of the process.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Bytes of a collector's answer that are read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Where spans are put.
#[derive(Clone, Debug)]
pub struct Outbox {
    queue: mpsc::Sender<Span>,
    metrics: Arc<Metrics>,
}

impl Outbox {
    /// Puts a span in, or drops and counts it.
    pub(super) fn put(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.metrics.traces.dropped("queue_full", 1);
        }
    }
}

/// What takes spans out and sends them.
#[derive(Debug)]
pub struct Exporter {
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Exporter {
    /// Starts one on the present runtime. `client` must not follow redirects: its headers may hold a credential.
    pub fn start(
        settings: &TracingSettings,
        url: String,
        client: reqwest::Client,
        metrics: Arc<Metrics>,
    ) -> (Outbox, Self) {
        let (queue, spans) = mpsc::channel(settings.queue);
        let stop = CancellationToken::new();
        let sender = Sender {
            client,
            url,
            settings: settings.clone(),
            resource: resource(settings),
            metrics: metrics.clone(),
            complained: None,
            unheard: 0,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(sender.run(spans, stop.clone())));
        (Outbox { queue, metrics }, Self { stop, task })
    }

    /// Sends what is left, as far as that is quickly done, and ends.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = timeout(LAST_WORDS, self.task).await;
    }
}

/// Who sends the spans.
fn resource(settings: &TracingSettings) -> Resource {
    let version = env!("CARGO_PKG_VERSION");
    let mut attributes = vec![
        attribute(SERVICE_NAME, settings.service_name.as_str()),
        attribute(SERVICE_VERSION, version),
        attribute(SERVICE_INSTANCE_ID, Uuid::now_v7().to_string()),
        attribute(TELEMETRY_SDK_NAME, SCOPE),
        attribute(TELEMETRY_SDK_LANGUAGE, "rust"),
        attribute(TELEMETRY_SDK_VERSION, version),
    ];
    for (key, value) in &settings.resource {
        let said = KeyValue {
            key: key.clone(),
            ..attribute(SERVICE_NAME, value.as_str())
        };
        match attributes.iter_mut().find(|there| there.key == *key) {
            // The name of the service has a setting of its own; for everything else, what is said is stronger.
            Some(there) if key != SERVICE_NAME => *there = said,
            Some(_) => {}
            None => attributes.push(said),
        }
    }
    Resource {
        attributes,
        ..Resource::default()
    }
}

struct Sender {
    client: reqwest::Client,
    url: String,
    settings: TracingSettings,
    resource: Resource,
    metrics: Arc<Metrics>,
    /// When the log last said that spans do not arrive.
    complained: Option<Instant>,
    /// Spans that did not since then.
    unheard: u64,
}

/// Why a batch did not arrive.
enum Lost {
    /// It may the next time, perhaps after a while.
    ForNow(&'static str, Option<Duration>),
    /// It never will.
    ForGood(&'static str),
}

impl Sender {
    async fn run(mut self, mut spans: mpsc::Receiver<Span>, stop: CancellationToken) {
        let most = self.settings.batch;
        let mut batch = Vec::new();
        loop {
            // Woken by the first span, then a while for company.
            let last = tokio::select! {
                biased;
                () = stop.cancelled() => true,
                received = spans.recv_many(&mut batch, most) => received == 0,
            };
            if !last {
                let due = Instant::now() + self.settings.flush;
                while batch.len() < most {
                    let room = most - batch.len();
                    let received = tokio::select! {
                        () = stop.cancelled() => break,
                        received = tokio::time::timeout_at(due, spans.recv_many(&mut batch, room)) => received,
                    };
                    if !matches!(received, Ok(1..)) {
                        break;
                    }
                }
            }
            if last {
                break;
            }
            // A stop does not wait for a collector that hangs.
            let taken = std::mem::take(&mut batch);
            tokio::select! {
                () = self.deliver(taken) => {}
                () = async { stop.cancelled().await; sleep(LAST_WORDS / 2).await } => break,
            }
        }
        spans.close();
        while let Ok(span) = spans.try_recv() {
            batch.push(span);
        }
        while !batch.is_empty() {
            let rest = batch.split_off(batch.len().min(most));
            let taken = std::mem::replace(&mut batch, rest);
            self.deliver(taken).await;
        }
    }

    /// Sends a batch, a few times if need be.
    async fn deliver(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let body = bytes::Bytes::from(self.message(spans).encode_to_vec());
        let mut wait = FIRST_WAIT;
        for tried in 1.. {
            match self.send(body.clone(), count).await {
                Ok(taken) => {
                    self.metrics.traces.exported(taken);
                    if self.complained.take().is_some() {
                        tracing::info!(spans_lost = self.unheard, "spans arrive again");
                        self.unheard = 0;
                    }
                    return;
                }
                Err(Lost::ForNow(_, asked)) if tried < TRIES => {
                    sleep(asked.unwrap_or(wait).min(MAX_WAIT)).await;
                    wait *= 2;
                }
                Err(Lost::ForNow(why, _) | Lost::ForGood(why)) => return self.lose(why, count),
            }
        }
    }

    fn message(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name: SCOPE.to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        ..InstrumentationScope::default()
                    }),
                    spans,
                    schema_url: SCHEMA.to_owned(),
                }],
                schema_url: SCHEMA.to_owned(),
            }],
        }
    }

    /// Sends a batch of so many once. How many were taken.
    async fn send(&self, body: bytes::Bytes, count: u64) -> Result<u64, Lost> {
        let mut request = self
            .client
            .post(&self.url)
            .timeout(self.settings.timeout)
            .header(CONTENT_TYPE, "application/x-protobuf")
            .body(body);
        for (name, value) in &self.settings.headers {
            request = request.header(name.as_str(), value.expose_secret());
        }
        let mut answer = request.send().await.map_err(|error| {
            let why = if error.is_timeout() { "timeout" } else { "unreachable" };
            Lost::ForNow(why, None)
        })?;
        let status = answer.status().as_u16();
        if status == 200 {
            let mut said = Vec::new();
            while let Ok(Some(part)) = answer.chunk().await {
                said.extend_from_slice(&part);
                if said.len() > MAX_ANSWER_BYTES {
                    return Ok(count);
                }
            }
            let rejected = ExportTraceServiceResponse::decode(said.as_slice())
                .ok()
                .and_then(|answer| answer.partial_success)
                .map_or(0, |partial| partial.rejected_spans);
            let rejected = u64::try_from(rejected).unwrap_or(0).min(count);
            if rejected > 0 {
                self.metrics.traces.dropped("rejected", rejected);
            }
            return Ok(count - rejected);
        }
        let asked = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let asked = asked.and_then(|text| text.parse().ok()).map(Duration::from_secs);
        Err(match status {
            429 | 502..=504 => Lost::ForNow("busy", asked),
            _ => Lost::ForGood("refused"),
        })
    }

    fn lose(&mut self, why: &'static str, count: u64) {
        self.metrics.traces.dropped(why, count);
        self.unheard += count;
        let now = Instant::now();
        if self.complained.is_some_and(|at| now - at < COMPLAIN_EVERY) {
            return;
        }
        // The address may hold a credential.
        tracing::warn!(
            reason = why,
            spans = self.unheard,
            "spans do not arrive at the collector and are dropped"
        );
        self.complained = Some(now);
        self.unheard = 0;
    }
}
