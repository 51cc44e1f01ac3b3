//! The connection to Redis, and when it is not to be relied on.
//!
//! Nobody waits for it longer than a few milliseconds, `redis.timeout_ms`. After a few failures in a row nobody waits at
//! all: whoever asks hears at once that replicas are apart, and only a task in the background finds out when that is over.
//!
//! The connections have a thread of their own, so that a process that is busy does not look like a Redis that is slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Pool;
use fred::interfaces::{ClientLike as _, KeysInterface as _};
use fred::types::config::{Config, ReconnectPolicy, UnresponsiveConfig};
use fred::types::scripts::Script;
use fred::types::{Builder, Expiration, Value};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::domain::error::BoxError;
use crate::domain::window;
use crate::telemetry::limits::LimitMetrics;

/// Failures in a row after which nobody waits any more.
const FAILURES_UNTIL_APART: u32 = 3;
/// How often it is tried again then.
const PROBE_EVERY: Duration = Duration::from_millis(200);
/// Tries in a row that must succeed before requests rely on it again.
const PROBES_UNTIL_BACK: u32 = 2;
/// How long a start waits for the first connection, and how long a command is kept that nobody waits for any more.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// Connections.
const CONNECTIONS: usize = 2;
/// How long a replica's requests under way are believed in without hearing from it.
pub const BELIEF: Duration = Duration::from_secs(10);

/// Redis did not do what it was asked, or not in time.
#[derive(Debug)]
pub struct Away;

/// The connection.
pub struct Redis {
    link: Arc<Link>,
    /// The number of the last report.
    reports: AtomicU64,
    /// Ends the thread of the connections.
    _stop: DropGuard,
}

struct Link {
    pool: Pool,
    script: Script,
    prefix: String,
    replica: String,
    patience: Duration,
    apart: AtomicBool,
    failures: AtomicU32,
    metrics: Arc<LimitMetrics>,
}

/// What the script is asked about one count.
pub struct Item {
    /// Its name.
    pub key: String,
    /// What about it.
    pub arguments: Vec<Value>,
}

/// What the script answers.
#[derive(Debug)]
pub struct Answer {
    /// Whether everything fitted, and was taken.
    pub fits: bool,
    /// Redis' clock, in milliseconds.
    pub now_ms: u64,
    /// What Redis has as proof that it still knows what it was told.
    pub memory: i64,
    /// For each item, in order.
    pub items: Vec<[i64; 4]>,
}

/// Where Redis is, and how it is used.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://…` or one of its kin.
    pub url: String,
    /// What every name in it begins with.
    pub prefix: String,
    /// This process, among the replicas.
    pub replica: String,
    /// How long an answer may take.
    pub patience: Duration,
}

impl std::fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may hold a password.
        f.debug_struct("RedisOptions")
            .field("prefix", &self.prefix)
            .field("replica", &self.replica)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

impl Redis {
    /// Connects, or goes on trying in the background.
    ///
    /// # Errors
    /// The URL cannot be one of Redis, or there can be no thread for it.
    pub async fn connect(options: RedisOptions, metrics: Arc<LimitMetrics>) -> Result<Self, BoxError> {
        // The error would quote the URL, password included.
        let config = Config::from_url(&options.url).map_err(|_| "redis.url is not an address of Redis")?;
        let stop = CancellationToken::new();
        let (told, link) = tokio::sync::oneshot::channel();
        let stopped = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("bonito-redis".into()).spawn(move || {
            runtime.block_on(async {
                let link = match open(config, options, metrics).await {
                    Ok(link) => Arc::new(link),
                    Err(error) => return drop(told.send(Err(error))),
                };
                let _ = told.send(Ok(link.clone()));
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = probe(&link) => {}
                }
            });
        })?;
        Ok(Self {
            link: link.await??,
            reports: AtomicU64::new(0),
            _stop: stop.drop_guard(),
        })
    }

    /// Whether Redis is away, so that replicas cannot count together.
    pub fn is_away(&self) -> bool {
        self.link.apart.load(Ordering::Acquire)
    }

    /// What every name begins with.
    pub fn prefix(&self) -> &str {
        &self.link.prefix
    }

    /// The number of the next report of requests under way. They rise for as long as the process lives, also where a count
    /// is forgotten and begun anew: Redis takes a lower one for one that was overtaken.
    pub fn next_report(&self) -> u64 {
        self.reports.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Asks about some counts of one organization, all or nothing.
    ///
    /// # Errors
    /// [`Away`], after `redis.timeout_ms` at the latest. It may have been done nevertheless.
    pub async fn ask(&self, memory: String, items: Vec<Item>) -> Result<Answer, Away> {
        self.ask_at(0, memory, items).await
    }

    /// The same by another clock than Redis' own; for tests.
    ///
    /// # Errors
    /// As [`Redis::ask`].
    pub async fn ask_at(&self, now_ms: u64, memory: String, items: Vec<Item>) -> Result<Answer, Away> {
        if self.is_away() {
            return Err(Away);
        }
        let (begun, count, link) = (Instant::now(), items.len(), &*self.link);
        let mut keys = Vec::with_capacity(count + 1);
        let mut arguments = Vec::with_capacity(6 + 8 * count);
        keys.push(memory);
        arguments.extend([
            whole(now_ms),
            whole(window::BUCKET_MS),
            whole(window::BUCKETS),
            whole(ms(window::EXPIRY)),
            Value::from(link.replica.as_str()),
            whole(ms(BELIEF)),
        ]);
        for item in items {
            keys.push(item.key);
            arguments.extend(item.arguments);
        }
        let client = link.pool.next_connected();
        let asked = link
            .script
            .evalsha_with_reload::<Vec<i64>, _, _>(client, keys, arguments);
        let answer = link.in_time(asked).await;
        link.said(
            begun,
            answer.and_then(|numbers| read(&numbers, count).ok_or("malformed")),
        )
    }

    /// What is kept under a name, and how long it still will be. Both are asked for at once.
    ///
    /// # Errors
    /// As [`Redis::ask`].
    pub async fn kept(&self, name: &str) -> Result<Option<(Bytes, Duration)>, Away> {
        if self.is_away() {
            return Err(Away);
        }
        let (begun, link) = (Instant::now(), &*self.link);
        let client = link.pool.next_connected();
        let asked = async {
            let both = tokio::try_join!(client.get::<Option<Bytes>, _>(name), client.pttl::<i64, _>(name));
            both.map(|(value, left)| value.zip(u64::try_from(left).ok().map(Duration::from_millis)))
        };
        let answer = link.in_time(asked).await;
        link.said(begun, answer)
    }

    /// Keeps something under a name for a time. Nobody waits for that, so its failures are counted and no more: many bytes
    /// may take long on a Redis that is well.
    pub async fn keep(&self, name: &str, value: Bytes, time: Duration) {
        let (begun, link) = (Instant::now(), &*self.link);
        let left = i64::try_from(time.as_millis()).unwrap_or(i64::MAX).max(1);
        let client = link.pool.next_connected();
        let told = client.set::<(), _, _>(name, value, Some(Expiration::PX(left)), None, false);
        let failure = match told.await {
            Ok(()) => None,
            Err(error) => Some(reason_of(&error)),
        };
        link.metrics.redis_call(begun.elapsed(), failure);
    }

    /// Says goodbye.
    pub async fn close(&self) {
        let _ = tokio::time::timeout(CONNECT_PATIENCE, self.link.pool.quit()).await;
    }
}

/// Opens the connections, on the runtime this is called on.
async fn open(config: Config, options: RedisOptions, metrics: Arc<LimitMetrics>) -> Result<Link, BoxError> {
    let pool = Builder::from_config(Config {
        // Otherwise a first connection that fails is the last one: who starts without Redis would never be with it.
        fail_fast: false,
        ..config
    })
    // Whoever asks has a shorter patience; this clears away what was asked in vain.
    .with_performance_config(|performance| performance.default_command_timeout = CONNECT_PATIENCE)
    .with_connection_config(|connection| {
        connection.connection_timeout = CONNECT_PATIENCE;
        connection.internal_command_timeout = CONNECT_PATIENCE;
        connection.max_command_attempts = 1;
        connection.max_command_buffer_len = 10_000;
        connection.reconnect_on_auth_error = true;
        connection.tcp.nodelay = Some(true);
        connection.unresponsive = UnresponsiveConfig {
            max_timeout: Some(CONNECT_PATIENCE),
            interval: Duration::from_millis(250),
        };
    })
    .set_policy(ReconnectPolicy::new_constant(0, 200))
    .build_pool(CONNECTIONS)?;
    let _ = pool.connect_pool();
    let link = Link {
        pool,
        script: Script::from_lua(include_str!("window.lua")),
        prefix: options.prefix,
        replica: options.replica,
        patience: options.patience,
        apart: AtomicBool::new(false),
        failures: AtomicU32::new(0),
        metrics,
    };
    let connected = tokio::time::timeout(CONNECT_PATIENCE, link.pool.wait_for_connect()).await;
    if !matches!(connected, Ok(Ok(()))) {
        link.is_apart("no connection");
    }
    Ok(link)
}

impl Link {
    /// What Redis says within the time that somebody waits for it.
    async fn in_time<T>(&self, asked: impl Future<Output = Result<T, fred::error::Error>>) -> Result<T, &'static str> {
        match tokio::time::timeout(self.patience, asked).await {
            Ok(said) => said.map_err(|error| reason_of(&error)),
            Err(_) => Err("timeout"),
        }
    }

    /// Counts what came of a question, and finds Redis away after a few failures in a row.
    fn said<T>(&self, begun: Instant, answer: Result<T, &'static str>) -> Result<T, Away> {
        self.metrics.redis_call(begun.elapsed(), answer.as_ref().err().copied());
        answer
            .inspect(|_| self.failures.store(0, Ordering::Relaxed))
            .map_err(|reason| {
                if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_UNTIL_APART {
                    self.is_apart(reason);
                }
                Away
            })
    }

    fn is_apart(&self, reason: &'static str) {
        if !self.apart.swap(true, Ordering::AcqRel) {
            tracing::warn!(reason, "redis is away, replicas count apart");
            self.metrics.redis_away.set(1);
        }
    }

    fn is_back(&self) {
        self.failures.store(0, Ordering::Relaxed);
        if self.apart.swap(false, Ordering::AcqRel) {
            tracing::info!("redis is back, replicas count together");
            self.metrics.redis_away.set(0);
        }
    }

    /// Whether Redis answers in time, and takes what it is told: one that is out of memory answers as well.
    async fn is_well(&self) -> bool {
        let key = format!("{}:probe:{}", self.prefix, self.replica);
        for client in self.pool.clients() {
            let told = client.set::<(), _, _>(key.as_str(), 1, Some(Expiration::EX(10)), None, false);
            if !matches!(tokio::time::timeout(self.patience, told).await, Ok(Ok(()))) {
                return false;
            }
        }
        true
    }
}

/// Finds out when Redis is back.
async fn probe(link: &Link) {
    let mut well = 0;
    loop {
        tokio::time::sleep(PROBE_EVERY).await;
        if !link.apart.load(Ordering::Acquire) {
            well = 0;
            continue;
        }
        well = if link.is_well().await { well + 1 } else { 0 };
        if well >= PROBES_UNTIL_BACK {
            link.is_back();
        }
    }
}

/// Why Redis did not do what it was asked, as the metrics have it.
fn reason_of(error: &fred::error::Error) -> &'static str {
    if *error.kind() == fred::error::ErrorKind::Timeout {
        return "timeout";
    }
    tracing::debug!(%error, "redis failed");
    "error"
}

fn read(numbers: &[i64], count: usize) -> Option<Answer> {
    let (&[fits, now_ms, memory], rest) = numbers.split_first_chunk::<3>()?;
    let items: Vec<[i64; 4]> = rest.as_chunks::<4>().0.to_vec();
    (items.len() == count).then_some(Answer {
        fits: fits == 1,
        now_ms: u64::try_from(now_ms).ok()?,
        memory,
        items,
    })
}

/// A number as the script takes it. None comes near the bound.
pub fn whole(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

/// A duration in milliseconds.
pub fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
