//! The faithful answers, and the models that misbehave by their name.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::*;

#[tokio::test]
async fn a_whole_answer_and_its_stream_say_the_same_and_are_billed_by_the_stated_rule() {
    let provider = ScriptedProvider::start().await;
    let prompt = "please tell me of cached things";
    let whole = post(&provider, CHAT, &with(chat(prompt), "reasoning_effort", json!("low")))
        .await
        .json();
    let stream = with(streamed(prompt), "reasoning_effort", json!("low"));
    let stream = post(
        &provider,
        CHAT,
        &with(stream, "stream_options", json!({ "include_usage": true })),
    )
    .await;

    let message = &whole["choices"][0]["message"];
    assert_eq!(message["content"], "You said: please tell me of cached things");
    assert_eq!(message["reasoning_content"], "thought-1 thought-2");
    assert_eq!(stream.streamed_text(), message["content"].as_str().unwrap());
    let usage = &whole["usage"];
    assert_eq!(
        (
            &usage["prompt_tokens"],
            &usage["completion_tokens"],
            &usage["total_tokens"]
        ),
        (&json!(9), &json!(10), &json!(19))
    );
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 4);
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 2);
    assert_eq!(&stream.records().last().unwrap()["usage"], usage);
    assert!(stream.body.ends_with(b"data: [DONE]\n\n"));
    let expected = Served {
        requests: 2,
        prompt_tokens: 18,
        cached_tokens: 8,
        completion_tokens: 20,
        reasoning_tokens: 4,
        answers_finished: 1,
        streams_finished: 1,
        ..Served::default()
    };
    provider.ended(1).await;
    assert_eq!(provider.served(), expected);
}

#[tokio::test]
async fn usage_is_mentioned_in_a_stream_only_when_it_was_asked_for() {
    let provider = ScriptedProvider::start().await;
    let silent = post(&provider, CHAT, &streamed("hello")).await;
    assert!(
        silent
            .records()
            .iter()
            .all(|record| record.get("usage").is_none() && record["choices"] != json!([]))
    );
    let body = with(streamed("hello"), "stream_options", json!({ "include_usage": true }));
    let records = post(&provider, CHAT, &body).await.records();
    let (last, others) = records.split_last().unwrap();
    assert!(
        others
            .iter()
            .all(|record| record["usage"].is_null() && record.get("usage").is_some())
    );
    assert_eq!(last["choices"], json!([]));
}

#[tokio::test]
async fn choices_of_a_stream_take_turns_and_each_begins_with_its_role() {
    let provider = ScriptedProvider::start().await;
    let records = post(&provider, CHAT, &with(streamed("a b"), "n", json!(2)))
        .await
        .records();
    let indices: Vec<u64> = records
        .iter()
        .map(|record| record["choices"][0]["index"].as_u64().unwrap())
        .collect();
    assert_eq!(indices[..6], [0, 1, 0, 1, 0, 1]);
    assert!(
        records[..2]
            .iter()
            .all(|record| record["choices"][0]["delta"]["role"] == "assistant")
    );
}

#[tokio::test]
async fn parallel_tool_calls_carry_their_ids_once_and_join_to_json_that_fits_the_schema() {
    let provider = ScriptedProvider::start().await;
    let parameters =
        json!({ "type": "object", "properties": { "city": { "type": "string" }, "days": { "type": "integer" } } });
    let tools = json!([{ "type": "function", "function": { "name": "get_weather", "parameters": parameters } }]);
    let body = with(chat("in parallel"), "tools", tools.clone());
    let whole = post(&provider, CHAT, &body).await.json();
    let records = post(&provider, CHAT, &with(body, "stream", json!(true)))
        .await
        .records();

    let mut calls = vec![(String::new(), String::new()); 2];
    for fragment in records
        .iter()
        .filter_map(|record| record["choices"][0]["delta"]["tool_calls"].get(0))
    {
        let call = &mut calls[fragment["index"].as_u64().unwrap() as usize];
        call.0.push_str(fragment["id"].as_str().unwrap_or_default());
        call.1
            .push_str(fragment["function"]["arguments"].as_str().unwrap_or_default());
    }
    assert_eq!(calls[0].0, "call_mock00000001_0_0");
    assert_eq!(
        serde_json::from_str::<Value>(&calls[1].1).unwrap(),
        json!({ "city": "city 2", "days": 1 })
    );
    assert_eq!(
        whole["choices"][0]["message"]["tool_calls"][1]["function"]["arguments"],
        calls[1].1
    );
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");

    let mut answered = with(chat("in parallel"), "tools", tools);
    answered["messages"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "role": "tool", "tool_call_id": "x", "content": "18C" }));
    assert_eq!(
        post(&provider, CHAT, &answered).await.json()["choices"][0]["finish_reason"],
        "stop"
    );
}

#[tokio::test]
async fn limits_and_stop_sequences_shorten_an_answer() {
    let provider = ScriptedProvider::start().await;
    let limited = post(&provider, CHAT, &with(chat("words:50"), "max_tokens", json!(2)))
        .await
        .json();
    assert_eq!(limited["choices"][0]["message"]["content"], "word-1 word-2");
    assert_eq!(limited["choices"][0]["finish_reason"], "length");
    assert_eq!(limited["usage"]["completion_tokens"], 2);
    let stopped = post(&provider, CHAT, &with(chat("words:50"), "stop", json!(" word-4")))
        .await
        .json();
    assert_eq!(stopped["choices"][0]["message"]["content"], "word-1 word-2 word-3");
}

#[tokio::test]
async fn an_object_follows_the_schema_through_references_and_enums() {
    let provider = ScriptedProvider::start().await;
    let schema = json!({
        "type": "object",
        "properties": {
            "mood": { "enum": ["calm", "angry"] },
            "next": { "anyOf": [{ "$ref": "#/$defs/step" }, { "type": "null" }] },
            "scores": { "type": "array", "items": { "type": "number" } },
        },
        "$defs": { "step": { "type": "object", "properties": { "done": { "type": "boolean" } } } },
    });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "plan", "schema": schema } });
    let answer = post(&provider, CHAT, &with(chat("plan"), "response_format", format))
        .await
        .json();
    let content: Value = serde_json::from_str(answer["choices"][0]["message"]["content"].as_str().unwrap()).unwrap();
    assert_eq!(
        content,
        json!({ "mood": "calm", "next": { "done": true }, "scores": [0.5] })
    );
}

#[tokio::test]
async fn embeddings_are_unit_vectors_and_base64_holds_the_same_numbers() {
    let provider = ScriptedProvider::start().await;
    let body = json!({ "model": "mock-embed", "input": ["one two", "three"], "dimensions": 4 });
    let floats = post(&provider, "/v1/embeddings", &body).await.json();
    let encoded = post(
        &provider,
        "/v1/embeddings",
        &with(body, "encoding_format", json!("base64")),
    )
    .await
    .json();

    let vector: Vec<f32> = serde_json::from_value(floats["data"][1]["embedding"].clone()).unwrap();
    let bytes = STANDARD
        .decode(encoded["data"][1]["embedding"].as_str().unwrap())
        .unwrap();
    let decoded: Vec<f32> = bytes
        .chunks(4)
        .map(|entry| f32::from_le_bytes(entry.try_into().unwrap()))
        .collect();
    assert_eq!(vector, decoded);
    assert!((vector.iter().map(|entry| entry * entry).sum::<f32>() - 1.0).abs() < 1e-5);
    assert_eq!(floats["usage"], json!({ "prompt_tokens": 3, "total_tokens": 3 }));
}

#[tokio::test]
async fn legacy_completions_number_their_choices_over_prompts_and_n() {
    let provider = ScriptedProvider::start().await;
    let body = json!({ "model": "mock-completion", "prompt": ["a", "b"], "n": 2, "max_tokens": 2, "stream": true });
    let records = post(&provider, "/v1/completions", &body).await.records();
    let texts: String = records
        .iter()
        .filter(|record| record["choices"][0]["index"] == 2)
        .map(|record| record["choices"][0]["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, " You said:");
    let served = provider.ended(0).await.billed;
    assert_eq!(
        served,
        Tokens {
            prompt: 2,
            completion: 8,
            ..Tokens::default()
        }
    );
}

#[tokio::test]
async fn a_bad_request_is_refused_with_its_parameter() {
    let provider = ScriptedProvider::start().await;
    for (body, param) in [
        (with(chat("x"), "temperature", json!("hot")), "temperature"),
        (with(chat("x"), "messages", json!([])), "messages"),
        (with(chat("x"), "stream_options", json!({})), "stream_options"),
        (with(chat("x"), "n", json!(1000)), "n"),
    ] {
        let refused = post(&provider, CHAT, &body).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json()["error"]["param"]),
            (400, &json!(param))
        );
    }
    assert_eq!(
        provider.served(),
        Served {
            requests: 4,
            refused: 4,
            ..Served::default()
        }
    );
}

#[tokio::test]
async fn models_that_misbehave_do_so_by_their_name() {
    let provider = ScriptedProvider::start().await;
    let named = |name: &str| with(streamed("hello"), "model", json!(name));
    for _ in 0..2 {
        let refused = post(&provider, CHAT, &named("mock-chat-429-once")).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.headers["retry-after"]),
            (429, &"0.05".parse().unwrap())
        );
        assert_eq!(post(&provider, CHAT, &named("mock-chat-429-once")).await.status, 200);
    }
    assert_eq!(post(&provider, CHAT, &named("mock-chat-500")).await.status, 500);
    assert_eq!(
        post(&provider, CHAT, &named("no-such-model")).await.json()["error"]["code"],
        "model_not_found"
    );
    assert!(
        try_post(&provider, CHAT, &named("mock-chat-cut").to_string())
            .await
            .is_err()
    );
    let records = post(&provider, CHAT, &named("mock-chat-error-mid")).await.records();
    assert!(records.len() == 4 && records[3]["error"]["type"] == "server_error");
}

#[tokio::test]
async fn azure_wants_its_version_its_key_or_its_own_token() {
    let provider = ScriptedProvider::start().await;
    provider.require_key("resource-key");
    let path = "/openai/deployments/gpt4-prod/chat/completions";
    let form = "grant_type=client_credentials&client_id=a&client_secret=b&scope=c";
    let token = try_post(&provider, "/tenant/oauth2/v2.0/token", form)
        .await
        .unwrap()
        .json();
    let ask = async |path: &str, header: &str, value: &str| {
        let body = Full::from(chat("hello").to_string());
        let request = Request::post(format!("{}{path}", provider.origin()))
            .header(header, value)
            .body(body)
            .unwrap();
        let response = client().request(request).await.unwrap();
        let status = response.status();
        (
            status,
            serde_json::from_slice::<Value>(&response.into_body().collect().await.unwrap().to_bytes()).unwrap(),
        )
    };
    let versioned = format!("{path}?api-version=2024-10-21");
    assert_eq!(ask(&versioned, "api-key", "other").await.0, 401);
    assert_eq!(ask(path, "api-key", "resource-key").await.0, 404);
    let (status, answer) = ask(&versioned, "api-key", "resource-key").await;
    assert_eq!((status.as_u16(), &answer["model"]), (200, &json!("gpt4-prod")));
    assert!(answer["prompt_filter_results"].is_array() && answer["choices"][0]["content_filter_results"].is_object());
    let bearer = format!("Bearer {}", token["access_token"].as_str().unwrap());
    assert_eq!(
        ask("/openai/v1/chat/completions", "authorization", &bearer).await.0,
        200
    );
    let refused = try_post(
        &provider,
        "/tenant/oauth2/v2.0/token",
        &form.replace("secret=b", "secret=wrong"),
    )
    .await
    .unwrap();
    assert_eq!(refused.json()["error"], "invalid_client");
    assert_eq!(provider.served().requests, 4);
}

#[tokio::test]
async fn an_azure_stream_begins_with_one_verdict_on_the_prompt_whoever_asks_for_it() {
    let provider = ScriptedProvider::start().await;
    provider.always(Script::azure_stream());
    for path in [CHAT, "/openai/v1/chat/completions"] {
        let records = post(&provider, path, &streamed("hello")).await.records();
        let empty = records.iter().filter(|record| record["choices"] == json!([])).count();
        assert!(empty == 1 && records[0]["prompt_filter_results"].is_array());
    }
}
