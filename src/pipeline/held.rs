//! A stream before its first event: its status and headers are held back for a while, so that a failure can still have a
//! status of its own.
//!
//! After that the headers go out with a keep-alive comment. The comment commits nothing: failover goes on behind it, and a
//! total failure becomes an error event.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use tokio::time::Sleep;

use super::meter::Meter;
use super::relay::Relay;
use super::{Answer, AnswerBody, Pipeline, Served, Voice};
use crate::chat::request::Request;
use crate::domain::error::GatewayError;
use crate::domain::ids::RequestId;
use crate::journal::Written;
use crate::routing::plan::Plan;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names::trace::span;
use crate::telemetry::trace::Ambient;

/// Serves a request for a stream.
pub(super) async fn stream(
    pipeline: Arc<Pipeline>,
    request: Arc<Request>,
    plan: Plan,
    mut meter: Meter,
    journaled: Option<Written>,
) -> Result<Answer, GatewayError> {
    let (id, voice, patience) = (meter.id(), meter.voice(), pipeline.limits.keep_alive);
    let (head_sent, metrics) = (meter.mark_of_head(), pipeline.metrics.clone());
    let (cache, ambient) = (meter.cache_status(), meter.ambient().clone());
    let mut opening = open(pipeline, request, plan, meter).boxed();
    let opened = tokio::time::timeout(patience, &mut opening).await;
    // Whoever has got as much as a status is in the ledger, whatever happens to this process.
    if let Some(written) = journaled.filter(|_| !matches!(opened, Ok(Err(_)))) {
        let _step = Ambient::step(span::JOURNAL);
        written.reached().await;
    }
    match opened {
        Ok(Ok(relay)) => {
            // Its status is the next thing the caller gets, whatever becomes of the stream.
            head_sent.store(true, Ordering::Release);
            let served = relay.meter().and_then(Meter::served);
            Ok(Answer {
                served,
                cache,
                age: None,
                body: AnswerBody::Stream(relay.boxed()),
            })
        }
        Ok(Err(error)) => Err(error),
        Err(_) => {
            head_sent.store(true, Ordering::Release);
            let held = Held {
                state: State::Opening(opening),
                timer: Box::pin(tokio::time::sleep(patience)),
                patience,
                first: true,
                id,
                voice,
                metrics,
                ambient,
            };
            Ok(Answer {
                served: None,
                cache,
                age: None,
                body: AnswerBody::Stream(held.boxed()),
            })
        }
    }
}

async fn open(
    pipeline: Arc<Pipeline>,
    request: Arc<Request>,
    plan: Plan,
    mut meter: Meter,
) -> Result<Relay, GatewayError> {
    let mut opened = pin!(pipeline.open(&request, &plan, &mut meter)).await;
    if let Err(error) = &opened
        && let Some(plan) = pipeline.plan_for_less(&request, &mut meter, error)
    {
        opened = Box::pin(pipeline.open(&request, &plan, &mut meter)).await;
    }
    match opened {
        Ok((opened, before)) => {
            meter.first_event();
            let deployment = meter
                .deployment()
                .expect("a stream that is open has an attempt under way");
            Ok(Relay::new(opened, before, deployment, meter, &pipeline))
        }
        Err(error) => Err(meter.refuse(error)),
    }
}

/// The comment that says what the headers did not, because they were out before anybody knew.
fn without_headers(served: &Served) -> String {
    let mut comment = format!(
        ": x-bonito-provider={} x-bonito-model={} x-bonito-attempts={}",
        served.provider, served.model, served.attempts
    );
    if !served.dropped.is_empty() {
        // Last, because it is a list with blanks in it.
        comment.push_str(" x-bonito-dropped-params=");
        comment.push_str(&served.dropped.shown());
    }
    comment.push_str("\n\n");
    comment
}

/// A stream whose headers are out and whose first event is not here yet.
struct Held {
    state: State,
    timer: Pin<Box<Sleep>>,
    patience: Duration,
    /// Whether the comment that carries the headers is still to be sent.
    first: bool,
    id: RequestId,
    voice: Voice,
    metrics: Arc<Metrics>,
    /// For whom it is, in logs and traces.
    ambient: Ambient,
}

enum State {
    Opening(BoxFuture<'static, Result<Relay, GatewayError>>),
    Relaying(Box<Relay>),
    Over,
}

impl Stream for Held {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.first) {
            return Poll::Ready(Some(Ok(Bytes::from_static(self.voice.keep_alive))));
        }
        let ambient = self.ambient.clone();
        loop {
            match &mut self.state {
                State::Over => return Poll::Ready(None),
                State::Relaying(relay) => return relay.poll_next_unpin(cx),
                State::Opening(opening) => {
                    match ambient.enter(|| catch_unwind(AssertUnwindSafe(|| opening.poll_unpin(cx)))) {
                        Err(_panic) => {
                            // The meter was inside, and has settled while it came down.
                            self.metrics.panics.inc();
                            self.state = State::Over;
                            let error = GatewayError::internal("opening a stream panicked");
                            return Poll::Ready(Some(Ok((self.voice.event)(&error, self.id))));
                        }
                        Ok(Poll::Ready(Ok(mut relay))) => {
                            if let Some(served) = relay.meter().and_then(Meter::served) {
                                relay.say_at_the_end(without_headers(&served).into());
                            }
                            self.state = State::Relaying(Box::new(relay));
                        }
                        Ok(Poll::Ready(Err(error))) => {
                            self.state = State::Over;
                            return Poll::Ready(Some(Ok((self.voice.event)(&error, self.id))));
                        }
                        Ok(Poll::Pending) => {
                            if self.timer.as_mut().poll(cx).is_pending() {
                                return Poll::Pending;
                            }
                            let next = tokio::time::Instant::now() + self.patience;
                            self.timer.as_mut().reset(next);
                            return Poll::Ready(Some(Ok(Bytes::from_static(self.voice.keep_alive))));
                        }
                    }
                }
            }
        }
    }
}
