//! `/api/gateway/audit`: what was done through management, by whom and from where.

use chrono::{DateTime, Utc};
use poem_openapi::param::Query;
use poem_openapi::payload::Json;
use poem_openapi::types::Any;
use poem_openapi::{Object, OpenApi};
use serde_json::Value;
use uuid::Uuid;

use super::Section;
use super::auth::{May, ReadAudit};
use super::examples::example;
use super::page::page;
use super::problem::{Read, Refused};
use crate::domain::audit::{AuditFilter, AuditRow};

/// Rows of one page.
const PAGE: u64 = 50;

/// The handlers.
pub struct AuditApi;

/// Rows of the audit log.
#[derive(Object)]
struct AuditLog {
    /// The rows, newest first.
    data: Vec<AuditEntry>,
    /// Where the next page begins, for `cursor`; absent on the last page.
    #[oai(skip_serializing_if_is_none)]
    next_cursor: Option<Uuid>,
}

/// Something that was done.
#[derive(Object)]
#[oai(example)]
struct AuditEntry {
    /// Its id; later ones are higher.
    id: Uuid,
    /// When.
    at: DateTime<Utc>,
    /// Who: the subject of their token, or the command.
    actor: String,
    /// Their role; absent where the gateway itself or a command did it.
    #[oai(skip_serializing_if_is_none)]
    actor_role: Option<String>,
    /// How they proved who they are: `password`, `oidc`, `token` or `system`.
    via: String,
    /// Where the request came from, as far as the proxies in front are trusted.
    #[oai(skip_serializing_if_is_none)]
    address: Option<String>,
    /// What, as `resource.verb`: `key.create`.
    action: String,
    /// To what kind of thing: `key`.
    resource: String,
    /// To which of them.
    resource_id: String,
    /// What it was before, without secrets; absent where it was not there. One that is very long has `omitted_bytes`.
    #[oai(skip_serializing_if_is_none)]
    before: Option<Any<Value>>,
    /// What it was then, without secrets; absent where it was gone.
    #[oai(skip_serializing_if_is_none)]
    after: Option<Any<Value>>,
    /// The request, as its answer's `x-request-id` had it.
    #[oai(skip_serializing_if_is_none)]
    request_id: Option<String>,
}

example!(AuditEntry, {
    "id": "0199e1c2-c820-7cd1-8b75-3f6e9a0d4c57", "at": "2026-11-30T08:15:42Z", "actor": "ada@example.com",
    "actor_role": "admin", "via": "password", "address": "203.0.113.7", "action": "key.update", "resource": "key",
    "resource_id": "0199e1c2-7b30-7c4e-9a51-2f6d8c0b41aa", "before": {"name": "search", "rate_limit": 60},
    "after": {"name": "search-production", "rate_limit": 600}, "request_id": "req_0199e1c2e08472b6a1f35d9c7e4b2a68"
});

#[OpenApi(prefix_path = "/api/gateway/audit", tag = "Section::Audit")]
impl AuditApi {
    /// List what was done
    ///
    /// Every change that was made through management, newest first: who made it, from where, and what it changed from
    /// and to. A change and its row are written together, and rows are never changed. What was refused has no row.
    #[oai(path = "/", method = "get", operation_id = "listAudit")]
    // One parameter each, as the document shows them.
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the query")]
    async fn list(
        &self,
        may: May<ReadAudit>,
        /// Only what this actor did.
        #[oai(validator(max_length = 256))]
        actor: Query<Option<String>>,
        /// Only this action: `key.create`.
        #[oai(validator(max_length = 64))]
        action: Query<Option<String>>,
        /// Only what was done to this kind of thing: `key`.
        #[oai(validator(max_length = 64))]
        resource: Query<Option<String>>,
        /// Only what was done to the thing with this id.
        #[oai(validator(max_length = 256))]
        resource_id: Query<Option<String>>,
        /// Only what was done at this time or later.
        from: Query<Option<DateTime<Utc>>>,
        /// Only what was done before this time.
        to: Query<Option<DateTime<Utc>>>,
        /// Rows of one page.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<Uuid>>,
    ) -> Result<Json<AuditLog>, Refused<Read>> {
        let limit = limit.0.unwrap_or(PAGE);
        let filter = AuditFilter {
            actor: actor.0,
            action: action.0,
            resource: resource.0,
            resource_id: resource_id.0,
            from: from.0,
            to: to.0,
            before: cursor.0,
            limit: limit + 1,
        };
        let (found, next_cursor) = page(may.audit_rows(filter).await?, limit, |last| last.id);
        Ok(Json(AuditLog {
            next_cursor,
            data: found.into_iter().map(shown).collect(),
        }))
    }
}

fn shown(row: AuditRow) -> AuditEntry {
    AuditEntry {
        id: row.id,
        at: row.at,
        actor: row.actor,
        actor_role: row.actor_role,
        via: row.via,
        address: row.address,
        action: row.action,
        resource: row.resource,
        resource_id: row.resource_id,
        before: row.before.map(Any),
        after: row.after.map(Any),
        request_id: row.request_id,
    }
}
