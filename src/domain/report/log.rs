//! A question about single requests.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::ids::OrganizationId;

/// Which requests are meant. What is `None` does not matter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogFilter {
    /// Whose.
    pub organization: OrganizationId,
    /// Those of one of these keys.
    pub keys: Option<BTreeSet<Uuid>>,
    /// Those of keys of this team.
    pub team: Option<Uuid>,
    /// Those this provider served.
    pub provider: Option<String>,
    /// Those this model served.
    pub model: Option<String>,
    /// Those that asked for this model, as the caller wrote it, whether anything served them or not.
    pub requested_model: Option<String>,
    /// Those with an attempt at this provider, whatever came of it.
    pub attempted_provider: Option<String>,
    /// Those that were answered with this status.
    pub status: Option<u16>,
    /// Those that failed so.
    pub error_class: Option<String>,
    /// Those that failed, or those that did not.
    pub failed: Option<bool>,
    /// Streams, or whole answers.
    pub stream: Option<bool>,
    /// Those that cost at least so many nano-dollars.
    pub min_cost_nanousd: Option<i64>,
    /// Those that took at least so many microseconds.
    pub min_latency_us: Option<i64>,
    /// Those that came then or later.
    pub from: Option<DateTime<Utc>>,
    /// Those that came before.
    pub to: Option<DateTime<Utc>>,
    /// The one with this id.
    pub id: Option<Uuid>,
}

impl LogFilter {
    /// Every request of an organization.
    pub fn all(organization: OrganizationId) -> Self {
        Self {
            organization,
            keys: None,
            team: None,
            provider: None,
            model: None,
            requested_model: None,
            attempted_provider: None,
            status: None,
            error_class: None,
            failed: None,
            stream: None,
            min_cost_nanousd: None,
            min_latency_us: None,
            from: None,
            to: None,
            id: None,
        }
    }
}
