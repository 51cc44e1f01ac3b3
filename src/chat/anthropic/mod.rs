//! Anthropic's dialect, read into a conversation and written out of events.
//!
//! Used where the caller speaks it and the provider does not; an Anthropic provider gets the caller's own bytes.

pub mod read;
pub mod render;
