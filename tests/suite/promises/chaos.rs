//! The outage table of `docs/operations.md`, line by line, and then faults at random on every link at once, while traffic
//! flows; at the end the ledger is reconciled with what callers saw and what providers served.
//!
//! `just chaos` runs it, and nothing else does: it asks a whole installation for its limits. The order of faults follows from the seed, which is printed; when they come does not.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bonito::store::ledger::RequestRow;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, Statement};

use super::load::{Load, Seen, call};
use super::{figures, full, size};
use crate::support::fault_proxy::Fault;
use crate::support::process::Process;
use crate::support::world::{World, about, readiness};

/// How long something in the background may take to be seen.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a request of a known key may take while one dependency fails.
const LONGEST: Duration = Duration::from_secs(4);
/// How long any request may take, whatever fails.
const LONGEST_IN_CHAOS: Duration = Duration::from_secs(30);
/// What a caller may be answered in chaos. Never that its key, its request or its limit is at fault, and never 500.
const ALLOWED: [u16; 4] = [200, 502, 503, 504];

/// What can fail.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Link {
    Postgres,
    Redis,
    Vault,
    FirstProvider,
    SecondProvider,
}

const LINKS: [Link; 5] = [
    Link::Postgres,
    Link::Redis,
    Link::Vault,
    Link::FirstProvider,
    Link::SecondProvider,
];

impl Link {
    fn does(self, world: &World, fault: Fault) {
        let proxy = match self {
            Self::Postgres => &world.database,
            Self::Redis => &world.redis.proxy,
            Self::Vault => &world.vault,
            Self::FirstProvider => &world.ways[0],
            Self::SecondProvider => &world.ways[1],
        };
        proxy.set(fault);
    }
}

/// A line of the table: what fails, how, and which component `/readyz` names for it.
const TABLE: [(Link, Fault, Option<&str>); 8] = [
    (Link::Postgres, Fault::Latency(Duration::from_millis(150)), None),
    (Link::Postgres, Fault::BlackHole, Some("snapshot")),
    (Link::Postgres, Fault::Reset, Some("snapshot")),
    (Link::Redis, Fault::BlackHole, Some("redis")),
    (Link::Redis, Fault::Reset, Some("redis")),
    (Link::Vault, Fault::Reset, Some("secrets")),
    (Link::FirstProvider, Fault::Latency(Duration::from_millis(150)), None),
    (Link::FirstProvider, Fault::Reset, Some("provider openai")),
];

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn is_well(process: &Process) -> bool {
    readiness(process).await.1["status"] == "ready"
}

/// Whatever was answered is in the ledger, once; whoever has all of an answer has it exact; and what was spent of a budget is
/// what the rows say. Gives how many got all of an answer, and how many rows are estimated.
async fn reconcile(world: &World, seen: &[Seen]) -> (usize, usize) {
    let rows = world.installation.rows().await;
    let by_id: HashMap<_, &RequestRow> = rows.iter().map(|row| (row.id, row)).collect();
    assert_eq!(by_id.len(), rows.len(), "no request has two rows");
    let mut served: HashMap<String, Vec<i64>> = HashMap::new();
    for exchange in world.provider.exchanges() {
        let Ok(body) = serde_json::from_slice::<serde_json::Value>(&exchange.received.body) else {
            continue;
        };
        let said = body["messages"][0]["content"].as_str().unwrap_or_default().to_owned();
        let marker = said.split(' ').next().unwrap_or_default().to_owned();
        let tokens = exchange.billed;
        let cost = tokens.prompt.cast_signed() * 2_500 + tokens.completion.cast_signed() * 10_000;
        served.entry(marker).or_default().push(cost);
    }
    let mut finished = 0;
    for seen in seen.iter().filter(|seen| seen.status == 200 && seen.bytes > 0) {
        let id = seen.id.expect("an answer has an id");
        let row = by_id
            .get(&id.0)
            .unwrap_or_else(|| panic!("{seen:?} is not in the ledger"));
        let served = &served[&seen.marker];
        assert!(
            usize::try_from(row.attempts).unwrap() >= served.len(),
            "{seen:?}: providers were asked {} times, the ledger knows of {}",
            served.len(),
            row.attempts
        );
        if seen.finished {
            finished += 1;
            // Attempts before it may be charged by what is known of them.
            if row.attempts == 1 {
                assert_eq!(
                    (row.cost_nanousd, row.metering.as_str()),
                    (Some(served[0]), "reported"),
                    "{seen:?}"
                );
            } else {
                let least = served.iter().max();
                assert!(row.cost_nanousd.as_ref() >= least, "{seen:?}: {row:?}");
            }
        }
    }
    let mut options = ConnectOptions::new(world.installation.database_url());
    options.max_connections(1).sqlx_logging(false);
    let database = Database::connect(options).await.unwrap();
    let spent = "SELECT CAST(coalesce(sum(spent_nanousd), 0) AS bigint) AS number FROM gateway_budget_spend";
    let spent = Statement::from_string(database.get_database_backend(), spent);
    let spent: i64 = database
        .query_one_raw(spent)
        .await
        .unwrap()
        .unwrap()
        .try_get("", "number")
        .unwrap();
    database.close().await.unwrap();
    let charged: i64 = rows.iter().filter_map(|row| row.cost_nanousd).sum();
    assert_eq!(spent, charged, "the budget knows what the rows say");
    let estimated = rows.iter().filter(|row| row.metering == "estimated").count();
    (finished, estimated)
}

/// A world with a budget that counts everything and refuses nothing, and its gateway.
async fn counted_world() -> (World, Process) {
    let world = World::start().await;
    let mut world = world.expect("there is Postgres and Redis: these are run by scripts/promises chaos");
    let process = world.installation.start().await;
    let budget = [
        "budget",
        "set",
        "--for",
        "organization",
        "--amount",
        "1000000",
        "--period",
        "total",
        "--soft",
    ];
    world.installation.command(&budget).await;
    (world, process)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a machine of its own: just chaos"]
async fn chaos_every_line_of_the_outage_table_is_true() {
    let (world, process) = counted_world().await;
    let lasts = Duration::from_millis(size("BONITO_CHAOS_MS", 1_200, 20_000));
    let key = world.installation.key.clone();
    let warm = call(&reqwest::Client::new(), &process.api, &key, "warm".to_owned(), false).await;
    assert!(warm.finished, "{warm:?}");
    let mut all = vec![warm];
    for (link, fault, component) in TABLE {
        let name = format!("{link:?}-{fault:?}").replace([' ', '(', ')'], "");
        let load = Load::start(&process.api, &key, name.clone(), 20);
        link.does(&world, fault);
        let began = Instant::now();
        if let Some(component) = component {
            until(&format!("/readyz says nothing of {component}"), async || {
                let (status, said) = readiness(&process).await;
                assert_eq!(status, 200, "{said}");
                !about(&said, component).is_empty()
            })
            .await;
        }
        tokio::time::sleep(lasts.saturating_sub(began.elapsed())).await;
        link.does(&world, Fault::None);
        // A provider is found to be back by requests.
        until(&format!("{name}: it is not ready again"), async || {
            is_well(&process).await
        })
        .await;
        let seen = load.stop().await;
        let failed: Vec<_> = seen
            .iter()
            .filter(|seen| !seen.finished || seen.took > LONGEST)
            .collect();
        // A provider that goes takes with it the streams that it had begun, and nothing else.
        let gone = link == Link::FirstProvider && fault == Fault::Reset;
        let excused = |seen: &&&Seen| gone && seen.status == 200 && seen.bytes > 0;
        let noticed = failed.iter().filter(|seen| !excused(seen)).count();
        assert_eq!(noticed, 0, "{name}: of {} noticed {failed:?}", seen.len());
        all.extend(seen);
    }
    until("the journal is empty", async || {
        process.metric("bonito_journal_depth").await == 0.0
    })
    .await;
    assert_eq!(process.terminate().await, 0, "{}", world.installation.log());
    let (finished, _) = reconcile(&world, &all).await;
    figures(
        "chaos",
        format_args!(
            "{} lines of the outage table, {} ms each: {} requests, {finished} of them answered to their end, 0 missing, \
             spent of the budget what the rows say",
            TABLE.len(),
            lasts.as_millis(),
            all.len()
        ),
    );
}

fn any_fault(random: &mut StdRng) -> Fault {
    match random.random_range(0..6) {
        0 => Fault::BlackHole,
        1 => Fault::Reset,
        2 => Fault::Latency(Duration::from_millis(random.random_range(5..200))),
        3 => Fault::CutAfter(random.random_range(1..20_000)),
        4 => Fault::OneByte,
        _ => Fault::None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a machine of its own: just chaos"]
async fn chaos_faults_on_all_links_in_any_order_lose_nothing() {
    let (mut world, mut process) = counted_world().await;
    let seed = size("BONITO_PROMISES_SEED", rand::random(), rand::random());
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let steps = size("BONITO_CHAOS_STEPS", 16, 600);
    let per_second = if full() { 50 } else { 20 };
    let key = world.installation.key.clone();
    let warm = call(&reqwest::Client::new(), &process.api, &key, "warm".to_owned(), false).await;
    assert!(warm.finished, "{warm:?}");
    // What it knows has to be on its disk before it may be killed.
    until("the snapshot is written", async || world.file().exists()).await;
    let load = Load::start(&process.api, &key, format!("chaos{seed}"), per_second);
    let (mut kills, mut slowest) = (0_u32, Duration::ZERO);
    for step in 0..steps {
        // One in eight steps kills the gateway, whatever else fails at that moment.
        if random.random_ratio(1, 8) {
            process.kill().await;
            process = world.installation.start().await;
            slowest = slowest.max(process.came_up_after);
            kills += 1;
        } else {
            let link = *LINKS.choose(&mut random).expect("there are some");
            let fault = any_fault(&mut random);
            link.does(&world, fault);
            if std::env::var_os("BONITO_CHAOS_SAYS").is_some() {
                println!("step {step}: {link:?} {fault:?}");
            }
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(50..500))).await;
    }
    for link in LINKS {
        link.does(&world, Fault::None);
    }
    let mut seen = load.stop().await;
    seen.push(warm);
    let odd: Vec<_> = seen
        .iter()
        // Without a status the gateway was being killed.
        .filter(|seen| seen.status != 0 && (!ALLOWED.contains(&seen.status) || seen.took > LONGEST_IN_CHAOS))
        .collect();
    assert!(odd.is_empty(), "seed {seed}: {odd:?}");
    assert!(
        slowest < Duration::from_secs(5),
        "seed {seed}: a start took {slowest:?}"
    );
    until("it is not ready again", async || is_well(&process).await).await;
    until("the journal is empty", async || {
        process.metric("bonito_journal_depth").await == 0.0
    })
    .await;
    assert_eq!(process.terminate().await, 0, "{}", world.installation.log());
    let (finished, estimated) = reconcile(&world, &seen).await;
    assert!(finished > 0, "seed {seed}: something was served");
    figures(
        "chaos",
        format_args!(
            "{steps} faults on five links, {kills} kills (seed {seed}): {} requests, {finished} answered to their end, 0 \
             missing or twice, {estimated} rows estimated, slowest start {} ms, spent of the budget what the rows say",
            seen.len(),
            slowest.as_millis()
        ),
    );
}
