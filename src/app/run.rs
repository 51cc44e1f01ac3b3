//! Runs a gateway: listeners up, until a signal; then stop accepting, let requests finish, drain, and leave.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::builder::Gateway;
use super::workers::Workers;
use crate::actors::ledger::set_aside;
use crate::config::Settings;
use crate::domain::error::BoxError;
use crate::gates::load_gate::LagGate;
use crate::http::server::{self, Place, ServerLimits};
use crate::http::{self, operations};
use crate::pipeline::Pipeline;
use crate::store::within;

/// How long streams that were cut off have to tell their callers so.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Records written at a time when nobody else writes them any more.
const LAST_BATCH: usize = 500;
/// How long the last usage records may take to reach the database.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// A gateway that is listening.
pub struct Running {
    gateway: Gateway,
    /// Where the API listens.
    pub api: SocketAddr,
    /// Where operations listen.
    pub operations: SocketAddr,
    grace: Duration,
    stop_accepting: CancellationToken,
    stop_operations: CancellationToken,
    connections: TaskTracker,
    operations_connections: TaskTracker,
    listeners: TaskTracker,
    workers: Workers,
    pipelines: Vec<Weak<Pipeline>>,
}

/// How a gateway ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Everybody got an answer, if only that there is no more time, and every record is written.
    Clean,
    /// Something was not.
    Unclean,
}

impl Running {
    /// Opens the listeners.
    ///
    /// # Errors
    /// An address cannot be bound.
    pub async fn start(gateway: Gateway, settings: &Settings) -> Result<Self, BoxError> {
        let bind = async |address: SocketAddr, setting: &str| {
            TcpListener::bind(address)
                .await
                .map_err(|error| format!("{setting} = {address}: {error}"))
        };
        let api = bind(settings.server.listen, "server.listen").await?;
        let operations = bind(settings.operations.listen, "operations.listen").await?;
        let limits = ServerLimits {
            max_connections: settings.server.max_connections,
            header_read_timeout: settings.server.header_read_timeout,
            write_stall: settings.server.write_stall,
        };
        let mut running = Self {
            api: api.local_addr()?,
            operations: operations.local_addr()?,
            grace: settings.server.shutdown_grace,
            stop_accepting: CancellationToken::new(),
            stop_operations: CancellationToken::new(),
            connections: TaskTracker::new(),
            operations_connections: TaskTracker::new(),
            listeners: TaskTracker::new(),
            workers: Workers::start(settings.server.workers)?,
            pipelines: Vec::new(),
            gateway,
        };
        // Each worker has connections to providers of its own, so that a request never changes threads.
        let mut places = Vec::new();
        for runtime in running.workers.handles() {
            let state = running.gateway.http_for_another_worker(settings);
            running.pipelines.push(Arc::downgrade(&state.pipeline));
            runtime.spawn(LagGate::watch(Arc::downgrade(&state.pipeline.lag)));
            places.push(Place::new(runtime.clone(), Arc::new(http::api(state))));
        }
        running.listeners.spawn(server::serve(
            api,
            places,
            limits,
            running.stop_accepting.clone(),
            running.connections.clone(),
        ));
        running.listeners.spawn(server::serve(
            operations,
            vec![Place::new(
                Handle::current(),
                Arc::new(operations::api(running.gateway.operations.clone())),
            )],
            limits,
            running.stop_operations.clone(),
            running.operations_connections.clone(),
        ));
        Ok(running)
    }

    /// What is running.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// The workers' pipelines. Once the gateway has stopped none may be left: each would be held by a task that is left.
    pub fn pipelines(&self) -> Vec<Weak<Pipeline>> {
        self.pipelines.clone()
    }

    /// Returns when the process is asked to stop, or when the actors cannot be kept up.
    pub async fn until_stopped(&mut self) -> End {
        tokio::select! {
            () = signalled() => End::Clean,
            _ = &mut self.gateway.root.1 => {
                tracing::error!("the actors cannot be kept up, the process stops");
                End::Unclean
            }
        }
    }

    /// Stops accepting, lets requests finish until the deadline, writes what is left, and closes the database.
    pub async fn stop(self) -> End {
        let Self {
            gateway,
            grace,
            connections,
            ..
        } = self;
        gateway.stopping.store(true, Ordering::Release);
        self.stop_accepting.cancel();
        connections.close();
        let mut end = End::Clean;
        if tokio::time::timeout(grace, connections.wait()).await.is_err() {
            tracing::warn!(
                connections = connections.len(),
                "requests outlast the grace period and are cut off"
            );
            gateway.cut_streams.cancel();
            let _ = tokio::time::timeout(LAST_WORDS, connections.wait()).await;
        }
        // Whatever is left on the workers is dropped now, and its records are in the journal before it is written out.
        self.workers.stop().await;
        gateway.limiter.close().await;
        gateway.upkeep.stop().await;
        gateway.keys.flush().await;
        match gateway.ledger.drain(DRAIN_TIMEOUT).await {
            Some(0) => {}
            // The actor is gone; the records are not.
            None if write_without_actor(&gateway).await => {}
            left => {
                tracing::error!(
                    records = left,
                    "usage records could not be written to the database, they wait in the journal for the next start"
                );
                end = End::Unclean;
            }
        }
        let all_written = end == End::Clean;
        let (root, ended) = gateway.root;
        root.stop(None);
        // Polled to its end already if it is what stopped us.
        if !ended.is_finished() {
            let _ = ended.await;
        }
        // What is not in the ledger must stay set aside until it is.
        if all_written && let Err(error) = within(LAST_WORDS, gateway.store.return_slices()).await {
            tracing::warn!(%error, "parts of budgets were not given back, they are free again in a minute");
        }
        self.stop_operations.cancel();
        self.operations_connections.close();
        let _ = tokio::time::timeout(LAST_WORDS, self.operations_connections.wait()).await;
        self.listeners.close();
        self.listeners.wait().await;
        let journal = gateway.journal;
        let _ = tokio::task::spawn_blocking(move || journal.close()).await;
        gateway.store.close().await;
        end
    }
}

/// Writes the records that wait, without the actor that would. Says whether all are written.
async fn write_without_actor(gateway: &Gateway) -> bool {
    while let Some(batch) = gateway.journal.batch(LAST_BATCH).await {
        match within(DRAIN_TIMEOUT, gateway.store.write_records(batch.records())).await {
            Ok(refused) => set_aside(&refused, &gateway.journal, &gateway.metrics),
            Err(error) => {
                tracing::error!(records = batch.records().len(), %error, "writing the last usage records failed");
                return false;
            }
        }
        batch.commit();
    }
    true
}

/// Waits for SIGTERM or SIGINT.
async fn signalled() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).expect("signals can be listened for");
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    }
    #[cfg(not(unix))]
    {
        let _ = tokio::signal::ctrl_c().await;
    }
}
