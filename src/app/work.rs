//! Runs jobs in a process of their own, which serves nobody: `bonito work`.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use super::builder::Gateway;
use super::run::{End, OperationsListener, StopSignals, close, until_stopped};
use crate::config::Settings;
use crate::domain::error::BoxError;
use crate::queue::census::Census;
use crate::queue::worker::Worker;

/// A worker that runs, with the operations listener beside it.
pub struct Working {
    gateway: Gateway,
    worker: Worker,
    census: Census,
    listener: OperationsListener,
    /// Where operations listen.
    pub operations: SocketAddr,
}

impl Working {
    /// Opens the operations listener and takes jobs.
    ///
    /// # Errors
    /// An address cannot be bound.
    pub async fn start(gateway: Gateway, settings: &Settings) -> Result<Self, BoxError> {
        let listener = OperationsListener::open(&gateway, settings).await?;
        Ok(Self {
            worker: gateway.start_worker(settings),
            census: gateway.start_census(),
            operations: listener.address,
            gateway,
            listener,
        })
    }

    /// What is running.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Returns when the process is asked to stop, or when the actors cannot be kept up.
    pub async fn until_stopped(&mut self, signals: StopSignals) -> End {
        until_stopped(&mut self.gateway, signals).await
    }

    /// Lets jobs end, puts back the others, and closes everything.
    pub async fn stop(self) -> End {
        self.gateway.stopping.store(true, Ordering::Release);
        drop(self.census);
        self.worker.stop().await;
        close(self.gateway, self.listener).await
    }
}
