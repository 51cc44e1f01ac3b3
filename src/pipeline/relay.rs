//! A stream on its way to the caller, after its first event: events as they come, comments while there are none, and an
//! honest end.
//!
//! The end of the answer is the provider's end and nothing else. What is cut, too slow or broken becomes an error event;
//! a `[DONE]` that the provider did not send is never made up.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, Stream};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::attempt::{Opened, too_slow};
use super::failover::{cut_off, described, hide};
use super::meter::{Meter, Partial};
use super::turn::Burst;
use super::{Pipeline, Voice};
use crate::domain::call::ErrorClass;
use crate::domain::error::{AttemptFailure, GatewayError};
use crate::domain::ids::RequestId;
use crate::journal::Written;
use crate::providers::adapter::{Decoder, Failure, Relayed};
use crate::routing::catalog::Deployment;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names::trace::span;
use crate::telemetry::trace::{Ambient, Kind};
use crate::upstream::answer::AnswerBody;
use crate::upstream::endpoints::Keyed;

/// So many bytes of events go out without waiting for more.
const WRITE_AT: usize = 16 * 1024;
/// How often a silent stream looks whether the process is stopping.
const TICK: Duration = Duration::from_secs(1);
/// How often the journal hears how far a stream has come.
const PROGRESS: Duration = Duration::from_secs(1);
/// How long a provider may take to close a stream that is complete, so that its connection can be used again.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// A committed stream.
pub(super) struct Relay {
    /// Gone once the request is settled.
    meter: Option<Meter>,
    /// What is needed to say that we broke, whatever the state we broke in.
    id: RequestId,
    voice: Voice,
    metrics: Arc<Metrics>,
    deployment: Arc<Deployment>,
    before: Vec<AttemptFailure>,
    decoder: Box<dyn Decoder>,
    body: AnswerBody,
    out: Relayed,
    /// Events that are ready before anything is read.
    ready: Option<Bytes>,
    /// What events wait for, so that those of a burst go out together.
    burst: Burst,
    failed: Option<Failure>,
    /// What the provider was asked with.
    keyed: Option<Arc<Keyed>>,
    /// Whether everything went to the caller that was decoded. Not so where it left before.
    relayed_all: bool,
    /// What is said at the very end, where the headers could not say it.
    closing: Option<Bytes>,
    /// What the last bytes wait for: the record in the journal.
    journaled: Option<BoxFuture<'static, ()>>,
    /// When the journal hears next how far the stream has come.
    progress_due: Instant,
    clock: StreamClock,
    /// For whom it is, in logs and traces. The request's first span ends with the stream.
    ambient: Ambient,
}

/// The time limits of a stream behind one timer.
struct StreamClock {
    timer: Pin<Box<Sleep>>,
    last_event: Instant,
    last_sent: Instant,
    idle: Duration,
    keep_alive: Duration,
    deadline: Instant,
    total: Duration,
    stop: CancellationToken,
}

/// What the clock says.
enum Due {
    Nothing,
    KeepAlive,
    Failed(Failure),
}

impl Relay {
    /// A stream from its commit point on.
    pub(super) fn new(
        opened: Opened,
        before: Vec<AttemptFailure>,
        deployment: Arc<Deployment>,
        meter: Meter,
        pipeline: &Pipeline,
    ) -> Self {
        let now = Instant::now();
        let clock = StreamClock {
            timer: Box::pin(tokio::time::sleep_until(now + TICK)),
            last_event: now,
            last_sent: now,
            idle: opened.idle,
            keep_alive: pipeline.limits.keep_alive,
            deadline: opened.deadline,
            total: deployment.timeouts.total,
            stop: pipeline.stop.clone(),
        };
        Self {
            id: meter.id(),
            voice: meter.voice(),
            metrics: pipeline.metrics.clone(),
            ambient: meter.ambient().clone(),
            meter: Some(meter),
            deployment,
            before,
            decoder: opened.decoder,
            body: opened.body,
            out: Relayed::default(),
            ready: Some(opened.first),
            burst: Burst::default(),
            failed: opened.failed,
            keyed: opened.keyed,
            relayed_all: true,
            closing: None,
            journaled: None,
            progress_due: now + PROGRESS,
            clock,
        }
    }

    /// The meter, while the stream is not settled.
    pub(super) fn meter(&self) -> Option<&Meter> {
        self.meter.as_ref()
    }

    /// Says who answered at the end of the stream, because its headers could not.
    pub(super) fn say_at_the_end(&mut self, comment: Bytes) {
        self.closing = Some(comment);
    }

    fn partial(&self) -> Partial {
        Partial {
            usage: self.decoder.usage(),
            generated: self.decoder.generated(),
            complete: false,
        }
    }

    /// The answer is complete. Gives the last bytes, if there are any.
    fn complete(&mut self) -> Option<Bytes> {
        let mut meter = self.meter.take()?;
        meter.answered(self.decoder.usage(), self.decoder.generated());
        if self.relayed_all {
            meter.keep_stream();
        }
        let written = meter.finish(None);
        self.hold_until(written);
        self.closing.take()
    }

    /// Lets the journal know how far the stream has come, now and then: what a process that is killed leaves uncharged.
    fn note_progress(&mut self) {
        let now = self.clock.last_sent;
        if now < self.progress_due {
            return;
        }
        self.progress_due = now + PROGRESS;
        let partial = self.partial();
        if let Some(meter) = &mut self.meter {
            meter.came_so_far(partial);
        }
    }

    /// Keeps back what comes next until the journal has this.
    fn hold_until(&mut self, written: Option<Written>) {
        let Some(written) = written else { return };
        let step = self.ambient.span(|| span::JOURNAL.to_owned(), Kind::Internal);
        if written.is_reached() {
            return step.end();
        }
        let reached = async move {
            written.reached().await;
            step.end();
        };
        self.journaled = Some(reached.boxed());
    }

    /// The stream failed: the caller is told in its dialect, and never gets an end that looks proper.
    fn fail(&mut self, mut failure: Failure) -> Option<Bytes> {
        if let Some(keyed) = &self.keyed {
            hide(&keyed.endpoint.credential, &mut failure);
        }
        let partial = self.partial();
        let mut meter = self.meter.take()?;
        let class = failure.class;
        meter.failed(class, failure.retry_after, Some(partial));
        let mut attempts = std::mem::take(&mut self.before);
        attempts.push(described(failure, &self.deployment, meter.upstream_request_id()));
        let event = (self.voice.event)(&GatewayError::Exhausted { attempts }, self.id);
        let written = meter.finish(Some(class));
        self.hold_until(written);
        // The rest of the provider's answer is of no use to anybody: closing the connection stops it.
        self.body = AnswerBody::Builtin(None);
        Some(event)
    }

    /// Our own code broke in the middle of the stream. The caller is told, and what it got is settled.
    fn panicked(&mut self) -> Bytes {
        self.metrics.panics.inc();
        if let Some(mut meter) = self.meter.take() {
            // It may be the decoder that broke; then it is not to be relied on for what it counted.
            let partial = catch_unwind(AssertUnwindSafe(|| self.partial())).unwrap_or_default();
            meter.failed(ErrorClass::Internal, None, Some(partial));
            drop(meter.finish(Some(ErrorClass::Internal)));
        }
        self.body = AnswerBody::Builtin(None);
        self.out = Relayed::default();
        self.ready = None;
        self.failed = None;
        (self.voice.event)(&GatewayError::internal("relaying a stream panicked"), self.id)
    }

    /// Lets the provider close the stream, so that its connection goes back to the pool.
    fn see_it_closed(&mut self) {
        let mut body = std::mem::replace(&mut self.body, AnswerBody::Builtin(None));
        if matches!(body, AnswerBody::Network(_)) {
            tokio::spawn(async move {
                let rest = async { while let Some(Ok(_)) = body.next().await {} };
                let _ = tokio::time::timeout(CLOSE_GRACE, rest).await;
            });
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(journaled) = &mut self.journaled {
                ready!(journaled.as_mut().poll(cx));
                self.journaled = None;
            }
            if let Some(bytes) = self.ready.take() {
                if let Some(meter) = &mut self.meter {
                    meter.relayed(&bytes);
                }
                // Who has the end of an answer has it in the ledger, exact: so it is settled before the end is handed over.
                if self.meter.is_some() && self.failed.is_none() && self.decoder.is_complete() {
                    self.see_it_closed();
                    let closing = self.complete();
                    self.ready = Some(joined(bytes, closing));
                    continue;
                }
                self.clock.event_sent();
                self.note_progress();
                return Poll::Ready(Some(bytes));
            }
            if let Some(failure) = self.failed.take() {
                self.ready = self.fail(failure);
                continue;
            }
            if self.meter.is_none() {
                return Poll::Ready(None);
            }
            match self.body.poll_bytes(cx) {
                Poll::Ready(Some(Ok(bytes))) => {
                    self.clock.last_event = Instant::now();
                    self.failed = self.decoder.feed(bytes, &mut self.out).err();
                    if self.failed.is_some() || self.out.bytes.len() >= WRITE_AT {
                        self.take_out();
                    }
                }
                Poll::Pending if !self.out.bytes.is_empty() => {
                    ready!(self.burst.poll_over(self.out.bytes.len(), cx));
                    self.take_out();
                }
                Poll::Ready(Some(Err(_)) | None) if !self.out.bytes.is_empty() && self.decoder.is_complete() => {
                    self.take_out();
                    self.body = AnswerBody::Builtin(None);
                }
                // What breaks after the answer was complete is no concern of the caller's.
                Poll::Ready(Some(Err(_)) | None) if self.decoder.is_complete() => self.ready = self.complete(),
                Poll::Ready(Some(Err(failure))) => {
                    self.take_out();
                    self.failed = Some(failure);
                }
                Poll::Ready(None) => match self.decoder.end(&mut self.out) {
                    Ok(()) => {
                        self.take_out();
                        self.body = AnswerBody::Builtin(None);
                        if self.ready.is_none() {
                            self.ready = self.complete();
                        }
                    }
                    Err(failure) => {
                        self.take_out();
                        self.failed = Some(failure);
                    }
                },
                Poll::Pending if self.decoder.is_complete() => {
                    self.see_it_closed();
                    self.ready = self.complete();
                }
                Poll::Pending => match self.clock.poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Due::Nothing) => {}
                    Poll::Ready(Due::KeepAlive) => return Poll::Ready(Some(Bytes::from_static(self.voice.keep_alive))),
                    Poll::Ready(Due::Failed(failure)) => self.failed = Some(failure),
                },
            }
        }
    }

    fn take_out(&mut self) {
        if !self.out.bytes.is_empty() {
            self.ready = Some(self.out.bytes.split().freeze());
            self.burst.taken();
        }
    }
}

/// The last bytes of an answer with what is said behind them.
fn joined(bytes: Bytes, closing: Option<Bytes>) -> Bytes {
    match closing {
        None => bytes,
        Some(closing) => [bytes, closing].concat().into(),
    }
}

impl Stream for Relay {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let ambient = self.ambient.clone();
        let polled = ambient.enter(|| catch_unwind(AssertUnwindSafe(|| self.poll_event(cx))));
        polled
            .unwrap_or_else(|_panic| Poll::Ready(Some(self.panicked())))
            .map(|event| event.map(Ok))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if self.meter.is_none() {
            return;
        }
        // The caller had everything; that it went before it was told so changes nothing.
        if self.decoder.is_complete() {
            self.relayed_all = false;
            self.complete();
            return;
        }
        let partial = self.partial();
        if let Some(meter) = self.meter.take() {
            meter.left(partial);
        }
    }
}

impl StreamClock {
    fn event_sent(&mut self) {
        self.last_sent = Instant::now();
    }

    /// Waits until something is due. The timer is only set anew when it fires: setting it for every event would cost
    /// more than relaying one.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        if self.timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let now = Instant::now();
        let due = if now >= self.deadline {
            Due::Failed(too_slow(self.total))
        } else if now >= self.last_event + self.idle {
            let silence = format!(
                "sent nothing for {} s in the middle of its answer",
                self.idle.as_secs_f64()
            );
            Due::Failed(Failure::new(ErrorClass::Timeout, silence))
        } else if self.stop.is_cancelled() {
            Due::Failed(cut_off())
        } else if now >= self.last_sent + self.keep_alive {
            self.last_sent = now;
            Due::KeepAlive
        } else {
            Due::Nothing
        };
        let next = (self.last_event + self.idle)
            .min(self.last_sent + self.keep_alive)
            .min(self.deadline)
            .min(now + TICK);
        self.timer.as_mut().reset(next);
        Poll::Ready(due)
    }
}

#[cfg(test)]
mod tests;
