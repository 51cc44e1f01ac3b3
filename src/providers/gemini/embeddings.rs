//! Vectors, by the method that the host and the model have.
//!
//! Vertex AI embeds by `:predict` or `:embedContent`, as the model's traits say, and for some models one text a call; the
//! Gemini Developer API embeds by `:batchEmbedContents`. Texts that are too long are refused rather than cut in silence.
//!
//! # Source
//! "Text embeddings API", <https://docs.cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api>;
//! "Embedding", <https://ai.google.dev/api/embeddings>.

use bytes::Bytes;
use serde_json::{Value, json};

use super::Host;
use super::failure;
use crate::chat::embedding::{self, EmbeddingRequest};
use crate::chat::estimate::TextTally;
use crate::chat::request::Request;
use crate::domain::call::ErrorClass;
use crate::domain::model::VertexEmbeddingMethod;
use crate::domain::usage::TokenUsage;
use crate::providers::adapter::{
    AnswerForm, Decoder, Exchange, Failure, Reader, Relayed, StreamLimits, Target, Unencodable, WholeAnswer, WireAnswer,
};

/// Texts that one call of the Developer API may hold.
const DEVELOPER_TEXTS_PER_CALL: usize = 100;
/// Tokens that one `:predict` may hold are 20,000; ours are estimates, so there is some room.
const PREDICT_TOKENS_PER_CALL: u64 = 15_000;
/// More tokens than any embedding can have; a larger figure is a broken answer.
const MAX_TOKENS: f64 = 1e12;
/// Kinds of task, in Google's words.
const TASKS: [&str; 8] = [
    "RETRIEVAL_QUERY",
    "RETRIEVAL_DOCUMENT",
    "SEMANTIC_SIMILARITY",
    "CLASSIFICATION",
    "CLUSTERING",
    "QUESTION_ANSWERING",
    "FACT_VERIFICATION",
    "CODE_RETRIEVAL_QUERY",
];

/// How a call asks for vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Method {
    Predict,
    EmbedContent,
    BatchEmbedContents,
}

/// The calls that embed the texts of a request.
///
/// # Errors
/// The request holds tokens instead of texts.
pub fn exchange(host: &Host, request: &Request, target: &Target<'_>) -> Result<Exchange, Unencodable> {
    let asked = embedding::read(&request.body)?;
    let traits = &target.traits.gemini.embedding;
    let (method, texts_per_call) = match (host, traits.vertex_method) {
        (Host::Developer { .. }, _) => (Method::BatchEmbedContents, DEVELOPER_TEXTS_PER_CALL),
        (Host::Vertex { .. }, VertexEmbeddingMethod::Predict) => {
            (Method::Predict, traits.texts_per_call.max(1) as usize)
        }
        (Host::Vertex { .. }, VertexEmbeddingMethod::EmbedContent) => (Method::EmbedContent, 1),
    };
    let mut dropped = asked.others.clone();
    let task = asked.purpose.as_deref().and_then(task);
    if asked.purpose.is_some() && task.is_none() {
        dropped.add("input_type");
    }
    let path_method = match method {
        Method::Predict => "predict",
        Method::EmbedContent => "embedContent",
        Method::BatchEmbedContents => "batchEmbedContents",
    };
    let path = host.method(target.wire_name, path_method);
    let groups = grouped(&asked.inputs, texts_per_call);
    let calls = groups
        .iter()
        .map(|texts| {
            let body = match method {
                Method::Predict => predict(texts, task, &asked),
                Method::EmbedContent => embed_content(texts, task, &asked),
                Method::BatchEmbedContents => batch(&host.resource(target.wire_name), texts, task, &asked),
            };
            let body = serde_json::to_vec(&body).expect("values always serialise");
            host.call(path.clone(), body, AnswerForm::Whole)
        })
        .collect();
    let reader = Vectors {
        method,
        counts: groups.iter().map(|texts| texts.len()).collect(),
        base64: asked.base64,
        model: request.model.clone(),
        normalise: asked.dimensions.is_some() && !traits.normalises_shortened,
        estimate: request.prompt,
    };
    Ok(Exchange {
        calls,
        reader: Box::new(reader),
        dropped,
    })
}

/// The texts of each call, in order.
fn grouped(inputs: &[String], texts_per_call: usize) -> Vec<&[String]> {
    let mut groups = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (at, text) in inputs.iter().enumerate() {
        let mut tally = TextTally::default();
        tally.add(text);
        let full = at - start == texts_per_call || tokens + tally.tokens() > PREDICT_TOKENS_PER_CALL;
        if full && at > start {
            groups.push(&inputs[start..at]);
            (start, tokens) = (at, 0);
        }
        tokens += tally.tokens();
    }
    groups.push(&inputs[start..]);
    groups
}

/// The task in Google's words, from Cohere's, which the gateway takes everywhere, or from Google's own.
fn task(purpose: &str) -> Option<&'static str> {
    match purpose {
        "search_document" => Some("RETRIEVAL_DOCUMENT"),
        "search_query" => Some("RETRIEVAL_QUERY"),
        other => TASKS.into_iter().find(|task| task.eq_ignore_ascii_case(other)),
    }
}

fn predict(texts: &[String], task: Option<&str>, asked: &EmbeddingRequest) -> Value {
    let instances: Vec<Value> = texts
        .iter()
        .map(|text| {
            let mut instance = json!({"content": text});
            if let Some(task) = task {
                instance["task_type"] = task.into();
            }
            instance
        })
        .collect();
    let mut parameters = json!({"autoTruncate": false});
    if let Some(dimensions) = asked.dimensions {
        parameters["outputDimensionality"] = dimensions.into();
    }
    json!({"instances": instances, "parameters": parameters})
}

fn embed_content(texts: &[String], task: Option<&str>, asked: &EmbeddingRequest) -> Value {
    let mut config = json!({"autoTruncate": false});
    if let Some(task) = task {
        config["taskType"] = task.into();
    }
    if let Some(dimensions) = asked.dimensions {
        config["outputDimensionality"] = dimensions.into();
    }
    let parts: Vec<Value> = texts.iter().map(|text| json!({"text": text})).collect();
    json!({"content": {"parts": parts}, "embedContentConfig": config})
}

fn batch(resource: &str, texts: &[String], task: Option<&str>, asked: &EmbeddingRequest) -> Value {
    let requests: Vec<Value> = texts
        .iter()
        .map(|text| {
            let mut request = json!({"model": resource, "content": {"parts": [{"text": text}]}});
            if let Some(task) = task {
                request["taskType"] = task.into();
            }
            if let Some(dimensions) = asked.dimensions {
                request["outputDimensionality"] = dimensions.into();
            }
            request
        })
        .collect();
    json!({"requests": requests})
}

/// Reads vectors.
struct Vectors {
    method: Method,
    /// Texts of each call.
    counts: Vec<usize>,
    base64: bool,
    model: String,
    normalise: bool,
    /// What the texts seem to cost, where the provider does not say.
    estimate: TextTally,
}

impl Reader for Vectors {
    fn whole(self: Box<Self>, answers: Vec<WireAnswer>) -> Result<WholeAnswer, Failure> {
        let mut vectors = Vec::with_capacity(self.counts.iter().sum());
        let mut tokens: Option<f64> = Some(0.0);
        for (answer, &count) in answers.iter().zip(&self.counts) {
            let (found, counted) = self.read(&answer.body)?;
            if found.len() != count {
                return Err(malformed(
                    "answered 200 with another number of vectors than was asked for",
                ));
            }
            vectors.extend(found);
            tokens = tokens.zip(counted).map(|(sum, more)| sum + more);
        }
        if answers.len() != self.counts.len() {
            return Err(malformed("was not asked for every text"));
        }
        if self.normalise {
            vectors.iter_mut().for_each(normalise);
        }
        let usage = tokens.filter(|tokens| *tokens <= MAX_TOKENS).map(|tokens| TokenUsage {
            input: tokens as u64,
            ..TokenUsage::default()
        });
        let shown = usage.map_or_else(|| self.estimate.tokens(), |usage| usage.input);
        Ok(WholeAnswer {
            body: embedding::answer(&vectors, self.base64, &self.model, shown),
            usage,
            generated: TextTally::default(),
            withheld: false,
        })
    }

    fn only(&mut self, answered: &[bool]) {
        let mut answered = answered.iter();
        self.counts.retain(|_| answered.next() == Some(&true));
    }

    fn decoder(self: Box<Self>, _limits: StreamLimits) -> Box<dyn Decoder> {
        Box::new(NoStream)
    }
}

impl Vectors {
    /// The vectors of one answer, and the tokens it counts, if it counts them.
    fn read(&self, body: &[u8]) -> Result<(Vec<Vec<f32>>, Option<f64>), Failure> {
        let answer: Value = serde_json::from_slice(body)
            .map_err(|_| malformed("answered 200 with a body that is not a JSON object"))?;
        if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
            return Err(failure::reported(error));
        }
        let of_usage = || answer["usageMetadata"]["promptTokenCount"].as_f64();
        let (found, tokens): (Vec<&Value>, Option<f64>) = match self.method {
            Method::Predict => {
                let predictions = answer["predictions"].as_array().map(Vec::as_slice).unwrap_or_default();
                let vectors = predictions
                    .iter()
                    .map(|prediction| &prediction["embeddings"]["values"])
                    .collect();
                let counts = predictions
                    .iter()
                    .map(|one| one["embeddings"]["statistics"]["token_count"].as_f64());
                (vectors, counts.sum())
            }
            Method::EmbedContent => (vec![&answer["embedding"]["values"]], of_usage()),
            Method::BatchEmbedContents => {
                let embeddings = answer["embeddings"].as_array().map(Vec::as_slice).unwrap_or_default();
                (
                    embeddings.iter().map(|embedding| &embedding["values"]).collect(),
                    of_usage(),
                )
            }
        };
        let vectors = found.into_iter().map(vector).collect::<Option<Vec<_>>>();
        let vectors = vectors.ok_or_else(|| malformed("answered 200 with something else than vectors"))?;
        Ok((vectors, tokens.filter(|tokens| *tokens >= 0.0)))
    }
}

fn vector(values: &Value) -> Option<Vec<f32>> {
    let values = values.as_array().filter(|values| !values.is_empty())?;
    values
        .iter()
        .map(|value| value.as_f64().map(|value| value as f32))
        .collect()
}

/// Brings a vector to unit length, as OpenAI's are.
fn normalise(vector: &mut Vec<f32>) {
    let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        for value in vector {
            *value = (f64::from(*value) / length) as f32;
        }
    }
}

fn malformed(problem: &str) -> Failure {
    Failure::new(ErrorClass::Malformed, problem)
}

/// Embeddings are never streamed, so there is nothing to read.
struct NoStream;

impl Decoder for NoStream {
    fn feed(&mut self, _bytes: Bytes, _out: &mut Relayed) -> Result<(), Failure> {
        Err(malformed("answered a request for vectors with a stream"))
    }

    fn end(&mut self, _out: &mut Relayed) -> Result<(), Failure> {
        Err(malformed("answered a request for vectors with a stream"))
    }

    fn is_complete(&self) -> bool {
        false
    }

    fn usage(&self) -> Option<TokenUsage> {
        None
    }

    fn generated(&self) -> TextTally {
        TextTally::default()
    }
}
