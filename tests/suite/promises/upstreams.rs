//! P15 to P18: providers that are down, slow, half there or lying.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bonito::domain::health::Outcome;
use bonito::domain::ids::ProviderId;
use bonito::gates::health_board::Overview;
use bonito::routing::plan::Readiness;
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::load::{Load, Seen};
use super::{figures, full, percentile, size};
use crate::support::gateway::{Builder, Reply, chat, read};
use crate::support::provider::{Exchange, Received};
use crate::support::{Answer, Script, ScriptedProvider, Step, TestGateway, closed_port};

/// Requests under way at once, where it is not a rate that counts.
const AT_ONCE: usize = 16;
/// What nothing is ejected by.
const NEVER: u32 = 1_000_000;

/// The words of a prompt, wherever its dialect has them.
fn prompt_of(received: &Received) -> String {
    let body = received.json();
    let content = &body["messages"][0]["content"];
    let text = content.as_str().or_else(|| content[0]["text"].as_str());
    text.unwrap_or_default().to_owned()
}

/// The first word of a prompt, which no other has.
fn marker_of(received: &Received) -> String {
    prompt_of(received).split(' ').next().unwrap_or_default().to_owned()
}

/// P15. Of the attempts of an outage, most are first ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p15_a_total_outage_brings_a_fifth_more_attempts_than_requests_and_no_more() {
    let seconds = size("BONITO_PROMISES_SECONDS", 2, 45);
    let rate = if full() { 100 } else { 50 };
    let providers = [
        ScriptedProvider::start().await,
        ScriptedProvider::start().await,
        ScriptedProvider::start().await,
    ];
    let mut builder = TestGateway::builder()
        .set("failover.same_deployment", true)
        .set("overload.lag_ms", 0)
        .file("[models.\"mock-chat\"]\ntotal_ms = 400\nfirst_token_ms = 400");
    for (id, provider) in ["alpha", "beta", "gamma"].into_iter().zip(&providers) {
        builder = builder.provider(id, &provider.base_url(), &["mock-chat"]);
    }
    let gateway = builder.start().await;
    let attempts = || {
        providers
            .iter()
            .map(|provider| provider.requests().len())
            .sum::<usize>()
    };
    for (name, outage) in [
        ("503", Script::error(503, "down", None)),
        ("timeouts", Script::stalled_before_headers()),
    ] {
        for provider in &providers {
            provider.always(outage.clone());
        }
        let before = attempts();
        let load = Load::start(&gateway.api, &gateway.key, format!("p15-{name}"), rate);
        sleep(Duration::from_secs(seconds)).await;
        let seen = load.stop().await;
        let (offered, made) = (seen.len(), attempts() - before);
        assert!(
            seen.iter().all(|seen| (500..600).contains(&seen.status)),
            "{name}: {:?}",
            seen[0]
        );
        // A fifth, and ten a second besides: those of the ten seconds before count as well.
        let floor = 10 * (usize::try_from(seconds).unwrap() + 10);
        assert!(
            made <= offered * 12 / 10 + floor,
            "{name}: {made} attempts for {offered} requests"
        );
        figures(
            "P15",
            format_args!(
                "{name} from three providers, {rate}/s for {seconds} s: {made} attempts for {offered} requests ({:.3}); without \
                 the floor of ten a second {:.3} at most",
                made as f64 / offered as f64,
                made.saturating_sub(floor) as f64 / offered as f64
            ),
        );
    }
    let most = gateway
        .number("SELECT CAST(MAX(attempts) AS bigint) AS n FROM gateway_requests")
        .await;
    assert!(most <= 3, "{most} attempts for one request");
    gateway.finish().await;
}

/// P15. Retries are spread, and nobody retries for a caller who has left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p15_retries_do_not_come_together_and_end_with_their_caller() {
    const SPAN: Duration = Duration::from_secs(2);
    const CALLS: usize = 60;
    let provider = ScriptedProvider::start().await;
    provider.always(Script::error(503, "down", None));
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat"])
        .set("failover.same_deployment", true)
        .set("failover.max_attempts", 2)
        .set("failover.backoff_ms", SPAN.as_millis())
        .set("failover.max_backoff_ms", SPAN.as_millis())
        .set("failover.retry_floor_per_second", 1_000)
        .start()
        .await;
    let url = format!("{}/v1/chat/completions", gateway.api);
    let call = |text: String| {
        gateway
            .client
            .post(&url)
            .bearer_auth(&gateway.key)
            .json(&chat("mock-chat", &text, false))
    };
    // Together, so that they fail together.
    let calls = (0..CALLS).map(|number| call(format!("spread-{number}")).send());
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.unwrap().status(), 503);
    }
    let mut arrivals: std::collections::HashMap<String, Vec<Instant>> = std::collections::HashMap::new();
    for received in provider.requests() {
        arrivals
            .entry(marker_of(&received))
            .or_default()
            .push(received.arrived_at);
    }
    let waits: Vec<Duration> = arrivals.values().map(|times| times[1] - times[0]).collect();
    assert_eq!((arrivals.len(), provider.requests().len()), (CALLS, 2 * CALLS));
    let (early, late) = (percentile(&waits, 10), percentile(&waits, 90));
    assert!(
        late - early > SPAN / 3,
        "they come together: from {early:?} to {late:?}"
    );

    // Who waits for less than the retry takes.
    let before = provider.requests().len();
    let calls = (0..CALLS).map(|number| {
        call(format!("left-{number}"))
            .timeout(Duration::from_millis(500))
            .send()
    });
    let answers = futures_util::future::join_all(calls).await;
    let gone = answers.iter().filter(|answer| answer.is_err()).count();
    assert!(gone > 0, "nobody had to leave");
    gateway.totals_of(2 * CALLS as i64).await;
    let made = provider.requests().len() - before;
    sleep(SPAN + Duration::from_millis(500)).await;
    assert_eq!(
        provider.requests().len() - before,
        made,
        "nothing is tried for who has left"
    );
    figures(
        "P15",
        format_args!(
            "{CALLS} requests that failed together were retried after {} to {} ms (a tenth before, a tenth after); for {gone} \
             callers who had left nothing was retried",
            early.as_millis(),
            late.as_millis()
        ),
    );
    gateway.finish().await;
}

/// Where the first provider of P16 fails.
struct Point {
    name: &'static str,
    /// The model whose first provider fails there.
    model: &'static str,
    /// What a scripted one does; none where it cannot be reached.
    script: fn(stream: bool) -> Option<Script>,
    /// Whether the caller of a stream has had its first event by then.
    begun: bool,
    whole: bool,
    stream: bool,
}

impl Point {
    /// One that cannot be reached.
    const fn unreachable(name: &'static str, model: &'static str) -> Self {
        Self {
            name,
            model,
            script: |_| None,
            begun: false,
            whole: true,
            stream: true,
        }
    }

    /// One before the first event.
    const fn before(name: &'static str, script: fn(bool) -> Option<Script>) -> Self {
        Self {
            name,
            model: "mock-chat",
            script,
            begun: false,
            whole: true,
            stream: true,
        }
    }

    /// One behind the first event.
    const fn behind(name: &'static str, script: fn(bool) -> Option<Script>) -> Self {
        Self {
            begun: true,
            whole: false,
            ..Self::before(name, script)
        }
    }
}

/// Words of an answer; the events before and behind them are the role, the finish, the usage and the end.
const WORDS: usize = 8;

fn points() -> Vec<Point> {
    vec![
        Point::unreachable("DNS", "by-name"),
        Point::unreachable("connect", "by-port"),
        Point::unreachable("TLS", "by-tls"),
        Point::before("request", |_| Some(Script::cut_before_headers())),
        Point::before("request-reset", |_| Some(Script::reset_before_headers())),
        Point::before("headers", |_| Some(Script::cut_inside_headers())),
        Point::before("status", |_| Some(Script::server_error())),
        Point::before("no-event", |_| Some(Script::cut_after_events(0))),
        Point::before("first-event", |_| Some(Script::cut_after_bytes(40))),
        Point::before("first-is-error", |stream| {
            Some(if stream {
                Script::error_as_first_record()
            } else {
                Script::error_in_ok_body()
            })
        }),
        Point {
            model: "by-patience",
            ..Point::before("silence", |_| Some(Script::stalled_before_headers()))
        },
        // All of it was generated, and is paid for.
        Point {
            stream: false,
            ..Point::before("last-byte", |_| Some(Script::length_too_long()))
        },
        Point::behind("second-event", |_| Some(Script::cut_after_events(1))),
        Point::behind("mid-event", |_| Some(Script::cut_after_bytes(900))),
        Point::behind("reset", |_| Some(Script::reset_after_events(5))),
        Point::behind("error", |_| Some(Script::error_after_events(5))),
        Point::behind("before-usage", |_| Some(Script::cut_after_events(WORDS + 2))),
        Point::behind("last-event", |_| Some(Script::without_done())),
    ]
}

/// The exchanges with this marker.
fn with_marker(exchanges: &[Exchange], marker: &str) -> Vec<Exchange> {
    let of_it = exchanges
        .iter()
        .filter(|exchange| marker_of(&exchange.received) == marker);
    of_it.cloned().collect()
}

/// P16. Failover before the first event, an error behind it, and every attempt in the ledger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p16_no_caller_sees_two_answers_and_every_attempt_is_in_the_ledger() {
    let times = usize::try_from(size("BONITO_PROMISES_TIMES", 3, 200)).unwrap();
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    first.always(Script::faithful().unless(|received| {
        let prompt = prompt_of(received);
        let name = prompt.split(' ').find_map(|word| word.strip_prefix("at:"))?;
        let point = points().into_iter().find(|point| point.name == name)?;
        (point.script)(received.json()["stream"] == true)
    }));
    second.always(Script::faithful().edited(|answer| answer.replacing("chatcmpl-mock", b"chatcmpl-beta")));
    let closed = closed_port();
    // Speaks no TLS.
    let plain = ScriptedProvider::start().await;
    let deployment = |provider: &str, model: &str| {
        format!(
            "[[providers.{provider}.deployments]]\nmodel = {model:?}\nname = \"mock-chat\"\ninput_usd = \"2.5\"\noutput_usd = \
             \"10\"\n"
        )
    };
    let of_second = ["by-name", "by-port", "by-tls", "by-patience"].map(|model| deployment("beta", model));
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat"])
        .file(&deployment("alpha", "by-patience"))
        .provider("alphadns", "http://nobody.invalid/v1", &[])
        .file(&deployment("alphadns", "by-name"))
        .provider("alphaport", &closed.base_url(), &[])
        .file(&deployment("alphaport", "by-port"))
        .provider("alphatls", &plain.base_url().replace("http:", "https:"), &[])
        .file(&deployment("alphatls", "by-tls"))
        .provider("beta", &second.base_url(), &["mock-chat"])
        .file(&of_second.concat())
        .file("[models.\"by-patience\"]\ntotal_ms = 3000\nfirst_token_ms = 3000")
        .set("health.failures_in_a_row", NEVER)
        .set("health.failure_percent_attempts", NEVER)
        .set("failover.retry_floor_per_second", NEVER)
        .set("overload.lag_ms", 0)
        .start()
        .await;
    let points = points();
    let mut cases = Vec::new();
    for number in 0..times {
        for (index, point) in points.iter().enumerate() {
            cases.extend(point.whole.then_some((number, index, false)));
            cases.extend(point.stream.then_some((number, index, true)));
        }
    }
    let asked = futures_util::stream::iter(cases).map(async |(number, index, stream)| {
        let point: &Point = &points[index];
        let marker = format!("p16-{index}-{number}-{stream}");
        let text = format!("{marker} words:{WORDS} at:{}", point.name);
        let body = chat(point.model, &text, stream);
        (marker, index, stream, gateway.post("/v1/chat/completions", &body).await)
    });
    let asked: Vec<(String, usize, bool, Reply)> = asked.buffer_unordered(AT_ONCE).collect().await;
    let (of_first, of_second) = (first.exchanges(), second.exchanges());
    let mut listed = 0;
    for (marker, index, stream, reply) in &asked {
        let point = &points[*index];
        let what = format!("{} (stream: {stream}): {}", point.name, reply.text);
        let attempts = gateway.attempts(reply).await;
        let (at_first, at_second) = (with_marker(&of_first, marker), with_marker(&of_second, marker));
        listed += attempts.len();
        assert_eq!(reply.status, 200, "{what}");
        assert_eq!(at_first.len(), usize::from((point.script)(*stream).is_some()), "{what}");
        assert!(
            attempts[0].error_class.is_some() && attempts[0].provider.starts_with("alpha"),
            "{what}"
        );
        // What was generated was paid for, whoever has it.
        for exchange in &at_first {
            let paid = exchange.billed.total() > 0;
            assert!(!paid || attempts[0].cost_nanousd.unwrap() > 0, "{what}");
        }
        if point.begun {
            assert_eq!(
                (attempts.len(), at_second.len()),
                (1, 0),
                "nobody else is asked: {what}"
            );
            let events = reply.events();
            let errors = events.iter().filter(|event| event.starts_with("{\"error\"")).count();
            assert_eq!(
                (errors, events.last().unwrap().starts_with("{\"error\"")),
                (1, true),
                "{what}"
            );
            assert!(
                !reply.text.contains("[DONE]") && !reply.text.contains("chatcmpl-beta"),
                "{what}"
            );
            assert!(attempts[0].cost_nanousd.unwrap() > 0, "{what}");
        } else {
            assert_eq!((attempts.len(), at_second.len()), (2, 1), "{what}");
            assert_eq!(
                (attempts[1].provider.as_str(), &attempts[1].error_class),
                ("beta", &None),
                "{what}"
            );
            assert_eq!(reply.header("x-bonito-provider"), "beta");
            assert!(
                !reply.text.contains("chatcmpl-mock") && !reply.text.contains("\"error\""),
                "{what}"
            );
            let ids: BTreeSet<&str> = reply
                .text
                .split("\"id\":\"")
                .skip(1)
                .filter_map(|rest| rest.split('"').next())
                .collect();
            assert_eq!(ids.len(), 1, "{what}");
            assert!(!stream || reply.text.ends_with("data: [DONE]\n\n"), "{what}");
        }
    }
    let unreachable = asked
        .iter()
        .filter(|(_, index, ..)| points[*index].model.starts_with("by-") && points[*index].name != "silence");
    assert_eq!(
        listed,
        of_first.len() + of_second.len() + unreachable.count(),
        "every attempt is listed, once"
    );
    figures(
        "P16",
        format_args!(
            "{} points, {times} times each, whole and streamed where there is a difference: {} requests, 0 mixed, 0 asked again \
             behind the first event; {} attempts that providers had and {listed} in the ledger, the difference never arrived",
            points.len(),
            asked.len(),
            of_first.len() + of_second.len()
        ),
    );
    gateway.finish().await;
}

/// What ails the first provider of P17.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ails {
    /// Connections are reset.
    Dead,
    /// Every other answer is a 500.
    HalfDead,
    /// Its first events take far longer than they used to.
    Slow,
    /// It takes nothing more for now.
    Limited,
}

/// How long the first provider of P17 usually takes.
const USUALLY: Duration = Duration::from_millis(120);

/// What came of it.
struct Ailed {
    ails: Ails,
    requests: usize,
    /// Callers that heard of it.
    errors: usize,
    /// Requests that the provider failed before it was out.
    failures: usize,
    out_after: Duration,
    /// Requests it had while it was out, and for how long that was.
    probes: usize,
    out_for: Duration,
    back_after: Duration,
    /// Of streams before, and from ten seconds after the beginning on or else from when it was out.
    calm: Duration,
    meanwhile: Duration,
}

/// Waits until the first provider is, or is no longer, in the rotation.
async fn until_passing(gateway: &TestGateway, passing: bool, patience: Duration) -> Duration {
    let board = gateway.pipeline().board.clone();
    let readiness = || {
        let overview = board.overview();
        let of_it = overview.get(&ProviderId::from("alpha"));
        of_it.map_or(Readiness::Passing, Overview::readiness)
    };
    let began = Instant::now();
    while (readiness() == Readiness::Passing) != passing {
        assert!(began.elapsed() < patience, "alpha stays {:?}", readiness());
        sleep(Duration::from_millis(2)).await;
    }
    began.elapsed()
}

/// Callers who all want streams: of a whole answer nobody can say how long its first token took.
fn streams(gateway: &TestGateway, name: String, rate: u64) -> Load {
    let ask = move |number: u64| (format!("{name}-{number} words:5 pause_ms:5"), true);
    Load::asking(reqwest::Client::new(), &gateway.api, &gateway.key, rate, ask)
}

fn two_providers(first: &ScriptedProvider, second: &ScriptedProvider) -> Builder {
    TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .set("failover.same_deployment", true)
        .set("overload.lag_ms", 0)
}

async fn ail(ails: Ails, rate: u64, holds: Duration, slow: Duration) -> Ailed {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    first.always(Script::slow_to_begin(USUALLY));
    second.always(Script::slow_to_begin(USUALLY));
    let gateway = two_providers(&first, &second).start().await;
    let patience = Duration::from_secs(if full() { 15 } else { 40 });
    let began = Instant::now();
    let load = streams(&gateway, format!("p17-{ails:?}"), rate);
    while first.requests().len() < usize::try_from(2 * rate).unwrap() {
        sleep(Duration::from_millis(10)).await;
    }
    let (calm_for, before) = (began.elapsed(), first.requests().len());
    let turn = AtomicUsize::new(0);
    first.always(match ails {
        Ails::Dead => Script::reset_before_headers(),
        Ails::HalfDead => Script::slow_to_begin(USUALLY).unless(move |_| {
            turn.fetch_add(1, Ordering::Relaxed)
                .is_multiple_of(2)
                .then(Script::server_error)
        }),
        Ails::Slow => Script::slow_to_begin(slow),
        Ails::Limited => Script::error(429, "not now", Some("rate_limit_exceeded")),
    });
    let out_after = match ails {
        // It is not ill, and is passed over as long as there is somebody else.
        Ails::Limited => Duration::ZERO,
        Ails::Dead | Ails::HalfDead | Ails::Slow => until_passing(&gateway, false, patience).await,
    };
    // Those on their way at that moment arrive first, which takes a while on a machine that is busy.
    let mut at_out = first.requests().len();
    for _ in 0..40 {
        sleep(USUALLY).await;
        let before = std::mem::replace(&mut at_out, first.requests().len());
        if before == at_out {
            break;
        }
    }
    let out_at = Instant::now();
    sleep(holds).await;
    let (probes, out_for) = (first.requests().len() - at_out, out_at.elapsed());
    first.always(Script::slow_to_begin(USUALLY));
    let (healed, had) = (Instant::now(), first.requests().len());
    until_passing(&gateway, true, Duration::from_secs(60)).await;
    while first.requests().len() < had + 5 {
        assert!(healed.elapsed() < Duration::from_secs(60), "it gets nothing");
        sleep(Duration::from_millis(5)).await;
    }
    let back_after = healed.elapsed();
    let seen = load.stop().await;
    let p99 = |seen: &[Seen]| percentile(&seen.iter().map(|seen| seen.took).collect::<Vec<_>>(), 99);
    let per_second = usize::try_from(rate).unwrap();
    let until_calm = (calm_for.as_secs_f64() * rate as f64) as usize;
    let from = (until_calm + per_second * out_after.as_secs_f64().ceil() as usize).min(seen.len() - per_second);
    let ailed = Ailed {
        ails,
        requests: seen.len(),
        errors: seen.iter().filter(|seen| !seen.finished).count(),
        failures: at_out - before,
        out_after,
        probes,
        out_for,
        back_after,
        calm: p99(&seen[..until_calm.clamp(1, seen.len())]),
        meanwhile: p99(&seen[from..]),
    };
    gateway.finish().await;
    ailed
}

/// P17. Who is ill is out soon, and back soon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_who_is_ill_is_out_soon_and_back_soon_and_callers_do_not_notice() {
    let rate = if full() { 50 } else { 20 };
    let holds = Duration::from_secs(size("BONITO_PROMISES_SECONDS", 2, 20));
    // On a machine that is busy, ten times may be what it usually takes now and then.
    let slow = USUALLY * if full() { 10 } else { 25 };
    let all = [Ails::Dead, Ails::HalfDead, Ails::Slow, Ails::Limited];
    let ailed = if full() {
        let mut ailed = Vec::new();
        for ails in all {
            ailed.push(ail(ails, rate, holds, slow).await);
        }
        ailed
    } else {
        futures_util::future::join_all(all.map(|ails| ail(ails, rate, holds, slow))).await
    };
    for ailed in ailed {
        let Ailed {
            ails, requests, errors, ..
        } = ailed;
        figures(
            "P17",
            format_args!(
                "{ails:?}: out after {} ms and {} requests, had {} in the {:.0} s it was out, back {:.1} s after it was well; \
                 {errors} of {requests} callers noticed; p99 of streams {} ms before, {} ms from when it was out",
                ailed.out_after.as_millis(),
                ailed.failures,
                ailed.probes,
                ailed.out_for.as_secs_f64(),
                ailed.back_after.as_secs_f64(),
                ailed.calm.as_millis(),
                ailed.meanwhile.as_millis()
            ),
        );
        assert!(errors <= 5, "{ails:?}: {errors} of {requests}");
        let seconds = ailed.out_for.as_secs() as usize + 1;
        let probes = match ails {
            // It is asked again every second, by whoever comes before its answer.
            Ails::Limited => 4 * seconds,
            // Every other probe finds it well; then it is tried by a few, and is out for twice as long as before.
            Ails::HalfDead => seconds * usize::try_from(rate).unwrap() / 2,
            Ails::Dead | Ails::Slow => seconds,
        };
        assert!(
            ailed.probes <= probes,
            "{ails:?}: {} requests in {seconds} s",
            ailed.probes
        );
        if full() {
            let out = Duration::from_secs(if ails == Ails::Dead { 2 } else { 10 });
            assert!(ailed.out_after <= out, "{ails:?} is out after {:?}", ailed.out_after);
            assert!(
                ailed.back_after <= Duration::from_secs(15),
                "{ails:?} is back after {:?}",
                ailed.back_after
            );
        }
    }
}

/// P17. Where everybody is dead, callers hear so at once, and the last provider is asked all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_where_everybody_is_dead_callers_hear_so_at_once() {
    let seconds = size("BONITO_PROMISES_SECONDS", 2, 20);
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    first.always(Script::reset_before_headers());
    second.always(Script::reset_before_headers());
    let gateway = two_providers(&first, &second).start().await;
    let load = streams(&gateway, "p17-all".to_owned(), 50);
    until_passing(&gateway, false, Duration::from_secs(30)).await;
    let before = first.requests().len() + second.requests().len();
    sleep(Duration::from_secs(seconds)).await;
    let asked = first.requests().len() + second.requests().len() - before;
    let seen = load.stop().await;
    assert!(
        seen.iter().all(|seen| [502, 503].contains(&seen.status)),
        "{:?}",
        seen[0]
    );
    assert!(asked > 0, "the last one is asked");
    let took: Vec<Duration> = seen.iter().map(|seen| seen.took).collect();
    first.heal();
    second.heal();
    let began = Instant::now();
    while gateway.chat("mock-chat", "hi").await.status != 200 {
        assert!(began.elapsed() < Duration::from_secs(60), "nobody comes back");
    }
    figures(
        "P17",
        format_args!(
            "all dead: {} requests refused, p50 {} ms, p99 {} ms; {asked} attempts in {seconds} s; served again {} ms after \
             they were well",
            seen.len(),
            percentile(&took, 50).as_millis(),
            percentile(&took, 99).as_millis(),
            began.elapsed().as_millis()
        ),
    );
    gateway.finish().await;
}

/// An answer that is none.
struct Lie {
    name: &'static str,
    script: fn() -> Script,
}

const fn lie(name: &'static str, script: fn() -> Script) -> Lie {
    Lie { name, script }
}

/// Whole answers.
const WHOLE: [Lie; 23] = [
    lie("error-in-200", Script::error_in_ok_body),
    lie("junk", Script::junk_body),
    lie("no-http", Script::junk_on_the_wire),
    lie("too-long", Script::length_too_long),
    lie("too-short", Script::length_too_short),
    lie("cut-before", Script::cut_before_headers),
    lie("reset-before", Script::reset_before_headers),
    lie("cut-in-head", Script::cut_inside_headers),
    lie("cut", || Script::cut_after_bytes(60)),
    lie("reset", || Script::reset_after_bytes(60)),
    lie("huge", || Script::huge_body(400_000)),
    lie("gzip", Script::gzipped),
    lie("page", Script::bad_gateway_page),
    lie("page-as-200", || {
        Answer::whole(200, "text/html", "<html>hello</html>").into()
    }),
    lie("redirect", || Script::redirected_to("http://127.0.0.1:1")),
    lie("500", Script::server_error),
    lie("503", Script::overloaded),
    lie("empty", || Answer::whole(200, "application/json", "").into()),
    lie("null", || Answer::whole(200, "application/json", "null").into()),
    lie("object", || Answer::whole(200, "application/json", "{}").into()),
    lie("no-content", || Answer::whole(204, "application/json", "").into()),
    lie("not-utf-8", not_text),
    lie("silence", Script::stalled_before_headers),
];

/// Streams, in whatever dialect the provider speaks.
const STREAMED: [Lie; 22] = [
    lie("cut", || Script::cut_after_events(5)),
    lie("reset", || Script::reset_after_events(5)),
    lie("cut-unseen", || Script::cut_unseen_after_events(5)),
    lie("cut-in-event", || Script::cut_after_bytes(700)),
    lie("no-end", without_the_last_event),
    lie("error-first", Script::error_as_first_record),
    lie("error-after", error_after_events),
    lie("endless-line", || Script::endless_line(2_000_000)),
    lie("huge-event", huge_event),
    lie("junk", Script::junk_stream),
    lie("no-http", Script::junk_on_the_wire),
    lie("not-utf-8", not_text),
    lie("not-utf-8-unread", || {
        Script::faithful().edited(|answer| {
            answer.insert_after_events(
                3,
                Step::send(&b"data: {\"choices\":[{\"delta\":{\"content\":\"\xff\xfe\"}}]}\n\n"[..]),
            )
        })
    }),
    lie("gzip", Script::gzipped),
    lie("not-a-stream", || {
        Answer::whole(200, "application/json", "{\"object\":\"not a stream\"}").into()
    }),
    lie("list", || Answer::stream([Step::send("data: [1,2]\n\n")]).into()),
    lie("empty", || Answer::stream([]).into()),
    lie("page", Script::bad_gateway_page),
    lie("500", Script::server_error),
    lie("silence", Script::stalled_before_headers),
    lie("stall", || Script::stalled_after_events(4)),
    lie("endless", endless),
];

/// The faithful answer with bytes among its words that are no text.
fn not_text() -> Script {
    Script::faithful().edited(|answer| answer.replacing("word-2", b"word\xff\xfe\xc3"))
}

/// Everything but the event that ends a stream.
fn without_the_last_event() -> Script {
    Script::faithful().edited(|answer| {
        let events = answer.pieces();
        answer.after_events(events - 1, [Step::Finish])
    })
}

/// An error among the events, as both dialects understand it.
fn error_after_events() -> Script {
    let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    let event = format!("event: error\ndata: {error}\n\n");
    Script::faithful().edited(move |answer| answer.after_events(5, [Step::send(event.clone()), Step::Finish]))
}

/// An event of more bytes than one may have.
fn huge_event() -> Script {
    let event = format!("data: {{\"type\":\"x\",\"pad\":{:?}}}\n\n", "x".repeat(200_000));
    Script::faithful().edited(move |answer| answer.insert_after_events(2, Step::send(event.clone())))
}

/// Comments that do not end, behind a beginning that looks good.
fn endless() -> Script {
    let comments = (0..10_000).flat_map(|_| [Step::Pause(Duration::from_millis(20)), Step::send(": more\n\n")]);
    Script::faithful().edited(move |answer| answer.after_events(3, comments.clone()))
}

/// The dialect of a caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Caller {
    OpenAi,
    Anthropic,
}

/// Sends a request whose answer could be kept.
async fn ask(gateway: &TestGateway, caller: Caller, model: &str, text: &str, stream: bool) -> Reply {
    let mut body = json!({
        "model": model, "max_tokens": 500, "temperature": 0, "messages": [{"role": "user", "content": text}],
    });
    if stream {
        body["stream"] = json!(true);
    }
    let path = match caller {
        Caller::OpenAi => "/v1/chat/completions",
        Caller::Anthropic => "/v1/messages",
    };
    let request = gateway
        .client
        .post(format!("{}{path}", gateway.api))
        .bearer_auth(&gateway.key);
    read(request.json(&body).send().await.expect("the gateway answers")).await
}

/// Whether a caller can take it for an answer that has come to its end.
fn looks_like_success(reply: &Reply, caller: Caller) -> bool {
    if reply.status >= 400 {
        return false;
    }
    let last = reply
        .text
        .trim_end()
        .rsplit("\n\n")
        .find(|record| !record.starts_with(':'))
        .unwrap_or_default();
    let said = match caller {
        Caller::OpenAi => last.starts_with("data: {\"error\""),
        Caller::Anthropic => last.starts_with("event: error\n"),
    };
    !said || reply.text.contains("[DONE]") || reply.text.contains("message_stop")
}

/// P18. What is no answer does not look like one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p18_an_answer_that_is_none_never_looks_like_one() {
    let times = usize::try_from(size("BONITO_PROMISES_TIMES", 1, 25)).unwrap();
    let (openai, anthropic) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let lies = |received: &Received| {
        let prompt = prompt_of(received);
        let name = prompt.split(' ').find_map(|word| word.strip_prefix("lie:"))?;
        let lies: &[Lie] = if received.json()["stream"] == true {
            &STREAMED
        } else {
            &WHOLE
        };
        Some((lies.iter().find(|lie| lie.name == name)?.script)())
    };
    openai.always(Script::faithful().unless(lies));
    anthropic.always(Script::faithful().unless(lies));
    let claude = "claude-sonnet-4-5";
    let gateway = TestGateway::builder()
        .openai(&openai, &["mock-chat"])
        .provider("anthropic", &anthropic.origin(), &[claude])
        .file(&format!(
            "[models.\"mock-chat\"]\ntotal_ms = 4000\n[models.{claude:?}]\ntotal_ms = 4000"
        ))
        .set("upstream.max_answer_bytes", 100_000)
        .set("upstream.max_event_bytes", 65_536)
        .set("cache.ttl_ms", 600_000)
        .set("overload.lag_ms", 0)
        .start()
        .await;
    // Whatever health decides by, instead of what it decides.
    let outcomes: Arc<Mutex<Vec<Outcome>>> = Arc::default();
    let gates = [
        gateway.gate_of("openai", "mock-chat").await,
        gateway.gate_of("anthropic", claude).await,
    ];
    for gate in &gates {
        let (outcomes, gate_again) = (outcomes.clone(), Arc::downgrade(gate));
        gate.report_to(Box::new(move |ended| {
            outcomes.lock().unwrap().push(ended.outcome);
            if let Some(gate) = gate_again.upgrade() {
                gate.taken(1);
            }
        }));
    }
    let mut cases = Vec::new();
    for number in 0..times {
        for caller in [Caller::OpenAi, Caller::Anthropic] {
            for model in ["mock-chat", claude] {
                cases.extend(WHOLE.iter().map(|lie| (number, caller, model, lie.name, false)));
                cases.extend(STREAMED.iter().map(|lie| (number, caller, model, lie.name, true)));
            }
        }
    }
    let count = cases.len();
    let asked = futures_util::stream::iter(cases).map(async |(number, caller, model, name, stream)| {
        let text = format!("p18-{number} lie:{name} words:20");
        let reply = ask(&gateway, caller, model, &text, stream).await;
        let what = format!("{name} of {model} for {caller:?} (stream: {stream})");
        let shown = reply.text.chars().take(2_000).collect::<String>();
        let mut faults = Vec::new();
        if looks_like_success(&reply, caller) {
            faults.push(format!("{what} looks like success: {} {shown}", reply.status));
        }
        let row = gateway.row(&reply).await;
        if row.error_class.is_none() {
            faults.push(format!("{what} is a success in the ledger: {row:?}"));
        }
        // The same again must be asked again.
        let again = ask(&gateway, caller, model, &text, stream).await;
        if again.header("x-bonito-cache") == "hit" {
            faults.push(format!("{what} was kept"));
        }
        faults
    });
    let faults: Vec<Vec<String>> = asked.buffer_unordered(2 * AT_ONCE).collect().await;
    let faults: Vec<String> = faults.into_iter().flatten().collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    let outcomes = outcomes.lock().unwrap().clone();
    let failed = outcomes.iter().filter(|outcome| **outcome == Outcome::Failed).count();
    assert_eq!(
        (failed, outcomes.len()),
        (2 * count, 2 * count),
        "health hears of every one, and each is a failure"
    );
    figures(
        "P18",
        format_args!(
            "{} whole and {} streamed lies, of OpenAI's and Anthropic's kind, to callers of both dialects, {times} times and once \
             more each: 0 of {} look like success, 0 kept, {failed} failures for health and the ledger",
            WHOLE.len(),
            STREAMED.len(),
            2 * count
        ),
    );
    gateway.finish().await;
}
