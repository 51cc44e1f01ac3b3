//! Chat completions.
//!
//! Every choice is composed once, as a list of one-token pieces. The whole answer joins them, the stream sends each as
//! a chunk, so that both always say the same.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{
    super::{
        answer::{Answer, DONE, Step, record},
        record::Tokens,
    },
    CREATED, Call, FINGERPRINT, Refusal, schema, usage_object, words,
};

pub(super) fn answer(call: &Call<'_>) -> Result<Answer, Refusal> {
    let messages = check(call)?;
    let said = words::last_user_text(messages);
    let prompt = words::conversation(messages);
    let choices: Vec<Choice> = (0..call.choices())
        .map(|index| Choice::compose(call, messages, &said, index))
        .collect();
    let pause = Duration::from_millis(words::order(&said, "pause_ms:").unwrap_or(0));
    let answer = if call.streams() {
        stream(call, &choices, prompt)
    } else {
        whole(call, &choices, prompt)
    };
    Ok(match (call.streams(), pause.is_zero()) {
        (_, true) => answer,
        (true, false) => answer.paced(pause),
        (false, false) => answer.after(pause),
    })
}

/// Refuses what OpenAI refuses, as far as tests need it.
fn check<'a>(call: &Call<'a>) -> Result<&'a [Value], Refusal> {
    let body = call.body;
    let messages = match &body["messages"] {
        Value::Array(messages) if messages.is_empty() => {
            let message = "Invalid 'messages': empty array. Expected an array with minimum length 1.";
            return Err(Refusal::new(400, message).at("messages").coded("empty_array"));
        }
        Value::Array(messages) => messages,
        Value::Null => {
            let message = "Missing required parameter: 'messages'.";
            return Err(Refusal::new(400, message)
                .at("messages")
                .coded("missing_required_parameter"));
        }
        _ => {
            let message = "Invalid type for 'messages': expected an array of objects.";
            return Err(Refusal::new(400, message).at("messages").coded("invalid_type"));
        }
    };
    call.check_sampling()?;
    if !body["max_tokens"].is_null() && !body["max_completion_tokens"].is_null() {
        let message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.";
        return Err(Refusal::new(400, message)
            .at("max_tokens")
            .coded("invalid_parameter_combination"));
    }
    let says_json = || {
        messages
            .iter()
            .any(|message| words::text(&message["content"]).to_lowercase().contains("json"))
    };
    if body["response_format"]["type"] == "json_object" && !says_json() {
        let message =
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.";
        return Err(Refusal::new(400, message).at("messages"));
    }
    Ok(messages)
}

/// One answer among `n`.
struct Choice {
    tools: Vec<ToolCall>,
    pieces: Vec<Piece>,
    finish_reason: &'static str,
}

/// What one chunk of a stream adds. All but the start of a tool call cost a token.
enum Piece {
    Reasoning(String),
    Text(String),
    ToolStart { tool: usize },
    ToolInput { tool: usize, text: String },
}

/// The head of a call; its input is in the pieces.
struct ToolCall {
    form: ToolForm,
    id: String,
    name: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ToolForm {
    Function,
    Custom,
    /// `functions` and `function_call`, from before there were tools.
    Legacy,
}

impl Choice {
    fn compose(call: &Call<'_>, messages: &[Value], said: &str, index: usize) -> Self {
        let mut choice = Self {
            tools: Vec::new(),
            pieces: Vec::new(),
            finish_reason: "stop",
        };
        choice.pieces.extend(
            reasoning(&call.body["reasoning_effort"])
                .into_iter()
                .map(Piece::Reasoning),
        );
        let tools = ToolChoice::all(call.body, messages);
        match tools.first() {
            Some(first) => {
                let parallel = said.contains("parallel") && call.body["parallel_tool_calls"] != false;
                let count = if parallel && first.form != ToolForm::Legacy {
                    2
                } else {
                    1
                };
                // The only one is called twice.
                choice.call_tools(call, tools.iter().cycle().take(count), index);
                choice.finish_reason = match first.form {
                    ToolForm::Legacy => "function_call",
                    // OpenAI says "stop" when the function was prescribed by name.
                    _ if first.prescribed => "stop",
                    _ => "tool_calls",
                };
            }
            None => {
                let text = text(call, said, index);
                choice.pieces.extend(words::split(&text).into_iter().map(Piece::Text));
            }
        }
        choice.cut_to(&call.body["max_completion_tokens"]);
        choice.cut_to(&call.body["max_tokens"]);
        choice
    }

    fn call_tools<'t>(&mut self, call: &Call<'_>, tools: impl Iterator<Item = &'t ToolChoice<'t>>, index: usize) {
        for (tool, chosen) in tools.enumerate() {
            let id = format!("call_mock{:08}_{index}_{tool}", call.sequence);
            self.tools.push(ToolCall {
                form: chosen.form,
                id,
                name: chosen.name.to_owned(),
            });
            self.pieces.push(Piece::ToolStart { tool });
            let input = words::split(&chosen.input(tool));
            self.pieces
                .extend(input.into_iter().map(|text| Piece::ToolInput { tool, text }));
        }
    }

    /// Keeps the answer within a limit of tokens, if there is one.
    fn cut_to(&mut self, limit: &Value) {
        let Some(limit) = limit.as_u64() else { return };
        let mut used = 0;
        let fitting = self.pieces.iter().take_while(|piece| {
            used += piece.tokens().completion;
            used <= limit
        });
        let fitting = fitting.count();
        if fitting < self.pieces.len() {
            self.pieces.truncate(fitting);
            self.finish_reason = "length";
        }
    }

    fn message(&self) -> Value {
        let (mut reasoning, mut content) = (String::new(), String::new());
        let mut calls: Vec<(&ToolCall, String)> = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Reasoning(text) => reasoning.push_str(text),
                Piece::Text(text) => content.push_str(text),
                Piece::ToolStart { tool } => calls.push((&self.tools[*tool], String::new())),
                Piece::ToolInput { tool, text } => calls[*tool].1.push_str(text),
            }
        }
        let mut message = Map::new();
        message.insert("role".into(), json!("assistant"));
        message.insert(
            "content".into(),
            if self.tools.is_empty() {
                json!(content)
            } else {
                Value::Null
            },
        );
        message.insert("refusal".into(), Value::Null);
        message.insert("annotations".into(), json!([]));
        if !reasoning.is_empty() {
            message.insert("reasoning_content".into(), json!(reasoning));
        }
        match &calls[..] {
            [] => {}
            [(tool, input), ..] if tool.form == ToolForm::Legacy => {
                message.insert("function_call".into(), tool.object(input));
            }
            calls => {
                let calls = calls.iter().map(|(tool, input)| tool.object(input)).collect();
                message.insert("tool_calls".into(), calls);
            }
        }
        Value::Object(message)
    }

    /// The first delta, with the role and nothing else.
    fn opening(&self) -> Value {
        let content = if self.tools.is_empty() { json!("") } else { Value::Null };
        json!({ "role": "assistant", "content": content, "refusal": null })
    }

    fn delta(&self, piece: &Piece) -> Value {
        match piece {
            Piece::Reasoning(text) => json!({ "reasoning_content": text }),
            Piece::Text(text) => json!({ "content": text }),
            Piece::ToolStart { tool } => self.tools[*tool].delta(*tool, self.tools[*tool].object("")),
            Piece::ToolInput { tool, text } => self.tools[*tool].delta(*tool, self.tools[*tool].more(text)),
        }
    }

    fn logprobs(&self, top: usize) -> Value {
        let content: Vec<Value> = self.pieces.iter().filter_map(|piece| piece.logprob(top)).collect();
        json!({ "content": content, "refusal": null })
    }
}

impl Piece {
    fn tokens(&self) -> Tokens {
        match self {
            Self::Reasoning(_) => Tokens {
                completion: 1,
                reasoning: 1,
                ..Tokens::default()
            },
            Self::Text(_) | Self::ToolInput { .. } => Tokens {
                completion: 1,
                ..Tokens::default()
            },
            Self::ToolStart { .. } => Tokens::default(),
        }
    }

    /// One entry of `logprobs.content`, with the `top` likeliest tokens; only visible text has one.
    fn logprob(&self, top: usize) -> Option<Value> {
        let Self::Text(text) = self else { return None };
        let entry =
            |token: &str, logprob: f64| json!({ "token": token, "logprob": logprob, "bytes": token.as_bytes() });
        let likeliest: Vec<Value> = (0..top)
            .map(|rank| match rank {
                0 => entry(text, -0.25),
                _ => entry(&format!("{text}-{rank}"), -0.25 - rank as f64),
            })
            .collect();
        let mut own = entry(text, -0.25);
        own["top_logprobs"] = json!(likeliest);
        Some(own)
    }
}

impl ToolCall {
    /// The call as it stands in a whole answer, and, with an empty input, as it begins in a stream.
    fn object(&self, input: &str) -> Value {
        match self.form {
            ToolForm::Function => {
                json!({ "id": self.id, "type": "function", "function": { "name": self.name, "arguments": input } })
            }
            ToolForm::Custom => {
                json!({ "id": self.id, "type": "custom", "custom": { "name": self.name, "input": input } })
            }
            ToolForm::Legacy => json!({ "name": self.name, "arguments": input }),
        }
    }

    /// A later fragment: clients join strings, so id and name must not come again.
    fn more(&self, input: &str) -> Value {
        match self.form {
            ToolForm::Function => json!({ "function": { "arguments": input } }),
            ToolForm::Custom => json!({ "custom": { "input": input } }),
            ToolForm::Legacy => json!({ "arguments": input }),
        }
    }

    fn delta(&self, index: usize, mut fragment: Value) -> Value {
        if self.form == ToolForm::Legacy {
            return json!({ "function_call": fragment });
        }
        fragment["index"] = json!(index);
        json!({ "tool_calls": [fragment] })
    }
}

/// The tool the model decides to call.
struct ToolChoice<'a> {
    form: ToolForm,
    name: &'a str,
    parameters: &'a Value,
    /// Whether the request named this very tool.
    prescribed: bool,
}

impl<'a> ToolChoice<'a> {
    /// The tools there are, in their order, or the one prescribed; none when tools are forbidden, or when the conversation
    /// ends with a tool's result and nothing demands another call.
    fn all(body: &'a Value, messages: &[Value]) -> Vec<Self> {
        let (tools, wish) = if body["tools"].is_array() {
            (&body["tools"], &body["tool_choice"])
        } else {
            (&body["functions"], &body["function_call"])
        };
        let Some(tools) = tools.as_array() else {
            return Vec::new();
        };
        let wished_name = named(wish).or_else(|| named(&wish["allowed_tools"]["tools"][0]));
        let prescribed = named(wish).is_some();
        let demanded = prescribed || wish == "required" || wish["allowed_tools"]["mode"] == "required";
        let just_called = messages
            .last()
            .is_some_and(|message| message["role"] == "tool" || message["role"] == "function");
        if wish == "none" || (just_called && !demanded) {
            return Vec::new();
        }
        let wished = |tool: &&Value| wished_name.is_none_or(|name| named(tool) == Some(name));
        tools
            .iter()
            .filter(wished)
            .filter_map(|tool| Self::of(tool, prescribed))
            .collect()
    }

    fn of(tool: &'a Value, prescribed: bool) -> Option<Self> {
        let form = match tool["type"].as_str() {
            Some("custom") => ToolForm::Custom,
            Some(_) => ToolForm::Function,
            None => ToolForm::Legacy,
        };
        let described = if form == ToolForm::Legacy {
            tool
        } else {
            &tool["function"]
        };
        Some(Self {
            form,
            name: named(tool)?,
            parameters: &described["parameters"],
            prescribed,
        })
    }

    /// The input of the call with this index.
    fn input(&self, index: usize) -> String {
        match self.form {
            ToolForm::Custom => format!("mock input {}", index + 1),
            _ if self.parameters.is_null() => "{}".to_owned(),
            _ => words::spaced(&schema::sample(self.parameters, index)),
        }
    }
}

/// The name in a tool, or in a wish for one, of any form.
fn named(tool: &Value) -> Option<&str> {
    tool["function"]["name"]
        .as_str()
        .or(tool["custom"]["name"].as_str())
        .or(tool["name"].as_str())
}

fn text(call: &Call<'_>, said: &str, index: usize) -> String {
    let format = &call.body["response_format"];
    let text = match format["type"].as_str() {
        Some("json_schema") => words::spaced(&schema::sample(&format["json_schema"]["schema"], index)),
        Some("json_object") => words::spaced(&json!({ "answer": words::reply(said, index) })),
        _ => words::reply(said, index),
    };
    words::before_stop(&text, &call.stops()).to_owned()
}

/// Thoughts, more of them the more effort is asked for.
fn reasoning(effort: &Value) -> Vec<String> {
    let thoughts = match effort.as_str() {
        None | Some("none") => 0,
        Some("minimal") => 1,
        Some("low") => 2,
        Some("medium") => 4,
        Some("high") => 8,
        Some(_) => 16,
    };
    let thoughts: Vec<String> = (1..=thoughts).map(|number| format!("thought-{number}")).collect();
    words::split(&thoughts.join(" "))
}

fn billed(choices: &[Choice], prompt: Tokens) -> Tokens {
    prompt
        + choices
            .iter()
            .flat_map(|choice| &choice.pieces)
            .map(Piece::tokens)
            .sum()
}

/// How many alternatives each logprob lists; none when logprobs were not asked for.
fn top_logprobs(call: &Call<'_>) -> Option<usize> {
    call.flag("logprobs")
        .then(|| call.body["top_logprobs"].as_u64().unwrap_or(0) as usize)
}

fn whole(call: &Call<'_>, choices: &[Choice], prompt: Tokens) -> Answer {
    let billed = billed(choices, prompt);
    let top = top_logprobs(call);
    let choices = choices.iter().enumerate().map(|(index, choice)| {
        json!({
            "index": index,
            "message": choice.message(),
            "logprobs": top.map(|top| choice.logprobs(top)),
            "finish_reason": choice.finish_reason,
        })
    });
    let body = json!({
        "id": call.id("chatcmpl"),
        "object": "chat.completion",
        "created": CREATED,
        "model": call.model,
        "choices": choices.collect::<Vec<_>>(),
        "usage": usage_object(billed),
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    });
    Answer::json(200, &body).billing(billed)
}

fn stream(call: &Call<'_>, choices: &[Choice], prompt: Tokens) -> Answer {
    let chunks = Chunks::of(call);
    let top = top_logprobs(call);
    let mut steps = Vec::new();
    for (index, choice) in choices.iter().enumerate() {
        let billed = if index == 0 { prompt } else { Tokens::default() };
        steps.push(Step::billed(
            chunks.choice(index, &choice.opening(), &Value::Null, None),
            billed,
        ));
    }
    // The choices take turns, as they do upstream.
    let longest = choices.iter().map(|choice| choice.pieces.len()).max().unwrap_or(0);
    for turn in 0..=longest {
        for (index, choice) in choices.iter().enumerate() {
            if let Some(piece) = choice.pieces.get(turn) {
                let logprob = top.and_then(|top| piece.logprob(top));
                let logprobs = logprob.map_or(Value::Null, |entry| json!({ "content": [entry], "refusal": null }));
                let chunk = chunks.choice(index, &choice.delta(piece), &logprobs, None);
                steps.push(Step::billed(chunk, piece.tokens()));
            } else if turn == choice.pieces.len() {
                steps.push(Step::send(chunks.choice(
                    index,
                    &json!({}),
                    &Value::Null,
                    Some(choice.finish_reason),
                )));
            }
        }
    }
    if call.includes_usage() {
        steps.push(Step::send(chunks.usage(billed(choices, prompt))));
    }
    steps.push(Step::send(DONE));
    Answer::stream(steps)
}

/// What all chunks of one stream have in common.
struct Chunks {
    common: Value,
    includes_usage: bool,
    obfuscates: bool,
}

impl Chunks {
    fn of(call: &Call<'_>) -> Self {
        let common = json!({
            "id": call.id("chatcmpl"),
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": call.model,
            "service_tier": "default",
            "system_fingerprint": FINGERPRINT,
        });
        let obfuscates = call.body["stream_options"]["include_obfuscation"] != false;
        Self {
            common,
            includes_usage: call.includes_usage(),
            obfuscates,
        }
    }

    fn choice(&self, index: usize, delta: &Value, logprobs: &Value, finish_reason: Option<&str>) -> bytes::Bytes {
        let mut chunk = self.common.clone();
        chunk["choices"] =
            json!([{ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason }]);
        if self.includes_usage {
            chunk["usage"] = Value::Null;
        }
        if self.obfuscates {
            chunk["obfuscation"] = json!("k2x");
        }
        record(&chunk)
    }

    fn usage(&self, billed: Tokens) -> bytes::Bytes {
        let mut chunk = self.common.clone();
        chunk["choices"] = json!([]);
        chunk["usage"] = usage_object(billed);
        record(&chunk)
    }
}
