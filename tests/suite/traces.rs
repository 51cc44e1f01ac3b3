//! Traces: every step of a request is in the caller's own trace, in the words of the conventions, and a collector that is
//! down costs nobody anything.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use bonito::domain::audit::Author;
use bonito::domain::budget::calendar::Period;
use bonito::domain::budget::{BudgetScope, BudgetTerms, Enforcement, Unpriced};
use bonito::domain::ids::RequestId;
use bonito::domain::money::NanoUsd;
use bonito::domain::role::Role;
use bonito::domain::trace::TraceContext;
use bonito::telemetry::names::trace as names;
use serde_json::json;

use crate::support::collector::{Collector, Mood, Seen, words};
use crate::support::gateway::{Builder, TEST_HAND, chat};
use crate::support::receiver::Receiver;
use crate::support::{Script, ScriptedProvider, TestGateway, closed_port};

/// What OpenTelemetry calls things, written down here anew: <https://opentelemetry.io/docs/specs/semconv/registry/attributes/>.
const CONVENTIONS: [&str; 34] = [
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.request.stream",
    "gen_ai.request.max_tokens",
    "gen_ai.request.choice.count",
    "gen_ai.request.temperature",
    "gen_ai.request.top_p",
    "gen_ai.request.top_k",
    "gen_ai.request.frequency_penalty",
    "gen_ai.request.presence_penalty",
    "gen_ai.request.seed",
    "gen_ai.request.encoding_formats",
    "gen_ai.output.type",
    "gen_ai.response.id",
    "gen_ai.response.model",
    "gen_ai.response.finish_reasons",
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.system_instructions",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "error.type",
    "http.request.method",
    "http.route",
    "http.response.status_code",
    "server.address",
    "server.port",
    "db.system.name",
    "db.operation.batch.size",
];

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// The traces of a request that a budget's threshold is reached by, and of one that a provider is taken out by.
const SPENDING: &str = "1af7651916cd43dd8448eb211c80319c";
const FAILING: &str = "2af7651916cd43dd8448eb211c80319c";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
const CANARY: &str = "PROMPT-CANARY-f3a9";

const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const CONSUMER: i32 = 5;

fn traced(collector: &Collector) -> Builder {
    TestGateway::builder()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)
        .set("tracing.flush_ms", 10)
}

/// A chat of a caller who is in a trace.
async fn ask(gateway: &TestGateway, model: &str, stream: bool, headers: &[(&str, &str)]) -> (u16, RequestId) {
    let request = gateway.client.post(format!("{}/v1/chat/completions", gateway.api));
    let mut request = request.bearer_auth(&gateway.key).json(&chat(model, CANARY, stream));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let (status, id) = (
        response.status().as_u16(),
        response.headers()["x-request-id"].to_str().unwrap().to_owned(),
    );
    response.bytes().await.unwrap();
    (status, RequestId(id.trim_start_matches("req_").parse().unwrap()))
}

fn named<'s>(spans: &'s [Seen], name: &str) -> Vec<&'s Seen> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn one<'s>(spans: &'s [Seen], name: &str) -> &'s Seen {
    let found = named(spans, name);
    assert_eq!(found.len(), 1, "{name} in {spans:#?}");
    found[0]
}

#[tokio::test]
async fn a_stream_that_failed_over_shows_every_step_from_its_caller_to_the_ledger() {
    let collector = Collector::start(Mood::Takes).await;
    let (bad, good) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = traced(&collector)
        .provider("alpha", &bad.base_url(), &["mock-chat"])
        .provider("beta", &good.base_url(), &["mock-chat"])
        .start()
        .await;
    bad.script(Script::server_error());
    let (status, id) = ask(
        &gateway,
        "mock-chat",
        true,
        &[("traceparent", CALLER), ("tracestate", "a=1")],
    )
    .await;
    assert_eq!(status, 200);
    let row = gateway.row_of(id).await;
    assert_eq!((row.trace_id.as_deref(), row.attempts), (Some(TRACE), 2));
    let shown = gateway
        .manage(
            "GET",
            &format!("/api/gateway/logs/{}", id.header()),
            &gateway.token(Role::Viewer),
            None,
        )
        .await;
    assert_eq!(shown.json()["request"]["trace_id"], TRACE, "{}", shown.text);
    let told = [&bad, &good].map(|provider| {
        let headers = &provider.requests()[0].headers;
        assert!(!headers.contains_key("tracestate"), "only the place is passed on");
        TraceContext::parse(headers["traceparent"].to_str().unwrap()).unwrap()
    });
    gateway.finish().await;

    let spans = collector.spans_of(TRACE);
    let root = one(&spans, "POST /v1/chat/completions");
    assert_eq!(
        (root.kind, root.parent.as_str(), root.failed),
        (SERVER, "b7ad6b7169203331", false)
    );
    assert_eq!(root.state, "a=1");
    assert_eq!(root.says(names::REQUEST_ID), id.header());
    assert_eq!(root.says(names::HTTP_STATUS), "200");
    assert_eq!(root.says(names::GEN_AI_REQUEST_MODEL), "mock-chat");
    assert_eq!(root.says(names::GEN_AI_PROVIDER), "beta");
    assert_eq!(root.says(names::ATTEMPTS), "2");

    let attempts = named(&spans, "chat mock-chat");
    assert_eq!(attempts.len(), 2, "{spans:#?}");
    for (attempt, (provider, told)) in attempts.iter().zip(["alpha", "beta"].iter().zip(told)) {
        assert_eq!((attempt.kind, attempt.parent.as_str()), (CLIENT, root.id.as_str()));
        assert_eq!(attempt.says(names::GEN_AI_PROVIDER), *provider);
        assert_eq!(attempt.says(names::GEN_AI_OPERATION), "chat");
        assert_eq!(attempt.says(names::SERVER_ADDRESS), "127.0.0.1");
        assert_eq!(
            told,
            attempt.context(),
            "the provider is told of the attempt's own place"
        );
    }
    assert!(attempts[0].failed && !attempts[1].failed);
    assert!(attempts.iter().all(|attempt| attempt.says(names::HEALTH) == "passing"));
    assert_eq!(attempts[0].says(names::ERROR_TYPE), "server_error");
    assert_eq!(attempts[0].says(names::HTTP_STATUS), "500");
    assert_eq!(
        attempts[1].says(names::GEN_AI_OUTPUT_TOKENS),
        row.output_tokens.to_string()
    );
    assert_eq!(
        attempts[1].says(names::GEN_AI_INPUT_TOKENS),
        row.input_tokens.to_string()
    );
    assert_eq!(attempts[1].events, [names::event::FIRST_TOKEN]);

    // Everything else hangs on the request, but the key that the actor opened, which hangs there too: it is the message that
    // carried the place.
    for step in [
        names::span::AUTHENTICATE,
        names::span::OPEN_KEY,
        names::span::ADMIT,
        names::span::READ_BODY,
        names::span::PLAN,
        names::span::CACHE,
        names::span::LIMIT,
        names::span::LEDGER,
    ] {
        let step = one(&spans, step);
        assert_eq!(step.parent, root.id, "{step:?}");
        assert!(step.from >= root.from && step.to >= step.from, "{step:?}");
    }
    assert_eq!(named(&spans, names::span::RESERVE).len(), 2);
    assert!(!named(&spans, names::span::JOURNAL).is_empty());
    let plan = one(&spans, names::span::PLAN);
    for (name, said) in [
        (names::ROUTING_STRATEGY, "failover"),
        (names::ROUTING_CANDIDATES, "2"),
        (names::ROUTING_CHOSEN, "alpha/mock-chat"),
    ] {
        assert_eq!(plan.says(name), said, "{name}");
    }
    let reasons: serde_json::Value = serde_json::from_str(plan.says(names::ROUTING_REASONS)).unwrap();
    assert_eq!(reasons["attempts"].as_array().unwrap().len(), 2, "{reasons}");
    assert!(
        attempts.iter().all(|attempt| attempt.to <= root.to),
        "the request ends last"
    );
    assert_eq!(one(&spans, names::span::LEDGER).says(names::REQUEST_ID), id.header());
}

#[tokio::test]
async fn every_name_is_in_the_vocabulary_and_nothing_holds_what_a_caller_wrote() {
    let collector = Collector::start(Mood::Takes).await;
    let provider = ScriptedProvider::start().await;
    let gateway = traced(&collector)
        .openai(&provider, &["mock-chat"])
        .env("OTEL_SERVICE_NAME", "edge")
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test%2Cone")
        .env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=HEADER-CANARY")
        .set("cache.ttl_ms", 60_000)
        .start()
        .await;
    ask(&gateway, "mock-chat", false, &[]).await;
    ask(&gateway, "mock-chat", true, &[]).await;
    ask(&gateway, "nobody-knows-it", false, &[]).await;
    provider.script(Script::error(400, CANARY, Some("context_length_exceeded")));
    ask(&gateway, "mock-chat", false, &[]).await;
    gateway.get(&format!("/v1/{CANARY}"), CANARY).await;
    gateway.get("/v1/models", &gateway.key).await;
    gateway
        .manage(
            "GET",
            &format!("/api/gateway/keys/{CANARY}"),
            &gateway.token(Role::Admin),
            None,
        )
        .await;
    gateway.send("/v1/chat/completions", CANARY, CANARY).await;
    gateway.totals_of(4).await;
    gateway.finish().await;

    let vocabulary: BTreeSet<&str> = names::ALL.iter().copied().collect();
    for span in collector.spans() {
        for name in span.attributes.keys() {
            assert!(vocabulary.contains(name.as_str()), "{name} of {}", span.name);
            let named = name.starts_with("bonito.") || CONVENTIONS.contains(&name.as_str());
            assert!(named, "{name} is neither OpenTelemetry's nor said to be ours");
        }
        for event in &span.events {
            assert!(names::event::ALL.contains(&event.as_str()), "{event}");
        }
        let known = names::span::ALL.contains(&span.name.as_str())
            || span.name.starts_with("chat ")
            || span.name.starts_with("job ")
            || ["GET", "POST"].iter().any(|method| span.name.starts_with(method));
        assert!(known, "{}", span.name);
    }
    let spans = collector.spans();
    // What a caller can mend is no failure of the gateway's.
    let refused = spans
        .iter()
        .find(|span| span.says(names::ERROR_TYPE) == "model_not_found" && span.kind == SERVER);
    assert!(
        refused.is_some_and(|span| !span.failed && span.says(names::HTTP_STATUS) == "404"),
        "{refused:?}"
    );
    one(&spans, "GET /api/gateway/keys/{id}");
    one(&spans, "GET /v1/models");
    one(&spans, "GET");
    let hit = spans.iter().filter(|span| span.says(names::CACHE_STATUS) == "hit");
    assert_eq!(hit.count(), 0, "what is not the same is not the same");
    let checked = collector.calls(|call| {
        assert_eq!(call.path, "/v1/traces");
        assert_eq!(call.headers["content-type"], "application/x-protobuf");
        assert_eq!(call.headers["api-key"], "HEADER-CANARY");
        let resource = call.message.resource_spans[0].resource.as_ref().unwrap();
        let said = words(&resource.attributes);
        assert_eq!(
            (
                said["service.name"].as_str(),
                said["deployment.environment.name"].as_str()
            ),
            ("edge", "test,one")
        );
        let raw = String::from_utf8_lossy(&call.raw);
        for secret in [CANARY, "HEADER-CANARY", "sk-secret-of", "bn-"] {
            assert!(!raw.contains(secret), "{secret}");
        }
    });
    assert!(!checked.is_empty());
}

#[tokio::test]
async fn prompts_are_in_spans_only_where_somebody_wants_them_and_only_so_much() {
    let collector = Collector::start(Mood::Takes).await;
    let provider = ScriptedProvider::start().await;
    let gateway = traced(&collector)
        .openai(&provider, &["mock-chat"])
        .set("tracing.content", true)
        .set("tracing.content_bytes", 12)
        .start()
        .await;
    ask(&gateway, "mock-chat", false, &[]).await;
    gateway.finish().await;
    let spans = collector.spans();
    let root = one(&spans, "POST /v1/chat/completions");
    let input: serde_json::Value = serde_json::from_str(root.says(names::GEN_AI_INPUT_MESSAGES)).unwrap();
    assert_eq!(
        input,
        json!([{"role": "user", "parts": [{"type": "text", "content": &CANARY[..12]}]}])
    );
    let output: serde_json::Value = serde_json::from_str(root.says(names::GEN_AI_OUTPUT_MESSAGES)).unwrap();
    assert_eq!(output[0]["role"], "assistant");
    assert!(output[0]["parts"][0]["content"].as_str().unwrap().len() <= 12);
    assert_eq!(output[0]["finish_reason"], "stop");
}

/// What every backend of traces for models shows of a call: how it was asked, by which id it can be found, and why it ended.
#[tokio::test]
async fn spans_say_how_it_was_asked_and_what_the_answer_says_about_itself() {
    let collector = Collector::start(Mood::Takes).await;
    let provider = ScriptedProvider::start().await;
    let gateway = traced(&collector).openai(&provider, &["mock-chat"]).start().await;
    let mut answers = Vec::new();
    for stream in [false, true] {
        let mut body = chat("mock-chat", &format!("{CANARY} as json"), stream);
        for (name, value) in [
            ("temperature", json!(0.25)),
            ("seed", json!(7)),
            ("max_tokens", json!(90)),
            ("stop", json!(CANARY)),
            ("response_format", json!({"type": "json_object"})),
        ] {
            body[name] = value;
        }
        let answer = gateway
            .send("/v1/chat/completions", &gateway.key, body.to_string())
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let told = answer
            .text
            .split("data: ")
            .find(|part| part.contains("\"id\""))
            .unwrap();
        let told = serde_json::from_str::<serde_json::Value>(told.trim()).unwrap();
        answers.push((
            stream,
            told["id"].as_str().unwrap().to_owned(),
            told["model"].as_str().unwrap().to_owned(),
        ));
    }
    gateway.finish().await;
    let spans = collector.spans();
    for (stream, id, model) in answers {
        let of_answer: Vec<&Seen> = spans
            .iter()
            .filter(|span| span.says(names::GEN_AI_RESPONSE_ID) == id)
            .collect();
        let kinds: BTreeSet<i32> = of_answer.iter().map(|span| span.kind).collect();
        assert_eq!(kinds, BTreeSet::from([SERVER, CLIENT]), "{spans:#?}");
        for span in of_answer {
            for (name, said) in [
                (names::GEN_AI_TEMPERATURE, "0.25"),
                (names::GEN_AI_SEED, "7"),
                (names::GEN_AI_MAX_TOKENS, "90"),
                (names::GEN_AI_OUTPUT_TYPE, "json"),
                (names::GEN_AI_RESPONSE_MODEL, &model),
                (names::GEN_AI_FINISH_REASONS, "[stop]"),
            ] {
                assert_eq!(span.says(name), said, "{name} of {}", span.name);
            }
            let first_chunk = span.attributes.contains_key(names::GEN_AI_FIRST_CHUNK);
            assert_eq!(first_chunk, stream, "{}", span.name);
            assert!(span.attributes.values().all(|value| !value.contains(CANARY)));
        }
    }
}

#[tokio::test]
async fn the_caller_decides_what_is_recorded_and_failures_are_kept_all_the_same() {
    let collector = Collector::start(Mood::Takes).await;
    let provider = ScriptedProvider::start().await;
    let gateway = traced(&collector)
        .openai(&provider, &["mock-chat"])
        .set("tracing.sample_ratio", "0")
        .start()
        .await;
    let (_, quiet) = ask(&gateway, "mock-chat", false, &[]).await;
    let (_, unsampled) = ask(&gateway, "mock-chat", false, &[("traceparent", UNSAMPLED)]).await;
    // The flag goes on as it came.
    let told = provider.requests()[1].headers["traceparent"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(told.starts_with(&UNSAMPLED[..36]) && told.ends_with("-00"), "{told}");
    provider.script(Script::server_error());
    let (status, failed) = ask(&gateway, "mock-chat", false, &[]).await;
    assert_eq!(status, 502);
    let (_, sampled) = ask(&gateway, "mock-chat", false, &[("traceparent", CALLER)]).await;
    // All of them name their trace, recorded or not.
    let mut traces = HashMap::new();
    for id in [quiet, unsampled, failed, sampled] {
        traces.insert(id, gateway.row_of(id).await.trace_id.unwrap());
    }
    gateway.finish().await;
    let spans = collector.spans();
    let of = |id| {
        spans
            .iter()
            .filter(|span| span.trace == traces[&id])
            .collect::<Vec<_>>()
    };
    assert!(of(quiet).is_empty());
    assert_eq!(traces[&unsampled], traces[&sampled]);
    assert!(
        of(sampled)
            .iter()
            .any(|span| span.kind == SERVER && span.says(names::REQUEST_ID) == sampled.header())
    );
    assert!(
        spans
            .iter()
            .all(|span| span.says(names::REQUEST_ID) != unsampled.header())
    );
    let kept = of(failed);
    let root = kept.iter().find(|span| span.kind == SERVER).unwrap();
    assert!(root.failed && root.parent.is_empty());
    assert_eq!(root.says(names::AFTER_ALL), "true");
    assert_eq!(root.says(names::ERROR_TYPE), "server_error");
    let parts: BTreeSet<&str> = kept
        .iter()
        .filter(|span| span.parent == root.id)
        .map(|span| span.name.as_str())
        .collect();
    assert_eq!(parts, BTreeSet::from(["chat mock-chat", names::span::LEDGER]));
}

#[tokio::test]
async fn a_collector_that_hangs_costs_no_request_anything_and_what_is_lost_is_counted() {
    for (mood, reasons) in [
        (Some(Mood::Hangs), vec!["queue_full", "timeout"]),
        (Some(Mood::Refuses(400)), vec!["refused"]),
        (None, vec!["queue_full", "unreachable"]),
    ] {
        let collector = Collector::start(mood.unwrap_or(Mood::Takes)).await;
        let nobody = closed_port();
        let url = if mood.is_some() {
            collector.url.clone()
        } else {
            nobody.origin()
        };
        let gateway = TestGateway::builder()
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &url)
            .set("tracing.flush_ms", 1)
            .set("tracing.queue", 16)
            .set("tracing.batch", 8)
            .set("tracing.timeout_ms", 200)
            .start()
            .await;
        for _ in 0..30 {
            assert_eq!(gateway.chat("echo", "hi").await.status, 200);
        }
        let began = Instant::now();
        loop {
            let text = gateway.operation("/metrics").await.text;
            let dropped = |reason: &str| {
                let line = format!("bonito_trace_spans_dropped_total{{reason=\"{reason}\"}} ");
                let found = text.lines().find_map(|shown| shown.strip_prefix(&line));
                found
                    .unwrap_or_else(|| panic!("{line} is missing"))
                    .parse::<f64>()
                    .unwrap()
            };
            if reasons.iter().all(|reason| dropped(reason) > 0.0) {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{mood:?} {text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(gateway.metric("bonito_trace_spans_exported_total").await, 0.0);
        let stopping = Instant::now();
        gateway.finish().await;
        assert!(
            stopping.elapsed() < Duration::from_secs(10),
            "a stop does not wait for it"
        );
        assert!(collector.spans().is_empty());
    }
}

#[tokio::test]
async fn a_job_and_its_webhook_are_in_the_trace_of_whoever_caused_them() {
    let collector = Collector::start(Mood::Takes).await;
    let receiver = Receiver::start().await;
    let provider = ScriptedProvider::start().await;
    let gateway = traced(&collector)
        .openai(&provider, &["mock-chat"])
        .set("health.failures_in_a_row", 1)
        .set("fetch.ports", format!("443,{}", receiver.port))
        .set("fetch.allowed_networks", "127.0.0.1/32")
        .set("webhooks.allow_http", true)
        .start()
        .await;
    let admin = gateway.token(Role::Admin);
    let made = gateway
        .manage(
            "POST",
            "/api/gateway/webhooks",
            &admin,
            Some(&json!({"url": format!("{}/a", receiver.url)})),
        )
        .await;
    assert_eq!(made.status, 201, "{}", made.text);
    let path = format!("/api/gateway/webhooks/{}/test", made.json()["id"].as_str().unwrap());
    let sent = gateway
        .manage_with("POST", &path, &admin, None, &[("traceparent", CALLER)])
        .await;
    assert_eq!(sent.status, 202, "{}", sent.text);
    let received = receiver.until("/a", 1).await.remove(0);
    let told = TraceContext::parse(&received.headers["traceparent"]).unwrap();

    // Nobody asked for these two: the ledger and the provider's actor raise them, long after the request has gone by.
    let terms = BudgetTerms {
        amount: NanoUsd(1),
        period: Period::Monthly,
        zone: chrono_tz::Tz::UTC,
        enforcement: Enforcement::Soft,
        unpriced: Unpriced::Allow,
        default_output_tokens: None,
        thresholds: [100].into_iter().collect(),
        enabled: true,
    };
    gateway
        .store
        .set_budget(
            gateway.organization,
            &BudgetScope::Organization,
            &terms,
            &Author::system(TEST_HAND),
        )
        .await
        .unwrap();
    let caller = |trace: &str| format!("00-{trace}-b7ad6b7169203331-01");
    let (status, _) = ask(&gateway, "mock-chat", false, &[("traceparent", &caller(SPENDING))]).await;
    assert_eq!(status, 200);
    let threshold = receiver.until("/a", 2).await.remove(1);
    assert!(threshold.body.contains("budget.threshold"), "{}", threshold.body);
    provider.always(Script::server_error());
    let (status, _) = ask(&gateway, "mock-chat", false, &[("traceparent", &caller(FAILING))]).await;
    assert_ne!(status, 200);
    let down = receiver.until("/a", 3).await.remove(2);
    assert!(down.body.contains("provider.down"), "{}", down.body);
    gateway.finish().await;
    // What was spent is the request's, what a provider was like is the attempt's that showed it.
    for (trace, cause, received) in [
        (SPENDING, "POST /v1/chat/completions", threshold),
        (FAILING, "chat mock-chat", down),
    ] {
        let spans = collector.spans_of(trace);
        let (job, post) = (one(&spans, "job webhook_delivery"), one(&spans, names::span::WEBHOOK));
        let parent = spans.iter().find(|span| span.id == job.parent);
        assert_eq!(parent.map(|span| span.name.as_str()), Some(cause));
        assert_eq!(post.parent, job.id);
        let told = TraceContext::parse(&received.headers["traceparent"]).unwrap();
        assert_eq!(told, post.context());
    }

    let spans = collector.spans_of(TRACE);
    let asked = one(&spans, "POST /api/gateway/webhooks/{id}/test");
    let job = one(&spans, "job webhook_delivery");
    let post = one(&spans, names::span::WEBHOOK);
    assert_eq!((job.kind, job.parent.as_str()), (CONSUMER, asked.id.as_str()));
    assert_eq!((post.kind, post.parent.as_str()), (CLIENT, job.id.as_str()));
    assert_eq!(told, post.context());
    assert_eq!(
        (post.says(names::SERVER_ADDRESS), post.says(names::SERVER_PORT)),
        ("127.0.0.1", receiver.port.to_string().as_str())
    );
    assert_eq!(
        (job.says(names::JOB_RESULT), post.says(names::HTTP_STATUS)),
        ("done", "204")
    );
}

#[tokio::test]
async fn without_a_collector_nothing_is_told_to_anybody_but_the_callers_trace_is_noted() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    let (_, id) = ask(&gateway, "mock-chat", false, &[("traceparent", CALLER)]).await;
    assert!(!provider.requests()[0].headers.contains_key("traceparent"));
    assert_eq!(gateway.row_of(id).await.trace_id.as_deref(), Some(TRACE));
    let (_, alone) = ask(&gateway, "mock-chat", false, &[("traceparent", "nonsense")]).await;
    assert_eq!(gateway.row_of(alone).await.trace_id, None);
    gateway.finish().await;
}
