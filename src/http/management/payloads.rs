//! `/api/gateway/logs/{id}/payload`: what was asked and answered, where the organization keeps it.

use chrono::{DateTime, Utc};
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use uuid::Uuid;

use super::Section;
use super::auth::{May, ReadPayloads};
use super::examples::example;
use super::problem::{Read, Refusal, Refused};
use crate::domain::ids::RequestId;

/// The handlers.
pub struct PayloadsApi;

/// What was asked and answered.
#[derive(Object)]
#[oai(example)]
struct RequestPayload {
    /// The request, as `x-request-id` has it.
    request_id: String,
    /// The body of the request as it came, without what is taken out.
    request: String,
    /// What the caller was answered, without what is taken out. A stream of which something is taken out is kept as what
    /// it says.
    answer: String,
    /// Whether something was too long to be kept: of each part there are 256 KiB at most.
    truncated: bool,
    /// When the request came.
    created_at: DateTime<Utc>,
    /// When it will be deleted.
    expires_at: DateTime<Utc>,
}

example!(RequestPayload, {
    "request_id": "req_0199e1c2e08472b6a1f35d9c7e4b2a68",
    "request": "{\"model\":\"gpt-5-mini\",\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}",
    "answer": "{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"Hello!\"}}]}", "truncated": false,
    "created_at": "2026-11-30T08:15:42Z", "expires_at": "2026-12-07T08:15:42Z"
});

#[OpenApi(prefix_path = "/api/gateway/logs", tag = "Section::Config")]
impl PayloadsApi {
    /// The payload of a request
    ///
    /// Only where the config's `logging.payloads` was on when the request came, and for owners and admins alone. It is there
    /// a moment after the request is over.
    #[oai(path = "/:id/payload", method = "get", operation_id = "getRequestPayload")]
    async fn get(
        &self,
        may: May<ReadPayloads>,
        /// The request's id, with or without `req_`.
        id: Path<String>,
    ) -> Result<Json<RequestPayload>, Refused<Read>> {
        let digits = id.0.strip_prefix("req_").unwrap_or(&id.0);
        let request = digits
            .parse::<Uuid>()
            .map(RequestId)
            .map_err(|_| Refusal::not_found("payload"))?;
        let kept = may.payload(request).await?;
        Ok(Json(RequestPayload {
            request_id: request.header(),
            request: kept.request,
            answer: kept.answer,
            truncated: kept.truncated,
            created_at: kept.created_at,
            expires_at: kept.expires_at,
        }))
    }
}
