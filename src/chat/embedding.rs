//! Embeddings in no provider's words: what is asked for, and OpenAI's answer made of vectors.
//!
//! # Source
//! "Embeddings" of OpenAI's API reference, <https://platform.openai.com/docs/api-reference/embeddings>.

use base64::Engine as _;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::param::Dropped;
use crate::domain::error::{InvalidKind, InvalidRequest};

/// A request for embeddings that must be translated.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct EmbeddingRequest {
    /// The texts, at least one.
    pub inputs: Vec<String>,
    /// Values of each vector, if the caller said.
    pub dimensions: Option<u32>,
    /// Whether the vectors go back as base64 of little-endian `f32`.
    pub base64: bool,
    /// What the vectors are for, in Cohere's words (`search_document`, `search_query`, `classification`, `clustering`); a
    /// field beyond OpenAI's.
    pub purpose: Option<String>,
    /// Fields that mean nothing to anybody but OpenAI.
    pub others: Dropped,
}

/// Reads the body of a request that the walk has checked.
///
/// # Errors
/// It holds tokens: only the provider whose tokens they are can read them.
pub fn read(body: &[u8]) -> Result<EmbeddingRequest, InvalidRequest> {
    let refused = |field: &str, problem: &str| InvalidRequest {
        field: Some(field.to_owned()),
        problem: problem.to_owned(),
        kind: InvalidKind::Value,
    };
    let fields: Map<String, Value> =
        serde_json::from_slice(body).map_err(|_| refused("input", "stands in a body that is not a JSON object"))?;
    let mut request = EmbeddingRequest::default();
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("model", _) | (_, Value::Null) => {}
            ("input", Value::String(text)) => request.inputs.push(text),
            ("input", Value::Array(texts)) => {
                for text in texts {
                    let Value::String(text) = text else {
                        let problem = "must be text: this model's provider does not take tokens";
                        return Err(refused("input", problem));
                    };
                    request.inputs.push(text);
                }
            }
            ("dimensions", value) => request.dimensions = value.as_u64().and_then(|n| u32::try_from(n).ok()),
            ("encoding_format", value) => request.base64 = value == "base64",
            ("input_type", Value::String(purpose)) => request.purpose = Some(purpose),
            (_, _) => request.others.add(name),
        }
    }
    Ok(request)
}

/// OpenAI's answer made of vectors.
pub fn answer(vectors: &[Vec<f32>], base64: bool, model: &str, prompt_tokens: u64) -> Bytes {
    let data: Vec<Value> = vectors
        .iter()
        .enumerate()
        .map(|(index, vector)| {
            let embedding = if base64 {
                let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                Value::from(base64::engine::general_purpose::STANDARD.encode(bytes))
            } else {
                json!(vector)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let answer = json!({
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    });
    serde_json::to_vec(&answer).expect("values always serialise").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_and_tokens_are_refused() {
        let read = |body: &str| super::read(body.as_bytes());
        assert_eq!(read(r#"{"model":"m","input":"a"}"#).unwrap().inputs, ["a"]);
        let request =
            read(r#"{"input":["a","b"],"dimensions":256,"encoding_format":"base64","user":"u","x":null}"#).unwrap();
        assert_eq!(
            (request.inputs.len(), request.dimensions, request.base64),
            (2, Some(256), true)
        );
        assert_eq!(request.others.names(), ["user"]);
        assert_eq!(read(r#"{"input":[1,2]}"#).unwrap_err().field.as_deref(), Some("input"));
    }

    #[test]
    fn vectors_go_back_as_numbers_or_as_little_endian_bytes() {
        let answer = |base64| -> Value {
            let bytes = super::answer(&[vec![1.5, -2.0]], base64, "m", 3);
            serde_json::from_slice(&bytes).unwrap()
        };
        assert_eq!(answer(false)["data"][0]["embedding"], json!([1.5, -2.0]));
        assert_eq!(answer(true)["data"][0]["embedding"], "AADAPwAAAMA=");
        assert_eq!(answer(true)["usage"]["total_tokens"], 3);
    }
}
