//! What a request asks of a model besides its words, as spans have it. Read out of the caller's own body, and only for a
//! trace that is recorded: nothing else needs it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::chat::request::Request;
use crate::domain::call::Operation;
use crate::telemetry::names::trace as names;
use crate::telemetry::trace::{Span, Value};

/// The attributes, for the request's span and for those of its attempts. Stop sequences are not among them: they are the
/// caller's words.
#[derive(Default, Debug)]
pub struct Asked(Vec<(&'static str, Value)>);

#[derive(Deserialize)]
struct Format<'b> {
    #[serde(borrow, rename = "type")]
    kind: &'b str,
}

impl Asked {
    /// What a request asks for.
    pub fn of(request: &Request) -> Self {
        // What they hold is nobody's business here until it is known to be a number or a word of the dialect.
        let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(&request.body).unwrap_or_default();
        let mut asked = Vec::new();
        if let Some(tokens) = request.max_output_tokens {
            asked.push((names::GEN_AI_MAX_TOKENS, Value::from(tokens)));
        }
        if request.choices != 1 && request.operation != Operation::Embedding {
            asked.push((names::GEN_AI_CHOICE_COUNT, Value::from(request.choices)));
        }
        for (name, field) in [
            (names::GEN_AI_TEMPERATURE, "temperature"),
            (names::GEN_AI_TOP_P, "top_p"),
            (names::GEN_AI_TOP_K, "top_k"),
            (names::GEN_AI_FREQUENCY_PENALTY, "frequency_penalty"),
            (names::GEN_AI_PRESENCE_PENALTY, "presence_penalty"),
        ] {
            asked.extend(read::<f64>(&fields, field).map(|number| (name, Value::from(number))));
        }
        asked.extend(read::<i64>(&fields, "seed").map(|seed| (names::GEN_AI_SEED, Value::from(seed))));
        let mut formats = ["response_format", "output_format"].into_iter();
        let format = formats.find_map(|field| read::<Format<'_>>(&fields, field));
        let output = format.and_then(|format| match format.kind {
            "text" => Some("text"),
            "json_object" | "json_schema" => Some("json"),
            _ => None,
        });
        asked.extend(output.map(|output| (names::GEN_AI_OUTPUT_TYPE, Value::from(output))));
        let encoding = read::<&str>(&fields, "encoding_format").filter(|format| matches!(*format, "float" | "base64"));
        asked.extend(encoding.map(|format| {
            let formats = Value::Texts(vec![format.to_owned()]);
            (names::GEN_AI_ENCODING_FORMATS, formats)
        }));
        Self(asked)
    }

    /// Says so in a span.
    pub fn tell(&self, span: &mut Span) {
        for (name, value) in &self.0 {
            span.set(name, || value.clone());
        }
    }
}

fn read<'b, T: Deserialize<'b>>(fields: &BTreeMap<String, &'b RawValue>, field: &str) -> Option<T> {
    serde_json::from_str(fields.get(field)?.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::request::BodyLimits;
    use crate::domain::call::Dialect;

    fn asked(body: &'static str) -> Vec<(&'static str, Value)> {
        let limits = BodyLimits {
            depth: 64,
            messages: 1_000,
            embedding_inputs: 2_048,
        };
        let request = Request::parse(Operation::Chat, Dialect::OpenAi, body.into(), &limits).unwrap();
        Asked::of(&request).0
    }

    #[test]
    fn numbers_and_words_of_the_dialect_are_told_and_nothing_else_is() {
        let found = asked(
            r#"{"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0.5, "seed": 7, "n": 2,
            "max_completion_tokens": 90, "stop": "canary", "top_k": "canary", "response_format": {"type": "json_object"}}"#,
        );
        let expected = [
            (names::GEN_AI_MAX_TOKENS, Value::Int(90)),
            (names::GEN_AI_CHOICE_COUNT, Value::Int(2)),
            (names::GEN_AI_TEMPERATURE, Value::Float(0.5)),
            (names::GEN_AI_SEED, Value::Int(7)),
            (names::GEN_AI_OUTPUT_TYPE, Value::Text("json".into())),
        ];
        assert_eq!(found, expected);
        assert_eq!(
            asked(r#"{"model": "m", "messages": [{"role": "user", "content": "hi"}]}"#),
            []
        );
    }
}
