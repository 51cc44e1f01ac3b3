//! Secrets: the master key everything of ours derives from, and the credentials providers gave us with the stores they
//! are read from.
//!
//! Secret values live in `secrecy` types or in header values marked sensitive. They are never part of an error, a log line
//! or a `Debug` form.

pub mod credential;
pub mod entra;
pub mod master_key;
pub mod source;
