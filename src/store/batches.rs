//! Files of callers in sealed pieces, and batches with what came of their lines so far.
//!
//! Everything belongs to a key of an organization; another key's id answers like a missing one. Whoever manages the
//! organization sees the batches of all its keys, and nothing of what is in them. What is sealed comes and goes sealed.

use chrono::{DateTime, Utc};
use entity::{batch_results, batches, file_chunks, files};
use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict};
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Set, UpdateMany};
use serde_json::{Value, json};
use uuid::Uuid;

use super::jobs::{enqueue, hurry, keys_alive};
use super::{Store, StoreError, storable, storable_text};
use crate::domain::batch::{Batch, BatchFilter, BatchStatus, Holder, StoredFile};
use crate::domain::ids::{KeyId, OrganizationId};
use crate::domain::job::{JobKind, NewJob};

impl Store {
    /// Begins a file, which nobody sees until it is complete.
    ///
    /// # Errors
    /// The database fails.
    pub async fn begin_file(&self, file: &StoredFile) -> Result<(), StoreError> {
        let row = files::ActiveModel {
            id: Set(file.id),
            organization_id: Set(file.holder.organization.0),
            key_id: Set(file.holder.key.0),
            purpose: Set(storable_text(&file.purpose)),
            filename: Set(storable_text(&file.filename)),
            bytes: Set(0),
            chunks: Set(0),
            complete: Set(false),
            created_at: Set(storable(file.created_at)),
            expires_at: Set(storable(file.expires_at)),
        };
        files::Entity::insert(row)
            .exec_without_returning(&self.db)
            .await
            .map(drop)
    }

    /// Adds a sealed piece to a file that is not complete.
    ///
    /// # Errors
    /// The database fails.
    pub async fn add_chunk(&self, file: Uuid, number: u32, sealed: Vec<u8>) -> Result<(), StoreError> {
        let row = file_chunks::ActiveModel {
            file_id: Set(file),
            number: Set(i32::try_from(number).unwrap_or(i32::MAX)),
            sealed: Set(sealed),
        };
        file_chunks::Entity::insert(row)
            .exec_without_returning(&self.db)
            .await
            .map(drop)
    }

    /// Makes a file one that is seen.
    ///
    /// # Errors
    /// The database fails.
    pub async fn complete_file(&self, file: &StoredFile) -> Result<(), StoreError> {
        use files::Column;
        files::Entity::update_many()
            .col_expr(
                Column::Bytes,
                Expr::value(i64::try_from(file.bytes).unwrap_or(i64::MAX)),
            )
            .col_expr(
                Column::Chunks,
                Expr::value(i32::try_from(file.chunks).unwrap_or(i32::MAX)),
            )
            .col_expr(Column::Purpose, Expr::value(storable_text(&file.purpose)))
            .col_expr(Column::Filename, Expr::value(storable_text(&file.filename)))
            .col_expr(Column::Complete, Expr::value(true))
            .filter(Column::Id.eq(file.id))
            .exec(&self.db)
            .await
            .map(drop)
    }

    /// A key's complete files, newest first, before one of them.
    ///
    /// # Errors
    /// The database fails.
    pub async fn files(
        &self,
        holder: Holder,
        purpose: Option<&str>,
        before: Option<Uuid>,
        limit: u64,
    ) -> Result<Vec<StoredFile>, StoreError> {
        use files::Column;
        let mut query = files::Entity::find()
            .filter(Column::OrganizationId.eq(holder.organization.0))
            .filter(Column::KeyId.eq(holder.key.0))
            .filter(Column::Complete.eq(true))
            .order_by_desc(Column::Id)
            .limit(limit);
        if let Some(purpose) = purpose {
            query = query.filter(Column::Purpose.eq(storable_text(purpose)));
        }
        if let Some(before) = before {
            query = query.filter(Column::Id.lt(before));
        }
        Ok(query.all(&self.db).await?.into_iter().map(file_of).collect())
    }

    /// One of a key's complete files.
    ///
    /// # Errors
    /// The database fails.
    pub async fn file(&self, holder: Holder, id: Uuid) -> Result<Option<StoredFile>, StoreError> {
        let found = files::Entity::find_by_id(id)
            .filter(files::Column::OrganizationId.eq(holder.organization.0))
            .filter(files::Column::KeyId.eq(holder.key.0))
            .filter(files::Column::Complete.eq(true))
            .one(&self.db)
            .await?;
        Ok(found.map(file_of))
    }

    /// A sealed piece of a file.
    ///
    /// # Errors
    /// The database fails.
    pub async fn chunk(&self, file: Uuid, number: u32) -> Result<Option<Vec<u8>>, StoreError> {
        let key = (file, i32::try_from(number).unwrap_or(i32::MAX));
        let found = file_chunks::Entity::find_by_id(key).one(&self.db).await?;
        Ok(found.map(|chunk| chunk.sealed))
    }

    /// Deletes a file of a key, complete or not. Says whether there was one.
    ///
    /// # Errors
    /// The database fails.
    pub async fn delete_file(&self, holder: Holder, id: Uuid) -> Result<bool, StoreError> {
        let deleted = files::Entity::delete_many()
            .filter(files::Column::Id.eq(id))
            .filter(files::Column::OrganizationId.eq(holder.organization.0))
            .filter(files::Column::KeyId.eq(holder.key.0))
            .exec(&self.db)
            .await?;
        Ok(deleted.rows_affected > 0)
    }

    /// Forgets files whose time is over, and those that were begun before a time and never completed.
    ///
    /// # Errors
    /// The database fails.
    pub async fn forget_files(
        &self,
        now: DateTime<Utc>,
        begun_before: DateTime<Utc>,
        most: u64,
    ) -> Result<u64, StoreError> {
        use files::Column;
        let given_up = Condition::all()
            .add(Column::Complete.eq(false))
            .add(Column::CreatedAt.lt(begun_before));
        let ids: Vec<Uuid> = files::Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Condition::any().add(Column::ExpiresAt.lt(now)).add(given_up))
            .limit(most)
            .into_tuple()
            .all(&self.db)
            .await?;
        let deleted = files::Entity::delete_many()
            .filter(Column::Id.is_in(ids))
            .exec(&self.db)
            .await?;
        Ok(deleted.rows_affected)
    }

    /// Creates a batch, with the job that serves it.
    ///
    /// # Errors
    /// The database fails.
    pub async fn create_batch(&self, batch: &Batch) -> Result<(), StoreError> {
        let row = batches::ActiveModel {
            id: Set(batch.id),
            organization_id: Set(batch.holder.organization.0),
            key_id: Set(batch.holder.key.0),
            endpoint: Set(batch.endpoint.clone()),
            completion_window: Set(batch.completion_window.clone()),
            input_file_id: Set(batch.input_file),
            output_file_id: Set(None),
            error_file_id: Set(None),
            status: Set(BatchStatus::Validating.as_str().into()),
            errors: Set(None),
            metadata: Set(batch.metadata.clone()),
            total: Set(0),
            completed: Set(0),
            failed: Set(0),
            ending: Set(None),
            created_at: Set(storable(batch.created_at)),
            expires_at: Set(storable(batch.expires_at)),
            in_progress_at: Set(None),
            finalizing_at: Set(None),
            cancelling_at: Set(None),
            finished_at: Set(None),
        };
        let job = NewJob {
            organization: Some(batch.holder.organization),
            key: Some(batch.id.to_string()),
            // Nobody's batches take all the places.
            lane: Some(batch.holder.organization.0),
            ..NewJob::new(JobKind::Batch, json!({"batch": batch.id, "key": batch.holder.key.0}))
        };
        let transaction = self.begin().await?;
        batches::Entity::insert(row)
            .exec_without_returning(&transaction)
            .await?;
        enqueue(&transaction, &job).await?;
        transaction.commit().await
    }

    /// One of a key's batches.
    ///
    /// # Errors
    /// The database fails.
    pub async fn batch(&self, holder: Holder, id: Uuid) -> Result<Option<Batch>, StoreError> {
        let found = batches::Entity::find_by_id(id)
            .filter(batches::Column::OrganizationId.eq(holder.organization.0))
            .filter(batches::Column::KeyId.eq(holder.key.0))
            .one(&self.db)
            .await?;
        Ok(found.map(batch_of))
    }

    /// A key's batches, newest first, before one of them.
    ///
    /// # Errors
    /// The database fails.
    pub async fn batches(&self, holder: Holder, before: Option<Uuid>, limit: u64) -> Result<Vec<Batch>, StoreError> {
        use batches::Column;
        let mut query = batches::Entity::find()
            .filter(Column::OrganizationId.eq(holder.organization.0))
            .filter(Column::KeyId.eq(holder.key.0))
            .order_by_desc(Column::Id)
            .limit(limit);
        if let Some(before) = before {
            query = query.filter(Column::Id.lt(before));
        }
        Ok(query.all(&self.db).await?.into_iter().map(batch_of).collect())
    }

    /// An organization's batches, whichever key's they are, newest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn batches_of(
        &self,
        organization: OrganizationId,
        filter: BatchFilter,
        limit: u64,
    ) -> Result<Vec<Batch>, StoreError> {
        use batches::Column;
        let mut query = batches::Entity::find()
            .filter(Column::OrganizationId.eq(organization.0))
            .order_by_desc(Column::Id)
            .limit(limit);
        if let Some(key) = filter.key {
            query = query.filter(Column::KeyId.eq(key.0));
        }
        if let Some(status) = filter.status {
            query = query.filter(Column::Status.eq(status.as_str()));
        }
        if let Some(before) = filter.before {
            query = query.filter(Column::Id.lt(before));
        }
        Ok(query.all(&self.db).await?.into_iter().map(batch_of).collect())
    }

    /// Asks for a batch to be cancelled. Gives what it is afterwards; `None`: there is no such batch.
    ///
    /// # Errors
    /// The database fails.
    pub async fn cancel_batch(&self, holder: Holder, id: Uuid) -> Result<Option<Batch>, StoreError> {
        use batches::Column;
        let transaction = self.begin().await?;
        let cancelled = batches::Entity::update_many()
            .col_expr(Column::Status, Expr::value(BatchStatus::Cancelling.as_str()))
            .col_expr(Column::CancellingAt, Expr::value(Some(storable(Utc::now()))))
            .filter(Column::Id.eq(id))
            .filter(Column::OrganizationId.eq(holder.organization.0))
            .filter(Column::KeyId.eq(holder.key.0))
            .filter(Column::Status.is_in([BatchStatus::Validating.as_str(), BatchStatus::InProgress.as_str()]))
            .exec(&transaction)
            .await?;
        if cancelled.rows_affected > 0 {
            // Its job may be waiting for a limit.
            hurry(&transaction, JobKind::Batch, &id.to_string()).await?;
        }
        transaction.commit().await?;
        self.batch(holder, id).await
    }

    /// A batch's file was read: it has so many lines, or so many faults. Says whether that is still wanted.
    ///
    /// # Errors
    /// The database fails.
    pub async fn batch_validated(&self, id: Uuid, total: u32, faults: Option<Value>) -> Result<bool, StoreError> {
        use batches::Column;
        let now = Some(storable(Utc::now()));
        let update = batches::Entity::update_many().col_expr(Column::Total, Expr::value(number(total)));
        let update = match faults {
            None => update
                .col_expr(Column::Status, Expr::value(BatchStatus::InProgress.as_str()))
                .col_expr(Column::InProgressAt, Expr::value(now)),
            Some(faults) => update
                .col_expr(Column::Status, Expr::value(BatchStatus::Failed.as_str()))
                .col_expr(Column::Errors, Expr::value(Some(faults)))
                .col_expr(Column::FinishedAt, Expr::value(now)),
        };
        self.if_in(update, id, &[BatchStatus::Validating]).await
    }

    /// A batch cannot be served, for no reason of its owner's.
    ///
    /// # Errors
    /// The database fails.
    pub async fn batch_failed(&self, id: Uuid) -> Result<bool, StoreError> {
        self.fail(Condition::all().add(batches::Column::Id.eq(id))).await
    }

    /// Gives up batches whose time was over before a moment and that have no job any more, as many as are named at most. One
    /// whose job only waits is not lost: the job writes its files and lets it expire.
    ///
    /// # Errors
    /// The database fails.
    pub async fn fail_lost_batches(&self, expired_before: DateTime<Utc>, most: u64) -> Result<bool, StoreError> {
        use batches::Column;
        let over = BatchStatus::ALL.into_iter().filter(|status| status.is_over());
        let late: Vec<Uuid> = batches::Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::ExpiresAt.lt(expired_before))
            .filter(Column::Status.is_not_in(over.map(BatchStatus::as_str)))
            .order_by_asc(Column::ExpiresAt)
            .limit(most)
            .into_tuple()
            .all(&self.db)
            .await?;
        let names: Vec<String> = late.iter().map(Uuid::to_string).collect();
        let alive = keys_alive(&self.db, JobKind::Batch, &names).await?;
        let lost = late.into_iter().filter(|id| !alive.contains(&id.to_string()));
        self.fail(Condition::all().add(Column::Id.is_in(lost))).await
    }

    async fn fail(&self, which: Condition) -> Result<bool, StoreError> {
        use batches::Column;
        let fault =
            json!({"code": "server_error", "line": null, "message": "the batch could not be served", "param": null});
        let over = BatchStatus::ALL.into_iter().filter(|status| status.is_over());
        let failed = batches::Entity::update_many()
            .col_expr(Column::Status, Expr::value(BatchStatus::Failed.as_str()))
            .col_expr(
                Column::Errors,
                Expr::value(Some(json!({"object": "list", "data": [fault]}))),
            )
            .col_expr(Column::FinishedAt, Expr::value(Some(storable(Utc::now()))))
            .filter(which)
            .filter(Column::Status.is_not_in(over.map(BatchStatus::as_str)))
            .exec(&self.db)
            .await?;
        Ok(failed.rows_affected > 0)
    }

    /// The lines of a batch that something came of.
    ///
    /// # Errors
    /// The database fails.
    pub async fn lines_done(&self, id: Uuid) -> Result<Vec<u32>, StoreError> {
        let lines: Vec<i32> = batch_results::Entity::find()
            .select_only()
            .column(batch_results::Column::Line)
            .filter(batch_results::Column::BatchId.eq(id))
            .order_by_asc(batch_results::Column::Line)
            .into_tuple()
            .all(&self.db)
            .await?;
        Ok(lines.into_iter().filter_map(|line| u32::try_from(line).ok()).collect())
    }

    /// Keeps what came of a line, unless something is kept already, and counts it. Gives how far the batch is.
    ///
    /// # Errors
    /// The database fails.
    pub async fn line_done(
        &self,
        id: Uuid,
        line: u32,
        ok: bool,
        sealed: Vec<u8>,
    ) -> Result<Option<BatchStatus>, StoreError> {
        use batches::Column;
        let transaction = self.begin().await?;
        let row = batch_results::ActiveModel {
            batch_id: Set(id),
            line: Set(number(line)),
            ok: Set(ok),
            sealed: Set(sealed),
        };
        let unless_there = OnConflict::columns([batch_results::Column::BatchId, batch_results::Column::Line])
            .do_nothing()
            .to_owned();
        let new = batch_results::Entity::insert(row)
            .on_conflict(unless_there)
            .exec_without_returning(&transaction)
            .await?;
        if new > 0 {
            let counter = if ok { Column::Completed } else { Column::Failed };
            batches::Entity::update_many()
                .col_expr(counter, Expr::col(counter).add(1))
                .filter(Column::Id.eq(id))
                .exec(&transaction)
                .await?;
        }
        let status = batches::Entity::find_by_id(id).one(&transaction).await?;
        transaction.commit().await?;
        Ok(status.and_then(|row| BatchStatus::parse(&row.status)))
    }

    /// A batch's files are written from now on; it becomes `ending` afterwards.
    ///
    /// # Errors
    /// The database fails.
    pub async fn batch_finalizing(&self, id: Uuid, ending: BatchStatus) -> Result<bool, StoreError> {
        use batches::Column;
        let update = batches::Entity::update_many()
            .col_expr(Column::Status, Expr::value(BatchStatus::Finalizing.as_str()))
            .col_expr(Column::Ending, Expr::value(Some(ending.as_str())))
            .col_expr(Column::FinalizingAt, Expr::value(Some(storable(Utc::now()))));
        let from = [
            BatchStatus::Validating,
            BatchStatus::InProgress,
            BatchStatus::Cancelling,
        ];
        self.if_in(update, id, &from).await
    }

    /// What came of a batch's lines, well or not, after one of them.
    ///
    /// # Errors
    /// The database fails.
    pub async fn results(&self, id: Uuid, ok: bool, after: u32, most: u64) -> Result<Vec<(u32, Vec<u8>)>, StoreError> {
        use batch_results::Column;
        let rows = batch_results::Entity::find()
            .filter(Column::BatchId.eq(id))
            .filter(Column::Ok.eq(ok))
            .filter(Column::Line.gt(number(after)))
            .order_by_asc(Column::Line)
            .limit(most)
            .all(&self.db)
            .await?;
        let results = rows.into_iter();
        Ok(results
            .filter_map(|row| Some((u32::try_from(row.line).ok()?, row.sealed)))
            .collect())
    }

    /// A batch is over: its files are seen, and what its lines were kept as is forgotten.
    ///
    /// # Errors
    /// The database fails; then nothing changed.
    pub async fn batch_over(
        &self,
        id: Uuid,
        ending: BatchStatus,
        output: Option<&StoredFile>,
        errors: Option<&StoredFile>,
    ) -> Result<bool, StoreError> {
        use batches::Column;
        let transaction = self.begin().await?;
        let over = batches::Entity::update_many()
            .col_expr(Column::Status, Expr::value(ending.as_str()))
            .col_expr(Column::OutputFileId, Expr::value(output.map(|file| file.id)))
            .col_expr(Column::ErrorFileId, Expr::value(errors.map(|file| file.id)))
            .col_expr(Column::FinishedAt, Expr::value(Some(storable(Utc::now()))))
            .filter(Column::Id.eq(id))
            .filter(Column::Status.eq(BatchStatus::Finalizing.as_str()))
            .exec(&transaction)
            .await?;
        if over.rows_affected == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        for file in [output, errors].into_iter().flatten() {
            use files::Column;
            files::Entity::update_many()
                .col_expr(
                    Column::Bytes,
                    Expr::value(i64::try_from(file.bytes).unwrap_or(i64::MAX)),
                )
                .col_expr(Column::Chunks, Expr::value(number(file.chunks)))
                .col_expr(Column::Complete, Expr::value(true))
                .filter(Column::Id.eq(file.id))
                .exec(&transaction)
                .await?;
        }
        batch_results::Entity::delete_many()
            .filter(batch_results::Column::BatchId.eq(id))
            .exec(&transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn if_in(
        &self,
        update: UpdateMany<batches::Entity>,
        id: Uuid,
        from: &[BatchStatus],
    ) -> Result<bool, StoreError> {
        let done = update
            .filter(batches::Column::Id.eq(id))
            .filter(batches::Column::Status.is_in(from.iter().map(|status| status.as_str())))
            .exec(&self.db)
            .await?;
        Ok(done.rows_affected > 0)
    }
}

fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

fn file_of(row: files::Model) -> StoredFile {
    StoredFile {
        id: row.id,
        holder: Holder {
            organization: OrganizationId(row.organization_id),
            key: KeyId(row.key_id),
        },
        purpose: row.purpose,
        filename: row.filename,
        bytes: u64::try_from(row.bytes).unwrap_or(0),
        chunks: count(row.chunks),
        created_at: row.created_at,
        expires_at: row.expires_at,
    }
}

fn batch_of(row: batches::Model) -> Batch {
    Batch {
        id: row.id,
        holder: Holder {
            organization: OrganizationId(row.organization_id),
            key: KeyId(row.key_id),
        },
        endpoint: row.endpoint,
        completion_window: row.completion_window,
        input_file: row.input_file_id,
        output_file: row.output_file_id,
        error_file: row.error_file_id,
        status: BatchStatus::parse(&row.status).unwrap_or(BatchStatus::Failed),
        errors: row.errors,
        metadata: row.metadata,
        total: count(row.total),
        completed: count(row.completed),
        failed: count(row.failed),
        ending: row.ending.as_deref().and_then(BatchStatus::parse),
        created_at: row.created_at,
        expires_at: row.expires_at,
        in_progress_at: row.in_progress_at,
        finalizing_at: row.finalizing_at,
        cancelling_at: row.cancelling_at,
        finished_at: row.finished_at,
    }
}
