//! What is remembered of a request's prompt and answer, for organizations that want them kept. It leaves with the meter,
//! however the request ends.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::domain::ids::{OrganizationId, RequestId};
use crate::gates::payloads::{MAX_PART_BYTES, Payload, PayloadGate};
use crate::routing::document::LoggingTerms;

/// A payload in the making.
pub(super) struct Capture {
    gate: Arc<PayloadGate>,
    payload: Option<Payload>,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It holds a prompt.
        f.write_str("Capture")
    }
}

impl Capture {
    /// Begins with the body of a request.
    pub(super) fn new(
        gate: Arc<PayloadGate>,
        (organization, request, at): (OrganizationId, RequestId, DateTime<Utc>),
        terms: &LoggingTerms,
        prompt: &Bytes,
        stream: bool,
    ) -> Self {
        let payload = Payload {
            organization,
            request,
            at,
            keep: terms.keep,
            redaction: terms.redaction,
            truncated: prompt.len() > MAX_PART_BYTES,
            prompt: prompt.slice(..prompt.len().min(MAX_PART_BYTES)),
            answer: Vec::new(),
            stream,
        };
        Self {
            gate,
            payload: Some(payload),
        }
    }

    /// A part of the answer.
    pub(super) fn answered(&mut self, bytes: &[u8]) {
        let Some(payload) = &mut self.payload else { return };
        let room = MAX_PART_BYTES - payload.answer.len();
        payload.truncated |= bytes.len() > room;
        payload.answer.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Some(payload) = self.payload.take() {
            self.gate.offer(payload);
        }
    }
}
