//! A collector of traces: takes OTLP over HTTP and understands it, or does not answer.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bonito::domain::trace::TraceContext;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// What the collector does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    /// Takes everything.
    Takes,
    /// Takes the call and never answers.
    Hangs,
    /// Answers with this status.
    Refuses(u16),
}

/// The collector.
pub struct Collector {
    /// Its address, without a last slash.
    pub url: String,
    state: Arc<State>,
    _accepting: AbortOnDropHandle<()>,
}

struct State {
    mood: Mutex<Mood>,
    calls: Mutex<Vec<Call>>,
}

/// One call.
pub struct Call {
    pub path: String,
    pub headers: HeaderMap,
    pub message: ExportTraceServiceRequest,
    pub raw: Bytes,
}

/// A span in words.
#[derive(Clone, Debug)]
pub struct Seen {
    pub name: String,
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub kind: i32,
    /// Whether it has failed.
    pub failed: bool,
    pub attributes: BTreeMap<String, String>,
    pub events: Vec<String>,
    pub state: String,
    pub from: u64,
    pub to: u64,
}

impl Collector {
    pub async fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let state = Arc::new(State {
            mood: Mutex::new(mood),
            calls: Mutex::default(),
        });
        let serving = state.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = serving.clone();
                let service = service_fn(move |request| take(request, state.clone()));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self {
            url: format!("http://127.0.0.1:{port}"),
            state,
            _accepting: AbortOnDropHandle::new(accepting),
        }
    }

    /// What it was told, call by call.
    pub fn calls<T>(&self, look: impl FnMut(&Call) -> T) -> Vec<T> {
        self.state.calls.lock().unwrap().iter().map(look).collect()
    }

    /// Every span it was told of.
    pub fn spans(&self) -> Vec<Seen> {
        let mut seen = Vec::new();
        for call in self.state.calls.lock().unwrap().iter() {
            for resource in &call.message.resource_spans {
                for scope in &resource.scope_spans {
                    seen.extend(scope.spans.iter().map(Seen::of));
                }
            }
        }
        seen
    }

    /// Those of one trace.
    pub fn spans_of(&self, trace: &str) -> Vec<Seen> {
        self.spans().into_iter().filter(|span| span.trace == trace).collect()
    }
}

impl Seen {
    fn of(span: &Span) -> Self {
        let context = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self {
            name: span.name.clone(),
            trace: context(&span.trace_id),
            id: context(&span.span_id),
            parent: context(&span.parent_span_id),
            kind: span.kind,
            failed: span.status.as_ref().is_some_and(|status| status.code == 2),
            attributes: words(&span.attributes),
            events: span.events.iter().map(|event| event.name.clone()).collect(),
            state: span.trace_state.clone(),
            from: span.start_time_unix_nano,
            to: span.end_time_unix_nano,
        }
    }

    /// An attribute; empty where it is missing.
    pub fn says(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// Its place as a `traceparent` says it.
    pub fn context(&self) -> TraceContext {
        TraceContext::parse(&format!("00-{}-{}-01", self.trace, self.id)).expect("a span has a place")
    }
}

/// Attributes as text.
pub fn words(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let words: BTreeMap<String, String> = attributes
        .iter()
        .map(|attribute| (attribute.key.clone(), text(attribute.value.as_ref())))
        .collect();
    assert_eq!(words.len(), attributes.len(), "a name is there twice: {attributes:?}");
    words
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::BoolValue(yes)) => yes.to_string(),
        Some(Value::ArrayValue(all)) => {
            let all: Vec<String> = all.values.iter().map(|one| text(Some(one))).collect();
            format!("[{}]", all.join(", "))
        }
        other => format!("{other:?}"),
    }
}

async fn take(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mood = *state.mood.lock().unwrap();
    let (head, body) = request.into_parts();
    let raw = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let status = match mood {
        Mood::Hangs => std::future::pending().await,
        Mood::Refuses(status) => StatusCode::from_u16(status).unwrap(),
        Mood::Takes => {
            let message = ExportTraceServiceRequest::decode(raw.clone()).expect("it is OTLP");
            state.calls.lock().unwrap().push(Call {
                path: head.uri.path().to_owned(),
                headers: head.headers,
                message,
                raw,
            });
            StatusCode::OK
        }
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    Ok(response)
}
