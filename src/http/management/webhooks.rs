//! `/api/gateway/webhooks`: where the organization wants to be told of events, and what was sent there.

use std::time::Duration;

use chrono::{DateTime, Utc};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use secrecy::zeroize::Zeroizing;
use uuid::Uuid;

use super::Section;
use super::auth::{May, ReadWebhooks, WebhookChange, WriteWebhooks};
use super::examples::example;
use super::page::page;
use super::problem::{Act, Read, Refused, Write};
use crate::domain::webhook::{self, DeliveryState, WebhookTerms};
use crate::secrets::webhook::message_id;

/// Items of one page.
const PAGE: u64 = 50;
/// How long a secret that was replaced goes on signing, unless somebody says otherwise: a day.
const OVERLAP_S: u64 = 86_400;

/// The handlers.
pub struct WebhooksApi;

/// A webhook to be created.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct NewWebhook {
    /// Where events are sent: an `https` URL of a public address.
    #[oai(validator(max_length = 2048))]
    url: String,
    /// What it is for.
    #[oai(validator(max_length = 1024))]
    description: Option<String>,
    /// The events it wants, such as `budget.threshold`. Default: all.
    #[oai(validator(max_items = 32))]
    events: Option<Vec<String>>,
    /// Whether events are sent. Default: true.
    enabled: Option<bool>,
}

example!(NewWebhook, {
    "url": "https://hooks.example.com/bonito", "description": "Budgets to the on-call channel",
    "events": ["budget.threshold", "provider.down"]
});

/// What is to change; what is not named stays.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct ChangedWebhook {
    /// Where events are sent.
    #[oai(validator(max_length = 2048))]
    url: Option<String>,
    /// What it is for.
    #[oai(validator(max_length = 1024))]
    description: Option<String>,
    /// The events it wants; an empty list: all.
    #[oai(validator(max_items = 32))]
    events: Option<Vec<String>>,
    /// Whether events are sent. One that was switched off by the gateway can be switched on again.
    enabled: Option<bool>,
}

example!(ChangedWebhook, {"events": ["budget.threshold"], "enabled": true});

/// How a secret is replaced.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct SecretRotation {
    /// Seconds for which events are signed with the old secret as well. Default: a day.
    #[oai(validator(maximum(value = "2592000")))]
    overlap_s: Option<u64>,
}

example!(SecretRotation, {"overlap_s": 86400});

/// A webhook.
#[derive(Object)]
#[oai(example)]
struct Webhook {
    /// Its id.
    id: Uuid,
    /// Where events are sent.
    url: String,
    /// What it is for.
    description: String,
    /// The events it wants; an empty list: all.
    events: Vec<String>,
    /// Whether events are sent.
    enabled: bool,
    /// Why they are not, where the gateway decided so.
    #[oai(skip_serializing_if_is_none)]
    disabled_reason: Option<String>,
    /// Since when its endpoint has failed without a success.
    #[oai(skip_serializing_if_is_none)]
    failing_since: Option<DateTime<Utc>>,
    /// Until when events are signed with the secret before this one as well.
    #[oai(skip_serializing_if_is_none)]
    old_secret_until: Option<DateTime<Utc>>,
    /// The secret, `whsec_…`. Shown once, when it is new.
    #[oai(skip_serializing_if_is_none)]
    secret: Option<String>,
    /// When it was created.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
}

example!(Webhook, {
    "id": "0199e1c2-b6f1-7086-93c4-7a2d5e8f1b09", "url": "https://hooks.example.com/bonito",
    "description": "Budgets to the on-call channel", "events": ["budget.threshold", "provider.down"],
    "enabled": true, "created_at": "2026-11-02T09:00:00Z", "updated_at": "2026-11-02T09:00:00Z"
});

/// Webhooks.
#[derive(Object)]
struct Webhooks {
    /// The webhooks, oldest first.
    data: Vec<Webhook>,
    /// Where the next page begins, for `cursor`; absent on the last page.
    #[oai(skip_serializing_if_is_none)]
    next_cursor: Option<Uuid>,
}

/// How far a delivery is.
#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "snake_case")]
enum DeliveryProgress {
    /// It is sent, again if need be.
    Waiting,
    /// The endpoint has it.
    Delivered,
    /// It was given up.
    Failed,
}

/// One attempt at a delivery.
#[derive(Object)]
struct DeliveryAttempt {
    /// When.
    at: DateTime<Utc>,
    /// The status the endpoint answered with.
    #[oai(skip_serializing_if_is_none)]
    status: Option<u16>,
    /// How long it took, in milliseconds.
    latency_ms: u64,
    /// Why there was no answer.
    #[oai(skip_serializing_if_is_none)]
    error: Option<String>,
    /// The beginning of the answer.
    #[oai(skip_serializing_if_is_none)]
    excerpt: Option<String>,
}

/// One event on its way to a webhook.
#[derive(Object)]
#[oai(example)]
struct Delivery {
    /// Its id, for `replay`.
    id: Uuid,
    /// `webhook-id`: names the event, and stays the same however often it is sent.
    webhook_message_id: String,
    /// What happened.
    event: String,
    /// How far it is.
    state: DeliveryProgress,
    /// What is sent, as text.
    body: String,
    /// What came of each attempt, oldest first.
    attempts: Vec<DeliveryAttempt>,
    /// When it was written.
    created_at: DateTime<Utc>,
    /// When it was over.
    #[oai(skip_serializing_if_is_none)]
    finished_at: Option<DateTime<Utc>>,
}

example!(Delivery, {
    "id": "0199e1c2-c820-7cd1-8b75-3f6e9a0d4c57", "webhook_message_id": "msg_0199e1c2c8207cd18b753f6e9a0d4c57",
    "event": "budget.threshold", "state": "delivered",
    "body": "{\"type\":\"budget.threshold\",\"data\":{\"threshold_percent\":80}}",
    "attempts": [{"at": "2026-11-30T08:15:42Z", "status": 204, "latency_ms": 84}],
    "created_at": "2026-11-30T08:15:42Z", "finished_at": "2026-11-30T08:15:42Z"
});

/// Deliveries.
#[derive(Object)]
struct Deliveries {
    /// The deliveries, newest first.
    data: Vec<Delivery>,
    /// Where the next page begins, for `cursor`; absent on the last page.
    #[oai(skip_serializing_if_is_none)]
    next_cursor: Option<Uuid>,
}

/// Something new.
#[derive(ApiResponse)]
enum Created {
    /// It was created. The secret is not shown again.
    #[oai(status = 201)]
    Webhook(Json<Webhook>),
}

/// Something that will be sent.
#[derive(ApiResponse)]
enum Sending {
    /// It is on its way.
    #[oai(status = 202)]
    Delivery(Json<Delivery>),
}

/// Something that is gone.
#[derive(ApiResponse)]
enum Deleted {
    /// It was deleted.
    #[oai(status = 204)]
    Deleted,
}

#[OpenApi(prefix_path = "/api/gateway/webhooks", tag = "Section::Webhooks")]
impl WebhooksApi {
    /// List webhooks
    ///
    /// Oldest first, without their secrets.
    #[oai(path = "/", method = "get", operation_id = "listWebhooks")]
    async fn list(
        &self,
        may: May<ReadWebhooks>,
        /// Webhooks of one page.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<Uuid>>,
    ) -> Result<Json<Webhooks>, Refused<Read>> {
        let limit = limit.0.unwrap_or(PAGE);
        let (found, next_cursor) = page(may.webhooks(cursor.0, limit + 1).await?, limit, |last| last.id);
        Ok(Json(Webhooks {
            next_cursor,
            data: found.into_iter().map(|webhook| shown(webhook, None)).collect(),
        }))
    }

    /// Create a webhook
    ///
    /// Events are sent as POST requests in the form of Standard Webhooks (https://www.standardwebhooks.com): `webhook-id`,
    /// `webhook-timestamp`, and `webhook-signature`, which is made with the secret that is answered here this once. An event
    /// is sent at least once, always with the same `webhook-id`; the order of events is not promised. An answer of 2xx is a
    /// success; anything else is tried again with growing waits for a day and a half. 410 switches the webhook off, and so do
    /// five days without a success.
    #[oai(path = "/", method = "post", operation_id = "createWebhook")]
    async fn create(&self, may: May<WriteWebhooks>, webhook: Json<NewWebhook>) -> Result<Created, Refused<Write>> {
        let webhook = webhook.0;
        let (webhook, secret) = may
            .create(&WebhookTerms {
                url: webhook.url,
                description: webhook.description.unwrap_or_default(),
                events: webhook.events.unwrap_or_default(),
                enabled: webhook.enabled.unwrap_or(true),
            })
            .await?;
        Ok(Created::Webhook(Json(shown(webhook, Some(secret)))))
    }

    /// One webhook
    ///
    /// Without its secret, which is shown only when it is made. It says since when nothing has arrived, and why it was disabled.
    #[oai(path = "/:id", method = "get", operation_id = "getWebhook")]
    async fn get(
        &self,
        may: May<ReadWebhooks>,
        /// Its id.
        id: Path<Uuid>,
    ) -> Result<Json<Webhook>, Refused<Read>> {
        Ok(Json(shown(may.webhook(id.0).await?, None)))
    }

    /// Change a webhook
    ///
    /// What is left out stays. The secret is changed by an operation of its own, so that nothing is lost meanwhile.
    #[oai(path = "/:id", method = "patch", operation_id = "changeWebhook")]
    async fn change(
        &self,
        may: May<WriteWebhooks>,
        /// Its id.
        id: Path<Uuid>,
        change: Json<ChangedWebhook>,
    ) -> Result<Json<Webhook>, Refused<Write>> {
        let change = change.0;
        let change = WebhookChange {
            url: change.url,
            description: change.description,
            events: change.events,
            enabled: change.enabled,
        };
        Ok(Json(shown(may.change(id.0, change).await?, None)))
    }

    /// Delete a webhook
    ///
    /// With the log of its deliveries. What was not sent yet never will be.
    #[oai(path = "/:id", method = "delete", operation_id = "deleteWebhook")]
    async fn delete(
        &self,
        may: May<WriteWebhooks>,
        /// Its id.
        id: Path<Uuid>,
    ) -> Result<Deleted, Refused<Act>> {
        may.delete(id.0).await?;
        Ok(Deleted::Deleted)
    }

    /// Replace its secret
    ///
    /// The new one is answered this once. For a while events carry two signatures, so that receivers can change over.
    #[oai(path = "/:id/rotate", method = "post", operation_id = "rotateWebhook")]
    async fn rotate(
        &self,
        may: May<WriteWebhooks>,
        /// Its id.
        id: Path<Uuid>,
        rotation: Json<SecretRotation>,
    ) -> Result<Json<Webhook>, Refused<Write>> {
        let overlap = Duration::from_secs(rotation.0.overlap_s.unwrap_or(OVERLAP_S));
        let (webhook, secret) = may.rotate(id.0, overlap).await?;
        Ok(Json(shown(webhook, Some(secret))))
    }

    /// Send a test event
    ///
    /// `webhook.test` is sent like any other event, also while the webhook is switched off. Its delivery says what came of it.
    #[oai(path = "/:id/test", method = "post", operation_id = "testWebhook")]
    async fn test(
        &self,
        may: May<WriteWebhooks>,
        /// Its id.
        id: Path<Uuid>,
    ) -> Result<Sending, Refused<Act>> {
        Ok(Sending::Delivery(Json(sent(may.test(id.0).await?))))
    }

    /// List deliveries
    ///
    /// What was sent to a webhook or will be, newest first, with what came of each attempt. Kept for thirty days.
    #[oai(path = "/:id/deliveries", method = "get", operation_id = "listWebhookDeliveries")]
    async fn deliveries(
        &self,
        may: May<ReadWebhooks>,
        /// The webhook's id.
        id: Path<Uuid>,
        /// Only deliveries in this state.
        state: Query<Option<DeliveryProgress>>,
        /// Deliveries of one page.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<Uuid>>,
    ) -> Result<Json<Deliveries>, Refused<Read>> {
        let limit = limit.0.unwrap_or(PAGE);
        let state = state.0.map(|state| match state {
            DeliveryProgress::Waiting => DeliveryState::Waiting,
            DeliveryProgress::Delivered => DeliveryState::Delivered,
            DeliveryProgress::Failed => DeliveryState::Failed,
        });
        let (found, next_cursor) = page(may.deliveries(id.0, state, cursor.0, limit + 1).await?, limit, |last| {
            last.id
        });
        Ok(Json(Deliveries {
            next_cursor,
            data: found.into_iter().map(sent).collect(),
        }))
    }

    /// Send something once more
    ///
    /// As a new delivery with the same `webhook-id` and body.
    #[oai(
        path = "/:id/deliveries/:delivery/replay",
        method = "post",
        operation_id = "replayWebhookDelivery"
    )]
    async fn replay(
        &self,
        may: May<WriteWebhooks>,
        /// The webhook's id.
        id: Path<Uuid>,
        /// The delivery's id.
        delivery: Path<Uuid>,
    ) -> Result<Sending, Refused<Act>> {
        Ok(Sending::Delivery(Json(sent(may.replay(id.0, delivery.0).await?))))
    }
}

fn shown(webhook: webhook::Webhook, secret: Option<Zeroizing<String>>) -> Webhook {
    let now = Utc::now();
    Webhook {
        id: webhook.id,
        url: webhook.url,
        description: webhook.description,
        events: webhook.events,
        enabled: webhook.enabled,
        disabled_reason: webhook.disabled_reason,
        failing_since: webhook.failing_since,
        old_secret_until: webhook.previous_until.filter(|until| *until > now),
        secret: secret.map(|secret| secret.to_string()),
        created_at: webhook.created_at,
        updated_at: webhook.updated_at,
    }
}

fn sent(delivery: webhook::Delivery) -> Delivery {
    let attempts = delivery.attempts.into_iter().map(|attempt| DeliveryAttempt {
        at: attempt.at,
        status: attempt.status,
        latency_ms: attempt.latency_ms,
        error: attempt.error,
        excerpt: attempt.excerpt,
    });
    Delivery {
        id: delivery.id,
        webhook_message_id: message_id(delivery.event),
        event: delivery.kind,
        state: match delivery.state {
            DeliveryState::Waiting => DeliveryProgress::Waiting,
            DeliveryState::Delivered => DeliveryProgress::Delivered,
            DeliveryState::Failed => DeliveryProgress::Failed,
        },
        body: delivery.body,
        attempts: attempts.collect(),
        created_at: delivery.created_at,
        finished_at: delivery.finished_at,
    }
}
