//! P5 and P6: what is charged is what the provider served, to the last nano-dollar, and also where the caller left.

use std::collections::HashMap;
use std::time::Duration;

use bonito::chat::estimate::TextTally;
use bonito::domain::ids::OrganizationId;
use bonito::domain::role::Role;
use bonito::domain::scope::Scope;
use bonito::store::ledger::RequestRow;
use futures_util::StreamExt as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::{figures, full, percentile, size};
use crate::support::database::on_postgres;
use crate::support::gateway::{chat, read};
use crate::support::process::Installation;
use crate::support::provider::Tokens;
use crate::support::{Script, ScriptedProvider, TestGateway};

/// Requests under way at once.
const AT_ONCE: usize = 32;
/// How long the ledger may take to have everything.
const DRAIN: Duration = Duration::from_secs(120);

/// What a deployment costs, in nano-dollars for a million tokens.
#[derive(Clone, Copy)]
struct Rates {
    input: u64,
    cached: u64,
    output: u64,
}

impl Rates {
    const fn new(input: u64, cached: u64, output: u64) -> Self {
        Self { input, cached, output }
    }

    /// What an answer costs: one rounding, up, at the very end.
    fn of(self, tokens: Tokens) -> i64 {
        let millionths = u128::from(tokens.prompt - tokens.cached) * u128::from(self.input)
            + u128::from(tokens.cached) * u128::from(self.cached)
            + u128::from(tokens.completion) * u128::from(self.output);
        i64::try_from(millionths.div_ceil(1_000_000)).expect("nobody has so much money")
    }

    /// A deployment of the configuration file, as people write prices.
    fn deployment(self, provider: &str, model: &str) -> String {
        let usd = |nanousd: u64| format!("{}.{:09}", nanousd / 1_000_000_000, nanousd % 1_000_000_000);
        format!(
            "[[providers.{provider}.deployments]]\nmodel = {model:?}\nname = {model:?}\ninput_usd = {:?}\noutput_usd = \
             {:?}\ncache_read_usd = {:?}\n",
            usd(self.input),
            usd(self.output),
            usd(self.cached)
        )
    }
}

// None of them is a whole number of nano-dollars for a token, so that nearly every sum has to be rounded.
const AT_ALPHA: Rates = Rates::new(123_456_789, 37_500_001, 987_654_321);
const AT_ALPHA_LATER: Rates = Rates::new(222_222_223, 11_111_117, 1_234_567_891);
const AT_BETA: Rates = Rates::new(77_777_777, 7_777_777, 555_555_553);
const OF_RETRIED: Rates = Rates::new(99_999_999, 9_999_999, 333_333_337);
const OF_EMBEDDINGS: Rates = Rates::new(13_000_001, 13_000_001, 0);
const OF_LEGACY: Rates = Rates::new(1_500_000_007, 1_500_000_007, 2_000_000_011);
/// A picture of one pixel.
const PIXEL: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// A key, and the organization that pays for it.
struct Payer {
    organization: OrganizationId,
    key: String,
}

/// What a caller knows of a request that was answered.
struct Paid {
    marker: String,
    payer: usize,
    id: Uuid,
    /// Whether the price was the later one.
    later: bool,
}

/// The number behind `p5-` in a request that the provider got.
fn marker_of(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("p5-")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    Some(format!("p5-{}", &rest[..digits]))
}

/// The request of that number: of twenty, six whole chats and four streams, two each with a cached prompt and a picture,
/// two of embeddings, one legacy completion, two whose first provider fails and one that is refused once.
fn request_of(number: usize) -> (&'static str, Value) {
    let (marker, words) = (format!("p5-{number}"), 3 + number % 23);
    let text = format!("{marker} words:{words}");
    let chat_with = |content: Value, stream: bool| {
        let mut body = json!({"model": "mock-chat", "messages": [{"role": "user", "content": content}]});
        if stream {
            body["stream"] = json!(true);
        }
        ("/v1/chat/completions", body)
    };
    match number % 20 {
        0..6 => chat_with(json!(text), false),
        6..10 => chat_with(json!(text), true),
        10 | 11 => chat_with(
            json!(format!("{text} is cached of it and some of these words")),
            number.is_multiple_of(2),
        ),
        12 | 13 => chat_with(
            json!([{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": PIXEL}}]),
            number.is_multiple_of(2),
        ),
        14 | 15 => (
            "/v1/embeddings",
            json!({"model": "mock-embed", "input": [text, "and another one"]}),
        ),
        16 => ("/v1/completions", json!({"model": "mock-completion", "prompt": text})),
        17 | 18 => chat_with(json!(format!("{text} fail-over")), number.is_multiple_of(2)),
        _ => {
            let body = chat("mock-chat-429-once", &text, number.is_multiple_of(3));
            ("/v1/chat/completions", body)
        }
    }
}

async fn pay(gateway: &TestGateway, payers: &[Payer], number: usize, later: bool) -> Paid {
    let (path, body) = request_of(number);
    let payer = number % payers.len();
    let reply = gateway.send(path, &payers[payer].key, body.to_string()).await;
    assert_eq!(reply.status, 200, "{number}: {}", reply.text);
    assert!(reply.complete, "{number}: {}", reply.text);
    Paid {
        marker: format!("p5-{number}"),
        payer,
        id: reply.request_id().0,
        later,
    }
}

/// Waits until so many requests of an organization are in the ledger.
async fn in_the_ledger(gateway: &TestGateway, organization: OrganizationId, requests: usize) {
    let began = Instant::now();
    loop {
        let totals = gateway.store.totals(organization).await.expect("the database answers");
        if totals.requests >= requests as i64 {
            return;
        }
        assert!(began.elapsed() < DRAIN, "{} of {requests} rows came", totals.requests);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How many columns of the database hold numbers that are not exact.
async fn inexact_columns(gateway: &TestGateway) -> i64 {
    gateway
        .number(if on_postgres() {
            "SELECT count(*) AS n FROM information_schema.columns WHERE table_schema = current_schema() AND data_type IN \
             ('real', 'double precision')"
        } else {
            "SELECT count(*) AS n FROM sqlite_master t JOIN pragma_table_info(t.name) c WHERE t.type = 'table' AND \
             (lower(c.type) LIKE '%real%' OR lower(c.type) LIKE '%doub%' OR lower(c.type) LIKE '%floa%')"
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_the_ledger_is_what_the_provider_served_times_the_price_at_admission() {
    let requests = usize::try_from(size("BONITO_PROMISES_REQUESTS", 600, 30_000)).unwrap();
    let (alpha, beta) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    alpha.always(Script::faithful().unless(|received| {
        let fails = received.body.windows(9).any(|window| window == b"fail-over");
        fails.then(Script::overloaded)
    }));
    let deployments = [
        AT_ALPHA.deployment("alpha", "mock-chat"),
        OF_RETRIED.deployment("alpha", "mock-chat-429-once"),
        OF_EMBEDDINGS.deployment("alpha", "mock-embed"),
        OF_LEGACY.deployment("alpha", "mock-completion"),
    ];
    let gateway = TestGateway::builder()
        .provider("alpha", &alpha.base_url(), &[])
        .file(&deployments.concat())
        .provider("beta", &beta.base_url(), &[])
        .file(&AT_BETA.deployment("beta", "mock-chat"))
        .set("failover.same_deployment", true)
        .set("failover.backoff_ms", 20)
        .set("failover.retry_floor_per_second", 1_000)
        .set("health.failures_in_a_row", 1_000_000)
        .set("health.failure_percent_attempts", 1_000_000)
        .set("overload.lag_ms", 0)
        .start()
        .await;
    let own = gateway.organization;
    let other = gateway.store.create_organization("other", "Other").await.unwrap();
    gateway.sql("UPDATE organizations SET shared_credentials = true").await;
    let (_, of_a_team) = gateway.new_team("team", Scope::default(), Scope::default()).await;
    let payer = |organization, key| Payer { organization, key };
    let payers = [
        payer(own, gateway.key.clone()),
        payer(own, gateway.new_key(&[], &[], None).await.1),
        payer(own, of_a_team),
        payer(other, gateway.new_key_of(other).await),
    ];

    let half = async |numbers: std::ops::Range<usize>, later: bool| -> Vec<Paid> {
        let calls = futures_util::stream::iter(numbers).map(|number| pay(&gateway, &payers, number, later));
        calls.buffer_unordered(AT_ONCE).collect().await
    };
    let began = Instant::now();
    let mut paid = half(0..requests / 2, false).await;
    // One that is admitted at the old price and ends at the new one.
    let text = format!("p5-{requests} words:20 pause_ms:60");
    let url = format!("{}/v1/chat/completions", gateway.api);
    let slow = gateway.client.post(url).bearer_auth(&payers[0].key);
    let mut slow = slow.json(&chat("mock-chat", &text, true)).send().await.unwrap();
    slow.chunk().await.unwrap();
    let later = json!({"prices": [{
        "deployment": "alpha/mock-chat", "input_usd": "0.222222223", "cache_read_usd": "0.011111117",
        "output_usd": "1.234567891",
    }]});
    let token = gateway.token(Role::Admin);
    let set = gateway.manage("PUT", "/api/gateway/prices", &token, Some(&later)).await;
    assert_eq!(set.status, 200, "{}", set.text);
    paid.extend(half(requests / 2..requests, true).await);
    let slow = read(slow).await;
    assert!(slow.complete && slow.text.ends_with("data: [DONE]\n\n"));
    paid.push(Paid {
        marker: format!("p5-{requests}"),
        payer: 0,
        id: slow.request_id().0,
        later: false,
    });
    let took = began.elapsed();

    // What the providers say that they served, by the number in the prompt.
    let mut served: HashMap<String, Vec<(&str, String, Tokens)>> = HashMap::new();
    for (name, provider) in [("alpha", &alpha), ("beta", &beta)] {
        for exchange in provider
            .exchanges()
            .iter()
            .filter(|exchange| exchange.billed.total() > 0)
        {
            let marker = marker_of(&exchange.received.body).expect("every request has a number");
            let model = exchange.received.json()["model"].as_str().unwrap().to_owned();
            served.entry(marker).or_default().push((name, model, exchange.billed));
        }
    }
    let mut rows: HashMap<Uuid, RequestRow> = HashMap::new();
    for organization in [own, other] {
        let of_it = paid
            .iter()
            .filter(|paid| payers[paid.payer].organization == organization);
        let expected = of_it.count();
        in_the_ledger(&gateway, organization, expected).await;
        let found = gateway.store.all_requests(organization).await.unwrap();
        assert_eq!(found.len(), expected, "every request has one row in its organization");
        rows.extend(found.into_iter().map(|row| (row.id, row)));
    }
    assert_eq!((rows.len(), paid.len()), (requests + 1, requests + 1));
    let mut due_by: HashMap<usize, i64> = HashMap::new();
    for paid in &paid {
        let row = &rows[&paid.id];
        let answers = &served[&paid.marker];
        assert_eq!(
            answers.len(),
            1,
            "{}: a failure costs nothing, an answer once",
            paid.marker
        );
        let (provider, model, tokens) = &answers[0];
        // A price of one's own is that of one organization.
        let later = paid.later && payers[paid.payer].organization == own;
        let rates = match (*provider, model.as_str()) {
            ("beta", _) => AT_BETA,
            (_, "mock-chat-429-once") => OF_RETRIED,
            (_, "mock-embed") => OF_EMBEDDINGS,
            (_, "mock-completion") => OF_LEGACY,
            _ if later => AT_ALPHA_LATER,
            _ => AT_ALPHA,
        };
        let due = rates.of(*tokens);
        assert_eq!(
            (row.metering.as_str(), row.cost_nanousd, row.provider.as_deref()),
            ("reported", Some(due), Some(*provider)),
            "{}: {row:?}",
            paid.marker
        );
        assert_eq!(
            [row.input_tokens, row.cached_tokens, row.output_tokens].map(i64::cast_unsigned),
            [tokens.prompt, tokens.cached, tokens.completion],
            "{}",
            paid.marker
        );
        *due_by.entry(paid.payer).or_default() += due;
    }
    // The sums of the keys are those of their organizations, and these are the total, wherever one asks.
    let mut total = 0;
    for organization in [own, other] {
        let of_it = due_by
            .iter()
            .filter(|(payer, _)| payers[**payer].organization == organization);
        let due: i64 = of_it.map(|(_, due)| due).sum();
        assert_eq!(gateway.store.totals(organization).await.unwrap().cost_nanousd, due);
        let token = gateway.token_for(Role::Admin, organization);
        let figures = gateway
            .manage("GET", "/api/gateway/usage?group_by=key", &token, None)
            .await
            .json();
        assert_eq!(figures["totals"]["cost_nanousd"], json!(due), "{figures}");
        total += due;
    }
    for (payer, due) in &due_by {
        let key = gateway.get("/v1/key", &payers[*payer].key).await.json();
        let id = key["id"]
            .as_str()
            .unwrap_or_else(|| panic!("{key}"))
            .parse::<Uuid>()
            .unwrap();
        let spent = gateway
            .store
            .spent_by(bonito::domain::ids::KeyId(id), &[])
            .await
            .unwrap();
        assert_eq!(spent.0, *due, "what the key has spent");
    }
    let sum = async |table: &str| {
        let query = format!("SELECT CAST(SUM(cost_nanousd) AS bigint) AS n FROM {table}");
        gateway.number(&query).await
    };
    assert_eq!(
        (sum("gateway_requests").await, sum("gateway_attempts").await),
        (total, total)
    );
    assert_eq!(gateway.metric("bonito_cost_nanousd_total").await as i64, total);
    assert_eq!(inexact_columns(&gateway).await, 0);
    let attempts = gateway.number("SELECT count(*) AS n FROM gateway_attempts").await;
    assert_eq!(attempts as usize, alpha.requests().len() + beta.requests().len());
    figures(
        "P5",
        format_args!(
            "{} requests in {} s, {attempts} attempts, over four keys of two organizations, the price changed in the middle: \
             {total} nano-dollars, difference 0; keys = organizations = total = attempts; 0 columns that are not exact",
            requests + 1,
            took.as_secs()
        ),
    );
    gateway.finish().await;
}

/// When a caller leaves.
#[derive(Clone, Copy)]
enum Leaves {
    /// After so many bytes of the answer.
    After(usize),
    /// When all words are there, and the usage is not.
    BeforeTheUsage,
}

/// Words of each stream, which is some 250 bytes for each of them.
const WORDS: u64 = 60;
const PAUSE_MS: u64 = 20;

/// A caller who leaves in the middle: when that was, and the id of the request.
async fn leave(client: &reqwest::Client, api: &str, key: &str, number: usize, when: Leaves) -> (Instant, Uuid) {
    let text = format!("p6-{number} words:{WORDS} pause_ms:{PAUSE_MS}");
    let request = client.post(format!("{api}/v1/chat/completions")).bearer_auth(key);
    let mut response = request.json(&chat("mock-chat", &text, true)).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let id = id.strip_prefix("req_").unwrap().parse().unwrap();
    let mut heard = Vec::new();
    loop {
        let enough = match when {
            Leaves::After(bytes) => heard.len() >= bytes,
            Leaves::BeforeTheUsage => String::from_utf8_lossy(&heard).contains(r#""finish_reason":"stop""#),
        };
        if enough {
            drop(response);
            return (Instant::now(), id);
        }
        let chunk = response.chunk().await.expect("the stream goes on");
        heard.extend_from_slice(&chunk.unwrap_or_else(|| panic!("stream {number} ended before its caller left")));
    }
}

/// Connections to the database that a process may have.
const DATABASE: usize = 2;

/// Sockets that a process has open.
fn sockets(process: u32) -> usize {
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).expect("it runs");
    let targets = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

/// What our estimate is of the first words of an answer.
fn tokens_of(words: u64) -> i64 {
    let text: Vec<String> = (1..=words).map(|number| format!("word-{number}")).collect();
    let mut tally = TextTally::default();
    tally.add(&text.join(" "));
    tally.tokens().cast_signed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_who_leaves_early_is_metered_and_the_provider_is_told_at_once() {
    let streams = usize::try_from(size("BONITO_PROMISES_STREAMS", 80, 2_000)).unwrap();
    let seed = size("BONITO_PROMISES_SEED", rand::random(), rand::random());
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let provider = ScriptedProvider::start().await;
    let mut installation = Installation::new(&provider).await;
    // So that what is open in the end is what has leaked.
    installation.set("BONITO_UPSTREAM_POOL_IDLE_MS", 500);
    installation.set("BONITO_DATABASE_MAX_CONNECTIONS", DATABASE);
    let process = installation.start().await;
    let key = installation.key.clone();
    let client = reqwest::Client::builder()
        .pool_idle_timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    // What is opened once, such as connections to the database, is open before.
    let warm = futures_util::stream::iter(0..AT_ONCE).map(|number| {
        let text = format!("warm-{number} words:3");
        let request = client
            .post(format!("{}/v1/chat/completions", process.api))
            .bearer_auth(&key);
        async move { read(request.json(&chat("mock-chat", &text, true)).send().await.unwrap()).await }
    });
    let warm: Vec<_> = warm.buffer_unordered(AT_ONCE).collect().await;
    assert!(warm.iter().all(|reply| reply.complete));
    process
        .until_metric("bonito_journal_depth", DRAIN, |depth| depth == 0.0)
        .await;
    let began = Instant::now();
    while provider.open_connections() > 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "idle connections stay open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let open_before = sockets(process.id());

    let cuts: Vec<Leaves> = (0..streams)
        .map(|number| match number % 4 {
            3 => Leaves::BeforeTheUsage,
            _ => Leaves::After(random.random_range(1..200 * usize::try_from(WORDS).unwrap())),
        })
        .collect();
    let calls = futures_util::stream::iter(cuts.iter().enumerate())
        .map(async |(number, when)| (number, leave(&client, &process.api, &key, number, *when).await));
    let left: HashMap<usize, (Instant, Uuid)> = calls.buffer_unordered(AT_ONCE).collect().await;
    let last_left = Instant::now();
    for name in ["bonito_requests_in_flight", "bonito_journal_depth"] {
        process.until_metric(name, DRAIN, |value| value == 0.0).await;
    }
    let open_after = loop {
        let open = sockets(process.id());
        if open <= open_before + DATABASE || last_left.elapsed() > Duration::from_secs(10) {
            break open;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(
        open_after <= open_before + DATABASE,
        "{open_after} sockets are open, {open_before} were"
    );
    let stopping = Instant::now();
    assert_eq!(process.terminate().await, 0, "{}", installation.log());
    let stopped = stopping.elapsed();
    assert!(stopped < Duration::from_secs(10), "a task was waited for: {stopped:?}");

    let rows = installation.rows().await;
    assert_eq!(rows.len(), streams + AT_ONCE);
    let rows: HashMap<Uuid, RequestRow> = rows.into_iter().map(|row| (row.id, row)).collect();
    let mut told: Vec<Duration> = Vec::new();
    let (mut charged, mut due, mut far, mut in_time, mut cancelled) = (0, 0, 0, 0, 0);
    for exchange in provider.exchanges() {
        let content = exchange.received.json()["messages"][0]["content"]
            .as_str()
            .unwrap()
            .to_owned();
        let Some(number) = content.split(' ').next().and_then(|word| word.strip_prefix("p6-")) else {
            continue;
        };
        let (left_at, id) = left[&number.parse::<usize>().unwrap()];
        let row = &rows[&id];
        assert_eq!(
            row.cost_nanousd,
            Some(row.input_tokens * 2_500 + row.output_tokens * 10_000),
            "{row:?}"
        );
        if !row.client_cancelled {
            // The usage was here before the caller had left, and is what counts.
            assert_eq!(row.output_tokens.cast_unsigned(), exchange.billed.completion, "{row:?}");
            in_time += 1;
            continue;
        }
        // None where the provider had sent everything, which was on its way through us.
        told.extend(
            exchange
                .departure()
                .map(|departure| departure.at.saturating_duration_since(left_at)),
        );
        assert_eq!(
            (row.metering.as_str(), row.error_class.as_deref(), row.status),
            ("estimated", Some("cancelled"), 200)
        );
        // Our count of the text that the provider had served. A word or two may have been on their way.
        let served = tokens_of(exchange.billed.completion);
        far += usize::from((row.output_tokens - served).abs() > (served / 20).max(5));
        cancelled += 1;
        charged += row.output_tokens;
        due += served;
    }
    assert_eq!(cancelled + in_time, streams, "each of them reached the provider");
    assert!(told.len() >= streams / 2, "{} providers were left", told.len());
    assert!(
        in_time <= streams / 4,
        "{in_time} streams ended before their callers had left"
    );
    // On a machine that has other things to do, we hear late of who left, and a provider is ahead of what we have read.
    let (soon, least, astray) = if full() {
        (Duration::from_secs(1), 95, streams / 50)
    } else {
        (Duration::from_secs(10), 50, streams)
    };
    let p99 = percentile(&told, 99);
    assert!(p99 <= soon, "the provider is told after {p99:?}");
    assert!(
        charged * 100 >= due * least && charged * 100 <= due * 105,
        "{charged} tokens charged, {due} served"
    );
    assert!(far <= astray, "{far} of {streams} are charged otherwise");
    figures(
        "P6",
        format_args!(
            "{streams} streams left (seed {seed}): the provider was told after p50 {} ms, p99 {} ms, at most {} ms; charged \
             {charged} tokens of the {due} that we count in what it had served, {far} streams off by more than 5 % and a word \
             or two; {in_time} had ended; sockets {open_before} before and {open_after} after; stopped in {} ms",
            percentile(&told, 50).as_millis(),
            p99.as_millis(),
            percentile(&told, 100).as_millis(),
            stopped.as_millis()
        ),
    );
}
