//! `POST /v1/embeddings`.

use poem::http::Method;
use poem_openapi::{Object, types::Example};
use serde_json::json;

use super::{
    errors, headers,
    operation::{self, Answer, Operation, Sample},
    schema::{JsonObject, Optional, any_of, example, words},
};
use crate::domain::call::Dialect;

/// The section of the documentation.
pub const TAG: &str = "Embeddings";

/// The operation.
pub fn create() -> Operation {
    Operation {
        method: Method::POST,
        path: "/v1/embeddings",
        id: "createEmbedding",
        tag: TAG,
        summary: "Turn texts into vectors",
        description: "Turns each input into a vector, so that inputs with a similar meaning get vectors that are \
                      close to each other.\n\nA field that this page does not list is passed through to the provider \
                      unchanged.",
        parameters: vec![],
        request: Some(operation::json::<EmbeddingRequest>()),
        answer: Answer {
            description: "One vector for each input, in the order of the inputs.",
            content: vec![operation::json::<EmbeddingList>()],
            headers: headers::inference(),
        },
        refusals: errors::INFERENCE,
        dialect: Dialect::OpenAi,
        samples: SAMPLES,
    }
}

const SAMPLES: &[Sample] = &[
    Sample::curl(
        r#"curl "$OPENAI_BASE_URL/embeddings" \
  -H "Authorization: Bearer $OPENAI_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{"model": "text-embedding-3-small", "input": ["The sky is blue", "Grass is green"]}'"#,
    ),
    Sample {
        language: "Python",
        label: "Python",
        source: r#"from openai import OpenAI

client = OpenAI()  # reads OPENAI_BASE_URL and OPENAI_API_KEY

answer = client.embeddings.create(
    model="text-embedding-3-small",
    input=["The sky is blue", "Grass is green"],
)
print(len(answer.data), "vectors of", len(answer.data[0].embedding), "numbers")"#,
    },
];

/// What to turn into vectors. Only `model` and `input` are required.
///
/// Fields that are not listed here are passed through to the provider as they are.
#[derive(Debug, Object)]
#[oai(example, skip_serializing_if_is_none)]
pub struct EmbeddingRequest {
    /// The model: a name that any provider may serve (`text-embedding-3-small`), or a name at one provider
    /// (`azure/text-embedding-3-small`).
    model: String,
    /// One input or many, as strings or as token ids: a list of numbers is one input, a list of lists of numbers is
    /// many. Not empty, and up to 2,048 inputs, unless configured otherwise. OpenAI's own models take up to 8,192 tokens
    /// in each and 300,000 in all.
    input: EmbeddingInput,
    /// How each vector is written: a list of numbers (`float`, the default), or `base64` of little-endian 32-bit
    /// floats.
    encoding_format: Option<EncodingFormat>,
    /// The length of the vectors, for models that can shorten them.
    #[oai(validator(minimum(value = "1")))]
    dimensions: Option<i64>,
    /// An id of the end user.
    user: Option<String>,
    #[oai(flatten)]
    further: JsonObject,
}

any_of! {
    EmbeddingInput = String | Vec<String> | Vec<i64> | Vec<Vec<i64>>;
    EmbeddingVector = Vec<f64> | String;
}

words! {
    EncodingFormat = "float" | "base64";
    ObjectList = "list";
    ObjectEmbedding = "embedding";
}

/// The vectors.
#[derive(Debug, Object)]
#[oai(example)]
pub struct EmbeddingList {
    /// Always `list`.
    object: ObjectList,
    /// One vector for each input.
    data: Vec<Embedding>,
    /// The model that made them.
    model: String,
    /// The tokens it took.
    usage: EmbeddingUsage,
}

/// One vector.
#[derive(Debug, Object)]
pub struct Embedding {
    /// Always `embedding`.
    object: ObjectEmbedding,
    /// Which input it belongs to, from 0.
    index: i32,
    /// The vector: a list of numbers, or with `encoding_format: "base64"` a string that holds four bytes per number.
    embedding: EmbeddingVector,
}

/// The tokens the vectors took.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct EmbeddingUsage {
    /// The tokens of the inputs.
    prompt_tokens: i64,
    /// The same.
    total_tokens: i64,
    /// Parts of `prompt_tokens`, from providers that report them.
    prompt_tokens_details: Optional<JsonObject>,
}

impl Example for EmbeddingRequest {
    fn example() -> Self {
        example(json!({ "model": "text-embedding-3-small", "input": ["The sky is blue", "Grass is green"] }))
    }
}

impl Example for EmbeddingList {
    fn example() -> Self {
        example(json!({
            "object": "list",
            "data": [
                { "object": "embedding", "index": 0, "embedding": [0.0023, -0.0093, 0.0157] },
                { "object": "embedding", "index": 1, "embedding": [-0.0041, 0.0112, 0.0068] },
            ],
            "model": "text-embedding-3-small",
            "usage": { "prompt_tokens": 8, "total_tokens": 8 },
        }))
    }
}
