//! Embeddings: unit vectors that depend on the text alone, as numbers or as base64.

use std::hash::{DefaultHasher, Hash, Hasher};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    super::{answer::Answer, record::Tokens},
    Call, Refusal, words,
};

const NATIVE_DIMENSIONS: usize = 1536;

pub(super) fn answer(call: &Call<'_>) -> Result<Answer, Refusal> {
    let inputs = inputs(call)?;
    let dimensions = dimensions(call)?;
    let billed: Tokens = inputs.iter().map(|input| tokens(input)).sum();
    let as_base64 = call.body["encoding_format"] == "base64";
    let data = inputs.iter().enumerate().map(|(index, input)| {
        let vector = vector(input, dimensions);
        let embedding = if as_base64 {
            json!(base64_of(&vector))
        } else {
            json!(vector)
        };
        json!({ "object": "embedding", "index": index, "embedding": embedding })
    });
    let body = json!({
        "object": "list",
        "model": call.model,
        "data": data.collect::<Vec<_>>(),
        "usage": { "prompt_tokens": billed.prompt, "total_tokens": billed.prompt },
    });
    Ok(Answer::json(200, &body).billing(billed))
}

/// An array of numbers is one input, an array of anything else is many.
fn inputs<'a>(call: &Call<'a>) -> Result<Vec<&'a Value>, Refusal> {
    let given = &call.body["input"];
    let inputs = match given {
        Value::Array(ids) if ids.first().is_some_and(Value::is_number) => vec![given],
        Value::Array(inputs) => inputs.iter().collect(),
        Value::String(_) => vec![given],
        _ => Vec::new(),
    };
    let empty = |input: &&Value| *input == "" || input.as_array().is_some_and(Vec::is_empty);
    if inputs.is_empty() || inputs.iter().any(empty) {
        return Err(Refusal::new(400, "'$.input' is invalid: it must not be empty.")
            .at("input")
            .coded("invalid_value"));
    }
    Ok(inputs)
}

fn dimensions(call: &Call<'_>) -> Result<usize, Refusal> {
    let given = &call.body["dimensions"];
    if given.is_null() {
        return Ok(NATIVE_DIMENSIONS);
    }
    let wanted = given.as_u64().and_then(|wanted| usize::try_from(wanted).ok());
    wanted
        .filter(|wanted| (1..=NATIVE_DIMENSIONS).contains(wanted))
        .ok_or_else(|| {
            let message = format!(
                "Invalid 'dimensions': expected a whole number from 1 to {NATIVE_DIMENSIONS}, but got {given}."
            );
            Refusal::new(400, message).at("dimensions").coded("invalid_value")
        })
}

/// Embeddings are not cached, so the word means nothing here.
fn tokens(input: &Value) -> Tokens {
    let count = match input {
        Value::Array(ids) => ids.len() as u64,
        text => words::count(text.as_str().unwrap_or_default()),
    };
    words::prompt(count, false)
}

/// A unit vector; a shorter one is the beginning of the native one, made a unit vector again.
fn vector(input: &Value, dimensions: usize) -> Vec<f32> {
    let mut hasher = DefaultHasher::new();
    input.to_string().hash(&mut hasher);
    let seed = hasher.finish();
    let entry = |index: usize| {
        // A step of the splitmix64 generator: cheap, and neighbours look unrelated.
        let mut bits = seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits >> 40) as f32 / (1_u32 << 24) as f32 - 0.5
    };
    let entries: Vec<f32> = (0..dimensions).map(entry).collect();
    let length = entries.iter().map(|entry| entry * entry).sum::<f32>().sqrt();
    entries.iter().map(|entry| entry / length).collect()
}

fn base64_of(vector: &[f32]) -> String {
    STANDARD.encode(vector.iter().flat_map(|entry| entry.to_le_bytes()).collect::<Vec<u8>>())
}
