//! A conversation in Google's words.
//!
//! # Source
//! "GenerateContentRequest" and "GenerationConfig", <https://ai.google.dev/api/generate-content>; "Thinking", "Thought
//! signatures" and "Function calling" of both hosts' guides.

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{Host, schema};
use crate::chat::conversation::{
    Conversation, Effort, Format, Issuer, Media, MediaKind, MediaSource, Part, Reasoning, Role, Signature, Text,
    Thinking, ThinkingMode, ToolCall, ToolChoice, ToolResult,
};
use crate::chat::param::{Dropped, Param, Taken};
use crate::chat::request::DialectHeaders;
use crate::chat::{arguments, history, ids};
use crate::domain::error::{InvalidKind, InvalidRequest};
use crate::domain::model::{GeminiGeneration, GeminiThinking, GeminiTraits, ThinkingBudget};
use crate::providers::adapter::{Target, Unencodable, Wanted};
use crate::providers::cuts::Members;

/// The most texts that end an answer.
const MAX_STOPS: usize = 5;
/// The most candidates of one call.
const MAX_CANDIDATES: u32 = 8;
/// The longest name of a function that every model takes.
const MAX_NAME_BYTES: usize = 64;
/// The longest key and value of a label, and the most labels.
const MAX_LABEL_CHARS: usize = 63;
const MAX_LABELS: usize = 64;
/// The largest penalty: 2 itself is refused.
const MAX_PENALTY: f64 = 1.99;
/// In the place of a signature that another model's call does not have: documented to turn off the check for that part.
/// It is base64 of `skip_thought_signature_validator`.
const NO_SIGNATURE: &str = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I=";
/// What is said after the model's own words: it does not go on from them by itself.
const GO_ON: &str = "Continue.";

/// A request for `generateContent`.
pub struct Encoded {
    pub body: Vec<u8>,
    /// What of the conversation it does not hold.
    pub dropped: Dropped,
}

/// The candidates that one call for a conversation answers with. Several cannot be streamed.
pub fn candidates(conversation: &Conversation, target: &Target<'_>) -> u32 {
    let wanted = conversation.sampling.choices.unwrap_or(1).max(1);
    if target.traits.gemini.several_candidates {
        wanted.min(MAX_CANDIDATES)
    } else {
        1
    }
}

/// The body of a request.
///
/// # Errors
/// A message holds something that Gemini cannot read, or that has to be fetched first.
pub fn body(
    host: &Host,
    conversation: &Conversation,
    headers: &DialectHeaders,
    target: &Target<'_>,
) -> Result<Encoded, Unencodable> {
    let mut writer = Writer {
        host,
        target,
        traits: &target.traits.gemini,
        taken: Taken::default(),
        notes: Dropped::default(),
        wanted: Vec::new(),
        fields: Map::new(),
        config: Map::new(),
    };
    let (system_turns, turns) = history::without_system_turns(&conversation.turns);
    let mut system: Vec<Value> = conversation
        .system
        .iter()
        .chain(system_turns)
        .filter(|text| !text.is_blank())
        .map(|text| json!({"text": text.text}))
        .collect();
    let contents = writer.contents(&turns)?;
    if !writer.wanted.is_empty() {
        return Err(Unencodable::NeedsMedia(writer.wanted));
    }
    writer.tools(conversation)?;
    system.extend(writer.format(conversation)?);
    if !system.is_empty() {
        writer
            .fields
            .insert("systemInstruction".to_owned(), json!({"parts": system}));
    }
    writer.limits(conversation);
    writer.sampling(conversation);
    writer.reasoning(conversation);
    writer.details(conversation);
    writer.rest(conversation);
    let Writer {
        mut fields,
        config,
        taken,
        notes,
        ..
    } = writer;
    if !config.is_empty() {
        fields.insert("generationConfig".to_owned(), config.into());
    }
    let mut dropped = conversation.given.without(&taken).and(&notes);
    headers.drop_betas(&mut dropped, |_| false);
    let body = Body {
        fields: &fields,
        contents: &contents,
    };
    Ok(Encoded {
        body: serde_json::to_vec(&body).expect("values always serialise"),
        dropped,
    })
}

/// The fields of a request that Vertex AI counts.
const COUNTED: [&str; 4] = ["contents", "systemInstruction", "tools", "generationConfig"];

/// The question for the number of tokens of a request's body: the Developer API takes the body as a whole, and wants to see
/// the model's resource in it, and Vertex AI takes the fields that count. Both leave arguments as they are written.
pub fn counting(host: &Host, model: &str, body: &[u8]) -> Option<Vec<u8>> {
    let Members(members) = serde_json::from_slice(body).ok()?;
    let counts = |name: &str| !host.is_vertex() || COUNTED.contains(&name);
    let fields: Vec<String> = members
        .iter()
        .filter(|(name, _)| counts(name))
        .map(|(name, value)| format!("\"{name}\":{}", value.get()))
        .collect();
    let fields = fields.join(",");
    Some(match host {
        Host::Vertex { .. } => format!("{{{fields}}}").into_bytes(),
        Host::Developer { .. } => {
            format!("{{\"generateContentRequest\":{{\"model\":\"{model}\",{fields}}}}}").into_bytes()
        }
    })
}

/// A body, whose contents are kept apart because they hold arguments that are no values.
#[derive(Serialize)]
struct Body<'b> {
    #[serde(flatten)]
    fields: &'b Map<String, Value>,
    contents: &'b [Content<'b>],
}

/// What one side says.
#[derive(Serialize)]
struct Content<'c> {
    role: &'static str,
    parts: Vec<Piece<'c>>,
}

/// A piece of what is said.
#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum Piece<'c> {
    Plain(Value),
    Call {
        function_call: FunctionCall<'c>,
        #[serde(skip_serializing_if = "Option::is_none")]
        thought_signature: Option<&'c str>,
    },
    Result {
        function_response: FunctionResponse<'c>,
    },
}

/// A call of a function.
#[derive(Serialize)]
struct FunctionCall<'c> {
    name: String,
    args: &'c RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'c str>,
}

/// The result of one.
#[derive(Serialize)]
struct FunctionResponse<'c> {
    name: String,
    response: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'c str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parts: Vec<Value>,
}

struct Writer<'t> {
    host: &'t Host,
    target: &'t Target<'t>,
    traits: &'t GeminiTraits,
    taken: Taken,
    notes: Dropped,
    wanted: Vec<Wanted>,
    fields: Map<String, Value>,
    config: Map<String, Value>,
}

impl Writer<'_> {
    fn configure(&mut self, name: &str, value: impl Into<Value>, param: Param) {
        self.config.insert(name.to_owned(), value.into());
        self.taken.take(param);
    }

    /// The turns, in the two roles there are.
    fn contents<'c>(&mut self, turns: &[(Role, Vec<&'c Part>)]) -> Result<Vec<Content<'c>>, InvalidRequest> {
        // Everything behind the user's last words is one turn in Google's sense, and in it calls must be signed. Words
        // beside results are not counted as words: a signature too many does no harm.
        let is_result = |part: &&Part| matches!(part, Part::Result(_));
        let is_spoken = |(role, parts): &(Role, Vec<&Part>)| *role == Role::User && !parts.iter().any(is_result);
        let current = turns.iter().rposition(is_spoken).unwrap_or(0);
        let mut contents: Vec<Content<'c>> = Vec::with_capacity(turns.len());
        for (at, (role, parts)) in turns.iter().enumerate() {
            let (role, parts) = match role {
                Role::Assistant => ("model", self.model(parts, at > current)?),
                Role::User | Role::System => ("user", self.user(parts)?),
            };
            match contents.last_mut() {
                // A turn of nothing but another model's thoughts leaves nothing, and its neighbours meet.
                _ if parts.is_empty() => {}
                Some(last) if last.role == role => last.parts.extend(parts),
                _ => contents.push(Content { role, parts }),
            }
        }
        // Newer models refuse to have words put into their mouth.
        if self.traits.generation >= GeminiGeneration::V3 && contents.last().is_some_and(|last| last.role == "model") {
            contents.push(Content {
                role: "user",
                parts: vec![Piece::Plain(json!({"text": GO_ON}))],
            });
        }
        Ok(contents)
    }

    /// A turn of the model's.
    fn model<'c>(&mut self, parts: &[&'c Part], is_current: bool) -> Result<Vec<Piece<'c>>, InvalidRequest> {
        let mut written = Vec::with_capacity(parts.len());
        let mut unsigned_call_is_first = self.traits.needs_thought_signatures && is_current;
        for part in parts {
            match part {
                Part::Text(text) => {
                    let signature = own(text.signature.as_ref());
                    if !text.text.is_empty() || signature.is_some() {
                        written.push(Piece::Plain(signed(json!({"text": text.text}), signature)));
                    }
                }
                // Thoughts in words go back only where they are signed; others, and those of other models, need not.
                Part::Thinking(Thinking::Words { text, signature }) => {
                    if let Some(signature) = own(signature.as_ref()) {
                        let thought = signed(json!({"text": text, "thought": true}), Some(signature));
                        written.push(Piece::Plain(thought));
                    }
                }
                Part::Thinking(Thinking::Redacted { .. }) | Part::Result(_) => {}
                Part::Media(media) => written.extend(self.media(media)?.map(Piece::Plain)),
                Part::Call(call) => {
                    let mut signature = own(call.signature.as_ref());
                    // Only the first of several is signed by the model.
                    if std::mem::take(&mut unsigned_call_is_first) && signature.is_none() {
                        signature = Some(NO_SIGNATURE);
                    }
                    written.push(Piece::Call {
                        function_call: self.call(call),
                        thought_signature: signature,
                    });
                }
            }
        }
        Ok(written)
    }

    fn call<'c>(&self, call: &'c ToolCall) -> FunctionCall<'c> {
        FunctionCall {
            name: function_name(&call.name),
            args: call.embedded_arguments(),
            id: self.traits.function_call_ids.then_some(&call.id),
        }
    }

    /// A turn of the user's: first the results of functions, then what is said.
    fn user<'c>(&mut self, parts: &[&'c Part]) -> Result<Vec<Piece<'c>>, InvalidRequest> {
        let mut results = Vec::new();
        let mut said = Vec::new();
        for part in parts {
            match part {
                Part::Result(result) => results.push(self.result(result, &mut said)?),
                Part::Text(text) if text.is_blank() => {}
                Part::Text(text) => said.push(json!({"text": text.text})),
                Part::Media(media) => said.extend(self.media(media)?),
                Part::Call(_) | Part::Thinking(_) => {}
            }
        }
        results.extend(said.into_iter().map(Piece::Plain));
        Ok(results)
    }

    /// The result of a function. Before Gemini 3 it holds no media, which then go into what the user says.
    fn result<'c>(&mut self, result: &'c ToolResult, said: &mut Vec<Value>) -> Result<Piece<'c>, InvalidRequest> {
        let name = result.name.as_deref().unwrap_or("function");
        let mut texts: Vec<&str> = Vec::new();
        let mut media = Vec::new();
        for part in &result.content {
            match part {
                Part::Text(Text { text, .. }) => texts.push(text),
                Part::Media(medium) => media.extend(self.media(medium)?),
                Part::Call(_) | Part::Result(_) | Part::Thinking(_) => {}
            }
        }
        let text = texts.join("\n");
        let response = match serde_json::from_str::<Value>(&text) {
            _ if result.is_error => json!({"error": text}).to_string(),
            // An object is the response itself, as the tool wrote it.
            Ok(Value::Object(_)) => text,
            _ => json!({"output": text}).to_string(),
        };
        let takes_media = self.traits.generation >= GeminiGeneration::V3;
        if !takes_media && !media.is_empty() {
            said.push(json!({"text": format!("From {name}:")}));
            said.append(&mut media);
        }
        Ok(Piece::Result {
            function_response: FunctionResponse {
                name: function_name(name),
                response: arguments::embedded_whole(response),
                id: self.traits.function_call_ids.then_some(&result.id),
                parts: media,
            },
        })
    }

    /// A medium; `None` where it has to be fetched first.
    fn media(&mut self, media: &Media) -> Result<Option<Value>, InvalidRequest> {
        let refused = |problem: &str| InvalidRequest {
            field: Some(media.place.to_string()),
            problem: problem.to_owned(),
            kind: InvalidKind::Value,
        };
        let (media_type, data) = match &media.source {
            MediaSource::Text(text) => return Ok(Some(json!({"text": text}))),
            MediaSource::FileId(id) => {
                return match self.host {
                    Host::Developer { .. } if id.starts_with("files/") => {
                        let uri = format!("https://generativelanguage.googleapis.com/v1beta/{id}");
                        Ok(Some(json!({"fileData": {"fileUri": uri}})))
                    }
                    _ => Err(refused("is a file at another provider; send its bytes (file_data)")),
                };
            }
            MediaSource::Base64 { media_type, data } => (media_type, data),
            MediaSource::Url(url) => match (
                self.file_at(url, media.kind).map_err(refused)?,
                self.target.media.get(url),
            ) {
                (Some(file), _) => return Ok(Some(file)),
                (None, Some(fetched)) => (&fetched.media_type, &fetched.data),
                (None, None) => {
                    self.wanted.push(Wanted {
                        url: url.clone(),
                        kind: media.kind,
                        place: media.place,
                    });
                    return Ok(None);
                }
            },
        };
        if media_type == "image/gif" {
            return Err(refused("is a GIF, which Gemini does not read; send PNG, JPEG or WebP"));
        }
        Ok(Some(json!({"inlineData": {"mimeType": media_type, "data": data}})))
    }

    /// The part that makes the service fetch an address itself; `None` where it does not, or where the address does not
    /// tell what it holds, which the service wants to know before.
    fn file_at(&self, url: &str, kind: MediaKind) -> Result<Option<Value>, &'static str> {
        let file = |media_type: &str| json!({"fileData": {"mimeType": media_type, "fileUri": url}});
        let host = url
            .strip_prefix("https://")
            .and_then(|rest| rest.split(['/', '?', '#']).next())
            .unwrap_or_default();
        if matches!(host, "www.youtube.com" | "youtube.com" | "youtu.be") {
            return Ok(Some(file("video/mp4")));
        }
        match self.host {
            Host::Vertex { .. } if url.starts_with("gs://") => match type_by_name(url, kind) {
                Some(media_type) => Ok(Some(file(media_type))),
                None => Err("does not say what it is; its name must end in .png, .jpg, .webp, .pdf, .mp3 or the like"),
            },
            Host::Developer { .. } if url.starts_with("gs://") => {
                Err("is in Cloud Storage, which the Gemini Developer API does not read")
            }
            Host::Vertex { .. } if url.starts_with("https://") => Ok(type_by_name(url, kind).map(file)),
            Host::Developer { .. } if host == "generativelanguage.googleapis.com" => {
                Ok(Some(json!({"fileData": {"fileUri": url}})))
            }
            Host::Vertex { .. } | Host::Developer { .. } => Ok(None),
        }
    }

    fn tools(&mut self, conversation: &Conversation) -> Result<(), InvalidRequest> {
        let mut tools = Vec::new();
        if !conversation.tools.is_empty() {
            let mut declarations = Vec::with_capacity(conversation.tools.len());
            for (index, tool) in conversation.tools.iter().enumerate() {
                let mut declaration = json!({"name": function_name(&tool.name)});
                if let Some(description) = &tool.description {
                    declaration["description"] = description.as_str().into();
                }
                if let Some(parameters) = tool
                    .parameters
                    .as_ref()
                    .filter(|schema| !schema::is_empty_object(schema))
                {
                    if self.traits.json_schema {
                        let mut parameters = schema::standard(parameters);
                        if parameters.get("type").is_none() {
                            parameters["type"] = "object".into();
                        }
                        declaration["parametersJsonSchema"] = parameters;
                    } else {
                        let field = format!("tools[{index}].function.parameters");
                        declaration["parameters"] = schema::narrow(parameters, &field)?;
                    }
                }
                declarations.push(declaration);
            }
            tools.push(json!({"functionDeclarations": declarations}));
            self.taken.take(Param::Tools);
            self.tool_config(conversation);
        }
        let has_format = conversation.format != Format::Text && self.traits.generation < GeminiGeneration::V3;
        if conversation.tools.is_empty() && !has_format {
            // Calls of functions that nobody declares are refused by some models, even in the past.
            let names = called(conversation);
            if !names.is_empty() {
                let declarations: Vec<Value> = names.into_iter().map(|name| json!({"name": name})).collect();
                tools.push(json!({"functionDeclarations": declarations}));
                let none = json!({"functionCallingConfig": {"mode": "NONE"}});
                self.fields.insert("toolConfig".to_owned(), none);
            }
        }
        let may_search = tools.is_empty() || self.traits.mixed_tools;
        if conversation.given.has(Param::WebSearchOptions) && may_search {
            tools.push(json!({"googleSearch": {}}));
            self.taken.take(Param::WebSearchOptions);
        }
        if !tools.is_empty() {
            self.fields.insert("tools".to_owned(), tools.into());
        }
        Ok(())
    }

    fn tool_config(&mut self, conversation: &Conversation) {
        let strict = conversation.tools.iter().position(|tool| tool.strict == Some(true));
        // From Gemini 3 on, calls can be held to their schemas without being forced.
        let validates = self.traits.generation >= GeminiGeneration::V3;
        if let Some(index) = strict.filter(|_| !validates) {
            self.notes.add(format!("tools[{index}].function.strict"));
        }
        let auto = if strict.is_some() && validates {
            "VALIDATED"
        } else {
            "AUTO"
        };
        let (mode, names) = match &conversation.tool_choice {
            None if auto == "AUTO" => return,
            None | Some(ToolChoice::Auto) => (auto, None),
            Some(ToolChoice::None) => ("NONE", None),
            Some(ToolChoice::Required) => ("ANY", None),
            Some(ToolChoice::Named(name)) => ("ANY", Some(vec![name])),
            // Names may only stand beside these two.
            Some(ToolChoice::Allowed { names, required }) => (
                if *required { "ANY" } else { "VALIDATED" },
                Some(names.iter().collect()),
            ),
        };
        let mut calling = json!({"mode": mode});
        if let Some(names) = names {
            calling["allowedFunctionNames"] = names.into_iter().map(|name| function_name(name)).collect();
        }
        self.fields
            .insert("toolConfig".to_owned(), json!({"functionCallingConfig": calling}));
        self.taken.take(Param::ToolChoice);
    }

    /// The form of the answer. Where it cannot be had together with functions, it is asked for in words, which come back.
    fn format(&mut self, conversation: &Conversation) -> Result<Option<Value>, InvalidRequest> {
        let schema = match &conversation.format {
            Format::Text => return Ok(None),
            Format::JsonObject => None,
            Format::JsonSchema { schema, .. } => Some(schema),
        };
        if !conversation.tools.is_empty() && self.traits.generation < GeminiGeneration::V3 {
            let mut words =
                "Unless you call a function, answer with a single JSON object and no other text.".to_owned();
            match schema {
                // A wish is less than a schema that holds, so the parameter still counts as dropped.
                Some(schema) => words.push_str(&format!(" It must follow this JSON Schema: {schema}")),
                None => self.taken.take(Param::ResponseFormat),
            }
            return Ok(Some(json!({"text": words})));
        }
        self.configure("responseMimeType", "application/json", Param::ResponseFormat);
        match schema {
            Some(schema) if self.traits.json_schema => {
                self.config
                    .insert("responseJsonSchema".to_owned(), schema::standard(schema));
            }
            Some(schema) => {
                let narrowed = schema::narrow(schema, "response_format.json_schema.schema")?;
                self.config.insert("responseSchema".to_owned(), narrowed);
            }
            None => {}
        }
        Ok(None)
    }

    fn limits(&mut self, conversation: &Conversation) {
        if let Some(wanted) = conversation.max_output_tokens {
            // A ceiling beyond the model's own is refused.
            let tokens = wanted.max(1).min(self.target.max_output_tokens.unwrap_or(u64::MAX));
            self.configure("maxOutputTokens", tokens, Param::MaxCompletionTokens);
        }
        if !conversation.stop.is_empty() {
            let stops: Vec<Value> = conversation
                .stop
                .iter()
                .take(MAX_STOPS)
                .map(|stop| stop.as_str().into())
                .collect();
            self.configure("stopSequences", stops, Param::Stop);
            if conversation.stop.len() > MAX_STOPS {
                self.notes.add(format!("stop[{MAX_STOPS}..]"));
            }
        }
    }

    fn sampling(&mut self, conversation: &Conversation) {
        let sampling = &conversation.sampling;
        if self.traits.sampling_params {
            if let Some(temperature) = sampling.temperature {
                self.configure("temperature", temperature, Param::Temperature);
            }
            if let Some(top_p) = sampling.top_p {
                self.configure("topP", top_p, Param::TopP);
            }
            if let Some(top_k) = sampling.top_k {
                self.configure("topK", top_k, Param::TopK);
            }
        }
        if self.traits.penalties {
            let penalties = [
                ("frequencyPenalty", sampling.frequency_penalty, Param::FrequencyPenalty),
                ("presencePenalty", sampling.presence_penalty, Param::PresencePenalty),
            ];
            for (name, penalty, param) in penalties {
                let Some(penalty) = penalty else { continue };
                self.configure(name, penalty.min(MAX_PENALTY), param);
                if penalty > MAX_PENALTY {
                    self.notes.add(param.as_str());
                }
            }
        }
        if let Some(seed) = sampling.seed {
            // It has 32 bits here. The same seed stays the same, whatever is cut off, and two may become one.
            self.configure("seed", seed as i32, Param::Seed);
            if i32::try_from(seed).is_err() {
                self.notes.add(Param::Seed.as_str());
            }
        }
        if self.traits.logprobs && sampling.logprobs {
            self.configure("responseLogprobs", true, Param::Logprobs);
            if let Some(alternatives) = sampling.top_logprobs {
                self.configure("logprobs", alternatives, Param::TopLogprobs);
            }
        }
        if let Some(choices) = sampling.choices.filter(|_| self.traits.several_candidates) {
            self.configure("candidateCount", candidates(conversation, self.target), Param::N);
            if choices > MAX_CANDIDATES {
                self.taken.leave(Param::N);
            }
        }
    }

    fn reasoning(&mut self, conversation: &Conversation) {
        let Some(reasoning) = &conversation.reasoning else {
            return;
        };
        let off = reasoning.mode == Some(ThinkingMode::Disabled) || reasoning.effort == Some(Effort::None);
        let mut config = match &self.traits.thinking {
            // It does as it is told by itself.
            GeminiThinking::Unsupported if off => return self.taken.take(Param::ReasoningEffort),
            GeminiThinking::Unsupported => return,
            GeminiThinking::Budget(budget) => json!({"thinkingBudget": budget_of(reasoning, off, budget)}),
            GeminiThinking::Levels(levels) => match effort_of(reasoning, off).and_then(|effort| effort.nearest(levels))
            {
                Some(level) => json!({"thinkingLevel": level.as_str().to_ascii_uppercase()}),
                None => json!({}),
            },
        };
        config["includeThoughts"] = (!off && reasoning.show != Some(false)).into();
        self.configure("thinkingConfig", config, Param::ReasoningEffort);
    }

    /// OpenAI's `detail` of pictures, which is one setting for all of them here.
    fn details(&mut self, conversation: &Conversation) {
        let media = conversation
            .turns
            .iter()
            .flat_map(|turn| &turn.parts)
            .filter_map(|part| match part {
                Part::Media(media) if media.kind == MediaKind::Image => Some(media),
                _ => None,
            });
        let images: Vec<&Media> = media.collect();
        let wanted = |image: &&Media| match image.detail.as_deref() {
            Some("low") => Some("MEDIA_RESOLUTION_LOW"),
            Some("high") => Some("MEDIA_RESOLUTION_HIGH"),
            _ => None,
        };
        let Some(first) = images.first().map(wanted) else {
            return;
        };
        if images.iter().all(|image| wanted(image) == first) {
            if let Some(resolution) = first {
                self.config.insert("mediaResolution".to_owned(), resolution.into());
            }
            return;
        }
        for image in images.iter().filter(|image| wanted(image).is_some()) {
            self.notes.add(format!("{}.image_url.detail", image.place));
        }
    }

    fn rest(&mut self, conversation: &Conversation) {
        self.modalities(conversation);
        if self.host.is_vertex() {
            self.labels(&conversation.metadata);
        }
        // Vertex AI has tiers, too, but no field for them.
        if !self.host.is_vertex()
            && let Some(tier @ ("default" | "standard" | "flex" | "priority")) = conversation.service_tier.as_deref()
        {
            let tier = if tier == "default" { "standard" } else { tier };
            self.fields.insert("serviceTier".to_owned(), tier.into());
            self.taken.take(Param::ServiceTier);
        }
    }

    /// The kinds of output that are wanted and that the model has. One that only writes does so unasked.
    fn modalities(&mut self, conversation: &Conversation) {
        if !self.traits.image_output {
            return;
        }
        let (mut wanted, mut lacking) = (Vec::new(), Vec::new());
        for (index, kind) in conversation.modalities.iter().enumerate() {
            match kind.as_str() {
                "text" => wanted.push("TEXT"),
                "image" => wanted.push("IMAGE"),
                // Sound has no place in an answer here.
                _ => lacking.push(index),
            }
        }
        if wanted.is_empty() {
            return;
        }
        wanted.dedup();
        self.configure("responseModalities", wanted, Param::Modalities);
        for index in lacking {
            self.notes.add(format!("modalities[{index}]"));
        }
    }

    /// Names and values that Vertex AI files the call under.
    fn labels(&mut self, metadata: &[(String, String)]) {
        let fits = |text: &str| {
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
            text.chars().count() <= MAX_LABEL_CHARS && text.chars().all(allowed)
        };
        let is_label = |(key, value): &(String, String)| {
            key.starts_with(|c: char| c.is_ascii_lowercase()) && fits(key) && fits(value)
        };
        let (labels, others): (Vec<_>, Vec<_>) = metadata.iter().partition(|pair| is_label(pair));
        if labels.is_empty() {
            return;
        }
        self.taken.take(Param::Metadata);
        let beyond = labels.iter().skip(MAX_LABELS);
        for (key, _) in others.iter().chain(beyond) {
            self.notes.add(format!("metadata.{key}"));
        }
        let labels = labels.into_iter().take(MAX_LABELS);
        let labels: Map<String, Value> = labels
            .map(|(key, value)| (key.clone(), value.as_str().into()))
            .collect();
        self.fields.insert("labels".to_owned(), labels.into());
    }
}

/// The names of functions that the history calls, each once.
fn called(conversation: &Conversation) -> Vec<String> {
    let mut names = Vec::new();
    for part in conversation.turns.iter().flat_map(|turn| &turn.parts) {
        if let Part::Call(call) = part {
            let name = function_name(&call.name);
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

/// A signature that Google's models can read.
fn own(signature: Option<&Signature>) -> Option<&str> {
    signature
        .filter(|signature| signature.issuer == Issuer::Google)
        .map(|signature| signature.value.as_str())
}

fn signed(mut part: Value, signature: Option<&str>) -> Value {
    if let Some(signature) = signature {
        part["thoughtSignature"] = signature.into();
    }
    part
}

/// How hard to think, where a level says it; `None` leaves it to the model.
fn effort_of(reasoning: &Reasoning, off: bool) -> Option<Effort> {
    match reasoning.budget_tokens {
        _ if off => Some(Effort::None),
        _ if reasoning.effort.is_some() => reasoning.effort,
        None => None,
        Some(..=1_024) => Some(Effort::Low),
        Some(..=8_192) => Some(Effort::Medium),
        Some(_) => Some(Effort::High),
    }
}

/// The tokens to think with, where a number says it; -1 leaves it to the model. The figures for efforts are a convention.
fn budget_of(reasoning: &Reasoning, off: bool, budget: &ThinkingBudget) -> i64 {
    let (least, most) = (i64::from(budget.min_tokens), i64::from(budget.max_tokens));
    if off {
        return if budget.can_be_off { 0 } else { least };
    }
    let wanted = match (reasoning.effort, reasoning.budget_tokens) {
        (_, Some(tokens)) => i64::try_from(tokens).unwrap_or(i64::MAX),
        (None, None) => return -1,
        (Some(Effort::None | Effort::Minimal), None) => least,
        (Some(Effort::Low), None) => 1_024,
        (Some(Effort::Medium), None) => 2_048,
        (Some(Effort::High), None) => 4_096,
        (Some(Effort::XHigh), None) => 8_192,
        (Some(Effort::Max), None) => 16_384,
    };
    wanted.clamp(least, most)
}

/// What a file is by the end of its name.
fn type_by_name(url: &str, kind: MediaKind) -> Option<&'static str> {
    let path = url.split(['?', '#']).next()?;
    let (_, ending) = path.rsplit('/').next()?.rsplit_once('.')?;
    let (media_type, of_kind) = match ending.to_ascii_lowercase().as_str() {
        "png" => ("image/png", MediaKind::Image),
        "jpg" | "jpeg" => ("image/jpeg", MediaKind::Image),
        "webp" => ("image/webp", MediaKind::Image),
        "heic" => ("image/heic", MediaKind::Image),
        "heif" => ("image/heif", MediaKind::Image),
        "pdf" => ("application/pdf", MediaKind::Document),
        "txt" => ("text/plain", MediaKind::Document),
        "mp3" => ("audio/mp3", MediaKind::Audio),
        "wav" => ("audio/wav", MediaKind::Audio),
        "mp4" => ("video/mp4", kind),
        "mov" => ("video/mov", kind),
        "webm" => ("video/webm", kind),
        _ => return None,
    };
    (of_kind == kind).then_some(media_type)
}

/// A name that Google takes: it begins with a letter or `_`, and has 64 bytes at most. Others are replaced by one made of
/// them; which stands for which is known to whoever reads the answer.
pub fn function_name(name: &str) -> String {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if begins_well && name.len() <= MAX_NAME_BYTES && name.bytes().all(allowed) {
        return name.to_owned();
    }
    let hash = ids::derived(name);
    let kept: String = name
        .chars()
        .filter(|c| u8::try_from(*c).is_ok_and(allowed))
        .take(40)
        .collect();
    format!("_{kept}_{}", &hash["call_".len()..][..16])
}
