//! Exports: tables in sealed pieces, which a job writes one behind the other.
//!
//! A piece goes with how far the export is, in one transaction that only the job's present worker can commit. So an export
//! goes on where its last piece ends, and no piece is written twice, whatever becomes of workers. One that was deleted or
//! whose time is over is gone for everybody at once; its pieces are removed later, a few at a time.

use chrono::{DateTime, Utc};
use entity::{gateway_export_pieces, gateway_exports};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, Condition, DatabaseTransaction, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, Set,
};
use serde_json::json;
use uuid::Uuid;

use super::jobs::{enqueue, is_held};
use super::{Store, StoreError, audit, storable, storable_text};
use crate::domain::audit::{Author, Deed};
use crate::domain::export::{Export, ExportQuestion, ExportState};
use crate::domain::ids::OrganizationId;
use crate::domain::job::{Claim, JobKind, NewJob};

/// Exports that an organization may have at a time.
pub const MOST_EXPORTS: u64 = 20;

/// A piece of an export, and how far the export is with it.
#[derive(Clone, Debug)]
pub struct ExportStep {
    /// The piece, sealed.
    pub sealed: Vec<u8>,
    /// Its bytes before it was sealed.
    pub bytes: u64,
    /// Its lines.
    pub rows: u64,
    /// Where requests go on.
    pub next: Option<Uuid>,
    /// Whether it is the last one.
    pub ends: bool,
}

impl Store {
    /// Begins an export, and the job that writes it. `None`: the organization has as many as it may.
    ///
    /// # Errors
    /// The database fails; then nothing was begun.
    pub async fn begin_export(
        &self,
        organization: OrganizationId,
        question: &ExportQuestion,
        expires_at: DateTime<Utc>,
        by: &Author,
    ) -> Result<Option<Export>, StoreError> {
        let transaction = self.begin_write().await?;
        let kept = gateway_exports::Entity::find()
            .filter(of(organization))
            .count(&transaction)
            .await?;
        if kept >= MOST_EXPORTS {
            transaction.rollback().await?;
            return Ok(None);
        }
        let id = Uuid::now_v7();
        let job = NewJob {
            organization: Some(organization),
            lane: Some(organization.0),
            ..NewJob::new(JobKind::Export, json!({"export": id}))
        };
        let job = enqueue(&transaction, &job).await?;
        let text = serde_json::to_string(question).map_err(|error| StoreError::Json(error.to_string()))?;
        let row = gateway_exports::Model {
            id,
            organization_id: organization.0,
            job_id: job.0,
            author: storable_text(&by.subject),
            question: storable_text(&text),
            state: ExportState::Running.as_str().to_owned(),
            failure: None,
            rows: 0,
            bytes: 0,
            pieces: 0,
            position: None,
            created_at: storable(Utc::now()),
            finished_at: None,
            expires_at: storable(expires_at),
        };
        let insert: gateway_exports::ActiveModel = row.clone().into();
        gateway_exports::Entity::insert(sea_orm::ActiveModelTrait::reset_all(insert))
            .exec_without_returning(&transaction)
            .await?;
        let (from, to) = question.span();
        let deed = Deed::new("export.create", id)
            .after(json!({"of": question.noun(), "from": from, "to": to, "job": job.0, "expires_at": expires_at}));
        audit::record(&transaction, organization, by, deed).await?;
        transaction.commit().await?;
        read(row).map(Some)
    }

    /// An export of an organization.
    ///
    /// # Errors
    /// The database fails.
    pub async fn export(&self, organization: OrganizationId, id: Uuid) -> Result<Option<Export>, StoreError> {
        let found = gateway_exports::Entity::find_by_id(id)
            .filter(of(organization))
            .one(&self.db)
            .await?;
        found.map(read).transpose()
    }

    /// Exports of an organization, newest first, before one of them.
    ///
    /// # Errors
    /// The database fails.
    pub async fn exports(
        &self,
        organization: OrganizationId,
        before: Option<Uuid>,
        most: u64,
    ) -> Result<Vec<Export>, StoreError> {
        use gateway_exports::Column;
        let found = gateway_exports::Entity::find()
            .filter(of(organization))
            .filter(Condition::all().add_option(before.map(|before| Column::Id.lt(before))))
            .order_by_desc(Column::Id)
            .limit(most)
            .all(&self.db)
            .await?;
        found.into_iter().map(read).collect()
    }

    /// A sealed piece of an export.
    ///
    /// # Errors
    /// The database fails.
    pub async fn export_piece(
        &self,
        organization: OrganizationId,
        export: Uuid,
        number: u32,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        // Asked for each piece: what is deleted meanwhile breaks off.
        if self.export(organization, export).await?.is_none() {
            return Ok(None);
        }
        let piece = gateway_export_pieces::Entity::find_by_id((export, i32::try_from(number).unwrap_or(i32::MAX)))
            .one(&self.db)
            .await?;
        Ok(piece.map(|piece| piece.sealed))
    }

    /// Deletes an export: nobody sees it any more, and its job ends. `false`: there is none.
    ///
    /// # Errors
    /// The database fails; then nothing has changed.
    pub async fn delete_export(&self, organization: OrganizationId, id: Uuid, by: &Author) -> Result<bool, StoreError> {
        use gateway_exports::Column;
        let transaction = self.begin_write().await?;
        let over = gateway_exports::Entity::update_many()
            .col_expr(Column::ExpiresAt, Expr::value(storable(Utc::now())))
            .filter(Column::Id.eq(id))
            .filter(of(organization))
            .exec(&transaction)
            .await?;
        if over.rows_affected == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        audit::record(&transaction, organization, by, Deed::new("export.delete", id)).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Adds the next piece to an export as it was last read. `false`: it is somebody else's now, was deleted, or is over.
    ///
    /// # Errors
    /// The database fails; then nothing has changed.
    pub async fn advance_export(&self, export: &Export, step: ExportStep, by: Claim) -> Result<bool, StoreError> {
        use gateway_exports::Column;
        let number = i32::try_from(export.pieces).unwrap_or(i32::MAX);
        let Some(transaction) = self.while_held(by).await? else {
            return Ok(false);
        };
        let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let mut update = gateway_exports::Entity::update_many()
            .col_expr(Column::Pieces, Expr::value(number.saturating_add(1)))
            .col_expr(Column::Bytes, Expr::value(whole(export.bytes + step.bytes)))
            .col_expr(Column::Rows, Expr::value(whole(export.rows + step.rows)))
            .col_expr(Column::Position, Expr::value(step.next.or(export.position)));
        if step.ends {
            update = update
                .col_expr(Column::State, Expr::value(ExportState::Done.as_str()))
                .col_expr(Column::FinishedAt, Expr::value(Some(storable(Utc::now()))));
        }
        let advanced = update
            .filter(under_way(export))
            .filter(Column::Pieces.eq(number))
            .exec(&transaction)
            .await?;
        if advanced.rows_affected == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        let piece = gateway_export_pieces::ActiveModel {
            export_id: Set(export.id),
            number: Set(number),
            sealed: Set(step.sealed),
        };
        gateway_export_pieces::Entity::insert(piece)
            .exec_without_returning(&transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Forgets what is written of an export that cannot go on where it was.
    ///
    /// # Errors
    /// The database fails; then nothing has changed.
    pub async fn restart_export(&self, export: &Export, by: Claim) -> Result<bool, StoreError> {
        use gateway_exports::Column;
        let update = gateway_exports::Entity::update_many()
            .col_expr(Column::Pieces, Expr::value(0))
            .col_expr(Column::Bytes, Expr::value(0_i64))
            .col_expr(Column::Rows, Expr::value(0_i64));
        self.without_pieces(export, update, by).await
    }

    /// An export cannot be written. What is written of it is forgotten.
    ///
    /// # Errors
    /// The database fails; then nothing has changed.
    pub async fn fail_export(&self, export: &Export, why: &str, by: Claim) -> Result<bool, StoreError> {
        use gateway_exports::Column;
        let update = gateway_exports::Entity::update_many()
            .col_expr(Column::State, Expr::value(ExportState::Failed.as_str()))
            .col_expr(Column::Failure, Expr::value(Some(storable_text(why))))
            .col_expr(Column::FinishedAt, Expr::value(Some(storable(Utc::now()))));
        self.without_pieces(export, update, by).await
    }

    async fn without_pieces(
        &self,
        export: &Export,
        update: sea_orm::UpdateMany<gateway_exports::Entity>,
        by: Claim,
    ) -> Result<bool, StoreError> {
        let Some(transaction) = self.while_held(by).await? else {
            return Ok(false);
        };
        let done = update.filter(under_way(export)).exec(&transaction).await?;
        if done.rows_affected == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        gateway_export_pieces::Entity::delete_many()
            .filter(gateway_export_pieces::Column::ExportId.eq(export.id))
            .exec(&transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// A transaction to write in for a job, if it still is its worker's.
    async fn while_held(&self, by: Claim) -> Result<Option<DatabaseTransaction>, StoreError> {
        let transaction = self.begin_write().await?;
        if is_held(&transaction, by).await? {
            return Ok(Some(transaction));
        }
        transaction.rollback().await?;
        Ok(None)
    }

    /// Removes pieces of exports whose time was over before a moment, as many as are named at most, and then these exports.
    /// Gives how many pieces were removed: fewer than named where none are left.
    ///
    /// # Errors
    /// The database fails.
    pub async fn forget_exports(&self, now: DateTime<Utc>, most: u64) -> Result<u64, StoreError> {
        use gateway_export_pieces::Column;
        let over: Vec<Uuid> = gateway_exports::Entity::find()
            .select_only()
            .column(gateway_exports::Column::Id)
            .filter(gateway_exports::Column::ExpiresAt.lte(storable(now)))
            .order_by_asc(gateway_exports::Column::Id)
            .limit(most)
            .into_tuple()
            .all(&self.db)
            .await?;
        let mut removed = 0;
        for export in over {
            let numbers: Vec<i32> = gateway_export_pieces::Entity::find()
                .select_only()
                .column(Column::Number)
                .filter(Column::ExportId.eq(export))
                .limit(most - removed)
                .into_tuple()
                .all(&self.db)
                .await?;
            let pieces = gateway_export_pieces::Entity::delete_many()
                .filter(Column::ExportId.eq(export))
                .filter(Column::Number.is_in(numbers))
                .exec(&self.db)
                .await?;
            removed += pieces.rows_affected;
            if removed >= most {
                return Ok(removed);
            }
            gateway_exports::Entity::delete_many()
                .filter(gateway_exports::Column::Id.eq(export))
                .exec(&self.db)
                .await?;
        }
        Ok(removed)
    }
}

/// Those of an organization that are there.
fn of(organization: OrganizationId) -> Condition {
    use gateway_exports::Column;
    Condition::all()
        .add(Column::OrganizationId.eq(organization.0))
        .add(Column::ExpiresAt.gt(storable(Utc::now())))
}

/// An export that is to be written.
fn under_way(export: &Export) -> Condition {
    use gateway_exports::Column;
    of(export.organization)
        .add(Column::Id.eq(export.id))
        .add(Column::State.eq(ExportState::Running.as_str()))
}

fn read(row: gateway_exports::Model) -> Result<Export, StoreError> {
    Ok(Export {
        id: row.id,
        organization: OrganizationId(row.organization_id),
        question: serde_json::from_str(&row.question).map_err(|error| StoreError::Json(error.to_string()))?,
        state: ExportState::parse(&row.state).unwrap_or(ExportState::Failed),
        failure: row.failure,
        job: row.job_id,
        author: row.author,
        rows: u64::try_from(row.rows).unwrap_or(0),
        bytes: u64::try_from(row.bytes).unwrap_or(0),
        pieces: u32::try_from(row.pieces).unwrap_or(0),
        position: row.position,
        created_at: row.created_at,
        finished_at: row.finished_at,
        expires_at: row.expires_at,
    })
}
