//! `/api/gateway/logs`: single requests, their attempts, and why they went where they went.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream;
use poem::Body;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::{Binary, Json};
use poem_openapi::types::{Any, Example};
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use uuid::Uuid;

use super::Section;
use super::auth::{Asked, May, ReadLogs};
use super::examples::example;
use super::problem::{Read, Refusal, Refused};
use crate::analytics::logs::{header, lines};
use crate::analytics::{Analytics, AttemptRow, RequestRow};
use crate::domain::call::ErrorClass;
use crate::domain::ids::{OrganizationId, RequestId};
use crate::domain::report::log::LogFilter;

/// Requests of one page.
const PAGE: u64 = 50;
/// Requests of one piece of an export.
const PIECE: u64 = 1_000;

/// The handlers.
pub struct LogsApi;

/// Whether a request ended well.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// It did.
    Success,
    /// It did not; `error_class` says why.
    Error,
}

/// A page of the log.
#[derive(Object)]
struct Requests {
    /// Requests, newest first.
    data: Vec<LogEntry>,
    /// Where the next page begins, for `cursor`; absent on the last page. A search for what is rare may end before it has
    /// found a whole page, or anything, and goes on from here.
    #[oai(skip_serializing_if_is_none)]
    next_cursor: Option<String>,
}

/// A request.
#[derive(Object)]
#[oai(example)]
struct LogEntry {
    /// Its id, as callers see it in `x-request-id`.
    id: String,
    /// When it came.
    created_at: DateTime<Utc>,
    /// The key.
    key_id: Uuid,
    /// The key's team at that time.
    #[oai(skip_serializing_if_is_none)]
    team_id: Option<Uuid>,
    /// `chat`, `text_completion` or `embeddings`.
    operation: String,
    /// The dialect the caller spoke: `openai` or `anthropic`.
    dialect: String,
    /// The model as the caller wrote it.
    requested_model: String,
    /// The model that served it.
    #[oai(skip_serializing_if_is_none)]
    model: Option<String>,
    /// The provider that served it.
    #[oai(skip_serializing_if_is_none)]
    provider: Option<String>,
    /// Whether a stream was asked for.
    stream: bool,
    /// The status the caller got; 499: it left before there was one.
    status: i32,
    /// Why it did not end well; absent where it did.
    #[oai(skip_serializing_if_is_none)]
    error_class: Option<String>,
    /// Its tokens.
    tokens: Tokens,
    /// What it cost, in nano-dollars; absent where no price is known.
    #[oai(skip_serializing_if_is_none)]
    cost_nanousd: Option<i64>,
    /// The price that was applied.
    #[oai(skip_serializing_if_is_none)]
    price_version: Option<String>,
    /// How far tokens and cost can be trusted: `reported`, `estimated` or `unpriced`.
    metering: String,
    /// Milliseconds to the end of the answer.
    latency_ms: f64,
    /// Milliseconds to the first event.
    #[oai(skip_serializing_if_is_none)]
    first_token_ms: Option<f64>,
    /// Milliseconds of the latency that were not spent waiting for a provider.
    overhead_ms: f64,
    /// Number of attempts.
    attempts: i32,
    /// Whether the caller left before the end.
    client_cancelled: bool,
    /// What it had to do with the response cache: `hit`, `miss` or `bypass`.
    cache: String,
    /// What the cache saved, in nano-dollars.
    #[oai(skip_serializing_if_is_none)]
    saved_nanousd: Option<i64>,
    /// The serving provider's own id for it.
    #[oai(skip_serializing_if_is_none)]
    upstream_request_id: Option<String>,
    /// The trace it is a part of, 32 hexadecimal digits; absent where there is none.
    #[oai(skip_serializing_if_is_none)]
    trace_id: Option<String>,
}

example!(LogEntry, {
    "id": "req_0199e1c2e08472b6a1f35d9c7e4b2a68", "created_at": "2026-11-30T08:15:42Z",
    "key_id": "0199e1c2-7b30-7c4e-9a51-2f6d8c0b41aa", "team_id": "0199e1c2-5d11-7b0a-8c3e-61f0a9d2e7b4",
    "operation": "chat", "dialect": "openai", "requested_model": "gpt-5-mini", "model": "gpt-5-mini",
    "provider": "openai", "stream": true, "status": 200, "tokens": {"input": 1226, "cached": 245, "cache_write": 0,
    "output": 270, "reasoning": 0}, "cost_nanousd": 791375, "price_version": "list#2026-11-01",
    "metering": "reported", "latency_ms": 2760.0, "first_token_ms": 331.0, "overhead_ms": 0.3, "attempts": 1,
    "client_cancelled": false, "cache": "miss", "upstream_request_id": "req_7f3a",
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"
});

/// Tokens by kind.
#[derive(Object)]
pub(super) struct Tokens {
    /// Tokens read, cached ones included.
    pub(super) input: i64,
    /// Part of them out of a prompt cache.
    pub(super) cached: i64,
    /// Part of them into a prompt cache.
    pub(super) cache_write: i64,
    /// Tokens generated, reasoning included.
    pub(super) output: i64,
    /// Part of them spent on reasoning.
    pub(super) reasoning: i64,
}

/// A request with everything that is known of it.
#[derive(Object)]
#[oai(example)]
struct LogDetail {
    /// The request.
    request: LogEntry,
    /// Its attempts, in order.
    attempts: Vec<LogAttempt>,
    /// Why it went where it went, as `/api/gateway/routing/explain` shows it; absent where it was refused before there was
    /// anything to decide.
    #[oai(skip_serializing_if_is_none)]
    routing: Option<Any<serde_json::Value>>,
}

impl Example for LogDetail {
    fn example() -> Self {
        Self {
            request: LogEntry::example(),
            attempts: vec![LogAttempt::example()],
            routing: Some(Any(serde_json::json!({
                "config_version": 7, "strategy": "cost-optimized", "attempts": [{"deployment": "openai/gpt-5-mini",
                "stage": "primary", "score": 791375.0, "cost_nanousd": 791375}]
            }))),
        }
    }
}

/// An attempt at a provider.
#[derive(Object)]
struct LogAttempt {
    /// Its place, from 1.
    number: i32,
    /// When it began.
    created_at: DateTime<Utc>,
    /// The provider.
    provider: String,
    /// The model.
    model: String,
    /// The provider's status; absent where it did not answer.
    #[oai(skip_serializing_if_is_none)]
    status: Option<i32>,
    /// Why it failed; absent where it did not.
    #[oai(skip_serializing_if_is_none)]
    error_class: Option<String>,
    /// Milliseconds it took.
    latency_ms: f64,
    /// Milliseconds to its first event.
    #[oai(skip_serializing_if_is_none)]
    first_token_ms: Option<f64>,
    /// Its tokens.
    tokens: Tokens,
    /// What it cost, in nano-dollars; absent where no price is known.
    #[oai(skip_serializing_if_is_none)]
    cost_nanousd: Option<i64>,
    /// The provider's own id for it.
    #[oai(skip_serializing_if_is_none)]
    upstream_request_id: Option<String>,
}

example!(LogAttempt, {
    "number": 1, "created_at": "2026-11-30T08:15:42Z", "provider": "openai", "model": "gpt-5-mini", "status": 200,
    "latency_ms": 2759.7, "first_token_ms": 330.0, "tokens": {"input": 1226, "cached": 245, "cache_write": 0,
    "output": 270, "reasoning": 0}, "cost_nanousd": 791375, "upstream_request_id": "req_7f3a"
});

/// A table.
#[derive(ApiResponse)]
pub(super) enum Table {
    /// CSV (RFC 4180) with a line of names first. A text that a spreadsheet would take for a formula has an apostrophe in
    /// front.
    #[oai(status = 200, content_type = "text/csv; charset=utf-8")]
    Csv(
        Binary<Body>,
        /// Its name as a file.
        #[oai(header = "Content-Disposition")]
        String,
    ),
}

impl Table {
    /// A table that comes in pieces.
    pub(super) fn of(name: &str, pieces: impl stream::Stream<Item = std::io::Result<Bytes>> + Send + 'static) -> Self {
        let disposition = format!("attachment; filename=\"{name}.csv\"");
        Self::Csv(Binary(Body::from_bytes_stream(pieces)), disposition)
    }
}

/// Filters as the query has them.
pub(super) struct Filters {
    pub(super) model: Option<String>,
    pub(super) provider: Option<String>,
    pub(super) requested_model: Option<String>,
    pub(super) attempted_provider: Option<String>,
    pub(super) status: Option<u16>,
    pub(super) error_class: Option<String>,
    pub(super) outcome: Option<Outcome>,
    pub(super) stream: Option<bool>,
    pub(super) min_cost_nanousd: Option<i64>,
    pub(super) min_latency_ms: Option<u32>,
    pub(super) from: Option<DateTime<Utc>>,
    pub(super) to: Option<DateTime<Utc>>,
    pub(super) request_id: Option<String>,
}

impl Filters {
    /// The filter they make, of an organization that is put in later.
    pub(super) fn checked(self) -> Result<LogFilter, Refusal> {
        if let Some(class) = &self.error_class
            && !ErrorClass::ALL.iter().any(|known| known.as_str() == class)
        {
            let known: Vec<&str> = ErrorClass::ALL.iter().map(|class| class.as_str()).collect();
            return Err(Refusal::bad_request(format!(
                "error_class must be one of {}",
                known.join(", ")
            )));
        }
        if self.from.zip(self.to).is_some_and(|(from, to)| from >= to) {
            return Err(Refusal::bad_request("from must be before to"));
        }
        Ok(LogFilter {
            model: self.model,
            provider: self.provider,
            requested_model: self.requested_model,
            attempted_provider: self.attempted_provider,
            status: self.status,
            error_class: self.error_class,
            failed: self.outcome.map(|outcome| outcome == Outcome::Error),
            stream: self.stream,
            min_cost_nanousd: self.min_cost_nanousd,
            min_latency_us: self.min_latency_ms.map(|ms| i64::from(ms) * 1_000),
            from: self.from,
            to: self.to,
            id: self
                .request_id
                .as_deref()
                .map(|id| read_id("request_id", id))
                .transpose()?
                .map(|id| id.0),
            ..LogFilter::all(OrganizationId(Uuid::nil()))
        })
    }
}

#[OpenApi(prefix_path = "/api/gateway/logs", tag = "Section::Logs")]
impl LogsApi {
    /// List requests
    ///
    /// The organization's requests, newest first, as far as the caller may see them: a team's admin those of the team's
    /// keys, a member those of their own. Filters can be combined. A request is here within a second of its end, and for
    /// as long as requests are kept (`usage.keep_requests_days`).
    #[oai(path = "/", method = "get", operation_id = "listLogs")]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a parameter of the query, which the document lists"
    )]
    async fn list(
        &self,
        may: May<ReadLogs>,
        /// Requests of this key.
        key_id: Query<Option<Uuid>>,
        /// Requests of keys of this team.
        team_id: Query<Option<Uuid>>,
        /// Requests of keys with this tag: `name=value`, or a name alone for any value.
        tag: Query<Option<String>>,
        /// Requests that this model served, by its catalogue name.
        model: Query<Option<String>>,
        /// Requests that this provider served.
        provider: Query<Option<String>>,
        /// Requests for this model, as the caller wrote it, whether anything served them or not.
        #[oai(validator(max_length = 512))]
        requested_model: Query<Option<String>>,
        /// Requests with an attempt at this provider, whatever came of it.
        #[oai(validator(max_length = 128))]
        attempted_provider: Query<Option<String>>,
        /// Requests that were answered with this status.
        #[oai(validator(minimum(value = "100"), maximum(value = "599")))]
        status: Query<Option<u16>>,
        /// Requests that failed so: `timeout`, `rate_limited`, …
        error_class: Query<Option<String>>,
        /// Requests that ended well, or those that did not.
        outcome: Query<Option<Outcome>>,
        /// Streams, or whole answers.
        stream: Query<Option<bool>>,
        /// Requests that cost at least so many nano-dollars.
        #[oai(validator(minimum(value = "0")))]
        min_cost_nanousd: Query<Option<i64>>,
        /// Requests that took at least so many milliseconds.
        min_latency_ms: Query<Option<u32>>,
        /// Requests that came then or later.
        from: Query<Option<DateTime<Utc>>>,
        /// Requests that came before.
        to: Query<Option<DateTime<Utc>>>,
        /// The request with this id, as `x-request-id` has it.
        request_id: Query<Option<String>>,
        /// Requests of one page. Default: 50.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Requests>, Refused<Read>> {
        let asked = Asked {
            key: key_id.0,
            team: team_id.0,
            tag: tag.0,
        };
        let filters = Filters {
            model: model.0,
            provider: provider.0,
            requested_model: requested_model.0,
            attempted_provider: attempted_provider.0,
            status: status.0,
            error_class: error_class.0,
            outcome: outcome.0,
            stream: stream.0,
            min_cost_nanousd: min_cost_nanousd.0,
            min_latency_ms: min_latency_ms.0,
            from: from.0,
            to: to.0,
            request_id: request_id.0,
        };
        let before = cursor
            .0
            .as_deref()
            .map(|cursor| read_id("cursor", cursor))
            .transpose()?;
        let filter = may.log_filter(&asked, filters.checked()?).await?;
        let limit = limit.0.unwrap_or(PAGE);
        // One more, to see whether there is more.
        let found = may.log(&filter, before.map(|id| id.0), limit + 1).await?;
        let (mut rows, mut next) = (found.rows, found.next);
        if rows.len() as u64 > limit {
            rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            next = rows.last().map(|last| last.id);
        }
        Ok(Json(Requests {
            next_cursor: next.map(|next| RequestId(next).header()),
            data: rows.into_iter().map(entry).collect(),
        }))
    }

    /// Requests as CSV
    ///
    /// The same as a table, streamed, newest first: every request that the filters are about and the caller may see.
    #[oai(path = "/export.csv", method = "get", operation_id = "exportLogs")]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a parameter of the query, which the document lists"
    )]
    async fn export(
        &self,
        may: May<ReadLogs>,
        /// Requests of this key.
        key_id: Query<Option<Uuid>>,
        /// Requests of keys of this team.
        team_id: Query<Option<Uuid>>,
        /// Requests of keys with this tag: `name=value`, or a name alone for any value.
        tag: Query<Option<String>>,
        /// Requests that this model served, by its catalogue name.
        model: Query<Option<String>>,
        /// Requests that this provider served.
        provider: Query<Option<String>>,
        /// Requests for this model, as the caller wrote it, whether anything served them or not.
        #[oai(validator(max_length = 512))]
        requested_model: Query<Option<String>>,
        /// Requests with an attempt at this provider, whatever came of it.
        #[oai(validator(max_length = 128))]
        attempted_provider: Query<Option<String>>,
        /// Requests that were answered with this status.
        #[oai(validator(minimum(value = "100"), maximum(value = "599")))]
        status: Query<Option<u16>>,
        /// Requests that failed so: `timeout`, `rate_limited`, …
        error_class: Query<Option<String>>,
        /// Requests that ended well, or those that did not.
        outcome: Query<Option<Outcome>>,
        /// Streams, or whole answers.
        stream: Query<Option<bool>>,
        /// Requests that cost at least so many nano-dollars.
        #[oai(validator(minimum(value = "0")))]
        min_cost_nanousd: Query<Option<i64>>,
        /// Requests that took at least so many milliseconds.
        min_latency_ms: Query<Option<u32>>,
        /// Requests that came then or later.
        from: Query<Option<DateTime<Utc>>>,
        /// Requests that came before.
        to: Query<Option<DateTime<Utc>>>,
    ) -> Result<Table, Refused<Read>> {
        let asked = Asked {
            key: key_id.0,
            team: team_id.0,
            tag: tag.0,
        };
        let filters = Filters {
            model: model.0,
            provider: provider.0,
            requested_model: requested_model.0,
            attempted_provider: attempted_provider.0,
            status: status.0,
            error_class: error_class.0,
            outcome: outcome.0,
            stream: stream.0,
            min_cost_nanousd: min_cost_nanousd.0,
            min_latency_ms: min_latency_ms.0,
            from: from.0,
            to: to.0,
            request_id: None,
        };
        let filter = may.log_filter(&asked, filters.checked()?).await?;
        Ok(Table::of("bonito-logs", pieces(may.pages(), filter)))
    }

    /// One request
    ///
    /// With its attempts, and why it went where it went.
    #[oai(path = "/:id", method = "get", operation_id = "getLog")]
    async fn get(
        &self,
        may: May<ReadLogs>,
        /// Its id, as `x-request-id` has it.
        id: Path<String>,
    ) -> Result<Json<LogDetail>, Refused<Read>> {
        // What cannot be an id is the id of nothing.
        let id = parse_id(&id.0).ok_or_else(|| Refusal::not_found("request"))?;
        let detail = may.request(id).await?;
        let routing = detail
            .request
            .routing
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok());
        Ok(Json(LogDetail {
            request: entry(detail.request),
            attempts: detail.attempts.into_iter().map(attempt).collect(),
            routing: routing.map(Any),
        }))
    }
}

/// A log as pieces of a table: the names first, then page after page.
fn pieces(analytics: Analytics, filter: LogFilter) -> impl stream::Stream<Item = std::io::Result<Bytes>> {
    enum At {
        Header,
        Before(Option<Uuid>),
        End,
    }
    stream::try_unfold((analytics, filter, At::Header), |(analytics, filter, at)| async move {
        let before = match at {
            At::Header => return Ok(Some((Bytes::from(header()), (analytics, filter, At::Before(None))))),
            At::Before(before) => before,
            At::End => return Ok(None),
        };
        // What was sent is not the whole: whoever reads it has to notice, so the answer breaks off.
        let page = analytics.log(&filter, before, PIECE).await;
        let page = page.map_err(std::io::Error::other)?;
        let next = page.next.map_or(At::End, |next| At::Before(Some(next)));
        Ok(Some((Bytes::from(lines(&page.rows)), (analytics, filter, next))))
    })
}

/// An id of a request in the form of `x-request-id`, or as a UUID.
fn parse_id(text: &str) -> Option<RequestId> {
    text.strip_prefix("req_").unwrap_or(text).parse().ok().map(RequestId)
}

fn read_id(name: &str, text: &str) -> Result<RequestId, Refusal> {
    parse_id(text).ok_or_else(|| {
        Refusal::bad_request(format!(
            "{name} must be an id like req_0193…, with 32 hexadecimal digits"
        ))
    })
}

#[expect(clippy::cast_precision_loss, reason = "durations are far below 2^53 microseconds")]
fn ms(us: i64) -> f64 {
    us as f64 / 1_000.0
}

fn entry(row: RequestRow) -> LogEntry {
    LogEntry {
        id: RequestId(row.id).header(),
        created_at: row.created_at,
        key_id: row.key_id,
        team_id: row.team_id,
        operation: row.operation,
        dialect: row.dialect,
        requested_model: row.requested_model,
        model: row.model,
        provider: row.provider,
        stream: row.stream,
        status: row.status,
        error_class: row.error_class,
        tokens: Tokens {
            input: row.input_tokens,
            cached: row.cached_tokens,
            cache_write: row.cache_write_tokens,
            output: row.output_tokens,
            reasoning: row.reasoning_tokens,
        },
        cost_nanousd: row.cost_nanousd,
        price_version: row.price_version,
        metering: row.metering,
        latency_ms: ms(row.latency_us),
        first_token_ms: row.first_token_us.map(ms),
        overhead_ms: ms(row.overhead_us),
        attempts: row.attempts,
        client_cancelled: row.client_cancelled,
        cache: row.cache,
        saved_nanousd: row.saved_nanousd,
        upstream_request_id: row.upstream_request_id,
        trace_id: row.trace_id,
    }
}

fn attempt(row: AttemptRow) -> LogAttempt {
    LogAttempt {
        number: row.number,
        created_at: row.created_at,
        provider: row.provider,
        model: row.model,
        status: row.status,
        error_class: row.error_class,
        latency_ms: ms(row.latency_us),
        first_token_ms: row.first_token_us.map(ms),
        tokens: Tokens {
            input: row.input_tokens,
            cached: row.cached_tokens,
            cache_write: row.cache_write_tokens,
            output: row.output_tokens,
            reasoning: row.reasoning_tokens,
        },
        cost_nanousd: row.cost_nanousd,
        upstream_request_id: row.upstream_request_id,
    }
}
