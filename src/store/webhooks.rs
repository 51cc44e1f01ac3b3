//! Webhooks and what was sent to them.
//!
//! Secrets come and go sealed: this module cannot open them.

use chrono::{DateTime, TimeDelta, Utc};
use entity::{webhook_deliveries, webhooks};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, PaginatorTrait as _, QueryFilter, QueryOrder, QuerySelect, Set,
};
use serde_json::json;
use uuid::Uuid;

use super::audit::record;
use super::events::{deliver, emit, names};
use super::jobs::is_held;
use super::{Store, StoreError, storable, storable_text};
use crate::domain::audit::{Author, Deed};
use crate::domain::event::{self, EventKind};
use crate::domain::ids::OrganizationId;
use crate::domain::job::Claim;
use crate::domain::webhook::{Attempt, Delivery, DeliveryState, MOST, Webhook, WebhookTerms};

/// A delivery with what it takes to make it.
#[derive(Clone, Debug)]
pub struct ToDeliver {
    /// The delivery.
    pub delivery: Delivery,
    /// The webhook.
    pub webhook: Webhook,
    /// Its secrets, sealed, newest first.
    pub sealed_secrets: Vec<String>,
}

/// What came of an attempt at a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Came {
    /// The endpoint has it.
    Delivered,
    /// It failed and is tried again.
    Failed,
    /// It failed for the last time.
    GivenUp,
}

impl Store {
    /// Creates a webhook. `None`: the organization has as many as it may have.
    ///
    /// # Errors
    /// The database fails.
    pub async fn create_webhook(
        &self,
        organization: OrganizationId,
        id: Uuid,
        terms: &WebhookTerms,
        sealed_secret: String,
        by: &Author,
    ) -> Result<Option<Webhook>, StoreError> {
        let transaction = self.begin_write().await?;
        let there = webhooks::Entity::find()
            .filter(webhooks::Column::OrganizationId.eq(organization.0))
            .count(&transaction)
            .await?;
        if there >= MOST {
            return Ok(None);
        }
        let now = storable(Utc::now());
        let row = webhooks::ActiveModel {
            id: Set(id),
            organization_id: Set(organization.0),
            url: Set(storable_text(&terms.url)),
            description: Set(storable_text(&terms.description)),
            events: Set(json!(terms.events)),
            enabled: Set(terms.enabled),
            disabled_reason: Set(None),
            failing_since: Set(None),
            secret: Set(sealed_secret),
            previous_secret: Set(None),
            previous_until: Set(None),
            created_at: Set(now),
            updated_at: Set(now),
        };
        let created = view(webhooks::Entity::insert(row).exec_with_returning(&transaction).await?);
        let deed = Deed::new("webhook.create", id).after(created.recorded());
        record(&transaction, organization, by, deed).await?;
        transaction.commit().await?;
        Ok(Some(created))
    }

    /// An organization's webhooks, oldest first, after one of them.
    ///
    /// # Errors
    /// The database fails.
    pub async fn webhooks(
        &self,
        organization: OrganizationId,
        after: Option<Uuid>,
        limit: u64,
    ) -> Result<Vec<Webhook>, StoreError> {
        let mut query = webhooks::Entity::find()
            .filter(webhooks::Column::OrganizationId.eq(organization.0))
            .order_by_asc(webhooks::Column::Id)
            .limit(limit);
        if let Some(after) = after {
            query = query.filter(webhooks::Column::Id.gt(after));
        }
        Ok(query.all(&self.db).await?.into_iter().map(view).collect())
    }

    /// One of an organization's webhooks.
    ///
    /// # Errors
    /// The database fails.
    pub async fn webhook(&self, organization: OrganizationId, id: Uuid) -> Result<Option<Webhook>, StoreError> {
        Ok(row(&self.db, organization, id).await?.map(view))
    }

    /// Changes a webhook as a whole. One that is switched on again begins without a past.
    ///
    /// # Errors
    /// The database fails.
    pub async fn change_webhook(
        &self,
        organization: OrganizationId,
        id: Uuid,
        terms: &WebhookTerms,
        by: &Author,
    ) -> Result<Option<Webhook>, StoreError> {
        use webhooks::Column;
        let transaction = self.begin_write().await?;
        let Some(before) = row(&transaction, organization, id).await?.map(view) else {
            return Ok(None);
        };
        let changed = webhooks::Entity::update_many()
            .col_expr(Column::Url, Expr::value(storable_text(&terms.url)))
            .col_expr(Column::Description, Expr::value(storable_text(&terms.description)))
            .col_expr(Column::Events, Expr::value(json!(terms.events)))
            .col_expr(Column::Enabled, Expr::value(terms.enabled))
            .col_expr(Column::DisabledReason, Expr::value(None::<String>))
            .col_expr(Column::FailingSince, Expr::value(None::<DateTime<Utc>>))
            .col_expr(Column::UpdatedAt, Expr::value(storable(Utc::now())))
            .filter(Column::OrganizationId.eq(organization.0))
            .filter(Column::Id.eq(id))
            .exec_with_returning(&transaction)
            .await?;
        let Some(changed) = changed.into_iter().next().map(view) else {
            return Ok(None);
        };
        let deed = Deed::new("webhook.change", id).before(before.recorded());
        record(&transaction, organization, by, deed.after(changed.recorded())).await?;
        transaction.commit().await?;
        Ok(Some(changed))
    }

    /// Gives a webhook a new secret. Events are signed with the one before as well, for a while.
    ///
    /// # Errors
    /// The database fails.
    pub async fn rotate_webhook(
        &self,
        organization: OrganizationId,
        id: Uuid,
        sealed_secret: String,
        overlap: TimeDelta,
        by: &Author,
    ) -> Result<Option<Webhook>, StoreError> {
        use webhooks::Column;
        let now = storable(Utc::now());
        let transaction = self.begin_write().await?;
        let until = (overlap > TimeDelta::zero()).then(|| storable(now + overlap));
        // The columns on the right are those before the change.
        let rotated = webhooks::Entity::update_many()
            .col_expr(Column::PreviousSecret, Expr::col(Column::Secret))
            .col_expr(Column::PreviousUntil, Expr::value(until))
            .col_expr(Column::Secret, Expr::value(sealed_secret))
            .col_expr(Column::UpdatedAt, Expr::value(now))
            .filter(Column::OrganizationId.eq(organization.0))
            .filter(Column::Id.eq(id))
            .exec_with_returning(&transaction)
            .await?;
        let Some(rotated) = rotated.into_iter().next().map(view) else {
            return Ok(None);
        };
        let deed = Deed::new("webhook.rotate", id).after(json!({"old_also_until": rotated.previous_until}));
        record(&transaction, organization, by, deed).await?;
        transaction.commit().await?;
        Ok(Some(rotated))
    }

    /// Deletes a webhook with everything that was sent to it. Says whether there was one.
    ///
    /// # Errors
    /// The database fails.
    pub async fn delete_webhook(
        &self,
        organization: OrganizationId,
        id: Uuid,
        by: &Author,
    ) -> Result<bool, StoreError> {
        let transaction = self.begin_write().await?;
        let Some(before) = row(&transaction, organization, id).await?.map(view) else {
            return Ok(false);
        };
        webhooks::Entity::delete_many()
            .filter(webhooks::Column::OrganizationId.eq(organization.0))
            .filter(webhooks::Column::Id.eq(id))
            .exec(&transaction)
            .await?;
        let deed = Deed::new("webhook.delete", id).before(before.recorded());
        record(&transaction, organization, by, deed).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Sends a test event to one webhook, whatever it wants. Gives the delivery; `None`: there is no such webhook.
    ///
    /// # Errors
    /// The database fails.
    pub async fn test_webhook(
        &self,
        organization: OrganizationId,
        id: Uuid,
        by: &Author,
    ) -> Result<Option<Delivery>, StoreError> {
        let transaction = self.begin_write().await?;
        if row(&transaction, organization, id).await?.is_none() {
            return Ok(None);
        }
        let kind = EventKind::WebhookTest;
        let body = event::body(
            kind,
            &organization.to_string(),
            storable(Utc::now()),
            json!({"webhook_id": id}),
        );
        let sent = deliver(&transaction, organization, id, Uuid::now_v7(), kind.as_str(), body).await?;
        let delivery = delivery_row(&transaction, organization, id, sent).await?;
        record(&transaction, organization, by, Deed::new("webhook.test", id)).await?;
        transaction.commit().await?;
        Ok(delivery.map(delivery_view))
    }

    /// What was sent to a webhook, newest first, before one of them.
    ///
    /// # Errors
    /// The database fails.
    pub async fn deliveries(
        &self,
        organization: OrganizationId,
        webhook: Uuid,
        state: Option<DeliveryState>,
        before: Option<Uuid>,
        limit: u64,
    ) -> Result<Vec<Delivery>, StoreError> {
        use webhook_deliveries::Column;
        let mut query = webhook_deliveries::Entity::find()
            .filter(Column::OrganizationId.eq(organization.0))
            .filter(Column::WebhookId.eq(webhook))
            .order_by_desc(Column::Id)
            .limit(limit);
        if let Some(state) = state {
            query = query.filter(Column::State.eq(state.as_str()));
        }
        if let Some(before) = before {
            query = query.filter(Column::Id.lt(before));
        }
        Ok(query.all(&self.db).await?.into_iter().map(delivery_view).collect())
    }

    /// Sends what was sent before once more, under the same name. Gives the new delivery; `None`: there is no such one.
    ///
    /// # Errors
    /// The database fails.
    pub async fn replay_delivery(
        &self,
        organization: OrganizationId,
        webhook: Uuid,
        id: Uuid,
        by: &Author,
    ) -> Result<Option<Delivery>, StoreError> {
        let transaction = self.begin_write().await?;
        let Some(old) = delivery_row(&transaction, organization, webhook, id).await? else {
            return Ok(None);
        };
        let sent = deliver(
            &transaction,
            organization,
            webhook,
            old.event_id,
            &old.event_type,
            old.body,
        )
        .await?;
        let new = delivery_row(&transaction, organization, webhook, sent).await?;
        let deed = Deed::new("webhook.replay", webhook).after(json!({"delivery": id, "again": sent}));
        record(&transaction, organization, by, deed).await?;
        transaction.commit().await?;
        Ok(new.map(delivery_view))
    }

    /// A delivery with what it takes to make it; `None`: it, or its webhook, is no more.
    ///
    /// # Errors
    /// The database fails.
    pub async fn to_deliver(&self, organization: OrganizationId, id: Uuid) -> Result<Option<ToDeliver>, StoreError> {
        let found = webhook_deliveries::Entity::find_by_id(id)
            .filter(webhook_deliveries::Column::OrganizationId.eq(organization.0))
            .one(&self.db)
            .await?;
        let Some(delivery) = found else { return Ok(None) };
        let Some(webhook) = row(&self.db, organization, delivery.webhook_id).await? else {
            return Ok(None);
        };
        let mut sealed_secrets = vec![webhook.secret.clone()];
        if webhook.previous_until.is_some_and(|until| until > Utc::now()) {
            sealed_secrets.extend(webhook.previous_secret.clone());
        }
        Ok(Some(ToDeliver {
            delivery: delivery_view(delivery),
            webhook: view(webhook),
            sealed_secrets,
        }))
    }

    /// Notes an attempt at a delivery by whoever has its job, and what it says about the webhook: one that has failed for longer than `patience`
    /// is switched off, and so is one whose endpoint says that it is `gone`. Others of the organization are told. Nothing changes where somebody else
    /// has the job by now, or the delivery is over: whoever slept past their lease knows nothing of what came of it.
    ///
    /// # Errors
    /// The database fails.
    pub async fn note_attempt(
        &self,
        by: Claim,
        delivery: &Delivery,
        organization: OrganizationId,
        attempt: Option<Attempt>,
        came: Came,
        off: Option<SwitchOff>,
    ) -> Result<bool, StoreError> {
        use webhook_deliveries::Column as Sent;
        use webhooks::Column;
        let now = storable(Utc::now());
        let transaction = self.begin_write().await?;
        let state = match came {
            Came::Delivered => DeliveryState::Delivered,
            Came::Failed => DeliveryState::Waiting,
            Came::GivenUp => DeliveryState::Failed,
        };
        let mut attempts = delivery.attempts.clone();
        attempts.extend(attempt);
        if !is_held(&transaction, by).await? {
            transaction.rollback().await?;
            return Ok(false);
        }
        let noted = webhook_deliveries::Entity::update_many()
            .col_expr(Sent::State, Expr::value(state.as_str()))
            .col_expr(Sent::Attempts, Expr::value(json!(attempts)))
            .col_expr(Sent::FinishedAt, Expr::value((came != Came::Failed).then_some(now)))
            .filter(Sent::Id.eq(delivery.id))
            .filter(Sent::OrganizationId.eq(organization.0))
            .filter(Sent::State.eq(DeliveryState::Waiting.as_str()))
            .exec(&transaction)
            .await?;
        if noted.rows_affected == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        let this = Column::Id.eq(delivery.webhook);
        if came == Came::Delivered {
            webhooks::Entity::update_many()
                .col_expr(Column::FailingSince, Expr::value(None::<DateTime<Utc>>))
                .filter(this)
                .filter(Column::FailingSince.is_not_null())
                .exec(&transaction)
                .await?;
            transaction.commit().await?;
            return Ok(false);
        }
        webhooks::Entity::update_many()
            .col_expr(Column::FailingSince, Expr::value(Some(now)))
            .filter(this.clone())
            .filter(Column::FailingSince.is_null())
            .exec(&transaction)
            .await?;
        let mut switched = false;
        if let Some(off) = off {
            let reason = off.reason();
            let mut update = webhooks::Entity::update_many()
                .col_expr(Column::Enabled, Expr::value(false))
                .col_expr(Column::DisabledReason, Expr::value(Some(reason.clone())))
                .col_expr(Column::UpdatedAt, Expr::value(now))
                .filter(this)
                .filter(Column::Enabled.eq(true));
            if let SwitchOff::FailingFor(patience) = off {
                update = update.filter(Column::FailingSince.lt(now - patience));
            }
            let rows = update.exec_with_returning(&transaction).await?;
            if let Some(row) = rows.into_iter().next() {
                switched = true;
                let data = json!({"webhook_id": row.id, "description": row.description, "reason": reason});
                emit(&transaction, organization, EventKind::WebhookDisabled, data).await?;
                let deed = Deed::new("webhook.disable", row.id).after(json!({"enabled": false, "reason": reason}));
                record(&transaction, organization, &Author::system("webhook delivery"), deed).await?;
            }
        }
        transaction.commit().await?;
        Ok(switched)
    }

    /// Forgets deliveries that were over before a time, as many as are named at most.
    ///
    /// # Errors
    /// The database fails.
    pub async fn forget_deliveries(&self, before: DateTime<Utc>, most: u64) -> Result<u64, StoreError> {
        use webhook_deliveries::Column;
        let ids: Vec<Uuid> = webhook_deliveries::Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::FinishedAt.lt(before))
            .limit(most)
            .into_tuple()
            .all(&self.db)
            .await?;
        let forgotten = webhook_deliveries::Entity::delete_many()
            .filter(Column::Id.is_in(ids))
            .exec(&self.db)
            .await?;
        Ok(forgotten.rows_affected)
    }
}

/// Why a webhook is switched off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SwitchOff {
    /// Its endpoint says that it is gone (410).
    Gone,
    /// It has failed for longer than this.
    FailingFor(TimeDelta),
}

impl SwitchOff {
    fn reason(self) -> String {
        match self {
            Self::Gone => "the endpoint answered 410 Gone".to_owned(),
            Self::FailingFor(patience) => {
                format!("the endpoint has failed for more than {} h", patience.num_hours())
            }
        }
    }
}

async fn row(
    db: &impl ConnectionTrait,
    organization: OrganizationId,
    id: Uuid,
) -> Result<Option<webhooks::Model>, StoreError> {
    webhooks::Entity::find_by_id(id)
        .filter(webhooks::Column::OrganizationId.eq(organization.0))
        .one(db)
        .await
}

async fn delivery_row(
    db: &impl ConnectionTrait,
    organization: OrganizationId,
    webhook: Uuid,
    id: Uuid,
) -> Result<Option<webhook_deliveries::Model>, StoreError> {
    webhook_deliveries::Entity::find_by_id(id)
        .filter(webhook_deliveries::Column::OrganizationId.eq(organization.0))
        .filter(webhook_deliveries::Column::WebhookId.eq(webhook))
        .one(db)
        .await
}

fn view(row: webhooks::Model) -> Webhook {
    Webhook {
        id: row.id,
        organization: OrganizationId(row.organization_id),
        url: row.url,
        description: row.description,
        events: names(&row.events),
        enabled: row.enabled,
        disabled_reason: row.disabled_reason,
        failing_since: row.failing_since,
        previous_until: row.previous_until,
        created_at: row.created_at,
        updated_at: row.updated_at,
    }
}

fn delivery_view(row: webhook_deliveries::Model) -> Delivery {
    Delivery {
        id: row.id,
        webhook: row.webhook_id,
        event: row.event_id,
        kind: row.event_type,
        body: row.body,
        state: DeliveryState::parse(&row.state).unwrap_or(DeliveryState::Failed),
        attempts: serde_json::from_value(row.attempts).unwrap_or_default(),
        created_at: row.created_at,
        finished_at: row.finished_at,
    }
}
