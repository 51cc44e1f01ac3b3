//! One attempt at one deployment, up to the point where the caller can be told something.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::meter::Meter;
use super::{Pipeline, PipelineLimits};
use crate::chat::request::Request;
use crate::domain::call::ErrorClass;
use crate::providers::adapter::{Decoder, Failure, Relayed, Target};
use crate::routing::catalog::Deployment;
use crate::upstream::answer::{Answer, AnswerBody};
use crate::upstream::endpoint::Endpoint;

/// Bytes of an error answer that are read; the rest is somebody's web page.
const MAX_ERROR_BYTES: usize = 256 * 1024;

/// A stream whose first events are here: handing them over is the commit point.
pub(super) struct Opened {
    /// The first events.
    pub first: Bytes,
    /// Where the others come from.
    pub body: AnswerBody,
    /// Understands them.
    pub decoder: Box<dyn Decoder>,
    /// What went wrong right behind the first events.
    pub failed: Option<Failure>,
    /// Silence after which the stream counts as dead.
    pub idle: Duration,
    /// When the attempt must be over.
    pub deadline: Instant,
}

impl Pipeline {
    /// Asks a deployment for a whole answer.
    pub(super) async fn attempt_whole(
        &self,
        request: &Request,
        deployment: &Deployment,
        endpoint: &Endpoint,
        meter: &mut Meter,
    ) -> Result<Bytes, Failure> {
        let deadline = Instant::now() + deployment.timeouts.total;
        let work = async {
            let answer = self.ask(request, deployment, endpoint, meter).await?;
            let body = answer.body.whole(self.limits.max_answer_bytes).await?;
            endpoint.adapter.whole(request, body)
        };
        let answer = timeout_at(deadline, work)
            .await
            .unwrap_or_else(|_| Err(too_slow(deployment.timeouts.total)))?;
        meter.answered(answer.usage, answer.generated);
        Ok(answer.body)
    }

    /// Asks a deployment for a stream and waits for its first event.
    pub(super) async fn attempt_stream(
        &self,
        request: &Request,
        deployment: &Deployment,
        endpoint: &Endpoint,
        meter: &mut Meter,
    ) -> Result<Opened, Failure> {
        let started = Instant::now();
        let deadline = started + deployment.timeouts.total;
        let patience = deployment.timeouts.first_token.min(deployment.timeouts.total);
        let work = async {
            let answer = self.ask(request, deployment, endpoint, meter).await?;
            if !answer.is_event_stream() {
                return Err(not_a_stream(request, endpoint, answer, &self.limits).await);
            }
            let mut body = answer.body;
            let mut decoder = endpoint.adapter.decoder(request, self.limits.stream);
            let mut out = Relayed::default();
            loop {
                let step = match body.next().await {
                    Some(Ok(bytes)) => decoder.feed(bytes, &mut out),
                    Some(Err(failure)) => Err(failure),
                    None => match decoder.end(&mut out) {
                        Ok(()) => Err(Failure::new(ErrorClass::Malformed, "ended its stream without an event")),
                        Err(failure) => Err(failure),
                    },
                };
                if !out.bytes.is_empty() {
                    let first = out.bytes.split().freeze();
                    let idle = deployment.timeouts.idle;
                    return Ok(Opened {
                        first,
                        body,
                        decoder,
                        failed: step.err(),
                        idle,
                        deadline,
                    });
                }
                step?;
            }
        };
        timeout_at(started + patience, work)
            .await
            .unwrap_or_else(|_| Err(too_slow(patience)))
    }

    /// Sends the request and reads an answer of any status but 200 as the failure it is.
    async fn ask(
        &self,
        request: &Request,
        deployment: &Deployment,
        endpoint: &Endpoint,
        meter: &mut Meter,
    ) -> Result<Answer, Failure> {
        if let Some(body) = endpoint.adapter.builtin(request) {
            return Ok(Answer::builtin(body, request.stream));
        }
        let target = Target {
            wire_name: &deployment.wire_name,
            reasoning: deployment.capabilities.reasoning.unwrap_or(false),
        };
        let wire = endpoint.adapter.encode(request, &target).map_err(|fault| {
            let mut failure = Failure::new(ErrorClass::InvalidRequest, fault.problem);
            failure.param = fault.field;
            failure
        })?;
        let answer = self
            .upstream
            .send(endpoint, wire, request.stream, meter.sent_mark())
            .await?;
        meter.head(answer.status.as_u16(), endpoint.adapter.request_id(&answer.headers));
        answer.check_encoding()?;
        if answer.status.as_u16() == 200 {
            return Ok(answer);
        }
        let body = answer.body.whole(MAX_ERROR_BYTES).await.unwrap_or_default();
        Err(endpoint.adapter.failure(answer.status, &answer.headers, &body))
    }
}

/// A whole answer where a stream was asked for: an error in disguise, or a provider that does not stream.
async fn not_a_stream(request: &Request, endpoint: &Endpoint, answer: Answer, limits: &PipelineLimits) -> Failure {
    let Ok(body) = answer.body.whole(limits.max_answer_bytes).await else {
        return Failure::new(
            ErrorClass::Malformed,
            "answered a request for a stream with something else",
        );
    };
    match endpoint.adapter.whole(request, body) {
        Err(failure) => failure,
        Ok(_) => Failure::new(
            ErrorClass::Malformed,
            "answered a request for a stream with a whole answer",
        ),
    }
}

pub(super) fn too_slow(limit: Duration) -> Failure {
    Failure::new(
        ErrorClass::Timeout,
        format!("did not answer within {} s", limit.as_secs_f64()),
    )
}
