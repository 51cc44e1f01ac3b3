//! Writes tables that somebody asked for, piece by piece, into the database, where every replica can read them.
//!
//! Requests go on where the last piece ends. Figures are answered at once and written in one go; if that is broken off, it
//! begins anew, because what was answered before is gone.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use tokio::time::sleep;
use uuid::Uuid;

use crate::analytics::usage::table;
use crate::analytics::{Analytics, logs};
use crate::domain::error::BoxError;
use crate::domain::export::{Export, ExportQuestion, ExportState};
use crate::domain::ids::OrganizationId;
use crate::domain::job::{Claim, JobKind};
use crate::domain::report::log::LogFilter;
use crate::domain::report::usage::UsageQuestion;
use crate::queue::{Job, JobFailure, Outcome, Run};
use crate::secrets::sealing::Sealer;
use crate::store::Store;
use crate::store::exports::ExportStep;

/// Requests of a piece.
const REQUESTS: u64 = 1_000;
/// Bytes of a piece of figures, before the group that goes beyond them.
const BYTES: usize = 256 * 1024;
/// Between two pieces, so that others get their turn.
const PAUSE: Duration = Duration::from_millis(10);
/// What exports are sealed for.
pub const PURPOSE: &str = "exports";

/// Keeps exports.
#[derive(Clone)]
pub struct Exports {
    /// Where they are.
    pub store: Store,
    /// Seals their pieces.
    pub sealer: Sealer,
    /// Bytes of one at most.
    pub max_bytes: u64,
    /// How long they are kept.
    pub keep: Duration,
}

impl Exports {
    /// When one is forgotten that is asked for now.
    pub fn expiry(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        now + TimeDelta::from_std(self.keep).unwrap_or(TimeDelta::days(3_650))
    }

    /// A piece of an export; `None`: the export is gone.
    ///
    /// # Errors
    /// The database fails, or the piece is not what was sealed.
    pub async fn piece(
        &self,
        organization: OrganizationId,
        export: Uuid,
        number: u32,
    ) -> Result<Option<Vec<u8>>, BoxError> {
        let sealed = self.store.export_piece(organization, export, number).await?;
        Ok(match sealed {
            Some(sealed) => Some(self.sealer.open(&place(export, number), &sealed)?),
            None => None,
        })
    }
}

fn place(export: Uuid, number: u32) -> [u8; 20] {
    let mut place = [0; 20];
    place[..16].copy_from_slice(export.as_bytes());
    place[16..].copy_from_slice(&number.to_be_bytes());
    place
}

/// The job.
pub struct WriteExport {
    /// Where it is written.
    pub exports: Exports,
    /// Where it is read.
    pub analytics: Analytics,
}

/// What it is told.
#[derive(Deserialize)]
struct Told {
    export: Uuid,
}

/// A piece before it is sealed.
struct Piece {
    text: String,
    rows: u64,
    next: Option<Uuid>,
    ends: bool,
}

#[async_trait::async_trait]
impl Job for WriteExport {
    fn kind(&self) -> JobKind {
        JobKind::Export
    }

    async fn run(&self, run: &Run) -> Result<Outcome, JobFailure> {
        let told: Told = run.told()?;
        let organization = run
            .organization
            .ok_or_else(|| JobFailure::for_good("it is nobody's export"))?;
        loop {
            // It may have been deleted meanwhile; then there is nothing to do.
            let Some(export) = self.exports.store.export(organization, told.export).await? else {
                return Ok(Outcome::Done);
            };
            if export.state != ExportState::Running {
                return Ok(Outcome::Done);
            }
            let goes_on = match &export.question {
                ExportQuestion::Requests(filter) => self.add_requests(&export, filter, run.claim).await?,
                ExportQuestion::Usage(question) => self.write_figures(&export, question, run.claim).await?,
            };
            if !goes_on {
                return Ok(Outcome::Done);
            }
            if run.gives_way() {
                return Ok(Outcome::Again(Duration::ZERO));
            }
            sleep(PAUSE).await;
        }
    }
}

impl WriteExport {
    /// Adds the next requests. Says whether there may be more to do.
    async fn add_requests(&self, export: &Export, filter: &LogFilter, by: Claim) -> Result<bool, JobFailure> {
        let page = self.analytics.log(filter, export.position, REQUESTS).await?;
        let mut text = if export.pieces == 0 {
            logs::header()
        } else {
            String::new()
        };
        text.push_str(&logs::lines(&page.rows));
        let piece = Piece {
            text,
            rows: page.rows.len() as u64,
            next: page.next,
            ends: page.next.is_none(),
        };
        Ok(self
            .add(export, piece, by)
            .await?
            .is_some_and(|export| export.state == ExportState::Running))
    }

    /// Writes all figures. Nothing is left to do then.
    async fn write_figures(&self, export: &Export, question: &UsageQuestion, by: Claim) -> Result<bool, JobFailure> {
        let mut export = export.clone();
        if export.pieces > 0 {
            if !self.exports.store.restart_export(&export, by).await? {
                return Ok(false);
            }
            (export.pieces, export.bytes, export.rows) = (0, 0, 0);
        }
        let report = self.analytics.usage(question).await?;
        let grouped = question.group_by.is_some();
        let rows: u64 = if grouped {
            let groups = report.groups.iter().chain(&report.others);
            groups.map(|group| group.series.len() as u64).sum()
        } else {
            report.series.len() as u64
        };
        let mut text = String::new();
        for part in table(report, grouped) {
            text.push_str(&part);
            if text.len() < BYTES {
                continue;
            }
            let piece = Piece {
                text: std::mem::take(&mut text),
                rows: 0,
                next: None,
                ends: false,
            };
            let added = self.add(&export, piece, by).await?;
            match added {
                Some(now) if now.state == ExportState::Running => export = now,
                _ => return Ok(false),
            }
            sleep(PAUSE).await;
        }
        let last = Piece {
            text,
            rows,
            next: None,
            ends: true,
        };
        self.add(&export, last, by).await?;
        Ok(false)
    }

    /// Adds a piece. Gives the export as it is then; `None`: it is not ours to write any more.
    async fn add(&self, export: &Export, piece: Piece, by: Claim) -> Result<Option<Export>, JobFailure> {
        let mut after = export.clone();
        let bytes = piece.text.len() as u64;
        if export.bytes + bytes > self.exports.max_bytes {
            let why = format!(
                "it has more than {} bytes (usage.max_export_bytes); ask for a shorter time or for less",
                self.exports.max_bytes
            );
            self.exports.store.fail_export(export, &why, by).await?;
            after.state = ExportState::Failed;
            return Ok(Some(after));
        }
        let step = ExportStep {
            sealed: self
                .exports
                .sealer
                .seal(&place(export.id, export.pieces), piece.text.as_bytes()),
            bytes,
            rows: piece.rows,
            next: piece.next,
            ends: piece.ends,
        };
        if !self.exports.store.advance_export(export, step, by).await? {
            return Ok(None);
        }
        after.pieces += 1;
        after.bytes += bytes;
        after.rows += piece.rows;
        after.position = piece.next.or(after.position);
        if piece.ends {
            after.state = ExportState::Done;
        }
        Ok(Some(after))
    }
}
