//! What an organization may say itself in a credential of its own: values, and never where requests go or where values
//! come from.
//!
//! Whoever runs the gateway writes addresses into its configuration, and those are believed. A credential that an
//! organization's admin hands in must not send requests, or another party's token, to an address of its choice, and must
//! not have the gateway read a file or ask a metadata service. So only these fields are taken, and those that hold an
//! address are held to the vendor's own.

use secrecy::ExposeSecret as _;
use serde_json::Value;

use crate::config::Fields;

/// Longest value, in bytes: a service account's JSON is a tenth of it.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;
/// What any credential may say.
pub const COMMON: [&str; 2] = ["weight", "max_concurrent"];
/// Where Google's token service is.
const GOOGLE_TOKEN_URL: &str = "https://oauth2.googleapis.com/token";
/// Domains that Azure gives its resources names in.
///
/// # Source
/// "Configure network settings for Foundry tools",
/// <https://learn.microsoft.com/azure/ai-services/cognitive-services-virtual-networks>, and the domains of Azure
/// Government and of Azure in China.
const AZURE_DOMAINS: [&str; 6] = [
    ".openai.azure.com",
    ".cognitiveservices.azure.com",
    ".services.ai.azure.com",
    ".openai.azure.us",
    ".cognitiveservices.azure.us",
    ".openai.azure.cn",
];

/// What a credential for a provider may say, besides [`COMMON`] what any may.
pub fn values(provider: &str) -> &'static [&'static str] {
    match provider {
        "openai" => &["api_key", "organization", "project"],
        "anthropic" | "gemini" => &["api_key"],
        "azure" => &[
            "endpoint",
            "api_key",
            "tenant_id",
            "client_id",
            "client_secret",
            "api_version",
        ],
        "aws" => &[
            "access_key_id",
            "secret_access_key",
            "session_token",
            "region",
            "role_arn",
            "external_id",
            "bearer_token",
        ],
        "gcp" => &["project_id", "region", "service_account"],
        // An endpoint of one's own is configured with its address; a credential says who asks there.
        _ => &["api_key"],
    }
}

/// What is wrong with a credential of an organization's own, field by field; empty: nothing is.
pub fn faults(provider: &str, fields: &Fields) -> Vec<(String, String)> {
    let own = values(provider);
    let mut faults = Vec::new();
    for (name, value) in fields.iter() {
        let value = value.expose_secret();
        let mut fault = |problem: String| faults.push((name.to_owned(), problem));
        if !own.contains(&name) && !COMMON.contains(&name) {
            let all: Vec<&str> = own.iter().chain(&COMMON).copied().collect();
            fault(format!("is not a value of {provider}; there are {}", all.join(", ")));
        } else if value.trim().is_empty() || value.len() > MAX_VALUE_BYTES {
            fault(format!("must have 1 to {MAX_VALUE_BYTES} bytes"));
        } else if name == "endpoint"
            && let Err(problem) = azure_resource(value)
        {
            fault(problem);
        } else if name == "service_account"
            && let Err(problem) = plain_service_account(value)
        {
            fault(problem);
        }
    }
    faults
}

/// An address below one of Azure's domains.
fn azure_resource(text: &str) -> Result<(), String> {
    let uri: http::Uri = text.trim().parse().map_err(|_| "is not a URL".to_owned())?;
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let label = |domain: &&&str| {
        host.strip_suffix(**domain).is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
    };
    let at_azure = AZURE_DOMAINS.iter().any(|domain| label(&domain));
    let usual_port = uri.port_u16().is_none_or(|port| port == 443);
    match uri.scheme_str() == Some("https") && at_azure && usual_port {
        true => Ok(()),
        false => Err(
            "must be an https address of an Azure resource, such as https://name.openai.azure.com; others are \
                      written into the gateway's configuration by whoever runs it"
                .to_owned(),
        ),
    }
}

/// A service account's key, whose tokens come from Google. Other kinds of Google's credential files name files, programs
/// and addresses that the gateway would have to trust.
fn plain_service_account(text: &str) -> Result<(), String> {
    let document: Value = serde_json::from_str(text).map_err(|_| "must be the JSON of a service account's key")?;
    if document["type"] != "service_account" {
        return Err("must be the key of a service account, with \"type\": \"service_account\"".to_owned());
    }
    match document.get("token_uri") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(uri)) if uri == GOOGLE_TOKEN_URL => Ok(()),
        Some(_) => Err(format!("token_uri must be {GOOGLE_TOKEN_URL}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_fault(provider: &str, fields: &[(&str, &str)]) -> Vec<String> {
        let fields: Fields = fields
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        faults(provider, &fields).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn values_are_taken_and_addresses_of_ones_own_are_not() {
        assert!(at_fault("openai", &[("api_key", "sk-x"), ("project", "p"), ("weight", "3")]).is_empty());
        assert_eq!(at_fault("openai", &[("base_url", "https://example.com")]), ["base_url"]);
        assert_eq!(
            at_fault("groq", &[("api_key", "x"), ("base_url", "http://169.254.169.254")]),
            ["base_url"]
        );
        assert_eq!(
            at_fault("aws", &[("sts_url", "http://10.0.0.1"), ("region", "eu-central-1")]),
            ["sts_url"]
        );
        assert_eq!(at_fault("anthropic", &[("api_key", " ")]), ["api_key"]);
    }

    #[test]
    fn an_azure_resource_is_one_of_azures() {
        for good in [
            "https://acme.openai.azure.com",
            "https://acme-2.cognitiveservices.azure.com/",
            "https://a.services.ai.azure.com:443",
        ] {
            assert!(at_fault("azure", &[("endpoint", good)]).is_empty(), "{good}");
        }
        for bad in [
            "http://acme.openai.azure.com",
            "https://openai.azure.com.example.com",
            "https://.openai.azure.com",
            "https://169.254.169.254",
            "https://acme.openai.azure.com:8080",
            "https://a@b.openai.azure.com.evil.example",
            "https://evil.example/.openai.azure.com",
            "acme.openai.azure.com",
        ] {
            assert_eq!(at_fault("azure", &[("endpoint", bad)]), ["endpoint"], "{bad}");
        }
    }

    #[test]
    fn a_service_account_gets_its_tokens_from_google() {
        let key = |kind: &str, uri: &str| format!(r#"{{"type": "{kind}", "token_uri": "{uri}", "private_key": "x"}}"#);
        assert!(at_fault("gcp", &[("service_account", &key("service_account", GOOGLE_TOKEN_URL))]).is_empty());
        assert!(at_fault("gcp", &[("service_account", r#"{"type": "service_account"}"#)]).is_empty());
        for bad in [
            key("service_account", "http://169.254.169.254/token"),
            key("external_account", GOOGLE_TOKEN_URL),
            "{".to_owned(),
        ] {
            assert_eq!(
                at_fault("gcp", &[("service_account", &bad)]),
                ["service_account"],
                "{bad}"
            );
        }
    }
}
