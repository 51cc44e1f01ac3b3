//! A balancer of connections, as in front of replicas: it follows their `/readyz` and knows nothing of HTTP otherwise.
//!
//! It tries nobody else when a replica that was ready refuses a connection; it counts that, so that a test can say that it
//! never happened.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::process::Process;

/// How often each replica is asked.
const INTERVAL: Duration = Duration::from_millis(50);
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A balancer that runs until it is dropped.
pub struct Balancer {
    /// Where it is.
    pub api: String,
    ready: Vec<Arc<AtomicBool>>,
    refused: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Balancer {
    /// One in front of these replicas. Those that are started again in their place are found by themselves.
    pub async fn start(replicas: &[Process]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let api = format!("http://{}", listener.local_addr().expect("it is bound"));
        let refused = Arc::new(AtomicUsize::new(0));
        let ready: Vec<_> = replicas.iter().map(|_| Arc::new(AtomicBool::new(false))).collect();
        let addresses: Vec<SocketAddr> = replicas
            .iter()
            .map(|replica| replica.api.trim_start_matches("http://").parse().expect("an address"))
            .collect();
        let mut tasks = JoinSet::new();
        for (replica, ready) in replicas.iter().zip(&ready) {
            tasks.spawn(watch(format!("{}/readyz", replica.operations), ready.clone()));
        }
        let backends: Vec<_> = addresses.into_iter().zip(ready.iter().cloned()).collect();
        let count = refused.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            for turn in 0_usize.. {
                let (caller, _) = listener.accept().await.expect("it accepts");
                let next = (0..backends.len()).map(|offset| &backends[(turn + offset) % backends.len()]);
                let chosen = next.into_iter().find(|(_, ready)| ready.load(Ordering::Acquire));
                let Some((address, _)) = chosen else {
                    count.fetch_add(1, Ordering::AcqRel);
                    continue;
                };
                connections.spawn(relay(caller, *address, count.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            api,
            ready,
            refused,
            _tasks: tasks,
        }
    }

    /// Returns when all replicas are ready.
    pub async fn until_all_are_ready(&self) {
        let began = Instant::now();
        while !self.ready.iter().all(|ready| ready.load(Ordering::Acquire)) {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "not all replicas become ready"
            );
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Connections that a replica which had said it was ready did not take, and those for which nobody was.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Acquire)
    }
}

async fn watch(url: String, ready: Arc<AtomicBool>) {
    // A connection for each question: what is asked is whether somebody is there.
    let client = reqwest::Client::builder().pool_max_idle_per_host(0).timeout(PATIENCE);
    let client = client.build().expect("a client");
    loop {
        let answer = client.get(&url).send().await;
        ready.store(answer.is_ok_and(|answer| answer.status() == 200), Ordering::Release);
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn relay(mut caller: TcpStream, address: SocketAddr, refused: Arc<AtomicUsize>) {
    let Ok(mut replica) = TcpStream::connect(address).await else {
        refused.fetch_add(1, Ordering::AcqRel);
        return;
    };
    let _ = (caller.set_nodelay(true), replica.set_nodelay(true));
    let _ = tokio::io::copy_bidirectional(&mut caller, &mut replica).await;
}
