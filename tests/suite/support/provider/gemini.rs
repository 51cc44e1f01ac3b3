//! Google's two hosts, strictly: Vertex AI's paths behind tokens, the Gemini Developer API's behind a key.
//!
//! A request is refused, in Google's words, over anything the real service refuses: a field it does not know, a role out
//! of order, a response without its call, a schema outside of the subset, a thought signature that is not the one it gave
//! for that very part. What is answered follows from the request: see [`answer_to`]. Models with `gemini-3` or `gemini-4`
//! in their name are of the newer generations, and all others of 2.5. Claude on Vertex AI answers as `anthropic` does.
//!
//! Put it in place with `provider.always(gemini::vertex(…))`; single answers can still be scripted before it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::answer::{Answer, Step};
use super::anthropic;
use super::record::Received;
use super::script::Script;

/// What turns off the check of a part's signature.
pub const NO_SIGNATURE: &str = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I=";
/// Tokens of the prompt of every chat, and how many of them are cached where there are instructions.
pub const PROMPT_TOKENS: u64 = 1_210;
pub const CACHED_TOKENS: u64 = 1_024;
/// Tokens of each candidate, and of the thoughts in front of all of them.
pub const CANDIDATE_TOKENS: u64 = 6;
pub const THOUGHT_TOKENS: u64 = 88;

/// The project and location that Vertex AI is asked in.
const PLACE: &str = "/v1/projects/acme-1/locations/europe-west4";

/// Why a request is refused: the status, its name, and what is said.
type Refusal = (u16, &'static str, String);
type Checked = Result<(), Refusal>;

/// Vertex AI for bearers of a token that `knows` accepts.
pub fn vertex(knows: impl Fn(&str) -> bool + Send + Sync + 'static) -> Script {
    Script::written(move |received| {
        let token = received
            .header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "));
        if received.header("x-goog-api-key").is_some() || !token.is_some_and(&knows) {
            let problem = "Request had invalid authentication credentials. Expected OAuth 2 access token.";
            return error(&(401, "UNAUTHENTICATED", problem.to_owned()));
        }
        respond(received, true)
    })
}

/// The Gemini Developer API for holders of `key`.
pub fn developer(key: &'static str) -> Script {
    Script::written(move |received| {
        if received.header("authorization").is_some() || received.header("x-goog-api-key") != Some(key) {
            let details = json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID",
                                  "domain": "googleapis.com", "metadata": {"service": "generativelanguage.googleapis.com"}}]);
            return Answer::error(
                400,
                &json!({"code": 400, "status": "INVALID_ARGUMENT", "details": details,
                                              "message": "API key not valid. Please pass a valid API key."}),
            );
        }
        respond(received, false)
    })
}

/// An error in Google's shape.
pub fn error((status, name, message): &Refusal) -> Answer {
    Answer::error(*status, &json!({"code": status, "message": message, "status": name}))
}

/// A stream of these events, as Google sends them: no names, no end mark.
pub fn stream(events: &[Value]) -> Answer {
    Answer::stream(events.iter().map(|event| Step::send(format!("data: {event}\r\n\r\n"))))
}

fn bad(message: impl Into<String>) -> Refusal {
    (400, "INVALID_ARGUMENT", message.into())
}

fn ensure(good: bool, message: impl FnOnce() -> String) -> Checked {
    if good { Ok(()) } else { Err(bad(message())) }
}

/// The answer of Claude to `rawPredict`, which takes Anthropic's body but for the model, and no header of Anthropic's but
/// that of betas.
fn claude(received: &Received, model: &str, method: &str) -> Answer {
    let Ok(Value::Object(mut body)) = serde_json::from_slice(&received.body) else {
        return error(&bad("Invalid JSON payload received."));
    };
    let streams = body.get("stream") == Some(&json!(true));
    // Here alone the model is in the body and not in the path.
    let has_model = body.contains_key("model");
    let counts = model == "count-tokens";
    let model = match body.shift_remove("model").filter(|_| counts) {
        Some(asked) => asked,
        None if counts => return anthropic::error(400, "invalid_request_error", "model: Field required"),
        None => json!(model),
    };
    let by_url = String::from_utf8_lossy(&received.body).contains(r#""type":"url""#);
    let problem = match body.shift_remove("anthropic_version") {
        Some(version) if version != "vertex-2023-10-16" => "anthropic_version: is not valid",
        None => "anthropic_version: Field required",
        _ if !counts && has_model => "model: Extra inputs are not permitted",
        _ if received.header("anthropic-version").is_some() => "anthropic-version: header is not used",
        _ if by_url => "source.type: url sources are not supported",
        _ if body.contains_key("cache_control") => "cache_control: Extra inputs are not permitted",
        _ if streams != (method == "streamRawPredict") => "stream: does not go with the method",
        _ => "",
    };
    if !problem.is_empty() {
        return anthropic::error(400, "invalid_request_error", problem);
    }
    // From here on it is Anthropic's own API.
    body.insert("model".to_owned(), model);
    let mut headers = received.headers.clone();
    headers.insert("anthropic-version", "2023-06-01".parse().unwrap());
    headers.insert("x-api-key", "the platform's".parse().unwrap());
    let asked = Received {
        sequence: received.sequence,
        connection: received.connection,
        method: received.method.clone(),
        path: if counts {
            "/v1/messages/count_tokens"
        } else {
            "/v1/messages"
        }
        .to_owned(),
        query: String::new(),
        headers,
        body: serde_json::to_vec(&body).unwrap().into(),
        arrived_at: received.arrived_at,
    };
    anthropic::answer(&asked, None, |_, _| false)
}

fn respond(received: &Received, vertex: bool) -> Answer {
    let of_claude = received
        .path
        .strip_prefix(&format!("{PLACE}/publishers/anthropic/models/"));
    if let Some((model, method @ ("rawPredict" | "streamRawPredict"))) = of_claude.and_then(|rest| rest.split_once(':'))
        && vertex
    {
        return claude(received, model, method);
    }
    let Some((model, method)) = route(&received.path, vertex) else {
        return Answer::whole(
            404,
            "text/html; charset=UTF-8",
            "<!DOCTYPE html><title>Error 404 (Not Found)!!1</title>",
        );
    };
    let query = if method == "streamGenerateContent" {
        "alt=sse"
    } else {
        ""
    };
    if received.query != query || received.header("content-type") != Some("application/json") {
        return error(&bad("Invalid query or content type."));
    }
    let Ok(Value::Object(body)) = serde_json::from_slice(&received.body) else {
        return error(&bad("Invalid JSON payload received."));
    };
    let host = Host { model, vertex };
    let answered = match method {
        "generateContent" | "streamGenerateContent" => host.generate(&body, method == "streamGenerateContent"),
        "countTokens" => host.count(&body),
        "predict" if vertex => host.predict(&body),
        "embedContent" if vertex => host.embed(&body),
        "batchEmbedContents" if !vertex => host.embed_batch(&body),
        _ => Err((404, "NOT_FOUND", format!("{method} is not supported for {model}"))),
    };
    answered.unwrap_or_else(|refusal| error(&refusal))
}

/// The model and the method of a path.
fn route(path: &str, vertex: bool) -> Option<(&str, &str)> {
    let rest = if vertex {
        path.strip_prefix(PLACE)?.strip_prefix("/publishers/google/models/")?
    } else {
        path.strip_prefix("/v1beta/models/")?
    };
    let (model, method) = rest.split_once(':')?;
    (!model.contains('/')).then_some((model, method))
}

/// A host and the model it is asked for.
struct Host<'r> {
    model: &'r str,
    vertex: bool,
}

impl Host<'_> {
    fn is_newer(&self) -> bool {
        self.model.starts_with("gemini-3") || self.model.starts_with("gemini-4")
    }

    fn generate(&self, body: &Map<String, Value>, streamed: bool) -> Result<Answer, Refusal> {
        let own = if self.vertex { "labels" } else { "serviceTier" };
        let known = [
            "contents",
            "systemInstruction",
            "tools",
            "toolConfig",
            "generationConfig",
            "safetySettings",
            own,
        ];
        only(body, &known)?;
        if let Some(labels) = body.get("labels").and_then(Value::as_object) {
            for (key, value) in labels {
                let good = |text: &str| {
                    text.bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
                };
                ensure(good(key) && value.as_str().is_some_and(good), || {
                    format!("Invalid label {key}")
                })?;
            }
        }
        if let Some(tier) = body.get("serviceTier") {
            ensure(
                ["standard", "flex", "priority"].iter().any(|known| tier == known),
                || format!("Invalid value {tier}"),
            )?;
        }
        if let Some(system) = body.get("systemInstruction") {
            let parts = list(&system["parts"]);
            let good = !parts.is_empty()
                && parts
                    .iter()
                    .all(|part| part["text"].as_str().is_some_and(|text| !text.is_empty()));
            ensure(good, || "systemInstruction must have text parts".to_owned())?;
        }
        let functions = self.tools(body)?;
        self.config(body.get("generationConfig"), streamed, !functions.is_empty())?;
        self.contents(body)?;
        Ok(answer_to(self, body, &functions, streamed))
    }

    /// The number of a prompt's tokens: the words of all its texts.
    fn count(&self, body: &Map<String, Value>) -> Result<Answer, Refusal> {
        let asked = if self.vertex {
            only(body, &["contents", "systemInstruction", "tools", "generationConfig"])?;
            body.clone()
        } else {
            only(body, &["generateContentRequest"])?;
            let mut asked = object(&body["generateContentRequest"])?.clone();
            let model = format!("models/{}", self.model);
            ensure(asked.shift_remove("model") == Some(json!(model)), || {
                "generateContentRequest.model is not the model of the path".to_owned()
            })?;
            asked
        };
        self.generate(&asked, false)?;
        let texts = ["systemInstruction", "contents"];
        let words: u64 = texts.iter().filter_map(|name| asked.get(*name)).map(words).sum();
        Ok(Answer::json(
            200,
            &json!({"totalTokens": words, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": words}]}),
        ))
    }

    /// The functions that are declared.
    fn tools(&self, body: &Map<String, Value>) -> Result<Vec<String>, Refusal> {
        let mut names = Vec::new();
        let mut declared = 0;
        for tool in body.get("tools").map(list).unwrap_or_default() {
            let fields = object(tool)?;
            only(
                fields,
                &["functionDeclarations", "googleSearch", "codeExecution", "urlContext"],
            )?;
            ensure(fields.len() == 1, || "tools: one kind for each entry".to_owned())?;
            for function in list(&tool["functionDeclarations"]) {
                only(
                    object(function)?,
                    &["name", "description", "parameters", "parametersJsonSchema"],
                )?;
                let name = function["name"].as_str().unwrap_or_default();
                let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
                let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b));
                ensure(begins && rest && name.len() <= 64, || {
                    format!("Invalid function name {name}")
                })?;
                ensure(!names.contains(&name.to_owned()), || {
                    format!("Duplicate function declaration found: {name}")
                })?;
                match (function.get("parameters"), function.get("parametersJsonSchema")) {
                    (Some(_), Some(_)) => return Err(bad("parameters and parametersJsonSchema are exclusive")),
                    (Some(schema), None) => subset(schema)?,
                    (None, Some(schema)) => {
                        ensure(schema["type"] == "object", || "parameters must be an object".to_owned())?
                    }
                    (None, None) => {}
                }
                names.push(name.to_owned());
            }
            declared += usize::from(fields.contains_key("functionDeclarations"));
        }
        ensure(declared <= 1, || {
            "Multiple tools are supported only when they are all search tools.".to_owned()
        })?;
        if let Some(config) = body.get("toolConfig") {
            let calling = object(&config["functionCallingConfig"])?;
            only(calling, &["mode", "allowedFunctionNames"])?;
            let mode = calling["mode"].as_str().unwrap_or_default();
            ensure(["AUTO", "ANY", "NONE", "VALIDATED"].contains(&mode), || {
                format!("Invalid mode {mode}")
            })?;
            for name in calling.get("allowedFunctionNames").map(list).unwrap_or_default() {
                ensure(["ANY", "VALIDATED"].contains(&mode), || {
                    "allowed_function_names needs mode ANY".to_owned()
                })?;
                let known = name
                    .as_str()
                    .is_some_and(|name| names.iter().any(|known| known == name));
                ensure(known, || format!("allowed_function_names: {name} is not declared"))?;
            }
        }
        Ok(names)
    }

    fn config(&self, config: Option<&Value>, streamed: bool, functions: bool) -> Checked {
        let Some(config) = config else { return Ok(()) };
        let fields = object(config)?;
        let known = [
            "temperature",
            "topP",
            "topK",
            "maxOutputTokens",
            "candidateCount",
            "stopSequences",
            "presencePenalty",
            "frequencyPenalty",
            "seed",
            "responseMimeType",
            "responseSchema",
            "responseJsonSchema",
            "responseLogprobs",
            "logprobs",
            "responseModalities",
            "thinkingConfig",
            "mediaResolution",
        ];
        only(fields, &known)?;
        let within = |name: &str, low: f64, high: f64| {
            let number = fields.get(name).map(|value| value.as_f64().unwrap_or(f64::NAN));
            ensure(number.is_none_or(|number| (low..=high).contains(&number)), || {
                format!("{name} is out of range")
            })
        };
        within("temperature", 0.0, 2.0)?;
        within("topP", 0.0, 1.0)?;
        within("maxOutputTokens", 1.0, 65_536.0)?;
        within("seed", -2_147_483_648.0, 2_147_483_647.0)?;
        within("logprobs", 0.0, 20.0)?;
        within("presencePenalty", -2.0, 1.999_999)?;
        within("frequencyPenalty", -2.0, 1.999_999)?;
        let most = if streamed || self.is_newer() { 1.0 } else { 8.0 };
        within("candidateCount", 1.0, most)?;
        let refused = |name: &str| {
            ensure(!fields.contains_key(name), || {
                format!("{name} is not supported by this model")
            })
        };
        if self.is_newer() {
            for name in ["presencePenalty", "frequencyPenalty", "responseLogprobs", "logprobs"] {
                refused(name)?;
            }
        }
        let stops = fields.get("stopSequences").map(list).unwrap_or_default();
        ensure(stops.len() <= 5 && stops.iter().all(|stop| *stop != ""), || {
            "stopSequences: at most 5".to_owned()
        })?;
        let json_mime = fields
            .get("responseMimeType")
            .is_some_and(|mime| mime == "application/json");
        let schemas = ["responseSchema", "responseJsonSchema"]
            .iter()
            .filter(|name| fields.contains_key(**name))
            .count();
        ensure(schemas == 0 || (json_mime && schemas == 1), || {
            "a response schema needs application/json".to_owned()
        })?;
        ensure(!json_mime || !functions || self.is_newer(), || {
            "Function calling with a response mime type: 'application/json' is unsupported".to_owned()
        })?;
        if let Some(schema) = fields.get("responseSchema") {
            subset(schema)?;
        }
        ensure(
            !fields.contains_key("logprobs") || fields.get("responseLogprobs") == Some(&json!(true)),
            || "logprobs needs responseLogprobs".to_owned(),
        )?;
        if let Some(resolution) = fields.get("mediaResolution") {
            let known = [
                "MEDIA_RESOLUTION_LOW",
                "MEDIA_RESOLUTION_MEDIUM",
                "MEDIA_RESOLUTION_HIGH",
            ];
            ensure(known.iter().any(|known| resolution == known), || {
                format!("Invalid value {resolution}")
            })?;
        }
        let Some(thinking) = fields.get("thinkingConfig") else {
            return Ok(());
        };
        only(
            object(thinking)?,
            &["thinkingBudget", "thinkingLevel", "includeThoughts"],
        )?;
        match (thinking.get("thinkingBudget"), thinking.get("thinkingLevel")) {
            (Some(_), Some(_)) => Err(bad("You can only set only one of thinking budget and thinking level.")),
            (Some(budget), None) => {
                let good = budget.as_i64().is_some_and(|budget| (-1..=24_576).contains(&budget)) && !self.is_newer();
                ensure(good, || format!("The thinking budget {budget} is invalid."))
            }
            (None, Some(level)) => {
                let known = ["MINIMAL", "LOW", "MEDIUM", "HIGH"].iter().any(|known| level == known);
                ensure(known && self.is_newer(), || {
                    format!("Thinking level {level} is not supported for this model.")
                })
            }
            (None, None) => Ok(()),
        }
    }

    fn contents(&self, body: &Map<String, Value>) -> Checked {
        let contents = body.get("contents").map(list).unwrap_or_default();
        ensure(!contents.is_empty(), || "contents is not specified".to_owned())?;
        let is_spoken = |turn: &Value| {
            let spoken = |part: &Value| part.get("text").is_some() || part.get("inlineData").is_some();
            turn["role"] == "user" && list(&turn["parts"]).iter().any(spoken)
        };
        let current = contents.iter().rposition(is_spoken).unwrap_or(0);
        let mut due: Vec<&Value> = Vec::new();
        for (at, turn) in contents.iter().enumerate() {
            only(object(turn)?, &["role", "parts"])?;
            let expected = if at % 2 == 0 { "user" } else { "model" };
            ensure(turn["role"] == expected, || {
                "Please ensure that turns alternate between user and model.".to_owned()
            })?;
            let parts = list(&turn["parts"]);
            ensure(!parts.is_empty(), || "contents.parts must not be empty".to_owned())?;
            for part in parts {
                self.part(part, expected == "model")?;
            }
            let responses: Vec<&Value> = parts.iter().filter_map(|part| part.get("functionResponse")).collect();
            let paired = responses.len() == due.len()
                && responses
                    .iter()
                    .zip(&due)
                    .all(|(response, call)| response["name"] == call["name"] && response.get("id") == call.get("id"));
            ensure(paired, || {
                "Please ensure that the number of function response parts is equal to the number of function call parts \
                 of the function call turn."
                    .to_owned()
            })?;
            due = parts.iter().filter_map(|part| part.get("functionCall")).collect();
            let first = parts.iter().find(|part| part.get("functionCall").is_some());
            if let Some(call) = first.filter(|_| self.is_newer() && at > current) {
                ensure(call.get("thoughtSignature").is_some(), || {
                    format!(
                        "Function call {} is missing a thought_signature in functionCall parts.",
                        call["functionCall"]["name"]
                    )
                })?;
            }
        }
        ensure(due.is_empty(), || "a function call must be answered".to_owned())?;
        let ends_well = contents.len() % 2 == 1 || !self.is_newer();
        ensure(ends_well, || "The last turn must be the user's.".to_owned())
    }

    fn part(&self, part: &Value, of_model: bool) -> Checked {
        let fields = object(part)?;
        only(
            fields,
            &[
                "text",
                "thought",
                "thoughtSignature",
                "inlineData",
                "fileData",
                "functionCall",
                "functionResponse",
            ],
        )?;
        let data = ["text", "inlineData", "fileData", "functionCall", "functionResponse"];
        let members = fields.keys().filter(|name| data.contains(&name.as_str())).count();
        ensure(members == 1, || "a part must have exactly one data member".to_owned())?;
        let signature = part["thoughtSignature"].as_str();
        if let Some(signature) = signature {
            let own = signature == NO_SIGNATURE || signature == self.signature(&signed_content(part));
            ensure(own && of_model, || "Corrupted thought signature.".to_owned())?;
        }
        if let Some(text) = part.get("text") {
            let says = text
                .as_str()
                .is_some_and(|text| !text.is_empty() || signature.is_some());
            ensure(says, || {
                "Unable to submit request because it must have a text parameter".to_owned()
            })?;
        }
        if let Some(blob) = part.get("inlineData") {
            inline(blob)?;
        }
        if let Some(file) = part.get("fileData") {
            only(object(file)?, &["mimeType", "fileUri"])?;
        }
        let id_fits = |value: &Value| {
            let good = if self.is_newer() {
                value["id"].is_string()
            } else {
                value.get("id").is_none()
            };
            ensure(good, || "Invalid JSON payload received. Unknown name \"id\"".to_owned())
        };
        if let Some(call) = part.get("functionCall") {
            only(object(call)?, &["id", "name", "args"])?;
            id_fits(call)?;
            ensure(of_model && call["args"].is_object(), || {
                "a function call is the model's and has args".to_owned()
            })?;
        }
        if let Some(response) = part.get("functionResponse") {
            only(object(response)?, &["id", "name", "response", "parts"])?;
            id_fits(response)?;
            ensure(!of_model && response["response"].is_object(), || {
                "response must be an object".to_owned()
            })?;
            for part in response.get("parts").map(list).unwrap_or_default() {
                ensure(self.is_newer(), || "Unknown name \"parts\"".to_owned())?;
                inline(&part["inlineData"])?;
            }
        }
        Ok(())
    }

    /// The signature for what a part holds.
    fn signature(&self, content: &str) -> String {
        // Bytes whose base64 holds every awkward character.
        let mut bytes = vec![0xfb, 0xff, 0xfe];
        bytes.extend(Sha256::digest(format!("{} {content}", self.model)));
        STANDARD.encode(bytes)
    }

    fn predict(&self, body: &Map<String, Value>) -> Result<Answer, Refusal> {
        only(body, &["instances", "parameters"])?;
        let instances = body.get("instances").map(list).unwrap_or_default();
        let most = if self.model == "gemini-embedding-001" { 1 } else { 250 };
        ensure((1..=most).contains(&instances.len()), || {
            format!("{} instance(s) is allowed per prediction.", most)
        })?;
        let parameters = body.get("parameters").cloned().unwrap_or(json!({}));
        only(object(&parameters)?, &["outputDimensionality", "autoTruncate"])?;
        let mut predictions = Vec::new();
        for instance in instances {
            only(object(instance)?, &["content", "task_type", "title"])?;
            let (values, tokens) = vector(&instance["content"], &parameters["outputDimensionality"])?;
            let statistics = json!({"token_count": tokens as f64, "truncated": false});
            predictions.push(json!({"embeddings": {"values": values, "statistics": statistics}}));
        }
        Ok(Answer::json(
            200,
            &json!({"predictions": predictions, "metadata": {"billableCharacterCount": 17}}),
        ))
    }

    fn embed(&self, body: &Map<String, Value>) -> Result<Answer, Refusal> {
        only(body, &["content", "embedContentConfig"])?;
        let config = body.get("embedContentConfig").cloned().unwrap_or(json!({}));
        only(object(&config)?, &["taskType", "outputDimensionality", "autoTruncate"])?;
        let content = body.get("content").cloned().unwrap_or_default();
        ensure(list(&content["parts"]).len() == 1, || "one part".to_owned())?;
        let (values, tokens) = vector(&content["parts"][0]["text"], &config["outputDimensionality"])?;
        let usage = json!({"promptTokenCount": tokens, "totalTokenCount": tokens});
        Ok(Answer::json(
            200,
            &json!({"embedding": {"values": values}, "usageMetadata": usage, "truncated": false}),
        ))
    }

    fn embed_batch(&self, body: &Map<String, Value>) -> Result<Answer, Refusal> {
        only(body, &["requests"])?;
        let requests = body.get("requests").map(list).unwrap_or_default();
        ensure((1..=100).contains(&requests.len()), || {
            "at most 100 requests can be in one batch".to_owned()
        })?;
        let mut embeddings = Vec::new();
        for request in requests {
            only(
                object(request)?,
                &["model", "content", "taskType", "outputDimensionality"],
            )?;
            let model = format!("models/{}", self.model);
            ensure(request["model"] == model.as_str(), || {
                "model is required in each request".to_owned()
            })?;
            let (values, _) = vector(
                &request["content"]["parts"][0]["text"],
                &request["outputDimensionality"],
            )?;
            embeddings.push(json!({"values": values}));
        }
        Ok(Answer::json(200, &json!({"embeddings": embeddings})))
    }
}

/// Words of every text anywhere in a value.
fn words(value: &Value) -> u64 {
    match value {
        Value::Array(items) => items.iter().map(words).sum(),
        Value::Object(fields) => {
            let own = fields.get("text").and_then(Value::as_str).unwrap_or_default();
            own.split_whitespace().count() as u64 + fields.values().map(words).sum::<u64>()
        }
        _ => 0,
    }
}

/// Refuses members that are not known.
fn only(fields: &Map<String, Value>, known: &[&str]) -> Checked {
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(bad(format!(
            "Invalid JSON payload received. Unknown name \"{name}\": Cannot find field."
        ))),
        None => Ok(()),
    }
}

fn object(value: &Value) -> Result<&Map<String, Value>, Refusal> {
    value
        .as_object()
        .ok_or_else(|| bad("Invalid value: an object is expected"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn inline(blob: &Value) -> Checked {
    only(object(blob)?, &["mimeType", "data"])?;
    let known = [
        "image/png",
        "image/jpeg",
        "image/webp",
        "application/pdf",
        "text/plain",
        "audio/wav",
        "audio/mp3",
    ];
    ensure(known.iter().any(|known| blob["mimeType"] == *known), || {
        format!("Unsupported MIME type: {}", blob["mimeType"])
    })?;
    let bytes = blob["data"].as_str().and_then(|data| STANDARD.decode(data).ok());
    ensure(bytes.is_some_and(|bytes| !bytes.is_empty()), || {
        "Base64 decoding failed".to_owned()
    })
}

/// A schema in the narrow form.
fn subset(schema: &Value) -> Checked {
    let fields = object(schema)?;
    let known = [
        "type",
        "format",
        "description",
        "nullable",
        "enum",
        "items",
        "minItems",
        "maxItems",
        "properties",
        "required",
        "propertyOrdering",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "pattern",
        "anyOf",
    ];
    only(fields, &known)?;
    if let Some(branches) = fields.get("anyOf") {
        ensure(fields.len() == 1, || {
            "when using any_of, it must be the only field set".to_owned()
        })?;
        return list(branches).iter().try_for_each(subset);
    }
    match schema["type"].as_str() {
        Some("OBJECT") => {
            if let Some(properties) = fields.get("properties") {
                let properties = object(properties)?;
                ensure(!properties.is_empty(), || {
                    "properties: should be non-empty for OBJECT type".to_owned()
                })?;
                properties.values().try_for_each(subset)?;
                let named = list(&schema["required"])
                    .iter()
                    .all(|name| properties.contains_key(name.as_str().unwrap_or_default()));
                ensure(named, || "required: property is not defined".to_owned())?;
            }
            Ok(())
        }
        Some("ARRAY") => subset(&schema["items"]),
        Some("STRING" | "NUMBER" | "INTEGER" | "BOOLEAN") => Ok(()),
        _ => Err(bad("type is required")),
    }
}

/// What a part's signature stands for: a call, or the text of an answer.
fn signed_content(part: &Value) -> String {
    match part.get("functionCall") {
        Some(call) => format!("{} {}", call["name"], call["args"]),
        None => part["text"].as_str().unwrap_or_default().to_owned(),
    }
}

/// A vector that follows from the text, and the text's words.
fn vector(text: &Value, dimensions: &Value) -> Result<(Vec<f64>, usize), Refusal> {
    let text = text
        .as_str()
        .filter(|text| !text.is_empty())
        .ok_or_else(|| bad("content must not be empty"))?;
    let count = dimensions.as_u64().unwrap_or(3);
    let digest = Sha256::digest(text);
    let values = (0..count)
        .map(|at| f64::from(digest[at as usize % 32]) / 64.0)
        .collect();
    Ok((values, text.split_whitespace().count()))
}

/// The arguments that a function is declared with.
fn properties<'b>(body: &'b Map<String, Value>, name: &str) -> Option<&'b Map<String, Value>> {
    let tools = body.get("tools").map(list).unwrap_or_default();
    let mut functions = tools.iter().flat_map(|tool| list(&tool["functionDeclarations"]));
    let function = functions.find(|function| function["name"] == name)?;
    let schema = function.get("parameters").or(function.get("parametersJsonSchema"))?;
    schema["properties"].as_object()
}

/// The answer to a request that is in order.
///
/// The results of functions are repeated; a question about the weather becomes two calls of the first function that may
/// be called, or of the first two where they are to be parallel; a schema is filled in; and everything else is repeated with
/// what was shown beside it. The words `blocked`, `unsafe` and `malformed` in the question have the prompt blocked, the
/// answer stopped, and a call broken.
fn answer_to(host: &Host<'_>, body: &Map<String, Value>, functions: &[String], streamed: bool) -> Answer {
    let parts = list(&body["contents"][list(&body["contents"]).len() - 1]["parts"]);
    let config = body.get("generationConfig").cloned().unwrap_or(json!({}));
    let said: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
    let said = said.join(" ");
    let calling = body
        .get("toolConfig")
        .map(|config| config["functionCallingConfig"].clone())
        .unwrap_or_default();
    let results: Vec<String> = parts
        .iter()
        .filter_map(|part| part.get("functionResponse"))
        .map(|response| response["response"].to_string())
        .collect();
    let mut finish = "STOP";
    let mut answer: Vec<Value> = Vec::new();
    if config["thinkingConfig"]["includeThoughts"] == true {
        answer.push(json!({"text": "Let me think.", "thought": true}));
    }
    let text = |text: String| json!({"text": text, "thoughtSignature": host.signature(&text)});
    if said.contains("blocked") {
        let feedback = json!({"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "no"});
        let whole = json!({"promptFeedback": feedback, "usageMetadata": {"promptTokenCount": 31, "totalTokenCount": 31},
                           "modelVersion": host.model});
        return if streamed {
            stream(&[whole])
        } else {
            Answer::json(200, &whole)
        };
    } else if said.contains("unsafe") {
        finish = "SAFETY";
        answer.push(json!({"text": "First, "}));
    } else if said.contains("malformed") {
        finish = "MALFORMED_FUNCTION_CALL";
    } else if !results.is_empty() {
        answer.push(text(format!("Results: {}", results.join(" and "))));
    } else if said.contains("weather") && !functions.is_empty() && calling["mode"] != "NONE" {
        let allowed = list(&calling["allowedFunctionNames"]).first().and_then(Value::as_str);
        for (at, city) in ["Paris", "Rome"].into_iter().enumerate() {
            let turn = if said.contains("parallel") {
                at % functions.len()
            } else {
                0
            };
            let name = allowed.unwrap_or(&functions[turn]);
            let mut args = json!({"city": city, "days": at + 1});
            if let (Some(args), Some(known)) = (args.as_object_mut(), properties(body, name)) {
                args.retain(|argument, _| known.contains_key(argument));
            }
            let mut call = json!({"functionCall": {"name": name, "args": args}});
            if host.is_newer() {
                call["functionCall"]["id"] = format!("fc-{at}-{}", host.signature(city).len()).into();
            }
            // Only the first of a parallel set is signed.
            if at == 0 {
                call["thoughtSignature"] = host.signature(&signed_content(&call)).into();
            }
            answer.push(call);
        }
    } else if config["responseMimeType"] == "application/json" {
        let schema = config
            .get("responseJsonSchema")
            .or_else(|| config.get("responseSchema"));
        answer.push(text(schema.map_or(json!({"ok": true}), example).to_string()));
    } else {
        let shown = parts.iter().filter_map(|part| part.get("inlineData")).map(|blob| {
            let bytes = STANDARD
                .decode(blob["data"].as_str().unwrap_or_default())
                .unwrap_or_default();
            format!(
                " [{} of {} bytes]",
                blob["mimeType"].as_str().unwrap_or_default(),
                bytes.len()
            )
        });
        answer.push(text(format!("You said: {said}{}", shown.collect::<String>())));
    }
    let count = config["candidateCount"].as_u64().unwrap_or(1);
    let thinks = config["thinkingConfig"]["thinkingBudget"] != 0 && config.get("thinkingConfig").is_some();
    let thoughts = if thinks { THOUGHT_TOKENS } else { 0 };
    let cached = if body.contains_key("systemInstruction") {
        CACHED_TOKENS
    } else {
        0
    };
    let candidates = CANDIDATE_TOKENS * count;
    let mut usage = json!({"promptTokenCount": PROMPT_TOKENS, "candidatesTokenCount": candidates,
        "totalTokenCount": PROMPT_TOKENS + candidates + thoughts,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": PROMPT_TOKENS}]});
    // What is zero is left out.
    for (name, tokens) in [("thoughtsTokenCount", thoughts), ("cachedContentTokenCount", cached)] {
        if tokens > 0 {
            usage[name] = tokens.into();
        }
    }
    let envelope = |candidates: Value, usage: Option<&Value>| {
        let mut event = json!({"candidates": candidates, "modelVersion": host.model, "responseId": "kD8jZ9"});
        if let Some(usage) = usage {
            event["usageMetadata"] = usage.clone();
        }
        event
    };
    if !streamed {
        let candidate = |index: u64| {
            let mut candidate = json!({"content": {"role": "model", "parts": answer}, "finishReason": finish});
            if answer.is_empty() {
                candidate["content"] = json!({});
            }
            if index > 0 {
                candidate["index"] = index.into();
            }
            candidate
        };
        return Answer::json(200, &envelope((0..count).map(candidate).collect(), Some(&usage)));
    }
    let mut events = Vec::new();
    let mut signature = None;
    for part in answer {
        match part["text"].as_str().filter(|_| part.get("thought").is_none()) {
            // A text comes in pieces, and its signature at the very end, on a piece without text.
            Some(text) => {
                let half = text.floor_char_boundary(text.len() / 2);
                events.extend([&text[..half], &text[half..]].map(|piece| json!([{"text": piece}])));
                signature = part.get("thoughtSignature").cloned();
            }
            None => events.push(json!([part])),
        }
    }
    let mut stream_events: Vec<Value> = events
        .into_iter()
        .map(|parts| envelope(json!([{"content": {"role": "model", "parts": parts}}]), None))
        .collect();
    let mut last = json!({"finishReason": finish});
    if let Some(signature) = signature {
        last["content"] = json!({"role": "model", "parts": [{"text": "", "thoughtSignature": signature}]});
    }
    stream_events.push(envelope(json!([last]), Some(&usage)));
    stream(&stream_events)
}

/// A value that a schema allows, in either form.
fn example(schema: &Value) -> Value {
    if let Some(values) = schema["enum"].as_array() {
        return values[0].clone();
    }
    match schema["type"]
        .as_str()
        .unwrap_or_default()
        .to_ascii_lowercase()
        .as_str()
    {
        "object" => {
            let properties = schema["properties"].as_object().cloned().unwrap_or_default();
            properties
                .iter()
                .map(|(name, schema)| (name.clone(), example(schema)))
                .collect()
        }
        "array" => json!([example(&schema["items"])]),
        "integer" => json!(18),
        "number" => json!(18.5),
        "boolean" => json!(true),
        _ => json!("Paris"),
    }
}
