//! What each kind of provider takes, told by the adapters themselves: the table in `docs/capabilities.md`.

use std::fmt::Write as _;
use std::sync::Arc;

use http::Uri;
use secrecy::SecretString;

use super::adapter::Adapter;
use super::compatible::DIALECTS;
use crate::chat::param::Param;
use crate::config::{AwsAuth, AzureAuth, AzureSurface, GcpAuth, ProviderKind};
use crate::domain::call::Operation;

/// A kind of provider.
#[derive(Debug)]
pub struct Kind {
    /// Its id, or `compatible` for everything that speaks OpenAI's format.
    pub id: &'static str,
    /// Its adapter.
    pub adapter: Arc<dyn Adapter>,
}

/// Every kind of provider, in the order of the documentation.
pub fn kinds() -> Vec<Kind> {
    KINDS
        .iter()
        .map(|&id| Kind {
            id,
            adapter: super::build(&example(id)),
        })
        .collect()
}

const KINDS: [&str; 8] = [
    "openai",
    "azure",
    "anthropic",
    "aws",
    "gcp",
    "gemini",
    "compatible",
    "echo",
];

/// A provider that is never called, to ask its adapter what it takes.
fn example(id: &str) -> ProviderKind {
    let url = Uri::from_static("https://provider.invalid/v1");
    let secret = || SecretString::from("none");
    match id {
        "openai" => ProviderKind::OpenAi {
            base_url: url,
            api_key: secret(),
            organization: None,
            project: None,
        },
        "azure" => ProviderKind::Azure {
            base_url: url,
            surface: AzureSurface::V1,
            auth: AzureAuth::ApiKey(secret()),
        },
        "anthropic" => ProviderKind::Anthropic {
            base_url: url,
            api_key: secret(),
        },
        "aws" => ProviderKind::Aws {
            base_url: url.clone(),
            region: "us-east-1".to_owned(),
            auth: AwsAuth::Bearer(secret()),
            sts_url: url,
        },
        "gcp" => ProviderKind::Gcp {
            base_url: url.clone(),
            project_id: "project".to_owned(),
            location: "global".to_owned(),
            auth: GcpAuth::Metadata { url: url.clone() },
        },
        "gemini" => ProviderKind::Gemini {
            base_url: url,
            api_key: secret(),
        },
        "compatible" => ProviderKind::Compatible {
            base_url: url,
            dialect: "openai".to_owned(),
            api_key: None,
            guarded: false,
        },
        _ => ProviderKind::Echo,
    }
}

/// The table as a page of the documentation.
pub fn markdown() -> String {
    let kinds = kinds();
    let mut page = include_str!("matrix.md").to_owned();
    let columns = |page: &mut String, first: &str| {
        let names: Vec<String> = kinds.iter().map(|kind| format!("`{}`", kind.id)).collect();
        let _ = writeln!(page, "| {first} | {} |", names.join(" | "));
        let _ = writeln!(page, "|---|{}", "---|".repeat(kinds.len()));
    };
    page.push_str("\n## Operations\n\n");
    columns(&mut page, "operation");
    for &operation in Operation::ALL {
        let cells: Vec<&str> = kinds.iter().map(|kind| yes(kind.adapter.serves(operation))).collect();
        let _ = writeln!(page, "| {} | {} |", path(operation), cells.join(" | "));
    }
    page.push_str("\n## Parameters of chats\n\n");
    columns(&mut page, "parameter");
    for &param in Param::ALL {
        let cells: Vec<&str> = kinds.iter().map(|kind| kind.adapter.support(param).as_str()).collect();
        let _ = writeln!(page, "| `{param}` | {} |", cells.join(" | "));
    }
    let dialects: Vec<String> = DIALECTS.iter().map(|row| format!("`{}`", row.name)).collect();
    let _ = write!(page, "\nDialects of `compatible`: {}.\n", dialects.join(", "));
    page.push_str(
        "\nEverything is forwarded by `compatible` but what a dialect is known to refuse or to call otherwise:\n\n",
    );
    page.push_str("| dialect | refused | translated |\n|---|---|---|\n");
    for row in DIALECTS.iter().filter(|row| !row.refused.is_empty()) {
        let refused: Vec<String> = row.refused.iter().map(|param| format!("`{param}`")).collect();
        let renamed: Vec<String> = row.renamed.iter().map(|(name, _)| format!("`{name}`")).collect();
        let _ = writeln!(
            page,
            "| `{}` | {} | {} |",
            row.name,
            refused.join(", "),
            renamed.join(", ")
        );
    }
    page
}

fn yes(answer: bool) -> &'static str {
    if answer { "yes" } else { "no" }
}

/// The endpoints of an operation.
fn path(operation: Operation) -> &'static str {
    match operation {
        Operation::Chat => "`/v1/chat/completions`, `/v1/messages`",
        Operation::Completion => "`/v1/completions`",
        Operation::Embedding => "`/v1/embeddings`",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::providers::adapter::AuthScheme;

    #[test]
    fn every_provider_outside_this_process_has_a_question_that_asks_for_no_work() {
        let asked: Vec<(&str, String, AuthScheme)> = kinds()
            .iter()
            .filter_map(|kind| {
                let listing = kind.adapter.listing()?;
                Some((kind.id, listing.path.to_string(), listing.auth))
            })
            .collect();
        let header = |name| AuthScheme::Header(http::HeaderName::from_static(name));
        let expected = [
            ("openai", "/v1/models", AuthScheme::Bearer),
            ("azure", "/v1/openai/v1/models", header("api-key")),
            ("anthropic", "/v1/v1/models?limit=1", header("x-api-key")),
            ("aws", "/v1/", AuthScheme::SigV4),
            (
                "gcp",
                "/v1/v1beta1/publishers/google/models?pageSize=1",
                AuthScheme::Bearer,
            ),
            ("gemini", "/v1/v1beta/models?pageSize=1", header("x-goog-api-key")),
            ("compatible", "/v1/models", AuthScheme::None),
        ];
        assert_eq!(asked, expected.map(|(id, path, auth)| (id, path.to_owned(), auth)));
        let older = super::super::build(&ProviderKind::Azure {
            base_url: Uri::from_static("https://provider.invalid"),
            surface: AzureSurface::Deployments {
                api_version: "2024-10-21".to_owned(),
            },
            auth: AzureAuth::ApiKey(SecretString::from("none")),
        });
        let path = older.listing().map(|listing| listing.path.to_string());
        assert_eq!(path.as_deref(), Some("/openai/models?api-version=2024-10-21"));
    }

    #[test]
    fn every_kind_of_provider_is_in_the_table() {
        // A new kind has to be placed here, and then above.
        let id = |kind: &ProviderKind| match kind {
            ProviderKind::Echo => "echo",
            ProviderKind::OpenAi { .. } => "openai",
            ProviderKind::Azure { .. } => "azure",
            ProviderKind::Anthropic { .. } => "anthropic",
            ProviderKind::Aws { .. } => "aws",
            ProviderKind::Gcp { .. } => "gcp",
            ProviderKind::Gemini { .. } => "gemini",
            ProviderKind::Compatible { .. } => "compatible",
        };
        let found: BTreeSet<&str> = KINDS.iter().map(|kind| id(&example(kind))).collect();
        assert_eq!(found.len(), 8);
        assert_eq!(found, KINDS.into_iter().collect());
    }
}
