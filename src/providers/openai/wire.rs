//! The parts of OpenAI's answers that the gateway reads: usage, errors, choices.
//!
//! # Source
//! "The chat completion object", "The chat completion chunk object" and "Error codes" of OpenAI's API reference.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::service::{Service, Tier};
use crate::domain::usage::TokenUsage;

/// No call has more tokens of any kind; a larger figure is a broken or hostile answer.
const MAX_TOKENS: i64 = 1_000_000_000_000;

/// OpenAI's `usage` object. Unknown fields are ignored, missing ones are zero.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Usage {
    prompt_tokens: Option<i64>,
    completion_tokens: Option<i64>,
    total_tokens: Option<i64>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
    /// DeepSeek's name for cached tokens.
    prompt_cache_hit_tokens: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PromptDetails {
    cached_tokens: Option<i64>,
    cache_write_tokens: Option<i64>,
    audio_tokens: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CompletionDetails {
    reasoning_tokens: Option<i64>,
    audio_tokens: Option<i64>,
}

/// Reads a `usage` object; `None` where it is not one, or says something impossible such as a negative count.
pub fn usage(raw: &str) -> Option<TokenUsage> {
    let usage: Usage = serde_json::from_str(raw).ok()?;
    let prompt = usage.prompt_tokens_details.unwrap_or_default();
    let completion = usage.completion_tokens_details.unwrap_or_default();
    let count = |tokens: Option<i64>| {
        let tokens = tokens.unwrap_or(0);
        (0..=MAX_TOKENS).contains(&tokens).then(|| tokens.unsigned_abs())
    };
    // An embeddings answer has no completion tokens, but a prompt is always there.
    usage.prompt_tokens?;
    let input = count(usage.prompt_tokens)?;
    let generated = count(usage.completion_tokens)?;
    let reasoning = count(completion.reasoning_tokens)?;
    // xAI counts reasoning beside the completion. Only the total tells; one that is impossible tells nothing.
    let beside = reasoning > 0 && count(usage.total_tokens) == Some(input + generated + reasoning);
    let usage = TokenUsage {
        input,
        cached_input: count(prompt.cached_tokens.or(usage.prompt_cache_hit_tokens))?,
        cache_write: count(prompt.cache_write_tokens)?,
        cache_write_1h: 0,
        output: generated + if beside { reasoning } else { 0 },
        reasoning,
        audio_input: count(prompt.audio_tokens)?,
        audio_output: count(completion.audio_tokens)?,
        service: None,
    };
    Some(usage.consistent())
}

/// The service that an answer's `service_tier` names; `None` where it says nothing that we know.
///
/// # Source
/// `service_tier` of "The chat completion object": `default`, `flex` or `priority`, also where `fast` was asked for;
/// `scale` is paid for otherwise.
pub fn service(raw: &str) -> Option<Service> {
    let tier = match raw {
        "\"default\"" | "\"scale\"" => Tier::Standard,
        "\"flex\"" => Tier::Flex,
        "\"priority\"" | "\"fast\"" => Tier::Priority,
        _ => return None,
    };
    Some(Service { tier, in_us: false })
}

/// An error body in any of the shapes OpenAI, Azure and their imitators use.
#[derive(Default, Debug)]
pub struct ErrorBody {
    /// The human-readable part.
    pub message: Option<String>,
    /// OpenAI's `type`.
    pub kind: Option<String>,
    /// OpenAI's `code`; Azure also writes the status here, as text or number.
    pub code: Option<String>,
    /// The field at fault.
    pub param: Option<String>,
    /// Azure's `innererror`.
    pub inner: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    /// API gateways in front of Azure answer without an `error`.
    #[serde(borrow)]
    message: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Inner<'a> {
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    r#type: Option<&'a RawValue>,
    #[serde(borrow, default)]
    code: Option<&'a RawValue>,
    #[serde(borrow, default)]
    param: Option<&'a RawValue>,
    #[serde(borrow, default)]
    innererror: Option<&'a RawValue>,
}

/// Reads an error body; `None` where it is not JSON or holds no error.
pub fn error(body: &[u8]) -> Option<ErrorBody> {
    let envelope: Envelope<'_> = serde_json::from_slice(body).ok()?;
    match envelope.error {
        Some(raw) => error_value(raw.get()),
        None => Some(ErrorBody {
            message: Some(envelope.message?.into_owned()),
            ..ErrorBody::default()
        }),
    }
}

/// Reads the value of an `error` field: an object, or just a text.
pub fn error_value(raw: &str) -> Option<ErrorBody> {
    if let Ok(message) = serde_json::from_str::<String>(raw) {
        return Some(ErrorBody {
            message: Some(message),
            ..ErrorBody::default()
        });
    }
    let inner: Inner<'_> = serde_json::from_str(raw).ok()?;
    Some(ErrorBody {
        message: text(inner.message),
        kind: text(inner.r#type),
        code: text(inner.code),
        param: text(inner.param),
        inner: inner
            .innererror
            .filter(|raw| raw.get().starts_with('{'))
            .map(ToOwned::to_owned),
    })
}

/// A text, or a number as text: `code` is both in the wild.
fn text(raw: Option<&RawValue>) -> Option<String> {
    let raw = raw?.get();
    match raw.as_bytes().first()? {
        b'"' => serde_json::from_str(raw).ok(),
        b'0'..=b'9' | b'-' => Some(raw.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_with_its_details_and_without() {
        let full = r#"{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,
            "prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":3,"audio_tokens":0},
            "completion_tokens_details":{"reasoning_tokens":6,"accepted_prediction_tokens":0}}"#;
        let expected = TokenUsage {
            input: 19,
            cached_input: 4,
            cache_write: 3,
            output: 10,
            reasoning: 6,
            ..TokenUsage::default()
        };
        assert_eq!(usage(full), Some(expected));
        let embedding = r#"{"prompt_tokens":8,"total_tokens":8,"prompt_tokens_details":null}"#;
        assert_eq!(
            usage(embedding),
            Some(TokenUsage {
                input: 8,
                ..TokenUsage::default()
            })
        );
    }

    #[test]
    fn reasoning_is_added_to_the_output_where_the_total_says_that_it_stands_beside_it() {
        for (raw, output, reasoning) in [
            (
                r#"{"prompt_tokens":10120,"completion_tokens":1499,"total_tokens":14428,
                "completion_tokens_details":{"reasoning_tokens":2809}}"#,
                4308,
                2809,
            ),
            (
                r#"{"prompt_tokens":100,"completion_tokens":1000,"total_tokens":1100,
                "completion_tokens_details":{"reasoning_tokens":900}}"#,
                1000,
                900,
            ),
            // A total that agrees with neither, and none at all.
            (
                r#"{"prompt_tokens":100,"completion_tokens":1000,"total_tokens":-5,
                "completion_tokens_details":{"reasoning_tokens":900}}"#,
                1000,
                900,
            ),
            (
                r#"{"prompt_tokens":100,"completion_tokens":10,"completion_tokens_details":{"reasoning_tokens":90}}"#,
                10,
                10,
            ),
        ] {
            let usage = usage(raw).unwrap();
            assert_eq!((usage.output, usage.reasoning), (output, reasoning), "{raw}");
        }
    }

    #[test]
    fn an_impossible_usage_is_none() {
        for raw in [
            "null",
            "{}",
            r#"{"prompt_tokens":-1}"#,
            r#"{"prompt_tokens":1e99}"#,
            r#"{"prompt_tokens":"1"}"#,
            "[]",
        ] {
            assert_eq!(usage(raw), None, "{raw}");
        }
    }

    #[test]
    fn errors_are_read_in_every_shape() {
        let openai =
            error(br#"{"error":{"message":"no","type":"invalid_request_error","param":"n","code":null}}"#).unwrap();
        assert_eq!(
            (openai.message.as_deref(), openai.param.as_deref(), openai.code),
            (Some("no"), Some("n"), None)
        );
        assert_eq!(
            error(br#"{"error":{"code":404,"message":"x"}}"#)
                .unwrap()
                .code
                .as_deref(),
            Some("404")
        );
        assert_eq!(
            error(br#"{"error":"plain"}"#).unwrap().message.as_deref(),
            Some("plain")
        );
        assert_eq!(
            error(br#"{"statusCode":401,"message":"m"}"#)
                .unwrap()
                .message
                .as_deref(),
            Some("m")
        );
        assert!(error(b"<html>502</html>").is_none());
        assert!(error(br#"{"ok":true}"#).is_none());
    }
}
