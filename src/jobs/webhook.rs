//! Sends one event to one webhook, as Standard Webhooks has it (<https://www.standardwebhooks.com/>).
//!
//! The event's name and body are the same at each attempt; the time and so the signature are not. An answer of 2xx is a
//! success, everything else a failure, redirects included.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use http::{HeaderName, HeaderValue};
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

use crate::domain::job::JobKind;
use crate::domain::webhook::{Attempt, DeliveryState, wait_after};
use crate::queue::{Job, JobFailure, Outcome, Run};
use crate::secrets::sealing::Sealer;
use crate::secrets::webhook::{message_id, signatures};
use crate::store::Store;
use crate::store::webhooks::{Came, SwitchOff};
use crate::telemetry::names::trace::{self as names, span};
use crate::telemetry::trace::{Ambient, Kind, Propagation, Tracer};
use crate::upstream::Propagated;
use crate::upstream::fetcher::{self, Fetcher, Posted};

/// The status by which an endpoint says that it wants nothing any more.
const GONE: u16 = 410;

/// The job.
pub(super) struct WebhookDelivery {
    pub(super) store: Store,
    pub(super) fetcher: Fetcher,
    pub(super) sealer: Sealer,
    pub(super) timeout: Duration,
    /// How long an endpoint may fail before its webhook is switched off.
    pub(super) patience: Duration,
    /// Says what endpoints are told of the trace.
    pub(super) tracer: Tracer,
}

#[derive(Deserialize)]
struct Payload {
    delivery: Uuid,
}

#[async_trait::async_trait]
impl Job for WebhookDelivery {
    fn kind(&self) -> JobKind {
        JobKind::WebhookDelivery
    }

    async fn run(&self, run: &Run) -> Result<Outcome, JobFailure> {
        let Payload { delivery } = run.told()?;
        let organization = run
            .organization
            .ok_or_else(|| JobFailure::for_good("the job has no organization"))?;
        let Some(to_deliver) = self.store.to_deliver(organization, delivery).await? else {
            return Ok(Outcome::Done);
        };
        let (delivery, webhook) = (&to_deliver.delivery, &to_deliver.webhook);
        if delivery.state != DeliveryState::Waiting {
            return Ok(Outcome::Done);
        }
        if !webhook.enabled && delivery.kind != crate::domain::event::EventKind::WebhookTest.as_str() {
            self.store
                .note_attempt(run.claim, delivery, organization, None, Came::GivenUp, None)
                .await?;
            return Ok(Outcome::Done);
        }
        let mut secrets: Vec<Zeroizing<String>> = Vec::new();
        for sealed in &to_deliver.sealed_secrets {
            secrets.push(self.sealer.open_text(webhook.id.as_bytes(), sealed)?);
        }
        let (at, began) = (Utc::now(), Instant::now());
        let mut headers = headers(&secrets, &message_id(delivery.event), at.timestamp(), &delivery.body)?;
        let body = delivery.body.clone().into();
        let ambient = Ambient::here();
        let mut span = ambient.span(|| span::WEBHOOK.to_owned(), Kind::Client);
        span.set(names::HTTP_METHOD, || "POST");
        // Not the whole address: what is behind the host can be a secret.
        if span.is_recorded()
            && let Ok(address) = Url::parse(&webhook.url)
        {
            span.set_if(names::SERVER_ADDRESS, address.host_str());
            span.set_if(names::SERVER_PORT, address.port_or_known_default());
        }
        span.set(names::EVENT_KIND, || delivery.kind.as_str());
        if self.tracer.propagation() != Propagation::None {
            headers.extend(Propagated::new(span.context().or(ambient.context()), None).headers());
        }
        let posted = self.fetcher.post(&webhook.url, headers, body, self.timeout).await;
        match &posted {
            Ok(posted) => {
                span.set(names::HTTP_STATUS, || posted.status);
                if !(200..300).contains(&posted.status) {
                    span.failed(&posted.status.to_string());
                }
            }
            Err(error) => span.failed(error.reason()),
        }
        span.end();
        let mut attempt = Attempt {
            at,
            status: None,
            latency_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            error: None,
            excerpt: None,
        };
        let (failure, asked, gone) = match posted {
            Ok(Posted {
                status,
                retry_after,
                excerpt,
            }) => {
                attempt.status = Some(status);
                attempt.excerpt = Some(excerpt.replace('\0', "\u{fffd}")).filter(|text| !text.is_empty());
                let ok = (200..300).contains(&status);
                let failure = (!ok).then(|| format!("the endpoint answered {status}"));
                (failure, retry_after, status == GONE)
            }
            Err(error) => {
                let words = fetcher::words(&error);
                attempt.error = Some(words.clone());
                (Some(words), None, false)
            }
        };
        let Some(failure) = failure else {
            self.store
                .note_attempt(run.claim, delivery, organization, Some(attempt), Came::Delivered, None)
                .await?;
            return Ok(Outcome::Done);
        };
        let (came, off) = if gone {
            (Came::GivenUp, SwitchOff::Gone)
        } else {
            let came = if run.last { Came::GivenUp } else { Came::Failed };
            let patience = TimeDelta::from_std(self.patience).unwrap_or(TimeDelta::MAX);
            (came, SwitchOff::FailingFor(patience))
        };
        let off = self
            .store
            .note_attempt(run.claim, delivery, organization, Some(attempt), came, Some(off))
            .await?;
        if off {
            tracing::warn!(webhook = %webhook.id, %organization, "a webhook was switched off: {failure}");
        }
        if gone {
            return Ok(Outcome::Done);
        }
        Err(JobFailure::after(
            failure,
            wait_after(run.attempt, asked, rand::random()),
        ))
    }
}

fn headers(
    secrets: &[Zeroizing<String>],
    id: &str,
    timestamp: i64,
    body: &str,
) -> Result<Vec<(HeaderName, HeaderValue)>, JobFailure> {
    let signature = signatures(secrets.iter().map(|secret| secret.as_str()), id, timestamp, body);
    Ok(vec![
        (HeaderName::from_static("webhook-id"), HeaderValue::from_str(id)?),
        (
            HeaderName::from_static("webhook-timestamp"),
            HeaderValue::from(timestamp),
        ),
        (
            HeaderName::from_static("webhook-signature"),
            HeaderValue::from_str(&signature)?,
        ),
    ])
}
