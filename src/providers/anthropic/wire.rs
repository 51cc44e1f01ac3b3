//! The parts of Anthropic's answers that the gateway reads: usage and errors.
//!
//! # Source
//! "Messages" and "Errors" of Anthropic's API reference, <https://platform.claude.com/docs/en/api/messages>.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::service::{Service, Tier};
use crate::domain::usage::TokenUsage;

/// No call has more tokens of any kind; a larger figure is a broken or hostile answer.
const MAX_TOKENS: i64 = 1_000_000_000_000;

/// Anthropic's `usage` object. Unknown fields are ignored; any field may be null or absent on other hosts.
#[derive(Deserialize, Clone, PartialEq, Eq, Default, Debug)]
#[serde(default)]
pub struct Usage {
    input_tokens: Option<i64>,
    cache_creation_input_tokens: Option<i64>,
    cache_read_input_tokens: Option<i64>,
    cache_creation: Option<CacheCreation>,
    output_tokens: Option<i64>,
    output_tokens_details: Option<OutputDetails>,
    /// Calls that the provider made for this one; each is charged.
    iterations: Option<Vec<Usage>>,
    /// `standard` or `fast`.
    speed: Option<Value>,
    /// Such as `us` or `global`.
    inference_geo: Option<Value>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Default, Debug)]
#[serde(default)]
struct CacheCreation {
    ephemeral_5m_input_tokens: Option<i64>,
    ephemeral_1h_input_tokens: Option<i64>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Default, Debug)]
#[serde(default)]
struct OutputDetails {
    thinking_tokens: Option<i64>,
}

impl Usage {
    /// Reads a `usage` object; `None` where it is not one.
    pub fn read(raw: &str) -> Option<Self> {
        serde_json::from_str(raw).ok()
    }

    /// Takes over what a later event of the same stream says, unless that is impossible. Its figures are totals and replace
    /// the earlier ones; what it leaves out still stands. Says whether it told how much was generated.
    pub fn update(&mut self, later: Self) -> bool {
        let counts_output = later.output_tokens.is_some();
        let merged = Self {
            input_tokens: later.input_tokens.or(self.input_tokens),
            cache_creation_input_tokens: later.cache_creation_input_tokens.or(self.cache_creation_input_tokens),
            cache_read_input_tokens: later.cache_read_input_tokens.or(self.cache_read_input_tokens),
            cache_creation: later.cache_creation.or(self.cache_creation),
            output_tokens: later.output_tokens.or(self.output_tokens),
            output_tokens_details: later.output_tokens_details.or(self.output_tokens_details),
            iterations: later.iterations.or_else(|| self.iterations.take()),
            speed: later.speed.or_else(|| self.speed.take()),
            inference_geo: later.inference_geo.or_else(|| self.inference_geo.take()),
        };
        let possible = merged.tokens().is_some();
        if possible {
            *self = merged;
        }
        possible && counts_output
    }

    /// The usage in our form; `None` where it says nothing of the prompt or the answer, or something impossible.
    pub fn tokens(&self) -> Option<TokenUsage> {
        let usage = match self.iterations.as_deref() {
            None | Some([]) => self.own_tokens(),
            Some(iterations) => iterations.iter().try_fold(TokenUsage::default(), |sum, iteration| {
                let one = iteration.own_tokens()?;
                Some(TokenUsage {
                    input: sum.input + one.input,
                    cached_input: sum.cached_input + one.cached_input,
                    cache_write: sum.cache_write + one.cache_write,
                    cache_write_1h: sum.cache_write_1h + one.cache_write_1h,
                    output: sum.output + one.output,
                    reasoning: sum.reasoning + one.reasoning,
                    ..sum
                })
            }),
        }?;
        Some(TokenUsage {
            service: self.service(),
            ..usage
        })
    }

    /// How the call was served; `None` where the host says nothing of it.
    fn service(&self) -> Option<Service> {
        let (speed, geography) = (self.speed.as_ref(), self.inference_geo.as_ref());
        speed.or(geography)?;
        Some(Service {
            tier: if speed.is_some_and(|speed| speed == "fast") {
                Tier::Fast
            } else {
                Tier::Standard
            },
            in_us: geography.is_some_and(|geography| geography == "us"),
        })
    }

    fn own_tokens(&self) -> Option<TokenUsage> {
        let count = |tokens: Option<i64>| {
            let tokens = tokens.unwrap_or(0);
            (0..=MAX_TOKENS).contains(&tokens).then(|| tokens.unsigned_abs())
        };
        self.input_tokens?;
        self.output_tokens?;
        let split = self.cache_creation.unwrap_or_default();
        let hour = count(split.ephemeral_1h_input_tokens)?;
        let minutes = count(split.ephemeral_5m_input_tokens)?;
        // Other hosts give the total without the split; then it is of the standard kind.
        let written = count(self.cache_creation_input_tokens)?.max(hour + minutes);
        let read = count(self.cache_read_input_tokens)?;
        let usage = TokenUsage {
            // Anthropic leaves out what went through a cache.
            input: count(self.input_tokens)? + read + written,
            cached_input: read,
            cache_write: written - hour,
            cache_write_1h: hour,
            output: count(self.output_tokens)?,
            reasoning: count(self.output_tokens_details.unwrap_or_default().thinking_tokens)?,
            ..TokenUsage::default()
        };
        Some(usage.consistent())
    }
}

/// What an error says.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ErrorBody {
    /// Anthropic's `error.type`, such as `overloaded_error`.
    pub kind: Option<String>,
    /// The human-readable part.
    pub message: Option<String>,
    /// The stable name of the cause, where there is one.
    pub cause: Option<String>,
}

/// Reads an error body; `None` where it is not JSON or holds no error. Platforms that host Claude answer in their own shape
/// where the platform refused and not the model; what those have in common with Anthropic's is read, too.
pub fn error(body: &[u8]) -> Option<ErrorBody> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        error: &'a RawValue,
    }
    let envelope: Envelope<'_> = serde_json::from_slice(body).ok()?;
    error_value(envelope.error.get())
}

/// Reads the value of an `error` field.
pub fn error_value(raw: &str) -> Option<ErrorBody> {
    let error: Value = serde_json::from_str(raw).ok()?;
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
    if error.is_string() {
        return Some(ErrorBody {
            message: text(&error),
            ..ErrorBody::default()
        });
    }
    error.is_object().then(|| ErrorBody {
        kind: text(&error["type"]),
        message: text(&error["message"]),
        cause: text(&error["details"]["error_code"]),
    })
}

/// The number in an answer of `count_tokens`.
pub fn counted(body: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Answer {
        input_tokens: u64,
    }
    serde_json::from_slice::<Answer>(body)
        .ok()
        .map(|answer| answer.input_tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(raw: &str) -> Option<TokenUsage> {
        Usage::read(raw)?.tokens()
    }

    #[test]
    fn the_prompt_is_the_sum_of_what_was_and_was_not_cached() {
        let full = r#"{"input_tokens":412,"cache_creation_input_tokens":300,"cache_read_input_tokens":2048,
            "cache_creation":{"ephemeral_5m_input_tokens":100,"ephemeral_1h_input_tokens":200},
            "output_tokens":163,"output_tokens_details":{"thinking_tokens":90},"service_tier":"standard"}"#;
        let expected = TokenUsage {
            input: 412 + 300 + 2048,
            cached_input: 2048,
            cache_write: 100,
            cache_write_1h: 200,
            output: 163,
            reasoning: 90,
            ..TokenUsage::default()
        };
        assert_eq!(tokens(full), Some(expected));
    }

    #[test]
    fn a_write_without_its_split_is_of_the_standard_kind() {
        let raw =
            r#"{"input_tokens":1,"cache_creation_input_tokens":30,"cache_read_input_tokens":null,"output_tokens":2}"#;
        let usage = tokens(raw).unwrap();
        assert_eq!((usage.input, usage.cache_write, usage.cache_write_1h), (31, 30, 0));
    }

    #[test]
    fn later_figures_replace_earlier_ones_and_what_they_leave_out_stands() {
        let mut usage = Usage::read(r#"{"input_tokens":10,"cache_read_input_tokens":5,"output_tokens":1}"#).unwrap();
        assert!(usage.update(Usage::read(r#"{"output_tokens":40}"#).unwrap()));
        assert!(
            !usage.update(Usage::read(r#"{"output_tokens":-40}"#).unwrap()),
            "it is impossible"
        );
        assert!(
            !usage.update(Usage::read(r#"{"input_tokens":10}"#).unwrap()),
            "it says nothing of the output"
        );
        let read = usage.tokens().unwrap();
        assert_eq!((read.input, read.cached_input, read.output), (15, 5, 40));
    }

    #[test]
    fn calls_within_a_call_are_charged_together() {
        let raw = r#"{"input_tokens":7,"output_tokens":1,"iterations":[
            {"input_tokens":100,"output_tokens":20},{"input_tokens":7,"cache_read_input_tokens":3,"output_tokens":1}]}"#;
        let usage = tokens(raw).unwrap();
        assert_eq!((usage.input, usage.cached_input, usage.output), (110, 3, 21));
    }

    #[test]
    fn an_impossible_usage_is_none() {
        for raw in [
            "null",
            "{}",
            "[]",
            r#"{"input_tokens":1}"#,
            r#"{"input_tokens":-1,"output_tokens":1}"#,
            r#"{"input_tokens":1,"output_tokens":-1}"#,
            r#"{"input_tokens":1,"output_tokens":1,"cache_read_input_tokens":-5}"#,
            r#"{"input_tokens":"1","output_tokens":1}"#,
            r#"{"input_tokens":1,"output_tokens":9000000000000000000}"#,
        ] {
            assert_eq!(tokens(raw), None, "{raw}");
        }
    }

    #[test]
    fn errors_are_read_in_anthropics_shape_and_in_that_of_its_hosts() {
        let own = br#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded",
            "details":{"error_code":"busy"}},"request_id":"req_1"}"#;
        let read = error(own).unwrap();
        assert_eq!(read.kind.as_deref(), Some("overloaded_error"));
        assert_eq!(read.message.as_deref(), Some("Overloaded"));
        assert_eq!(read.cause.as_deref(), Some("busy"));
        let google = error(br#"{"error":{"code":429,"message":"Quota exceeded","status":"RESOURCE_EXHAUSTED"}}"#);
        assert_eq!(google.unwrap().message.as_deref(), Some("Quota exceeded"));
        assert!(error(b"<html>").is_none());
        assert!(error(br#"{"error":7}"#).is_none());
    }
}
