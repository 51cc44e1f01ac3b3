//! Where Azure differs from OpenAI: the token endpoint, the content filter's annotations, and the shape of errors.

use serde_json::{Value, json};

use super::{
    answer::{Answer, Step},
    record::Received,
};

/// What every issued token begins with, so that the data plane knows its own.
pub(super) const TOKEN_PREFIX: &str = "mock-entra-token-";
const TOKEN_LIFETIME_S: u32 = 3599;

pub(super) fn is_token_path(path: &str) -> bool {
    path.ends_with("/oauth2/v2.0/token")
}

/// The answer of `/{tenant}/oauth2/v2.0/token`: a token for anyone, except for the secret `wrong`.
pub(super) fn token(received: &Received) -> Answer {
    let form = String::from_utf8_lossy(&received.body);
    let field = |name: &str| {
        form.split('&')
            .find_map(|pair| pair.split_once('=').filter(|(field, _)| *field == name))
            .map(|(_, value)| value)
    };
    if field("grant_type") != Some("client_credentials") || field("scope").is_none() {
        return token_error(
            400,
            "invalid_request",
            "AADSTS900144: The request body must contain 'grant_type' and 'scope'.",
        );
    }
    let proof = field("client_secret").or(field("client_assertion"));
    if proof.is_none_or(|proof| proof == "wrong") {
        return token_error(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.");
    }
    let token = format!("{TOKEN_PREFIX}{}", received.sequence);
    let lifetime = TOKEN_LIFETIME_S;
    let body = json!({
        "token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime, "access_token": token,
    });
    Answer::json(200, &body)
}

fn token_error(status: u16, error: &str, description: &str) -> Answer {
    let body = json!({
        "error": error,
        "error_description": description,
        "error_codes": [],
        "timestamp": "2026-11-01 12:00:00Z",
        "trace_id": "00000000-0000-4000-8000-000000000000",
        "correlation_id": "00000000-0000-4000-8000-000000000000",
    });
    Answer::json(status, &body)
}

pub(super) fn wrong_key() -> Answer {
    let message = "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid \
                   key for an active subscription and use a correct regional API endpoint for your resource.";
    Answer::error(401, &json!({ "code": "401", "message": message }))
}

pub(super) fn not_found() -> Answer {
    Answer::error(404, &json!({ "code": "404", "message": "Resource not found" }))
}

/// Turns a faithful OpenAI answer into Azure's: a first record with nothing but the verdict on the prompt, and verdicts
/// on every choice. Embeddings and errors stay as they are, and so does what is Azure's already.
pub(super) fn dress(answer: Answer) -> Answer {
    let streamed = answer.is_stream();
    let annotated = answer.map_json(move |mut body| {
        let fields = body.as_object_mut()?;
        fields.remove("obfuscation");
        if let Some(choices) = fields.get_mut("choices").and_then(Value::as_array_mut) {
            for choice in choices {
                choice["content_filter_results"] = if streamed { json!({}) } else { verdicts() };
            }
            if !streamed {
                fields.insert("prompt_filter_results".into(), prompt_verdicts());
            }
        }
        Some(body)
    });
    let first = Step::event(&prompt_record());
    let dressed_before = annotated.steps.first().and_then(Step::sent_bytes) == first.sent_bytes();
    if streamed && !dressed_before {
        annotated.insert_after_events(0, first)
    } else {
        annotated
    }
}

/// Adds what the asynchronous filter sends beside the text: verdicts in records without a `delta`, one in the middle
/// and one after the choice has finished.
pub(super) fn with_async_verdicts(answer: Answer) -> Answer {
    let checked = |start: usize, end: usize| {
        let choice = json!({
            "index": 0,
            "finish_reason": null,
            "content_filter_results": verdicts(),
            "content_filter_offsets": { "check_offset": start, "start_offset": start, "end_offset": end },
        });
        Step::event(&nameless(json!([choice])))
    };
    // Behind the prompt's verdict, the role and one word; and before `[DONE]`.
    let after_finish = answer.pieces() - 1;
    answer
        .insert_after_events(after_finish, checked(44, 198))
        .insert_after_events(3, checked(0, 44))
}

/// Azure's first record.
fn prompt_record() -> Value {
    let mut record = nameless(json!([]));
    record["prompt_filter_results"] = prompt_verdicts();
    record
}

/// A record that belongs to no completion.
fn nameless(choices: Value) -> Value {
    json!({ "id": "", "object": "", "created": 0, "model": "", "choices": choices, "usage": null })
}

fn prompt_verdicts() -> Value {
    let mut results = verdicts();
    results["jailbreak"] = json!({ "filtered": false, "detected": false });
    json!([{ "prompt_index": 0, "content_filter_results": results }])
}

fn verdicts() -> Value {
    let safe = json!({ "filtered": false, "severity": "safe" });
    json!({ "hate": safe, "self_harm": safe, "sexual": safe, "violence": safe })
}
