//! The order of changes to what replicas keep in memory, by counters in the database and by no clock.
//!
//! A change takes the next number inside its own transaction and holds the counter's row until it commits. So changes
//! become visible in the order of their numbers: whoever reads the counter first and the rows after it has seen every
//! change up to that number.

use std::time::Duration;

use entity::gateway_revisions;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{ColumnTrait, ConnectionTrait, DatabaseBackend, DatabaseTransaction, EntityTrait, QueryFilter};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use uuid::Uuid;

use super::{Store, StoreError};
use crate::domain::key::Revision;

/// A kind of change: the name of its counter, and the channel on which Postgres tells of it.
pub(super) struct Kind {
    counter: &'static str,
    channel: &'static str,
}

/// Changes to keys, and to the teams and organizations that own them.
pub(super) const KEYS: Kind = Kind {
    counter: "keys",
    channel: "bonito_keys",
};
/// Changes to organizations' gateway configs.
pub(super) const CONFIGS: Kind = Kind {
    counter: "configs",
    channel: "bonito_configs",
};

/// Changes to users and their sessions.
pub(super) const USERS: Kind = Kind {
    counter: "users",
    channel: "bonito_users",
};

/// Jobs that were enqueued. They have no counter: whoever hears of one looks for it.
pub(super) const JOBS: Kind = Kind {
    counter: "jobs",
    channel: "bonito_jobs",
};

impl Kind {
    /// The statement that tells of a change when its transaction commits.
    pub(super) fn notify(&self) -> String {
        format!("NOTIFY {}", self.channel)
    }
}

/// How long to wait before the connection for notifications is tried again.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// A change under way.
pub(super) struct Change {
    /// What it is made in.
    pub transaction: DatabaseTransaction,
    /// Its number.
    pub revision: i64,
    channel: &'static str,
    about: Option<Uuid>,
}

impl Store {
    /// The number of the last change to a key, or to a team or organization that owns keys.
    ///
    /// # Errors
    /// The database fails.
    pub async fn key_revision(&self) -> Result<Revision, StoreError> {
        self.revision(&KEYS).await
    }

    /// The number of the last change of a kind.
    pub(super) async fn revision(&self, kind: &Kind) -> Result<Revision, StoreError> {
        read(&self.db, kind).await.map(Revision)
    }

    /// Begins a change of keys. Others that change keys wait until it ends.
    pub(super) async fn begin_key_change(&self) -> Result<Change, StoreError> {
        self.begin_change(&KEYS).await
    }

    /// Begins a change. Others that change things of the same kind wait until it ends.
    pub(super) async fn begin_change(&self, kind: &Kind) -> Result<Change, StoreError> {
        let transaction = self.begin().await?;
        gateway_revisions::Entity::update_many()
            .col_expr(
                gateway_revisions::Column::Value,
                Expr::col(gateway_revisions::Column::Value).add(1),
            )
            .filter(gateway_revisions::Column::Name.eq(kind.counter))
            .exec(&transaction)
            .await?;
        let revision = read(&transaction, kind).await?;
        Ok(Change {
            transaction,
            revision,
            channel: kind.channel,
            about: None,
        })
    }

    /// Tells when keys change, where the database can: Postgres does. It may tell too often, and while its connection is
    /// lost it tells nothing, so that it cannot replace looking now and then.
    pub fn watch_keys(&self) -> Option<Watch> {
        self.watch(&KEYS)
    }

    /// The same for organizations' gateway configs.
    pub fn watch_configs(&self) -> Option<Watch> {
        self.watch(&CONFIGS)
    }

    pub(super) fn watch(&self, kind: &Kind) -> Option<Watch> {
        (self.backend() == DatabaseBackend::Postgres).then(|| Watch {
            options: PgConnectOptions::clone(&self.db.get_postgres_connection_pool().connect_options()),
            listener: None,
            channel: kind.channel,
        })
    }
}

impl Change {
    /// Says what alone is changed, so that whoever is told need not ask.
    pub(super) fn is_about(&mut self, id: Uuid) {
        self.about = Some(id);
    }

    /// Makes the change known if it touched any row, or else forgets it. Says whether it did.
    pub(super) async fn finish(self, rows: u64) -> Result<bool, StoreError> {
        if rows == 0 {
            self.transaction.rollback().await?;
            return Ok(false);
        }
        if self.transaction.get_database_backend() == DatabaseBackend::Postgres {
            // Sent with the commit, and never without it.
            let notify = match self.about {
                None => format!("NOTIFY {}", self.channel),
                Some(id) => format!("NOTIFY {}, '{id}'", self.channel),
            };
            self.transaction.execute_unprepared(&notify).await?;
        }
        self.transaction.commit().await?;
        Ok(true)
    }
}

async fn read(db: &impl ConnectionTrait, kind: &Kind) -> Result<i64, StoreError> {
    let counter = gateway_revisions::Entity::find_by_id(kind.counter).one(db).await?;
    counter
        .map(|counter| counter.value)
        .ok_or_else(|| StoreError::RecordNotFound(format!("the counter of changes to {}", kind.counter)))
}

/// Hears of changes of one kind, on a connection of its own.
pub struct Watch {
    options: PgConnectOptions,
    listener: Option<PgListener>,
    channel: &'static str,
}

impl Watch {
    /// Returns when something changed, or when they may have: after a time without a connection nobody knows. Says what it
    /// was, where it was one thing alone.
    pub async fn changed(&mut self) -> Option<Uuid> {
        loop {
            match self.next().await {
                Ok(about) => return about,
                Err(error) => {
                    // The look that is made now and then finds out as well; this is only slower.
                    tracing::debug!(%error, channel = self.channel, "no notifications of changes");
                    self.listener = None;
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                }
            }
        }
    }

    async fn next(&mut self) -> Result<Option<Uuid>, sqlx::Error> {
        if let Some(listener) = &mut self.listener {
            let told = listener.try_recv().await?;
            return Ok(told.and_then(|told| told.payload().parse().ok()));
        }
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_with(self.options.clone())
            .await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(self.channel).await?;
        self.listener = Some(listener);
        Ok(None)
    }
}
