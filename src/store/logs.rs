//! The log: rows of the ledger, newest first, page by page.

use entity::gateway_requests;
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use super::ledger::RequestRow;
use super::{Store, StoreError};
use crate::domain::report::hour::first_id;
use crate::domain::report::log::LogFilter;

impl Store {
    /// The newest requests a filter is about, at most so many; with `before`, those older than the request with that id.
    ///
    /// # Errors
    /// The database fails.
    pub async fn log_page(
        &self,
        filter: &LogFilter,
        before: Option<Uuid>,
        most: u64,
    ) -> Result<Vec<RequestRow>, StoreError> {
        use gateway_requests::Column;
        gateway_requests::Entity::find()
            .filter(Column::OrganizationId.eq(filter.organization.0))
            .filter(condition(filter))
            .filter(Condition::all().add_option(before.map(|before| Column::Id.lt(before))))
            .order_by_desc(Column::Id)
            .limit(most)
            .all(&self.db)
            .await
    }
}

fn condition(filter: &LogFilter) -> Condition {
    use gateway_requests::Column;
    Condition::all()
        .add_option(filter.id.map(|id| Column::Id.eq(id)))
        .add_option(filter.from.map(|from| Column::Id.gte(first_id(from))))
        .add_option(filter.to.map(|to| Column::Id.lt(first_id(to))))
        .add_option(
            filter
                .keys
                .as_ref()
                .map(|keys| Column::KeyId.is_in(keys.iter().copied())),
        )
        .add_option(filter.team.map(|team| Column::TeamId.eq(team)))
        .add_option(
            filter
                .provider
                .as_ref()
                .map(|provider| Column::Provider.eq(provider.as_str())),
        )
        .add_option(filter.model.as_ref().map(|model| Column::Model.eq(model.as_str())))
        .add_option(filter.status.map(|status| Column::Status.eq(i32::from(status))))
        .add_option(
            filter
                .error_class
                .as_ref()
                .map(|class| Column::ErrorClass.eq(class.as_str())),
        )
        // Written out where a class is asked for as well, so that the index of what failed can be used.
        .add_option(
            filter
                .failed
                .or(filter.error_class.as_ref().map(|_| true))
                .map(|failed| {
                    if failed {
                        Column::ErrorClass.is_not_null()
                    } else {
                        Column::ErrorClass.is_null()
                    }
                }),
        )
        .add_option(filter.stream.map(|stream| Column::Stream.eq(stream)))
        .add_option(filter.min_cost_nanousd.map(|cost| Column::CostNanousd.gte(cost)))
        .add_option(filter.min_latency_us.map(|latency| Column::LatencyUs.gte(latency)))
}
