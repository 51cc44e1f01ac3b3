//! OpenAI's dialect, read into a conversation and written out of events.
//!
//! Used where the caller speaks it and the provider does not. Fields beyond OpenAI's own that travel through its SDKs
//! unharmed, because those keep what they do not know:
//!
//! * `message.reasoning_content`: the thoughts in words, as DeepSeek and others spell it. Only ever answered, never read.
//! * `message.thinking_blocks`: the thoughts as their provider wants to see them again, each with its signature and issuer:
//!   `{"type":"thinking","thinking":"…","signature":"…","issuer":"anthropic"}`, `{"type":"redacted_thinking","data":"…",
//!   "issuer":"anthropic"}`, and `{"type":"text_signature","signature":"…","issuer":"google"}` for a signature of the text.
//!   A client that sends the message back as it got it keeps its provider's reasoning, and the gateway keeps no state.
//! * a signature of a tool call travels inside the call's id, see [`super::ids`].
//! * `cache_control` on a content part, a tool, or the request: where to cache the prompt, in Anthropic's words. OpenAI's own
//!   `prompt_cache_breakpoint` on a part means the same.
//!
//! What a message or a part holds besides is noted by its place (`messages[2].name`), and so reported as dropped.

pub mod read;
pub mod render;
