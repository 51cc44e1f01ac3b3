//! `[providers.openai]` and the variables of OpenAI's own SDKs.

use super::ProviderKind;
use super::form::{API_KEY, Form, Secret};
use crate::config::faults::Fault;

/// Set, it configures this provider by itself.
pub(super) const API_KEY_VARIABLE: &str = "OPENAI_API_KEY";

pub(super) const KEYS: [&str; 5] = ["base_url", "api_key_env", "api_key_file", "organization", "project"];

const BASE_URL: &str = "https://api.openai.com/v1";

pub(super) fn read(form: &mut Form<'_>) -> Option<ProviderKind> {
    let base_url = form.url_or("base_url", &["OPENAI_BASE_URL"], BASE_URL);
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
    let organization = form.plain_text("organization", &["OPENAI_ORG_ID", "OPENAI_ORGANIZATION"]);
    let project = form.plain_text("project", &["OPENAI_PROJECT_ID", "OPENAI_PROJECT"]);
    if let Some(base_url) = &base_url {
        form.warn_if_in_the_clear(base_url);
    }
    Some(ProviderKind::OpenAi {
        base_url: base_url?,
        api_key: api_key?,
        organization: organization.map(|found| found.value),
        project: project.map(|found| found.value),
    })
}
