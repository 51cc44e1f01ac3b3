//! The order of changes to keys, by a counter in the database and by no clock.
//!
//! A change takes the next number inside its own transaction and holds the counter's row until it commits. So changes
//! become visible in the order of their numbers: whoever reads the counter first and the rows after it has seen every
//! change up to that number.

use std::time::Duration;

use entity::gateway_revisions;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseBackend, DatabaseTransaction, EntityTrait, QueryFilter, TransactionTrait,
};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};

use super::{Store, StoreError};
use crate::domain::key::Revision;

/// The counter of changes to keys, and to the teams and organizations that own them.
const KEYS: &str = "keys";
/// Where Postgres tells of such a change.
const CHANNEL: &str = "bonito_keys";
/// How long to wait before the connection for notifications is tried again.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// A change of keys under way.
pub(super) struct KeyChange {
    /// What it is made in.
    pub transaction: DatabaseTransaction,
    /// Its number.
    pub revision: i64,
}

impl Store {
    /// The number of the last change to a key, or to a team or organization that owns keys.
    ///
    /// # Errors
    /// The database fails.
    pub async fn key_revision(&self) -> Result<Revision, StoreError> {
        read(&self.db).await.map(Revision)
    }

    /// Begins a change of keys. Others that change keys wait until it ends.
    pub(super) async fn begin_key_change(&self) -> Result<KeyChange, StoreError> {
        let transaction = self.db.begin().await?;
        gateway_revisions::Entity::update_many()
            .col_expr(
                gateway_revisions::Column::Value,
                Expr::col(gateway_revisions::Column::Value).add(1),
            )
            .filter(gateway_revisions::Column::Name.eq(KEYS))
            .exec(&transaction)
            .await?;
        let revision = read(&transaction).await?;
        Ok(KeyChange { transaction, revision })
    }

    /// Tells when keys change, where the database can: Postgres does. It may tell too often, and while its connection is
    /// lost it tells nothing, so that it cannot replace looking now and then.
    pub fn watch_keys(&self) -> Option<KeyWatch> {
        (self.backend() == DatabaseBackend::Postgres).then(|| KeyWatch {
            options: PgConnectOptions::clone(&self.db.get_postgres_connection_pool().connect_options()),
            listener: None,
        })
    }
}

impl KeyChange {
    /// Makes the change known if it touched any row, or else forgets it. Says whether it did.
    pub(super) async fn finish(self, rows: u64) -> Result<bool, StoreError> {
        if rows == 0 {
            self.transaction.rollback().await?;
            return Ok(false);
        }
        if self.transaction.get_database_backend() == DatabaseBackend::Postgres {
            // Sent with the commit, and never without it.
            let notify = format!("NOTIFY {CHANNEL}");
            self.transaction.execute_unprepared(&notify).await?;
        }
        self.transaction.commit().await?;
        Ok(true)
    }
}

async fn read(db: &impl ConnectionTrait) -> Result<i64, StoreError> {
    let counter = gateway_revisions::Entity::find_by_id(KEYS).one(db).await?;
    counter
        .map(|counter| counter.value)
        .ok_or_else(|| StoreError::RecordNotFound("the counter of changes to keys".into()))
}

/// Hears of changes to keys, on a connection of its own.
pub struct KeyWatch {
    options: PgConnectOptions,
    listener: Option<PgListener>,
}

impl KeyWatch {
    /// Returns when keys changed, or when they may have: after a time without a connection nobody knows.
    pub async fn changed(&mut self) {
        while let Err(error) = self.next().await {
            // The look that is made now and then finds out as well; this is only slower.
            tracing::debug!(%error, "no notifications of changed keys");
            self.listener = None;
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }

    async fn next(&mut self) -> Result<(), sqlx::Error> {
        if let Some(listener) = &mut self.listener {
            return listener.try_recv().await.map(drop);
        }
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_with(self.options.clone())
            .await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        self.listener = Some(listener);
        Ok(())
    }
}
