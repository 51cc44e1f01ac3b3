//! Anthropic's Messages API, as strict as the real one: what it refuses is refused here, in its words.
//!
//! **Tokens.** As at the other faithful answers, a token is a word between blanks, plus 3 for each message. Half of a prompt
//! that contains "cached" is read from the cache. Each mark of a cache writes 10 tokens more, or 20 where it is for an hour.
//!
//! **Text.** An answer repeats the last user text and obeys `words:200` and `pause_ms:20`. With tools on offer it calls the
//! first, or two different ones where the text contains "parallel", unless results have just come. "redacted" adds a thought
//! that nobody can read, and "refuse" makes it refuse.
//!
//! **Thoughts** are signed, and what comes back must be signed as it went.
//!
//! **Models.** What one takes goes by its generation ([`Rules`]). `no-such-…`, `…-429-once`, `…-500`, `…-cut` and
//! `…-error-mid` misbehave as at OpenAI, and `…-overloaded` is.

use std::collections::HashSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    answer::{Answer, Step},
    openai::{schema, words},
    record::{Received, Tokens},
};

/// Where tokens are counted.
const COUNTING: &str = "/v1/messages/count_tokens";
/// What a request that only counts must not have.
const NOT_COUNTED: [&str; 5] = ["max_tokens", "stream", "temperature", "metadata", "stop_sequences"];
/// Events before a stream of a `…-cut` or `…-error-mid` model goes wrong: a thought, and some of the text.
const EVENTS_BEFORE_TROUBLE: usize = 8;

/// What a generation of models takes.
struct Rules {
    thinking: &'static [&'static str],
    /// Whether it thinks when nobody says anything.
    thinks_unasked: bool,
    efforts: &'static [&'static str],
    sampling: bool,
    forced_tool: bool,
    prefill: bool,
    structured: bool,
    system_in_the_middle: bool,
    hides_thinking: bool,
}

impl Rules {
    fn of(model: &str) -> Self {
        let newest = Self {
            thinking: &["adaptive"],
            thinks_unasked: true,
            efforts: &["low", "medium", "high", "xhigh", "max"],
            sampling: false,
            forced_tool: false,
            prefill: false,
            structured: true,
            system_in_the_middle: true,
            hides_thinking: true,
        };
        if model.contains("-4-5") || model.contains("-4-1") {
            Self {
                thinking: &["disabled", "enabled"],
                thinks_unasked: false,
                efforts: &[],
                sampling: true,
                forced_tool: true,
                prefill: true,
                structured: model.contains("-4-5"),
                system_in_the_middle: false,
                hides_thinking: false,
            }
        } else if model.contains("-4-8") {
            Self {
                thinking: &["disabled", "adaptive"],
                thinks_unasked: false,
                forced_tool: true,
                ..newest
            }
        } else {
            newest
        }
    }
}

/// A refusal in Anthropic's shape.
struct Refusal {
    status: u16,
    kind: &'static str,
    message: String,
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal {
        status: 400,
        kind: "invalid_request_error",
        message: message.into(),
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        error(refusal.status, refusal.kind, &refusal.message)
    }
}

/// An error in Anthropic's shape.
pub(super) fn error(status: u16, kind: &str, message: &str) -> Answer {
    let error = json!({ "type": kind, "message": message });
    Answer::json(
        status,
        &json!({ "type": "error", "error": error, "request_id": "req_mock" }),
    )
}

/// One event of a stream.
pub(super) fn event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default())
}

pub(super) fn is_path(path: &str) -> bool {
    path == "/v1/messages" || path == COUNTING
}

/// The faithful answer.
pub(super) fn answer(
    received: &Received,
    required_key: Option<&str>,
    refuses_this_time: impl Fn(&str, &Value) -> bool,
) -> Answer {
    let key = received.header("x-api-key").filter(|key| !key.is_empty());
    let answer = if key.is_none() || required_key.is_some_and(|required| key != Some(required)) {
        error(401, "authentication_error", "invalid x-api-key")
    } else if received.method != "POST" {
        error(405, "invalid_request_error", "Method Not Allowed")
    } else {
        infer(received, refuses_this_time).unwrap_or_else(Answer::from)
    };
    answer.header("request-id", &format!("req_mock{:08}", received.sequence))
}

fn infer(received: &Received, refuses_this_time: impl Fn(&str, &Value) -> bool) -> Result<Answer, Refusal> {
    match received.header("anthropic-version") {
        Some("2023-06-01" | "2026-10-21") => {}
        Some(other) => return Err(invalid(format!("anthropic-version: {other} is not a valid version"))),
        None => return Err(invalid("anthropic-version: header is required")),
    }
    let body: Value =
        serde_json::from_slice(&received.body).map_err(|_| invalid("The request body is not valid JSON"))?;
    let Some(model) = body["model"].as_str() else {
        return Err(invalid("model: Field required"));
    };
    if model.starts_with("no-such-") {
        return Err(Refusal {
            status: 404,
            kind: "not_found_error",
            message: format!("model: {model}"),
        });
    }
    if model.ends_with("-500") {
        return Ok(error(500, "api_error", "Internal server error"));
    }
    if model.ends_with("-429-once") && refuses_this_time(model, &body) {
        return Ok(error(
            429,
            "rate_limit_error",
            "Number of requests has exceeded your rate limit",
        )
        .header("retry-after", "1"));
    }
    if model.ends_with("-overloaded") {
        return Ok(error(529, "overloaded_error", "Overloaded"));
    }
    let rules = Rules::of(model);
    if received.path == COUNTING {
        if let Some(extra) = NOT_COUNTED.iter().find(|name| !body[**name].is_null()) {
            return Err(invalid(format!("{extra}: Extra inputs are not permitted")));
        }
        let mut asked = body.clone();
        asked["max_tokens"] = json!(1_000);
        check(&asked, &rules, received)?;
        let prompt = Composed::of(&asked, &rules, received.sequence).prompt.prompt;
        return Ok(Answer::json(200, &json!({ "input_tokens": prompt })));
    }
    check(&body, &rules, received)?;
    let answer = Composed::of(&body, &rules, received.sequence).answer(&body, model, received.sequence);
    Ok(misbehave(model, answer))
}

fn misbehave(model: &str, answer: Answer) -> Answer {
    let streamed = answer.is_stream();
    if model.ends_with("-cut") && streamed {
        answer.cut_after_events(EVENTS_BEFORE_TROUBLE)
    } else if model.ends_with("-cut") {
        answer.cut_after_bytes(40)
    } else if model.ends_with("-error-mid") && streamed {
        let failure = json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Overloaded" } });
        answer.after_events(EVENTS_BEFORE_TROUBLE, [Step::send(event(&failure)), Step::Finish])
    } else if model.ends_with("-error-mid") {
        error(529, "overloaded_error", "Overloaded")
    } else {
        answer
    }
}

const FIELDS: [&str; 21] = [
    "model",
    "max_tokens",
    "messages",
    "system",
    "stop_sequences",
    "stream",
    "temperature",
    "top_p",
    "top_k",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "metadata",
    "service_tier",
    "speed",
    "cache_control",
    "inference_geo",
    "container",
    "diagnostics",
    "output_format",
];

/// Refuses what Anthropic refuses.
fn check(body: &Value, rules: &Rules, received: &Received) -> Result<(), Refusal> {
    let betas = received.header("anthropic-beta").unwrap_or_default();
    for name in body.as_object().into_iter().flat_map(|fields| fields.keys()) {
        let beta = name == "context_management" && betas.contains("context-management-");
        if !FIELDS.contains(&name.as_str()) && !beta {
            return Err(invalid(format!("{name}: Extra inputs are not permitted")));
        }
    }
    let Some(max_tokens) = body["max_tokens"].as_u64() else {
        return Err(invalid("max_tokens: Field required"));
    };
    let most = if rules.sampling { 64_000 } else { 128_000 };
    if max_tokens > most {
        let message =
            format!("max_tokens: {max_tokens} > {most}, which is the maximum allowed number of output tokens");
        return Err(invalid(message));
    }
    let thinks = check_thinking(body, rules, max_tokens)?;
    check_sampling(body, rules, received, thinks)?;
    check_tools(body, rules)?;
    check_system(&body["system"])?;
    check_messages(body, rules, thinks)?;
    check_marks(body)?;
    let format = &body["output_config"]["format"];
    if !format.is_null() {
        if !rules.structured {
            return Err(invalid("output_config.format: Extra inputs are not permitted"));
        }
        if format["type"] != "json_schema" || !format["schema"].is_object() {
            return Err(invalid("output_config.format: must be a json_schema with a schema"));
        }
        if let Some(name) = format
            .as_object()
            .and_then(|fields| fields.keys().find(|name| !["type", "schema"].contains(&name.as_str())))
        {
            return Err(invalid(format!(
                "output_config.format.{name}: Extra inputs are not permitted"
            )));
        }
        check_exact(&format["schema"], "output_config.format.schema")?;
    }
    if !matches!(body["service_tier"].as_str(), None | Some("auto" | "standard_only")) {
        return Err(invalid("service_tier: Input should be 'auto' or 'standard_only'"));
    }
    if body["metadata"]["user_id"]
        .as_str()
        .is_some_and(|user| user.contains('@'))
    {
        return Err(invalid("metadata.user_id: user_id appears to contain an email address"));
    }
    let stops = body["stop_sequences"].as_array().into_iter().flatten();
    if stops.filter_map(Value::as_str).any(|stop| stop.trim().is_empty()) {
        return Err(invalid(
            "stop_sequences: each stop sequence must contain non-whitespace",
        ));
    }
    Ok(())
}

/// Whether the model will think.
fn check_thinking(body: &Value, rules: &Rules, max_tokens: u64) -> Result<bool, Refusal> {
    if let Some(effort) = body["output_config"]["effort"].as_str()
        && !rules.efforts.contains(&effort)
    {
        return Err(invalid("output_config.effort: This model does not support this effort"));
    }
    let thinking = &body["thinking"];
    if thinking.is_null() {
        return Ok(rules.thinks_unasked);
    }
    let kind = thinking["type"].as_str().unwrap_or_default();
    if !rules.thinking.contains(&kind) {
        return Err(invalid(format!(
            "\"thinking.type.{kind}\" is not supported for this model."
        )));
    }
    if !matches!(thinking["display"].as_str(), None | Some("summarized" | "omitted")) {
        return Err(invalid("thinking.display: Input should be 'summarized' or 'omitted'"));
    }
    if kind == "enabled" {
        match thinking["budget_tokens"].as_u64() {
            None => return Err(invalid("thinking.enabled.budget_tokens: Field required")),
            Some(..1_024) => {
                return Err(invalid(
                    "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024",
                ));
            }
            Some(budget) if budget >= max_tokens => {
                return Err(invalid("`max_tokens` must be greater than `thinking.budget_tokens`."));
            }
            Some(_) => {}
        }
        let choice = &body["tool_choice"]["type"];
        if choice == "any" || choice == "tool" {
            return Err(invalid("Thinking may not be enabled when tool_choice forces tool use."));
        }
    } else if !thinking["budget_tokens"].is_null() {
        return Err(invalid(format!(
            "thinking.{kind}.budget_tokens: Extra inputs are not permitted"
        )));
    }
    Ok(kind != "disabled")
}

fn check_sampling(body: &Value, rules: &Rules, received: &Received, thinks: bool) -> Result<(), Refusal> {
    for name in ["temperature", "top_p", "top_k"] {
        let value = &body[name];
        if value.is_null() {
            continue;
        }
        let newer = received.header("anthropic-version") == Some("2026-10-21");
        if newer || (!rules.sampling && value.as_f64() != Some(1.0)) {
            return Err(invalid(format!("{name}: Extra inputs are not permitted")));
        }
        if name != "top_k" && !value.as_f64().is_some_and(|number| (0.0..=1.0).contains(&number)) {
            return Err(invalid(format!("{name}: range: 0..1")));
        }
    }
    if thinks
        && body["temperature"]
            .as_f64()
            .is_some_and(|temperature| temperature < 1.0)
    {
        return Err(invalid("`temperature` may only be set to 1 when thinking is enabled."));
    }
    if thinks && !body["top_k"].is_null() {
        return Err(invalid("`top_k` must be unset when thinking is enabled."));
    }
    if rules.sampling && !body["temperature"].is_null() && !body["top_p"].is_null() {
        return Err(invalid(
            "`temperature` and `top_p` cannot both be specified for this model.",
        ));
    }
    Ok(())
}

fn check_tools(body: &Value, rules: &Rules) -> Result<(), Refusal> {
    let mut names = HashSet::new();
    for (index, tool) in body["tools"].as_array().into_iter().flatten().enumerate() {
        if !matches!(tool["type"].as_str(), None | Some("custom")) {
            continue;
        }
        let name = tool["name"].as_str().unwrap_or_default();
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(legal) {
            let message = format!("tools.{index}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'");
            return Err(invalid(message));
        }
        if !names.insert(name.to_owned()) {
            return Err(invalid("tools: Tool names must be unique."));
        }
        if tool["input_schema"]["type"] != "object" {
            return Err(invalid(format!(
                "tools.{index}.custom.input_schema.type: Field required"
            )));
        }
        for keyword in ["anyOf", "oneOf", "allOf", "$ref"] {
            if !tool["input_schema"][keyword].is_null() {
                let message = format!("tools.{index}.custom.input_schema: does not support {keyword} at the top level");
                return Err(invalid(message));
            }
        }
        if tool["strict"] == true {
            check_exact(&tool["input_schema"], &format!("tools.{index}.custom.input_schema"))?;
        }
        if !matches!(&tool["description"], Value::Null | Value::String(_)) {
            return Err(invalid(format!(
                "tools.{index}.custom.description: Input should be a valid string"
            )));
        }
    }
    let choice = &body["tool_choice"];
    if choice.is_null() {
        return Ok(());
    }
    if names.is_empty() && body["tools"].as_array().is_none_or(Vec::is_empty) {
        return Err(invalid("tool_choice: may only be specified while providing tools"));
    }
    match choice["type"].as_str() {
        Some("auto") => Ok(()),
        Some("none") if choice["disable_parallel_tool_use"].is_null() => Ok(()),
        Some("any" | "tool") if !rules.forced_tool => {
            Err(invalid("tool_choice: This model does not support forcing tool use"))
        }
        Some("any") => Ok(()),
        Some("tool") if choice["name"].as_str().is_some_and(|name| names.contains(name)) => Ok(()),
        _ => Err(invalid("tool_choice: Input is not valid")),
    }
}

/// The part of JSON Schema that can be enforced.
fn check_exact(schema: &Value, place: &str) -> Result<(), Refusal> {
    let Some(fields) = schema.as_object() else {
        return Err(invalid(format!("{place}: must be an object")));
    };
    const REFUSED: [&str; 12] = [
        "minimum",
        "maximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "maxItems",
        "uniqueItems",
        "contains",
        "prefixItems",
        "patternProperties",
        "oneOf",
        "not",
    ];
    if let Some(name) = REFUSED.iter().find(|name| fields.contains_key(**name)) {
        return Err(invalid(format!("{place}: property '{name}' is not supported")));
    }
    if fields.get("type").is_some_and(|kind| kind == "object")
        && fields.get("additionalProperties") != Some(&json!(false))
    {
        let message = format!("{place}: For 'object' type, 'additionalProperties' must be explicitly set to false");
        return Err(invalid(message));
    }
    let properties = ["properties", "$defs"]
        .iter()
        .filter_map(|name| fields.get(*name)?.as_object());
    for (name, property) in properties.flatten() {
        check_exact(property, &format!("{place}.{name}"))?;
    }
    if let Some(items) = fields.get("items") {
        check_exact(items, &format!("{place}.items"))?;
    }
    for member in fields.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
        check_exact(member, &format!("{place}.anyOf"))?;
    }
    Ok(())
}

fn check_system(system: &Value) -> Result<(), Refusal> {
    for (index, block) in system.as_array().into_iter().flatten().enumerate() {
        if block["type"] != "text" {
            return Err(invalid(format!("system.{index}.type: Input should be 'text'")));
        }
        check_text(block, &format!("system.{index}"))?;
    }
    Ok(())
}

fn check_text(block: &Value, place: &str) -> Result<(), Refusal> {
    match block["text"].as_str() {
        Some(text) if text.trim().is_empty() => Err(invalid(format!(
            "{place}: text content blocks must contain non-whitespace text"
        ))),
        Some(_) => Ok(()),
        None => Err(invalid(format!("{place}.text: Field required"))),
    }
}

/// At most four marks, and none for an hour behind one for minutes.
fn check_marks(body: &Value) -> Result<(), Refusal> {
    let marks = marks(body);
    if marks.len() > 4 {
        let message = format!(
            "A maximum of 4 blocks with cache_control may be provided. Found {}.",
            marks.len()
        );
        return Err(invalid(message));
    }
    if marks.is_sorted_by_key(|hour| !hour) {
        Ok(())
    } else {
        Err(invalid(
            "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block",
        ))
    }
}

/// The marks in the order of the prompt; whether each is for an hour.
fn marks(body: &Value) -> Vec<bool> {
    fn within(value: &Value, marks: &mut Vec<bool>) {
        for block in value.as_array().into_iter().flatten() {
            within(&block["content"], marks);
            if block["cache_control"].is_object() {
                marks.push(block["cache_control"]["ttl"] == "1h");
            }
        }
    }
    let mut marks = Vec::new();
    for name in ["tools", "system", "messages"] {
        within(&body[name], &mut marks);
    }
    if body["cache_control"].is_object() {
        marks.push(body["cache_control"]["ttl"] == "1h");
    }
    marks
}

fn check_messages(body: &Value, rules: &Rules, thinks: bool) -> Result<(), Refusal> {
    let Some(messages) = body["messages"].as_array() else {
        return Err(invalid("messages: Field required"));
    };
    if messages.first().is_none_or(|first| first["role"] != "user") {
        return Err(invalid("messages: first message must use the \"user\" role"));
    }
    // Ids of calls whose results are due.
    let mut due: Vec<String> = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let place = format!("messages.{index}");
        let text = [json!({ "type": "text", "text": message["content"] })];
        let blocks = match &message["content"] {
            Value::String(_) => &text[..],
            Value::Array(blocks) if !blocks.is_empty() => blocks,
            _ => return Err(invalid(format!("{place}: all messages must have non-empty content"))),
        };
        let role = message["role"].as_str().unwrap_or_default();
        let results: Vec<&str> = blocks
            .iter()
            .filter_map(|block| block["tool_use_id"].as_str())
            .collect();
        if let Some(missing) = due.iter().find(|id| !results.contains(&id.as_str())) {
            let message = format!(
                "{place}: `tool_use` ids were found without `tool_result` blocks immediately after: {missing}."
            );
            return Err(invalid(message));
        }
        if let Some(odd) = results.iter().find(|id| due.iter().all(|due| due != *id)) {
            return Err(invalid(format!(
                "{place}: unexpected `tool_use_id` found in `tool_result` blocks: {odd}."
            )));
        }
        let first_other = blocks
            .iter()
            .position(|block| block["type"] != "tool_result")
            .unwrap_or(blocks.len());
        if first_other < results.len() {
            return Err(invalid(format!("{place}: tool_result blocks must come first")));
        }
        match role {
            "user" | "assistant" => {}
            "system" if rules.system_in_the_middle => {
                let after_user = index > 0 && messages[index - 1]["role"] == "user";
                let before_assistant = messages.get(index + 1).is_none_or(|next| next["role"] == "assistant");
                if !(after_user && before_assistant) {
                    return Err(invalid(format!("{place}: system messages must follow a user message")));
                }
            }
            _ => return Err(invalid(format!("{place}.role: Input should be 'user' or 'assistant'"))),
        }
        for (at, block) in blocks.iter().enumerate() {
            check_block(block, role, &format!("{place}.content.{at}"))?;
        }
        let calls = blocks.iter().filter(|block| block["type"] == "tool_use");
        due = calls
            .filter_map(|block| block["id"].as_str().map(ToOwned::to_owned))
            .collect();
    }
    if !due.is_empty() {
        return Err(invalid(
            "messages: `tool_use` ids were found without `tool_result` blocks immediately after",
        ));
    }
    let last = messages.last().expect("there is a first");
    if last["role"] == "assistant" {
        if !rules.prefill || thinks || !body["output_config"]["format"].is_null() {
            return Err(invalid(
                "This model does not support assistant message prefill. The conversation must end with a user message.",
            ));
        }
        if words::text(&last["content"]).ends_with(char::is_whitespace) {
            return Err(invalid(
                "messages: final assistant content cannot end with trailing whitespace",
            ));
        }
    }
    // Within a loop of tools the thoughts must still be there.
    let open = last["content"][0]["type"] == "tool_result";
    if open && body["thinking"]["type"] == "enabled" {
        let called = messages
            .iter()
            .rfind(|message| message["role"] == "assistant")
            .expect("results have calls");
        let first = called["content"][0]["type"].as_str().unwrap_or_default();
        if !first.ends_with("thinking") {
            return Err(invalid(format!(
                "messages: Expected `thinking` or `redacted_thinking`, but found `{first}`."
            )));
        }
    }
    Ok(())
}

fn check_block(block: &Value, role: &str, place: &str) -> Result<(), Refusal> {
    let legal_id = |id: &Value| {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        id.as_str().is_some_and(|id| !id.is_empty() && id.bytes().all(legal))
    };
    match (block["type"].as_str().unwrap_or_default(), role) {
        ("text", _) => check_text(block, place),
        ("image", "user") => check_source(
            &block["source"],
            &["image/png", "image/jpeg", "image/gif", "image/webp"],
            place,
        ),
        ("document", "user") => check_source(&block["source"], &["application/pdf"], place),
        ("tool_use", "assistant") => {
            if !legal_id(&block["id"]) {
                return Err(invalid(format!(
                    "{place}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
                )));
            }
            if !block["input"].is_object() || block["name"].as_str().is_none_or(str::is_empty) {
                return Err(invalid(format!(
                    "{place}.tool_use.input: Input should be a valid dictionary"
                )));
            }
            Ok(())
        }
        ("tool_result", "user") => {
            if !legal_id(&block["tool_use_id"]) {
                return Err(invalid(format!("{place}.tool_result.tool_use_id: Field required")));
            }
            for (at, inner) in block["content"].as_array().into_iter().flatten().enumerate() {
                check_block(inner, "user", &format!("{place}.content.{at}"))?;
            }
            Ok(())
        }
        ("thinking", "assistant") => {
            let words = block["thinking"].as_str();
            let signed = words.is_some_and(|words| block["signature"] == signature(words));
            // With the words left out, the signature is that of the words nobody saw.
            let unseen = words == Some("") && block["signature"] == signature(UNSEEN);
            if signed || unseen {
                return Ok(());
            }
            Err(invalid(format!("{place}: Invalid `signature` in `thinking` block")))
        }
        ("redacted_thinking", "assistant") if block["data"] == redacted() => Ok(()),
        ("redacted_thinking", "assistant") => {
            Err(invalid(format!("{place}: Invalid `data` in `redacted_thinking` block")))
        }
        (other, role) => Err(invalid(format!(
            "{place}: Input tag '{other}' is not allowed for the {role}"
        ))),
    }
}

fn check_source(source: &Value, kinds: &[&str], place: &str) -> Result<(), Refusal> {
    let kind = source["media_type"].as_str().unwrap_or_default();
    let begins: &[(&str, &[u8])] = &[
        ("image/png", b"\x89PNG"),
        ("image/jpeg", b"\xff\xd8\xff"),
        ("image/gif", b"GIF8"),
        ("image/webp", b"RIFF"),
        ("application/pdf", b"%PDF-"),
    ];
    match source["type"].as_str() {
        Some("base64") => {
            let bytes = source["data"].as_str().and_then(|data| STANDARD.decode(data).ok());
            let Some(bytes) = bytes else {
                return Err(invalid(format!("{place}.source.base64: invalid base64 data")));
            };
            let true_kind = begins
                .iter()
                .find(|(_, begin)| bytes.starts_with(begin))
                .map(|(kind, _)| *kind);
            if !kinds.contains(&kind) || true_kind != Some(kind) {
                return Err(invalid(format!(
                    "{place}.source.base64.media_type: does not match the data"
                )));
            }
            Ok(())
        }
        Some("url") if source["url"].as_str().is_some_and(|url| url.starts_with("https://")) => Ok(()),
        Some("text") if kind == "text/plain" && source["data"].is_string() => Ok(()),
        _ => Err(invalid(format!("{place}.source: Input is not valid"))),
    }
}

const THOUGHTS: [&str; 2] = ["thought-1", " thought-2"];
/// What a model thinks that does not show it.
const UNSEEN: &str = "unseen";

/// The signature of a thought: characters of every kind that base64 has.
fn signature(words: &str) -> String {
    format!("Eq+/{}", STANDARD.encode(Sha256::digest(words)))
}

fn redacted() -> String {
    format!("Em+/{}", STANDARD.encode(Sha256::digest("redacted")))
}

/// A block of an answer: how it begins in a stream, what follows with its cost, and how it stands in a whole answer.
struct Block {
    start: Value,
    deltas: Vec<(Value, Tokens)>,
    whole: Value,
}

/// An answer before it has a form.
struct Composed {
    blocks: Vec<Block>,
    stop_reason: &'static str,
    stop_sequence: Value,
    stop_details: Value,
    prompt: Tokens,
    written_5m: u64,
    written_1h: u64,
    pause: Duration,
}

impl Composed {
    fn of(body: &Value, rules: &Rules, sequence: usize) -> Self {
        let messages = body["messages"].as_array().expect("it was checked");
        let said = words::last_user_text(messages);
        let mut composed = Self {
            blocks: Vec::new(),
            stop_reason: "end_turn",
            stop_sequence: Value::Null,
            stop_details: Value::Null,
            prompt: Tokens::default(),
            written_5m: 0,
            written_1h: 0,
            pause: Duration::from_millis(words::order(&said, "pause_ms:").unwrap_or(0)),
        };
        composed.count_prompt(body, messages);
        if said.contains("refuse") {
            composed.stop_reason = "refusal";
            composed.stop_details =
                json!({ "type": "refusal", "category": "bio", "explanation": "This is not for me to say." });
            return composed;
        }
        composed.think(body, rules, &said);
        let after_results = messages
            .iter()
            .rfind(|message| message["role"] == "user")
            .is_some_and(|message| message["content"][0]["type"] == "tool_result");
        let tools = body["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
        let choice = &body["tool_choice"];
        let forced = choice["type"] == "any" || choice["type"] == "tool";
        if tools.is_empty() || choice["type"] == "none" || (after_results && !forced) {
            let format = &body["output_config"]["format"];
            let text = if format.is_null() {
                words::reply(&said, 0)
            } else {
                words::spaced(&schema::sample(&format["schema"], 0))
            };
            composed.say(body, &text);
        } else {
            let first = tools
                .iter()
                .position(|tool| tool["name"] == choice["name"])
                .unwrap_or(0);
            composed.say(body, "Let me see.");
            composed.call(&tools[first], sequence, 0);
            if said.contains("parallel") && choice["disable_parallel_tool_use"] != true {
                let second = if first + 1 < tools.len() { first + 1 } else { first };
                composed.call(&tools[second], sequence, 1);
            }
            composed.stop_reason = "tool_use";
        }
        composed.cut_to(body["max_tokens"].as_u64().expect("it was checked"));
        composed
    }

    fn count_prompt(&mut self, body: &Value, messages: &[Value]) {
        fn text(value: &Value) -> String {
            let parts = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let inner = parts
                .iter()
                .map(|part| text(&part["content"]))
                .collect::<Vec<_>>()
                .join(" ");
            format!("{} {inner}", words::text(value))
        }
        let texts: String = messages
            .iter()
            .map(|message| text(&message["content"]))
            .collect::<Vec<_>>()
            .join(" ");
        let texts = format!("{} {texts}", words::text(&body["system"]));
        let tokens = words::count(&texts) + 3 * messages.len() as u64;
        self.prompt = words::prompt(tokens, texts.contains("cached"));
        for hour in marks(body) {
            if hour {
                self.written_1h += 20;
            } else {
                self.written_5m += 10;
            }
        }
        self.prompt.prompt += self.written_5m + self.written_1h;
    }

    fn think(&mut self, body: &Value, rules: &Rules, said: &str) {
        let thinking = &body["thinking"];
        let thinks = match thinking["type"].as_str() {
            None => rules.thinks_unasked,
            Some(kind) => kind != "disabled",
        };
        if !thinks {
            return;
        }
        let shown = thinking["display"]
            .as_str()
            .map_or(!rules.hides_thinking, |display| display == "summarized");
        let cost = Tokens {
            completion: 1,
            reasoning: 1,
            ..Tokens::default()
        };
        let words = if shown { THOUGHTS.concat() } else { String::new() };
        let signature = signature(if shown { &words } else { UNSEEN });
        let mut deltas: Vec<(Value, Tokens)> = Vec::new();
        if shown {
            deltas.extend(THOUGHTS.map(|word| (json!({ "type": "thinking_delta", "thinking": word }), cost)));
        }
        deltas.push((
            json!({ "type": "signature_delta", "signature": signature }),
            Tokens::default(),
        ));
        self.blocks.push(Block {
            start: json!({ "type": "thinking", "thinking": "", "signature": "" }),
            deltas,
            whole: json!({ "type": "thinking", "thinking": words, "signature": signature }),
        });
        if said.contains("redacted") {
            let block = json!({ "type": "redacted_thinking", "data": redacted() });
            self.blocks.push(Block {
                start: block.clone(),
                deltas: Vec::new(),
                whole: block,
            });
        }
    }

    fn say(&mut self, body: &Value, text: &str) {
        let stops = body["stop_sequences"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        let stops: Vec<&str> = stops.collect();
        let kept = words::before_stop(text, &stops);
        if kept.len() < text.len() {
            self.stop_reason = "stop_sequence";
            let rest = &text[kept.len()..];
            self.stop_sequence = json!(stops.iter().find(|stop| rest.starts_with(**stop)));
        }
        if kept.is_empty() {
            return;
        }
        let pieces = words::split(kept).into_iter();
        self.blocks.push(Block {
            start: json!({ "type": "text", "text": "" }),
            deltas: pieces
                .map(|text| (json!({ "type": "text_delta", "text": text }), word()))
                .collect(),
            whole: json!({ "type": "text", "text": kept, "citations": null }),
        });
    }

    fn call(&mut self, tool: &Value, sequence: usize, index: usize) {
        let input = schema::sample(&tool["input_schema"], index);
        let id = format!("toolu_mock{sequence:08}_{index}");
        let text = if input == json!({}) {
            String::new()
        } else {
            words::spaced(&input)
        };
        let mut deltas = vec![(
            json!({ "type": "input_json_delta", "partial_json": "" }),
            Tokens::default(),
        )];
        if !text.is_empty() {
            let pieces = words::split(&text).into_iter();
            deltas.extend(pieces.map(|text| (json!({ "type": "input_json_delta", "partial_json": text }), word())));
        }
        self.blocks.push(Block {
            start: json!({ "type": "tool_use", "id": id, "name": tool["name"], "input": {} }),
            deltas,
            whole: json!({ "type": "tool_use", "id": id, "name": tool["name"], "input": input }),
        });
    }

    /// A text that is longer than it may be ends early.
    fn cut_to(&mut self, limit: u64) {
        let mut left = limit;
        for at in 0..self.blocks.len() {
            let block = &mut self.blocks[at];
            let fitting = block.deltas.iter().take_while(|(_, cost)| {
                let fits = cost.completion <= left;
                left = left.saturating_sub(if fits { cost.completion } else { left });
                fits
            });
            let fitting = fitting.count();
            if fitting < block.deltas.len() {
                block.deltas.truncate(fitting);
                if block.whole["type"] == "text" {
                    let kept: String = block
                        .deltas
                        .iter()
                        .filter_map(|(delta, _)| delta["text"].as_str())
                        .collect();
                    block.whole["text"] = kept.into();
                }
                self.blocks.truncate(at + 1);
                self.stop_reason = "max_tokens";
                return;
            }
        }
    }

    fn completion(&self) -> Tokens {
        self.blocks
            .iter()
            .flat_map(|block| &block.deltas)
            .map(|(_, cost)| *cost)
            .sum()
    }

    fn usage(&self, completion: Tokens) -> Value {
        let written = self.written_5m + self.written_1h;
        json!({
            "input_tokens": self.prompt.prompt - self.prompt.cached - written,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": self.prompt.cached,
            "cache_creation": {
                "ephemeral_5m_input_tokens": self.written_5m,
                "ephemeral_1h_input_tokens": self.written_1h,
            },
            "output_tokens": completion.completion,
            "output_tokens_details": { "thinking_tokens": completion.reasoning },
            "service_tier": "standard",
        })
    }

    fn answer(&self, body: &Value, model: &str, sequence: usize) -> Answer {
        let id = format!("msg_mock{sequence:08}");
        let total = self.completion();
        let mut message = json!({
            "id": id, "type": "message", "role": "assistant", "model": model, "content": [], "stop_reason": null,
            "stop_sequence": null, "stop_details": null, "container": null, "usage": self.usage(word()),
        });
        if body["stream"] != true {
            let content: Vec<Value> = self.blocks.iter().map(|block| block.whole.clone()).collect();
            message["content"] = content.into();
            message["stop_reason"] = self.stop_reason.into();
            message["stop_sequence"] = self.stop_sequence.clone();
            message["stop_details"] = self.stop_details.clone();
            message["usage"] = self.usage(total);
            return Answer::json(200, &message)
                .billing(self.prompt + total)
                .after(self.pause);
        }
        let step = |data: Value| Step::send(event(&data));
        let mut steps = vec![Step::billed(
            event(&json!({ "type": "message_start", "message": message })),
            self.prompt,
        )];
        for (index, block) in self.blocks.iter().enumerate() {
            steps.push(step(
                json!({ "type": "content_block_start", "index": index, "content_block": block.start }),
            ));
            if index == 0 {
                steps.push(step(json!({ "type": "ping" })));
            }
            steps.extend(block.deltas.iter().map(|(delta, cost)| {
                let data = json!({ "type": "content_block_delta", "index": index, "delta": delta });
                Step::billed(event(&data), *cost)
            }));
            steps.push(step(json!({ "type": "content_block_stop", "index": index })));
        }
        let delta = json!({
            "stop_reason": self.stop_reason, "stop_sequence": self.stop_sequence, "stop_details": self.stop_details,
        });
        steps.push(step(
            json!({ "type": "message_delta", "delta": delta, "usage": self.usage(total) }),
        ));
        steps.push(step(json!({ "type": "message_stop" })));
        let answer = Answer::stream(steps);
        if self.pause.is_zero() {
            answer
        } else {
            answer.paced(self.pause)
        }
    }
}

/// What a word costs.
fn word() -> Tokens {
    Tokens {
        completion: 1,
        ..Tokens::default()
    }
}
