//! P21: how soon a revoked key is refused everywhere, with the database's notifications and without them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bonito::domain::role::Role;
use parking_lot::Mutex;
use sea_orm::ConnectionTrait as _;
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use super::{figures, full, size};
use crate::support::TestGateway;
use crate::support::database::on_postgres;
use crate::support::gateway::chat;

/// How soon a key is refused everywhere.
const PUSHED: Duration = Duration::from_secs(1);
/// How soon, where the database cannot tell.
const CUT: Duration = Duration::from_secs(5);

/// Callers that use one key at several gateways until each of them was refused.
struct Callers {
    tasks: Vec<tokio::task::JoinHandle<()>>,
    /// When the last request was sent that was let in.
    last_accepted: Arc<Mutex<Instant>>,
    served: Arc<std::sync::atomic::AtomicUsize>,
    enough: Arc<AtomicBool>,
}

impl Callers {
    fn start(gateways: &[TestGateway], secret: &str, count: usize) -> Self {
        let last_accepted = Arc::new(Mutex::new(Instant::now()));
        let (served, enough) = (
            Arc::<std::sync::atomic::AtomicUsize>::default(),
            Arc::<AtomicBool>::default(),
        );
        let tasks = (0..count).map(|number| {
            let gateway = &gateways[number % gateways.len()];
            let (client, api, secret) = (gateway.client.clone(), gateway.api.clone(), secret.to_owned());
            let (last, served, enough) = (last_accepted.clone(), served.clone(), enough.clone());
            tokio::spawn(async move {
                let body = chat("echo", "hi", number % 2 == 0);
                while !enough.load(Ordering::Acquire) {
                    let sent = Instant::now();
                    let request = client.post(format!("{api}/v1/chat/completions")).bearer_auth(&secret);
                    let answer = request.json(&body).send().await.expect("the gateway answers");
                    let status = answer.status().as_u16();
                    let _ = answer.bytes().await;
                    assert!([200, 401, 429].contains(&status), "{status}");
                    if status == 401 {
                        // It goes on: a key that comes back would be seen.
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    }
                    served.fetch_add(1, Ordering::AcqRel);
                    let mut last = last.lock();
                    *last = (*last).max(sent);
                }
            })
        });
        Self {
            tasks: tasks.collect(),
            last_accepted,
            served,
            enough,
        }
    }

    /// Every one of them has been let in at least once or so.
    async fn are_served(&self) {
        while self.served.load(Ordering::Acquire) < 2 * self.tasks.len() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn stop(self) -> Instant {
        self.enough.store(true, Ordering::Release);
        for task in self.tasks {
            task.await.expect("no caller panics");
        }
        *self.last_accepted.lock()
    }
}

/// Ends every connection that listens to the database, as soon as there is one.
async fn without_notifications(gateway: &TestGateway) -> AbortOnDropHandle<()> {
    let database = sea_orm::Database::connect(gateway.database_url()).await.unwrap();
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    database.execute_unprepared(end).await.unwrap();
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let _ = database.execute_unprepared(end).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }))
}

/// Revokes keys one after the other while callers use them, and gives how long each was still let in, in milliseconds,
/// with the secrets.
async fn revocations(gateways: &[TestGateway], count: u64, callers: usize, bound: Duration) -> (Vec<u64>, Vec<String>) {
    let token = gateways[0].token(Role::Admin);
    let (mut late, mut secrets) = (Vec::new(), Vec::new());
    for number in 0..count {
        let body = json!({"name": format!("p21-{number}"), "rate_limit": 10_000});
        let made = gateways[0]
            .manage("POST", "/api/gateway/keys", &token, Some(&body))
            .await;
        assert_eq!(made.status, 201, "{}", made.text);
        let (id, secret) = (
            made.json()["id"].clone(),
            made.json()["secret"].as_str().unwrap().to_owned(),
        );
        let using = Callers::start(gateways, &secret, callers);
        using.are_served().await;
        let path = format!("/api/gateway/keys/{}", id.as_str().unwrap());
        // By another gateway each time.
        let by = &gateways[number as usize % gateways.len()];
        // On a machine that is too busy for its database the answer is 503, and the key is not said to be revoked.
        let mut revoked = by.manage("DELETE", &path, &token, None).await;
        while revoked.status == 503 {
            revoked = by.manage("DELETE", &path, &token, None).await;
        }
        let revoked_at = Instant::now();
        assert_eq!(revoked.status, 200, "{}", revoked.text);
        let refused = async {
            for gateway in gateways {
                while gateway.get("/v1/key", &secret).await.status != 401 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        };
        tokio::time::timeout(bound + PUSHED, refused)
            .await
            .expect("it is refused in the end");
        // Long enough to see one that comes back with the next look of a gateway.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let last = using.stop().await;
        let took = last.saturating_duration_since(revoked_at);
        assert!(took <= bound, "revocation {number}: still let in after {took:?}");
        late.push(u64::try_from(took.as_millis()).unwrap());
        secrets.push(secret);
    }
    late.sort_unstable();
    (late, secrets)
}

async fn never_come_back(gateways: &[TestGateway], secrets: &[String], lasts: Duration) {
    let begun = Instant::now();
    loop {
        for secret in secrets {
            for gateway in gateways {
                assert_eq!(gateway.get("/v1/key", secret).await.status, 401, "it came back");
            }
        }
        if begun.elapsed() >= lasts {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p21_a_revoked_key_is_refused_everywhere_within_a_second_and_never_comes_back() {
    let count = size("BONITO_PROMISES_REVOCATIONS", 6, 200);
    let callers = usize::try_from(size("BONITO_PROMISES_CALLERS", 12, 100)).unwrap();
    let rest = Duration::from_secs(size("BONITO_PROMISES_SECONDS", 1, 300));
    // As it is by default. The embedded database belongs to one process, which knows what it did itself.
    let start = |builder: crate::support::gateway::Builder| builder.set("keys.poll_ms", 1_000).start();
    let mut gateways = vec![start(TestGateway::builder()).await];
    if on_postgres() {
        for _ in 0..2 {
            let another = TestGateway::builder().on_the_database_of(&gateways[0]);
            gateways.push(start(another).await);
        }
    }
    let (late, secrets) = revocations(&gateways, count, callers, PUSHED).await;
    let p99 = |late: &[u64]| late[(late.len() - 1) * 99 / 100];
    figures(
        "P21",
        format_args!(
            "{count} revocations, {callers} callers over {} gateways: last let in at most {} ms after the answer, p99 {} ms",
            gateways.len(),
            late[late.len() - 1],
            p99(&late)
        ),
    );
    never_come_back(&gateways, &secrets, rest).await;
    figures(
        "P21",
        format_args!("0 of {count} let in again in the next {} s", rest.as_secs()),
    );
    if on_postgres() {
        let cut = without_notifications(&gateways[0]).await;
        let (late, secrets) = revocations(&gateways, count, callers, CUT).await;
        figures(
            "P21",
            format_args!(
                "{count} revocations without notifications: last let in at most {} ms after the answer, p99 {} ms",
                late[late.len() - 1],
                p99(&late)
            ),
        );
        drop(cut);
        never_come_back(&gateways, &secrets, if full() { rest } else { Duration::ZERO }).await;
    }
    for gateway in gateways {
        gateway.finish().await;
    }
}
