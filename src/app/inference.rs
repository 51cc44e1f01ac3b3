//! Requests of jobs, served by the pipeline as if they had come over HTTP.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use tokio::time::Instant;
use uuid::Uuid;

use crate::chat::request::DialectHeaders;
use crate::domain::batch::Holder;
use crate::domain::caching::CacheControl;
use crate::domain::call::Operation;
use crate::domain::error::{BoxError, GatewayError};
use crate::domain::ids::RequestId;
use crate::gates::inference::{Inference, Served};
use crate::gates::key_gate::KeyGate;
use crate::gates::keyring::Keyring;
use crate::http::error::{OPENAI_VOICE, response};
use crate::pipeline::{AnswerBody, Call, Pipeline};
use crate::store::{Store, within};
use crate::telemetry::trace::Ambient;

/// How long looking a key up may take.
const LOOK_UP: Duration = Duration::from_secs(5);
/// How often a key that changes while we look at it is looked up again.
const MAX_LOOKS: usize = 5;
/// The shortest wait, and the longest, before a limited request is tried again: whoever cancels a batch wants to see it.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(20));

/// How long to wait where nobody knows.
const UNKNOWN: Duration = Duration::from_secs(1);

/// The pipeline, for jobs.
pub struct PipelineInference {
    /// Serves.
    pub pipeline: Arc<Pipeline>,
    /// Knows the keys by their hashes.
    pub keyring: Arc<Keyring>,
    /// Knows the hashes.
    pub store: Store,
}

impl PipelineInference {
    /// The key's gate, if it may be used now.
    async fn gate(&self, holder: Holder) -> Result<Option<Arc<KeyGate>>, BoxError> {
        for _ in 0..MAX_LOOKS {
            let hash = within(LOOK_UP, self.store.hash_of_key(holder.organization, holder.key)).await?;
            let Some(hash) = hash else { return Ok(None) };
            match self.keyring.gate(hash).await.map_err(|error| error.to_string())? {
                Some(gate) if gate.is_closed() => self.keyring.forget(&hash).await,
                Some(gate) if gate.admits(&hash, Utc::now()) => return Ok(Some(gate)),
                _ => return Ok(None),
            }
        }
        Err("a key changes faster than it can be looked up".into())
    }
}

#[async_trait::async_trait]
impl Inference for PipelineInference {
    async fn serve(&self, holder: Holder, operation: Operation, body: Bytes) -> Result<Served, BoxError> {
        let id = RequestId(Uuid::now_v7());
        let Some(gate) = self.gate(holder).await? else {
            return Ok(said(&GatewayError::Unauthenticated, id).await);
        };
        let place = match self.pipeline.enter().await {
            Ok(place) => place,
            Err(refusal) => return Ok(said(&refusal, id).await),
        };
        let call = Call {
            id,
            received: Instant::now(),
            admitted_at: Utc::now(),
            gate,
            operation,
            voice: OPENAI_VOICE,
            headers: DialectHeaders::default(),
            visible_headers: Vec::new(),
            cache_control: CacheControl::default(),
        };
        let mut meter = match self.pipeline.admit(call) {
            Ok(meter) => meter,
            Err(refusal) => return Ok(said(&refusal, id).await),
        };
        meter.hold(place);
        let ambient = Ambient::here().of_request(id);
        match ambient.scope(self.pipeline.clone().run(meter, body)).await {
            Ok(answer) => match answer.body {
                AnswerBody::Whole(body) => Ok(Served::Answered {
                    id,
                    status: 200,
                    body,
                    may_pass: false,
                }),
                // Dropped, which ends it: lines that ask for a stream are refused before they come here.
                AnswerBody::Stream(_) => {
                    let refusal = GatewayError::invalid("stream", "a batch has no streams");
                    Ok(said(&refusal, id).await)
                }
            },
            Err(refusal) => Ok(said(&refusal, id).await),
        }
    }
}

/// A refusal as it would be said over HTTP, or how long to wait where that helps.
async fn said(refusal: &GatewayError, id: RequestId) -> Served {
    let wait = match refusal {
        // What is under way ends at some time that nobody knows.
        GatewayError::Limited(reached) => Some(reached.retry_after.unwrap_or(UNKNOWN)),
        GatewayError::Overloaded { retry_after }
        | GatewayError::Uncounted { retry_after }
        | GatewayError::KeyUnchecked { retry_after } => Some(*retry_after),
        _ => None,
    };
    if let Some(wait) = wait {
        return Served::Wait(wait.clamp(WAITS.0, WAITS.1));
    }
    let response = response(refusal, id);
    let status = response.status().as_u16();
    let body = response.into_body().into_bytes().await.unwrap_or_default();
    let may_pass = matches!(refusal, GatewayError::Exhausted { .. }) && (status == 429 || status >= 500);
    Served::Answered {
        id,
        status,
        body,
        may_pass,
    }
}
