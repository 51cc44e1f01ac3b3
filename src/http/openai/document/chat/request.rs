//! What a client sends to `POST /v1/chat/completions`, except for the messages and the tools.

use std::collections::BTreeMap;

use poem_openapi::{Object, types::Example};
use serde_json::json;

use super::{
    super::completions::{StopSequences, StreamOptions},
    message::{ChatCompletionContentPartText, ChatCompletionRequestMessage},
    schema::{JsonObject, Optional, any_of, example, tagged, words},
    tool::{ChatCompletionTool, ChatCompletionToolChoiceOption, FunctionCallOption, FunctionDefinition},
};

/// A conversation for the model to continue. Only `model` and `messages` are required.
///
/// Fields that are not listed here are passed through to the provider as they are, so a vendor's extras (`thinking`,
/// `top_k`, `cache_control` inside a message) work as they do without the gateway.
#[derive(Debug, Object)]
#[oai(example, skip_serializing_if_is_none)]
pub struct ChatCompletionRequest {
    /// The model: a name that any provider may serve (`gpt-4o`), or a name at one provider (`azure/gpt-4o`).
    model: String,
    /// The conversation so far, oldest message first. Up to 10,000 messages, unless configured otherwise.
    #[oai(validator(min_items = 1))]
    messages: Vec<ChatCompletionRequestMessage>,
    /// `true` streams the answer as it is written. Default `false`.
    stream: Optional<bool>,
    /// What a stream carries. Allowed only with `stream: true`.
    stream_options: Optional<StreamOptions>,
    /// At most this many generated tokens, reasoning included.
    #[oai(validator(minimum(value = "1")))]
    max_completion_tokens: Optional<i64>,
    /// The older name of `max_completion_tokens`; the gateway sends whichever the model accepts. Sending both is an
    /// error.
    #[oai(deprecated, validator(minimum(value = "1")))]
    max_tokens: Optional<i64>,
    /// How freely to choose words, 0 to 2. Default 1. Reasoning models accept only 1.
    #[oai(validator(minimum(value = "0"), maximum(value = "2")))]
    temperature: Optional<f64>,
    /// Choose only among the likeliest tokens that together have this probability, 0 to 1. Default 1.
    #[oai(validator(minimum(value = "0"), maximum(value = "1")))]
    top_p: Optional<f64>,
    /// How many answers to write, 1 to 128. Default 1. All of them are paid for.
    #[oai(validator(minimum(value = "1"), maximum(value = "128")))]
    n: Optional<i64>,
    /// Up to 4 strings that end the answer. They are not part of it.
    stop: Optional<StopSequences>,
    /// Above 0, words become less likely the more often they were used, -2 to 2. Default 0.
    #[oai(validator(minimum(value = "-2"), maximum(value = "2")))]
    frequency_penalty: Optional<f64>,
    /// Above 0, words become less likely once they were used, -2 to 2. Default 0.
    #[oai(validator(minimum(value = "-2"), maximum(value = "2")))]
    presence_penalty: Optional<f64>,
    /// Makes tokens more or less likely: token id to a number from -100 to 100.
    #[oai(validator(minimum(value = "-100"), maximum(value = "100")))]
    logit_bias: Optional<BTreeMap<String, i64>>,
    /// Whether to return how likely each token of the answer was.
    logprobs: Optional<bool>,
    /// How many alternatives to return for each token, 0 to 20. Needs `logprobs: true`.
    #[oai(validator(minimum(value = "0"), maximum(value = "20")))]
    top_logprobs: Optional<i64>,
    /// Equal requests with an equal seed should get equal answers, as far as the provider can.
    seed: Optional<i64>,
    /// The tools the model may call.
    tools: Option<Vec<ChatCompletionTool>>,
    /// Whether and what to call: `none` (the default without tools), `auto` (the default with tools), `required`, or an
    /// object that names tools.
    tool_choice: Option<ChatCompletionToolChoiceOption>,
    /// Whether the model may call several tools at once. Default `true`.
    parallel_tool_calls: Option<bool>,
    /// The functions the model may call. Use `tools`.
    #[oai(deprecated)]
    functions: Option<Vec<FunctionDefinition>>,
    /// Whether and what to call: `none`, `auto`, or a function by name. Use `tool_choice`.
    #[oai(deprecated)]
    function_call: Option<FunctionCallOption>,
    /// The form of the answer: text, any JSON, or JSON that follows a schema.
    response_format: Option<ResponseFormat>,
    /// How much a reasoning model thinks before it answers. Each model supports some of the values; the default is
    /// usually `medium`.
    reasoning_effort: Optional<ReasoningEffort>,
    /// The same in Anthropic's words, for models of every provider that is not OpenAI: `{"type": "adaptive"}`, `enabled`
    /// with a number of tokens, or `disabled`.
    thinking: Optional<JsonObject>,
    /// Where to cache the whole prompt, in Anthropic's words: `{"type": "ephemeral", "ttl": "5m"}`, or `1h`. Parts of
    /// messages and tools take it too.
    cache_control: Optional<JsonObject>,
    /// How long the answer should be. Default `medium`.
    verbosity: Optional<Verbosity>,
    /// What the answer is made of: `["text"]` (the default) or `["text","audio"]`.
    modalities: Optional<Vec<Modality>>,
    /// How a spoken answer sounds. Required when `modalities` asks for audio.
    audio: Optional<ChatCompletionAudioParam>,
    /// What the answer will largely look like, such as a file being edited; makes it faster.
    prediction: Optional<ChatCompletionPredictionContent>,
    /// Lets models made for it search the web.
    web_search_options: Option<WebSearchOptions>,
    /// Whether the provider keeps the answer for later retrieval.
    store: Optional<bool>,
    /// Up to 16 labels for the stored answer: keys of up to 64 characters, values of up to 512.
    #[oai(validator(max_properties = 16))]
    metadata: Optional<BTreeMap<String, String>>,
    /// How soon and at what price the provider answers. `fast` and `priority` mean the same.
    service_tier: Optional<ServiceTier>,
    /// A stable, hashed id of the end user, up to 64 characters, by which a provider recognises abuse.
    #[oai(validator(max_length = 64))]
    safety_identifier: Optional<String>,
    /// Requests with an equal key and an equal beginning find the provider's prompt cache more often.
    prompt_cache_key: Optional<String>,
    /// How the provider caches the prompt.
    prompt_cache_options: Option<PromptCacheOptions>,
    /// How long the provider caches the prompt. Use `prompt_cache_options`.
    #[oai(deprecated)]
    prompt_cache_retention: Optional<PromptCacheRetention>,
    /// Has the provider judge the question and the answer.
    moderation: Optional<ModerationOptions>,
    /// An id of the end user. Use `safety_identifier` and `prompt_cache_key`.
    #[oai(deprecated)]
    user: Option<String>,
    #[oai(flatten)]
    further: JsonObject,
}

tagged! {
    /// The form of the answer.
    ResponseFormat by "type" {
        "text" => ResponseFormatText,
        "json_object" => ResponseFormatJsonObject,
        "json_schema" => ResponseFormatJsonSchema,
    }
}

words! {
    FormatText = "text";
    FormatJsonObject = "json_object";
    FormatJsonSchema = "json_schema";

    ReasoningEffort = "none" | "minimal" | "low" | "medium" | "high" | "xhigh" | "max";
    Verbosity = "low" | "medium" | "high";
    Modality = "text" | "audio";
    AudioFormat = "wav" | "aac" | "mp3" | "flac" | "opus" | "pcm16";
    PredictionType = "content";
    SearchContextSize = "low" | "medium" | "high";
    UserLocationType = "approximate";
    ServiceTier = "auto" | "default" | "flex" | "scale" | "priority" | "fast";
    PromptCacheMode = "implicit" | "explicit";
    PromptCacheTtl = "30m";
    PromptCacheRetention = "in_memory" | "24h";
    ModerationMode = "score" | "block";
}

any_of! {
    AudioVoice = String | CustomVoice;
    PredictionContent = String | Vec<ChatCompletionContentPartText>;
}

/// Plain text.
#[derive(Debug, Object)]
pub struct ResponseFormatText {
    /// Always `text`.
    r#type: FormatText,
}

/// Any JSON object. The messages must ask for JSON in words, or the request is refused.
#[derive(Debug, Object)]
pub struct ResponseFormatJsonObject {
    /// Always `json_object`.
    r#type: FormatJsonObject,
}

/// JSON that follows a schema.
#[derive(Debug, Object)]
pub struct ResponseFormatJsonSchema {
    /// Always `json_schema`.
    r#type: FormatJsonSchema,
    /// The schema, and its name.
    json_schema: JsonSchemaFormat,
}

/// A JSON Schema for the answer.
#[derive(Debug, Object)]
pub struct JsonSchemaFormat {
    /// A name for the schema.
    #[oai(validator(pattern = "^[A-Za-z0-9_-]{1,64}$"))]
    name: String,
    /// What the answer is for, for the model to read.
    description: Option<String>,
    /// The JSON Schema.
    schema: Option<JsonObject>,
    /// Whether the answer must follow the schema exactly. Only a subset of JSON Schema allows that.
    strict: Optional<bool>,
}

/// How a spoken answer sounds.
#[derive(Debug, Object)]
pub struct ChatCompletionAudioParam {
    /// The format of the sound.
    format: AudioFormat,
    /// The name of a voice, or the id of a voice of one's own.
    voice: AudioVoice,
}

/// A voice of one's own.
#[derive(Debug, Object)]
pub struct CustomVoice {
    /// The id of the voice (`voice_…`).
    id: String,
}

/// What the answer will largely look like.
#[derive(Debug, Object)]
pub struct ChatCompletionPredictionContent {
    /// Always `content`.
    r#type: PredictionType,
    /// The expected answer: text, or a list of text parts.
    content: PredictionContent,
}

/// How a model searches the web.
#[derive(Debug, Object)]
pub struct WebSearchOptions {
    /// How much of what is found is read. Default `medium`.
    search_context_size: Option<SearchContextSize>,
    /// Where the user roughly is.
    user_location: Optional<UserLocation>,
}

/// Where the user roughly is.
#[derive(Debug, Object)]
pub struct UserLocation {
    /// Always `approximate`.
    r#type: UserLocationType,
    /// The place.
    approximate: ApproximateLocation,
}

/// A place; every field helps and none is required.
#[derive(Debug, Object)]
pub struct ApproximateLocation {
    /// The city, in words.
    city: Option<String>,
    /// The country, in two letters (`DE`).
    country: Option<String>,
    /// The region, in words.
    region: Option<String>,
    /// The IANA time zone (`Europe/Berlin`).
    timezone: Option<String>,
}

/// How the provider caches the prompt.
#[derive(Debug, Object)]
pub struct PromptCacheOptions {
    /// `implicit`: the provider decides what to cache. `explicit`: it caches up to each `prompt_cache_breakpoint`.
    mode: Option<PromptCacheMode>,
    /// How long it is kept.
    ttl: Option<PromptCacheTtl>,
}

/// Has the provider judge the question and the answer.
#[derive(Debug, Object)]
pub struct ModerationOptions {
    /// The model that judges, such as `omni-moderation-latest`.
    model: String,
    /// What to do with the judgement.
    policy: Option<ModerationPolicy>,
}

/// What to do with the judgement of the question and of the answer.
#[derive(Debug, Object)]
pub struct ModerationPolicy {
    /// For the question.
    input: Option<ModerationRule>,
    /// For the answer.
    output: Option<ModerationRule>,
}

/// What to do with a judgement.
#[derive(Debug, Object)]
pub struct ModerationRule {
    /// `score`: report it. `block`: refuse what is harmful.
    mode: ModerationMode,
}

impl Example for ChatCompletionRequest {
    fn example() -> Self {
        example(json!({
            "model": "gpt-4o",
            "messages": [
                { "role": "system", "content": "Answer in one sentence." },
                { "role": "user", "content": "Why is the sky blue?" },
            ],
            "max_completion_tokens": 200,
            "temperature": 0.7,
        }))
    }
}
