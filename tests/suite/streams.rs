//! Streams that do not lie: events as they come, comments while there are none, and an honest end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::gateway::chat;
use crate::support::{Answer, Script, ScriptedProvider, Step, TestGateway, closed_port};

fn last_error(events: &[String]) -> Value {
    let last: Value = serde_json::from_str(events.last().expect("there are events")).expect("the last event is JSON");
    last["error"].clone()
}

#[tokio::test]
async fn a_stream_arrives_as_it_was_sent_without_the_usage_nobody_asked_for() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;

    let reply = gateway.stream("mock-chat", "tell me words:20").await;

    assert_eq!(reply.status, 200);
    assert!(reply.header("content-type").starts_with("text/event-stream"));
    assert_eq!(reply.header("x-bonito-provider"), "openai");
    assert!(reply.complete && reply.text.ends_with("data: [DONE]\n\n"));
    assert!(!reply.text.contains("usage"), "{}", reply.text);
    assert_eq!(
        provider.requests()[0].json()["stream_options"],
        json!({"include_usage": true})
    );
    let row = gateway.row(&reply).await;
    let served = provider.served();
    assert_eq!(row.metering, "reported");
    assert_eq!(u64::try_from(row.output_tokens).unwrap(), served.completion_tokens);
    assert!(row.first_token_us.unwrap() <= row.latency_us && row.stream);
    gateway.finish().await;
}

#[tokio::test]
async fn a_caller_who_asks_for_usage_gets_exactly_one_usage_event() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    let mut body = chat("mock-chat", "hi", true);
    body["stream_options"] = json!({"include_usage": true});
    let reply = gateway.post("/v1/chat/completions", &body).await;
    let chunks: Vec<Value> = reply
        .events()
        .iter()
        .filter_map(|data| serde_json::from_str(data).ok())
        .collect();
    assert_eq!(chunks.iter().filter(|chunk| chunk["usage"].is_object()).count(), 1);
    assert!(
        chunks.iter().all(|chunk| chunk.get("usage").is_some()),
        "the others say null"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn any_cut_of_the_providers_bytes_gives_the_caller_the_same_events() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    // The provider numbers its answers; everything else of them is the same.
    let events = async |number: usize| {
        let reply = gateway.stream("mock-chat", "words:8").await;
        reply
            .text
            .replace(&format!("chatcmpl-mock{number:08}"), "chatcmpl-mock")
    };
    let expected = events(0).await;
    assert!(
        expected.ends_with("data: [DONE]\n\n") && expected.contains("word-8"),
        "{expected}"
    );
    for (number, lengths) in [&[1usize][..], &[2, 3, 5, 7], &[100, 1], &[64]].into_iter().enumerate() {
        provider.script(Script::sliced(lengths));
        assert_eq!(events(number + 1).await, expected, "{lengths:?}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn each_event_is_sent_when_it_comes() {
    let provider = ScriptedProvider::start().await;
    provider.always(Script::slow_events(Duration::from_millis(120)));
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    let request = gateway
        .client
        .post(format!("{}/v1/chat/completions", gateway.api))
        .bearer_auth(&gateway.key);
    let begun = Instant::now();
    let mut response = request.json(&chat("mock-chat", "words:5", true)).send().await.unwrap();
    let mut arrivals = Vec::new();
    while let Some(bytes) = response.chunk().await.unwrap() {
        arrivals.push(begun.elapsed());
        assert!(bytes.ends_with(b"\n\n"), "an event is never cut");
    }
    let spread = *arrivals.last().unwrap() - arrivals[0];
    assert!(
        arrivals.len() >= 6 && spread >= Duration::from_millis(500),
        "{arrivals:?}"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn a_cut_stream_ends_with_an_error_and_never_with_done() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    for script in [
        Script::cut_after_events(3),
        Script::reset_after_events(3),
        Script::cut_unseen_after_events(3),
        Script::without_done(),
        Script::error_after_events(3),
        Script::cut_after_bytes(700),
    ] {
        provider.script(script);
        let reply = gateway.stream("mock-chat", "words:10").await;
        assert_eq!(reply.status, 200);
        assert!(!reply.text.contains("[DONE]"), "{}", reply.text);
        let error = last_error(&reply.events());
        assert_eq!(error["code"], "upstream_error", "{}", reply.text);
        let row = gateway.row(&reply).await;
        assert_eq!((row.status, row.metering.as_str()), (200, "estimated"));
        assert!(row.error_class.is_some() && row.output_tokens > 0);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_stream_that_begins_with_an_error_is_a_failed_attempt_with_a_status_of_its_own() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    first.always(Script::error_as_first_record());
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .start()
        .await;
    let reply = gateway.stream("mock-chat", "hi").await;
    assert_eq!((reply.status, reply.header("x-bonito-provider")), (200, "beta"));
    assert!(reply.text.ends_with("data: [DONE]\n\n"));

    second.always(Script::error_as_first_record());
    let reply = gateway.stream("mock-chat", "hi").await;
    assert!(
        reply.status >= 500 && reply.code() == "upstream_error",
        "{} {}",
        reply.status,
        reply.text
    );
    gateway.finish().await;
}

#[tokio::test]
async fn a_caller_who_leaves_stops_the_provider_and_pays_for_what_was_relayed() {
    let provider = ScriptedProvider::start().await;
    provider.always(Script::slow_events(Duration::from_millis(20)));
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    let request = gateway
        .client
        .post(format!("{}/v1/chat/completions", gateway.api))
        .bearer_auth(&gateway.key);
    let mut response = request
        .json(&chat("mock-chat", "words:500", true))
        .send()
        .await
        .unwrap();
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    for _ in 0..10 {
        response.chunk().await.unwrap().unwrap();
    }
    let left_at = Instant::now();
    drop(response);
    let departure = provider.client_left(0).await;
    assert!(
        departure.at.into_std() - left_at < Duration::from_millis(500),
        "the provider must be told at once"
    );

    let digits = id.strip_prefix("req_").unwrap().parse().unwrap();
    let row = gateway.row_of(bonito::domain::ids::RequestId(digits)).await;
    assert!(row.client_cancelled);
    assert_eq!(
        (row.metering.as_str(), row.error_class.as_deref()),
        ("estimated", Some("cancelled"))
    );
    assert!(row.output_tokens > 0 && row.cost_nanousd.unwrap() > 0);
    gateway.finish().await;
}

#[tokio::test]
async fn a_caller_who_leaves_before_an_answer_is_recorded_too() {
    let provider = ScriptedProvider::start().await;
    provider.always(Script::stalled_before_headers());
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    for stream in [false, true] {
        let request = gateway
            .client
            .post(format!("{}/v1/chat/completions", gateway.api))
            .bearer_auth(&gateway.key);
        let call = request
            .json(&chat("mock-chat", "hi", stream))
            .timeout(Duration::from_millis(300))
            .send();
        assert!(call.await.is_err());
    }
    let totals = gateway.totals_of(2).await;
    assert_eq!((totals.requests, totals.output_tokens), (2, 0));
    assert!(totals.input_tokens > 0, "the provider has read the prompt");
    assert_eq!(gateway.metric("bonito_requests_in_flight").await, 0.0);
    gateway.finish().await;
}

#[tokio::test]
async fn a_caller_who_leaves_before_a_provider_is_reached_pays_nothing() {
    // Takes connections and never says a word, so that the handshake of TLS waits for ever.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("https://{}", silent.local_addr().unwrap());
    let gateway = TestGateway::builder()
        .provider("alpha", &base_url, &["mock-chat"])
        .file("[models.\"patient\"]\ntotal_ms = 300\nfirst_token_ms = 300")
        .file(
            "[[providers.alpha.deployments]]\nmodel = \"patient\"\nname = \"patient\"\ninput_usd = \"1\"\n\
             output_usd = \"1\"",
        )
        .start()
        .await;
    for stream in [false, true] {
        let request = gateway
            .client
            .post(format!("{}/v1/chat/completions", gateway.api))
            .bearer_auth(&gateway.key);
        let call = request
            .json(&chat("mock-chat", "hi", stream))
            .timeout(Duration::from_millis(300))
            .send();
        assert!(call.await.is_err());
    }
    // Nor does anybody pay for a connection that we gave up.
    assert_eq!(gateway.chat("patient", "hi").await.status, 504);
    let totals = gateway.totals_of(3).await;
    assert_eq!((totals.requests, totals.input_tokens, totals.cost_nanousd), (3, 0, 0));
    let rows = gateway.store.all_requests(gateway.organization).await.unwrap();
    assert_eq!(rows.iter().filter(|row| row.client_cancelled).count(), 2);
    gateway.finish().await;
}

#[tokio::test]
async fn a_caller_who_reads_nothing_is_given_up() {
    let provider = ScriptedProvider::start().await;
    // More than the socket buffers on the way hold.
    provider.always(Script::huge_event(8_000_000));
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat"])
        .set("server.write_stall_ms", 500)
        .start()
        .await;
    let mut caller = TcpStream::connect(gateway.api.trim_start_matches("http://"))
        .await
        .unwrap();
    let body = chat("mock-chat", "words:20", true).to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        gateway.key,
        body.len()
    );
    let begun = Instant::now();
    caller.write_all(request.as_bytes()).await.unwrap();
    gateway.totals_of(1).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let row = gateway
        .store
        .all_requests(gateway.organization)
        .await
        .unwrap()
        .remove(0);
    assert!(row.client_cancelled && row.stream);
    assert_eq!(
        (row.metering.as_str(), row.error_class.as_deref()),
        ("estimated", Some("cancelled"))
    );
    let mut taken = Vec::new();
    let _ = caller.read_to_end(&mut taken).await;
    assert!(taken.starts_with(b"HTTP/1.1 200 ") && !taken.ends_with(b"[DONE]\n\n"));
    gateway.finish().await;
}

#[tokio::test]
async fn silence_is_bridged_by_comments_and_ends_in_a_timeout() {
    let provider = ScriptedProvider::start().await;
    provider.always(Script::stalled_after_events(2));
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat"])
        .set("stream.keep_alive_ms", 1_000)
        .set("timeouts.idle_ms", 3_500)
        .start()
        .await;
    let reply = gateway.stream("mock-chat", "hi").await;
    assert!(reply.text.matches(": keep-alive\n\n").count() >= 2, "{}", reply.text);
    assert!(!reply.text.contains("[DONE]"));
    assert_eq!(gateway.row(&reply).await.error_class.as_deref(), Some("timeout"));
    assert!(
        last_error(&reply.events())["message"]
            .as_str()
            .unwrap()
            .contains("openai")
    );
    gateway.finish().await;
}

#[tokio::test]
async fn headers_are_held_for_a_while_and_failover_goes_on_behind_the_first_comment() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    first.always(Script::stalled_before_headers());
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .set("stream.keep_alive_ms", 1_000)
        .set("timeouts.first_token_ms", 2_500)
        .start()
        .await;
    let reply = gateway.stream("mock-chat", "hi").await;
    assert_eq!(reply.status, 200);
    assert!(reply.text.starts_with(": keep-alive\n\n"), "{}", reply.text);
    assert_eq!(
        reply.header("x-bonito-provider"),
        "",
        "nobody knew it when the headers went out"
    );
    assert!(
        reply
            .text
            .ends_with(": x-bonito-provider=beta x-bonito-model=mock-chat x-bonito-attempts=2\n\n")
    );
    assert!(reply.streamed_text().len() > 1);

    second.always(Script::server_error());
    let reply = gateway.stream("mock-chat", "hi").await;
    assert_eq!(reply.status, 200, "the comment has sent it");
    let error = last_error(&reply.events());
    assert_eq!(error["attempts"].as_array().unwrap().len(), 2);
    assert_eq!(gateway.row(&reply).await.status, 200);
    gateway.finish().await;
}

#[tokio::test]
async fn what_was_dropped_is_said_at_the_end_where_the_headers_left_too_early() {
    const CLAUDE: &str = "claude-opus-5-5";
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .provider("anthropic", &provider.origin(), &[CLAUDE])
        .set("stream.keep_alive_ms", 1_000)
        .start()
        .await;
    let usage = json!({"input_tokens": 3, "output_tokens": 2});
    let events = [
        json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "usage": usage}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}),
        json!({"type": "message_stop"}),
    ];
    let steps = events.map(|event| Step::send(ScriptedProvider::anthropic_event(&event)));
    provider.script(Answer::stream(steps).after(Duration::from_millis(1_500)));
    let mut body = chat(CLAUDE, "hi", true);
    body["seed"] = 1.into();
    body[format!("x\n: {}", "y".repeat(300))] = 1.into();
    let reply = gateway.post("/v1/chat/completions", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert!(reply.text.starts_with(": keep-alive\n\n"), "{}", reply.text);
    assert_eq!(reply.header("x-bonito-dropped-params"), "");
    let end = format!(
        "data: [DONE]\n\n: x-bonito-provider=anthropic x-bonito-model={CLAUDE} x-bonito-attempts=1 \
         x-bonito-dropped-params=seed, x:{}\n\n",
        "y".repeat(62)
    );
    assert!(reply.text.ends_with(&end), "{}", reply.text);
    gateway.finish().await;
}

#[tokio::test]
async fn a_total_failure_in_time_has_a_status_and_names_every_attempt() {
    let closed = closed_port();
    let second = ScriptedProvider::start().await;
    second.always(Script::overloaded());
    let gateway = TestGateway::builder()
        .provider("alpha", &closed.base_url(), &["mock-chat"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .start()
        .await;
    let reply = gateway.stream("mock-chat", "hi").await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "upstream_error"));
    let error = reply.json()["error"].clone();
    assert_eq!(error["attempts"][0]["reason"], "connect");
    assert_eq!(error["attempts"][1]["reason"], "overloaded");
    assert!(!reply.header("retry-after").is_empty());
    gateway.finish().await;
}

#[tokio::test]
async fn hostile_streams_are_bounded_and_end_in_an_error() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat"])
        .set("upstream.max_event_bytes", 65_536)
        .start()
        .await;
    for script in [
        Script::endless_line(50_000_000),
        Script::huge_event(200_000),
        Script::junk_stream(),
        Script::junk_on_the_wire(),
        Script::invalid_utf8(),
        Script::gzipped(),
        Script::from(Answer::whole(200, "application/json", "{\"object\":\"not a stream\"}")),
        Script::from(Answer::stream([Step::send("data: [1,2]\n\n")])),
    ] {
        provider.script(script);
        let reply = gateway.stream("mock-chat", "hi").await;
        assert!(
            !reply.text.contains("[DONE]"),
            "{}",
            &reply.text[..reply.text.len().min(300)]
        );
        let failed = reply.status >= 500 || reply.events().last().is_some_and(|last| last.contains("\"error\""));
        assert!(failed, "{} {}", reply.status, reply.text);
        assert!(gateway.row(&reply).await.error_class.is_some());
    }
    gateway.finish().await;
}

#[tokio::test]
async fn legacy_completions_stream_as_well() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-completion"])
        .start()
        .await;
    let body = json!({"model": "mock-completion", "prompt": "once upon", "stream": true, "max_tokens": 20});
    let reply = gateway.post("/v1/completions", &body).await;
    assert!(
        reply.text.ends_with("data: [DONE]\n\n") && reply.text.contains("text_completion"),
        "{}",
        reply.text
    );
    let row = gateway.row(&reply).await;
    assert_eq!(
        u64::try_from(row.output_tokens).unwrap(),
        provider.served().completion_tokens
    );
    gateway.finish().await;
}
