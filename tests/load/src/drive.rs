//! The load itself: many connections, one schedule, one set of figures.
//!
//! A *closed* loop sends the next request when the last one was answered; it finds the most a system can do. An *open*
//! loop sends on a fixed schedule, as the world does, and measures from the moment a request was due: a system that
//! stalls for a second is then charged for every request that should have been sent in that second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use crate::BoxError;
use crate::client::{Ask, Connection, Endpoint, Failure, Prepared, Sender, exchange};
use crate::histogram::{Histogram, Percentiles};

/// How long after its planned end a run may still wait for answers.
const GRACE: Duration = Duration::from_secs(10);
/// A run bounded by a count alone ends here at the latest.
const LONGEST: Duration = Duration::from_mins(10);
/// Failures after which a connection gives up, so that a dead target does not become a busy loop.
const FAILURES_PER_CONNECTION: u64 = 1000;

#[derive(Clone, Debug, clap::Args)]
pub struct DriveArgs {
    /// Base URL, such as `http://127.0.0.1:8001/v1`
    #[arg(long)]
    url: String,
    /// API key; repeat it to spread the load over several
    #[arg(long, default_value = "none")]
    key: Vec<String>,
    #[arg(long, default_value = "gpt-4o-mini")]
    model: String,
    /// Connections; in an open loop, how many requests may be under way at once
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Closed loop: requests to send
    #[arg(long, conflicts_with = "rate", required_unless_present = "seconds")]
    requests: Option<u64>,
    /// How long to send
    #[arg(long)]
    seconds: Option<f64>,
    /// Open loop: requests per second
    #[arg(long, requires = "seconds")]
    rate: Option<f64>,
    /// Ask for streams
    #[arg(long)]
    stream: bool,
    /// Ask for the usage chunk of a stream
    #[arg(long, requires = "stream")]
    include_usage: bool,
    /// Bytes of the prompt
    #[arg(long, default_value_t = 256)]
    prompt_bytes: usize,
    /// Milliseconds over which the connections begin, so that paced streams do not march in step
    #[arg(long, default_value_t = 0)]
    ramp_ms: u64,
}

/// Everything one measurement needs to know.
#[derive(Clone)]
pub struct Load {
    pub endpoint: Endpoint,
    /// Used in turn.
    pub keys: Vec<String>,
    pub ask: Ask,
    pub connections: usize,
    pub schedule: Schedule,
    pub ramp: Duration,
}

#[derive(Clone, Copy, Debug)]
pub enum Schedule {
    /// As fast as answers come, until a count or a time is reached.
    Closed {
        requests: Option<u64>,
        time: Option<Duration>,
    },
    Open {
        per_second: f64,
        time: Duration,
    },
}

/// What a measurement found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// Answered as they should be; the latencies are theirs alone.
    pub requests: u64,
    pub failed: u64,
    /// Failures by kind.
    pub failures: BTreeMap<String, u64>,
    /// Connections the peer closed, or that broke.
    pub reconnects: u64,
    pub elapsed_s: f64,
    pub requests_per_s: f64,
    pub bytes: u64,
    pub latency: Percentiles,
    /// From sending a request to the first event of its stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_chunk: Option<Percentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunks: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunks_per_s: Option<f64>,
}

/// Runs what the command line asks for.
pub async fn drive(args: DriveArgs) -> Result<Figures, BoxError> {
    let time = args.seconds.map(Duration::try_from_secs_f64).transpose()?;
    let schedule = match (args.rate, time) {
        (Some(per_second), Some(time)) => Schedule::Open { per_second, time },
        (_, time) => Schedule::Closed {
            requests: args.requests,
            time,
        },
    };
    let load = Load {
        endpoint: Endpoint::parse(&args.url)?,
        keys: args.key,
        ask: Ask {
            model: args.model,
            prompt_bytes: args.prompt_bytes,
            stream: args.stream,
            include_usage: args.include_usage,
        },
        connections: args.connections.max(1),
        schedule,
        ramp: Duration::from_millis(args.ramp_ms),
    };
    measure(&load).await
}

/// Opens the connections, runs the schedule over them and adds up what each saw.
///
/// # Errors
/// When a connection cannot be opened to begin with. Whatever fails later is counted.
pub async fn measure(load: &Load) -> Result<Figures, BoxError> {
    let prepared: Vec<Prepared> = load
        .keys
        .iter()
        .map(|key| Prepared::new(&load.endpoint, key, &load.ask))
        .collect::<Result<_, _>>()?;
    let mut connections = Vec::with_capacity(load.connections);
    for _ in 0..load.connections {
        connections.push(load.endpoint.connect().await?);
    }

    let course = Arc::new(Course::begin(load, prepared));
    let mut running = JoinSet::new();
    for (number, connection) in connections.into_iter().enumerate() {
        let course = Arc::clone(&course);
        let wait = load.ramp.mul_f64(number as f64 / load.connections as f64);
        running.spawn(async move {
            sleep(wait).await;
            course.run(connection).await
        });
    }
    let mut total = Tally::new();
    while let Some(tally) = running.join_next().await {
        total.add(&tally?);
    }
    Ok(total.figures(course.start, load.ask.stream))
}

/// What the connections of one measurement share.
struct Course {
    endpoint: Endpoint,
    prepared: Vec<Prepared>,
    stream: bool,
    start: Instant,
    /// No request is begun after this.
    last_begin: Instant,
    /// No answer is waited for after this.
    end: Instant,
    taken: AtomicU64,
    /// `None`: as many as fit in the time.
    requests: Option<u64>,
    arrivals: Option<Arrivals>,
}

/// The fixed schedule of an open loop. A permit is released when a request is due.
struct Arrivals {
    due: Arc<Semaphore>,
    per_second: f64,
}

impl Course {
    fn begin(load: &Load, prepared: Vec<Prepared>) -> Self {
        let start = Instant::now();
        let (time, requests, arrivals) = match load.schedule {
            Schedule::Closed { requests, time } => (time.map(|time| time + load.ramp), requests, None),
            Schedule::Open { per_second, time } => {
                let requests = (per_second * time.as_secs_f64()) as u64;
                let arrivals = Arrivals {
                    due: Arc::new(Semaphore::new(0)),
                    per_second,
                };
                arrivals.release(start, requests, load.connections);
                // Late arrivals are still sent, within the grace time.
                (Some(time + GRACE), Some(requests), Some(arrivals))
            }
        };
        let last_begin = start + time.unwrap_or(LONGEST);
        Self {
            endpoint: load.endpoint.clone(),
            prepared,
            stream: load.ask.stream,
            start,
            last_begin,
            end: last_begin + GRACE,
            taken: AtomicU64::new(0),
            requests,
            arrivals,
        }
    }

    /// One connection's part, reopening it as often as it breaks.
    async fn run(&self, mut connection: Connection) -> Tally {
        let mut tally = Tally::new();
        let mut out_of_time = Box::pin(sleep_until(self.end.into()));
        loop {
            let finished = tokio::select! {
                finished = connection.run(async |sender| self.use_connection(sender, &mut tally).await) => finished,
                () = &mut out_of_time => {
                    tally.fail("no answer in time");
                    return tally;
                }
            };
            if finished || tally.failed >= FAILURES_PER_CONNECTION {
                return tally;
            }
            tally.reconnects += 1;
            let Ok(reopened) = self.endpoint.connect().await else {
                tally.fail("cannot connect");
                return tally;
            };
            connection = reopened;
        }
    }

    /// Sends requests until there are none left (true) or the connection can carry no more (false).
    async fn use_connection(&self, sender: &mut Sender, tally: &mut Tally) -> bool {
        loop {
            // A server that closed an idle connection has not failed a request.
            if sender.ready().await.is_err() {
                return false;
            }
            let Some((number, begin)) = self.next().await else {
                return true;
            };
            let prepared = &self.prepared[number as usize % self.prepared.len()];
            match exchange(sender, prepared, self.stream).await {
                Ok(answered) => {
                    let now = Instant::now();
                    tally.latency.record(now - begin);
                    if let Some(first_event) = answered.first_event {
                        tally.first_chunk.record(first_event - begin);
                    }
                    tally.requests += 1;
                    tally.bytes += answered.bytes;
                    tally.chunks += answered.events;
                    tally.last_answer = now;
                }
                Err(failure) => {
                    tally.fail(&failure.to_string());
                    if matches!(failure, Failure::Transport) || tally.failed >= FAILURES_PER_CONNECTION {
                        return false;
                    }
                }
            }
        }
    }

    /// The next request's number and the moment its latency counts from.
    async fn next(&self) -> Option<(u64, Instant)> {
        if let Some(arrivals) = &self.arrivals {
            arrivals.due.acquire().await.ok()?.forget();
        }
        let number = self.taken.fetch_add(1, Relaxed);
        let now = Instant::now();
        if now >= self.last_begin || self.requests.is_some_and(|requests| number >= requests) {
            return None;
        }
        let begin = self
            .arrivals
            .as_ref()
            .map_or(now, |arrivals| arrivals.due_at(self.start, number));
        Some((number, begin))
    }
}

impl Arrivals {
    fn due_at(&self, start: Instant, number: u64) -> Instant {
        start + Duration::from_secs_f64(number as f64 / self.per_second)
    }

    /// Releases permits from a thread of its own: the runtime's timer has millisecond steps, a sleeping thread wakes
    /// within about a tenth of one.
    fn release(&self, start: Instant, requests: u64, connections: usize) {
        let schedule = Self {
            due: Arc::clone(&self.due),
            per_second: self.per_second,
        };
        thread::spawn(move || {
            for number in 0..requests {
                thread::sleep(schedule.due_at(start, number).saturating_duration_since(Instant::now()));
                // The measurement was given up; nobody is waiting.
                if Arc::strong_count(&schedule.due) == 1 {
                    return;
                }
                schedule.due.add_permits(1);
            }
            // One more for every connection, to find that nothing is left.
            schedule.due.add_permits(connections);
        });
    }
}

/// What one connection saw.
struct Tally {
    requests: u64,
    failed: u64,
    failures: BTreeMap<String, u64>,
    reconnects: u64,
    bytes: u64,
    chunks: u64,
    latency: Histogram,
    first_chunk: Histogram,
    last_answer: Instant,
}

impl Tally {
    fn new() -> Self {
        Self {
            requests: 0,
            failed: 0,
            failures: BTreeMap::new(),
            reconnects: 0,
            bytes: 0,
            chunks: 0,
            latency: Histogram::new(),
            first_chunk: Histogram::new(),
            last_answer: Instant::now(),
        }
    }

    fn fail(&mut self, kind: &str) {
        self.failed += 1;
        *self.failures.entry(kind.to_owned()).or_default() += 1;
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        for (kind, count) in &other.failures {
            *self.failures.entry(kind.clone()).or_default() += count;
        }
        self.reconnects += other.reconnects;
        self.bytes += other.bytes;
        self.chunks += other.chunks;
        self.latency.add(&other.latency);
        self.first_chunk.add(&other.first_chunk);
        self.last_answer = self.last_answer.max(other.last_answer);
    }

    fn figures(self, start: Instant, stream: bool) -> Figures {
        let elapsed_s = (self.last_answer - start).as_secs_f64().max(f64::EPSILON);
        Figures {
            requests: self.requests,
            failed: self.failed,
            failures: self.failures,
            reconnects: self.reconnects,
            elapsed_s,
            requests_per_s: self.requests as f64 / elapsed_s,
            bytes: self.bytes,
            latency: self.latency.percentiles(),
            first_chunk: stream.then(|| self.first_chunk.percentiles()),
            chunks: stream.then_some(self.chunks),
            chunks_per_s: stream.then(|| self.chunks as f64 / elapsed_s),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::{BodyExt, Full};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;

    use super::*;
    use crate::mock::{Answers, serve_on};

    const FAST: Answers = Answers {
        delay_ms: 0,
        answer_bytes: 1024,
        chunks: 30,
        chunk_delay_ms: 0,
    };

    fn load(listener: &TcpListener, connections: usize, schedule: Schedule) -> Load {
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        Load {
            endpoint: Endpoint::parse(&url).unwrap(),
            keys: vec!["none".to_owned()],
            ask: Ask {
                model: "gpt-4o-mini".to_owned(),
                prompt_bytes: 64,
                stream: false,
                include_usage: false,
            },
            connections,
            schedule,
            ramp: Duration::ZERO,
        }
    }

    async fn mock_and_load(answers: Answers, connections: usize, schedule: Schedule) -> Load {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let load = load(&listener, connections, schedule);
        tokio::spawn(serve_on(listener, answers));
        load
    }

    fn counted(requests: u64) -> Schedule {
        Schedule::Closed {
            requests: Some(requests),
            time: None,
        }
    }

    #[tokio::test]
    async fn a_counted_run_sends_exactly_that_many_requests() {
        let figures = measure(&mock_and_load(FAST, 7, counted(1000)).await).await.unwrap();
        assert_eq!(
            (figures.requests, figures.failed, figures.latency.samples),
            (1000, 0, 1000)
        );
    }

    #[tokio::test]
    async fn a_stream_counts_its_chunks_and_its_two_last_events() {
        let mut load = mock_and_load(FAST, 2, counted(10)).await;
        load.ask.stream = true;
        let figures = measure(&load).await.unwrap();
        assert_eq!((figures.requests, figures.chunks), (10, Some(10 * 32)));
        assert_eq!(figures.first_chunk.unwrap().samples, 10);
    }

    #[tokio::test]
    async fn an_open_loop_charges_a_slow_answer_to_those_who_had_to_wait_for_it() {
        // Answers of 50 ms on one connection, due every 25 ms: the tenth has waited for nine before it.
        let slow = Answers { delay_ms: 50, ..FAST };
        let schedule = Schedule::Open {
            per_second: 40.0,
            time: Duration::from_millis(250),
        };
        let figures = measure(&mock_and_load(slow, 1, schedule).await).await.unwrap();
        assert_eq!(figures.requests, 10);
        assert!(
            figures.latency.max_us >= 10.0 * 50_000.0 - 9.0 * 25_000.0,
            "{:?}",
            figures.latency
        );
    }

    #[tokio::test]
    async fn refusals_are_counted_by_kind_and_have_no_latency() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let load = load(&listener, 1, counted(20));
        tokio::spawn(async move {
            let refuse = service_fn(async |request: Request<Incoming>| {
                request.into_body().collect().await.unwrap();
                Ok::<_, Infallible>(Response::builder().status(429).body(Full::new(Bytes::new())).unwrap())
            });
            let (stream, _) = listener.accept().await.unwrap();
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), refuse)
                .await
        });
        let figures = measure(&load).await.unwrap();
        assert_eq!(figures.failures, BTreeMap::from([("status 429".to_owned(), 20)]));
        assert_eq!((figures.failed, figures.latency.samples), (20, 0));
    }
}
