//! `POST /v1/completions`, the older way to ask a model.

use std::collections::BTreeMap;

use poem::http::Method;
use poem_openapi::{Object, types::Example};
use serde_json::json;

use super::{
    errors, headers,
    operation::{self, Answer, Operation, Sample, events, held_stream, stream_of},
    schema::{JsonObject, Nullable, Optional, any_of, example, words},
    usage::CompletionUsage,
};
use crate::domain::call::Dialect;

/// The section of the documentation.
pub const TAG: &str = "Completions (legacy)";

/// The operation.
pub fn create() -> Operation {
    Operation {
        method: Method::POST,
        path: "/v1/completions",
        id: "createCompletion",
        tag: TAG,
        summary: "Continue a text",
        description: concat!(
            "Continues a text, for models and clients from before chat. New clients should use `POST \
             /v1/chat/completions`. A field that this page does not list is passed through to the provider unchanged.

\
             With `stream: true` the answer comes as server-sent events. ",
            stream_of!("Completion"),
            "\n\n",
            held_stream!(),
        ),
        parameters: vec![],
        request: Some(operation::json::<CompletionRequest>()),
        answer: Answer {
            description: "The continuation: whole as JSON, or with `stream: true` as a stream of events.",
            content: vec![
                operation::json::<Completion>(),
                events::<Completion>(stream_of!("Completion"), &[Completion::example()]),
            ],
            headers: headers::inference(),
        },
        refusals: errors::INFERENCE,
        dialect: Dialect::OpenAi,
        samples: SAMPLES,
    }
}

const SAMPLES: &[Sample] = &[Sample::curl(
    r#"curl "$OPENAI_BASE_URL/completions" \
  -H "Authorization: Bearer $OPENAI_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{"model": "gpt-3.5-turbo-instruct", "prompt": "The sky is", "max_tokens": 7}'"#,
)];

/// A text for the model to continue. Only `model` and `prompt` are required.
///
/// Fields that are not listed here are passed through to the provider as they are.
#[derive(Debug, Object)]
#[oai(example, skip_serializing_if_is_none)]
pub struct CompletionRequest {
    /// The model: a name that any provider may serve, or a name at one provider (`azure/gpt-35-turbo-instruct`).
    model: String,
    /// The text to continue: one or many, as strings or as token ids. Not empty, and up to 2,048 of them, unless
    /// configured otherwise.
    prompt: Prompt,
    /// What comes after the part to be written.
    suffix: Optional<String>,
    /// At most this many generated tokens. Default 16.
    #[oai(validator(minimum(value = "1")))]
    max_tokens: Optional<i64>,
    /// How freely to choose words, 0 to 2. Default 1.
    #[oai(validator(minimum(value = "0"), maximum(value = "2")))]
    temperature: Optional<f64>,
    /// Choose only among the likeliest tokens that together have this probability, 0 to 1. Default 1.
    #[oai(validator(minimum(value = "0"), maximum(value = "1")))]
    top_p: Optional<f64>,
    /// How many continuations to answer for each prompt, 1 to 128. Default 1.
    #[oai(validator(minimum(value = "1"), maximum(value = "128")))]
    n: Optional<i64>,
    /// How many continuations to write for each prompt, of which the best `n` are answered, 1 to 128. All of them are
    /// paid for.
    #[oai(validator(minimum(value = "1"), maximum(value = "128")))]
    best_of: Optional<i64>,
    /// Whether to repeat the prompt in the answer. Default `false`.
    echo: Optional<bool>,
    /// How many alternatives to return for each token, 0 to 100. OpenAI's own models return up to 5.
    #[oai(validator(minimum(value = "0"), maximum(value = "100")))]
    logprobs: Optional<i64>,
    /// Up to 4 strings that end the answer. They are not part of it.
    stop: Optional<StopSequences>,
    /// Above 0, words become less likely once they were used, -2 to 2. Default 0.
    #[oai(validator(minimum(value = "-2"), maximum(value = "2")))]
    presence_penalty: Optional<f64>,
    /// Above 0, words become less likely the more often they were used, -2 to 2. Default 0.
    #[oai(validator(minimum(value = "-2"), maximum(value = "2")))]
    frequency_penalty: Optional<f64>,
    /// Makes tokens more or less likely: token id to a number from -100 to 100.
    #[oai(validator(minimum(value = "-100"), maximum(value = "100")))]
    logit_bias: Optional<BTreeMap<String, i64>>,
    /// Equal requests with an equal seed should get equal answers, as far as the provider can.
    seed: Optional<i64>,
    /// `true` streams the answer as it is written. Default `false`.
    stream: Optional<bool>,
    /// What a stream carries. Allowed only with `stream: true`.
    stream_options: Optional<StreamOptions>,
    /// An id of the end user.
    user: Option<String>,
    #[oai(flatten)]
    further: JsonObject,
}

any_of! {
    Prompt = String | Vec<String> | Vec<i64> | Vec<Vec<i64>>;
    /// Strings that end an answer.
    StopSequences = String | Vec<String>;
}

words! {
    ObjectTextCompletion = "text_completion";
    CompletionFinishReason = "stop" | "length" | "content_filter";
}

/// What a stream carries besides the answer.
#[derive(Debug, Object)]
pub struct StreamOptions {
    /// `true` adds one piece before `[DONE]` that has the tokens of the whole answer in `usage` and no choices.
    include_usage: Option<bool>,
    /// `false` leaves out the random characters that hide the length of each piece.
    include_obfuscation: Option<bool>,
}

/// A continuation. In a stream each record is one of these, with a piece of the text.
#[derive(Debug, Object)]
#[oai(example, skip_serializing_if_is_none)]
pub struct Completion {
    /// Identifies the answer.
    id: String,
    /// Always `text_completion`.
    object: ObjectTextCompletion,
    /// When the answer was written, in seconds since 1970.
    created: i64,
    /// The model that wrote it.
    model: String,
    /// The continuations. With several prompts, number `n` times the prompt plus which of its continuations it is.
    choices: Vec<CompletionChoice>,
    /// The tokens it took. In a stream only with `stream_options.include_usage`, and null in all records but the last.
    usage: Optional<CompletionUsage>,
    /// Changes when the provider changes something that can change answers to an equal `seed`.
    system_fingerprint: Optional<String>,
}

/// One continuation.
#[derive(Debug, Object)]
pub struct CompletionChoice {
    /// The text, or in a stream its next piece.
    text: String,
    /// Which continuation it is, from 0.
    index: i32,
    /// How likely its tokens were, when `logprobs` asked for it.
    logprobs: Optional<CompletionLogprobs>,
    /// Why it ended: it was complete or met a stop string (`stop`), it reached the token limit (`length`), or a filter
    /// cut it (`content_filter`). Null in a stream until the last piece.
    finish_reason: Nullable<CompletionFinishReason>,
}

/// How likely the tokens of a continuation were: lists with one entry per token.
#[derive(Debug, Object)]
pub struct CompletionLogprobs {
    /// The tokens.
    tokens: Vec<String>,
    /// The natural logarithm of each token's probability. Null for the first token of an echoed prompt.
    token_logprobs: Vec<Nullable<f64>>,
    /// The likeliest tokens in each place, with the logarithm of their probabilities.
    top_logprobs: Optional<Vec<Nullable<BTreeMap<String, f64>>>>,
    /// Where in the text each token begins.
    text_offset: Vec<i64>,
}

impl Example for CompletionRequest {
    fn example() -> Self {
        example(json!({ "model": "gpt-3.5-turbo-instruct", "prompt": "The sky is", "max_tokens": 7 }))
    }
}

impl Example for Completion {
    fn example() -> Self {
        example(json!({
            "id": "cmpl-uqkvlQyYK7bGYrRHQ0eXlWi7",
            "object": "text_completion",
            "created": 1790000000,
            "model": "gpt-3.5-turbo-instruct",
            "choices": [{ "text": " blue because air scatters blue light", "index": 0, "finish_reason": "length" }],
            "usage": { "prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10 },
        }))
    }
}
