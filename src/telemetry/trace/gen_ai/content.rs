//! Prompts and answers in the form of the conventions, for those who have switched that on, and as much of them as they want.
//!
//! Each text is cut so that the whole stays JSON.
//!
//! # Source
//! `gen-ai-input-messages.json`, `gen-ai-output-messages.json` and `gen-ai-system-instructions.json` beside the
//! conventions: a message is a role and parts, and a part is `text`, `reasoning`, `tool_call`, `tool_call_response` or of a
//! kind of its own.

use serde_json::{Value as Json, json};

use crate::telemetry::names::trace as names;
use crate::telemetry::trace::span::{Span, Value};

/// Messages of a prompt that are shown, and parts of a message.
const MAX_MESSAGES: usize = 64;
const MAX_PARTS: usize = 64;
/// Characters of what should be a word: a role, a kind, an id.
const MAX_WORD_CHARS: usize = 64;

/// Shows a request's body in a span: its messages, and what the model is told beside them.
pub fn tell_prompt(span: &mut Span, body: &[u8], most: usize) {
    if let Ok(body) = serde_json::from_slice(body) {
        span.set_if(names::GEN_AI_SYSTEM_INSTRUCTIONS, system_instructions(&body, most));
        span.set(names::GEN_AI_INPUT_MESSAGES, || input_messages(&body, most));
    }
}

/// Shows a whole answer in a span.
pub fn tell_answer(span: &mut Span, body: &[u8], most: usize) {
    if let Ok(body) = serde_json::from_slice(body) {
        span.set_if(names::GEN_AI_OUTPUT_MESSAGES, output_messages(&body, most));
    }
}

/// The messages of a request's body.
fn input_messages(body: &Json, most: usize) -> Value {
    let alone = |content: &Json| vec![json!({"role": "user", "content": content})];
    let messages = match (&body["messages"], &body["prompt"], &body["input"]) {
        (Json::Array(messages), _, _) => messages.clone(),
        (_, Json::Null, input) => alone(input),
        (_, prompt, _) => alone(prompt),
    };
    let mut room = Room { left: most };
    let shown = messages.iter().take(MAX_MESSAGES).map_while(|message| {
        let role = word(&message["role"]).unwrap_or_else(|| "user".to_owned());
        (room.left > 0).then(|| json!({"role": role, "parts": room.parts(message)}))
    });
    bounded(shown.collect())
}

/// What a model is told beside the messages, in the dialect that has a place of its own for it.
fn system_instructions(body: &Json, most: usize) -> Option<Value> {
    let parts = Room { left: most }.parts(&json!({"content": body.get("system")?}));
    (!parts.is_empty()).then(|| bounded(parts))
}

/// The messages of a whole answer, each with why it ended.
fn output_messages(body: &Json, most: usize) -> Option<Value> {
    let said: Vec<(Json, &Json)> = match (&body["choices"], &body["content"]) {
        (Json::Array(choices), _) => choices
            .iter()
            .map(|choice| match &choice["message"] {
                Json::Null => (json!({"content": choice["text"]}), &choice["finish_reason"]),
                message => (message.clone(), &choice["finish_reason"]),
            })
            .collect(),
        (_, Json::Array(_)) => vec![(json!({"content": body["content"]}), &body["stop_reason"])],
        _ => return None,
    };
    let mut room = Room { left: most };
    let shown = said.iter().take(MAX_MESSAGES).map_while(|(message, reason)| {
        (room.left > 0).then(|| {
            let reason = finish_reason(reason.as_str().unwrap_or_default());
            json!({"role": "assistant", "parts": room.parts(message), "finish_reason": reason})
        })
    });
    Some(bounded(shown.collect()))
}

/// Why an answer ended, in the conventions' words; others are left as they are.
fn finish_reason(reason: &str) -> &str {
    match reason {
        "stop" | "end_turn" | "stop_sequence" => "stop",
        "length" | "max_tokens" => "length",
        "tool_calls" | "function_call" | "tool_use" => "tool_call",
        "content_filter" | "refusal" => "content_filter",
        "" => "error",
        other => &other[..other.floor_char_boundary(MAX_WORD_CHARS)],
    }
}

/// How much may still be shown.
struct Room {
    left: usize,
}

impl Room {
    fn text(&mut self, text: &str) -> String {
        let kept = &text[..text.floor_char_boundary(self.left)];
        self.left -= kept.len();
        kept.to_owned()
    }

    /// What may be text or anything else, as text.
    fn any(&mut self, value: &Json) -> String {
        match value {
            Json::Null => String::new(),
            Json::String(text) => self.text(text),
            other => self.text(&other.to_string()),
        }
    }

    /// The parts of a message of either dialect.
    fn parts(&mut self, message: &Json) -> Vec<Json> {
        let mut parts = Vec::new();
        if let Some(thoughts) = message["reasoning_content"].as_str() {
            parts.push(json!({"type": "reasoning", "content": self.text(thoughts)}));
        }
        let content = &message["content"];
        if message["role"] == "tool" {
            let response = self.any(content);
            parts.push(tool_call_response(&message["tool_call_id"], response));
        } else {
            match content {
                Json::String(text) => parts.push(json!({"type": "text", "content": self.text(text)})),
                Json::Array(content) => parts.extend(content.iter().take(MAX_PARTS).map(|part| self.part(part))),
                _ => {}
            }
        }
        if let Some(refusal) = message["refusal"].as_str() {
            parts.push(json!({"type": "text", "content": self.text(refusal)}));
        }
        for call in message["tool_calls"].as_array().into_iter().flatten().take(MAX_PARTS) {
            let arguments = self.any(&call["function"]["arguments"]);
            parts.push(tool_call(&call["id"], &call["function"]["name"], arguments));
        }
        parts
    }

    fn part(&mut self, part: &Json) -> Json {
        if let (Json::String(text), _) | (_, Json::String(text)) = (part, &part["text"]) {
            return json!({"type": "text", "content": self.text(text)});
        }
        match part["type"].as_str().unwrap_or("other") {
            "thinking" => json!({"type": "reasoning", "content": self.any(&part["thinking"])}),
            "tool_use" => {
                let arguments = self.any(&part["input"]);
                tool_call(&part["id"], &part["name"], arguments)
            }
            "tool_result" => {
                let response = self.any(&part["content"]);
                tool_call_response(&part["tool_use_id"], response)
            }
            // Of pictures and the like, that there was one.
            kind => json!({"type": &kind[..kind.floor_char_boundary(MAX_WORD_CHARS)]}),
        }
    }
}

fn tool_call(id: &Json, name: &Json, arguments: String) -> Json {
    json!({"type": "tool_call", "id": word(id), "name": word(name).unwrap_or_default(), "arguments": arguments})
}

fn tool_call_response(id: &Json, response: String) -> Json {
    json!({"type": "tool_call_response", "id": word(id), "response": response})
}

fn word(value: &Json) -> Option<String> {
    Some(value.as_str()?.chars().take(MAX_WORD_CHARS).collect())
}

fn bounded(shown: Vec<Json>) -> Value {
    Value::Bounded(Json::from(shown).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Json {
        match value {
            Value::Bounded(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn messages_keep_their_form_however_little_of_them_fits() {
        let body = json!({"messages":[{"role":"system","content":"be brief"},
            {"role":"user","content":[{"type":"text","text":"what is this?"},{"type":"image_url","image_url":{}}]}]});
        let whole = read(input_messages(&body, 1_000));
        assert_eq!(whole[0]["parts"][0]["content"], "be brief");
        assert_eq!(whole[1]["parts"][0]["content"], "what is this?");
        assert_eq!(whole[1]["parts"][1]["type"], "image_url");
        let little = read(input_messages(&body, 4));
        assert_eq!(little[0]["parts"][0]["content"], "be b");
        assert_eq!(little.as_array().unwrap().len(), 1);
    }

    #[test]
    fn calls_of_tools_and_what_came_of_them_are_parts_in_both_dialects() {
        let openai = json!({"messages": [
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"}]});
        let anthropic = json!({"system": "be brief", "messages": [
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "sunny"}]}]});
        let call = json!([{"type": "tool_call", "id": "c1", "name": "f", "arguments": "{\"a\":1}"}]);
        let response = json!([{"type": "tool_call_response", "id": "c1", "response": "sunny"}]);
        for body in [&openai, &anthropic] {
            let shown = read(input_messages(body, 1_000));
            assert_eq!((&shown[0]["parts"], &shown[1]["parts"]), (&call, &response));
        }
        let system = read(system_instructions(&anthropic, 8).unwrap());
        assert_eq!(system, json!([{"type": "text", "content": "be brief"}]));
        assert_eq!(system_instructions(&openai, 8), None);
    }

    #[test]
    fn an_answer_says_why_it_ended_in_the_conventions_words() {
        let openai = json!({"choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
            "role": "assistant", "content": "wait", "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}}]}}]});
        let shown = read(output_messages(&openai, 1_000).unwrap());
        assert_eq!(
            shown,
            json!([{"role": "assistant", "finish_reason": "tool_call", "parts": [{"type": "text", "content": "wait"},
                {"type": "tool_call", "id": "c1", "name": "f", "arguments": "{}"}]}])
        );
        let anthropic = json!({"stop_reason": "max_tokens", "content": [{"type": "thinking", "thinking": "hm"}]});
        let shown = read(output_messages(&anthropic, 1_000).unwrap());
        assert_eq!(
            shown,
            json!([{"role": "assistant", "finish_reason": "length", "parts": [{"type": "reasoning", "content": "hm"}]}])
        );
    }
}
