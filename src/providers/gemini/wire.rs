//! The parts of Google's answers that the gateway reads.
//!
//! Nearly everything may be missing: the service leaves out what is zero, empty or unset. Fields nobody here knows are
//! ignored.
//!
//! # Source
//! "GenerateContentResponse", "Candidate", "Content", "Part" and "UsageMetadata" of
//! <https://ai.google.dev/api/generate-content>; errors: "google.rpc.Status", <https://google.aip.dev/193>.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::service::{Service, Tier};
use crate::domain::usage::TokenUsage;

/// No call has more tokens of any kind; a larger figure is a broken or hostile answer.
const MAX_TOKENS: f64 = 1e12;

/// A whole answer, or one event of a stream.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Answer {
    pub(super) candidates: Option<Vec<Candidate>>,
    pub(super) prompt_feedback: Option<PromptFeedback>,
    /// Read by [`Usage::read`], so that an odd figure does not cost the answer.
    pub(super) usage_metadata: Option<Value>,
    pub(super) response_id: Option<String>,
    /// What went wrong, in an answer of status 200.
    pub(super) error: Option<Value>,
}

/// Why there is no candidate.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PromptFeedback {
    pub(super) block_reason: Option<String>,
}

/// One of the answers.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Candidate {
    pub(super) index: Option<u32>,
    pub(super) content: Option<Content>,
    pub(super) finish_reason: Option<String>,
    pub(super) logprobs_result: Option<LogprobsResult>,
    pub(super) grounding_metadata: Option<GroundingMetadata>,
    pub(super) citation_metadata: Option<CitationMetadata>,
}

/// What a candidate says.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Content {
    pub(super) parts: Option<Vec<Part>>,
}

/// A piece of what it says. One of the members is set, or one that is not known here.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Part {
    pub(super) text: Option<String>,
    pub(super) thought: Option<bool>,
    pub(super) thought_signature: Option<String>,
    pub(super) function_call: Option<FunctionCall>,
    pub(super) inline_data: Option<Blob>,
    /// A file at an address.
    pub(super) file_data: Option<Blob>,
}

/// A call of a function, whole.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct FunctionCall {
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    /// Handed on as they were written.
    pub(super) args: Option<Box<RawValue>>,
    /// Set where arguments come in pieces, which is never asked for.
    pub(super) partial_args: Option<Value>,
    /// The same.
    pub(super) will_continue: Option<bool>,
}

/// Bytes in base64.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Blob {
    pub(super) mime_type: Option<String>,
    pub(super) data: Option<String>,
}

/// Probabilities, one entry a token.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LogprobsResult {
    pub(super) chosen_candidates: Option<Vec<TokenLogprob>>,
    pub(super) top_candidates: Option<Vec<TopCandidates>>,
}

/// The probability of a token.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct TokenLogprob {
    pub(super) token: Option<String>,
    pub(super) log_probability: Option<f64>,
}

/// The alternatives at one place.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct TopCandidates {
    pub(super) candidates: Option<Vec<TokenLogprob>>,
}

/// What a search found, and where the answer rests on it.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct GroundingMetadata {
    pub(super) grounding_chunks: Option<Vec<GroundingChunk>>,
    pub(super) grounding_supports: Option<Vec<GroundingSupport>>,
}

/// A page.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct GroundingChunk {
    pub(super) web: Option<WebPage>,
}

/// Its address.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct WebPage {
    pub(super) uri: Option<String>,
    pub(super) title: Option<String>,
}

/// A stretch of the answer and the pages it rests on.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct GroundingSupport {
    pub(super) segment: Option<Segment>,
    pub(super) grounding_chunk_indices: Option<Vec<usize>>,
}

/// A stretch of the answer, in bytes of UTF-8.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Segment {
    pub(super) start_index: Option<usize>,
    pub(super) end_index: Option<usize>,
}

/// What the answer quotes. The hosts disagree about the name of the list.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct CitationMetadata {
    #[serde(alias = "citationSources")]
    pub(super) citations: Option<Vec<Citation>>,
}

/// A stretch that is quoted, in bytes of UTF-8.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Citation {
    pub(super) start_index: Option<usize>,
    pub(super) end_index: Option<usize>,
    pub(super) uri: Option<String>,
    pub(super) title: Option<String>,
}

/// The number in an answer of `countTokens`.
pub(super) fn counted(body: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        total_tokens: u64,
    }
    serde_json::from_slice::<Answer>(body)
        .ok()
        .map(|answer| answer.total_tokens)
}

/// Token counts as they were reported, each the largest that was seen: a stream repeats and completes them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Usage {
    prompt: u64,
    cached: u64,
    tool_use: u64,
    candidates: u64,
    thoughts: u64,
    total: u64,
    audio_prompt: u64,
    audio_candidates: u64,
    service: Option<Service>,
}

impl Usage {
    /// Takes in a `usageMetadata`. Says whether anything was counted so far; what is impossible, such as a negative count,
    /// is nothing at all.
    pub fn read(&mut self, raw: &Value) -> bool {
        let Some(seen) = Self::of(raw) else { return false };
        for (kept, seen) in self.counts().into_iter().zip(seen.clone().counts()) {
            *kept = (*kept).max(*seen);
        }
        self.service = service(&raw["trafficType"]).or(self.service);
        *self != Self::default() || !raw["promptTokenCount"].is_null()
    }

    fn of(raw: &Value) -> Option<Self> {
        let count = |raw: &Value| match raw {
            Value::Null => Some(0),
            // Whole numbers, which some back ends write as text or with a decimal point.
            raw => {
                let number = raw.as_f64().or_else(|| raw.as_str()?.parse().ok())?;
                (0.0..=MAX_TOKENS).contains(&number).then_some(number as u64)
            }
        };
        let audio = |details: &Value| {
            let audio = details
                .as_array()
                .and_then(|list| list.iter().find(|one| one["modality"] == "AUDIO"));
            audio.map_or(Some(0), |one| count(&one["tokenCount"]))
        };
        raw.is_object().then_some(())?;
        Some(Self {
            prompt: count(&raw["promptTokenCount"])?,
            cached: count(&raw["cachedContentTokenCount"])?,
            tool_use: count(&raw["toolUsePromptTokenCount"])?,
            candidates: count(&raw["candidatesTokenCount"])?,
            thoughts: count(&raw["thoughtsTokenCount"])?,
            total: count(&raw["totalTokenCount"])?,
            audio_prompt: audio(&raw["promptTokensDetails"])?,
            audio_candidates: audio(&raw["candidatesTokensDetails"])?,
            service: None,
        })
    }

    fn counts(&mut self) -> [&mut u64; 8] {
        [
            &mut self.prompt,
            &mut self.cached,
            &mut self.tool_use,
            &mut self.candidates,
            &mut self.thoughts,
            &mut self.total,
            &mut self.audio_prompt,
            &mut self.audio_candidates,
        ]
    }

    /// The same in our form. Thoughts are not part of the candidates' count, unless the total says that they are.
    pub fn tokens(&self) -> TokenUsage {
        let without_thoughts = self.prompt + self.tool_use + self.candidates;
        let inclusive = self.thoughts > 0 && self.thoughts <= self.candidates && self.total == without_thoughts;
        TokenUsage {
            input: self.prompt + self.tool_use,
            cached_input: self.cached,
            output: self.candidates + if inclusive { 0 } else { self.thoughts },
            reasoning: self.thoughts,
            audio_input: self.audio_prompt,
            audio_output: self.audio_candidates,
            service: self.service,
            ..TokenUsage::default()
        }
        .consistent()
    }
}

/// The service that a `trafficType` names; `None` where it says nothing that we know.
///
/// # Source
/// `UsageMetadata.trafficType` of Vertex AI's reference: `ON_DEMAND_PRIORITY`, `ON_DEMAND_FLEX` and the usual kinds.
fn service(traffic: &Value) -> Option<Service> {
    let tier = match traffic.as_str()? {
        "ON_DEMAND" | "PROVISIONED_THROUGHPUT" => Tier::Standard,
        "ON_DEMAND_PRIORITY" => Tier::Priority,
        "ON_DEMAND_FLEX" => Tier::Flex,
        _ => return None,
    };
    Some(Service { tier, in_us: false })
}

/// Whether an error body is in Anthropic's envelope: there, the body says that it is one.
pub(super) fn is_anthropic_error(body: &[u8]) -> bool {
    let body: Option<Value> = serde_json::from_slice(body).ok();
    body.is_some_and(|body| body["type"] == "error")
}

/// An error in Google's shape.
#[derive(Deserialize, Default, Debug)]
#[serde(default)]
pub(super) struct Status {
    pub(super) code: Option<u16>,
    pub(super) message: Option<String>,
    /// Such as `RESOURCE_EXHAUSTED`.
    pub(super) status: Option<String>,
    pub(super) details: Option<Vec<Value>>,
}

impl Status {
    /// Reads an error body: an object with an `error`, or an array that begins with one.
    pub(super) fn of_body(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let body = body.get(0).unwrap_or(&body);
        Self::of(body.get("error")?)
    }

    /// Reads the value of an `error` field: an object, or, from the services in front, just a text.
    pub(super) fn of(error: &Value) -> Option<Self> {
        match error {
            Value::String(message) => Some(Self {
                message: Some(message.clone()),
                ..Self::default()
            }),
            Value::Object(_) => Self::deserialize(error).ok(),
            _ => None,
        }
    }

    /// The details of a kind, such as `RetryInfo`.
    pub(super) fn details(&self, kind: &str) -> impl Iterator<Item = &Value> {
        let full_name = format!("type.googleapis.com/google.rpc.{kind}");
        let details = self.details.as_deref().unwrap_or_default();
        details
            .iter()
            .filter(move |detail| detail["@type"] == full_name.as_str())
    }

    /// The machine-readable reasons, such as `API_KEY_INVALID`.
    pub(super) fn has_reason(&self, reason: &str) -> bool {
        self.details("ErrorInfo").any(|info| info["reason"] == reason)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tokens(raw: Value) -> TokenUsage {
        let mut usage = Usage::default();
        usage.read(&raw);
        usage.tokens()
    }

    #[test]
    fn thoughts_are_added_to_the_output_unless_the_total_says_that_they_are_in_it() {
        let apart = tokens(
            json!({"promptTokenCount": 1210, "cachedContentTokenCount": 1024, "candidatesTokenCount": 6,
                                  "thoughtsTokenCount": 88, "totalTokenCount": 1304}),
        );
        assert_eq!(
            (apart.input, apart.cached_input, apart.output, apart.reasoning),
            (1210, 1024, 94, 88)
        );
        let inside = tokens(
            json!({"promptTokenCount": 10, "candidatesTokenCount": 94, "thoughtsTokenCount": 88,
                                   "totalTokenCount": 104}),
        );
        assert_eq!((inside.output, inside.reasoning), (94, 88));
        let of_tools = tokens(json!({"promptTokenCount": 10, "toolUsePromptTokenCount": 7, "candidatesTokenCount": 2}));
        assert_eq!((of_tools.input, of_tools.output), (17, 2));
    }

    #[test]
    fn a_stream_completes_its_counts_and_odd_ones_are_nothing() {
        let mut usage = Usage::default();
        assert!(usage.read(&json!({"promptTokenCount": 7, "thoughtsTokenCount": 21})));
        assert!(usage.read(&json!({"promptTokenCount": 7, "candidatesTokenCount": "14", "totalTokenCount": 42.0})));
        let before = usage;
        assert_eq!((usage.tokens().input, usage.tokens().output), (7, 35));
        for odd in [
            json!(null),
            json!([]),
            json!({"promptTokenCount": -1}),
            json!({"promptTokenCount": 1e99}),
        ] {
            usage.read(&odd);
            assert_eq!(usage, before, "{odd}");
        }
        assert!(!Usage::default().read(&json!({})));
    }

    #[test]
    fn audio_is_counted_where_the_details_tell() {
        let usage = tokens(
            json!({"promptTokenCount": 30, "candidatesTokenCount": 1, "totalTokenCount": 31,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 10}, {"modality": "AUDIO", "tokenCount": 20}]}),
        );
        assert_eq!((usage.audio_input, usage.audio_output), (20, 0));
    }
}
