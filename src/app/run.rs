//! Runs a gateway: listeners up, until a signal; then say so, stop accepting, let requests finish, drain, and leave.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::builder::Gateway;
use super::first_start::OpenError;
use super::workers::Workers;
use crate::actors::ledger::set_aside;
use crate::actors::snapshot::write_last;
use crate::config::Settings;
use crate::domain::error::BoxError;
use crate::gates::load_gate::LagGate;
use crate::http::server::{self, Closing, Place, ServerLimits};
use crate::http::{self, operations};
use crate::pipeline::Pipeline;
use crate::queue::census::Census;
use crate::queue::worker::Worker;
use crate::store::within;

/// How long streams that were cut off have to tell their callers so.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long connections are kept, where there is a notice at all, for a next request of callers who were not told.
const PARTING: Duration = Duration::from_secs(1);
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
    notice: Duration,
    grace: Duration,
    closing: Closing,
    connections: TaskTracker,
    listeners: TaskTracker,
    operations_listener: OperationsListener,
    workers: Workers,
    /// Runs jobs, if this process does.
    worker: Option<Worker>,
    census: Census,
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
        let api = bind(settings.server.listen, "server.listen").await?;
        let operations_listener = OperationsListener::open(&gateway, settings).await?;
        let mut running = Self {
            api: api.local_addr()?,
            operations: operations_listener.address,
            notice: settings.server.shutdown_notice,
            grace: settings.server.shutdown_grace,
            closing: Closing {
                parting: settings.server.shutdown_notice.min(PARTING),
                ..Closing::default()
            },
            connections: TaskTracker::new(),
            listeners: TaskTracker::new(),
            operations_listener,
            workers: Workers::start(settings.server.workers)?,
            worker: settings.jobs.in_serve.then(|| gateway.start_worker(settings)),
            census: gateway.start_census(),
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
            limits_of(settings),
            running.closing.clone(),
            running.connections.clone(),
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
    pub async fn until_stopped(&mut self, signals: StopSignals) -> End {
        until_stopped(&mut self.gateway, signals).await
    }

    /// Says that it is leaving, stops accepting, lets requests finish until the deadline, writes what is left, and closes
    /// the database.
    pub async fn stop(self) -> End {
        let Self {
            gateway,
            notice,
            grace,
            closing,
            connections,
            worker,
            census,
            ..
        } = self;
        // Before the database is closed.
        drop(census);
        gateway.stopping.store(true, Ordering::Release);
        // Jobs end while requests do; what they asked of providers has to be in the ledger as well.
        let jobs_end = tokio::spawn(async move {
            if let Some(worker) = worker {
                worker.stop().await;
            }
        });
        closing.leaving.cancel();
        // Without actors there is nothing to be gained by serving on.
        if !gateway.root.1.is_finished() {
            tokio::time::sleep(notice).await;
        }
        closing.closed.cancel();
        connections.close();
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
        let _ = jobs_end.await;
        self.listeners.close();
        self.listeners.wait().await;
        close(gateway, self.operations_listener).await
    }
}

/// The operations listener.
pub(super) struct OperationsListener {
    /// Where it listens.
    pub(super) address: SocketAddr,
    closing: Closing,
    connections: TaskTracker,
    serving: JoinHandle<()>,
}

impl OperationsListener {
    /// Opens it.
    pub(super) async fn open(gateway: &Gateway, settings: &Settings) -> Result<Self, BoxError> {
        let listener = bind(settings.operations.listen, "operations.listen").await?;
        let address = listener.local_addr()?;
        let (closing, connections) = (Closing::default(), TaskTracker::new());
        let place = Place::new(Handle::current(), Arc::new(operations::api(gateway.operations.clone())));
        let serving = tokio::spawn(server::serve(
            listener,
            vec![place],
            limits_of(settings),
            closing.clone(),
            connections.clone(),
        ));
        Ok(Self {
            address,
            closing,
            connections,
            serving,
        })
    }

    async fn close(self) {
        self.closing.closed.cancel();
        self.connections.close();
        let _ = tokio::time::timeout(LAST_WORDS, self.connections.wait()).await;
        let _ = self.serving.await;
    }
}

async fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener, BoxError> {
    let bound = TcpListener::bind(address).await;
    Ok(bound.map_err(|error| format!("{setting} = {address}: {error}"))?)
}

fn limits_of(settings: &Settings) -> ServerLimits {
    ServerLimits {
        max_connections: settings.server.max_connections,
        header_read_timeout: settings.server.header_read_timeout,
        write_stall: settings.server.write_stall,
    }
}

/// Returns when the process is asked to stop, or when the actors cannot be kept up.
pub(super) async fn until_stopped(gateway: &mut Gateway, signals: StopSignals) -> End {
    tokio::select! {
        () = signals.received() => End::Clean,
        _ = &mut gateway.root.1 => {
            tracing::error!("the actors cannot be kept up, the process stops");
            End::Unclean
        }
        error = not_ours(&mut gateway.catching_up) => {
            tracing::error!(%error, "the database that was away at the start is not this gateway's, the process stops");
            End::Unclean
        }
    }
}

/// Returns if a database that was away at the start turns out to be another's.
async fn not_ours(catching_up: &mut Option<JoinHandle<Result<(), OpenError>>>) -> OpenError {
    if let Some(waiting) = catching_up {
        let ended = waiting.await;
        *catching_up = None;
        if let Ok(Err(error)) = ended {
            return error;
        }
    }
    std::future::pending().await
}

/// Writes what is left, stops the actors and closes the database. Nobody makes requests any more.
pub(super) async fn close(gateway: Gateway, operations: OperationsListener) -> End {
    let mut end = End::Clean;
    gateway.limiter.close().await;
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
    if !gateway.http.pipeline.payloads.drained(LAST_WORDS).await {
        tracing::warn!("some prompts and answers that were to be kept are not");
    }
    let all_written = end == End::Clean;
    if let Some(waiting) = gateway.catching_up {
        waiting.abort();
    }
    let (root, ended) = gateway.root;
    root.stop(None);
    // Polled to its end already if it is what stopped us.
    if !ended.is_finished() {
        let _ = ended.await;
    }
    write_last(&gateway.snapshot).await;
    // What is not in the ledger must stay set aside until it is.
    if all_written && let Err(error) = within(LAST_WORDS, gateway.store.return_slices()).await {
        tracing::warn!(%error, "parts of budgets were not given back, they are free again in a minute");
    }
    operations.close().await;
    let journal = gateway.journal;
    let _ = tokio::task::spawn_blocking(move || journal.close()).await;
    gateway.store.close().await;
    // Last, because everything before it has spans.
    if let Some(exporter) = gateway.exporter {
        exporter.stop().await;
    }
    end
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

/// SIGTERM, SIGINT and SIGHUP. They are listened for from the moment this is made, which is before anybody can see that the process
/// is up: until then a signal simply ends it.
pub struct StopSignals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    /// A terminal is gone: its process has records to write like any other.
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
}

impl StopSignals {
    /// Begins to listen.
    ///
    /// # Errors
    /// The system does not let us.
    pub fn listen() -> std::io::Result<Self> {
        #[cfg(unix)]
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            #[cfg(unix)]
            terminate: signal(SignalKind::terminate())?,
            #[cfg(unix)]
            interrupt: signal(SignalKind::interrupt())?,
            #[cfg(unix)]
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Returns when one has come.
    async fn received(self) {
        #[cfg(unix)]
        {
            let Self {
                mut terminate,
                mut interrupt,
                mut hangup,
            } = self;
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
            }
        }
        #[cfg(not(unix))]
        {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}
