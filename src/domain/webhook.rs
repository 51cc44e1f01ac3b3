//! Webhooks: where an organization wants to be told of events, and what came of it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::ids::OrganizationId;

/// Webhooks that an organization may have: each event is sent to all of them.
pub const MOST: u64 = 20;

/// A webhook, without its secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Webhook {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub organization: OrganizationId,
    /// Where events go.
    pub url: String,
    /// What it is for, in its owner's words.
    pub description: String,
    /// The events it wants; none named: all.
    pub events: Vec<String>,
    /// Whether events are sent.
    pub enabled: bool,
    /// Why they are not, where the gateway decided so.
    pub disabled_reason: Option<String>,
    /// Since when its endpoint has failed without a success.
    pub failing_since: Option<DateTime<Utc>>,
    /// Until when events are signed with the secret before this one, too.
    pub previous_until: Option<DateTime<Utc>>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

impl Webhook {
    /// The webhook as the audit log keeps it. The path and query of its URL may be a permission, so only the origin is there.
    pub fn recorded(&self) -> Value {
        let origin = self.url.split('/').take(3).collect::<Vec<_>>().join("/");
        json!({
            "url_origin": origin,
            "description": self.description,
            "events": self.events,
            "enabled": self.enabled,
        })
    }
}

/// What a webhook is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebhookTerms {
    /// Where events go.
    pub url: String,
    /// What it is for.
    pub description: String,
    /// The events it wants; none named: all.
    pub events: Vec<String>,
    /// Whether events are sent.
    pub enabled: bool,
}

/// One event on its way to one webhook.
#[derive(Clone, PartialEq, Debug)]
pub struct Delivery {
    /// Its id.
    pub id: Uuid,
    /// Where it goes.
    pub webhook: Uuid,
    /// The event, whose id is the same wherever and however often it is sent.
    pub event: Uuid,
    /// What happened.
    pub kind: String,
    /// What is sent.
    pub body: String,
    /// How far it is.
    pub state: DeliveryState,
    /// What came of each attempt, oldest first.
    pub attempts: Vec<Attempt>,
    /// When it was written.
    pub created_at: DateTime<Utc>,
    /// When it was over.
    pub finished_at: Option<DateTime<Utc>>,
}

/// One attempt at a delivery.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// When.
    pub at: DateTime<Utc>,
    /// How the endpoint answered.
    pub status: Option<u16>,
    /// How long it took, in milliseconds.
    pub latency_ms: u64,
    /// Why there was no answer.
    pub error: Option<String>,
    /// The beginning of the answer.
    pub excerpt: Option<String>,
}

/// How far a delivery is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeliveryState {
    /// It is sent, again if need be.
    Waiting,
    /// The endpoint has it.
    Delivered,
    /// It was given up.
    Failed,
}

impl DeliveryState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Waiting, Self::Delivered, Self::Failed];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }

    /// The state of a name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// How long to wait after each failed attempt, in seconds: a day and a half in all. A replica that restarts is back within
/// the first ones, and an endpoint that is repaired by day within the last.
const WAITS_S: [u64; 10] = [5, 30, 120, 600, 1_800, 3_600, 10_800, 21_600, 36_000, 57_600];

/// So often a delivery is tried.
pub const MAX_ATTEMPTS: u32 = 1 + WAITS_S.len() as u32;

/// How long to wait after an attempt that failed, the n-th; up to a fifth more, by `chance` of 0 to 1. An endpoint may
/// ask for more, but not for more than the longest.
pub fn wait_after(attempt: u32, asked: Option<Duration>, chance: f64) -> Duration {
    let at = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    let ours = Duration::from_secs(WAITS_S[at.min(WAITS_S.len() - 1)]);
    let longest = Duration::from_secs(WAITS_S[WAITS_S.len() - 1]);
    let wait = asked.map_or(ours, |asked| ours.max(asked.min(longest)));
    wait + ours.mul_f64(0.2 * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_an_endpoint_may_ask_for_more() {
        let secs = |attempt, asked: Option<u64>| wait_after(attempt, asked.map(Duration::from_secs), 0.0).as_secs();
        assert_eq!(
            (secs(1, None), secs(2, None), secs(10, None), secs(99, None)),
            (5, 30, 57_600, 57_600)
        );
        assert_eq!(
            (secs(1, Some(60)), secs(1, Some(1)), secs(1, Some(9_999_999))),
            (60, 5, 57_600)
        );
        assert_eq!(wait_after(1, None, 1.0), Duration::from_secs(6));
        assert_eq!(MAX_ATTEMPTS, 11);
    }
}
