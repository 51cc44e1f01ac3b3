//! Text, and what it costs: one token for each word between blanks.

use serde_json::Value;

use super::super::record::Tokens;

const TOKENS_PER_MESSAGE: u64 = 3;
/// An image, a sound or a file.
const TOKENS_PER_OTHER_PART: u64 = 85;
/// A long prompt is not repeated in full.
const WORDS_REPEATED: usize = 100;

/// Cuts text into its words, each with the blanks before it; joined, they are the text again.
pub(in crate::support::provider) fn split(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut inside_word = false;
    for character in text.chars() {
        let blank = character.is_whitespace();
        if words.is_empty() || (blank && inside_word) {
            words.push(String::new());
        }
        words.last_mut().expect("there is one now").push(character);
        inside_word = !blank;
    }
    // Blanks at the end are no word of their own.
    if words.len() > 1 && words.last().is_some_and(|word| word.trim().is_empty()) {
        let blanks = words.pop().expect("there are two");
        words.last_mut().expect("there was one before").push_str(&blanks);
    }
    words
}

pub(in crate::support::provider) fn count(text: &str) -> u64 {
    text.split_whitespace().count() as u64
}

/// What a prompt of `tokens` costs. Half of it was in the cache if it mentions the word.
pub(in crate::support::provider) fn prompt(tokens: u64, mentions_cached: bool) -> Tokens {
    Tokens {
        prompt: tokens,
        cached: if mentions_cached { tokens / 2 } else { 0 },
        ..Tokens::default()
    }
}

/// What a conversation costs.
pub(in crate::support::provider) fn conversation(messages: &[Value]) -> Tokens {
    let tokens = messages
        .iter()
        .map(|message| TOKENS_PER_MESSAGE + content(&message["content"]))
        .sum();
    let mentions_cached = messages
        .iter()
        .any(|message| text(&message["content"]).contains("cached"));
    prompt(tokens, mentions_cached)
}

fn content(content: &Value) -> u64 {
    let parts = content.as_array().map(Vec::as_slice).unwrap_or_default();
    let others = parts.iter().filter(|part| part_text(part).is_none()).count() as u64;
    count(&text(content)) + others * TOKENS_PER_OTHER_PART
}

/// The text of a message's content, its parts joined by blanks.
pub(in crate::support::provider) fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(part_text).collect::<Vec<_>>().join(" "),
        _ => String::new(),
    }
}

fn part_text(part: &Value) -> Option<&str> {
    part["text"].as_str().or(part["refusal"].as_str())
}

/// The text of the last message a user wrote.
pub(in crate::support::provider) fn last_user_text(messages: &[Value]) -> String {
    messages
        .iter()
        .rfind(|message| message["role"] == "user")
        .map(|message| text(&message["content"]))
        .unwrap_or_default()
}

/// The number after `order` in a text, as in `words:200`.
pub(in crate::support::provider) fn order(said: &str, order: &str) -> Option<u64> {
    said.split_whitespace()
        .find_map(|word| word.strip_prefix(order)?.parse().ok())
}

/// The answer to what was said: as long as ordered, or a repetition.
pub(in crate::support::provider) fn reply(said: &str, choice: usize) -> String {
    if let Some(ordered) = order(said, "words:") {
        return (1..=ordered)
            .map(|number| format!("word-{number}"))
            .collect::<Vec<_>>()
            .join(" ");
    }
    let repeated = split(said).into_iter().take(WORDS_REPEATED).collect::<String>();
    match choice {
        0 => format!("You said: {repeated}"),
        _ => format!("Choice {choice}, you said: {repeated}"),
    }
}

/// The text before the first of the stop sequences.
pub(in crate::support::provider) fn before_stop<'a>(text: &'a str, stops: &[&str]) -> &'a str {
    let end = stops
        .iter()
        .filter(|stop| !stop.is_empty())
        .filter_map(|stop| text.find(stop))
        .min();
    &text[..end.unwrap_or(text.len())]
}

/// JSON with blanks after commas and colons, as models write it, so that it is more than one word.
pub(in crate::support::provider) fn spaced(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{}: {}", Value::from(name.as_str()), spaced(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(spaced).collect::<Vec<_>>().join(", ")),
        scalar => scalar.to_string(),
    }
}
