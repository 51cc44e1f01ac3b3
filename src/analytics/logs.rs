//! Single requests.

use uuid::Uuid;

use super::csv::Csv;
use super::{Analytics, AnalyticsError, AttemptRow, LogPage, RequestRow, Sight};
use crate::domain::ids::{OrganizationId, RequestId};
use crate::domain::report::log::LogFilter;

/// A request with its attempts.
#[derive(Clone, Debug)]
pub struct Detail {
    /// The request.
    pub request: RequestRow,
    /// Its attempts, in order.
    pub attempts: Vec<AttemptRow>,
}

/// The columns of a log as a table.
const COLUMNS: [&str; 26] = [
    "id",
    "created_at",
    "key_id",
    "team_id",
    "operation",
    "dialect",
    "requested_model",
    "model",
    "provider",
    "stream",
    "status",
    "error_class",
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_nanousd",
    "metering",
    "latency_us",
    "first_token_us",
    "overhead_us",
    "attempts",
    "client_cancelled",
    "cache",
    "saved_nanousd",
];

impl Analytics {
    /// The newest requests a filter is about, at most so many; with `before`, those with lower ids than that. There may be
    /// fewer than there are, with a next page where the search goes on.
    ///
    /// # Errors
    /// The database fails, or takes too long.
    pub async fn log(&self, filter: &LogFilter, before: Option<Uuid>, most: u64) -> Result<LogPage, AnalyticsError> {
        self.in_turn(self.store.log_page(filter, before, most)).await
    }

    /// A request, if it may be seen.
    ///
    /// # Errors
    /// The database fails.
    pub async fn request(
        &self,
        organization: OrganizationId,
        sight: &Sight,
        id: RequestId,
    ) -> Result<Option<Detail>, AnalyticsError> {
        let Some(request) = self.store.request(organization, id).await? else {
            return Ok(None);
        };
        let seen = match sight {
            Sight::All => true,
            Sight::Team(team) => request.team_id == Some(team.0),
            Sight::Keys(keys) => keys.contains(&request.key_id),
        };
        if !seen {
            return Ok(None);
        }
        let attempts = self.store.attempts_of(organization, id).await?;
        Ok(Some(Detail { request, attempts }))
    }
}

/// The first line of a log as a table.
pub fn header() -> String {
    let mut csv = Csv::default();
    csv.line(COLUMNS.map(Into::into));
    csv.take()
}

/// Requests as lines of a table.
pub fn lines(rows: &[RequestRow]) -> String {
    let mut csv = Csv::default();
    for row in rows {
        csv.line([
            RequestId(row.id).header().into(),
            row.created_at
                .to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
                .into(),
            row.key_id.to_string().into(),
            row.team_id.map(|team| team.to_string()).into(),
            (&row.operation).into(),
            (&row.dialect).into(),
            (&row.requested_model).into(),
            row.model.as_ref().into(),
            row.provider.as_ref().into(),
            row.stream.into(),
            row.status.into(),
            row.error_class.as_ref().into(),
            row.input_tokens.into(),
            row.cached_tokens.into(),
            row.cache_write_tokens.into(),
            row.output_tokens.into(),
            row.reasoning_tokens.into(),
            row.cost_nanousd.into(),
            (&row.metering).into(),
            row.latency_us.into(),
            row.first_token_us.into(),
            row.overhead_us.into(),
            row.attempts.into(),
            row.client_cancelled.into(),
            (&row.cache).into(),
            row.saved_nanousd.into(),
        ]);
    }
    csv.take()
}
