//! `[providers.anthropic]` and the variables of Anthropic's own SDKs.

use http::Uri;

use super::ProviderKind;
use super::form::{API_KEY, Form, Secret};
use crate::config::faults::Fault;

/// Set, it configures this provider by itself.
pub(super) const API_KEY_VARIABLE: &str = "ANTHROPIC_API_KEY";

pub(super) const KEYS: [&str; 3] = ["base_url", "api_key_env", "api_key_file"];

const BASE_URL: &str = "https://api.anthropic.com";

pub(super) fn read(form: &mut Form<'_>) -> Option<ProviderKind> {
    let base_url = form.url_or("base_url", &["ANTHROPIC_BASE_URL"], BASE_URL);
    let api_key = match form.secret(&API_KEY, &[API_KEY_VARIABLE]) {
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
    Some(ProviderKind::Anthropic {
        base_url: without_version(base_url?, "/v1"),
        api_key: api_key?,
    })
}

/// `url` without the version at its end, which some people write and our paths bring along.
pub(super) fn without_version(url: Uri, version: &str) -> Uri {
    let Some(shorter) = url.path().trim_end_matches('/').strip_suffix(version) else {
        return url;
    };
    let path = if shorter.is_empty() { "/" } else { shorter };
    let path = path.parse().expect("the beginning of a path is a path");
    let mut parts = url.into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).expect("a URL with a shorter path is a URL")
}
