//! The conversation as every layer above sees it: requests, answers and their token counts.
//!
//! A request is walked once, in place. The walk checks what we rely on, keeps what decides the call (model, stream,
//! limits, size) with the byte positions we may have to change, and leaves everything else where it is, so that the
//! caller's own bytes can be forwarded. Start with [`request`].

pub mod data_url;
pub mod estimate;
pub mod media;
pub mod request;
pub mod walk;
