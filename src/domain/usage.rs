//! What a call consumed, counted in tokens.
//!
//! Providers disagree about which counts include which: Anthropic and Bedrock leave cached tokens out of the input
//! count, Gemini leaves reasoning out of the output count. Each adapter brings its provider's figures into the one form
//! here, which is OpenAI's: totals, with parts that are contained in them.
//!
//! | provider | prompt count includes cached and written tokens | output count includes reasoning |
//! |---|---|---|
//! | OpenAI, Azure | yes | yes |
//! | imitators of OpenAI | yes | yes, unless the total says that it stands beside it (xAI) |
//! | Anthropic, Claude on Vertex | no: add both | yes |
//! | Bedrock's Converse | no: add both | yes |
//! | Gemini | yes (nothing is reported as written) | no: add the thoughts |
//!
//! `tests/suite/costs.toml` has a usage of each with its split and its cost.

use super::service::Service;

/// Tokens of one call. Parts are contained in their totals.
///
/// `cached_input`, `cache_write` and `cache_write_1h` exclude each other, and what is left of `input` pays the ordinary
/// rate. `reasoning` and the audio parts overlap with anything and are not charged apart: no price list in the catalogue
/// has a rate for them beside that of their total.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TokenUsage {
    /// Everything that was read: the whole prompt, cached tokens included.
    pub input: u64,
    /// Part of `input` that came out of a prompt cache.
    pub cached_input: u64,
    /// Part of `input` that was written to a prompt cache with the provider's standard lifetime.
    pub cache_write: u64,
    /// Part of `input` that was written to a prompt cache for one hour, which Anthropic charges apart.
    pub cache_write_1h: u64,
    /// Everything that was generated, reasoning included.
    pub output: u64,
    /// Part of `output` that the model spent on reasoning.
    pub reasoning: u64,
    /// Part of `input` that was audio.
    pub audio_input: u64,
    /// Part of `output` that was audio.
    pub audio_output: u64,
    /// How the call was served, where the answer says so.
    pub service: Option<Service>,
}

impl TokenUsage {
    /// Input and output together.
    pub fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// The same usage with every part cut down to what its total can contain.
    ///
    /// A provider that reports more cached tokens than input tokens would otherwise make a price negative.
    #[must_use]
    pub fn consistent(mut self) -> Self {
        self.cached_input = self.cached_input.min(self.input);
        let rest = self.input - self.cached_input;
        self.cache_write = self.cache_write.min(rest);
        self.cache_write_1h = self.cache_write_1h.min(rest - self.cache_write);
        self.reasoning = self.reasoning.min(self.output);
        self.audio_input = self.audio_input.min(self.input);
        self.audio_output = self.audio_output.min(self.output);
        self
    }
}

/// Where the figures of a usage come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UsageSource {
    /// The provider said so.
    Reported,
    /// We counted what we saw, because the provider did not say or was not listened to until the end.
    Estimated,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_never_exceed_their_totals(
            input in 0..1_000u64, cached in 0..2_000u64, write in 0..2_000u64, hour in 0..2_000u64,
            output in 0..1_000u64, reasoning in 0..2_000u64,
        ) {
            let usage = TokenUsage {
                input, cached_input: cached, cache_write: write, cache_write_1h: hour, output, reasoning,
                ..TokenUsage::default()
            }.consistent();
            prop_assert!(usage.cached_input + usage.cache_write + usage.cache_write_1h <= usage.input);
            prop_assert!(usage.reasoning <= usage.output);
            prop_assert_eq!((usage.input, usage.output), (input, output));
        }
    }
}
