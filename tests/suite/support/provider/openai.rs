//! Answers as OpenAI gives them, each following from its request alone.
//!
//! **Tokens.** A token is a word between blanks, plus 3 for each chat message and 85 for each part that is not text;
//! token arrays count their entries. Half of a prompt that contains "cached" was in the cache. An answer costs one
//! token for each of its words, reasoning and tool arguments included. See `words`.
//!
//! **Text.** A chat answer repeats the last user text, so that a mixed-up answer shows. Two words in that text are
//! orders: `words:200` makes the answer 200 words long, and `pause_ms:20` waits between the events of a stream.
//!
//! **Models.** Any name is served, except that some misbehave by their name, for clients that cannot script:
//!
//! | name | behaviour |
//! |---|---|
//! | `no-such-…` | 404 `model_not_found` |
//! | `…-429-once` | for each prompt in turn, 429 with `retry-after: 0.05`, then an answer, then 429 again |
//! | `…-500` | always 500 |
//! | `…-cut` | the connection closes after 3 events, or in the middle of a whole answer |
//! | `…-error-mid` | a stream gets an error record after 3 events; a whole answer is a 500 |

mod chat;
mod completions;
mod embeddings;
pub(super) mod schema;
pub(super) mod words;

use std::{collections::HashSet, sync::Mutex};

use serde_json::{Value, json};

use super::{
    answer::Answer,
    anthropic, azure,
    record::{Received, Tokens},
};

/// The start of every faithful answer's `created`, so that answers can be compared as a whole.
const CREATED: u64 = 1_790_000_000;
const FINGERPRINT: &str = "fp_mock";
/// Events before a stream of a `…-cut` or `…-error-mid` model goes wrong.
const EVENTS_BEFORE_TROUBLE: usize = 3;
const MODELS: [&str; 7] = [
    "mock-chat",
    "mock-chat-429-once",
    "mock-chat-500",
    "mock-chat-cut",
    "mock-chat-error-mid",
    "mock-completion",
    "mock-embed",
];

/// The faithful provider's own memory: who may call, and what the misbehaving models did last.
#[derive(Default)]
pub(super) struct Faithful {
    required_key: Mutex<Option<String>>,
    /// Prompts to `…-429-once` models whose next request is to be answered.
    refused_once: Mutex<HashSet<String>>,
}

impl Faithful {
    pub(super) fn require_key(&self, key: String) {
        *self.required_key.lock().unwrap() = Some(key);
    }

    pub(super) fn answer(&self, received: &Received) -> Answer {
        if anthropic::is_path(&received.path) {
            let required = self.required_key.lock().unwrap().clone();
            let refuses = |model: &str, body: &Value| self.refuses_this_time(model, body);
            return anthropic::answer(received, required.as_deref(), refuses);
        }
        if azure::is_token_path(&received.path) {
            return azure::token(received);
        }
        let Some(place) = Place::of(&received.path) else {
            let message = format!("Invalid URL ({} {})", received.method, received.path);
            return Refusal::new(404, message).into();
        };
        place.dialect.dress(self.answer_at(&place, received), received)
    }

    fn answer_at(&self, place: &Place<'_>, received: &Received) -> Answer {
        if !self.admits(received, place) {
            return place.dialect.wrong_key();
        }
        if place.deployment.is_some() && !received.query.contains("api-version=") {
            return azure::not_found();
        }
        match (received.method.as_str(), place.endpoint) {
            ("GET", "models") => list_models(),
            ("GET", endpoint) if endpoint.starts_with("models/") => {
                retrieve_model(endpoint.trim_start_matches("models/"))
            }
            ("POST", endpoint) => self.infer(received, endpoint, place.deployment),
            (method, endpoint) => Refusal::new(405, format!("Not allowed to {method} on {endpoint}")).into(),
        }
    }

    fn admits(&self, received: &Received, place: &Place<'_>) -> bool {
        let Some(required) = self.required_key.lock().unwrap().clone() else {
            return true;
        };
        let bearer = received
            .header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "));
        if bearer == Some(&required) {
            return true;
        }
        let issued = bearer.is_some_and(|token| token.starts_with(azure::TOKEN_PREFIX));
        place.dialect == Dialect::Azure && (issued || received.header("api-key") == Some(&required))
    }

    fn infer(&self, received: &Received, endpoint: &str, deployment: Option<&str>) -> Answer {
        let Ok(body) = serde_json::from_slice::<Value>(&received.body) else {
            let message = "We could not parse the JSON body of your request.";
            return Refusal::new(400, message).into();
        };
        let Some(model) = deployment.or(body["model"].as_str()) else {
            return Refusal::new(400, "you must provide a model parameter").into();
        };
        if model.starts_with("no-such-") {
            return no_such_model(model).into();
        }
        if model.ends_with("-500") {
            return Refusal::new(500, "The server had an error while processing your request.").into();
        }
        if model.ends_with("-429-once") && self.refuses_this_time(model, &body) {
            return Answer::from(Refusal::new(429, "Rate limit reached for requests").coded("rate_limit_exceeded"))
                .header("retry-after", "0.05");
        }
        let call = Call {
            body: &body,
            model,
            sequence: received.sequence,
        };
        let answer = match endpoint {
            "chat/completions" => chat::answer(&call),
            "completions" => completions::answer(&call),
            "embeddings" => embeddings::answer(&call),
            _ => Err(Refusal::new(404, format!("Invalid URL (POST {})", received.path))),
        };
        answer.map_or_else(Answer::from, |answer| misbehave(model, answer))
    }

    /// Whether it is this prompt's turn to be refused. Each prompt has its own turns, so that tests can run side by
    /// side and again.
    fn refuses_this_time(&self, model: &str, body: &Value) -> bool {
        let prompt = format!("{model} {} {} {}", body["messages"], body["prompt"], body["input"]);
        let mut refused_once = self.refused_once.lock().unwrap();
        let answered_now = refused_once.remove(&prompt);
        if !answered_now {
            refused_once.insert(prompt);
        }
        !answered_now
    }
}

/// Breaks the answer of a model whose name says so.
fn misbehave(model: &str, answer: Answer) -> Answer {
    let streamed = answer.is_stream();
    if model.ends_with("-cut") {
        if streamed {
            answer.cut_after_events(EVENTS_BEFORE_TROUBLE)
        } else {
            answer.cut_after_bytes(40)
        }
    } else if model.ends_with("-error-mid") {
        let error = Refusal::new(500, "The server had an error while processing your request.");
        if streamed {
            answer.error_after_events(EVENTS_BEFORE_TROUBLE, &error.body())
        } else {
            error.into()
        }
    } else {
        answer
    }
}

/// One call of an inference endpoint.
struct Call<'a> {
    body: &'a Value,
    model: &'a str,
    sequence: usize,
}

impl Call<'_> {
    fn id(&self, prefix: &str) -> String {
        format!("{prefix}-mock{:08}", self.sequence)
    }

    fn flag(&self, field: &str) -> bool {
        self.body[field].as_bool().unwrap_or(false)
    }

    fn streams(&self) -> bool {
        self.flag("stream")
    }

    fn includes_usage(&self) -> bool {
        self.body["stream_options"]["include_usage"].as_bool().unwrap_or(false)
    }

    fn choices(&self) -> usize {
        self.body["n"]
            .as_u64()
            .map_or(1, |n| usize::try_from(n).expect("n was checked"))
    }

    /// The list of stop sequences, given as one or as many.
    fn stops(&self) -> Vec<&str> {
        match &self.body["stop"] {
            Value::String(stop) => vec![stop],
            Value::Array(stops) => stops.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// What both kinds of completion check in the same way.
    fn check_sampling(&self) -> Result<(), Refusal> {
        self.check_number("temperature", 0.0..=2.0)?;
        self.check_number("top_p", 0.0..=1.0)?;
        self.check_number("n", 1.0..=128.0)?;
        if !self.body["stream_options"].is_null() && !self.streams() {
            let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
            return Err(Refusal::new(400, message).at("stream_options"));
        }
        Ok(())
    }

    fn check_number(&self, field: &str, legal: std::ops::RangeInclusive<f64>) -> Result<(), Refusal> {
        let value = &self.body[field];
        if value.is_null() {
            return Ok(());
        }
        let Some(number) = value.as_f64() else {
            let message = format!("Invalid type for '{field}': expected a number, but got {value} instead.");
            return Err(Refusal::new(400, message).at(field).coded("invalid_type"));
        };
        if legal.contains(&number) {
            return Ok(());
        }
        let message = format!(
            "Invalid '{field}': expected a value from {} to {}, but got {number} instead.",
            legal.start(),
            legal.end()
        );
        Err(Refusal::new(400, message).at(field).coded("invalid_value"))
    }
}

/// An error in OpenAI's shape.
struct Refusal {
    status: u16,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
}

impl Refusal {
    fn new(status: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            code: None,
        }
    }

    /// Names the faulty parameter.
    fn at(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    fn coded(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    fn body(&self) -> Value {
        error_body(self.status, &self.message, self.param.as_deref(), self.code)
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self::error(refusal.status, &refusal.body())
    }
}

/// The inside of `{"error": …}`, with the `type` which OpenAI gives to this status.
pub(super) fn error_body(status: u16, message: &str, param: Option<&str>, code: Option<&str>) -> Value {
    let kind = match status {
        429 => "requests",
        503 => "service_unavailable_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    json!({ "message": message, "type": kind, "param": param, "code": code })
}

fn no_such_model(model: &str) -> Refusal {
    let message = format!("The model `{model}` does not exist or you do not have access to it.");
    Refusal::new(404, message).at("model").coded("model_not_found")
}

fn list_models() -> Answer {
    let models: Vec<Value> = MODELS.iter().map(|id| model_object(id)).collect();
    Answer::json(200, &json!({ "object": "list", "data": models }))
}

fn retrieve_model(id: &str) -> Answer {
    if MODELS.contains(&id) {
        Answer::json(200, &model_object(id))
    } else {
        no_such_model(id).into()
    }
}

fn model_object(id: &str) -> Value {
    json!({ "id": id, "object": "model", "created": CREATED, "owned_by": "mock", "shutdown_date": null })
}

/// Usage as chat and completions report it.
fn usage_object(tokens: Tokens) -> Value {
    json!({
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.total(),
        "prompt_tokens_details": { "cached_tokens": tokens.cached, "audio_tokens": 0 },
        "completion_tokens_details": {
            "reasoning_tokens": tokens.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}

/// Whose manners an answer has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    OpenAi,
    Azure,
}

impl Dialect {
    fn wrong_key(self) -> Answer {
        match self {
            Self::OpenAi => Refusal::new(401, "Incorrect API key provided.")
                .coded("invalid_api_key")
                .into(),
            Self::Azure => azure::wrong_key(),
        }
    }

    fn dress(self, answer: Answer, received: &Received) -> Answer {
        let request_id = format!("{:032x}", received.sequence);
        match self {
            Self::OpenAi => answer
                .header("x-request-id", &format!("req_{request_id}"))
                .header("openai-organization", "mock-organization")
                .header("openai-processing-ms", "1")
                .header("openai-version", "2020-10-01")
                .header("x-ratelimit-limit-requests", "10000")
                .header("x-ratelimit-limit-tokens", "2000000")
                .header("x-ratelimit-remaining-requests", "9999")
                .header("x-ratelimit-remaining-tokens", "1999000")
                .header("x-ratelimit-reset-requests", "6ms")
                .header("x-ratelimit-reset-tokens", "1m0s"),
            Self::Azure => azure::dress(answer)
                .header("apim-request-id", &request_id)
                .header("x-ms-region", "Mock Region")
                .header("x-ratelimit-remaining-requests", "99")
                .header("x-ratelimit-remaining-tokens", "9000")
                .header("x-ratelimit-reset-requests", "10"),
        }
    }
}

/// Which surface a path belongs to, and what it asks for there.
struct Place<'a> {
    dialect: Dialect,
    /// Azure's name for a model, where the path has it.
    deployment: Option<&'a str>,
    endpoint: &'a str,
}

impl<'a> Place<'a> {
    fn of(path: &'a str) -> Option<Self> {
        if let Some(endpoint) = path.strip_prefix("/v1/") {
            return Some(Self {
                dialect: Dialect::OpenAi,
                deployment: None,
                endpoint,
            });
        }
        if let Some(endpoint) = path.strip_prefix("/openai/v1/") {
            return Some(Self {
                dialect: Dialect::Azure,
                deployment: None,
                endpoint,
            });
        }
        let (deployment, endpoint) = path.strip_prefix("/openai/deployments/")?.split_once('/')?;
        Some(Self {
            dialect: Dialect::Azure,
            deployment: Some(deployment),
            endpoint,
        })
    }
}
