//! `GET /v1/models` and `GET /v1/models/{id}`.

use poem::http::Method;
use poem_openapi::{
    Object,
    registry::{MetaOperationParam, MetaParamIn, MetaSchema, MetaSchemaRef},
    types::{Example, Type},
};
use serde_json::json;

use super::{
    errors,
    files::query,
    headers,
    operation::{self, Answer, Operation, Sample},
    schema::{Nullable, example, words},
};
use crate::domain::call::Dialect;

/// The section of the documentation.
pub const TAG: &str = "Models";

/// The list.
pub fn list() -> Operation {
    Operation {
        method: Method::GET,
        path: "/v1/models",
        id: "listModels",
        tag: TAG,
        summary: "List the models of this key",
        description: "The models this key may use, in the order of their names, with what each can do and what it \
                      costs. A name from here goes into `model` of a request, alone or behind one of its providers: \
                      `gpt-4o`, `azure/gpt-4o`.",
        parameters: vec![
            query(
                "limit",
                "How many at most, from 1 to 1000. Only for callers of Anthropic's dialect, which send \
                 `anthropic-version`: they get 20 where they do not say. Everybody else gets all of them.",
                i64::schema_ref(),
            ),
            query(
                "after_id",
                "The name behind which the page begins. Likewise.",
                String::schema_ref(),
            ),
            query(
                "before_id",
                "The name in front of which the page ends. Likewise.",
                String::schema_ref(),
            ),
        ],
        request: None,
        answer: Answer {
            description: "The models.",
            content: vec![operation::json::<ModelList>()],
            headers: vec![headers::request_id()],
        },
        refusals: errors::LIST_LOOKUP,
        dialect: Dialect::OpenAi,
        samples: LIST_SAMPLES,
    }
}

/// One of them.
pub fn retrieve() -> Operation {
    Operation {
        method: Method::GET,
        path: "/v1/models/{id}",
        id: "retrieveModel",
        tag: TAG,
        summary: "Describe one model",
        description: "One model of this key, with what it can do and what it costs.",
        parameters: vec![MetaOperationParam {
            name: "id".to_owned(),
            schema: model_name(),
            in_type: MetaParamIn::Path,
            description: Some(
                "The name of the model, alone or behind one of its providers. It may contain `/` and `:`, as they are \
                 or percent-encoded."
                    .to_owned(),
            ),
            required: true,
            deprecated: false,
            explode: false,
            style: None,
        }],
        request: None,
        answer: Answer {
            description: "The model.",
            content: vec![operation::json::<Model>()],
            headers: vec![headers::request_id()],
        },
        refusals: errors::MODEL_LOOKUP,
        dialect: Dialect::OpenAi,
        samples: RETRIEVE_SAMPLES,
    }
}

const LIST_SAMPLES: &[Sample] = &[
    Sample::curl(r#"curl "$OPENAI_BASE_URL/models" -H "Authorization: Bearer $OPENAI_API_KEY""#),
    Sample {
        language: "Python",
        label: "Python",
        source: r#"from openai import OpenAI

for model in OpenAI().models.list():
    print(model.id, model.providers, model.pricing)"#,
    },
];

const RETRIEVE_SAMPLES: &[Sample] = &[Sample::curl(
    r#"curl "$OPENAI_BASE_URL/models/gpt-4o" -H "Authorization: Bearer $OPENAI_API_KEY""#,
)];

fn model_name() -> MetaSchemaRef {
    String::schema_ref().merge(MetaSchema {
        example: Some("gpt-4o".into()),
        ..MetaSchema::ANY
    })
}

words! {
    ObjectList = "list";
    ObjectModel = "model";
    ModelMode = "chat" | "completion" | "embedding";
}

/// The models of a key.
#[derive(Debug, Object)]
#[oai(example)]
pub struct ModelList {
    /// Always `list`.
    object: ObjectList,
    /// The name of the first model here. Null where there is none.
    first_id: Nullable<String>,
    /// The name of the last one.
    last_id: Nullable<String>,
    /// Whether there are more behind `last_id`, or in front of `first_id` where `before_id` was given.
    has_more: bool,
    /// The models.
    data: Vec<Model>,
}

/// A model: OpenAI's own fields, and what the gateway knows besides. Where several providers serve it, what it can do and
/// what it costs is said of the first of them.
#[derive(Debug, Object)]
#[oai(example)]
pub struct Model {
    /// The name to use in requests.
    id: String,
    /// Always `model`.
    object: ObjectModel,
    /// The same, as Anthropic's dialect calls it.
    r#type: ObjectModel,
    /// A name to show to people: the same as `id`.
    display_name: String,
    /// The same for every model, since providers disagree about it: a moment in seconds since 1970.
    created: i64,
    /// The same moment, as Anthropic's dialect writes it.
    created_at: String,
    /// The first of its providers.
    owned_by: String,
    /// The providers that serve it to this key, in the order in which they are asked as long as all of them are well.
    providers: Vec<String>,
    /// What it is for, and so which endpoint takes it.
    mode: ModelMode,
    /// The most tokens that question and answer can have together. Null when it is not known.
    context_window: Nullable<i64>,
    /// The most tokens that an answer can have. Null when it is not known.
    max_output_tokens: Nullable<i64>,
    /// What it can do.
    capabilities: ModelCapabilities,
    /// What it costs. Null when that is not known: its requests are then counted as unpriced, never as free.
    pricing: Nullable<ModelPricing>,
}

/// What a model can do. Null where it is not known.
#[derive(Debug, Object)]
pub struct ModelCapabilities {
    /// Reads images.
    vision: Nullable<bool>,
    /// Calls tools.
    tools: Nullable<bool>,
    /// Answers in JSON that follows a schema.
    json_schema: Nullable<bool>,
    /// Thinks before it answers.
    reasoning: Nullable<bool>,
    /// Has a cache for repeated prompts.
    prompt_cache: Nullable<bool>,
}

/// Prices in US dollars per million tokens: exact decimals, as strings. Null where there is no such price, and the tokens
/// cost what other tokens of the request cost.
#[derive(Debug, Object)]
pub struct ModelPricing {
    /// For tokens of the request.
    #[oai(validator(pattern = r"^\d+(\.\d+)?$"))]
    input_usd: String,
    /// For tokens of the answer.
    #[oai(validator(pattern = r"^\d+(\.\d+)?$"))]
    output_usd: String,
    /// For tokens of the request that are read from the provider's cache.
    #[oai(validator(pattern = r"^\d+(\.\d+)?$"))]
    cache_read_usd: Nullable<String>,
    /// For tokens of the request that are written to the provider's cache.
    #[oai(validator(pattern = r"^\d+(\.\d+)?$"))]
    cache_write_usd: Nullable<String>,
}

impl Example for ModelList {
    fn example() -> Self {
        Self {
            object: example(json!("list")),
            first_id: example(json!("gpt-4o")),
            last_id: example(json!("gpt-4o")),
            has_more: false,
            data: vec![Model::example()],
        }
    }
}

impl Example for Model {
    fn example() -> Self {
        example(json!({
            "id": "gpt-4o",
            "object": "model",
            "type": "model",
            "display_name": "gpt-4o",
            "created": 1767225600,
            "created_at": "2026-01-01T00:00:00Z",
            "owned_by": "azure",
            "providers": ["azure", "openai"],
            "mode": "chat",
            "context_window": 128_000,
            "max_output_tokens": 16_384,
            "capabilities": {
                "vision": true,
                "tools": true,
                "json_schema": true,
                "reasoning": false,
                "prompt_cache": true,
            },
            "pricing": {
                "input_usd": "2.5",
                "output_usd": "10",
                "cache_read_usd": "1.25",
                "cache_write_usd": null,
            },
        }))
    }
}
