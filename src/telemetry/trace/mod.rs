//! Traces: what happened to one request, from its caller's own trace to its row in the ledger, as OTLP spans.
//!
//! Where work is done, [`Ambient`] says for whom: it holds the request's id and the place in its trace, travels with a task
//! (or inside an actor's message), and is what log lines take their ids from. A [`Span`] is begun out of it. Whether a
//! trace is recorded is decided once, when it begins; where it is not, a span is `None`, and nothing is put together for
//! it.
//!
//! Spans are made of OTLP's own messages, and go to [`export`] through a queue that never waits. Names and attributes are in
//! [`super::names::trace`]. Start with [`Tracer::serve`].

mod ambient;
pub mod export;
pub mod gen_ai;
mod span;
mod tracer;

pub use ambient::Ambient;
pub use span::{Kind, Span, Value};
pub use tracer::{Propagation, Tracer};
