//! Whether what an adapter says of each parameter is true: a request that carries it is encoded, and looked at.

use bytes::Bytes;
use serde_json::{Value, json};

use super::kit::{Kit, Model, refused_field, request_of};
use crate::chat::param::Param;
use crate::domain::call::{Dialect, Operation};
use crate::providers::adapter::{MediaLibrary, Support, WireRequest};

/// Requests that carry a parameter, each as fields of a chat with the values that matter, and what the request needs
/// besides. Where a provider takes only some values, the parameter is supported by those it takes.
fn samples(param: Param) -> Vec<Sample> {
    let of = |values: &[Value]| {
        values
            .iter()
            .map(|value| Sample::of(param.as_str(), value.clone()))
            .collect()
    };
    let tools = json!([{"type": "function", "function": {"name": "look", "description": "Looks.",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}}}]);
    match param {
        Param::Audio => vec![
            Sample::of("audio", json!({"voice": "alloy", "format": "wav"}))
                .with("modalities", json!(["text", "audio"])),
        ],
        Param::CacheControl => {
            let mark = json!({"type": "ephemeral"});
            let content = json!([{"type": "text", "text": "a long text", "cache_control": mark}]);
            let in_a_part = Sample {
                name: "cache_control",
                fields: vec![("messages", json!([{"role": "user", "content": content}]))],
                besides: Vec::new(),
                value: mark.clone(),
            };
            vec![in_a_part, Sample::of("cache_control", mark)]
        }
        Param::FrequencyPenalty | Param::PresencePenalty => of(&[json!(0.5)]),
        Param::LogitBias => of(&[json!({"50256": -100})]),
        Param::Logprobs => of(&[json!(true)]),
        Param::MaxCompletionTokens => vec![
            Sample::of("max_completion_tokens", json!(4321)),
            Sample::of("max_tokens", json!(4321)),
        ],
        Param::Metadata => of(&[json!({"team": "blue"})]),
        Param::Modalities => of(&[json!(["text", "audio"]), json!(["text", "image"])]),
        Param::N => of(&[json!(2)]),
        Param::ParallelToolCalls => vec![Sample::of("parallel_tool_calls", json!(false)).with("tools", tools)],
        Param::Prediction => of(&[json!({"type": "content", "content": "as before"})]),
        Param::PromptCacheKey => of(&[json!("tenant-1")]),
        Param::PromptCacheRetention => of(&[json!("24h")]),
        Param::ReasoningEffort => {
            let efforts = ["high", "medium", "low", "none"];
            let mut samples: Vec<Sample> = efforts
                .iter()
                .map(|effort| Sample::of("reasoning_effort", json!(effort)))
                .collect();
            let budget = json!({"type": "enabled", "budget_tokens": 2048});
            samples.push(Sample::of("thinking", budget).with("max_completion_tokens", json!(8192)));
            samples
        }
        Param::ResponseFormat => {
            let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": false});
            let format =
                json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": true}});
            of(&[format, json!({"type": "json_object"})])
        }
        Param::Seed => of(&[json!(7)]),
        Param::ServiceTier => of(&[json!("priority"), json!("flex"), json!("default")]),
        Param::Stop => of(&[json!(["END"])]),
        Param::Store => of(&[json!(true)]),
        Param::Stream => of(&[json!(true)]),
        Param::StreamOptions => {
            vec![Sample::of("stream_options", json!({"include_usage": true})).with("stream", json!(true))]
        }
        Param::Temperature => of(&[json!(0.5), json!(1.0)]),
        Param::ToolChoice => ["required", "none", "auto"]
            .iter()
            .map(|choice| Sample::of("tool_choice", json!(choice)).with("tools", tools.clone()))
            .collect(),
        Param::Tools => of(&[tools]),
        Param::TopK => of(&[json!(40)]),
        Param::TopLogprobs => vec![Sample::of("top_logprobs", json!(2)).with("logprobs", json!(true))],
        Param::TopP => of(&[json!(0.875), json!(0.96875)]),
        Param::User => vec![
            Sample::of("user", json!("user-1")),
            Sample::of("safety_identifier", json!("user-1")),
        ],
        Param::Verbosity => of(&[json!("low")]),
        Param::WebSearchOptions => of(&[json!({"search_context_size": "low"})]),
    }
}

/// A request that carries a parameter.
struct Sample {
    /// The name it is reported under.
    name: &'static str,
    fields: Vec<(&'static str, Value)>,
    /// What the request needs besides, and has without the parameter, too.
    besides: Vec<(&'static str, Value)>,
    /// What matters of it.
    value: Value,
}

impl Sample {
    fn of(name: &'static str, value: Value) -> Self {
        Self {
            name,
            fields: vec![(name, value.clone())],
            besides: Vec::new(),
            value,
        }
    }

    fn with(mut self, name: &'static str, value: Value) -> Self {
        self.besides.push((name, value));
        self
    }

    fn body(&self, carrying: bool) -> Value {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "a long text"}]});
        let fields = self.fields.iter().filter(|_| carrying);
        for (name, value) in self.besides.iter().chain(fields) {
            body[*name] = value.clone();
        }
        body
    }
}

/// What became of a parameter in one request.
#[derive(Debug)]
enum Fate {
    /// It was refused, or dropped and named.
    Lost,
    /// Nothing was said of it.
    Kept {
        /// Whether the provider is asked something else than without it.
        matters: bool,
        /// Whether its value is in what the provider is asked, as it was.
        verbatim: bool,
    },
}

impl Kit {
    pub fn what_is_said_of_parameters_is_true(&self) {
        let mut wrong = Vec::new();
        for &param in Param::ALL {
            let samples = samples(param);
            let tries = samples
                .iter()
                .flat_map(|sample| self.models.iter().map(move |model| (sample, model)));
            let fates: Vec<Fate> = tries.map(|(sample, model)| self.fate(sample, model)).collect();
            let kept = fates.iter().any(|fate| matches!(fate, Fate::Kept { .. }));
            // A stream is asked to report its usage whether its caller cares or not.
            let matters = param == Param::StreamOptions
                || fates
                    .iter()
                    .any(|fate| matches!(fate, Fate::Kept { matters: true, .. }));
            let verbatim = fates
                .iter()
                .any(|fate| matches!(fate, Fate::Kept { verbatim: true, .. }));
            let support = self.adapter.support(param);
            let problem = match support {
                Support::Refused if kept => "is neither dropped and named nor refused",
                Support::Forwarded | Support::Translated if !kept => "is dropped or refused by every model",
                Support::Forwarded | Support::Translated if !matters => "changes nothing of what the provider is asked",
                Support::Forwarded if !verbatim => "does not reach the provider as it was written",
                Support::Refused | Support::Forwarded | Support::Translated => continue,
            };
            wrong.push(format!(
                "{param} is called {}, but it {problem}: {fates:?}",
                support.as_str()
            ));
        }
        assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    }

    pub fn what_is_said_of_operations_is_true(&self) {
        for (operation, body) in [
            (
                Operation::Chat,
                json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]}),
            ),
            (Operation::Completion, json!({"model": "m", "prompt": "hi"})),
            (Operation::Embedding, json!({"model": "m", "input": "hi"})),
        ] {
            let media = MediaLibrary::default();
            let request = request_of(&body, Dialect::OpenAi, false);
            let served = self
                .models
                .iter()
                .any(|model| self.adapter.encode(&request, &model.target(&media)).is_ok());
            assert_eq!(served, self.adapter.serves(operation), "{operation}");
        }
    }

    fn fate(&self, sample: &Sample, model: &Model) -> Fate {
        let media = MediaLibrary::default();
        let encoded = |body: &Value| {
            let stream = body["stream"] == true;
            self.adapter
                .encode(&request_of(body, Dialect::OpenAi, stream), &model.target(&media))
        };
        // A model that makes no chats takes no parameter of one.
        let Ok(without) = encoded(&sample.body(false)) else {
            return Fate::Lost;
        };
        let exchange = match encoded(&sample.body(true)) {
            Ok(exchange) => exchange,
            Err(fault) => {
                assert!(
                    refused_field(&fault).is_some(),
                    "{} is refused without its name: {fault:?}",
                    sample.name
                );
                return Fate::Lost;
            }
        };
        // Parts of a message are named by their place, which is no less a name.
        let named = |name: &String| name == sample.name || name.ends_with(&format!(".{}", sample.name));
        if exchange.dropped.names().iter().any(named) {
            return Fate::Lost;
        }
        let asked: Vec<_> = exchange.calls.iter().map(shown).collect();
        let otherwise: Vec<_> = without.calls.iter().map(shown).collect();
        Fate::Kept {
            matters: asked != otherwise,
            verbatim: exchange.calls.iter().any(|call| holds(&body_of(call), &sample.value)),
        }
    }
}

fn body_of(call: &WireRequest) -> Value {
    let body: Vec<Bytes> = call.payload.clone().into_parts().into_vec();
    serde_json::from_slice(&body.concat()).expect("a request is JSON")
}

/// Everything the provider sees of a call.
fn shown(call: &WireRequest) -> String {
    format!("{} {:?} {:?} {}", call.path, call.headers, call.answer, body_of(call))
}

/// Whether a value stands somewhere in another.
fn holds(hay: &Value, needle: &Value) -> bool {
    hay == needle
        || match hay {
            Value::Array(items) => items.iter().any(|item| holds(item, needle)),
            Value::Object(fields) => fields.values().any(|value| holds(value, needle)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
}
