//! What the proof about the audit log is good for.

use super::{May, ReadAudit};
use crate::domain::audit::{AuditFilter, AuditRow};
use crate::http::management::problem::Refusal;

impl May<ReadAudit> {
    /// Rows of the organization's audit log, newest first.
    pub async fn audit_rows(&self, filter: AuditFilter) -> Result<Vec<AuditRow>, Refusal> {
        let found = self.management.audit.rows(self.organization, filter).await;
        found.map_err(|error| Refusal::unavailable(&error))
    }
}
