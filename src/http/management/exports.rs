//! `/api/gateway/exports`: tables that a job writes, because they are too large to wait for, and are fetched later.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use uuid::Uuid;

use super::Section;
use super::auth::{self, Asked, May, ReadJobs};
use super::examples::example;
use super::logs::{Filters, Outcome, Table};
use super::page::page;
use super::problem::{Act, Read, Refusal, Refused, Write};
use super::usage::{Grouping, Points, Wanted};
use crate::domain::export::{Export, ExportQuestion, ExportState};
use crate::gates::exports::Exports;

/// Exports of one page.
const PAGE: u64 = 50;

/// The handlers.
pub struct ExportsApi;

/// What an export has in it.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
enum ExportOf {
    /// Single requests, as `/api/gateway/logs/export.csv` has them.
    Requests,
    /// Figures, as `/api/gateway/usage/export.csv` has them.
    Usage,
}

/// What is to be exported: the filters of the log, or those of usage.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct NewExport {
    /// What is in it.
    of: ExportOf,
    /// Requests that came then or later. Default: for usage 30 days before `to`; for requests, from the first one on.
    from: Option<DateTime<Utc>>,
    /// Requests that came before. Default: now, and no later.
    to: Option<DateTime<Utc>>,
    /// Requests of this key.
    key_id: Option<Uuid>,
    /// Requests of keys of this team.
    team_id: Option<Uuid>,
    /// Requests of keys that have this tag now: `name=value`, or a name alone for any value.
    #[oai(validator(max_length = 1024))]
    tag: Option<String>,
    /// Requests that this model served, by its catalogue name.
    #[oai(validator(max_length = 512))]
    model: Option<String>,
    /// Requests that this provider served.
    #[oai(validator(max_length = 128))]
    provider: Option<String>,
    /// For requests alone: those for this model, as the caller wrote it, whether anything served them or not.
    #[oai(validator(max_length = 512))]
    requested_model: Option<String>,
    /// For requests alone: those with an attempt at this provider, whatever came of it.
    #[oai(validator(max_length = 128))]
    attempted_provider: Option<String>,
    /// For requests alone: those that were answered with this status.
    #[oai(validator(minimum(value = "100"), maximum(value = "599")))]
    status: Option<u16>,
    /// For requests alone: those that failed so: `timeout`, `rate_limited`, …
    #[oai(validator(max_length = 64))]
    error_class: Option<String>,
    /// For requests alone: those that ended well, or those that did not.
    outcome: Option<Outcome>,
    /// For requests alone: streams, or whole answers.
    stream: Option<bool>,
    /// For requests alone: those that cost at least so many nano-dollars.
    #[oai(validator(minimum(value = "0")))]
    min_cost_nanousd: Option<i64>,
    /// For requests alone: those that took at least so many milliseconds.
    min_latency_ms: Option<u32>,
    /// For usage alone: how long points are. Default: `hour` for up to two days, otherwise `day`.
    granularity: Option<Points>,
    /// For usage alone: by what figures are grouped.
    group_by: Option<Grouping>,
    /// For usage alone: groups that are told apart, those that cost most first. Default: 100.
    #[oai(validator(minimum(value = "1"), maximum(value = "1000")))]
    groups_limit: Option<usize>,
}

example!(NewExport, {"of": "requests", "from": "2026-11-01T00:00:00Z", "to": "2026-12-01T00:00:00Z", "provider": "openai"});

impl NewExport {
    /// Members that say something, but nothing about what is asked for.
    fn beside_the_point(&self) -> Option<&'static str> {
        let of_requests = [
            ("/requested_model", self.requested_model.is_some()),
            ("/attempted_provider", self.attempted_provider.is_some()),
            ("/status", self.status.is_some()),
            ("/error_class", self.error_class.is_some()),
            ("/outcome", self.outcome.is_some()),
            ("/stream", self.stream.is_some()),
            ("/min_cost_nanousd", self.min_cost_nanousd.is_some()),
            ("/min_latency_ms", self.min_latency_ms.is_some()),
        ];
        let of_usage = [
            ("/granularity", self.granularity.is_some()),
            ("/group_by", self.group_by.is_some()),
            ("/groups_limit", self.groups_limit.is_some()),
        ];
        let others: &[(&'static str, bool)] = match self.of {
            ExportOf::Requests => &of_usage,
            ExportOf::Usage => &of_requests,
        };
        others.iter().find(|(_, said)| *said).map(|(pointer, _)| *pointer)
    }

    /// What is asked for: whose requests, and which.
    fn checked(self, may: &May<auth::Export>) -> Result<(Asked, ExportQuestion), Refusal> {
        if let Some(pointer) = self.beside_the_point() {
            let problem = match self.of {
                ExportOf::Requests => "belongs to an export of usage; leave it out, or ask for of: usage",
                ExportOf::Usage => "belongs to an export of requests; leave it out, or ask for of: requests",
            };
            return Err(Refusal::field(pointer, problem));
        }
        let asked = Asked {
            key: self.key_id,
            team: self.team_id,
            tag: self.tag,
        };
        let question = match self.of {
            ExportOf::Requests => {
                let filters = Filters {
                    model: self.model,
                    provider: self.provider,
                    requested_model: self.requested_model,
                    attempted_provider: self.attempted_provider,
                    status: self.status,
                    error_class: self.error_class,
                    outcome: self.outcome,
                    stream: self.stream,
                    min_cost_nanousd: self.min_cost_nanousd,
                    min_latency_ms: self.min_latency_ms,
                    from: self.from,
                    to: self.to,
                    request_id: None,
                };
                ExportQuestion::Requests(filters.checked()?)
            }
            ExportOf::Usage => {
                let wanted = Wanted {
                    from: self.from,
                    to: self.to,
                    granularity: self.granularity,
                    group_by: self.group_by,
                    groups_limit: self.groups_limit,
                    model: self.model,
                    provider: self.provider,
                };
                ExportQuestion::Usage(wanted.checked(may.organization(), Utc::now())?)
            }
        };
        Ok((asked, question))
    }
}

/// How far an export is.
#[derive(Enum)]
#[oai(rename_all = "snake_case")]
enum ExportProgress {
    /// Its job is waiting, under way, or was given up; `GET /api/gateway/jobs` says which.
    Running,
    /// It can be fetched.
    Done,
    /// It cannot be written; `failure` says why.
    Failed,
}

/// An export: what it is about, and how far it is.
#[derive(Object)]
#[oai(rename = "Export", example)]
struct ExportView {
    /// Its id.
    id: Uuid,
    /// What is in it.
    of: ExportOf,
    /// How far it is.
    state: ExportProgress,
    /// Why it cannot be written.
    #[oai(skip_serializing_if_is_none)]
    failure: Option<String>,
    /// From when on the requests came; absent: from the first one on.
    #[oai(skip_serializing_if_is_none)]
    from: Option<DateTime<Utc>>,
    /// Before when.
    #[oai(skip_serializing_if_is_none)]
    to: Option<DateTime<Utc>>,
    /// Lines that are written, without the line of names. Those of usage are counted at its end.
    rows: u64,
    /// Bytes that are written.
    bytes: u64,
    /// Requests are written newest first: back to this time so far.
    #[oai(skip_serializing_if_is_none)]
    written_back_to: Option<DateTime<Utc>>,
    /// The share of its time that is written, from 0 to 1, where that can be said.
    #[oai(skip_serializing_if_is_none)]
    progress: Option<f64>,
    /// The job that writes it, in `/api/gateway/jobs`.
    job: Uuid,
    /// Who asked for it: the subject of their token.
    author: String,
    /// When.
    created_at: DateTime<Utc>,
    /// When it was over.
    #[oai(skip_serializing_if_is_none)]
    finished_at: Option<DateTime<Utc>>,
    /// When it is forgotten.
    expires_at: DateTime<Utc>,
}

example!(ExportView, {
    "id": "0199e1c2-c820-7cd1-8b75-3f6e9a0d4c57", "of": "requests", "state": "running",
    "from": "2026-11-01T00:00:00Z", "to": "2026-11-30T08:15:42Z", "rows": 412000, "bytes": 98304000,
    "written_back_to": "2026-11-23T08:15:42Z", "progress": 0.24, "job": "0199e1c2-d95a-7214-a0e8-5b7c1d3f6e92",
    "author": "ada@example.com", "created_at": "2026-11-30T08:15:42Z", "expires_at": "2026-12-07T08:15:42Z"
});

/// Exports.
#[derive(Object)]
struct ExportList {
    /// The exports, newest first.
    data: Vec<ExportView>,
    /// Where the next page begins, for `cursor`; absent on the last page.
    #[oai(skip_serializing_if_is_none)]
    next_cursor: Option<Uuid>,
}

/// An export that was begun.
#[derive(ApiResponse)]
enum Begun {
    /// A job writes it. `Location` says where it can be looked at.
    #[oai(status = 202)]
    Accepted(
        Json<ExportView>,
        /// Where it is.
        #[oai(header = "Location")]
        String,
    ),
}

/// Something that is gone.
#[derive(ApiResponse)]
enum Deleted {
    /// It was deleted.
    #[oai(status = 204)]
    Deleted,
}

#[OpenApi(prefix_path = "/api/gateway/exports", tag = "Section::Jobs")]
impl ExportsApi {
    /// Export requests or usage
    ///
    /// The tables of `/api/gateway/logs/export.csv` and `/api/gateway/usage/export.csv`, written in the background for
    /// whoever does not want to wait for them. A job writes it piece by piece, sealed, and goes on where it was if its process
    /// ends. What is in it is what there is of the time up to the moment it is asked for, as long as requests are kept.
    ///
    /// It is kept for `usage.keep_exports_ms` and may have `usage.max_export_bytes`. An organization may have twenty at a time.
    #[oai(path = "/", method = "post", operation_id = "createExport")]
    async fn begin(&self, may: May<auth::Export>, body: Json<NewExport>) -> Result<Begun, Refused<Write>> {
        let (asked, question) = body.0.checked(&may)?;
        let begun = may.begin_export(&asked, question).await?;
        let location = format!("/api/gateway/exports/{}", begun.id);
        Ok(Begun::Accepted(Json(shown(begun)), location))
    }

    /// List exports
    ///
    /// Newest first, with how far each is.
    #[oai(path = "/", method = "get", operation_id = "listExports")]
    async fn list(
        &self,
        may: May<ReadJobs>,
        /// Exports of one page.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<Uuid>>,
    ) -> Result<Json<ExportList>, Refused<Read>> {
        let limit = limit.0.unwrap_or(PAGE);
        let (found, next_cursor) = page(may.exports(cursor.0, limit + 1).await?, limit, |last| last.id);
        Ok(Json(ExportList {
            next_cursor,
            data: found.into_iter().map(shown).collect(),
        }))
    }

    /// An export
    ///
    /// How far it is.
    #[oai(path = "/:id", method = "get", operation_id = "getExport")]
    async fn get(
        &self,
        may: May<ReadJobs>,
        /// Its id.
        id: Path<Uuid>,
    ) -> Result<Json<ExportView>, Refused<Read>> {
        Ok(Json(shown(may.export(id.0).await?)))
    }

    /// Fetch an export
    ///
    /// The table, streamed, once its state is `done`; 409 before. A text that a spreadsheet would take for a formula has an
    /// apostrophe in front.
    #[oai(path = "/:id/content", method = "get", operation_id = "fetchExport")]
    async fn content(
        &self,
        may: May<ReadJobs>,
        /// Its id.
        id: Path<Uuid>,
    ) -> Result<Table, Refused<Act>> {
        let export = may.export(id.0).await?;
        match export.state {
            ExportState::Done => Ok(Table::of(&export.file_name(), pieces(may.export_pieces(), export))),
            ExportState::Running => {
                Err(Refusal::conflict("the export is not written yet; its state will be done").into())
            }
            ExportState::Failed => {
                let why = export.failure.unwrap_or_default();
                Err(Refusal::conflict(format!("the export could not be written: {why}")).into())
            }
        }
    }

    /// Delete an export
    ///
    /// It cannot be fetched any more, and its job ends if it is under way. What was written is removed within the hour.
    #[oai(path = "/:id", method = "delete", operation_id = "deleteExport")]
    async fn delete(
        &self,
        may: May<auth::Export>,
        /// Its id.
        id: Path<Uuid>,
    ) -> Result<Deleted, Refused<Act>> {
        may.delete_export(id.0).await?;
        Ok(Deleted::Deleted)
    }
}

/// The pieces of an export. What was sent is not the whole if one cannot be read: then the answer breaks off.
fn pieces(
    exports: Arc<dyn Exports>,
    export: Export,
) -> impl stream::Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    stream::try_unfold((exports, export, 0), |(exports, export, number)| async move {
        if number >= export.pieces {
            return Ok(None);
        }
        let piece = exports.piece(export.organization, export.id, number).await;
        let piece = piece.map_err(std::io::Error::other)?;
        let piece = piece.ok_or_else(|| std::io::Error::other("the export was deleted"))?;
        Ok(Some((Bytes::from(piece), (exports, export, number + 1))))
    })
}

fn shown(export: Export) -> ExportView {
    let (from, to) = export.question.span();
    ExportView {
        id: export.id,
        of: match export.question {
            ExportQuestion::Requests(_) => ExportOf::Requests,
            ExportQuestion::Usage(_) => ExportOf::Usage,
        },
        state: match export.state {
            ExportState::Running => ExportProgress::Running,
            ExportState::Done => ExportProgress::Done,
            ExportState::Failed => ExportProgress::Failed,
        },
        from,
        to,
        rows: export.rows,
        bytes: export.bytes,
        written_back_to: export.reached(),
        progress: export.share(),
        failure: export.failure,
        job: export.job,
        author: export.author,
        created_at: export.created_at,
        finished_at: export.finished_at,
        expires_at: export.expires_at,
    }
}
