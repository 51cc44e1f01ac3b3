//! What an answer says, whole or put together out of its stream as the callers' SDKs do it. Both forms of one answer must
//! come out equal.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::domain::call::Dialect;

/// What a whole answer says.
pub(super) fn whole(dialect: Dialect, body: &[u8]) -> Value {
    let answer: Value = serde_json::from_slice(body).unwrap();
    match dialect {
        Dialect::OpenAi => {
            let choices = answer["choices"].as_array().map(Vec::as_slice).unwrap_or_default();
            let choices = choices.iter().map(|choice| {
                let mut said = Said::default();
                said.message(choice, "message");
                (choice["index"].as_u64().unwrap_or(0), said)
            });
            openai(choices.collect(), answer["usage"].clone())
        }
        Dialect::Anthropic => {
            let blocks = answer["content"].as_array().cloned().unwrap_or_default();
            anthropic(blocks, answer.clone(), answer["usage"].clone())
        }
    }
}

/// What a stream says.
pub(super) fn stream(dialect: Dialect, relayed: &str) -> Value {
    let records = relayed.split_terminator("\n\n").filter_map(|record| {
        let data: Vec<&str> = record.lines().filter_map(|line| line.strip_prefix("data:")).collect();
        serde_json::from_str(&data.join("\n")).ok()
    });
    match dialect {
        Dialect::OpenAi => openai_stream(records),
        Dialect::Anthropic => anthropic_stream(records),
    }
}

#[derive(Default)]
struct Said {
    texts: BTreeMap<&'static str, String>,
    calls: BTreeMap<u64, BTreeMap<&'static str, String>>,
    lists: BTreeMap<&'static str, Vec<Value>>,
    finish: Value,
}

impl Said {
    /// Takes a whole message, or a delta behind the others.
    fn message(&mut self, choice: &Value, holder: &str) {
        let message = &choice[holder];
        for name in ["content", "reasoning_content", "refusal"] {
            let text = message[name].as_str().unwrap_or_default();
            self.texts.entry(name).or_default().push_str(text);
        }
        let text = choice["text"].as_str().unwrap_or_default();
        self.texts.entry("content").or_default().push_str(text);
        for (position, call) in array(&message["tool_calls"]).iter().enumerate() {
            let index = call["index"].as_u64().unwrap_or(position as u64);
            let fields = self.calls.entry(index).or_default();
            for (name, value) in [
                ("id", &call["id"]),
                ("name", &call["function"]["name"]),
                ("arguments", &call["function"]["arguments"]),
                ("name", &call["custom"]["name"]),
                ("input", &call["custom"]["input"]),
            ] {
                fields
                    .entry(name)
                    .or_default()
                    .push_str(value.as_str().unwrap_or_default());
            }
        }
        for name in ["thinking_blocks", "annotations", "images"] {
            for entry in array(&message[name]) {
                let mut entry = entry.clone();
                if let Some(fields) = entry.as_object_mut() {
                    fields.shift_remove("index");
                }
                self.lists.entry(name).or_default().push(entry);
            }
        }
        let logprobs = array(&choice["logprobs"]["content"]);
        self.lists.entry("logprobs").or_default().extend_from_slice(logprobs);
        if !choice["finish_reason"].is_null() {
            self.finish = choice["finish_reason"].clone();
        }
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn openai(choices: BTreeMap<u64, Said>, usage: Value) -> Value {
    let choices: Vec<Value> = choices
        .into_iter()
        .map(|(index, said)| {
            let calls: Vec<Value> = said
                .calls
                .into_values()
                .map(|mut call| {
                    let arguments = call.remove("arguments").unwrap_or_default();
                    let arguments = serde_json::from_str(&arguments).unwrap_or(Value::from(arguments));
                    json!({"fields": call, "arguments": arguments})
                })
                .collect();
            let lists: BTreeMap<_, _> = said.lists.into_iter().filter(|(_, list)| !list.is_empty()).collect();
            json!({"index": index, "texts": said.texts, "calls": calls, "lists": lists, "finish": said.finish})
        })
        .collect();
    json!({"choices": choices, "usage": usage})
}

fn openai_stream(records: impl Iterator<Item = Value>) -> Value {
    let mut choices: BTreeMap<u64, Said> = BTreeMap::new();
    let mut usage = Value::Null;
    for chunk in records {
        for choice in array(&chunk["choices"]) {
            let index = choice["index"].as_u64().unwrap_or(0);
            choices.entry(index).or_default().message(choice, "delta");
        }
        if chunk["usage"].is_object() {
            usage = chunk["usage"].clone();
        }
    }
    openai(choices, usage)
}

/// The blocks and the end of an answer, without what means nothing.
fn anthropic(blocks: Vec<Value>, end: Value, usage: Value) -> Value {
    let blocks: Vec<Value> = blocks
        .into_iter()
        .map(without_nulls)
        .filter(|block| block["type"] != "text" || block["text"] != "")
        .collect();
    json!({
        "content": blocks,
        "stop_reason": end["stop_reason"],
        "stop_sequence": end["stop_sequence"],
        "usage": without_nulls(usage),
    })
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        other => other,
    }
}

fn anthropic_stream(records: impl Iterator<Item = Value>) -> Value {
    let mut blocks: BTreeMap<u64, (Value, String)> = BTreeMap::new();
    let mut end = Value::Null;
    let mut usage = Map::new();
    for record in records {
        let index = record["index"].as_u64().unwrap_or(0);
        match record["type"].as_str().unwrap_or_default() {
            "message_start" => usage.extend(object(&record["message"]["usage"])),
            "content_block_start" => {
                blocks.insert(index, (record["content_block"].clone(), String::new()));
            }
            "content_block_delta" => {
                let (block, input) = blocks.get_mut(&index).expect("a delta belongs to a block that began");
                let delta = &record["delta"];
                match delta["type"].as_str().unwrap_or_default() {
                    "input_json_delta" => input.push_str(delta["partial_json"].as_str().unwrap_or_default()),
                    "citations_delta" => {
                        let citation = delta["citation"].clone();
                        match block["citations"].as_array_mut() {
                            Some(citations) => citations.push(citation),
                            None => block["citations"] = json!([citation]),
                        }
                    }
                    _ => {
                        for name in ["text", "thinking", "signature"] {
                            if let Some(more) = delta[name].as_str() {
                                let so_far = block[name].as_str().unwrap_or_default();
                                block[name] = format!("{so_far}{more}").into();
                            }
                        }
                    }
                }
            }
            "message_delta" => {
                end = record["delta"].clone();
                usage.extend(object(&record["usage"]));
            }
            _ => {}
        }
    }
    let blocks = blocks.into_values().map(|(mut block, input)| {
        if let Ok(input @ Value::Object(_)) = serde_json::from_str(&input) {
            block["input"] = input;
        }
        block
    });
    anthropic(blocks.collect(), end, usage.into())
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}
