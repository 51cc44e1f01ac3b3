//! What `POST /v1/chat/completions` answers, whole or in chunks.

use std::collections::BTreeMap;

use poem_openapi::{Object, types::Example};
use serde_json::json;

use super::{
    super::usage::CompletionUsage,
    message::RoleAssistant,
    schema::{JsonObject, Nullable, Optional, example, words},
    tool::{ChatCompletionMessageToolCall, ChatCompletionMessageToolCallChunk, FunctionCall, FunctionCallChunk},
};

/// A whole answer. Fields that a provider adds are kept.
#[derive(Debug, Object)]
#[oai(example, skip_serializing_if_is_none)]
pub struct ChatCompletion {
    /// Identifies the answer.
    id: String,
    /// Always `chat.completion`.
    object: ObjectChatCompletion,
    /// When the answer was written, in seconds since 1970.
    created: i64,
    /// The model that wrote it.
    model: String,
    /// The answers: as many as `n` asked for.
    choices: Vec<ChatCompletionChoice>,
    /// The tokens it took.
    usage: Optional<CompletionUsage>,
    /// The service tier that was used. For `fast` it says `priority`.
    service_tier: Optional<String>,
    /// Changes when the provider changes something that can change answers to an equal `seed`.
    system_fingerprint: Optional<String>,
    /// The labels of the request, when it had any.
    metadata: Optional<BTreeMap<String, String>>,
    /// The judgement that `moderation` asked for.
    moderation: Optional<JsonObject>,
}

/// One answer.
#[derive(Debug, Object)]
pub struct ChatCompletionChoice {
    /// Which answer it is, from 0.
    index: i32,
    /// What the model said.
    message: ChatCompletionMessage,
    /// How likely its tokens were, when `logprobs` asked for it.
    logprobs: Optional<ChatCompletionLogprobs>,
    /// Why it ended: it was complete or met a stop string (`stop`), it reached the token limit (`length`), the model
    /// calls tools (`tool_calls`, `function_call`), or a filter cut it (`content_filter`).
    finish_reason: FinishReason,
}

/// What the model said.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct ChatCompletionMessage {
    /// Always `assistant`.
    role: RoleAssistant,
    /// The text. Absent or null when the model only calls tools or refuses.
    content: Optional<String>,
    /// Why the model refused to answer.
    refusal: Optional<String>,
    /// What a reasoning model thought before it answered, from providers that show it. OpenAI's own answers
    /// do not have it.
    reasoning_content: Optional<String>,
    /// The same thoughts as their provider wants to see them again, each with its `signature` and the `issuer` that can
    /// read it. Send the message back as it is, and the model goes on from its own thoughts; nobody else is shown them.
    thinking_blocks: Option<Vec<JsonObject>>,
    /// The tools the model calls. Test for this field rather than for the finish reason.
    tool_calls: Option<Vec<ChatCompletionMessageToolCall>>,
    /// The function the model calls, when the request used `functions`.
    #[oai(deprecated)]
    function_call: Optional<FunctionCall>,
    /// Sources from the web.
    annotations: Option<Vec<Annotation>>,
    /// The spoken answer.
    audio: Optional<ChatCompletionAudio>,
}

/// A source of something in the text.
#[derive(Debug, Object)]
pub struct Annotation {
    /// Always `url_citation`.
    r#type: AnnotationType,
    /// The source.
    url_citation: UrlCitation,
}

/// A page on the web.
#[derive(Debug, Object)]
pub struct UrlCitation {
    /// Where the part of the text that the page supports begins.
    start_index: i64,
    /// Where it ends.
    end_index: i64,
    /// The title of the page.
    title: String,
    /// The address of the page.
    url: String,
}

/// A spoken answer.
#[derive(Debug, Object)]
pub struct ChatCompletionAudio {
    /// Names the recording, for use in later messages.
    id: String,
    /// The recording in base64.
    data: String,
    /// Until when it can be used, in seconds since 1970.
    expires_at: i64,
    /// What is said.
    transcript: String,
}

/// How likely the tokens of an answer were.
#[derive(Debug, Object)]
pub struct ChatCompletionLogprobs {
    /// The tokens of the text.
    content: Optional<Vec<ChatCompletionTokenLogprob>>,
    /// The tokens of the refusal.
    refusal: Optional<Vec<ChatCompletionTokenLogprob>>,
}

/// How likely one token was, and what else was likely in its place.
#[derive(Debug, Object)]
pub struct ChatCompletionTokenLogprob {
    /// The token.
    token: String,
    /// The natural logarithm of its probability.
    logprob: f64,
    /// Its UTF-8 bytes. A character can take several tokens.
    bytes: Nullable<Vec<i32>>,
    /// The likeliest tokens in its place: as many as `top_logprobs` asked for.
    top_logprobs: Vec<TopLogprob>,
}

/// A token that was likely.
#[derive(Debug, Object)]
pub struct TopLogprob {
    /// The token.
    token: String,
    /// The natural logarithm of its probability.
    logprob: f64,
    /// Its UTF-8 bytes.
    bytes: Nullable<Vec<i32>>,
}

/// A piece of an answer. `id`, `created` and `model` are the same in all of its pieces.
#[derive(Debug, Object)]
#[oai(example, skip_serializing_if_is_none)]
pub struct ChatCompletionChunk {
    /// Identifies the answer.
    id: String,
    /// Always `chat.completion.chunk`.
    object: ObjectChatCompletionChunk,
    /// When the answer was begun, in seconds since 1970.
    created: i64,
    /// The model that writes it.
    model: String,
    /// What is new. Pieces of several answers (`n`) come mixed. Empty in the piece that carries the usage.
    choices: Vec<ChatCompletionChunkChoice>,
    /// With `stream_options.include_usage`: the tokens of the whole answer in one last piece, null in all others.
    /// Without it: absent.
    usage: Optional<CompletionUsage>,
    /// The service tier that is used.
    service_tier: Optional<String>,
    /// Changes when the provider changes something that can change answers to an equal `seed`.
    system_fingerprint: Optional<String>,
    /// The judgement that `moderation` asked for, in a piece of its own.
    moderation: Optional<JsonObject>,
    /// Random characters that hide the length of the piece. Ignore them.
    obfuscation: Option<String>,
}

/// What is new in one answer.
#[derive(Debug, Object)]
pub struct ChatCompletionChunkChoice {
    /// Which answer it is, from 0.
    index: i32,
    /// What is new.
    delta: ChatCompletionChunkDelta,
    /// How likely the new tokens were.
    logprobs: Optional<ChatCompletionLogprobs>,
    /// Null until the last piece of the answer; then as in a whole answer.
    finish_reason: Nullable<FinishReason>,
}

/// What is new. Join the strings of all pieces; in the last piece nothing is new.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct ChatCompletionChunkDelta {
    /// Who speaks. Only in the first piece of an answer.
    role: Option<RoleAssistant>,
    /// The next piece of the text.
    content: Optional<String>,
    /// The next piece of the refusal.
    refusal: Optional<String>,
    /// The next piece of what a reasoning model thinks, from providers that show it.
    reasoning_content: Optional<String>,
    /// Thoughts that are complete. Clients that gather pieces join them by `index`.
    thinking_blocks: Option<Vec<JsonObject>>,
    /// The next pieces of tool calls.
    tool_calls: Option<Vec<ChatCompletionMessageToolCallChunk>>,
    /// The next piece of a function call, when the request used `functions`.
    #[oai(deprecated)]
    function_call: Option<FunctionCallChunk>,
    /// The next piece of the spoken answer.
    audio: Option<ChatCompletionAudioChunk>,
}

/// A piece of a spoken answer. It has any of the fields.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct ChatCompletionAudioChunk {
    /// Names the recording, for use in later messages.
    id: Option<String>,
    /// The next piece of the recording in base64.
    data: Option<String>,
    /// The next piece of what is said.
    transcript: Option<String>,
    /// Until when it can be used, in seconds since 1970. In the last piece.
    expires_at: Option<i64>,
}

words! {
    ObjectChatCompletion = "chat.completion";
    ObjectChatCompletionChunk = "chat.completion.chunk";
    AnnotationType = "url_citation";
    FinishReason = "stop" | "length" | "tool_calls" | "content_filter" | "function_call";
}

impl Example for ChatCompletion {
    fn example() -> Self {
        example(json!({
            "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
            "object": "chat.completion",
            "created": 1790000000,
            "model": "gpt-4o-2024-08-06",
            "choices": [{
                "index": 0,
                "message": { "role": "assistant", "content": "Air scatters blue light more than red light." },
                "finish_reason": "stop",
            }],
            "usage": {
                "prompt_tokens": 24,
                "completion_tokens": 10,
                "total_tokens": 34,
                "prompt_tokens_details": { "cached_tokens": 0 },
                "completion_tokens_details": { "reasoning_tokens": 0 },
            },
            "system_fingerprint": "fp_50cad350e4",
        }))
    }
}

impl Example for ChatCompletionChunk {
    fn example() -> Self {
        chunk(json!({ "content": "Air scatters" }), None)
    }
}

/// A short answer in chunks, from the first to the one that ends it.
pub fn chunks() -> [ChatCompletionChunk; 3] {
    [
        chunk(json!({ "role": "assistant", "content": "" }), None),
        chunk(
            json!({ "content": "Air scatters blue light more than red light." }),
            None,
        ),
        chunk(json!({}), Some("stop")),
    ]
}

fn chunk(delta: serde_json::Value, finish_reason: Option<&str>) -> ChatCompletionChunk {
    example(json!({
        "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
        "object": "chat.completion.chunk",
        "created": 1790000000,
        "model": "gpt-4o-2024-08-06",
        "choices": [{ "index": 0, "delta": delta, "finish_reason": finish_reason }],
    }))
}
