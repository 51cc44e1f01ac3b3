//! Keeps prompts and answers for organizations that want it: takes out what is not to be kept, seals the rest, and writes
//! it in batches, beside the requests.

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::domain::error::BoxError;
use crate::domain::ids::{OrganizationId, RequestId};
use crate::gates::control::{KeptPayload, PayloadReader};
use crate::gates::payloads::{Payload, Payloads};
use crate::secrets::payload_seal::PayloadSeal;
use crate::store::payloads::SealedPayload;
use crate::store::{Store, within};
use crate::telemetry::metrics::Metrics;

/// Payloads of one statement.
const AT_ONCE: usize = 64;
/// How long writing them may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often they are tried again, and after which waits. Then they are dropped and counted: they are no bill.
const RETRIES: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// Writes payloads until nobody can hand any over any more.
pub fn keep(
    mut payloads: Payloads,
    store: Store,
    seal: PayloadSeal,
    metrics: std::sync::Arc<Metrics>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let batch = payloads.next(AT_ONCE).await;
            if batch.is_empty() {
                return;
            }
            let (count, seal) = (batch.len(), seal.clone());
            let bytes = batch.iter().map(Payload::bytes).sum();
            // Redacting and sealing some megabytes takes milliseconds, which no request should wait for.
            let sealed = tokio::task::spawn_blocking(move || {
                let sealed = batch.into_iter().filter_map(|payload| sealed(payload, &seal));
                sealed.collect::<Vec<_>>()
            });
            let rows = sealed.await.unwrap_or_default();
            let lost = count - rows.len();
            let written = write(&store, rows).await;
            let dropped = if written { lost } else { count };
            metrics.payloads_dropped.inc_by(dropped as u64);
            payloads.done(bytes);
        }
    })
}

async fn write(store: &Store, rows: Vec<SealedPayload>) -> bool {
    let mut waits = RETRIES.into_iter();
    loop {
        match (
            within(WRITE_TIMEOUT, store.keep_payloads(rows.clone())).await,
            waits.next(),
        ) {
            (Ok(()), _) => return true,
            (Err(error), None) => {
                tracing::warn!(%error, payloads = rows.len(), "payloads could not be written and are dropped");
                return false;
            }
            (Err(_), Some(wait)) => sleep(wait).await,
        }
    }
}

fn sealed(payload: Payload, seal: &PayloadSeal) -> Option<SealedPayload> {
    let keep = TimeDelta::from_std(payload.keep).ok()?;
    let body = written(&payload).to_string().into_bytes();
    Some(SealedPayload {
        organization: payload.organization,
        request: payload.request,
        created_at: payload.at,
        expires_at: payload.at.checked_add_signed(keep)?,
        sealed: seal.seal(payload.organization, payload.request, &body),
    })
}

/// What is kept of a payload.
fn written(payload: &Payload) -> Value {
    let redaction = payload.redaction;
    let text = |bytes: &[u8]| redaction.apply(&String::from_utf8_lossy(bytes)).into_owned();
    // What is to be taken out may be spread over the events of a stream, so what they say is put together first.
    let answer = match payload.stream && redaction.is_any() {
        true => redaction.apply(&said(&payload.answer)).into_owned(),
        false => text(&payload.answer),
    };
    json!({"request": text(&payload.prompt), "answer": answer, "truncated": payload.truncated})
}

/// The texts that the events of a stream say, one behind the other.
fn said(stream: &[u8]) -> String {
    let mut said = String::new();
    for line in String::from_utf8_lossy(stream).lines() {
        let data = line.strip_prefix("data:").map(str::trim);
        if let Some(event) = data.and_then(|data| serde_json::from_str::<Value>(data).ok()) {
            collect(&event, &mut said);
        }
    }
    said
}

/// Members of events that hold what a model says, in either dialect. Events were parsed, so their depth is bounded.
fn collect(value: &Value, said: &mut String) {
    const TEXTS: [&str; 8] = [
        "content",
        "text",
        "thinking",
        "reasoning_content",
        "refusal",
        "arguments",
        "partial_json",
        "message",
    ];
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(text) if TEXTS.contains(&name.as_str()) => said.push_str(text),
                    other => collect(other, said),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, said)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Reads what was kept.
pub struct SealedPayloads {
    /// Where it is.
    pub store: Store,
    /// What opens it.
    pub seal: PayloadSeal,
}

#[async_trait::async_trait]
impl PayloadReader for SealedPayloads {
    async fn payload(&self, organization: OrganizationId, request: RequestId) -> Result<Option<KeptPayload>, BoxError> {
        let found = within(WRITE_TIMEOUT, self.store.payload(organization, request)).await?;
        let Some(found) = found else { return Ok(None) };
        let opened = self.seal.open(organization, request, &found.sealed);
        let opened =
            opened.ok_or("a payload cannot be opened: it is damaged, or was sealed with another master key")?;
        let document: Value = serde_json::from_slice(&opened)?;
        let text = |name: &str| document[name].as_str().unwrap_or_default().to_owned();
        Ok(Some(KeptPayload {
            request: text("request"),
            answer: text("answer"),
            truncated: document["truncated"].as_bool().unwrap_or(false),
            created_at: found.created_at,
            expires_at: found.expires_at,
        }))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chrono::Utc;
    use uuid::Uuid;

    use super::*;
    use crate::domain::redaction::Redaction;

    #[test]
    fn what_is_spread_over_the_events_of_a_stream_is_taken_out_as_well() {
        let event = |text: &str| format!("data: {}\n\n", json!({"choices": [{"delta": {"content": text}}]}));
        let stream = [
            event("write to ada@exa"),
            event("mple.com now"),
            "data: [DONE]\n\n".to_owned(),
        ]
        .concat();
        let payload = |redaction| Payload {
            organization: OrganizationId(Uuid::nil()),
            request: RequestId(Uuid::nil()),
            at: Utc::now(),
            keep: Duration::ZERO,
            redaction,
            prompt: Bytes::from_static(b"{\"model\":\"m\",\"user\":\"ada@example.com\"}"),
            answer: stream.clone().into_bytes(),
            stream: true,
            truncated: false,
        };
        let emails = Redaction {
            emails: true,
            ..Redaction::default()
        };
        let kept = written(&payload(emails));
        assert_eq!(kept["answer"], "write to [email] now");
        assert_eq!(kept["request"], "{\"model\":\"m\",\"user\":\"[email]\"}");
        let kept = written(&payload(Redaction::default()));
        assert_eq!(
            kept["answer"],
            json!(stream),
            "as it was, where nothing is to be taken out"
        );
    }
}
