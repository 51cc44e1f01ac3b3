//! The log: rows of the ledger, newest first, page by page.
//!
//! Some filters have an index that leads straight to the newest rows that match; others do not, and what matches them may
//! be rare. Such a search goes back through time step by step, so that no statement reads more than a step, and ends after
//! a while with what it has found and the place where to go on.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use entity::{gateway_attempts, gateway_requests};
use sea_orm::sea_query::{Expr, Query};
use sea_orm::{ColumnTrait, Condition, DatabaseBackend, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use tokio::time::Instant;
use uuid::Uuid;

use super::ledger::RequestRow;
use super::many::one_of;
use super::{Store, StoreError};
use crate::domain::report::hour::{first_id, time_of};
use crate::domain::report::log::LogFilter;

/// The first step back.
const FIRST_STEP: TimeDelta = TimeDelta::hours(1);
/// The longest one.
const LONGEST_STEP: TimeDelta = TimeDelta::days(32);
/// A step that takes longer is followed by a shorter one.
const LONG: Duration = Duration::from_millis(250);
/// How long a search for one page goes on.
const PATIENCE: Duration = Duration::from_secs(3);

/// A page of the log.
#[derive(Clone, Debug)]
pub struct LogPage {
    /// Requests, newest first.
    pub rows: Vec<RequestRow>,
    /// Those of the next page have lower ids than this; `None`: there is none.
    pub next: Option<Uuid>,
}

impl Store {
    /// The newest requests a filter is about, at most so many; with `before`, those with lower ids than that. There may be
    /// fewer than there are, or none, with a next page where the search goes on.
    ///
    /// # Errors
    /// The database fails.
    pub async fn log_page(&self, filter: &LogFilter, before: Option<Uuid>, most: u64) -> Result<LogPage, StoreError> {
        let full = |rows: &[RequestRow]| rows.len() as u64 >= most;
        if has_index(filter) {
            let rows = self.log_rows(filter, None, before, most).await?;
            let next = rows.last().filter(|_| full(&rows)).map(|last| last.id);
            return Ok(LogPage { rows, next });
        }
        let mut page = LogPage {
            rows: Vec::new(),
            next: None,
        };
        let Some(oldest) = self.oldest(filter).await? else {
            return Ok(page);
        };
        let floor = filter.from.map_or(oldest, |from| first_id(from).max(oldest));
        let (began, mut end, mut step) = (Instant::now(), before, FIRST_STEP);
        loop {
            let from = end.map_or_else(|| filter.to.unwrap_or_else(Utc::now), time_of);
            let start = first_id(back(from, step)).max(floor);
            let step_began = Instant::now();
            let left = most - page.rows.len() as u64;
            page.rows.extend(self.log_rows(filter, Some(start), end, left).await?);
            if full(&page.rows) {
                page.next = page.rows.last().map(|last| last.id);
                return Ok(page);
            }
            if start <= floor {
                return Ok(page);
            }
            end = Some(start);
            if began.elapsed() > PATIENCE {
                page.next = end;
                return Ok(page);
            }
            step = if step_began.elapsed() > LONG {
                (step / 2).max(FIRST_STEP)
            } else {
                (step * 2).min(LONGEST_STEP)
            };
        }
    }

    /// Rows with ids from `start` on and below `end`, newest first.
    async fn log_rows(
        &self,
        filter: &LogFilter,
        start: Option<Uuid>,
        end: Option<Uuid>,
        most: u64,
    ) -> Result<Vec<RequestRow>, StoreError> {
        use gateway_requests::Column;
        gateway_requests::Entity::find()
            .filter(Column::OrganizationId.eq(filter.organization.0))
            .filter(condition(filter, self.backend()))
            .filter(Condition::all().add_option(start.map(|start| Column::Id.gte(start))))
            .filter(Condition::all().add_option(end.map(|end| Column::Id.lt(end))))
            .order_by_desc(Column::Id)
            .limit(most)
            .all(&self.db)
            .await
    }

    /// The id of the oldest request there is.
    async fn oldest(&self, filter: &LogFilter) -> Result<Option<Uuid>, StoreError> {
        use gateway_requests::Column;
        gateway_requests::Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::OrganizationId.eq(filter.organization.0))
            .order_by_asc(Column::Id)
            .limit(1)
            .into_tuple()
            .one(&self.db)
            .await
    }
}

/// A time before another one, as far as ids go back.
fn back(from: DateTime<Utc>, step: TimeDelta) -> DateTime<Utc> {
    from.checked_sub_signed(step).unwrap_or(DateTime::UNIX_EPOCH)
}

/// Whether an index leads straight to the newest requests a filter is about: none but these are asked for. There is one for a
/// key, one for a model and one for failures, and none for two of these together: a key's many requests would be read for a
/// model that it asked for once.
fn has_index(filter: &LogFilter) -> bool {
    let LogFilter {
        organization: _,
        keys,
        team,
        provider,
        model,
        requested_model,
        attempted_provider,
        status,
        error_class,
        failed,
        stream,
        min_cost_nanousd,
        min_latency_us,
        from: _,
        to: _,
        id,
    } = filter;
    let few_keys = keys.as_ref().is_none_or(|keys| keys.len() <= 1);
    let indexed = [keys.is_some(), model.is_some(), *failed == Some(true)];
    let together = indexed.into_iter().filter(|&asked| asked).count() > 1;
    let others = team.is_some()
        || provider.is_some()
        || requested_model.is_some()
        || attempted_provider.is_some()
        || status.is_some()
        || error_class.is_some()
        || *failed == Some(false)
        || stream.is_some()
        || min_cost_nanousd.is_some()
        || min_latency_us.is_some();
    let no_keys = keys.as_ref().is_some_and(BTreeSet::is_empty);
    id.is_some() || no_keys || few_keys && !together && !others
}

fn condition(filter: &LogFilter, backend: DatabaseBackend) -> Condition {
    use gateway_requests::Column;
    let failed = filter.failed.or(filter.error_class.as_ref().map(|_| true));
    let keys = filter.keys.as_ref();
    Condition::all()
        .add_option(filter.id.map(|id| Column::Id.eq(id)))
        .add_option(filter.from.map(|from| Column::Id.gte(first_id(from))))
        .add_option(filter.to.map(|to| Column::Id.lt(first_id(to))))
        .add_option(keys.map(|keys| one_of(backend, Expr::col(Column::KeyId), keys.iter().copied())))
        .add_option(filter.team.map(|team| Column::TeamId.eq(team)))
        .add_option(
            filter
                .provider
                .as_ref()
                .map(|provider| Column::Provider.eq(provider.as_str())),
        )
        .add_option(filter.model.as_ref().map(|model| Column::Model.eq(model.as_str())))
        .add_option(
            filter
                .requested_model
                .as_ref()
                .map(|model| Column::RequestedModel.eq(model.as_str())),
        )
        .add_option(filter.attempted_provider.as_deref().map(attempted_at))
        .add_option(filter.status.map(|status| Column::Status.eq(i32::from(status))))
        .add_option(
            filter
                .error_class
                .as_ref()
                .map(|class| Column::ErrorClass.eq(class.as_str())),
        )
        // Written out where a class is asked for as well, so that the index of what failed can be used.
        .add_option(failed.map(|failed| {
            if failed {
                Column::ErrorClass.is_not_null()
            } else {
                Column::ErrorClass.is_null()
            }
        }))
        .add_option(filter.stream.map(|stream| Column::Stream.eq(stream)))
        .add_option(filter.min_cost_nanousd.map(|cost| Column::CostNanousd.gte(cost)))
        .add_option(filter.min_latency_us.map(|latency| Column::LatencyUs.gte(latency)))
}

/// Requests with an attempt at a provider. Their attempts are found by the request, one by one.
fn attempted_at(provider: &str) -> Expr {
    use gateway_attempts::Column;
    use sea_orm::sea_query::ExprTrait as _;
    let attempts = Query::select()
        .expr(Expr::val(1))
        .from(gateway_attempts::Entity)
        .and_where(
            Expr::col((gateway_attempts::Entity, Column::RequestId))
                .equals((gateway_requests::Entity, gateway_requests::Column::Id)),
        )
        .and_where(Expr::col((gateway_attempts::Entity, Column::Provider)).eq(provider))
        .take();
    Expr::exists(attempts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::OrganizationId;

    #[test]
    fn what_has_no_index_of_its_own_is_searched_for_step_by_step() {
        let all = || LogFilter::all(OrganizationId(Uuid::nil()));
        let keys = |many: u128| Some((0..many).map(Uuid::from_u128).collect::<BTreeSet<_>>());
        let (key, model) = (keys(1), Some("m".to_owned()));
        let now = Some(Utc::now());
        let indexed = [
            all(),
            LogFilter {
                keys: key.clone(),
                from: now,
                to: now,
                ..all()
            },
            LogFilter {
                model: model.clone(),
                ..all()
            },
            LogFilter {
                failed: Some(true),
                ..all()
            },
            LogFilter {
                keys: keys(0),
                model: model.clone(),
                ..all()
            },
            LogFilter {
                id: Some(Uuid::nil()),
                keys: key.clone(),
                model: model.clone(),
                ..all()
            },
        ];
        for filter in indexed {
            assert!(has_index(&filter), "{filter:?}");
        }
        let searched = [
            LogFilter { keys: keys(2), ..all() },
            LogFilter {
                keys: key.clone(),
                model: model.clone(),
                ..all()
            },
            LogFilter {
                keys: key,
                failed: Some(true),
                ..all()
            },
            LogFilter {
                model,
                failed: Some(true),
                ..all()
            },
            LogFilter {
                failed: Some(false),
                ..all()
            },
            LogFilter {
                status: Some(500),
                ..all()
            },
            LogFilter {
                requested_model: Some("m".to_owned()),
                ..all()
            },
            LogFilter {
                attempted_provider: Some("p".to_owned()),
                ..all()
            },
            LogFilter {
                team: Some(Uuid::nil()),
                ..all()
            },
        ];
        for filter in searched {
            assert!(!has_index(&filter), "{filter:?}");
        }
    }
}
