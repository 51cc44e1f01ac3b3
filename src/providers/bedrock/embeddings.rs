//! Embeddings through InvokeModel: each family has a body of its own, and some take one text at a time.
//!
//! # Source
//! "Amazon Titan Text Embeddings", "Titan Multimodal Embeddings", "Nova Multimodal Embeddings" and "Cohere Embed" of the
//! Amazon Bedrock user guide, <https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html>.

use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use smallvec::SmallVec;

use super::encode::refused;
use crate::chat::embedding::{self, EmbeddingRequest};
use crate::chat::estimate::TextTally;
use crate::chat::param::Dropped;
use crate::chat::request::Request;
use crate::domain::call::ErrorClass;
use crate::domain::model::BedrockEmbedding;
use crate::domain::usage::TokenUsage;
use crate::providers::adapter::{Decoder, Failure, Reader, StreamLimits, Target, Unencodable, WholeAnswer, WireAnswer};

/// Values of a vector of Titan's first model, which has no choice of them.
const TITAN_V1_DIMENSIONS: u32 = 1_536;
/// The same for Cohere's third.
const COHERE_V3_DIMENSIONS: u32 = 1_024;
/// What vectors are for unless the caller says: to be found later.
const USUAL_PURPOSE: &str = "search_document";
/// No call has more tokens; a larger figure is a broken or hostile answer.
const MAX_TOKENS: u64 = 1_000_000_000_000;

/// Bodies, and who understands the answers.
pub struct Encoded {
    /// One for each call.
    pub bodies: SmallVec<[Bytes; 1]>,
    /// Understands the answers.
    pub reader: Vectors,
    /// What no body expresses.
    pub dropped: Dropped,
}

/// Writes the bodies.
///
/// # Errors
/// The model does not embed, or the input is not text.
pub fn encode(request: &Request, target: &Target<'_>) -> Result<Encoded, Unencodable> {
    let Some(model) = target.traits.bedrock.embedding else {
        return Err(refused("model", "does not make embeddings").into());
    };
    let asked = embedding::read(&request.body)?;
    let mut dropped = asked.others.clone();
    let fixed = match model {
        BedrockEmbedding::TitanV1 => Some(TITAN_V1_DIMENSIONS),
        BedrockEmbedding::CohereV3 => Some(COHERE_V3_DIMENSIONS),
        BedrockEmbedding::TitanV2
        | BedrockEmbedding::TitanImage
        | BedrockEmbedding::CohereV4
        | BedrockEmbedding::Nova => None,
    };
    if fixed.is_some() && asked.dimensions.is_some_and(|wanted| Some(wanted) != fixed) {
        dropped.add("dimensions");
    }
    let has_purpose = matches!(
        model,
        BedrockEmbedding::CohereV3 | BedrockEmbedding::CohereV4 | BedrockEmbedding::Nova
    );
    if asked.purpose.is_some() && !has_purpose {
        dropped.add("input_type");
    }
    let chunks = asked.inputs.chunks(model.texts_per_call());
    let bodies = chunks.clone().map(|texts| {
        let body = body(model, texts, &asked);
        Bytes::from(serde_json::to_vec(&body).expect("values always serialise"))
    });
    Ok(Encoded {
        bodies: bodies.collect(),
        reader: Vectors {
            texts: chunks.map(<[String]>::len).collect(),
            base64: asked.base64,
            model: request.model.clone(),
            prompt: request.prompt,
        },
        dropped,
    })
}

fn body(model: BedrockEmbedding, texts: &[String], asked: &EmbeddingRequest) -> Value {
    let text = texts.first().map(String::as_str).unwrap_or_default();
    let purpose = asked.purpose.as_deref().unwrap_or(USUAL_PURPOSE);
    match model {
        BedrockEmbedding::TitanV1 => json!({"inputText": text}),
        BedrockEmbedding::TitanV2 => {
            let mut body = json!({"inputText": text, "normalize": true, "embeddingTypes": ["float"]});
            if let Some(dimensions) = asked.dimensions {
                body["dimensions"] = dimensions.into();
            }
            body
        }
        BedrockEmbedding::TitanImage => {
            let mut body = json!({"inputText": text});
            if let Some(dimensions) = asked.dimensions {
                body["embeddingConfig"] = json!({"outputEmbeddingLength": dimensions});
            }
            body
        }
        BedrockEmbedding::CohereV3 | BedrockEmbedding::CohereV4 => {
            let mut body = json!({"texts": texts, "input_type": purpose, "embedding_types": ["float"]});
            if model == BedrockEmbedding::CohereV4
                && let Some(dimensions) = asked.dimensions
            {
                body["output_dimension"] = dimensions.into();
            }
            body
        }
        BedrockEmbedding::Nova => {
            let purpose = match purpose {
                "search_query" => "GENERIC_RETRIEVAL",
                "classification" => "CLASSIFICATION",
                "clustering" => "CLUSTERING",
                _ => "GENERIC_INDEX",
            };
            let mut params = json!({
                "embeddingPurpose": purpose,
                // Too long a text is refused, as OpenAI does, rather than cut in silence.
                "text": {"truncationMode": "NONE", "value": text},
            });
            if let Some(dimensions) = asked.dimensions {
                params["embeddingDimension"] = dimensions.into();
            }
            json!({
                "schemaVersion": "nova-multimodal-embed-v1",
                "taskType": "SINGLE_EMBEDDING",
                "singleEmbeddingParams": params,
            })
        }
    }
}

/// Understands the answers to a request for embeddings.
pub struct Vectors {
    /// Texts in each call.
    texts: Vec<usize>,
    base64: bool,
    model: String,
    prompt: TextTally,
}

/// An answer of any of the families.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    /// Titan's one vector.
    embedding: Option<Vec<f32>>,
    input_text_token_count: Option<u64>,
    /// Cohere's and Nova's.
    embeddings: Option<Several>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Several {
    ByType { float: Vec<Vec<f32>> },
    Plain(Vec<Vec<f32>>),
    Named(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    embedding: Vec<f32>,
}

impl Reader for Vectors {
    fn whole(self: Box<Self>, answers: Vec<WireAnswer>) -> Result<WholeAnswer, Failure> {
        let mut vectors = Vec::with_capacity(self.texts.iter().sum());
        let mut tokens = Some(0_u64);
        for (answer, texts) in answers.into_iter().zip(&self.texts) {
            let counted = counted_tokens(&answer.headers);
            let answer: Answer = serde_json::from_slice(&answer.body)
                .map_err(|_| malformed("answered 200 with a body that holds no embeddings"))?;
            let found = match (answer.embedding, answer.embeddings) {
                (Some(vector), _) => vec![vector],
                (None, Some(Several::ByType { float } | Several::Plain(float))) => float,
                (None, Some(Several::Named(all))) => all.into_iter().map(|one| one.embedding).collect(),
                (None, None) => return Err(malformed("answered 200 without embeddings")),
            };
            let empty = |vector: &Vec<f32>| vector.is_empty() || vector.iter().any(|value| !value.is_finite());
            if found.len() != *texts || found.iter().any(empty) {
                return Err(malformed(
                    "answered with other embeddings than those that were asked for",
                ));
            }
            vectors.extend(found);
            let counted = answer
                .input_text_token_count
                .or(counted)
                .filter(|count| *count <= MAX_TOKENS);
            tokens = tokens.zip(counted).map(|(sum, count)| sum + count);
        }
        if vectors.len() != self.texts.iter().sum::<usize>() {
            return Err(malformed("answered fewer calls than were made"));
        }
        let usage = tokens.map(|input| TokenUsage {
            input,
            ..TokenUsage::default()
        });
        let shown = tokens.unwrap_or_else(|| self.prompt.tokens());
        Ok(WholeAnswer {
            body: embedding::answer(&vectors, self.base64, &self.model, shown),
            usage,
            generated: TextTally::default(),
            withheld: false,
        })
    }

    fn only(&mut self, answered: &[bool]) {
        let mut answered = answered.iter();
        self.texts.retain(|_| answered.next() == Some(&true));
    }

    fn decoder(self: Box<Self>, _limits: StreamLimits) -> Box<dyn Decoder> {
        unreachable!("embeddings are never asked for as a stream")
    }
}

fn malformed(problem: impl Into<String>) -> Failure {
    Failure::new(ErrorClass::Malformed, problem)
}

/// Bedrock's own count, for models that say none in their body.
fn counted_tokens(headers: &HeaderMap) -> Option<u64> {
    let count = headers.get("x-amzn-bedrock-input-token-count")?;
    count.to_str().ok()?.parse().ok()
}
