//! Runs jobs: takes what is due and there is room for, keeps its leases, says what came of it, and puts back the rest when
//! it stops.
//!
//! Three tasks. *Taking* starts jobs, and is woken by a job that ended, by the database where that can, and now and then.
//! *Keeping* renews the leases of what runs, and takes a job away from itself when it learns that it has lost it: after a
//! sleep past the lease somebody else has it. *Looking after* puts back what dead workers had, and enqueues what is due by
//! itself.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use uuid::Uuid;

use super::{Job, Next, Outcome, Run};
use crate::domain::ids::OrganizationId;
use crate::domain::job::{JobId, JobKind};
use crate::store::jobs::{Claimed, Ending, LaneRoom, Offer, OrganizationRoom, Room};
use crate::store::{Store, StoreError, within};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names::trace as names;
use crate::telemetry::trace::{Ambient, Tracer};

/// How long one question to the database may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How often dead workers' jobs are looked for.
const RECOVER_EVERY: Duration = Duration::from_secs(2);
/// A job that takes long has a turn of this part of the time that an attempt may take, and goes on at its next one.
const TURNS: u32 = 6;
/// How long to wait before a job's end is told again to a database that failed.
const TELL_AGAIN: Duration = Duration::from_millis(250);
/// Where a database does not tell of jobs it is asked at least so often.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// How a worker works.
#[derive(Clone, Copy, Debug)]
pub struct WorkerOptions {
    /// How long a job is a worker's without a sign of life.
    pub lease: Duration,
    /// How often to look for jobs that nobody told of.
    pub poll: Duration,
    /// How long jobs may go on after a stop.
    pub drain: Duration,
}

/// A worker that runs.
pub struct Worker {
    shared: Arc<Shared>,
    tasks: Vec<AbortOnDropHandle<()>>,
}

struct Shared {
    id: Uuid,
    store: Store,
    jobs: BTreeMap<JobKind, Arc<dyn Job>>,
    metrics: Arc<Metrics>,
    tracer: Tracer,
    options: WorkerOptions,
    running: Mutex<HashMap<JobId, Held>>,
    /// A reason to look for jobs.
    look: Notify,
    /// Nothing is taken any more.
    stop: CancellationToken,
    /// Everything is put back.
    give_up: CancellationToken,
    tracker: TaskTracker,
}

/// A job that runs here.
struct Held {
    kind: JobKind,
    lane: Option<Uuid>,
    organization: Option<OrganizationId>,
    claim: i64,
    /// Whose it is no longer ours.
    lost: CancellationToken,
    /// Until when it is ours if nothing is heard of the database.
    ours_until: Instant,
}

impl Worker {
    /// Starts one that can do these jobs.
    pub fn start(
        store: Store,
        jobs: impl IntoIterator<Item = Arc<dyn Job>>,
        metrics: Arc<Metrics>,
        tracer: Tracer,
        options: WorkerOptions,
    ) -> Self {
        let shared = Arc::new(Shared {
            id: Uuid::now_v7(),
            store,
            jobs: jobs.into_iter().map(|job| (job.kind(), job)).collect(),
            metrics,
            tracer,
            options,
            running: Mutex::default(),
            look: Notify::new(),
            stop: CancellationToken::new(),
            give_up: CancellationToken::new(),
            tracker: TaskTracker::new(),
        });
        let mut tasks = vec![
            AbortOnDropHandle::new(tokio::spawn(take(shared.clone()))),
            AbortOnDropHandle::new(tokio::spawn(keep(shared.clone()))),
            AbortOnDropHandle::new(tokio::spawn(look_after(shared.clone()))),
        ];
        if let Some(mut watch) = shared.store.watch_jobs() {
            let shared = shared.clone();
            tasks.push(AbortOnDropHandle::new(tokio::spawn(async move {
                loop {
                    watch.changed().await;
                    shared.look.notify_one();
                }
            })));
        }
        Self { shared, tasks }
    }

    /// Takes no more jobs, lets those that run end for a while, and puts back the others.
    pub async fn stop(self) {
        let shared = &self.shared;
        shared.stop.cancel();
        shared.tracker.close();
        if tokio::time::timeout(shared.options.drain, shared.tracker.wait())
            .await
            .is_err()
        {
            tracing::info!(
                jobs = shared.tracker.len(),
                "jobs that still run are put back for another worker"
            );
            shared.give_up.cancel();
            // They are dropped at their next wait.
            let _ = tokio::time::timeout(QUERY_TIMEOUT, shared.tracker.wait()).await;
        }
        drop(self.tasks);
        if let Err(error) = within(QUERY_TIMEOUT, shared.store.release_jobs(shared.id)).await {
            tracing::warn!(%error, "jobs could not be put back, others get them when the lease is over");
        }
    }
}

/// Takes jobs as long as there is room, and starts them.
async fn take(shared: Arc<Shared>) {
    let poll = match shared.store.watch_jobs() {
        Some(_) => shared.options.poll,
        None => shared.options.poll.min(ASK_EVERY),
    };
    loop {
        // Asked for before looking: what is enqueued in between would otherwise wait for the next poll.
        let told = shared.look.notified();
        let taken = match shared.take_some().await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::warn!(%error, "looking for jobs failed");
                0
            }
        };
        if taken > 0 && !shared.stop.is_cancelled() {
            continue;
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = told => {}
            () = sleep(poll) => {}
        }
    }
}

impl Shared {
    async fn take_some(self: &Arc<Self>) -> Result<usize, StoreError> {
        let offer = self.offer();
        if offer.room.is_empty() {
            return Ok(0);
        }
        // The lease begins when the database says so, which is after this.
        let ours_until = Instant::now() + self.options.lease;
        let claim = self.store.claim_jobs(self.id, &offer, self.options.lease);
        let claimed = within(QUERY_TIMEOUT, claim).await?;
        let taken = claimed.len();
        for job in claimed {
            self.begin(job, ours_until);
        }
        Ok(taken)
    }

    /// What there is room for.
    fn offer(&self) -> Offer {
        let running = self.running.lock();
        let room = self.jobs.keys().filter_map(|&kind| {
            let held = running.values().filter(|held| held.kind == kind).count();
            let places = kind.terms().at_once.saturating_sub(held);
            (places > 0).then_some(Room { kind, places })
        });
        let mut lanes: HashMap<Uuid, (JobKind, usize)> = HashMap::new();
        let mut organizations: HashMap<(JobKind, OrganizationId), usize> = HashMap::new();
        for held in running.values() {
            if let Some(lane) = held.lane {
                lanes.entry(lane).or_insert((held.kind, 0)).1 += 1;
            }
            if let Some(organization) = held.organization {
                *organizations.entry((held.kind, organization)).or_default() += 1;
            }
        }
        let lanes = lanes.into_iter().map(|(lane, (kind, held))| LaneRoom {
            lane,
            places: kind.terms().at_once_in_lane.saturating_sub(held),
        });
        let organizations = organizations
            .into_iter()
            .map(|((kind, organization), held)| OrganizationRoom {
                kind,
                organization,
                places: kind.terms().at_once_of_one.saturating_sub(held),
            });
        Offer {
            room: room.collect(),
            lanes: lanes.collect(),
            organizations: organizations.collect(),
        }
    }

    fn begin(self: &Arc<Self>, job: Claimed, ours_until: Instant) {
        let lost = CancellationToken::new();
        let held = Held {
            kind: job.kind,
            lane: job.lane,
            organization: job.organization,
            claim: job.claim,
            lost: lost.clone(),
            ours_until,
        };
        self.running.lock().insert(job.id, held);
        let shared = self.clone();
        self.tracker.spawn(async move {
            let ambient = shared.trace(&job);
            let result = tokio::select! {
                result = ambient.clone().scope(shared.attempt(&job)) => result,
                () = lost.cancelled() => {
                    tracing::warn!(job = %job.id, kind = job.kind.as_str(), "a job was lost to another worker, its lease was over");
                    "lost"
                }
                () = shared.give_up.cancelled() => "put back",
            };
            ambient.root(|root| {
                root.set(names::JOB_RESULT, || result);
                if !["done", "again"].contains(&result) {
                    root.failed(result);
                }
            });
            shared.metrics.jobs.ended(job.kind.as_str(), result);
            shared.running.lock().remove(&job.id);
            shared.look.notify_one();
        });
    }

    /// Begins the span of one attempt: in the trace of whoever enqueued the job, or in one of its own.
    fn trace(&self, job: &Claimed) -> Ambient {
        let ambient = self.tracer.work(job.trace, || format!("job {}", job.kind.as_str()));
        ambient.root(|root| {
            root.set(names::JOB_ID, || job.id.to_string());
            root.set(names::JOB_KIND, || job.kind.as_str());
            root.set(names::JOB_ATTEMPT, || job.attempt);
            root.set_if(
                names::ORGANIZATION_ID,
                job.organization.map(|organization| organization.to_string()),
            );
        });
        ambient
    }

    /// Makes one attempt and notes what came of it. Gives the word for it.
    async fn attempt(&self, job: &Claimed) -> &'static str {
        let (terms, kind) = (job.kind.terms(), job.kind.as_str());
        let run = Run {
            claim: job.claimed(),
            organization: job.organization,
            payload: job.payload.clone(),
            attempt: job.attempt,
            last: job.attempt >= terms.max_attempts,
            stopping: self.stop.clone(),
            turn_ends: Instant::now() + terms.timeout / TURNS,
        };
        let began = Instant::now();
        let done = match self.jobs.get(&job.kind) {
            Some(does) => tokio::time::timeout(terms.timeout, AssertUnwindSafe(does.run(&run)).catch_unwind()).await,
            None => return "put back",
        };
        self.metrics.jobs.took(kind, began.elapsed());
        let failed = |reason: String, next: Next| {
            if run.last || matches!(next, Next::Never) {
                return Ending::Dead(reason);
            }
            let wait = match next {
                Next::After(wait) => wait,
                Next::ByTerms | Next::Never => terms.backoff.after(job.attempt, rand::random()),
            };
            Ending::Failed(reason, wait)
        };
        let ending = match done {
            Ok(Ok(Ok(Outcome::Done))) => Ending::Done,
            Ok(Ok(Ok(Outcome::Again(after)))) => Ending::Again(after),
            Ok(Ok(Err(failure))) => failed(failure.reason, failure.next),
            Ok(Err(_)) => failed("it panicked; the log says where".into(), Next::ByTerms),
            Err(_) => failed(
                format!("it took longer than {} s", terms.timeout.as_secs()),
                Next::ByTerms,
            ),
        };
        let word = match &ending {
            Ending::Done => "done",
            Ending::Again(_) => "again",
            Ending::Failed(reason, wait) => {
                tracing::info!(job = %job.id, kind, attempt = job.attempt, wait_ms = wait.as_millis(), reason, "a job failed and is tried again");
                "failed"
            }
            Ending::Dead(reason) => {
                tracing::warn!(job = %job.id, kind, attempts = job.attempt, reason, "a job was given up");
                "dead"
            }
        };
        // Told until the database has heard, or somebody else has the job.
        loop {
            match within(QUERY_TIMEOUT, self.store.end_job(self.id, job, &ending)).await {
                Ok(true) => return word,
                Ok(false) => return "lost",
                Err(error) => {
                    tracing::warn!(job = %job.id, kind, %error, "the end of a job could not be noted");
                    sleep(TELL_AGAIN).await;
                }
            }
        }
    }

    /// Takes away what is no longer ours.
    async fn renew(&self) {
        let asked = Instant::now();
        let held: Vec<JobId> = self.running.lock().keys().copied().collect();
        if held.is_empty() {
            return;
        }
        let renewed = within(QUERY_TIMEOUT, self.store.renew_jobs(self.id, &held, self.options.lease)).await;
        let now = Instant::now();
        let mut running = self.running.lock();
        match renewed {
            Ok(ours) => {
                let ours: HashMap<JobId, i64> = ours.into_iter().collect();
                for (id, held) in running.iter_mut() {
                    if ours.get(id) == Some(&held.claim) {
                        held.ours_until = asked + self.options.lease;
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the leases of jobs could not be renewed"),
        }
        for held in running.values().filter(|held| held.ours_until <= now) {
            held.lost.cancel();
        }
    }
}

/// Renews leases.
async fn keep(shared: Arc<Shared>) {
    loop {
        sleep(shared.options.lease / 4).await;
        shared.renew().await;
    }
}

/// Puts back what dead workers had, and enqueues what is due by itself.
async fn look_after(shared: Arc<Shared>) {
    let mut due: Vec<(JobKind, Instant)> = JobKind::ALL
        .iter()
        .copied()
        .filter(|kind| kind.terms().every.is_some())
        .map(|kind| (kind, Instant::now()))
        .collect();
    loop {
        let now = Instant::now();
        for (kind, at) in due.iter_mut().filter(|(_, at)| *at <= now) {
            match within(QUERY_TIMEOUT, shared.store.tick_job(*kind)).await {
                Ok(wait) => *at = now + wait,
                Err(error) => tracing::warn!(kind = kind.as_str(), %error, "a scheduled job could not be enqueued"),
            }
        }
        match within(QUERY_TIMEOUT, shared.store.recover_jobs()).await {
            Ok((back, dead)) => {
                if back > 0 {
                    tracing::warn!(jobs = back, "jobs of workers that are gone were put back");
                    shared.look.notify_one();
                }
                for kind in dead.iter().filter_map(|kind| JobKind::parse(kind)) {
                    tracing::warn!(
                        kind = kind.as_str(),
                        "a job was given up, its workers were gone each time"
                    );
                    shared.metrics.jobs.ended(kind.as_str(), "dead");
                }
            }
            Err(error) => tracing::warn!(%error, "looking for jobs of dead workers failed"),
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = sleep(RECOVER_EVERY.min(shared.options.lease / 2)) => {}
        }
    }
}
