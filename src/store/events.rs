//! Telling organizations of events, in the transaction of what they tell of.
//!
//! There is no table of events: an event is written as its deliveries, one for each webhook that wants it, each with the
//! job that sends it. Where nobody wants it, nothing is written.

use chrono::Utc;
use entity::{gateway_notices, webhook_deliveries, webhooks};
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Set};
use serde_json::{Value, json};
use uuid::Uuid;

use super::jobs::enqueue;
use super::{Store, StoreError, storable, storable_text};
use crate::domain::event::{self, EventKind};
use crate::domain::ids::OrganizationId;
use crate::domain::job::{JobKind, NewJob};
use crate::domain::webhook::DeliveryState;

/// Writes an event of an organization in whatever the caller does: it is sent when that commits. Gives how many webhooks
/// it goes to.
pub(super) async fn emit(
    db: &impl ConnectionTrait,
    organization: OrganizationId,
    kind: EventKind,
    data: Value,
) -> Result<usize, StoreError> {
    let rows = webhooks::Entity::find()
        .filter(webhooks::Column::OrganizationId.eq(organization.0))
        .filter(webhooks::Column::Enabled.eq(true))
        .order_by_asc(webhooks::Column::Id)
        .all(db)
        .await?;
    let wanted = rows.into_iter().filter(|row| kind.is_wanted(&names(&row.events)));
    let (event, now) = (Uuid::now_v7(), storable(Utc::now()));
    let body = storable_text(&event::body(kind, &organization.to_string(), now, data));
    let mut sent = 0;
    for webhook in wanted {
        deliver(db, organization, webhook.id, event, kind.as_str(), body.clone()).await?;
        sent += 1;
    }
    Ok(sent)
}

/// Writes one delivery, with the job that makes it. Gives its id.
pub(super) async fn deliver(
    db: &impl ConnectionTrait,
    organization: OrganizationId,
    webhook: Uuid,
    event: Uuid,
    kind: &str,
    body: String,
) -> Result<Uuid, StoreError> {
    let id = Uuid::now_v7();
    let row = webhook_deliveries::ActiveModel {
        id: Set(id),
        organization_id: Set(organization.0),
        webhook_id: Set(webhook),
        event_id: Set(event),
        event_type: Set(kind.to_owned()),
        body: Set(body),
        state: Set(DeliveryState::Waiting.as_str().into()),
        attempts: Set(json!([])),
        created_at: Set(storable(Utc::now())),
        finished_at: Set(None),
    };
    webhook_deliveries::Entity::insert(row)
        .exec_without_returning(db)
        .await?;
    let job = NewJob {
        organization: Some(organization),
        lane: Some(webhook),
        ..NewJob::new(JobKind::WebhookDelivery, json!({"delivery": id}))
    };
    enqueue(db, &job).await?;
    Ok(id)
}

/// The names in a column of JSON.
pub(super) fn names(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|name| name.as_str().map(ToOwned::to_owned)).collect()
}

impl Store {
    /// Writes an event by itself.
    ///
    /// # Errors
    /// The database fails.
    pub async fn emit(&self, organization: OrganizationId, kind: EventKind, data: Value) -> Result<usize, StoreError> {
        let transaction = self.begin_write().await?;
        let sent = emit(&transaction, organization, kind, data).await?;
        transaction.commit().await?;
        Ok(sent)
    }

    /// Writes an event about a state that changed, if nobody has told of that change. Says whether it was news.
    ///
    /// `name` is what is in a state; a state that was never told of is `usual`, which is not worth telling.
    ///
    /// # Errors
    /// The database fails.
    pub async fn emit_change(
        &self,
        name: &str,
        state: &str,
        usual: &str,
        tell: &[(OrganizationId, EventKind, Value)],
    ) -> Result<bool, StoreError> {
        use gateway_notices::{ActiveModel, Column, Entity};
        let transaction = self.begin_write().await?;
        let row = ActiveModel {
            name: Set(storable_text(name)),
            state: Set(Some(usual.to_owned())),
            changed_at: Set(storable(Utc::now())),
        };
        Entity::insert(row)
            .on_conflict(OnConflict::column(Column::Name).do_nothing().to_owned())
            .exec_without_returning(&transaction)
            .await?;
        let changed = Entity::update_many()
            .col_expr(Column::State, Expr::value(Some(state.to_owned())))
            .col_expr(Column::ChangedAt, Expr::value(storable(Utc::now())))
            .filter(Column::Name.eq(storable_text(name)))
            .filter(
                Condition::any()
                    .add(Column::State.is_null())
                    .add(Column::State.ne(state)),
            )
            .exec(&transaction)
            .await?;
        let news = changed.rows_affected > 0;
        if news {
            for (organization, kind, data) in tell {
                emit(&transaction, *organization, *kind, data.clone()).await?;
            }
        }
        transaction.commit().await?;
        Ok(news)
    }

    /// Organizations with a webhook that wants events of a kind.
    ///
    /// # Errors
    /// The database fails.
    pub async fn organizations_that_want(&self, kind: EventKind) -> Result<Vec<OrganizationId>, StoreError> {
        let rows: Vec<(Uuid, Value)> = webhooks::Entity::find()
            .select_only()
            .columns([webhooks::Column::OrganizationId, webhooks::Column::Events])
            .filter(webhooks::Column::Enabled.eq(true))
            .order_by_asc(webhooks::Column::OrganizationId)
            .into_tuple()
            .all(&self.db)
            .await?;
        let wanting = rows.into_iter().filter(|(_, events)| kind.is_wanted(&names(events)));
        let mut organizations: Vec<_> = wanting.map(|(organization, _)| OrganizationId(organization)).collect();
        organizations.dedup();
        Ok(organizations)
    }

    /// Forgets states that nobody has told of for a while.
    ///
    /// # Errors
    /// The database fails.
    pub async fn forget_notices(&self, before: chrono::DateTime<Utc>) -> Result<u64, StoreError> {
        let forgotten = gateway_notices::Entity::delete_many()
            .filter(gateway_notices::Column::ChangedAt.lt(before))
            .exec(&self.db)
            .await?;
        Ok(forgotten.rows_affected)
    }
}
