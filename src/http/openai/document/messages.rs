//! `POST /v1/messages` and `POST /v1/messages/count_tokens`: Anthropic's dialect.

use poem::http::Method;
use poem_openapi::{Object, types::Example};
use serde_json::json;

use super::{
    errors::{self, MessageError},
    headers,
    operation::{self, Answer, Operation, Sample, events_or, held_stream},
    schema::{JsonObject, Optional, any_of, example, words},
};
use crate::domain::call::Dialect;

/// The section of the documentation.
pub const TAG: &str = "Messages";

/// How a stream looks.
const STREAM: &str = "Each event has two lines, `event: <type>` and `data: <MessageStreamEvent>`, and an empty line. The \
                      order is Anthropic's: `message_start`; for each block `content_block_start`, `content_block_delta` \
                      any number of times, `content_block_stop`; then `message_delta` with the reason it ended and the \
                      tokens of the whole answer, and `message_stop`. `ping` may occur at any time. A failure after the \
                      first event is an event `error`, and no `message_stop` follows: what was sent before it is not a \
                      whole answer.";

/// Asking a model.
pub fn create() -> Operation {
    let mut headers = headers::inference();
    headers.push(headers::own_request_id());
    Operation {
        method: Method::POST,
        path: "/v1/messages",
        id: "createMessage",
        tag: TAG,
        summary: "Ask a model, in Anthropic's dialect",
        description: concat!(
            "Anthropic's Messages API, for any model of any provider. A model of Anthropic itself gets the request as it \
             is, with its `anthropic-version` and `anthropic-beta` headers and with fields that this page does not list, \
             and its answer comes back unchanged. For every other model the request is translated, and what cannot be \
             expressed there is named in `x-bonito-dropped-params`. Thoughts, with their signatures, come back in the form \
             in which they have to be sent again; a conversation may move between providers, and each then sees its own.\n\n\
             With `stream: true` the answer comes as server-sent events, in Anthropic's order; see the answer below.\n\n",
            held_stream!(),
        ),
        parameters: vec![],
        request: Some(operation::json::<MessageRequest>()),
        answer: Answer {
            description: "The answer: whole as JSON, or with `stream: true` as a stream of events.",
            content: vec![
                operation::json::<Message>(),
                events_or::<MessageStreamEvent, MessageError>(STREAM, &[MessageStreamEvent::example()]),
            ],
            headers,
        },
        refusals: errors::INFERENCE,
        dialect: Dialect::Anthropic,
        samples: CREATE_SAMPLES,
    }
}

/// Counting tokens.
pub fn count() -> Operation {
    Operation {
        method: Method::POST,
        path: "/v1/messages/count_tokens",
        id: "countMessageTokens",
        tag: TAG,
        summary: "Count the tokens of a prompt",
        description: "Says how many tokens a request to `POST /v1/messages` would read. The provider that would serve it \
                      counts (`x-bonito-metering: reported`), where it does so for nothing: Anthropic, Vertex AI, the \
                      Gemini Developer API, and Bedrock for Claude. Elsewhere, and where it does not answer within three \
                      seconds, the gateway estimates (`estimated`). Nothing is charged.",
        parameters: vec![],
        request: Some(operation::json::<MessageRequest>()),
        answer: Answer {
            description: "The number of tokens.",
            content: vec![operation::json::<MessageTokens>()],
            headers: vec![headers::request_id(), headers::own_request_id(), headers::metering()],
        },
        refusals: errors::COUNT,
        dialect: Dialect::Anthropic,
        samples: COUNT_SAMPLES,
    }
}

const CREATE_SAMPLES: &[Sample] = &[
    Sample::curl(
        r#"curl "$ANTHROPIC_BASE_URL/v1/messages" \
  -H "x-api-key: $ANTHROPIC_API_KEY" \
  -H "anthropic-version: 2023-06-01" \
  -H "Content-Type: application/json" \
  -d '{"model": "claude-sonnet-5", "max_tokens": 1000,
       "messages": [{"role": "user", "content": "Why is the sky blue?"}]}'"#,
    ),
    Sample {
        language: "Python",
        label: "Python",
        source: r#"# ANTHROPIC_BASE_URL is the address of the gateway, without /v1.
import anthropic

message = anthropic.Anthropic().messages.create(
    model="claude-sonnet-5",
    max_tokens=1000,
    messages=[{"role": "user", "content": "Why is the sky blue?"}],
)
print(message.content)"#,
    },
];

const COUNT_SAMPLES: &[Sample] = &[Sample::curl(
    r#"curl "$ANTHROPIC_BASE_URL/v1/messages/count_tokens" \
  -H "x-api-key: $ANTHROPIC_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{"model": "claude-sonnet-5", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}'"#,
)];

/// A conversation, and how it should go on. Only `model`, `messages` and, for an answer, `max_tokens` are required.
///
/// Fields that are not listed here are passed through to Anthropic as they are.
#[derive(Debug, Object)]
#[oai(example, skip_serializing_if_is_none)]
pub struct MessageRequest {
    /// The model: a name that any provider may serve, or a name at one provider (`openai/gpt-4o`).
    model: String,
    /// At most this many generated tokens, thoughts included. Anthropic requires it.
    #[oai(validator(minimum(value = "0")))]
    max_tokens: Optional<i64>,
    /// The conversation so far: up to 10,000 messages, unless configured otherwise.
    #[oai(validator(min_items = 1))]
    messages: Vec<MessageParam>,
    /// Instructions: a text, or blocks of type `text`, which may carry `cache_control`.
    system: Optional<MessageContent>,
    /// Texts that end the answer. They are not part of it.
    stop_sequences: Optional<Vec<String>>,
    /// `true` streams the answer as it is written. Default `false`.
    stream: Optional<bool>,
    /// How freely to choose words, 0 to 1. Newer models of Anthropic do not take it.
    #[oai(validator(minimum(value = "0"), maximum(value = "1")))]
    temperature: Optional<f64>,
    /// Choose only among the likeliest tokens that together have this probability, 0 to 1.
    #[oai(validator(minimum(value = "0"), maximum(value = "1")))]
    top_p: Optional<f64>,
    /// Choose only among this many of the likeliest tokens.
    #[oai(validator(minimum(value = "0")))]
    top_k: Optional<i64>,
    /// Tools the model may call, each with `name`, `description` and `input_schema`. Tools that Anthropic's own servers run
    /// are for its models alone.
    tools: Optional<Vec<JsonObject>>,
    /// Whether a tool must be called: `{"type": "auto"}`, `any`, `none`, or `tool` with a `name`. With
    /// `disable_parallel_tool_use` not more than one at a time.
    tool_choice: Optional<JsonObject>,
    /// How the model should think: `{"type": "adaptive"}`, `enabled` with a number of tokens, or `disabled`.
    thinking: Optional<JsonObject>,
    /// `effort`, and the `format` of the answer: a JSON Schema.
    output_config: Optional<JsonObject>,
    /// Where to cache the whole prompt: `{"type": "ephemeral", "ttl": "5m"}`, or `1h`. Blocks and tools take it too.
    cache_control: Optional<JsonObject>,
    /// `user_id`: an id of the end user.
    metadata: Optional<JsonObject>,
    /// `auto` or `standard_only`.
    service_tier: Optional<String>,
    #[oai(flatten)]
    further: JsonObject,
}

/// One message of the conversation.
#[derive(Debug, Object)]
pub struct MessageParam {
    /// Who speaks.
    role: MessageRole,
    /// A text, or blocks: `text`, `image`, `document`, `tool_use`, `tool_result`, `thinking`, `redacted_thinking`, and
    /// what else the model takes. What was answered goes back as it came.
    content: MessageContent,
}

any_of! {
    MessageContent = String | Vec<JsonObject>;
}

words! {
    MessageRole = "user" | "assistant" | "system";
    MessageType = "message";
    MessageAssistant = "assistant";
}

/// An answer.
#[derive(Debug, Object)]
#[oai(example, skip_serializing_if_is_none)]
pub struct Message {
    /// Identifies the answer.
    id: String,
    /// Always `message`.
    r#type: MessageType,
    /// Always `assistant`.
    role: MessageAssistant,
    /// The model that wrote it.
    model: String,
    /// What it wrote: blocks of type `thinking`, `redacted_thinking`, `text` and `tool_use`, in this order, and at Anthropic
    /// whatever else its models write.
    content: Vec<JsonObject>,
    /// Why it ended: `end_turn`, `max_tokens`, `stop_sequence`, `tool_use` or `refusal`, and at Anthropic also `pause_turn`
    /// or `model_context_window_exceeded`. Null only at the start of a stream.
    stop_reason: Optional<String>,
    /// The text that ended it.
    stop_sequence: Optional<String>,
    /// The tokens it took.
    usage: MessageUsage,
}

/// The tokens of an answer, as Anthropic counts them.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct MessageUsage {
    /// Tokens that were read and neither came out of a cache nor went into one.
    input_tokens: i64,
    /// Tokens that were written to a cache.
    cache_creation_input_tokens: Optional<i64>,
    /// Tokens that came out of a cache.
    cache_read_input_tokens: Optional<i64>,
    /// The written ones by how long they are kept.
    cache_creation: Optional<JsonObject>,
    /// Tokens that were generated, thoughts included.
    output_tokens: i64,
}

/// One event of a stream. Which fields it has follows from its `type`.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct MessageStreamEvent {
    /// `message_start`, `content_block_start`, `content_block_delta`, `content_block_stop`, `message_delta`,
    /// `message_stop` or `ping`.
    r#type: String,
    /// The answer without its content, in `message_start`. Of the tokens in there only those that were read mean something,
    /// and for models of other providers they are an estimate.
    message: Option<Message>,
    /// Which block it is about, from 0.
    index: Option<i64>,
    /// The block as it begins.
    content_block: Option<JsonObject>,
    /// What is added to a block, or in `message_delta` why the answer ended.
    delta: Option<JsonObject>,
    /// The tokens of the whole answer, in `message_delta`.
    usage: Option<MessageUsage>,
}

/// How many tokens a prompt has.
#[derive(Debug, Object)]
pub struct MessageTokens {
    /// The estimate.
    input_tokens: i64,
}

impl Example for MessageRequest {
    fn example() -> Self {
        example(json!({
            "model": "claude-sonnet-5",
            "max_tokens": 1000,
            "messages": [{ "role": "user", "content": "Why is the sky blue?" }],
        }))
    }
}

impl Example for Message {
    fn example() -> Self {
        example(json!({
            "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-5",
            "content": [{ "type": "text", "text": "Because air scatters blue light." }],
            "stop_reason": "end_turn",
            "stop_sequence": null,
            "usage": { "input_tokens": 14, "output_tokens": 8 },
        }))
    }
}

impl Example for MessageStreamEvent {
    fn example() -> Self {
        example(json!({
            "type": "content_block_delta",
            "index": 0,
            "delta": { "type": "text_delta", "text": "Because" },
        }))
    }
}
