//! Adapters: what each provider wants to be asked, and what its answers mean.
//!
//! An adapter is pure. A request goes in and the provider's request comes out; bytes go in and relayable bytes, usage and
//! failures come out. No clock, network, environment or runtime, so each one is tested without a socket. Calling the
//! provider is [`crate::upstream`]'s work.
//!
//! Adding a provider is a folder here, one word in `adapters!` and a catalogue file. A provider that speaks OpenAI's
//! format is a row in [`compatible::DIALECTS`].

pub mod adapter;
pub mod allowance;
pub mod cache_marks;
pub mod choices;
#[cfg(test)]
mod conformance;
mod cuts;
pub mod event_stream;
pub mod fence;
pub mod matrix;
pub mod retry_after;
pub mod sse;
#[cfg(test)]
mod testing;
pub mod translate;

use std::sync::Arc;

use crate::config::ProviderKind;
use adapter::Adapter;

macro_rules! adapters {
    ($($(#[$doc:meta])* $module:ident: $($kind:ident)|+),+ $(,)?) => {
        $($(#[$doc])* pub mod $module;)+

        /// The adapter for a configured provider.
        pub fn build(kind: &ProviderKind) -> Arc<dyn Adapter> {
            match kind { $($(ProviderKind::$kind { .. })|+ => Arc::new($module::build(kind)),)+ }
        }
    };
}

adapters! {
    /// OpenAI itself.
    openai: OpenAi,
    /// Azure OpenAI.
    azure: Azure,
    /// Anthropic.
    anthropic: Anthropic,
    /// Amazon Bedrock.
    bedrock: Aws,
    /// Google's models, on Vertex AI and on the Gemini Developer API.
    gemini: Gcp | Gemini,
    /// Anything that speaks OpenAI's format.
    compatible: Compatible,
    /// The built-in model that repeats what it is told.
    echo: Echo,
}
