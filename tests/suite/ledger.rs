//! The ledger: every call leaves a row, and its sums are the provider's own.

use std::time::Duration;

use serde_json::json;

use crate::support::database::on_postgres;
use crate::support::gateway::{chat, read};
use crate::support::{Script, ScriptedProvider, TestGateway};

#[tokio::test]
async fn a_row_holds_everything_that_is_known_of_a_call() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    let mut body = chat("mock-chat", "a cached question with words:12", false);
    body["reasoning_effort"] = json!("high");
    let reply = gateway.post("/v1/chat/completions", &body).await;
    let usage = reply.json()["usage"].clone();
    let row = gateway.row(&reply).await;
    assert_eq!(row.organization_id, gateway.organization.0);
    assert_eq!(
        (row.requested_model.as_str(), row.model.as_deref()),
        ("mock-chat", Some("mock-chat"))
    );
    assert_eq!(
        (row.provider.as_deref(), row.dialect.as_str(), row.operation.as_str()),
        (Some("openai"), "openai", "chat")
    );
    assert_eq!((row.status, row.error_class.as_deref(), row.attempts), (200, None, 1));
    assert_eq!(json!(row.input_tokens), usage["prompt_tokens"]);
    assert_eq!(
        json!(row.cached_tokens),
        usage["prompt_tokens_details"]["cached_tokens"]
    );
    assert_eq!(json!(row.output_tokens), usage["completion_tokens"]);
    assert_eq!(
        json!(row.reasoning_tokens),
        usage["completion_tokens_details"]["reasoning_tokens"]
    );
    assert!(row.cached_tokens > 0 && row.reasoning_tokens > 0);
    let expected =
        (row.input_tokens - row.cached_tokens) * 2_500 + row.cached_tokens * 1_250 + row.output_tokens * 10_000;
    assert_eq!(row.cost_nanousd, Some(expected));
    assert!(row.price_version.unwrap().starts_with("config/openai/mock-chat#"));
    assert_eq!(row.metering, "reported");
    assert!(row.latency_us > 0 && row.overhead_us <= row.latency_us);
    assert!(row.upstream_request_id.is_some_and(|id| !id.is_empty()));
    assert!(!row.client_cancelled && !row.stream);
    gateway.finish().await;
}

#[tokio::test]
async fn an_answer_without_usage_is_estimated_and_says_so() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    for stream in [false, true] {
        provider.script(Script::without_usage());
        let reply = gateway
            .post("/v1/chat/completions", &chat("mock-chat", "words:40", stream))
            .await;
        assert_eq!(reply.status, 200);
        let row = gateway.row(&reply).await;
        assert_eq!(row.metering, "estimated");
        assert!(row.input_tokens > 0 && row.output_tokens >= 20, "{row:?}");
    }
    gateway.finish().await;
}

/// The answer's word counts; where it says nothing, the caller's.
#[tokio::test]
async fn a_call_is_charged_as_it_was_served() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["gpt-4o"]).start().await;
    for (asked, said, percent, mark) in [
        (None, None, 100, ""),
        (Some("priority"), Some("priority"), 200, "+priority"),
        (Some("fast"), Some("priority"), 200, "+priority"),
        (Some("priority"), Some("default"), 100, ""),
        (Some("auto"), Some("flex"), 50, "+flex"),
        (Some("flex"), None, 50, "+flex"),
    ] {
        for stream in [false, true] {
            provider.script(Script::faithful().edited(move |answer| {
                answer.map_json(|mut body| {
                    let fields = body.as_object_mut()?;
                    match said {
                        Some(said) => fields.insert("service_tier".to_owned(), said.into()),
                        None => fields.remove("service_tier"),
                    };
                    Some(body)
                })
            }));
            let mut body = chat("gpt-4o", "words:12", stream);
            if let Some(asked) = asked {
                body["service_tier"] = asked.into();
            }
            let row = gateway.row(&gateway.post("/v1/chat/completions", &body).await).await;
            let usual =
                (row.input_tokens - row.cached_tokens) * 2_500 + row.cached_tokens * 1_250 + row.output_tokens * 10_000;
            assert_eq!(
                row.cost_nanousd,
                Some(usual * percent / 100),
                "{asked:?} {said:?} {stream}"
            );
            let version = row.price_version.unwrap();
            let (_, figures) = version.split_once('#').unwrap();
            assert_eq!(&figures[8..], mark, "{version}");
        }
    }
    gateway.finish().await;
}

/// One thousand calls of every kind at once; afterwards the ledger and the provider have counted the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_thousand_mixed_calls_the_sums_are_the_providers_own() {
    const CALLS: usize = 1_000;
    let provider = ScriptedProvider::start().await;
    let models = [
        "mock-chat",
        "mock-completion",
        "mock-embed",
        "mock-chat-500",
        "mock-chat-error-mid",
    ];
    let gateway = TestGateway::builder()
        .openai(&provider, &models)
        .set("health.failures_in_a_row", 1_000_000)
        .start()
        .await;
    let owned = gateway;
    let gateway = &owned;
    let one = async |number: usize| -> (u16, bool) {
        let text = format!(
            "call {number} words:{} {}",
            3 + number % 17,
            if number.is_multiple_of(3) { "cached" } else { "" }
        );
        let (path, body) = match number % 10 {
            0 => ("/v1/completions", json!({"model": "mock-completion", "prompt": text})),
            1 => ("/v1/embeddings", json!({"model": "mock-embed", "input": [text, "b"]})),
            2 => (
                "/v1/completions",
                json!({"model": "mock-completion", "prompt": text, "stream": true}),
            ),
            3 => ("/v1/chat/completions", chat("mock-chat-500", &text, number % 20 == 3)),
            4 => ("/v1/chat/completions", chat("no-such-model", &text, false)),
            5..7 => ("/v1/chat/completions", chat("mock-chat", &text, true)),
            7 => (
                "/v1/chat/completions",
                chat("mock-chat", &format!("call {number} words:400 pause_ms:5"), true),
            ),
            9 => ("/v1/chat/completions", chat("mock-chat-error-mid", &text, true)),
            _ => ("/v1/chat/completions", chat("mock-chat", &text, false)),
        };
        let request = gateway
            .client
            .post(format!("{}{path}", gateway.api))
            .bearer_auth(&gateway.key)
            .json(&body);
        let mut response = request.send().await.expect("the gateway answers");
        if number % 10 == 7 {
            // This caller leaves in the middle, two seconds before the end.
            let _ = response.chunk().await;
            return (response.status().as_u16(), true);
        }
        (read(response).await.status, false)
    };
    let numbers = futures_util::stream::iter(0..CALLS);
    let outcomes: Vec<(u16, bool)> = futures_util::StreamExt::collect(futures_util::StreamExt::buffer_unordered(
        futures_util::StreamExt::map(numbers, one),
        32,
    ))
    .await;

    gateway.totals_of(i64::try_from(CALLS).unwrap()).await;
    let rows = gateway.store.all_requests(gateway.organization).await.unwrap();
    assert_eq!(rows.len(), CALLS);
    let cancelled: Vec<_> = rows.iter().filter(|row| row.client_cancelled).collect();
    let left = outcomes.iter().filter(|(_, left)| *left).count();
    assert_eq!(cancelled.len(), left);
    assert!(
        cancelled
            .iter()
            .all(|row| row.metering == "estimated" && row.cost_nanousd.unwrap() > 0)
    );
    assert_eq!(rows.iter().filter(|row| row.status == 404).count(), CALLS / 10);
    assert_eq!(rows.iter().filter(|row| row.status == 502).count(), CALLS / 10);

    // What was answered to its end is exact; what callers left is compared with what the provider sent them.
    let exact = |field: fn(&bonito::store::ledger::RequestRow) -> i64| {
        let reported = rows.iter().filter(|row| row.metering == "reported");
        u64::try_from(reported.map(field).sum::<i64>()).unwrap()
    };
    for number in 0..provider.requests().len() {
        provider.ended(number).await;
    }
    let (mut prompt, mut cached, mut completion, mut reasoning) = (0, 0, 0, 0);
    let (mut left_prompt, mut left_completion) = (0, 0);
    let mut broken = 0;
    for exchange in provider.exchanges() {
        let billed = exchange.billed;
        if exchange.received.json()["model"] == "mock-chat-error-mid" {
            broken += billed.completion;
        } else if exchange.departure().is_some() {
            left_prompt += billed.prompt;
            left_completion += billed.completion;
        } else {
            prompt += billed.prompt;
            cached += billed.cached;
            completion += billed.completion;
            reasoning += billed.reasoning;
        }
    }
    assert_eq!(exact(|row| row.input_tokens), prompt);
    assert_eq!(exact(|row| row.cached_tokens), cached);
    assert_eq!(exact(|row| row.output_tokens), completion);
    assert_eq!(exact(|row| row.reasoning_tokens), reasoning);
    assert!(
        left_prompt > 0 && left_completion > 0,
        "some callers left in the middle"
    );

    // What the provider broke off cannot be exact either, but what was relayed of it is counted.
    let broken_rows: Vec<_> = rows
        .iter()
        .filter(|row| row.requested_model == "mock-chat-error-mid")
        .collect();
    assert_eq!(broken_rows.len(), CALLS / 10);
    assert!(broken_rows.iter().all(|row| {
        row.status == 200 && row.error_class.is_some() && !row.client_cancelled && row.metering == "estimated"
    }));
    let counted: i64 = broken_rows.iter().map(|row| row.output_tokens).sum();
    let counted = u64::try_from(counted).unwrap();
    assert!(
        counted >= broken / 2 && counted <= broken * 3 && broken > 0,
        "{counted} tokens counted, {broken} sent"
    );

    // Money: the rows' costs are the price of their tokens, and the sums agree everywhere.
    for row in rows.iter().filter(|row| row.attempts > 0) {
        let due =
            (row.input_tokens - row.cached_tokens) * 2_500 + row.cached_tokens * 1_250 + row.output_tokens * 10_000;
        assert_eq!(row.cost_nanousd, Some(due));
    }
    let spent: i64 = rows.iter().filter_map(|row| row.cost_nanousd).sum();
    assert_eq!(
        gateway.store.totals(gateway.organization).await.unwrap().cost_nanousd,
        spent
    );
    assert_eq!(gateway.metric("bonito_cost_nanousd_total").await as i64, spent);
    assert_eq!(gateway.metric("bonito_ledger_rows_total").await as usize, CALLS);
    assert_eq!(gateway.metric("bonito_requests_total").await as usize, CALLS);
    owned.finish().await;
}

#[tokio::test]
async fn a_full_journal_refuses_rather_than_serve_unmetered() {
    let provider = ScriptedProvider::start().await;
    provider.always(Script::slow_to_begin(Duration::from_millis(600)));
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat"])
        .set("journal.max_records", 2)
        .start()
        .await;
    let waiting = async { tokio::join!(gateway.chat("mock-chat", "one"), gateway.chat("mock-chat", "two")) };
    let refused = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        gateway.chat("mock-chat", "three").await
    };
    let ((one, two), three) = tokio::join!(waiting, refused);
    assert_eq!((one.status, two.status), (200, 200));
    assert_eq!((three.status, three.code().as_str()), (503, "overloaded"));
    assert!(!three.header("retry-after").is_empty());
    let again = async { while gateway.chat("mock-chat", "four").await.status != 200 {} };
    tokio::time::timeout(Duration::from_secs(5), again)
        .await
        .expect("it recovers by itself");
    gateway.finish().await;
}

/// Makes the database refuse new rows of requests for a model (SQL text), or for every one.
async fn refuse_rows(gateway: &TestGateway, when: &str) {
    gateway
        .sql(&if on_postgres() {
            format!("ALTER TABLE gateway_requests ADD CONSTRAINT refused CHECK (NOT ({when})) NOT VALID")
        } else {
            format!(
                "CREATE TRIGGER refused BEFORE INSERT ON gateway_requests WHEN {} \
                 BEGIN SELECT RAISE(ABORT, 'refused'); END",
                when.replace("requested_model", "NEW.requested_model")
            )
        })
        .await;
}

#[tokio::test]
async fn rows_the_database_refuses_are_set_aside_and_hold_up_nobody() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat", "poison"])
        .set("ledger.flush_ms", 200)
        .start()
        .await;
    refuse_rows(&gateway, "requested_model = 'poison'").await;
    let model = |number: usize| if number % 7 == 3 { "poison" } else { "mock-chat" };
    let calls = (0..40).map(|number| gateway.chat(model(number), "hi"));
    let replies = futures_util::future::join_all(calls).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    let refused: Vec<_> = (0..40).filter(|&number| model(number) == "poison").collect();
    let good = 40 - refused.len();
    assert_eq!(
        gateway.totals_of(i64::try_from(good).unwrap()).await.requests,
        good as i64
    );
    let counted = async { while gateway.metric("bonito_ledger_rows_set_aside_total").await < refused.len() as f64 {} };
    tokio::time::timeout(Duration::from_secs(10), counted)
        .await
        .expect("every refused row is counted");
    let usage = |field: &str| -> f64 {
        let counts = refused
            .iter()
            .map(|&number| replies[number].json()["usage"][field].as_f64().unwrap());
        counts.sum()
    };
    let (prompt, completion) = (usage("prompt_tokens"), usage("completion_tokens"));
    assert_eq!(
        gateway.metric("bonito_ledger_tokens_set_aside_total").await,
        prompt + completion
    );
    assert_eq!(
        gateway.metric("bonito_ledger_cost_set_aside_nanousd_total").await,
        prompt * 2_500.0 + completion * 10_000.0
    );
    assert_eq!(gateway.metric("bonito_ledger_rows_total").await as usize, good);
    for number in refused {
        let row = gateway
            .store
            .request(gateway.organization, replies[number].request_id());
        assert!(row.await.unwrap().is_none());
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_database_that_takes_no_row_at_all_is_waited_for() {
    let gateway = TestGateway::builder().start().await;
    refuse_rows(&gateway, "requested_model = requested_model").await;
    let replies = futures_util::future::join_all((0..3).map(|_| gateway.chat("echo", "hi"))).await;
    let tried = async { while gateway.metric("bonito_ledger_failures_total").await < 2.0 {} };
    tokio::time::timeout(Duration::from_secs(10), tried)
        .await
        .expect("the ledger keeps trying");
    assert_eq!(gateway.metric("bonito_ledger_rows_set_aside_total").await, 0.0);
    gateway
        .sql(if on_postgres() {
            "ALTER TABLE gateway_requests DROP CONSTRAINT refused"
        } else {
            "DROP TRIGGER refused"
        })
        .await;
    for reply in &replies {
        gateway.row(reply).await;
    }
    gateway.finish().await;
}

#[tokio::test]
async fn prompts_answers_and_secrets_are_nowhere_in_the_database_or_the_journal() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat", "mock-embed", "mock-chat-error-mid"])
        .start()
        .await;
    let mut body = chat("mock-chat", "PROMPT-CANARY please", false);
    body["user"] = json!("USER-CANARY");
    body["metadata"] = json!({"note": "NOTE-CANARY"});
    gateway.post("/v1/chat/completions", &body).await;
    gateway.stream("mock-chat", "PROMPT-CANARY streamed").await;
    gateway.stream("mock-chat-error-mid", "PROMPT-CANARY broken off").await;
    let embed = json!({"model": "mock-embed", "input": "PROMPT-CANARY embedded"});
    gateway.post("/v1/embeddings", &embed).await;
    body["temperature"] = json!("FAULT-CANARY");
    assert_eq!(gateway.post("/v1/chat/completions", &body).await.status, 400);
    provider.script(Script::error(500, "PROVIDER-CANARY is broken", None));
    let reply = gateway.chat("mock-chat", "PROMPT-CANARY again").await;
    gateway.totals_of(6).await;
    gateway.row(&reply).await;
    let (_, another) = gateway.new_key(&[], &[], None).await;
    gateway.get("/v1/key", &another).await;

    let organization = gateway.organization;
    let rows = format!("{:?}", gateway.store.all_requests(organization).await.unwrap());
    let keys = format!("{:?}", gateway.store.keys_of(organization).await.unwrap());
    let mut places = vec![
        ("rows".to_owned(), rows.into_bytes()),
        ("keys".to_owned(), keys.into_bytes()),
    ];
    // On SQLite every byte, what was overwritten and what waits in the log included.
    places.extend(gateway.files());
    let has = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    for file in [if on_postgres() { "" } else { "bonito.db" }, ".segment"] {
        assert!(
            places
                .iter()
                .any(|(place, bytes)| place.contains(file) && has(bytes, "mock-chat")),
            "the search finds what is there in {file}"
        );
    }
    for (place, bytes) in &places {
        for canary in ["-CANARY", "sk-secret-of-openai", &gateway.key[11..], &another[11..]] {
            assert!(!has(bytes, canary), "{canary} is in {place}");
        }
    }
    gateway.finish().await;
}
