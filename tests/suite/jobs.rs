//! The job queue: what is enqueued is done, once at a time, by whoever has room, and outlives its workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bonito::domain::audit::Author;
use bonito::domain::job::{JobFilter, JobId, JobKind, JobState, JobView, NewJob};
use bonito::domain::role::Role;
use bonito::domain::webhook::WebhookTerms;
use bonito::queue::worker::{Worker, WorkerOptions};
use bonito::queue::{Job, JobFailure, Outcome, Run};
use bonito::store::Store;
use bonito::telemetry::metrics::Metrics;
use bonito::telemetry::trace::Tracer;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::TestGateway;

const JOBS: &str = "/api/gateway/jobs";
const PATIENCE: Duration = Duration::from_secs(20);

type Doing = Box<dyn Fn(Run) -> futures_util::future::BoxFuture<'static, Result<Outcome, JobFailure>> + Send + Sync>;

/// A job of a kind that the product has, which does what the test says.
struct TestJob(Doing);

#[async_trait::async_trait]
impl Job for TestJob {
    fn kind(&self) -> JobKind {
        JobKind::Retention
    }

    async fn run(&self, run: &Run) -> Result<Outcome, JobFailure> {
        (self.0)(run.clone()).await
    }
}

/// A worker of its own, which does one thing.
fn worker<F>(store: &Store, drain: Duration, does: impl Fn(Run) -> F + Send + Sync + 'static) -> Worker
where
    F: Future<Output = Result<Outcome, JobFailure>> + Send + 'static,
{
    let job: Arc<dyn Job> = Arc::new(TestJob(Box::new(move |run| Box::pin(does(run)))));
    let options = WorkerOptions {
        lease: Duration::from_secs(1),
        poll: Duration::from_millis(50),
        drain,
    };
    Worker::start(
        store.clone(),
        [job],
        Arc::new(Metrics::default()),
        Tracer::off(),
        options,
    )
}

/// A gateway whose own worker is off, and whose scheduled jobs are not due in the next half hour.
async fn quiet() -> TestGateway {
    let gateway = TestGateway::builder().set("jobs.in_serve", false).start().await;
    for &kind in JobKind::ALL {
        gateway.store.tick_job(kind).await.unwrap();
    }
    let waiting = JobFilter::default();
    assert!(
        gateway
            .store
            .jobs(&waiting, 100)
            .await
            .unwrap()
            .iter()
            .all(|job| job.organization.is_none())
    );
    gateway
}

/// The test's own job, for the gateway's organization.
fn job(gateway: &TestGateway, payload: Value) -> NewJob {
    NewJob {
        organization: Some(gateway.organization),
        ..NewJob::new(JobKind::Retention, payload)
    }
}

async fn until(gateway: &TestGateway, id: JobId, state: JobState) -> JobView {
    let began = Instant::now();
    loop {
        let job = gateway
            .store
            .job(Some(gateway.organization), id)
            .await
            .unwrap()
            .unwrap();
        if job.state == state {
            return job;
        }
        assert!(began.elapsed() < PATIENCE, "{job:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_gateway_does_jobs_and_shows_them() {
    let gateway = TestGateway::builder().start().await;
    let (mine, viewer) = (Some(gateway.organization), gateway.token(Role::Viewer));
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(gateway.store.enqueue(&job(&gateway, json!({}))).await.unwrap());
    }
    for &id in &ids {
        let done = until(&gateway, id, JobState::Done).await;
        assert_eq!((done.attempts, done.organization), (1, mine));
        assert!(done.finished_at.is_some() && done.last_error.is_none());
    }
    let page = gateway
        .manage("GET", &format!("{JOBS}?state=done&limit=2"), &viewer, None)
        .await
        .json();
    let of = |page: &Value| -> Vec<String> {
        let data = page["data"].as_array().unwrap();
        data.iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(of(&page), [ids[2].to_string(), ids[1].to_string()]);
    assert_eq!(page["data"][0]["kind"], "retention");
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = gateway
        .manage("GET", &format!("{JOBS}?cursor={cursor}"), &viewer, None)
        .await
        .json();
    assert_eq!((of(&rest), rest.get("next_cursor")), (vec![ids[0].to_string()], None));
    for nothing in ["state=dead", "kind=no_such"] {
        let page = gateway
            .manage("GET", &format!("{JOBS}?{nothing}"), &viewer, None)
            .await
            .json();
        assert_eq!(page["data"], json!([]));
    }
    // What belongs to nobody is for platform admins.
    let installation = format!("{JOBS}?installation=true");
    assert_eq!(gateway.manage("GET", &installation, &viewer, None).await.status, 403);
    let all = gateway
        .manage("GET", &installation, &gateway.token(Role::PlatformAdmin), None)
        .await;
    assert!(
        all.json()["data"]
            .as_array()
            .unwrap()
            .iter()
            .any(|job| job["kind"] == "retention"),
        "{}",
        all.text
    );
    let metrics = reqwest::get(format!("{}/metrics", gateway.operations))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let runs = "bonito_job_runs_total{kind=\"retention\",result=\"done\"} ";
    assert!(
        metrics
            .lines()
            .any(|line| line.starts_with(runs) && !line.ends_with(" 0")),
        "{metrics}"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn of_many_workers_one_does_a_job() {
    let gateway = quiet().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let workers: Vec<Worker> = (0..4)
        .map(|_| {
            let runs = runs.clone();
            worker(&gateway.store, PATIENCE, move |_| {
                runs.fetch_add(1, Ordering::Relaxed);
                async { Ok(Outcome::Done) }
            })
        })
        .collect();
    let mut ids = Vec::new();
    for number in 0..40 {
        ids.push(
            gateway
                .store
                .enqueue(&job(&gateway, json!({"number": number})))
                .await
                .unwrap(),
        );
    }
    for id in ids {
        assert_eq!(until(&gateway, id, JobState::Done).await.attempts, 1);
    }
    for worker in workers {
        worker.stop().await;
    }
    // One more: what is due by itself, for all of them together.
    assert_eq!(runs.load(Ordering::Relaxed), 41);
    gateway.finish().await;
}

#[tokio::test]
async fn a_job_that_fails_is_tried_again_and_then_given_up_until_somebody_asks_for_another_try() {
    let gateway = quiet().await;
    let admin = gateway.token(Role::Admin);
    let well = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let does = well.clone();
    let worker = worker(&gateway.store, PATIENCE, move |run| {
        let well = does.load(Ordering::Relaxed) || run.organization.is_none();
        async move {
            match run.payload["how"].as_str() {
                _ if well => Ok(Outcome::Done),
                Some("panic") if run.attempt == 1 => panic!("as the test wants"),
                Some("never") => Err(JobFailure::for_good("there is no use")),
                _ => Err(JobFailure::after(
                    format!("attempt {} failed", run.attempt),
                    Duration::from_millis(1),
                )),
            }
        }
    });
    let retried = gateway.store.enqueue(&job(&gateway, json!({}))).await.unwrap();
    let dead = until(&gateway, retried, JobState::Dead).await;
    assert_eq!(
        (dead.attempts, dead.last_error.as_deref()),
        (10, Some("attempt 10 failed"))
    );
    let hopeless = gateway
        .store
        .enqueue(&job(&gateway, json!({"how": "never"})))
        .await
        .unwrap();
    let dead = until(&gateway, hopeless, JobState::Dead).await;
    assert_eq!(
        (dead.attempts, dead.last_error.as_deref()),
        (1, Some("there is no use"))
    );
    // A panic is a failure like any other, and the worker goes on. It waits for five seconds at least.
    let panics = gateway
        .store
        .enqueue(&job(&gateway, json!({"how": "panic"})))
        .await
        .unwrap();
    let began = Instant::now();
    loop {
        let job = gateway
            .store
            .job(Some(gateway.organization), panics)
            .await
            .unwrap()
            .unwrap();
        if job.last_error.is_some() {
            assert_eq!((job.state, job.attempts), (JobState::Waiting, 1));
            assert!(
                job.run_at > chrono::Utc::now() + chrono::TimeDelta::seconds(3),
                "{job:?}"
            );
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{job:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    well.store(true, Ordering::Relaxed);
    let retry = format!("{JOBS}/{retried}/retry");
    assert_eq!(
        gateway
            .manage("POST", &retry, &gateway.token(Role::Viewer), None)
            .await
            .status,
        403
    );
    let other = gateway.store.create_organization("other", "Other").await.unwrap();
    let foreign = gateway.token_for(Role::Owner, other);
    assert_eq!(gateway.manage("POST", &retry, &foreign, None).await.status, 404);
    let again = gateway.manage("POST", &retry, &admin, None).await;
    assert_eq!(
        (again.status, &again.json()["state"], &again.json()["attempts"]),
        (200, &json!("waiting"), &json!(0))
    );
    until(&gateway, retried, JobState::Done).await;
    let refused = gateway.manage("POST", &retry, &admin, None).await;
    assert_eq!(refused.status, 409);
    assert_eq!(
        refused.json()["detail"],
        "the job is done; only a dead one can be retried"
    );
    worker.stop().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_job_with_a_key_is_absorbed_by_one_that_waits_and_repeats_one_that_runs() {
    let gateway = quiet().await;
    let keyed = |number: u32| NewJob {
        key: Some("k".into()),
        ..job(&gateway, json!({"number": number}))
    };
    let first = gateway.store.enqueue(&keyed(1)).await.unwrap();
    assert_eq!(gateway.store.enqueue(&keyed(2)).await.unwrap(), first);
    let runs = Arc::new(AtomicUsize::new(0));
    let (gate, began) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let worker = worker(&gateway.store, PATIENCE, {
        let (runs, gate, began) = (runs.clone(), gate.clone(), began.clone());
        move |run| {
            let (runs, gate, began) = (runs.clone(), gate.clone(), began.clone());
            async move {
                if run.organization.is_some() {
                    runs.fetch_add(1, Ordering::Relaxed);
                    began.add_permits(1);
                    gate.acquire().await.unwrap().forget();
                }
                Ok(Outcome::Done)
            }
        }
    });
    began.acquire().await.unwrap().forget();
    // It runs, and may have looked already.
    assert_eq!(gateway.store.enqueue(&keyed(3)).await.unwrap(), first);
    assert_eq!(gateway.store.enqueue(&keyed(4)).await.unwrap(), first);
    gate.add_permits(1);
    began.acquire().await.unwrap().forget();
    gate.add_permits(1);
    until(&gateway, first, JobState::Done).await;
    assert_eq!(runs.load(Ordering::Relaxed), 2);
    // The key is free again.
    assert_ne!(gateway.store.enqueue(&keyed(5)).await.unwrap(), first);
    gate.add_permits(1);
    worker.stop().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_job_of_a_worker_that_is_gone_goes_on_elsewhere_and_the_zombie_changes_nothing() {
    let gateway = quiet().await;
    let (gate, began) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let zombie = worker(&gateway.store, PATIENCE, {
        let (gate, began) = (gate.clone(), began.clone());
        move |run| {
            let (gate, began) = (gate.clone(), began.clone());
            async move {
                if run.organization.is_some() {
                    began.add_permits(1);
                    gate.acquire().await.unwrap().forget();
                }
                Err(JobFailure::for_good("said by a zombie"))
            }
        }
    });
    let id = gateway.store.enqueue(&job(&gateway, json!({}))).await.unwrap();
    began.acquire().await.unwrap().forget();
    // Nobody renews its leases any more, but what it was doing goes on.
    drop(zombie);
    let second = Arc::new(Semaphore::new(0));
    let heir = worker(&gateway.store, PATIENCE, {
        let (second, began) = (second.clone(), began.clone());
        move |run| {
            let (second, began) = (second.clone(), began.clone());
            async move {
                if run.organization.is_some() {
                    assert_eq!(run.attempt, 2);
                    began.add_permits(1);
                    second.acquire().await.unwrap().forget();
                }
                Ok(Outcome::Done)
            }
        }
    });
    let lost_at = Instant::now();
    began.acquire().await.unwrap().forget();
    assert!(lost_at.elapsed() < Duration::from_secs(10), "{:?}", lost_at.elapsed());
    gate.add_permits(1);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let job = gateway
        .store
        .job(Some(gateway.organization), id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((job.state, job.attempts), (JobState::Running, 2));
    second.add_permits(1);
    until(&gateway, id, JobState::Done).await;
    heir.stop().await;
    gateway.finish().await;
}

#[tokio::test]
async fn the_first_organization_is_told_when_a_job_of_the_installation_is_given_up() {
    let gateway = quiet().await;
    let store = &gateway.store;
    let other = store.create_organization("other", "Other").await.unwrap();
    let terms = WebhookTerms {
        url: "https://hooks.example.com/x".into(),
        description: String::new(),
        events: vec!["job.dead".into()],
        enabled: true,
    };
    let mut hooks = Vec::new();
    for organization in [gateway.organization, other] {
        let (id, by) = (uuid::Uuid::now_v7(), Author::system("test"));
        let made = store
            .create_webhook(organization, id, &terms, "sealed".into(), &by)
            .await;
        hooks.push((organization, made.unwrap().unwrap().id));
    }
    let id = store
        .enqueue(&NewJob::new(JobKind::Retention, json!({})))
        .await
        .unwrap();
    let worker = worker(store, PATIENCE, |_| async {
        Err(JobFailure::for_good("what is another's"))
    });
    let began = Instant::now();
    while store.job(None, id).await.unwrap().unwrap().state != JobState::Dead {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    worker.stop().await;
    let mut told = Vec::new();
    for (organization, hook) in hooks {
        let sent = store.deliveries(organization, hook, None, None, 100).await.unwrap();
        let bodies = sent
            .iter()
            .map(|sent| serde_json::from_str::<Value>(&sent.body).unwrap());
        told.push(bodies.collect::<Vec<_>>());
    }
    assert!(told[1].is_empty(), "{:?}", told[1]);
    let of_this = told[0]
        .iter()
        .find(|body| body["data"]["job_id"] == json!(id.0))
        .unwrap();
    let data = json!({"job_id": id.0, "kind": "retention", "installation": true});
    assert_eq!((&of_this["type"], &of_this["data"]), (&json!("job.dead"), &data));
    gateway.finish().await;
}

#[tokio::test]
async fn a_job_that_kills_its_workers_is_given_up() {
    let gateway = quiet().await;
    let id = gateway.store.enqueue(&job(&gateway, json!({}))).await.unwrap();
    let most = JobKind::Retention.terms().max_attempts;
    let offer = bonito::store::jobs::Offer {
        room: vec![bonito::store::jobs::Room {
            kind: JobKind::Retention,
            places: 10,
        }],
        ..Default::default()
    };
    for attempt in 1..=most {
        // Each of them takes it and is never heard of again.
        let began = Instant::now();
        loop {
            let worker = uuid::Uuid::now_v7();
            let claimed = gateway.store.claim_jobs(worker, &offer, Duration::ZERO).await.unwrap();
            if let Some(claimed) = claimed.iter().find(|claimed| claimed.id == id) {
                assert_eq!(claimed.attempt, attempt);
                break;
            }
            assert!(began.elapsed() < PATIENCE);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        gateway.store.recover_jobs().await.unwrap();
    }
    let dead = until(&gateway, id, JobState::Dead).await;
    assert_eq!(dead.attempts, most);
    assert_eq!(dead.last_error.as_deref(), Some("its worker was gone before it ended"));
    gateway.finish().await;
}

#[tokio::test]
async fn a_worker_that_stops_lets_jobs_end_and_puts_back_the_rest_uncounted() {
    let gateway = quiet().await;
    let began = Arc::new(Semaphore::new(0));
    let stopping = worker(&gateway.store, Duration::from_millis(50), {
        let began = began.clone();
        move |run| {
            let began = began.clone();
            async move {
                if run.organization.is_some() {
                    began.add_permits(1);
                    std::future::pending::<()>().await;
                }
                Ok(Outcome::Done)
            }
        }
    });
    let id = gateway.store.enqueue(&job(&gateway, json!({}))).await.unwrap();
    began.acquire().await.unwrap().forget();
    stopping.stop().await;
    let job = gateway
        .store
        .job(Some(gateway.organization), id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((job.state, job.attempts), (JobState::Waiting, 0));
    let polite = worker(&gateway.store, PATIENCE, {
        let began = began.clone();
        move |run: Run| {
            let began = began.clone();
            async move {
                if run.attempt == 1 && run.payload.get("again").is_none() {
                    began.add_permits(1);
                    run.stopping.cancelled().await;
                }
                Ok(Outcome::Again(Duration::from_secs(60)))
            }
        }
    });
    began.acquire().await.unwrap().forget();
    polite.stop().await;
    let job = gateway
        .store
        .job(Some(gateway.organization), id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((job.state, job.attempts, job.last_error), (JobState::Waiting, 0, None));
    assert!(job.run_at > chrono::Utc::now() + chrono::TimeDelta::seconds(30));
    gateway.finish().await;
}

#[tokio::test]
async fn what_is_due_by_itself_is_enqueued_once_by_however_many() {
    let gateway = TestGateway::builder().set("jobs.in_serve", false).start().await;
    let ticks = (0..8).map(|_| gateway.store.tick_job(JobKind::Retention));
    for wait in futures_util::future::join_all(ticks).await {
        let wait = wait.unwrap();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(3_600), "{wait:?}");
    }
    let jobs = gateway.store.jobs(&JobFilter::default(), 100).await.unwrap();
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    gateway.finish().await;
}

#[tokio::test]
async fn a_process_without_a_worker_says_how_long_jobs_have_waited_for_one() {
    let gateway = quiet().await;
    gateway.store.enqueue(&job(&gateway, json!({}))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let server = TestGateway::builder()
        .set("jobs.in_serve", false)
        .on_the_database_of(&gateway)
        .start()
        .await;
    let began = Instant::now();
    while server.metric("bonito_jobs_late_seconds").await <= 0.0 {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(server.metric("bonito_jobs").await >= 1.0);
    server.finish().await;
    gateway.finish().await;
}

#[tokio::test]
async fn jobs_that_are_over_are_forgotten_when_their_time_has_come() {
    let gateway = TestGateway::builder().set("jobs.keep_done_ms", 1).start().await;
    let first = gateway.store.enqueue(&job(&gateway, json!({}))).await.unwrap();
    let began = Instant::now();
    // Each of them forgets those before it.
    while gateway
        .store
        .job(Some(gateway.organization), first)
        .await
        .unwrap()
        .is_some()
    {
        gateway.store.enqueue(&job(&gateway, json!({}))).await.unwrap();
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    gateway.finish().await;
}

#[tokio::test]
async fn jobs_run_in_a_process_of_their_own() {
    let provider = crate::support::ScriptedProvider::start().await;
    let mut installation = crate::support::process::Installation::new(&provider).await;
    installation.set("BONITO_JOBS_IN_SERVE", false);
    let serving = installation.start().await;
    let (store, organization) = installation.store().await;
    let job = NewJob {
        organization: Some(organization),
        ..NewJob::new(JobKind::Retention, json!({}))
    };
    let id = store.enqueue(&job).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        store.job(Some(organization), id).await.unwrap().unwrap().state,
        JobState::Waiting
    );
    let working = installation.start_worker().await;
    let began = Instant::now();
    while store.job(Some(organization), id).await.unwrap().unwrap().state != JobState::Done {
        assert!(began.elapsed() < PATIENCE, "{}", installation.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(working.terminate().await, 0);
    store.close().await;
    assert_eq!(serving.terminate().await, 0, "{}", installation.log());
}
