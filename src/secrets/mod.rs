//! Secrets: the master key everything of ours derives from, and the credentials providers gave us with the stores they
//! are read from.
//!
//! A provider's [`credential`] authorizes requests. What of it expires lives in a [`cell`], which fetches it anew from
//! [`entra`], [`google`] or [`aws`].
//!
//! Secret values live in `secrecy` types or in header values marked sensitive. They are never part of an error, a log line
//! or a `Debug` form.

pub mod aws;
pub mod cache_seal;
pub mod cell;
pub mod credential;
pub mod csrf;
pub mod entra;
mod exchange;
pub mod google;
pub mod management_token;
pub mod master_key;
pub mod oidc;
pub mod password;
pub mod payload_seal;
pub mod refresh_token;
pub mod sealing;
pub mod source;
pub mod webhook;
