//! The threads that serve requests, each with a runtime of its own.
//!
//! A request, its connection and its provider's connection live on one thread. On a shared runtime each of the handovers
//! between them may wake another core, which costs more than everything the gateway does to a request. Actors, the
//! database and operations stay on the shared runtime, where a slow query delays nobody's stream.

use std::io;
use std::thread::JoinHandle;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// The serving threads.
pub struct Workers {
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
    handles: Vec<Handle>,
}

impl Workers {
    /// Starts so many threads; 0 is one for each core.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(count: usize) -> io::Result<Self> {
        let count = if count == 0 {
            std::thread::available_parallelism().map_or(1, usize::from)
        } else {
            count
        };
        let mut workers = Self {
            stop: CancellationToken::new(),
            threads: Vec::new(),
            handles: Vec::new(),
        };
        for number in 0..count {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            workers.handles.push(runtime.handle().clone());
            let stop = workers.stop.clone();
            let thread = std::thread::Builder::new().name(format!("serve-{number}"));
            workers
                .threads
                .push(thread.spawn(move || runtime.block_on(stop.cancelled()))?);
        }
        Ok(workers)
    }

    /// Their runtimes.
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// Ends the threads. What still runs on them is dropped, which settles it.
    pub async fn stop(self) {
        self.stop.cancel();
        let joined = tokio::task::spawn_blocking(move || {
            for thread in self.threads {
                if thread.join().is_err() {
                    tracing::error!("a serving thread panicked");
                }
            }
        });
        let _ = joined.await;
    }
}
