//! The conversation as every layer above sees it: requests, answers and their token counts.
//!
//! A request is walked once, in place. The walk checks what we rely on, keeps what decides the call (model, stream,
//! limits, size) with the byte positions we may have to change, and leaves everything else where it is, so that the
//! caller's own bytes can be forwarded. Start with [`request`].
//!
//! Where caller and provider do not speak the same dialect, the body is read a second time, into a [`conversation`], and
//! the answer passes through [`event`]s and a [`render`]er.

pub mod anthropic;
pub mod arguments;
pub mod conversation;
pub mod data_url;
pub mod embedding;
pub mod estimate;
pub mod event;
pub mod history;
pub mod ids;
pub mod media;
pub mod openai;
pub mod param;
pub mod render;
pub mod request;
#[cfg(test)]
mod testing;
pub mod walk;
