//! From the provider's bytes to the caller's: usage read, failures found, everything else relayed as it came.

use std::ops::Range;

use bytes::Bytes;
use serde::de::{self, DeserializeSeed, MapAccess};

use super::{failure, wire};
use crate::chat::estimate::TextTally;
use crate::chat::request::Request;
use crate::chat::walk::{Fields, Items, Kind, Object, Walk};
use crate::domain::call::{ErrorClass, Operation};
use crate::domain::service::Service;
use crate::domain::usage::TokenUsage;
use crate::providers::adapter::{Decoder, Failure, Reader, Relayed, StreamLimits, WholeAnswer, WireAnswer};
use crate::providers::sse::{self, Records, TooLarge};

/// Nesting of an answer; tool arguments are text, so real ones are shallow.
const MAX_DEPTH: usize = 128;

/// Understands a whole answer.
///
/// # Errors
/// It is not JSON, holds an error in spite of its status, or lacks what makes it an answer.
pub fn whole(operation: Operation, body: Bytes) -> Result<WholeAnswer, Failure> {
    let mut answer = Answer::default();
    if Walk::object(&body, MAX_DEPTH, &mut answer).is_err() {
        return Err(Failure::new(
            ErrorClass::Malformed,
            "answered 200 with a body that is not a JSON object",
        ));
    }
    if let Some(error) = answer.error {
        return Err(reported(error));
    }
    let (items, name) = match operation {
        Operation::Chat | Operation::Completion => (answer.choices, "choices"),
        Operation::Embedding => (answer.data, "data"),
    };
    if items.is_none() {
        return Err(Failure::new(
            ErrorClass::Malformed,
            format!("answered 200 without {name}"),
        ));
    }
    let usage = answer.usage.and_then(|found| wire::usage(found.raw));
    let service = answer.service_tier.and_then(wire::service);
    let usage = usage.map(|usage| TokenUsage { service, ..usage });
    Ok(WholeAnswer {
        usage,
        generated: answer.generated,
        withheld: answer.filtered && answer.generated.tokens() == 0,
        body,
    })
}

/// The failure an `error` inside an answer of status 200 stands for.
pub(super) fn reported(raw: &str) -> Failure {
    let error = wire::error_value(raw).unwrap_or_default();
    failure::of(failure::status_of_stream_error(&error), error)
}

/// Understands the answer to a request that was forwarded: it goes back as it came.
#[derive(Clone, Copy, Debug)]
pub struct Forwarded {
    operation: Operation,
    show_usage: bool,
    rules: StreamRules,
}

impl Forwarded {
    /// The reader of the answer to `request`.
    pub fn new(request: &Request, rules: StreamRules) -> Self {
        Self {
            operation: request.operation,
            show_usage: request.stream_options.include_usage,
            rules,
        }
    }
}

impl Reader for Forwarded {
    fn whole(self: Box<Self>, answers: Vec<WireAnswer>) -> Result<WholeAnswer, Failure> {
        let body = answers.into_iter().next().map(|answer| answer.body).unwrap_or_default();
        whole(self.operation, body)
    }

    fn decoder(self: Box<Self>, limits: StreamLimits) -> Box<dyn Decoder> {
        Box::new(StreamDecoder::new(self.show_usage, self.rules, limits))
    }
}

/// How streams of OpenAI's kind differ between providers.
#[derive(Clone, Copy, Debug)]
pub struct StreamRules {
    /// Whether a complete stream ends with `data: [DONE]`. Where it does not, a finish reason and a proper close do.
    pub done_marker: bool,
    /// Whether content-filter records that no OpenAI client understands are dropped or made whole (Azure).
    pub merges_filter_records: bool,
}

/// The decoder for streams in OpenAI's format.
pub struct StreamDecoder {
    rules: StreamRules,
    records: Records,
    /// Whether the caller asked for the usage; otherwise it is read and taken out.
    show_usage: bool,
    usage: Option<TokenUsage>,
    /// How the call is served, once a chunk has said so.
    service: Option<Service>,
    generated: TextTally,
    finished: bool,
    /// Whether a filter ended a choice.
    filtered: bool,
    complete: bool,
    /// The first record with a choice, kept where later ones may have to borrow its identity.
    first: Option<Bytes>,
}

impl StreamDecoder {
    /// A decoder that shows the caller the usage or keeps it.
    pub fn new(show_usage: bool, rules: StreamRules, limits: StreamLimits) -> Self {
        Self {
            rules,
            records: Records::new(limits.max_event_bytes),
            show_usage,
            usage: None,
            service: None,
            generated: TextTally::default(),
            finished: false,
            filtered: false,
            complete: false,
            first: None,
        }
    }

    fn drain(&mut self, out: &mut Relayed) -> Result<(), Failure> {
        // What a provider sends behind the end of its answer is nobody's business, however large or broken it is.
        while !self.complete {
            match self.records.take() {
                Ok(Some(record)) => self.record(&record, out)?,
                Ok(None) => return Ok(()),
                Err(TooLarge) => {
                    return Err(Failure::new(
                        ErrorClass::Malformed,
                        "sent an event larger than the gateway accepts",
                    ));
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, record: &[u8], out: &mut Relayed) -> Result<(), Failure> {
        // Comments are the provider's keep-alives; ours are sent when they are due.
        let Some(data) = sse::data(record) else { return Ok(()) };
        if data.trim_ascii().is_empty() {
            return Ok(());
        }
        if data.trim_ascii() == b"[DONE]" {
            self.complete = true;
            out.bytes.extend_from_slice(b"data: [DONE]\n\n");
            return Ok(());
        }
        let mut chunk = Answer::default();
        if Walk::object(&data, MAX_DEPTH, &mut chunk).is_err() {
            return Err(Failure::new(
                ErrorClass::Malformed,
                "sent an event that is not a JSON object",
            ));
        }
        if let Some(error) = chunk.error {
            return Err(reported(error));
        }
        self.generated.merge(chunk.generated);
        self.finished |= chunk.finished;
        self.filtered |= chunk.filtered;
        self.service = chunk.service_tier.and_then(wire::service).or(self.service);
        if let Some(usage) = chunk.usage.as_ref().and_then(|found| wire::usage(found.raw)) {
            self.usage = Some(usage);
        }
        if self.rules.merges_filter_records && self.filter_record(&chunk, &data, out) {
            return Ok(());
        }
        match chunk.usage {
            // A record with nothing in it but the usage that we asked for and the caller did not.
            Some(found) if !self.show_usage && found.is_object() && chunk.choices.unwrap_or(0) == 0 => {}
            Some(found) if !self.show_usage => {
                let cut = found.field_with_its_comma(&data);
                write_record(out, &[&data[..cut.start], &data[cut.end..]]);
            }
            _ => write_record(out, &[&data]),
        }
        Ok(())
    }

    /// Handles a record of Azure's content filter; says whether it was one.
    ///
    /// Clients index `choices[0].delta` and join ids, so a record without choices is dropped and one without a delta gets
    /// an empty one and the identity of the answer.
    fn filter_record(&mut self, chunk: &Answer<'_>, data: &[u8], out: &mut Relayed) -> bool {
        let has_usage = chunk.usage.as_ref().is_some_and(Found::is_object);
        match chunk.choices {
            Some(0) | None => !has_usage,
            Some(_) if chunk.without_delta => {
                if let Some(whole) = self.first.as_deref().and_then(|first| made_whole(first, data)) {
                    write_record(out, &[&whole]);
                }
                true
            }
            Some(_) => {
                if self.first.is_none() {
                    self.first = Some(Bytes::copy_from_slice(data));
                }
                false
            }
        }
    }
}

impl Decoder for StreamDecoder {
    fn feed(&mut self, bytes: Bytes, out: &mut Relayed) -> Result<(), Failure> {
        if self.complete {
            return Ok(());
        }
        out.bytes.reserve(bytes.len());
        self.records.push(bytes);
        self.drain(out)
    }

    fn end(&mut self, out: &mut Relayed) -> Result<(), Failure> {
        let cut = || Failure::new(ErrorClass::Cut, "ended its stream before the answer was complete");
        if self.complete {
            return Ok(());
        }
        // Some servers leave out the last empty line; what is left is then a record of its own.
        if !self.records.rest().is_empty() {
            self.records.push(Bytes::from_static(b"\n\n"));
            self.drain(out).map_err(|failure| match failure.class {
                // Half a record at the end is what a cut looks like.
                ErrorClass::Malformed => cut(),
                _ => failure,
            })?;
        }
        if self.complete || (!self.rules.done_marker && self.finished) {
            self.complete = true;
            return Ok(());
        }
        Err(cut())
    }

    fn is_complete(&self) -> bool {
        self.complete
    }

    fn usage(&self) -> Option<TokenUsage> {
        let service = self.service;
        self.usage.map(|usage| TokenUsage { service, ..usage })
    }

    fn generated(&self) -> TextTally {
        self.generated
    }

    fn is_withheld(&self) -> bool {
        self.filtered && !self.has_said()
    }
}

/// Writes one record whose data is `parts` joined.
fn write_record(out: &mut Relayed, parts: &[&[u8]]) {
    out.bytes.extend_from_slice(b"data: ");
    for part in parts {
        for (index, line) in part.split(|&byte| byte == b'\n').enumerate() {
            // Data of several lines is several `data:` fields.
            if index > 0 {
                out.bytes.extend_from_slice(b"\ndata: ");
            }
            out.bytes.extend_from_slice(line);
        }
    }
    out.bytes.extend_from_slice(b"\n\n");
}

/// An annotation record of Azure's asynchronous filter as a chunk that OpenAI clients accept.
fn made_whole(first: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let first: serde_json::Value = serde_json::from_slice(first).ok()?;
    let mut record: serde_json::Value = serde_json::from_slice(data).ok()?;
    for name in ["id", "object", "created", "model"] {
        record[name] = first.get(name)?.clone();
    }
    // Chunks of the legacy completions have a text where those of chats have a delta.
    let (name, empty) = match record["object"].as_str() {
        Some("text_completion") => ("text", serde_json::json!("")),
        _ => ("delta", serde_json::json!({})),
    };
    for choice in record.get_mut("choices")?.as_array_mut()? {
        choice.as_object_mut()?.entry(name).or_insert_with(|| empty.clone());
    }
    if let Some(fields) = record.as_object_mut() {
        // The usage of an annotation is always null, and the caller may not have asked for any.
        fields.remove("usage");
    }
    serde_json::to_vec(&record).ok()
}

/// What is read of an answer, whole or a chunk of it.
#[derive(Default)]
struct Answer<'a> {
    /// How many choices there are; `None` where the field is missing or null.
    choices: Option<usize>,
    /// Whether a choice of this chunk has no delta.
    without_delta: bool,
    /// Whether a choice says why it ended.
    finished: bool,
    /// Whether a filter ended one.
    filtered: bool,
    data: Option<usize>,
    usage: Option<Found<'a>>,
    service_tier: Option<&'a str>,
    error: Option<&'a str>,
    generated: TextTally,
}

/// A field with its place in the document.
struct Found<'a> {
    raw: &'a str,
    name: Option<Range<usize>>,
    value: Range<usize>,
}

impl Found<'_> {
    fn is_object(&self) -> bool {
        Kind::of(self.raw) == Kind::Object
    }

    /// The stretch that has to go for the field to be gone: name, value and one comma.
    fn field_with_its_comma(&self, document: &[u8]) -> Range<usize> {
        let Some(name) = &self.name else {
            return self.value.end..self.value.end;
        };
        let start = name.start - 1;
        let before = document[..start].trim_ascii_end();
        if before.last() == Some(&b',') {
            return before.len() - 1..self.value.end;
        }
        let after = &document[self.value.end..];
        let blank = after.len() - after.trim_ascii_start().len();
        let comma = usize::from(after.get(blank) == Some(&b','));
        start..self.value.end + blank + comma
    }
}

impl<'a> Fields<'a> for Answer<'a> {
    fn field<A: MapAccess<'a>>(&mut self, walk: &Walk<'_>, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "choices" => {
                let mut seen = ChoicesSeen::default();
                self.choices = walk.array(map, "an array of choices", &mut Choices { seen: &mut seen })?;
                self.without_delta = seen.without_delta;
                self.finished = seen.finished;
                self.filtered = seen.filtered;
                self.generated = seen.generated;
            }
            "data" => {
                let raw = walk.opaque(map)?;
                self.data = (Kind::of(raw) == Kind::Array).then_some(1);
            }
            "usage" => {
                let raw = walk.opaque(map)?;
                self.usage = Some(Found {
                    raw,
                    name: walk.span_if_inside(name),
                    value: walk.span(raw),
                });
            }
            "service_tier" => self.service_tier = Some(walk.opaque(map)?),
            "error" => {
                let raw = walk.opaque(map)?;
                self.error = (Kind::of(raw) != Kind::Null).then_some(raw);
            }
            _ => drop(walk.opaque(map)?),
        }
        Ok(())
    }
}

#[derive(Default)]
struct ChoicesSeen {
    without_delta: bool,
    finished: bool,
    filtered: bool,
    generated: TextTally,
}

/// The elements of `choices`.
struct Choices<'s> {
    seen: &'s mut ChoicesSeen,
}

impl<'de> Items<'de> for Choices<'_> {
    const EXPECTED: &'static str = "a choice";

    fn item<D: de::Deserializer<'de>>(&mut self, walk: &Walk<'_>, _index: usize, item: D) -> Result<(), D::Error> {
        let fields = Choice {
            seen: self.seen,
            content: false,
        };
        Object { walk, fields }.deserialize(item)
    }
}

/// One choice of an answer or a chunk.
struct Choice<'s> {
    seen: &'s mut ChoicesSeen,
    /// Whether it holds a delta, a message or a text.
    content: bool,
}

impl<'de> Fields<'de> for Choice<'_> {
    fn field<A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "delta" | "message" => {
                self.content = true;
                let raw = walk.opaque(map)?;
                if Kind::of(raw) == Kind::Object {
                    generated(raw, &mut self.seen.generated);
                }
            }
            "text" => {
                self.content = true;
                self.seen.generated.add_json_escaped(unquoted(walk.opaque(map)?));
            }
            "finish_reason" => {
                let raw = walk.opaque(map)?;
                self.seen.finished |= Kind::of(raw) == Kind::Text;
                self.seen.filtered |= raw == "\"content_filter\"";
            }
            _ => drop(walk.opaque(map)?),
        }
        Ok(())
    }

    fn end<E: de::Error>(&mut self, _walk: &Walk<'_>) -> Result<(), E> {
        self.seen.without_delta |= !self.content;
        Ok(())
    }
}

/// Counts the generated text of a message or delta: every text field but those that only name or number things.
fn generated(raw: &str, tally: &mut TextTally) {
    struct Message<'t>(&'t mut TextTally);

    impl<'de> Fields<'de> for Message<'_> {
        fn field<A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, name: &str, map: &mut A) -> Result<(), A::Error> {
            let raw = walk.opaque(map)?;
            match name {
                "content" | "reasoning_content" | "reasoning" | "refusal" if Kind::of(raw) == Kind::Text => {
                    self.0.add_json_escaped(unquoted(raw));
                }
                "tool_calls" | "function_call" => arguments(raw.as_bytes(), self.0),
                _ => {}
            }
            Ok(())
        }
    }
    // The document was parsed before; a message that is odd inside is simply not counted.
    let _ = Walk::object(raw.as_bytes(), MAX_DEPTH, &mut Message(tally));
}

/// Counts what the model wrote of tool calls: their names and arguments.
fn arguments(raw: &[u8], tally: &mut TextTally) {
    for name in [&b"\"arguments\":"[..], b"\"name\":", b"\"input\":"] {
        for at in memchr::memmem::find_iter(raw, name) {
            let value = raw[at + name.len()..].trim_ascii_start();
            if let Some(inside) = value.strip_prefix(b"\"") {
                let end = crate::chat::walk::end_of_string(inside, 0);
                tally.add_json_escaped(&inside[..end]);
            }
        }
    }
}

fn unquoted(raw: &str) -> &[u8] {
    let inside = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inside.unwrap_or_default().as_bytes()
}

#[cfg(test)]
mod tests;
