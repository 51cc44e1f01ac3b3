//! Whole answers: forwarded byte for byte, with the model and the credential changed and nothing else.

use serde_json::{Value, json};

use crate::support::gateway::chat;
use crate::support::{Script, ScriptedProvider, TestGateway};

#[tokio::test]
async fn a_caller_gets_the_providers_answer_byte_for_byte() {
    let provider = ScriptedProvider::start().await;
    let body = r#"{ "id":"chatcmpl-1","object":"chat.completion", "created":1,"model":"gpt-x","choices":[{"index":0,"message":{"role":"assistant","content":"h\u00e9","vendor":[1.0,2]},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10},"extra":{"kept":true}}"#;
    provider.script(crate::support::Answer::whole(200, "application/json", body));
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;

    let reply = gateway.chat("mock-chat", "hi").await;

    assert_eq!((reply.status, reply.text.as_str()), (200, body));
    assert_eq!(reply.header("x-bonito-provider"), "openai");
    assert_eq!(reply.header("x-bonito-model"), "mock-chat");
    assert_eq!(reply.header("x-bonito-attempts"), "1");
    // 7 × 2.5 + 3 × 10 = 47.5 µ$
    assert_eq!(reply.header("x-bonito-cost-usd"), "0.0000475");
    assert!(reply.header("x-bonito-overhead-ms").parse::<f64>().unwrap() >= 0.0);
    gateway.finish().await;
}

#[tokio::test]
async fn a_provider_gets_the_callers_bytes_with_only_the_model_changed() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .provider("openai", &provider.base_url(), &[])
        .file("[[providers.openai.deployments]]\nmodel = \"mock-chat\"\nname = \"ft:mock-chat:acme::1\"")
        .start()
        .await;
    let sent = r#"{"vendor_field" : {"a":[1.50,  true]},"model":"mock-chat","messages":[{"role":"user","content":"hi ☃ \ud83e\udd80"}],"seed":9007199254740993,"thinking":{"type":"enabled"}}"#;

    let reply = gateway.send("/v1/chat/completions", &gateway.key, sent).await;

    assert_eq!(reply.status, 200);
    let received = &provider.requests()[0];
    let expected = sent.replace(r#""mock-chat""#, r#""ft:mock-chat:acme::1""#);
    assert_eq!(std::str::from_utf8(&received.body).unwrap(), expected);
    assert_eq!(received.header("authorization"), Some("Bearer sk-secret-of-openai"));
    for header in ["x-api-key", "cookie", "x-forwarded-for", "openai-organization"] {
        assert_eq!(received.header(header), None, "{header} must not be forwarded");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn nothing_of_the_callers_headers_reaches_the_provider() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    let request = gateway
        .client
        .post(format!("{}/v1/chat/completions", gateway.api))
        .bearer_auth(&gateway.key)
        .header("x-stainless-lang", "python")
        .header("openai-organization", "org-of-the-caller")
        .header("cookie", "session=1")
        .header("x-custom", "1")
        .json(&chat("mock-chat", "hi", false));
    assert_eq!(request.send().await.unwrap().status(), 200);
    let received = &provider.requests()[0];
    let names: Vec<&str> = received.headers.keys().map(|name| name.as_str()).collect();
    for forbidden in ["x-stainless-lang", "openai-organization", "cookie", "x-custom"] {
        assert!(!names.contains(&forbidden), "{names:?}");
    }
    assert!(!received.header("authorization").unwrap().contains("bn-"));
    gateway.finish().await;
}

#[tokio::test]
async fn tools_schemas_choices_and_logprobs_come_back_as_asked_for() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    let tool = json!({"type": "function", "function": {"name": "get_weather", "parameters":
        {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}});
    let mut body = chat("mock-chat", "in parallel please", false);
    body["tools"] = json!([tool]);
    let reply = gateway.post("/v1/chat/completions", &body).await.json();
    let calls = reply["choices"][0]["message"]["tool_calls"].as_array().unwrap();
    assert_eq!(calls.len(), 2);
    assert!(serde_json::from_str::<Value>(calls[0]["function"]["arguments"].as_str().unwrap()).is_ok());

    let mut body = chat("mock-chat", "two of them", false);
    body["n"] = json!(2);
    body["logprobs"] = json!(true);
    let reply = gateway.post("/v1/chat/completions", &body).await.json();
    assert_eq!(reply["choices"].as_array().unwrap().len(), 2);
    assert!(reply["choices"][1]["logprobs"].is_object());
    gateway.finish().await;
}

#[tokio::test]
async fn completions_and_embeddings_pass_in_every_form() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-completion", "mock-embed"])
        .start()
        .await;
    for prompt in [
        json!("once"),
        json!(["one", "two"]),
        json!([1, 2, 3]),
        json!([[1], [2]]),
    ] {
        let reply = gateway
            .post(
                "/v1/completions",
                &json!({"model": "mock-completion", "prompt": prompt}),
            )
            .await;
        assert_eq!(
            (reply.status, reply.json()["object"].as_str().unwrap()),
            (200, "text_completion")
        );
        assert_eq!(gateway.row(&reply).await.operation, "text_completion");
    }
    for (input, format) in [
        (json!("a"), "float"),
        (json!(["a", "b"]), "base64"),
        (json!([1, 2]), "float"),
    ] {
        let body = json!({"model": "mock-embed", "input": input, "encoding_format": format, "dimensions": 8});
        let reply = gateway.post("/v1/embeddings", &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(reply.json()["data"][0]["embedding"].is_string(), format == "base64");
        let row = gateway.row(&reply).await;
        let said = reply.json()["usage"]["prompt_tokens"].as_i64().unwrap();
        assert_eq!(
            (row.operation.as_str(), row.input_tokens, row.output_tokens),
            ("embeddings", said, 0)
        );
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_compatible_endpoint_without_a_key_gets_none() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .file(&format!("[providers.local]\nbase_url = {:?}", provider.base_url()))
        .start()
        .await;
    let reply = gateway.chat("local/mock-chat", "hi").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(provider.requests()[0].header("authorization"), None);
    // Nobody said what it costs: that is not the same as nothing.
    assert_eq!(reply.header("x-bonito-cost-usd"), "");
    let row = gateway.row(&reply).await;
    assert_eq!((row.metering.as_str(), row.cost_nanousd), ("unpriced", None));
    assert!(row.input_tokens > 0);
    gateway.finish().await;
}

#[tokio::test]
async fn a_reasoning_model_gets_the_output_limit_under_the_name_it_accepts() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .openai(&provider, &["gpt-5.4-mini"])
        .start()
        .await;
    let mut body = chat("gpt-5.4-mini", "hi", false);
    body["max_tokens"] = json!(50);
    assert_eq!(gateway.post("/v1/chat/completions", &body).await.status, 200);
    let received = provider.requests()[0].json();
    assert_eq!(
        (received.get("max_tokens"), &received["max_completion_tokens"]),
        (None, &json!(50))
    );
    gateway.finish().await;
}

#[tokio::test]
async fn the_second_provider_answers_when_the_first_fails() {
    let (first, second) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    first.always(Script::server_error());
    let gateway = TestGateway::builder()
        .provider("alpha", &first.base_url(), &["mock-chat"])
        .provider("beta", &second.base_url(), &["mock-chat"])
        .start()
        .await;
    let reply = gateway.chat("mock-chat", "hi").await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        (reply.header("x-bonito-provider"), reply.header("x-bonito-attempts")),
        ("beta", "2")
    );
    let attempts = gateway.attempts(&reply).await;
    let seen: Vec<_> = attempts
        .iter()
        .map(|a| (a.provider.as_str(), a.status, a.error_class.as_deref()))
        .collect();
    assert_eq!(
        seen,
        [("alpha", Some(500), Some("server_error")), ("beta", Some(200), None)]
    );
    gateway.finish().await;
}
