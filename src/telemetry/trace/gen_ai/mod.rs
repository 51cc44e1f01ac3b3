//! Requests and attempts in the words of the GenAI conventions.
//!
//! # Source
//! <https://github.com/open-telemetry/semantic-conventions-genai>, `docs/gen-ai/gen-ai-spans.md`, schema 1.42.0.

mod content;

use std::time::{Duration, SystemTime};

pub use content::{tell_answer, tell_prompt};

use super::span::{Kind, Span, Value};
use super::tracer::Tracer;
use crate::domain::call::{Dialect, ErrorClass, Operation};
use crate::domain::error::GatewayError;
use crate::domain::record::{AttemptRecord, UsageRecord};
use crate::domain::trace::TraceContext;
use crate::telemetry::names::trace as names;

/// Characters of a model's name that a span's name repeats.
const MAX_NAME_CHARS: usize = 128;

/// The name of a provider in the conventions; ids that have none there are themselves.
pub fn provider_name(id: &str) -> &str {
    match id {
        "aws" | "bedrock" => "aws.bedrock",
        "azure" => "azure.ai.openai",
        "gcp" | "vertex" => "gcp.vertex_ai",
        "gemini" => "gcp.gemini",
        "mistral" => "mistral_ai",
        "xai" => "x_ai",
        other => other,
    }
}

/// The name of an attempt's span.
pub fn span_name(operation: Operation, model: &str) -> String {
    let model: String = model.chars().take(MAX_NAME_CHARS).collect();
    format!("{operation} {model}")
}

/// What is known of an attempt before it is made.
pub fn attempt_begins(span: &mut Span, operation: Operation, provider: &str, model: &str, deployment: &str) {
    span.set(names::GEN_AI_OPERATION, || operation.as_str());
    span.set(names::GEN_AI_PROVIDER, || provider_name(provider));
    span.set(names::GEN_AI_REQUEST_MODEL, || model);
    span.set(names::DEPLOYMENT, || deployment);
}

/// What is known of an attempt at its end.
pub fn attempt_ended(span: &mut Span, attempt: &AttemptRecord) {
    if !span.is_recorded() {
        return;
    }
    let AttemptRecord {
        model,
        first_token,
        status,
        error,
        upstream_request_id,
        charge,
        ..
    } = attempt;
    let usage = &charge.usage;
    if error.is_none() {
        span.set(names::GEN_AI_RESPONSE_MODEL, || model.as_str());
    }
    if error.is_none() || usage.input + usage.output > 0 {
        span.set(names::GEN_AI_INPUT_TOKENS, || usage.input);
        span.set(names::GEN_AI_OUTPUT_TOKENS, || usage.output);
    }
    let positive = |tokens: u64| (tokens > 0).then_some(tokens);
    span.set_if(names::GEN_AI_CACHE_READ, positive(usage.cached_input));
    span.set_if(
        names::GEN_AI_CACHE_CREATION,
        positive(usage.cache_write + usage.cache_write_1h),
    );
    span.set_if(names::GEN_AI_REASONING_TOKENS, positive(usage.reasoning));
    span.set_if(names::HTTP_STATUS, *status);
    span.set_if(names::UPSTREAM_REQUEST_ID, upstream_request_id.as_deref());
    span.set_if(names::COST, charge.cost.map(|cost| cost.0));
    span.set(names::METERING, || charge.metering().as_str());
    span.set_if(names::GEN_AI_FIRST_CHUNK, first_token.map(|first| first.as_secs_f64()));
    if let Some(class) = error {
        span.failed(class.as_str());
    }
}

/// What is known of a request at its end, on the first span of ours.
pub fn request_ended(span: &mut Span, record: &UsageRecord) {
    if !span.is_recorded() {
        return;
    }
    span.set(names::GEN_AI_OPERATION, || record.operation.as_str());
    if !record.requested_model.is_empty() {
        span.set(names::GEN_AI_REQUEST_MODEL, || record.requested_model.as_str());
    }
    if let Some((provider, model)) = record.origin() {
        span.set(names::GEN_AI_PROVIDER, || provider_name(provider.as_str()));
        span.set(names::GEN_AI_RESPONSE_MODEL, || model.as_str());
    }
    span.set(names::REQUEST_ID, || record.id.header());
    span.set(names::ORGANIZATION_ID, || record.owner.organization.to_string());
    span.set(names::KEY_ID, || record.owner.key.to_string());
    span.set_if(names::TEAM_ID, record.owner.team.map(|team| team.to_string()));
    span.set(names::DIALECT, || record.dialect.as_str());
    span.set(names::GEN_AI_STREAM, || record.stream);
    span.set(names::CACHE_STATUS, || record.cache.as_str());
    span.set(names::ATTEMPTS, || record.attempts.len());
    span.set_if(names::COST, record.cost().map(|cost| cost.0));
    span.set(names::OVERHEAD_SECONDS, || record.overhead.as_secs_f64());
    span.set_if(
        names::GEN_AI_FIRST_CHUNK,
        record.first_token.map(|first| first.as_secs_f64()),
    );
    if record.client_cancelled {
        span.set(names::CLIENT_CANCELLED, || true);
    }
    if let Some(class) = record.error {
        ended_badly(span, class, record.status);
    }
}

/// What a request ended with that did not end well: what a caller can mend is no failure of whoever serves.
pub fn ended_badly(span: &mut Span, class: ErrorClass, status: u16) {
    match status {
        400..=499 => span.refused(class.as_str()),
        _ => span.failed(class.as_str()),
    }
}

/// The spans of a request whose trace was not to be recorded, made out of its record because it failed. Gives where its row
/// in the ledger belongs, if they were made.
pub fn after_all(tracer: &Tracer, context: TraceContext, record: &UsageRecord) -> Option<TraceContext> {
    // Who was refused for a reason of their own can be many, and is in the log of requests anyway.
    if (400..500).contains(&record.status) || record.client_cancelled {
        return None;
    }
    let start = SystemTime::now().checked_sub(record.latency)?;
    let (path, operation) = (route(record.operation, record.dialect), record.operation);
    let mut root = tracer.after_all(context, || format!("POST {path}"), start)?;
    root.set(names::HTTP_METHOD, || "POST");
    root.set(names::HTTP_ROUTE, || path);
    root.set(names::HTTP_STATUS, || record.status);
    root.set(names::AFTER_ALL, || true);
    root.set_if(names::ROUTING_REASONS, reasons(record.routing.as_deref()));
    request_ended(&mut root, record);
    let place = root.context()?;
    for attempt in &record.attempts {
        let began = start + attempt.started_after;
        let (provider, model) = (attempt.provider.as_str(), attempt.model.as_str());
        let mut span = tracer.part(place, span_name(operation, model), Kind::Client, began);
        attempt_begins(&mut span, operation, provider, model, attempt.deployment.as_str());
        attempt_ended(&mut span, attempt);
        span.ends_at(began + attempt.latency);
    }
    root.ends_at(start + record.latency.max(Duration::ZERO));
    Some(place)
}

/// Why a request goes where it goes; whoever made the text has bounded it.
pub fn reasons(json: Option<&str>) -> Option<Value> {
    json.map(|json| Value::Bounded(json.to_owned()))
}

fn route(operation: Operation, dialect: Dialect) -> &'static str {
    match (operation, dialect) {
        (Operation::Chat, Dialect::Anthropic) => "/v1/messages",
        (Operation::Chat, Dialect::OpenAi) => "/v1/chat/completions",
        (Operation::Completion, _) => "/v1/completions",
        (Operation::Embedding, _) => "/v1/embeddings",
    }
}

/// A refusal that has no record of its own, such as one before the body was read.
pub fn refused(span: &mut Span, error: &GatewayError) {
    span.failed(error.class().as_str());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_are_called_as_the_conventions_call_them() {
        let names = ["openai", "aws", "azure", "gcp", "gemini", "my-own"].map(provider_name);
        let expected = [
            "openai",
            "aws.bedrock",
            "azure.ai.openai",
            "gcp.vertex_ai",
            "gcp.gemini",
            "my-own",
        ];
        assert_eq!(names, expected);
    }
}
