//! P1 to P4: what got an answer is in the ledger, whatever dies.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bonito::store::ledger::RequestRow;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::process::Command;

use super::load::{Load, Seen, call};
use super::{figures, full, size};
use crate::support::gateway::chat;
use crate::support::process::{Installation, Process};
use crate::support::provider::Tokens;
use crate::support::{Script, ScriptedProvider};

/// How long the ledger may take to have everything, after the last start.
const DRAIN: Duration = Duration::from_secs(120);

/// What the ledger says of what callers saw.
#[derive(Default, Debug)]
struct Account {
    answered: usize,
    finished: usize,
    estimated: usize,
}

/// Compares what callers saw and what the provider served with the ledger: nobody who got a byte of an answer is missing,
/// and whoever got all of it has it exact.
fn audit(seen: &[Seen], rows: &[RequestRow], provider: &ScriptedProvider) -> Account {
    let ledger: HashMap<_, _> = rows.iter().map(|row| (row.id, row)).collect();
    assert_eq!(ledger.len(), rows.len(), "no request has two rows");
    let served: HashMap<String, Tokens> = provider
        .exchanges()
        .iter()
        .filter_map(|exchange| {
            let said = exchange.received.json()["messages"][0]["content"].as_str()?.to_owned();
            Some((said.split(' ').next()?.to_owned(), exchange.billed))
        })
        .collect();
    let mut account = Account::default();
    for seen in seen.iter().filter(|seen| seen.status == 200 && seen.bytes > 0) {
        account.answered += 1;
        let id = seen.id.expect("an answer has an id");
        let row = ledger
            .get(&id.0)
            .unwrap_or_else(|| panic!("{seen:?} is not in the ledger"));
        if row.metering != "reported" {
            account.estimated += 1;
        }
        if !seen.finished {
            continue;
        }
        account.finished += 1;
        let billed = served[&seen.marker];
        assert_eq!(
            (row.metering.as_str(), row.status, row.error_class.as_deref()),
            ("reported", 200, None),
            "{seen:?}"
        );
        let counted = (row.input_tokens, row.output_tokens);
        assert_eq!(
            counted,
            (billed.prompt.cast_signed(), billed.completion.cast_signed()),
            "{seen:?}"
        );
        assert_eq!(row.cost_nanousd, Some(counted.0 * 2_500 + counted.1 * 10_000));
    }
    // What was under way is charged with the prompt if a provider had it, and with what came of a long stream.
    for row in rows
        .iter()
        .filter(|row| row.error_class.as_deref() == Some("interrupted"))
    {
        assert_eq!((row.metering.as_str(), row.status), ("estimated", 500));
        assert_eq!(
            row.cost_nanousd,
            Some(row.input_tokens * 2_500 + row.output_tokens * 10_000)
        );
        assert_eq!(row.attempts == 0, row.input_tokens == 0);
    }
    account
}

async fn drained(process: &Process) {
    process
        .until_metric("bonito_journal_depth", DRAIN, |depth| depth == 0.0)
        .await;
}

fn segments(installation: &Installation) -> usize {
    let names = std::fs::read_dir(installation.journal()).expect("the journal is there");
    names
        .filter(|name| {
            let name = name.as_ref().expect("it can be read").file_name();
            name.to_string_lossy().ends_with(".segment")
        })
        .count()
}

/// P1. Kills the process at any moment, with the database well in half of the cycles.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_request_that_got_an_answer_is_in_the_ledger_once_however_often_the_process_is_killed() {
    let cycles = size("BONITO_PROMISES_CYCLES", 8, 200);
    let longest_ms = if full() { 3_000 } else { 1_200 };
    let seed = size("BONITO_PROMISES_SEED", rand::random(), rand::random());
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let provider = ScriptedProvider::start().await;
    provider.always(Script::slow_to_begin(Duration::from_millis(15)));
    let mut installation = Installation::new(&provider).await;
    let mut seen = Vec::new();
    let mut slowest = Duration::ZERO;
    for cycle in 0..cycles {
        let process = installation.start().await;
        if cycle > 0 {
            slowest = slowest.max(process.came_up_after);
        }
        let outage = if random.random() {
            Some(installation.outage().await)
        } else {
            None
        };
        let load = Load::start(&process.api, &installation.key, format!("c{cycle}"), 50);
        tokio::time::sleep(Duration::from_millis(random.random_range(50..longest_ms))).await;
        process.kill().await;
        seen.extend(load.stop().await);
        if let Some(outage) = outage {
            outage.end().await;
        }
    }
    let process = installation.start().await;
    drained(&process).await;
    assert_eq!(process.terminate().await, 0, "{}", installation.log());
    assert_eq!(segments(&installation), 0, "an orderly stop leaves no journal");
    let rows = installation.rows().await;
    let account = audit(&seen, &rows, &provider);
    let had = provider.requests().len();
    let with_attempts = rows.iter().filter(|row| row.attempts > 0).count();
    assert!(account.answered > 0 && account.finished > 0);
    assert!(slowest < Duration::from_secs(5), "a start took {slowest:?}");
    assert!(
        with_attempts.abs_diff(had) <= had / 50,
        "{had} requests reached the provider, {with_attempts} rows say so"
    );
    figures(
        "P1",
        format_args!(
            "{cycles} kills (seed {seed}), {} requests, {} with bytes of an answer: 0 missing, 0 twice; {} finished, all \
             exact; {} of the others estimated; provider had {had}, rows with an attempt {with_attempts}; slowest start \
             {} ms",
            seen.len(),
            account.answered,
            account.finished,
            account.estimated,
            slowest.as_millis()
        ),
    );
}

/// P2, the part with a real disk: the system refuses to sync. The part with torn and flipped bytes is in the journal's own
/// tests, at 2,000 points each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_when_the_disk_cannot_be_synced_nothing_new_is_let_in_and_nothing_is_lost() {
    if !full() {
        // It takes strace, and the right to use it; everyday the journal's own tests do it with a disk of theirs.
        return;
    }
    let provider = ScriptedProvider::start().await;
    let mut installation = Installation::new(&provider).await;
    let process = installation.start().await;
    let outage = installation.outage().await;
    let load = Load::start(&process.api, &installation.key, "p2".to_owned(), 50);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let segment = installation.journal().join("000000000001.segment");
    let mut strace = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync"])
        .args(["-e", "inject=fdatasync:error=EIO", "-P"])
        .arg(&segment)
        .args(["-p", &process.id().to_string()])
        .kill_on_drop(true)
        .spawn()
        .expect("strace is installed");
    process
        .until_metric("bonito_journal_errors_total", Duration::from_secs(20), |errors| {
            errors > 0.0
        })
        .await;
    // What comes from here on must be refused.
    let client = reqwest::Client::new();
    let mut refused = 0;
    let failing_since = Instant::now();
    while failing_since.elapsed() < Duration::from_secs(2) {
        let seen = call(&client, &process.api, &installation.key, format!("no-{refused}"), false).await;
        assert_eq!(seen.status, 503, "{seen:?}");
        assert!(seen.retry_after.is_some());
        refused += 1;
    }
    strace.kill().await.expect("strace can be ended");
    let healed = Instant::now();
    while call(&client, &process.api, &installation.key, "again".to_owned(), false)
        .await
        .status
        != 200
    {
        assert!(
            healed.elapsed() < Duration::from_secs(10),
            "it does not recover: {}",
            installation.log()
        );
    }
    let recovered = healed.elapsed();
    tokio::time::sleep(Duration::from_millis(500)).await;
    process.kill().await;
    let seen = load.stop().await;
    outage.end().await;
    let process = installation.start().await;
    drained(&process).await;
    assert_eq!(process.terminate().await, 0);
    let account = audit(&seen, &installation.rows().await, &provider);
    figures(
        "P2",
        format_args!(
            "fdatasync refused with EIO for 2 s: {refused} of {refused} new requests got 503; serving again after {} ms; \
             killed then: {} answers, 0 missing",
            recovered.as_millis(),
            account.answered
        ),
    );
}

/// P3. The database takes nothing for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_while_the_database_takes_nothing_traffic_flows_and_the_ledger_has_it_afterwards() {
    let seconds = size("BONITO_PROMISES_SECONDS", 3, 600);
    let provider = ScriptedProvider::start().await;
    let mut installation = Installation::new(&provider).await;
    let process = installation.start().await;
    let client = reqwest::Client::new();
    for warm in 0..20 {
        let seen = call(
            &client,
            &process.api,
            &installation.key,
            format!("warm-{warm}"),
            warm % 2 == 0,
        )
        .await;
        assert!(seen.finished);
    }
    let before = process.resident_bytes();
    let outage = installation.outage().await;
    let load = Load::start(&process.api, &installation.key, "p3".to_owned(), 100);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let seen = load.stop().await;
    let grown = process.resident_bytes().saturating_sub(before);
    let waiting = process.metric("bonito_journal_depth").await;
    let noticed: Vec<_> = seen.iter().filter(|seen| !seen.finished).take(3).collect();
    assert!(noticed.is_empty(), "no caller notices: {noticed:?}");
    assert!(waiting >= seen.len() as f64 - 1_000.0, "{waiting} records wait");
    outage.end().await;
    let back = Instant::now();
    drained(&process).await;
    let took = back.elapsed();
    assert_eq!(process.terminate().await, 0);
    let rows = installation.rows().await;
    assert_eq!(rows.len(), seen.len() + 20);
    audit(&seen, &rows, &provider);
    assert!(grown <= 64 << 20, "memory grew by {grown} bytes");
    let mut took_ms: Vec<_> = seen
        .iter()
        .filter(|seen| !seen.stream)
        .map(|seen| seen.took.as_millis())
        .collect();
    took_ms.sort_unstable();
    figures(
        "P3",
        format_args!(
            "{seconds} s without a database at 100 requests/s: {} of {} finished; memory grew by {} MiB; whole answers' \
             p99 {} ms; the ledger had everything {} ms after it was back",
            seen.len(),
            seen.len(),
            grown >> 20,
            took_ms[took_ms.len() * 99 / 100],
            took.as_millis()
        ),
    );
}

/// A stream of minutes that is cut by the end of the process is charged with what came of it, but for its last second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_stream_that_dies_with_the_process_is_charged_with_what_came_of_it() {
    let provider = ScriptedProvider::start().await;
    let mut installation = Installation::new(&provider).await;
    let process = installation.start().await;
    let body = chat("mock-chat", "words:1000 pause_ms:20", true);
    let request = reqwest::Client::new().post(format!("{}/v1/chat/completions", process.api));
    let mut response = request.bearer_auth(&installation.key).json(&body).send().await.unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(3_500) {
        response.chunk().await.unwrap();
    }
    let billed = provider.exchanges()[0].billed;
    process.kill().await;
    let process = installation.start().await;
    drained(&process).await;
    assert_eq!(process.terminate().await, 0);
    let rows = installation.rows().await;
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!(
        (row.metering.as_str(), row.error_class.as_deref()),
        ("estimated", Some("interrupted"))
    );
    let (came, sent) = (row.output_tokens, billed.completion.cast_signed());
    assert!(came >= sent / 4 && came <= sent * 3 && sent > 50, "{came} of {sent}");
    assert_eq!(row.cost_nanousd, Some(row.input_tokens * 2_500 + came * 10_000));
}

/// A small disk of its own for the journal, taken away at the end.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// `None` where this user may not mount one.
    async fn mount(at: std::path::PathBuf, mebibytes: u64) -> Option<Self> {
        std::fs::create_dir_all(&at).expect("the directory can be made");
        let size = format!("size={mebibytes}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at);
        let mounted = mount.status().await.is_ok_and(|status| status.success());
        mounted.then_some(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// P4. The journal's disk is full, then there is space again. Where no disk can be mounted, the journal's own tests do the
/// same with one of theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_full_disk_refuses_rather_than_serve_unmetered_and_recovers_by_itself() {
    let mebibytes = size("BONITO_PROMISES_MIB", 8, 64);
    let provider = ScriptedProvider::start().await;
    let mut installation = Installation::new(&provider).await;
    let Some(disk) = SmallDisk::mount(installation.dir().join("small"), mebibytes).await else {
        println!("no disk can be mounted here");
        return;
    };
    let ballast = disk.0.join("ballast");
    // Room for the first segment and no other.
    std::fs::write(&ballast, vec![1; ((mebibytes << 20) - (5 << 19)) as usize]).expect("there is room");
    installation.set("BONITO_JOURNAL_DIR", disk.0.display());
    installation.set("BONITO_JOURNAL_MAX_BYTES", 64 << 20);
    let process = installation.start().await;
    let outage = installation.outage().await;
    let client = reqwest::Client::new();
    let (mut answered, mut refused, mut number) = (Vec::new(), Vec::new(), 0);
    let began = Instant::now();
    while refused.len() < 200 {
        let calls = (0..8).map(|call_number| {
            let marker = format!("fill-{}", number + call_number);
            call(&client, &process.api, &installation.key, marker, false)
        });
        for seen in futures_util::future::join_all(calls).await {
            match seen.status {
                200 => answered.push(seen),
                503 => refused.push(seen),
                status => panic!("status {status}: {seen:?}"),
            }
        }
        number += 8;
        assert!(began.elapsed() < Duration::from_secs(120), "it never fills up");
    }
    assert!(refused.iter().all(|seen| seen.retry_after.is_some()));
    let mut took: Vec<_> = refused.iter().map(|seen| seen.took).collect();
    took.sort_unstable();
    assert!(took[0] < Duration::from_millis(10), "{:?}", took[0]);
    let answers: HashSet<_> = answered.iter().map(|seen| seen.id).collect();
    assert_eq!(
        provider.requests().len(),
        answers.len(),
        "no provider was asked for nothing"
    );
    let degraded = reqwest::get(format!("{}/readyz", process.operations)).await.unwrap();
    assert!(degraded.text().await.unwrap().contains("it is full"));

    std::fs::remove_file(&ballast).expect("it can be removed");
    let freed = Instant::now();
    loop {
        let seen = call(
            &client,
            &process.api,
            &installation.key,
            format!("again-{number}"),
            false,
        )
        .await;
        number += 1;
        if seen.status == 200 {
            answered.push(seen);
            break;
        }
        assert!(
            freed.elapsed() < Duration::from_secs(5),
            "it does not recover: {}",
            installation.log()
        );
    }
    let recovered = freed.elapsed();
    outage.end().await;
    drained(&process).await;
    assert_eq!(process.terminate().await, 0);
    let rows = installation.rows().await;
    assert_eq!(rows.len(), answered.len());
    audit(&answered, &rows, &provider);
    figures(
        "P4",
        format_args!(
            "disk of {mebibytes} MiB full after {} answers; refusals p50 {} µs, p99 {} µs at 8 callers; serving again {} ms \
             after there was space; 0 unmetered, 0 lost",
            answered.len() - 1,
            took[took.len() / 2].as_micros(),
            took[took.len() * 99 / 100].as_micros(),
            recovered.as_millis()
        ),
    );
}
