//! The tokens a request took, as chat and completions report them.

use poem_openapi::Object;

/// The tokens a request took.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct CompletionUsage {
    /// The tokens of the request, including those that were read from or written to the provider's cache.
    prompt_tokens: i64,
    /// The tokens of the answer, including those of reasoning.
    completion_tokens: i64,
    /// The sum of the two.
    total_tokens: i64,
    /// Parts of `prompt_tokens`.
    prompt_tokens_details: Option<PromptTokensDetails>,
    /// Parts of `completion_tokens`.
    completion_tokens_details: Option<CompletionTokensDetails>,
}

/// Parts of `prompt_tokens`.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct PromptTokensDetails {
    /// Tokens that were read from the provider's cache.
    cached_tokens: Option<i64>,
    /// Tokens that were written to the provider's cache.
    cache_write_tokens: Option<i64>,
    /// Tokens of sound.
    audio_tokens: Option<i64>,
    /// Tokens of images.
    image_tokens: Option<i64>,
    /// Tokens of text.
    text_tokens: Option<i64>,
}

/// Parts of `completion_tokens`.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct CompletionTokensDetails {
    /// Tokens the model thought before it answered.
    reasoning_tokens: Option<i64>,
    /// Tokens of sound.
    audio_tokens: Option<i64>,
    /// Tokens of text.
    text_tokens: Option<i64>,
    /// Tokens of `prediction` that the answer took over.
    accepted_prediction_tokens: Option<i64>,
    /// Tokens of `prediction` that it did not take over. They are paid for.
    rejected_prediction_tokens: Option<i64>,
}
