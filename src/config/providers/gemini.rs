//! `[providers.gemini]`, the Gemini Developer API, and the variables of its own SDKs.
//!
//! GOOGLE_API_KEY is also what keys for maps and other services of Google are called, so it fills a table and never
//! makes this provider by itself.

use super::ProviderKind;
use super::anthropic::without_version;
use super::form::{API_KEY, Form, Secret};
use crate::config::faults::Fault;

/// Set, it configures this provider by itself.
pub(super) const API_KEY_VARIABLE: &str = "GEMINI_API_KEY";

pub(super) const KEYS: [&str; 3] = ["base_url", "api_key_env", "api_key_file"];

const BASE_URL: &str = "https://generativelanguage.googleapis.com";

pub(super) fn read(form: &mut Form<'_>) -> Option<ProviderKind> {
    let base_url = form.url_or("base_url", &["GOOGLE_GEMINI_BASE_URL"], BASE_URL);
    let api_key = match form.secret(&API_KEY, &[API_KEY_VARIABLE, "GOOGLE_API_KEY"]) {
        Secret::Found(key) => Some(key),
        Secret::Faulty => None,
        Secret::Absent => {
            let fault = Fault::new(form.at("api_key_env"), "this provider has no credential");
            let hint = format!("set {API_KEY_VARIABLE}, or write api_key_env or api_key_file");
            form.missing.push(fault.hint(hint));
            None
        }
    };
    if let Some(base_url) = &base_url {
        form.warn_if_in_the_clear(base_url);
    }
    Some(ProviderKind::Gemini {
        base_url: without_version(base_url?, "/v1beta"),
        api_key: api_key?,
    })
}
