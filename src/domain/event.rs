//! What organizations are told of, as it happens.
//!
//! An event is written in the transaction of what it tells of, for each webhook that wants it; see `store/events.rs`.

use serde_json::Value;

/// What can happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EventKind {
    /// A threshold of a budget was reached.
    BudgetThreshold,
    /// A provider fails and is taken out of the rotation.
    ProviderDown,
    /// It serves again.
    ProviderUp,
    /// A key was created.
    KeyCreated,
    /// A key got a new secret.
    KeyRotated,
    /// A key expires soon.
    KeyExpiring,
    /// A key was revoked.
    KeyRevoked,
    /// Calls of a model have no price.
    ModelUnpriced,
    /// Many more requests fail than usual.
    ErrorRate,
    /// A job was given up.
    JobDead,
    /// A webhook was switched off because its endpoint failed for too long. Other webhooks are told.
    WebhookDisabled,
    /// Somebody asked for it, to see that it arrives.
    WebhookTest,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::BudgetThreshold,
        Self::ProviderDown,
        Self::ProviderUp,
        Self::KeyCreated,
        Self::KeyRotated,
        Self::KeyExpiring,
        Self::KeyRevoked,
        Self::ModelUnpriced,
        Self::ErrorRate,
        Self::JobDead,
        Self::WebhookDisabled,
        Self::WebhookTest,
    ];

    /// Its name, as endpoints see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BudgetThreshold => "budget.threshold",
            Self::ProviderDown => "provider.down",
            Self::ProviderUp => "provider.up",
            Self::KeyCreated => "key.created",
            Self::KeyRotated => "key.rotated",
            Self::KeyExpiring => "key.expiring",
            Self::KeyRevoked => "key.revoked",
            Self::ModelUnpriced => "model.unpriced",
            Self::ErrorRate => "error_rate.anomaly",
            Self::JobDead => "job.dead",
            Self::WebhookDisabled => "webhook.disabled",
            Self::WebhookTest => "webhook.test",
        }
    }

    /// The kind of a name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Whether a webhook that wants these events wants one of this kind; an empty list is all of them.
    pub fn is_wanted(self, wanted: &[String]) -> bool {
        wanted.is_empty() || wanted.iter().any(|name| name == self.as_str())
    }
}

/// How many requests failed, out of how many.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Failures {
    /// All of them.
    pub requests: u64,
    /// Those that failed for no reason of the caller's.
    pub failed: u64,
}

impl Failures {
    /// The fewest requests that say anything.
    const ENOUGH: u64 = 20;

    /// The part that failed, from 0 to 1.
    pub fn rate(self) -> f64 {
        if self.requests == 0 {
            return 0.0;
        }
        self.failed as f64 / self.requests as f64
    }

    /// Whether far more fail now than before: a tenth at least, and three times as many.
    pub fn are_unusual(self, before: Self) -> bool {
        self.requests >= Self::ENOUGH && self.rate() >= 0.1 && self.rate() >= 3.0 * before.rate()
    }

    /// Whether they are so few that an anomaly is over: half of what begins one.
    pub fn are_usual(self) -> bool {
        self.rate() < 0.05
    }
}

/// An event as it is sent: `{"type", "timestamp", "data"}` (Standard Webhooks, <https://www.standardwebhooks.com/>), and
/// whom it concerns.
pub fn body(kind: EventKind, organization: &str, at: chrono::DateTime<chrono::Utc>, data: Value) -> String {
    serde_json::json!({
        "type": kind.as_str(),
        "timestamp": at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        "organization_id": organization,
        "data": data,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_their_names_and_wanted_by_lists() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::parse(kind.as_str()), Some(kind));
            assert!(kind.is_wanted(&[]) && kind.is_wanted(&["x".into(), kind.as_str().into()]));
            assert!(!kind.is_wanted(&["x".into()]));
        }
        assert_eq!(EventKind::parse("nothing"), None);
    }

    #[test]
    fn failures_are_unusual_when_there_are_many_and_far_more_than_before() {
        let failures = |failed, requests| Failures { requests, failed };
        assert!(failures(10, 100).are_unusual(failures(0, 0)));
        assert!(failures(10, 100).are_unusual(failures(3, 100)));
        assert!(!failures(10, 100).are_unusual(failures(4, 100)));
        assert!(!failures(9, 100).are_unusual(failures(0, 100)));
        assert!(!failures(19, 19).are_unusual(failures(0, 100)));
        assert!(failures(4, 100).are_usual() && failures(0, 0).are_usual() && !failures(5, 100).are_usual());
    }

    #[test]
    fn a_body_is_the_same_text_each_time() {
        let at = chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        assert_eq!(
            body(EventKind::KeyRevoked, "o", at, serde_json::json!({"key_id": "k"})),
            r#"{"type":"key.revoked","timestamp":"2027-01-15T08:00:00.000Z","organization_id":"o","data":{"key_id":"k"}}"#
        );
    }
}
