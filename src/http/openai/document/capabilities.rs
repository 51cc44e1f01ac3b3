//! `GET /v1/capabilities`.

use std::collections::BTreeMap;

use poem::http::Method;
use poem_openapi::{Object, types::Example};
use serde_json::json;

use super::{
    errors, headers,
    operation::{self, Answer, Operation, Sample},
    schema::{example, words},
};
use crate::domain::call::Dialect;

/// The section of the documentation.
pub const TAG: &str = "Capabilities";

/// The operation.
pub fn list() -> Operation {
    Operation {
        method: Method::GET,
        path: "/v1/capabilities",
        id: "listCapabilities",
        tag: TAG,
        summary: "What each provider takes",
        description: "What becomes of each parameter of a chat at the providers this key may use, and which endpoints \
                      they serve. It is said of a provider's models in general; a model may take less. What could not \
                      be expressed in a request is named in the header `x-bonito-dropped-params` of its answer, unless \
                      the parameter policy says otherwise.",
        parameters: vec![],
        request: None,
        answer: Answer {
            description: "The providers of this key, in the order of their ids.",
            content: vec![operation::json::<Capabilities>()],
            headers: vec![headers::request_id()],
        },
        refusals: errors::LOOKUP,
        dialect: Dialect::OpenAi,
        samples: SAMPLES,
    }
}

const SAMPLES: &[Sample] = &[Sample::curl(
    r#"curl "$OPENAI_BASE_URL/capabilities" -H "Authorization: Bearer $OPENAI_API_KEY""#,
)];

words! {
    ObjectCapabilities = "capabilities";
    ObjectProvider = "provider_capabilities";
    ParameterSupport = "forwarded" | "translated" | "refused";
}

/// What the providers of a key take.
#[derive(Debug, Object)]
#[oai(example)]
pub struct Capabilities {
    /// Always `capabilities`.
    object: ObjectCapabilities,
    /// The parameters that are spoken of, each by one name even where it has several (`max_tokens` is
    /// `max_completion_tokens`).
    parameters: Vec<String>,
    /// The providers.
    data: Vec<ProviderCapabilities>,
}

/// What one provider takes.
#[derive(Debug, Object)]
pub struct ProviderCapabilities {
    /// Always `provider_capabilities`.
    object: ObjectProvider,
    /// The provider, by the id that goes in front of a model: `azure` in `azure/gpt-4o`.
    id: String,
    /// The endpoints of the gateway that it has models for, by their paths.
    endpoints: BTreeMap<String, EndpointCapabilities>,
    /// What becomes of each parameter: `forwarded` as it is, `translated` into the provider's own words, or `refused`
    /// because the provider has nothing like it.
    parameters: BTreeMap<String, ParameterSupport>,
}

/// What one provider does at one endpoint.
#[derive(Debug, Object)]
pub struct EndpointCapabilities {
    /// Whether it has models that can be asked there.
    served: bool,
    /// Whether their answers can be streamed.
    streaming: bool,
}

impl Example for Capabilities {
    fn example() -> Self {
        example(json!({
            "object": "capabilities",
            "parameters": ["logit_bias", "reasoning_effort", "temperature"],
            "data": [{
                "object": "provider_capabilities",
                "id": "anthropic",
                "endpoints": {
                    "/v1/chat/completions": { "served": true, "streaming": true },
                    "/v1/messages": { "served": true, "streaming": true },
                    "/v1/completions": { "served": true, "streaming": true },
                    "/v1/embeddings": { "served": false, "streaming": false },
                },
                "parameters": { "logit_bias": "refused", "reasoning_effort": "translated", "temperature": "translated" },
            }],
        }))
    }
}
