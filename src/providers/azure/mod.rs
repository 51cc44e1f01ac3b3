//! Azure OpenAI: OpenAI's format with Azure's paths, credentials, content filter and errors.
//!
//! # Source
//! "Azure OpenAI in Microsoft Foundry Models REST API reference",
//! <https://learn.microsoft.com/azure/ai-services/openai/reference>, and "Content filtering", same site.

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, StatusCode};

use crate::chat::param::Param;
use crate::chat::request::Request;
use crate::config::{AzureAuth, AzureSurface, ProviderKind};
use crate::domain::call::Operation;
use crate::providers::adapter::{Adapter, AuthScheme, Exchange, Failure, Listing, Support, Target, Unencodable};
use crate::providers::openai::decode::StreamRules;
use crate::providers::openai::encode::{Edits, Paths};
use crate::providers::openai::write::Manner;
use crate::providers::openai::{exchange, failure};

/// Azure's adapter.
#[derive(Debug)]
pub struct Azure {
    surface: Surface,
    auth: AuthScheme,
}

/// Which of Azure's two URL forms is used.
#[derive(Debug)]
enum Surface {
    /// `/openai/v1/…`, with the deployment's name as the model.
    V1(Paths),
    /// `/openai/deployments/{deployment}/…?api-version=…`.
    Deployments { base_path: String, api_version: String },
}

/// The adapter for a configured Azure resource.
pub fn build(kind: &ProviderKind) -> Azure {
    let ProviderKind::Azure {
        base_url,
        surface,
        auth,
    } = kind
    else {
        unreachable!("the registration pairs kinds and adapters")
    };
    let base_path = base_url.path().trim_end_matches('/').to_owned();
    Azure {
        surface: match surface {
            AzureSurface::V1 => Surface::V1(Paths::with_query(&format!("{base_path}/openai/v1"), "")),
            AzureSurface::Deployments { api_version } => Surface::Deployments {
                base_path,
                api_version: escaped(api_version),
            },
        },
        auth: match auth {
            AzureAuth::ApiKey(_) => AuthScheme::Header(HeaderName::from_static("api-key")),
            AzureAuth::ClientCredentials { .. }
            | AzureAuth::WorkloadIdentity { .. }
            | AzureAuth::ManagedIdentity { .. } => AuthScheme::Bearer,
        },
    }
}

impl Azure {
    fn path(&self, operation: Operation, deployment: &str) -> PathAndQuery {
        match &self.surface {
            Surface::V1(paths) => paths.of(operation),
            Surface::Deployments { base_path, api_version } => Paths::with_query(
                &format!("{base_path}/openai/deployments/{}", escaped(deployment)),
                &format!("?api-version={api_version}"),
            )
            .of(operation),
        }
    }
}

impl Adapter for Azure {
    fn encode(&self, request: &Request, target: &Target<'_>) -> Result<Exchange, Unencodable> {
        let edits = Edits {
            model: Some(target.wire_name),
            report_usage: true,
            modern_max_tokens: target.reasoning,
        };
        let rules = StreamRules {
            done_marker: true,
            merges_filter_records: true,
        };
        let path = |operation| self.path(operation, target.wire_name);
        exchange(request, target, path, &edits, self.auth.clone(), rules, Manner::GENUINE)
    }

    fn support(&self, _param: Param) -> Support {
        Support::Forwarded
    }

    fn serves(&self, _operation: Operation) -> bool {
        true
    }

    fn failure(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
        failure::read(status, headers, body)
    }

    fn listing(&self) -> Option<Listing> {
        let path = match &self.surface {
            Surface::V1(paths) => paths.models(),
            Surface::Deployments { base_path, api_version } => {
                Paths::with_query(&format!("{base_path}/openai"), &format!("?api-version={api_version}")).models()
            }
        };
        Some(Listing::at(path, self.auth.clone()))
    }

    fn request_id<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        // The first is the one Azure's support asks for.
        ["apim-request-id", "x-ms-request-id", "x-request-id"]
            .iter()
            .find_map(|name| headers.get(*name).and_then(|id| id.to_str().ok()))
    }
}

/// A name as one segment of a path: everything that is not unreserved is percent-encoded (RFC 3986, section 2.3).
fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(byte as char),
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests;
