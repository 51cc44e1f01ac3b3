//! For whom something is done: the request, and its place in a trace.

use std::sync::Arc;

use parking_lot::Mutex;

use super::span::{Kind, Span, Value};
use super::tracer::Tracer;
use crate::domain::ids::RequestId;
use crate::domain::trace::TraceContext;

tokio::task_local! {
    static AMBIENT: Ambient;
}

/// For whom a task works. It is small, and copied into tasks and messages that work for the same.
#[derive(Clone, Debug, Default)]
pub struct Ambient {
    request: Option<RequestId>,
    context: Option<TraceContext>,
    recording: Option<Arc<Recording>>,
}

/// A trace that is recorded: where its spans go, and the first span of ours in it, which ends when nobody works on it any
/// more.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) tracer: Tracer,
    pub(super) state: Option<Arc<str>>,
    pub(super) root: Mutex<Span>,
}

impl Ambient {
    pub(super) fn new(
        request: Option<RequestId>,
        context: Option<TraceContext>,
        recording: Option<Arc<Recording>>,
    ) -> Self {
        Self {
            request,
            context,
            recording,
        }
    }

    /// A place in a trace whose spans are somebody else's: what works for it long after a request has ended only names it.
    pub fn at(context: Option<TraceContext>) -> Self {
        Self::new(None, context, None)
    }

    /// That of the present task; an empty one where nobody said.
    pub fn here() -> Self {
        AMBIENT.try_with(Self::clone).unwrap_or_default()
    }

    /// Looks at that of the present task without copying it.
    pub fn with<T>(look: impl FnOnce(&Self) -> T) -> Option<T> {
        AMBIENT.try_with(look).ok()
    }

    /// A step of what the present task works on, from now on until it is dropped.
    pub fn step(name: &'static str) -> Span {
        AMBIENT
            .try_with(|ambient| ambient.span(|| name.to_owned(), Kind::Internal))
            .unwrap_or_default()
    }

    /// The request.
    pub fn request(&self) -> Option<RequestId> {
        self.request
    }

    /// The place in the trace.
    pub fn context(&self) -> Option<TraceContext> {
        self.context
    }

    /// What the caller's own tools want to be passed on beside the place.
    pub fn state(&self) -> Option<&str> {
        self.recording.as_ref()?.state.as_deref()
    }

    /// Whether its spans are recorded.
    pub fn is_recorded(&self) -> bool {
        self.recording.is_some()
    }

    /// The same place, for another request.
    #[must_use]
    pub fn of_request(mut self, request: RequestId) -> Self {
        self.request = Some(request);
        self
    }

    /// The place inside a span; the same where that is not recorded.
    #[must_use]
    pub fn inside(mut self, span: &Span) -> Self {
        if let Some(context) = span.context() {
            self.context = Some(context);
        }
        self
    }

    /// A span at this place. Its name is made only if it is recorded.
    pub fn span(&self, name: impl FnOnce() -> String, kind: Kind) -> Span {
        match (&self.recording, self.context) {
            (Some(recording), Some(context)) => {
                recording
                    .tracer
                    .child(context, recording.state.as_deref(), name(), kind)
            }
            _ => Span::none(),
        }
    }

    /// Says something about the first span of ours in the trace.
    pub fn note<V: Into<Value>>(&self, key: &'static str, value: impl FnOnce() -> V) {
        if let Some(recording) = &self.recording {
            recording.root.lock().set(key, value);
        }
    }

    /// Does something with that span.
    pub fn root(&self, change: impl FnOnce(&mut Span)) {
        if let Some(recording) = &self.recording {
            change(&mut recording.root.lock());
        }
    }

    /// Runs a future for whom this says.
    pub fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        AMBIENT.scope(self, work)
    }

    /// Runs a piece of code for whom this says.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        AMBIENT.sync_scope(self.clone(), work)
    }
}
