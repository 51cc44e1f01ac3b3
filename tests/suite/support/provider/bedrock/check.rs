//! What Bedrock refuses a request for, in about its own words.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::{REDACTED, signature_of};

type Checked<T = ()> = Result<T, String>;

/// Formats of documents.
const DOCUMENTS: [&str; 9] = ["pdf", "csv", "doc", "docx", "xls", "xlsx", "html", "txt", "md"];
/// Members of Converse.
const MEMBERS: [&str; 11] = [
    "system",
    "messages",
    "inferenceConfig",
    "toolConfig",
    "outputConfig",
    "additionalModelRequestFields",
    "additionalModelResponseFieldPaths",
    "guardrailConfig",
    "performanceConfig",
    "serviceTier",
    "requestMetadata",
];

fn is_claude(model: &str) -> bool {
    model.contains("claude") || model.contains("application-inference-profile")
}

/// Claude 4.7 and later, as far as the tests ask for them.
fn is_new_claude(model: &str) -> bool {
    model.contains("-5-5") || model.contains("opus-4-7")
}

fn object<'v>(value: &'v Value, place: &str) -> Checked<&'v Map<String, Value>> {
    value.as_object().ok_or_else(|| format!("{place} must be an object"))
}

fn only(value: &Value, members: &[&str], place: &str) -> Checked {
    for name in object(value, place)?.keys() {
        if !members.contains(&name.as_str()) {
            return Err(format!(
                "Malformed input request: #{place}: extraneous key [{name}] is not permitted"
            ));
        }
    }
    Ok(())
}

fn text<'v>(value: &'v Value, place: &str) -> Checked<&'v str> {
    let text = value.as_str().ok_or_else(|| format!("{place} must be a string"))?;
    if text.trim().is_empty() {
        return Err(format!(
            "The text field in the ContentBlock object at {place} is blank."
        ));
    }
    Ok(text)
}

fn one_of(value: &Value, allowed: &[&str], place: &str) -> Checked {
    let known = value.as_str().is_some_and(|value| allowed.contains(&value));
    known
        .then_some(())
        .ok_or_else(|| format!("{value} at {place} failed to satisfy enum value set {allowed:?}"))
}

fn name(value: &Value, extra: &str, place: &str) -> Checked<String> {
    let name = value.as_str().unwrap_or_default();
    let good = |c: char| c.is_ascii_alphanumeric() || extra.contains(c);
    if (1..=64).contains(&name.len()) && name.chars().all(good) {
        return Ok(name.to_owned());
    }
    Err(format!(
        "{name:?} at {place} failed to satisfy regular expression pattern"
    ))
}

pub(super) fn converse(model: &str, body: &Value, streamed: bool) -> Checked {
    only(body, &MEMBERS, "")?;
    for (name, value) in object(body, "")? {
        if value.is_null() || value.as_array().is_some_and(Vec::is_empty) {
            return Err(format!("{name} must not be empty"));
        }
    }
    tools(model, body, streamed)?;
    cache_points(body)?;
    let mut state = Seen::default();
    if let Some(system) = body.get("system") {
        for (at, block) in system.as_array().ok_or("system must be a list")?.iter().enumerate() {
            let place = format!("system.{at}");
            match kind(block, &place)? {
                ("text", value) => drop(text(value, &place)?),
                ("cachePoint", value) => state.cache_point(model, value, at == 0, &place)?,
                (other, _) => return Err(format!("{place} must not hold {other}")),
            }
        }
    }
    messages(model, body, &mut state)?;
    inference(model, body)?;
    thinking(model, body)?;
    rest(body)
}

/// A prompt to be counted, for a model that counts and by its own id.
pub(super) fn count(model: &str, body: &Value) -> Checked {
    if !model.starts_with("anthropic.") {
        return Err("The provided model doesn't support counting tokens.".into());
    }
    only(body, &["input"], "")?;
    only(&body["input"], &["converse"], "/input")?;
    let members = ["messages", "system", "toolConfig", "additionalModelRequestFields"];
    only(&body["input"]["converse"], &members, "/input/converse")?;
    converse(model, &body["input"]["converse"], false)
}

/// Four points of caches at most, and none for an hour behind one for minutes, in the order in which prompts are cached.
fn cache_points(body: &Value) -> Checked {
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let messages = list(&body["messages"])
        .into_iter()
        .flat_map(|message| list(&message["content"]));
    let blocks = list(&body["toolConfig"]["tools"])
        .into_iter()
        .chain(list(&body["system"]))
        .chain(messages);
    let points: Vec<Value> = blocks.filter_map(|block| block.get("cachePoint").cloned()).collect();
    if points.len() > 4 {
        return Err("The number of cache points exceeds the limit of 4.".into());
    }
    let is_hour = |point: &Value| point["ttl"] == "1h";
    let first_of_minutes = points.iter().position(|point| !is_hour(point)).unwrap_or(points.len());
    if points[first_of_minutes..].iter().any(is_hour) {
        return Err("A cache point with a ttl of 1h must not come after one with a ttl of 5m.".into());
    }
    Ok(())
}

/// The one member of a union.
fn kind<'v>(block: &'v Value, place: &str) -> Checked<(&'v str, &'v Value)> {
    let fields = object(block, place)?;
    let mut members = fields.iter();
    match (members.next(), members.next()) {
        (Some((name, value)), None) => Ok((name, value)),
        _ => Err(format!("{place}: exactly one member of the union must be set")),
    }
}

#[derive(Default)]
struct Seen {
    cache_points: usize,
    images: usize,
    documents: HashSet<String>,
    calls: HashSet<String>,
}

impl Seen {
    fn cache_point(&mut self, model: &str, point: &Value, first: bool, place: &str) -> Checked {
        only(point, &["type", "ttl"], place)?;
        one_of(&point["type"], &["default"], place)?;
        if let Some(ttl) = point.get("ttl") {
            one_of(ttl, &["5m", "1h"], place)?;
        }
        if !is_claude(model) && !model.contains("nova") {
            return Err("You invoked an unsupported model or your request did not allow prompt caching.".into());
        }
        self.cache_points += 1;
        if first || self.cache_points > 4 {
            return Err(format!(
                "{place}: too many cache points, or one with nothing in front of it"
            ));
        }
        Ok(())
    }

    /// A block that may stand in a user's message and in a tool's result.
    fn media(&mut self, kind: &str, value: &Value, place: &str) -> Checked {
        let bytes = |value: &Value| {
            let (source, bytes) = self::kind(&value["source"], place)?;
            let decoded = bytes.as_str().and_then(|bytes| STANDARD.decode(bytes).ok());
            match decoded.filter(|bytes| source == "bytes" && !bytes.is_empty()) {
                Some(bytes) => Ok(bytes),
                None => Err(format!("{place}: source must be bytes in base64")),
            }
        };
        match kind {
            "image" => {
                only(value, &["format", "source"], place)?;
                one_of(&value["format"], &["png", "jpeg", "gif", "webp"], place)?;
                let bytes = bytes(value)?;
                let right = match value["format"].as_str() {
                    Some("png") => bytes.starts_with(b"\x89PNG"),
                    Some("jpeg") => bytes.starts_with(b"\xff\xd8\xff"),
                    Some("gif") => bytes.starts_with(b"GIF8"),
                    _ => bytes.starts_with(b"RIFF"),
                };
                self.images += 1;
                if !right || self.images > 20 {
                    return Err("The provided image does not match the specified image format.".into());
                }
            }
            _ => {
                only(value, &["format", "name", "source"], place)?;
                one_of(&value["format"], &DOCUMENTS, place)?;
                bytes(value)?;
                let name = value["name"].as_str().unwrap_or_default();
                let good = |c: char| c.is_ascii_alphanumeric() || " -()[]".contains(c);
                if name.is_empty() || name.len() > 200 || !name.chars().all(good) || name.contains("  ") {
                    return Err("The provided document name is invalid.".into());
                }
                if !self.documents.insert(name.to_owned()) || self.documents.len() > 5 {
                    return Err("Documents must have names of their own, and there may be five.".into());
                }
            }
        }
        Ok(())
    }
}

fn messages(model: &str, body: &Value, state: &mut Seen) -> Checked {
    let messages = body["messages"].as_array().ok_or("messages is required")?;
    let mut open: HashSet<String> = HashSet::new();
    let mut last_role = "assistant";
    for (at, message) in messages.iter().enumerate() {
        let place = format!("messages.{at}");
        only(message, &["role", "content"], &place)?;
        one_of(&message["role"], &["user", "assistant"], &place)?;
        let role = message["role"].as_str().unwrap_or_default();
        if role == last_role {
            return Err(
                "A conversation must alternate between user and assistant roles, and start with a user.".into(),
            );
        }
        last_role = if role == "user" { "user" } else { "assistant" };
        let content = message["content"].as_array().filter(|content| !content.is_empty());
        let content = content.ok_or_else(|| format!("The content field in the Message object at {place} is empty."))?;
        let mut answered: HashSet<String> = HashSet::new();
        let mut order = 0;
        for (index, block) in content.iter().enumerate() {
            let place = format!("{place}.content.{index}");
            let (kind, value) = kind(block, &place)?;
            let rank = match kind {
                "reasoningContent" => 0,
                "toolUse" => 2,
                "cachePoint" => order,
                _ => 1,
            };
            if role == "assistant" && rank < order {
                return Err(format!("{place}: thoughts come before text, and text before calls"));
            }
            order = rank;
            match (role, kind) {
                (_, "text") => drop(text(value, &place)?),
                (_, "cachePoint") => state.cache_point(model, value, index == 0, &place)?,
                ("user", "image" | "document") => state.media(kind, value, &place)?,
                ("assistant", "toolUse") => {
                    only(value, &["toolUseId", "name", "input"], &place)?;
                    let id = name(&value["toolUseId"], "_.:-", &place)?;
                    name(&value["name"], "_-", &place)?;
                    object(&value["input"], &place)?;
                    if !state.calls.insert(id.clone()) && open.contains(&id) {
                        return Err(format!("{place}: ids of calls must be unique"));
                    }
                    open.insert(id);
                }
                ("user", "toolResult") => {
                    only(value, &["toolUseId", "content", "status"], &place)?;
                    let id = name(&value["toolUseId"], "_.:-", &place)?;
                    if !open.contains(&id) || !answered.insert(id) {
                        return Err(format!(
                            "The number of toolResult blocks at {place} exceeds the number of toolUse blocks of previous turn."
                        ));
                    }
                    if let Some(status) = value.get("status") {
                        one_of(status, &["success", "error"], &place)?;
                    }
                    let parts = value["content"]
                        .as_array()
                        .ok_or_else(|| format!("{place}: content is required"))?;
                    for part in parts {
                        match self::kind(part, &place)? {
                            ("text", value) => drop(text(value, &place)?),
                            (kind @ ("image" | "document"), value) => state.media(kind, value, &place)?,
                            ("json", _) => {}
                            (other, _) => return Err(format!("{place} must not hold {other}")),
                        }
                    }
                }
                ("assistant", "reasoningContent") => reasoning(model, value, &place)?,
                (role, other) => return Err(format!("{place}: {other} has no place in a message of the {role}")),
            }
        }
        let has = |name: &str| content.iter().any(|block| block.get(name).is_some());
        if has("document") && !has("text") {
            return Err("The model returned the following errors: a text block must stand beside a document".into());
        }
        if role == "user" {
            if answered.len() != open.len() {
                return Err(format!(
                    "Expected toolResult blocks at {place}.content for the following Ids: {open:?}, but found: {answered:?}"
                ));
            }
            open.clear();
        }
    }
    if last_role == "assistant" {
        let continues = model.contains("claude-sonnet-4-5") || model.contains("nova-lite");
        let last = messages
            .last()
            .and_then(|message| message["content"].as_array()?.last()?["text"].as_str());
        if !continues || last.is_none_or(|text| text.ends_with(char::is_whitespace)) {
            return Err("This model does not support assistant message prefill.".into());
        }
    }
    Ok(())
}

/// Thoughts must be the model's own, byte for byte.
fn reasoning(model: &str, value: &Value, place: &str) -> Checked {
    match kind(value, place)? {
        ("reasoningText", words) => {
            only(words, &["text", "signature"], place)?;
            let right = signature_of(words["text"].as_str().unwrap_or_default());
            if !is_claude(model) || words["signature"] != right.as_str() {
                return Err(format!("{place}: Invalid `signature` in `thinking` block"));
            }
        }
        ("redactedContent", data) if data == REDACTED => {}
        _ => return Err(format!("{place}: Invalid `data` in `redacted_thinking` block")),
    }
    Ok(())
}

fn tools(model: &str, body: &Value, streamed: bool) -> Checked {
    let Some(config) = body.get("toolConfig") else {
        let history = body["messages"].to_string();
        if history.contains("\"toolUse\"") || history.contains("\"toolResult\"") {
            return Err(
                "The toolConfig field must be defined when using toolUse and toolResult content blocks.".into(),
            );
        }
        return Ok(());
    };
    only(config, &["tools", "toolChoice"], "toolConfig")?;
    if model.contains("llama") && streamed {
        return Err("This model doesn't support tool use in streaming mode.".into());
    }
    let tools = config["tools"]
        .as_array()
        .filter(|tools| !tools.is_empty())
        .ok_or("toolConfig.tools must not be empty")?;
    let mut names = HashSet::new();
    for (at, tool) in tools.iter().enumerate() {
        let place = format!("toolConfig.tools.{at}");
        match kind(tool, &place)? {
            ("toolSpec", spec) => {
                only(spec, &["name", "description", "inputSchema", "strict"], &place)?;
                let name = name(&spec["name"], "_-", &place)?;
                if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !names.insert(name) {
                    return Err(format!("{place}: a tool's name begins with a letter, and is its own"));
                }
                if spec
                    .get("description")
                    .is_some_and(|text| text.as_str().is_none_or(str::is_empty))
                {
                    return Err(format!("{place}: the description must not be empty"));
                }
                if spec["inputSchema"]["json"]["type"] != "object" {
                    return Err(format!("{place}.inputSchema.json.type must be object"));
                }
                if spec.get("strict").is_some() {
                    closed(&spec["inputSchema"]["json"])?;
                }
            }
            ("cachePoint", _) if at > 0 => {}
            (other, _) => return Err(format!("{place} must not hold {other}")),
        }
    }
    if let Some(choice) = config.get("toolChoice") {
        let (kind, value) = kind(choice, "toolChoice")?;
        let forced = match kind {
            "auto" => false,
            "any" => true,
            "tool" => {
                if !value["name"].as_str().is_some_and(|name| names.contains(name)) {
                    return Err("toolChoice names a tool that does not exist".into());
                }
                true
            }
            other => return Err(format!("toolChoice must not hold {other}")),
        };
        if forced && (is_new_claude(model) || model.contains("llama")) {
            return Err("This model doesn't support the toolConfig.toolChoice field. Remove it and try again.".into());
        }
        if forced && body["additionalModelRequestFields"]["thinking"]["type"] == "enabled" {
            return Err("Thinking may not be enabled when tool_choice forces tool use.".into());
        }
    }
    Ok(())
}

/// Every object of a schema must be closed, and bounds are not taken.
fn closed(schema: &Value) -> Checked {
    match schema {
        Value::Object(fields) => {
            if fields.get("type") == Some(&Value::from("object"))
                && fields.get("additionalProperties") != Some(&Value::from(false))
            {
                return Err("For 'object' type, 'additionalProperties' must be explicitly set to false".into());
            }
            for name in ["minimum", "maximum", "minLength", "maxLength", "maxItems", "oneOf"] {
                if fields.get(name).is_some_and(|value| !value.is_object()) {
                    return Err(format!("property '{name}' is not supported"));
                }
            }
            fields.values().try_for_each(closed)
        }
        Value::Array(values) => values.iter().try_for_each(closed),
        _ => Ok(()),
    }
}

fn inference(model: &str, body: &Value) -> Checked {
    let Some(config) = body.get("inferenceConfig") else {
        return Ok(());
    };
    only(
        config,
        &["maxTokens", "temperature", "topP", "stopSequences"],
        "/inferenceConfig",
    )?;
    if config
        .get("maxTokens")
        .is_some_and(|most| most.as_u64().is_none_or(|most| most == 0))
    {
        return Err("inferenceConfig.maxTokens must be at least 1".into());
    }
    for name in ["temperature", "topP"] {
        let Some(value) = config.get(name) else { continue };
        if value.as_f64().is_none_or(|value| !(0.0..=1.0).contains(&value)) {
            return Err(format!("inferenceConfig.{name} must be between 0 and 1"));
        }
        if is_new_claude(model) {
            return Err(format!("`{name}` is deprecated for this model."));
        }
    }
    if is_claude(model) && config.get("temperature").is_some() && config.get("topP").is_some() {
        return Err("`temperature` and `top_p` cannot both be specified for this model.".into());
    }
    let stops = config["stopSequences"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if stops
        .iter()
        .any(|stop| stop.as_str().is_none_or(|stop| stop.trim().is_empty()))
    {
        return Err("stop_sequences: each stop sequence must contain non-whitespace".into());
    }
    Ok(())
}

fn thinking(model: &str, body: &Value) -> Checked {
    let Some(fields) = body.get("additionalModelRequestFields") else {
        return Ok(());
    };
    let known: &[&str] = if is_claude(model) {
        &["thinking", "top_k", "anthropic_beta", "tool_choice"]
    } else if model.contains("nova-2") {
        &["reasoningConfig", "inferenceConfig"]
    } else if model.contains("nova") {
        &["inferenceConfig"]
    } else {
        &["reasoning_effort"]
    };
    only(fields, known, "/additionalModelRequestFields")?;
    let thinking = &fields["thinking"];
    match thinking["type"].as_str() {
        None | Some("disabled") => return Ok(()),
        Some("enabled") if is_new_claude(model) => {
            return Err("\"thinking.type.enabled\" is not supported for this model.".into());
        }
        Some("enabled") => {}
        Some("adaptive") if is_new_claude(model) => return Ok(()),
        Some(other) => return Err(format!("thinking.type: {other} is not supported on this model")),
    }
    let budget = thinking["budget_tokens"].as_u64().unwrap_or_default();
    let most = body["inferenceConfig"]["maxTokens"].as_u64().unwrap_or(64_000);
    if budget < 1024 || budget >= most {
        return Err("`max_tokens` must be greater than `thinking.budget_tokens`, which is at least 1024".into());
    }
    if body["inferenceConfig"]["temperature"]
        .as_f64()
        .is_some_and(|temperature| temperature != 1.0)
    {
        return Err("`temperature` may only be set to 1 when thinking is enabled.".into());
    }
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let has = |message: &Value, name: &str| {
        message["content"]
            .as_array()
            .is_some_and(|blocks| blocks.iter().any(|block| block.get(name).is_some()))
    };
    if let [.., asked, answered] = messages
        && has(answered, "toolResult")
        && !has(asked, "reasoningContent")
    {
        return Err("Expected `thinking` or `redacted_thinking`, but found `tool_use`.".into());
    }
    Ok(())
}

fn rest(body: &Value) -> Checked {
    if let Some(output) = body.get("outputConfig") {
        only(output, &["textFormat", "effort"], "/outputConfig")?;
        if let Some(effort) = output.get("effort") {
            one_of(
                effort,
                &["low", "medium", "high", "xhigh", "max"],
                "outputConfig.effort",
            )?;
        }
        if let Some(format) = output.get("textFormat") {
            one_of(&format["type"], &["json_schema"], "outputConfig.textFormat.type")?;
            let schema = format["structure"]["jsonSchema"]["schema"].as_str().unwrap_or_default();
            let schema: Value = serde_json::from_str(schema).map_err(|_| "the schema is not JSON".to_owned())?;
            closed(&schema)?;
        }
    }
    if let Some(tier) = body.get("serviceTier") {
        one_of(
            &tier["type"],
            &["priority", "default", "flex", "reserved"],
            "serviceTier.type",
        )?;
    }
    if let Some(paths) = body.get("additionalModelResponseFieldPaths") {
        let paths = paths.as_array().ok_or("paths must be a list")?;
        if paths.len() > 10
            || paths
                .iter()
                .any(|path| !path.as_str().is_some_and(|path| path.starts_with('/')))
        {
            return Err("additionalModelResponseFieldPaths must be JSON pointers".into());
        }
    }
    if let Some(guardrail) = body.get("guardrailConfig") {
        only(
            guardrail,
            &[
                "guardrailIdentifier",
                "guardrailVersion",
                "trace",
                "streamProcessingMode",
            ],
            "/guardrailConfig",
        )?;
    }
    if let Some(metadata) = body.get("requestMetadata") {
        let pairs = object(metadata, "requestMetadata")?;
        let good = |text: &str| {
            text.len() <= 256
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || " :_@$#=/+,-.".contains(c))
        };
        if pairs.len() > 16
            || !pairs
                .iter()
                .all(|(name, value)| good(name) && value.as_str().is_some_and(good))
        {
            return Err("requestMetadata failed to satisfy constraint".into());
        }
    }
    Ok(())
}

pub(super) fn embedding(model: &str, body: &Value) -> Checked {
    if model.contains("titan-embed") {
        only(body, &["inputText", "dimensions", "normalize", "embeddingTypes"], "")?;
        text(&body["inputText"], "inputText")?;
        if body
            .get("dimensions")
            .is_some_and(|wanted| ![256, 512, 1024].contains(&wanted.as_u64().unwrap_or(0)))
        {
            return Err("Malformed input request: dimensions must be 256, 512 or 1024".into());
        }
        return Ok(());
    }
    if !model.contains("cohere.embed") {
        return Err("The provided model does not embed.".into());
    }
    only(
        body,
        &["texts", "input_type", "truncate", "embedding_types", "output_dimension"],
        "",
    )?;
    let kinds = ["search_document", "search_query", "classification", "clustering"];
    one_of(&body["input_type"], &kinds, "input_type")?;
    let texts = body["texts"].as_array().ok_or("texts is required")?;
    if texts.is_empty() || texts.len() > 96 {
        return Err(format!(
            "Malformed input request: expected maximum item count: 96, found: {}",
            texts.len()
        ));
    }
    texts.iter().try_for_each(|each| text(each, "texts").map(|_| ()))
}
