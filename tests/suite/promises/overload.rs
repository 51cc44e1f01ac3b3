//! P11 to P13: more than there is room for, callers that cost all they can, and neighbours.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::load::{Load, Seen, call_for};
use super::{figures, full, percentile, size};
use crate::support::gateway::{chat, read};
use crate::support::process::{Installation, Process};
use crate::support::{Answer, Script, ScriptedProvider, Step, TestGateway};

/// Requests that P11's gateway has under way at most.
const PLACES: usize = 12;
/// How long its provider takes for each.
const TAKES: Duration = Duration::from_millis(100);

fn whole(name: &str) -> impl Fn(u64) -> (String, bool) + Send + use<> {
    let name = name.to_owned();
    move |number| (format!("{name}-{number} words:5"), false)
}

/// Callers who ask as often as they are answered; how many were in a second.
async fn capacity(process: &Process, key: &str, lasts: Duration) -> f64 {
    let client = reqwest::Client::new();
    let began = Instant::now();
    let callers = (0..PLACES).map(async |caller| {
        let mut answered = 0;
        while began.elapsed() < lasts {
            let text = format!("capacity-{caller}-{answered} words:5");
            let seen = call_for(&client, &process.api, key, text, false).await;
            assert!(seen.finished, "{seen:?}");
            answered += 1;
        }
        answered
    });
    let answered: usize = futures_util::future::join_all(callers).await.into_iter().sum();
    answered as f64 / began.elapsed().as_secs_f64()
}

async fn at_rate(process: &Process, key: &str, name: &str, rate: f64, lasts: Duration) -> Vec<Seen> {
    let client = reqwest::Client::new();
    let load = Load::asking(client, &process.api, key, (rate as u64).max(1), whole(name));
    sleep(lasts).await;
    load.stop().await
}

fn took<'s>(seen: impl IntoIterator<Item = &'s Seen>) -> Vec<Duration> {
    seen.into_iter().map(|seen| seen.took).collect()
}

/// P11. What is too much is refused at once, and the rest is served as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p11_three_times_too_much_is_refused_and_the_rest_is_served_in_time() {
    let lasts = Duration::from_secs(size("BONITO_PROMISES_SECONDS", 2, 60));
    let provider = ScriptedProvider::start().await;
    provider.always(Script::slow_to_begin(TAKES));
    let mut installation = Installation::new(&provider).await;
    installation.set("BONITO_OVERLOAD_MAX_IN_FLIGHT", PLACES);
    installation.set("BONITO_OVERLOAD_MAX_QUEUED", PLACES / 2);
    let process = installation.start().await;
    let key = installation.key.clone();
    let most = capacity(&process, &key, lasts / 4).await;
    let calm = at_rate(&process, &key, "calm", most * 0.8, lasts / 2).await;
    let before = process.resident_bytes();
    // Of what there are places for, which is more than is ever measured: a machine with other things to do measures little.
    let too_much = PLACES as f64 / TAKES.as_secs_f64() * 3.0;
    let flood = at_rate(&process, &key, "flood", too_much, lasts).await;
    let grown = process.resident_bytes().saturating_sub(before);
    let after = at_rate(&process, &key, "after", most * 0.5, lasts / 2).await;

    let (served, refused): (Vec<&Seen>, Vec<&Seen>) = flood.iter().partition(|seen| seen.status == 200);
    for seen in &refused {
        assert_eq!((seen.status, seen.retry_after.as_deref()), (503, Some("1")), "{seen:?}");
    }
    assert!(served.iter().all(|seen| seen.finished));
    let goodput = served.len() as f64 / lasts.as_secs_f64();
    let percent = goodput * 100.0 / most;
    // On a machine that has other things to do, capacity is not the same all the time.
    let least = if full() { 90.0 } else { 50.0 };
    assert!(percent >= least, "{goodput:.0} of {most:.0} a second");
    assert!(refused.len() > served.len() / 2, "{} of {}", refused.len(), flood.len());
    assert!(grown <= 64 << 20, "memory grew by {grown} bytes");
    let late = &after[after.len() / 2..];
    assert!(late.iter().all(|seen| seen.finished), "it is as it was");
    let [calm_p99, served_p99, after_p99] =
        [took(&calm), took(served.iter().copied()), took(late)].map(|took| percentile(&took, 99));
    let of_refusals = took(refused.iter().copied());
    figures(
        "P11",
        format_args!(
            "{PLACES} places and {} ms for each: {most:.0}/s; {too_much:.0}/s for {} s: {goodput:.0}/s served ({percent:.0} %), \
             p99 {} ms (calm {} ms), {} of {} refused, at the caller p50 {:.1} ms and p99 {:.1} ms; memory grew by {} MiB; at half \
             of it p99 {} ms right behind",
            TAKES.as_millis(),
            lasts.as_secs(),
            served_p99.as_millis(),
            calm_p99.as_millis(),
            refused.len(),
            flood.len(),
            percentile(&of_refusals, 50).as_secs_f64() * 1_000.0,
            percentile(&of_refusals, 99).as_secs_f64() * 1_000.0,
            grown >> 20,
            after_p99.as_millis()
        ),
    );
    assert_eq!(process.terminate().await, 0, "{}", installation.log());
    let rows = installation.rows().await;
    assert_eq!(
        rows.iter().filter(|row| row.status == 200).count(),
        provider.requests().len()
    );
}

/// A bound on the memory of a process, where this user may set one.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    fn around(process: &Process, bytes: u64) -> Option<Self> {
        let group = PathBuf::from(format!("/sys/fs/cgroup/memory/bonito-promise-{}", process.id()));
        std::fs::create_dir(&group).ok()?;
        let made = Self(group);
        std::fs::write(made.0.join("memory.limit_in_bytes"), bytes.to_string()).ok()?;
        std::fs::write(made.0.join("cgroup.procs"), process.id().to_string()).ok()?;
        Some(made)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // It can be removed once its process is gone.
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Sends a head that never ends, again and again, and says how long each was listened to at most.
async fn dawdle(address: String, stop: Arc<AtomicBool>) -> Duration {
    let mut longest = Duration::ZERO;
    while !stop.load(Ordering::Acquire) {
        let Ok(mut stream) = TcpStream::connect(&address).await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let began = Instant::now();
        let mut open = stream
            .write_all(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-A: ")
            .await
            .is_ok();
        let mut answer = [0; 512];
        while open && !stop.load(Ordering::Acquire) {
            open = stream.write_all(b"a").await.is_ok();
            // What comes is that it took too long, and then the end.
            if let Ok(read) = tokio::time::timeout(Duration::from_millis(800), stream.read(&mut answer)).await {
                open = read.is_ok_and(|bytes| bytes > 0);
            }
        }
        if !open {
            longest = longest.max(began.elapsed());
        }
    }
    longest
}

/// A request on a connection of its own, of whose answer nothing is read until the end.
async fn read_nothing(address: &str, key: &str, text: &str) -> TcpStream {
    let body = chat("mock-chat", text, true).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.expect("there is a connection left");
    stream
        .write_all(format!("{head}{body}").as_bytes())
        .await
        .expect("it is taken");
    stream
}

/// P12. Callers and providers that cost all they can do not cost more than their buffers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_memory_is_bounded_whatever_callers_and_providers_do() {
    let seconds = size("BONITO_PROMISES_SECONDS", 3, 60);
    let scale = size("BONITO_PROMISES_PERCENT", 4, 100);
    let [dawdlers, not_reading, idle] =
        [5_000, 1_000, 2_000].map(|count| usize::try_from(count * scale / 100).unwrap());
    let header_ms = if full() { 10_000 } else { 1_000 };
    let provider = ScriptedProvider::start().await;
    provider.always(Script::faithful().unless(|received| {
        let says = |word: &[u8]| received.body.windows(word.len()).any(|window| window == word);
        if says(b"flood") {
            // Some 16 MiB of events, as fast as they are taken: more than the sockets on the way hold.
            let pad = "x".repeat(16_000);
            let event = Bytes::from(format!(
                "data: {{\"choices\":[{{\"delta\":{{\"content\":{pad:?}}}}}]}}\n\n"
            ));
            let steps = (0..1_000).map(|_| Step::send(event.clone())).collect::<Vec<_>>();
            return Some(Answer::stream(steps).into());
        }
        if says(b"line") {
            return Some(Script::endless_line(64 << 20));
        }
        if says(b"bomb") {
            return Some(Script::gzipped());
        }
        says(b"idle").then(|| Script::stalled_after_events(2))
    }));
    let mut installation = Installation::new(&provider).await;
    installation.set("BONITO_SERVER_HEADER_READ_TIMEOUT_MS", header_ms);
    installation.set("BONITO_UPSTREAM_MAX_EVENT_BYTES", 256 << 10);
    installation.set("BONITO_SERVER_MAX_CONNECTIONS", 12_000);
    let process = installation.start().await;
    let group = if full() {
        MemoryGroup::around(&process, 512 << 20)
    } else {
        None
    };
    let key = installation.key.clone();
    let address = process.api.trim_start_matches("http://").to_owned();
    // The good tenant alone first.
    let calm = at_rate(&process, &key, "calm", 10.0, Duration::from_secs(seconds / 3 + 1)).await;
    assert!(calm.iter().all(|seen| seen.finished));
    let base = process.resident_bytes();

    let stop = Arc::new(AtomicBool::new(false));
    let peak = Arc::new(AtomicU64::new(0));
    let mut dawdling = JoinSet::new();
    for _ in 0..dawdlers {
        dawdling.spawn(dawdle(address.clone(), stop.clone()));
    }
    let hold = async |text: String| read_nothing(&address, &key, &text).await;
    let floods = futures_util::stream::iter(0..not_reading).map(|number| hold(format!("p12-{number} flood")));
    let floods: Vec<TcpStream> = floods.buffer_unordered(32).collect().await;
    let idlers = futures_util::stream::iter(0..idle).map(|number| hold(format!("p12-{number} idle words:30")));
    let idlers: Vec<TcpStream> = idlers.buffer_unordered(32).collect().await;
    let load = Load::asking(reqwest::Client::new(), &process.api, &key, 10, whole("good"));
    let client = reqwest::Client::new();
    let url = format!("{}/v1/chat/completions", process.api);
    // What is packed is not unpacked, so it is no JSON.
    let bomb = vec![0x1f_u8; 1 << 20];
    let began = Instant::now();
    let mut bombs = 0;
    while began.elapsed() < Duration::from_secs(seconds) {
        let request = client.post(&url).bearer_auth(&key).header("content-encoding", "gzip");
        let sent = read(
            request
                .header("content-type", "application/json")
                .body(bomb.clone())
                .send()
                .await
                .unwrap(),
        )
        .await;
        assert_eq!(sent.status, 400, "{}", sent.text);
        for hostile in ["bomb", "line"] {
            let text = format!("p12-{bombs} {hostile}");
            let request = client
                .post(&url)
                .bearer_auth(&key)
                .json(&chat("mock-chat", &text, true));
            let answer = read(request.send().await.unwrap()).await;
            assert!(
                answer.status >= 500 || answer.text.contains("\"error\""),
                "{hostile}: {}",
                answer.status
            );
            assert!(!answer.text.contains("[DONE]"));
            bombs += 1;
        }
        peak.fetch_max(process.resident_bytes(), Ordering::AcqRel);
        sleep(Duration::from_millis(100)).await;
    }
    let good = load.stop().await;
    peak.fetch_max(process.resident_bytes(), Ordering::AcqRel);
    stop.store(true, Ordering::Release);
    drop((floods, idlers));
    let listened = dawdling.join_all().await.into_iter().max().unwrap_or_default();
    process
        .until_metric("bonito_requests_in_flight", Duration::from_secs(60), |count| {
            count == 0.0
        })
        .await;

    let failed: Vec<&Seen> = good.iter().filter(|seen| !seen.finished).collect();
    assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), good.len(), failed[0]);
    let connections = dawdlers + not_reading + idle;
    let grown = peak.load(Ordering::Acquire).saturating_sub(base);
    // What the good tenant and the bombs take, and what no request can be blamed for, is in it as well.
    let allowed = connections as u64 * (320 << 10) + (16 << 20);
    assert!(
        grown <= allowed,
        "memory grew by {} KiB for {connections} connections",
        grown >> 10
    );
    let patience = Duration::from_secs(15);
    assert!(
        listened <= patience,
        "a head that does not end is listened to for {listened:?}"
    );
    figures(
        "P12",
        format_args!(
            "{dawdlers} heads that do not end (listened to for {:.1} s at most), {not_reading} readers of nothing and {idle} idle \
             streams for {seconds} s, {bombs} bombs and endless lines{}: memory grew from {} MiB by {} MiB at most, {} KiB for each \
             connection; {} of {} calls of a good tenant served, p99 {} ms (alone {} ms)",
            listened.as_secs_f64(),
            if group.is_some() { ", within 512 MiB" } else { "" },
            base >> 20,
            grown >> 20,
            (grown >> 10) / connections as u64,
            good.len(),
            good.len(),
            percentile(&took(&good), 99).as_millis(),
            percentile(&took(&calm), 99).as_millis()
        ),
    );
    assert_eq!(process.terminate().await, 0, "{}", installation.log());
}

/// Neighbours of P13's loud tenant.
const NEIGHBOURS: usize = 4;

/// A tenant's calls.
struct Tenant {
    key: String,
    /// What is said besides the number.
    pad: String,
    per_second: f64,
}

/// Lets tenants call for a while; gives what each of them saw.
async fn together(gateway: &TestGateway, tenants: &[Tenant], lasts: Duration) -> Vec<Vec<Seen>> {
    let loads: Vec<Load> = tenants
        .iter()
        .map(|tenant| {
            let pad = tenant.pad.clone();
            let ask = move |number: u64| (format!("p13-{number} words:5 {pad}"), false);
            // Slower than once a second are none.
            Load::asking(
                reqwest::Client::new(),
                &gateway.api,
                &tenant.key,
                tenant.per_second as u64,
                ask,
            )
        })
        .collect();
    sleep(lasts).await;
    let mut seen = Vec::new();
    for load in loads {
        seen.push(load.stop().await);
    }
    seen
}

/// P13. A tenant that wants ten times its limit takes nothing of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p13_a_tenant_at_ten_times_its_limit_takes_nothing_from_the_others() {
    let lasts = Duration::from_secs(size("BONITO_PROMISES_SECONDS", 2, 50));
    // A minute's limit, of which each neighbour uses a half.
    let limit: u64 = if full() { 600 } else { 240 };
    let provider = ScriptedProvider::start().await;
    provider.always(Script::slow_to_begin(Duration::from_millis(20)));
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    let mut keys = Vec::new();
    for number in 0..=NEIGHBOURS {
        let slug = format!("tenant-{number}");
        let organization = gateway.store.create_organization(&slug, &slug).await.unwrap();
        keys.push(gateway.new_key_of(organization).await);
    }
    gateway
        .sql(&format!("UPDATE gateway_keys SET rate_limit = {limit}"))
        .await;
    gateway.sql("UPDATE organizations SET shared_credentials = true").await;
    let per_second = limit as f64 / 60.0;
    let tenants = |pad: usize, rate: f64| -> Vec<Tenant> {
        let tenant = |number: usize| Tenant {
            key: keys[number].clone(),
            pad: if number == 0 { "x".repeat(pad) } else { String::new() },
            per_second: if number == 0 { rate } else { per_second / 2.0 },
        };
        (0..=NEIGHBOURS).map(tenant).collect()
    };
    let calm = together(&gateway, &tenants(0, 0.0)[1..], lasts).await;
    // What is left of the loud one's minute is gone after this, so that it is refused from the beginning.
    let url = format!("{}/v1/chat/completions", gateway.api);
    let began = Instant::now();
    let used_up = futures_util::stream::iter(0..limit + 20)
        .map(async |number| {
            let body =
                json!({"model": "mock-chat", "messages": [{"role": "user", "content": format!("first-{number}")}]});
            read(
                gateway
                    .client
                    .post(&url)
                    .bearer_auth(&keys[0])
                    .json(&body)
                    .send()
                    .await
                    .unwrap(),
            )
            .await
            .status
        })
        .buffer_unordered(16)
        .collect::<Vec<u16>>()
        .await;
    let mut passed = used_up.iter().filter(|status| **status == 200).count() as u64;
    assert!(used_up.contains(&429), "it is used up");
    let loud = together(&gateway, &tenants(0, 10.0 * per_second), lasts).await;
    let large = together(
        &gateway,
        &tenants(5_000_000, if full() { per_second } else { 2.0 }),
        lasts,
    )
    .await;

    let mut said = Vec::new();
    let mut p99s = BTreeMap::new();
    for (name, seen) in [("calm", &calm[..]), ("loud", &loud[1..]), ("large", &large[1..])] {
        let all: Vec<&Seen> = seen.iter().flatten().collect();
        let failed: Vec<&&Seen> = all.iter().filter(|seen| !seen.finished).collect();
        assert!(
            failed.is_empty(),
            "{name}: {} of {}: {:?}",
            failed.len(),
            all.len(),
            failed[0]
        );
        p99s.insert(name, percentile(&took(all.iter().copied()), 99));
        said.push(all.len());
    }
    for seen in [&loud[0], &large[0]] {
        assert!(
            seen.iter().all(|seen| [200, 429].contains(&seen.status)),
            "{:?}",
            seen[0]
        );
        passed += seen.iter().filter(|seen| seen.status == 200).count() as u64;
    }
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    let share = limit as f64 * (minutes + 1.0);
    assert!(
        passed as f64 <= share,
        "{passed} of the loud tenant's calls passed in {minutes:.1} minutes"
    );
    figures(
        "P13",
        format_args!(
            "limits of {limit}/min, four neighbours at half of theirs: 0 of {} calls failed alone, 0 of {} beside {:.0}/s and 0 of {} \
             beside {} bodies of 5 MB; p99 {} ms, {} ms and {} ms; the loud tenant passed {passed} times in {:.1} min, which is its \
             share",
            said[0],
            said[1],
            10.0 * per_second,
            said[2],
            large[0].len(),
            p99s["calm"].as_millis(),
            p99s["loud"].as_millis(),
            p99s["large"].as_millis(),
            minutes
        ),
    );
    gateway.finish().await;
}
