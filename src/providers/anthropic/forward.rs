//! A caller who speaks Anthropic's dialect at a host of Claude: the caller's own bytes go out, the provider's come back, and
//! what passes is only counted.
//!
//! What a host has not is cut out of the bytes and replaced by what it has: the model's name, addresses that it does not
//! fetch, and the mark of a cache that it does not place.

use std::borrow::Cow;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::wire::Usage;
use super::{Host, encode, failure};
use crate::chat::anthropic::read::is_unsigned_or_foreign;
use crate::chat::conversation::{MediaKind, Place};
use crate::chat::estimate::TextTally;
use crate::chat::request::Request;
use crate::domain::call::ErrorClass;
use crate::domain::error::InvalidRequest;
use crate::domain::usage::TokenUsage;
use crate::providers::adapter::{
    Decoder, Failure, MediaLibrary, Payload, Reader, Relayed, StreamLimits, Target, Unencodable, Wanted, WholeAnswer,
    WireAnswer,
};
use crate::providers::cuts::{self, Cut, Members};
use crate::providers::sse::{self, Records, TooLarge};

/// The most that is held back until an answer has really begun.
const MAX_HELD_BYTES: usize = 64 * 1024;

/// The body for a host: the caller's bytes with the model's name replaced, or with the version in its place.
///
/// Thoughts that another provider's model had, or that nobody signed, would be refused by Claude: a conversation that moved
/// here from elsewhere goes out without them, and otherwise as it is.
///
/// # Errors
/// The host fetches nothing itself, and pictures or documents have to be fetched first; or what was fetched is none.
pub fn body(request: &Request, target: &Target<'_>, host: Host) -> Result<Payload, Unencodable> {
    let replacement = match host.version_in_body() {
        Some(version) => Naming::Replaced(version),
        None => Naming::Kept,
    };
    written(request, target, host, &replacement)
}

/// The body of a question for the number of its tokens, in which every host wants to see the model.
///
/// # Errors
/// As with [`body`].
pub fn counting(request: &Request, target: &Target<'_>, host: Host) -> Result<Payload, Unencodable> {
    let naming = host.version_in_body().map_or(Naming::Kept, Naming::Joined);
    written(request, target, host, &naming)
}

/// What becomes of the model's name in a body.
enum Naming {
    /// It stays the model's, in the host's words.
    Kept,
    /// A version takes its place.
    Replaced(&'static str),
    /// A version stands in front of it.
    Joined(&'static str),
}

fn written(request: &Request, target: &Target<'_>, host: Host, naming: &Naming) -> Result<Payload, Unencodable> {
    let body = &request.body;
    let mut cuts = foreign_thoughts(body).unwrap_or_default();
    if !host.fetches() {
        cuts.extend(fetched_sources(body, target.media)?);
    }
    if !host.places_cache_marks() {
        cuts.extend(placed_mark(body).unwrap_or_default());
    }
    let value = request.model_span.clone();
    let name = || serde_json::to_string(target.wire_name).expect("a string always serialises");
    match naming {
        Naming::Kept if target.wire_name == request.model => {}
        Naming::Kept => cuts.push((value, name().into())),
        Naming::Replaced(version) => {
            let version = format!("\"anthropic_version\":\"{version}\"");
            cuts.push((name_of_field(body, value.start)..value.end, version.into()));
        }
        Naming::Joined(version) => {
            let both = format!("\"anthropic_version\":\"{version}\",\"model\":{}", name());
            cuts.push((name_of_field(body, value.start)..value.end, both.into()));
        }
    }
    Ok(cuts::applied(body, &mut cuts))
}

/// Where the name of the field begins whose value begins at `value`. A name has no quotes inside: `model` needs none, and
/// one that is written with escapes has them for letters.
fn name_of_field(body: &[u8], value: usize) -> usize {
    let before = &body[..value];
    let closing = memchr::memrchr(b'"', before).unwrap_or(0);
    memchr::memrchr(b'"', &before[..closing]).unwrap_or(0)
}

/// Whether it is worth looking for thoughts that Claude would refuse. They are marked by us, or have an empty signature.
fn may_hold_foreign_thoughts(body: &[u8]) -> bool {
    let marked = || memchr::memmem::find(body, b"\"bonito:").is_some();
    let unsigned = || {
        memchr::memmem::find_iter(body, b"\"signature\"").any(|at| {
            let rest = body[at + b"\"signature\"".len()..].trim_ascii_start();
            let rest = rest.strip_prefix(b":").map(<[u8]>::trim_ascii_start);
            rest.is_some_and(|rest| rest.starts_with(b"\"\"") || rest.starts_with(b"null"))
        })
    };
    marked() || unsigned()
}

/// The messages of a body as they are written.
#[derive(Deserialize)]
struct Conversation<'b> {
    #[serde(borrow)]
    messages: Vec<&'b RawValue>,
}

/// What has to go for thoughts to be gone that Claude would refuse; `None` where there are none. A message that held nothing
/// else goes as a whole: neighbours of one role are joined by the service itself.
fn foreign_thoughts(body: &Bytes) -> Option<Vec<Cut>> {
    if !may_hold_foreign_thoughts(body) {
        return None;
    }
    let document = std::str::from_utf8(body).ok()?;
    let messages = serde_json::from_str::<Conversation<'_>>(document).ok()?.messages;
    let mut gone: Vec<Range<usize>> = Vec::new();
    let mut ends = Vec::with_capacity(messages.len());
    for message in &messages {
        let mut stays = true;
        if let Some((blocks, content)) = blocks_of(message) {
            let start = cuts::span(document, content).start;
            let kept: Vec<(usize, bool)> = blocks
                .into_iter()
                .map(|block| (cuts::span(document, block).end, !is_foreign(block)))
                .collect();
            stays = kept.is_empty() || kept.iter().any(|(_, stays)| *stays);
            if stays {
                gone.extend(cuts::without(document, start, &kept));
            }
        }
        ends.push((cuts::span(document, message).end, stays));
    }
    if let Some(first) = messages.first() {
        let first = cuts::span(document, first).start;
        let open = memchr::memrchr(b'[', &body[..first])?;
        gone.extend(cuts::without(document, open, &ends));
    }
    Some(gone.into_iter().map(|range| (range, Bytes::new())).collect())
}

/// The blocks of a message, with the array they stand in. None where its content is a text.
fn blocks_of(message: &RawValue) -> Option<(Vec<&RawValue>, &RawValue)> {
    let Members(members) = serde_json::from_str(message.get()).ok()?;
    let (_, content) = members.into_iter().find(|(name, _)| name == "content")?;
    Some((serde_json::from_str(content.get()).ok()?, content))
}

fn is_foreign(block: &RawValue) -> bool {
    serde_json::from_str(block.get()).is_ok_and(|block: Value| is_unsigned_or_foreign(&block))
}

/// The `stop_reason` of an answer that the provider's policy ended.
const REFUSAL: &str = "refusal";

/// Sources at an address, each to be replaced by its bytes.
///
/// # Errors
/// Those that nobody has fetched yet, or the fault of one that was.
fn fetched_sources(body: &Bytes, media: &MediaLibrary) -> Result<Vec<Cut>, Unencodable> {
    if memchr::memmem::find(body, b"\"url\"").is_none() {
        return Ok(Vec::new());
    }
    let document = std::str::from_utf8(body).unwrap_or_default();
    let Ok(Conversation { messages }) = serde_json::from_str::<Conversation<'_>>(document) else {
        return Ok(Vec::new());
    };
    let mut sources = Sources {
        document,
        media,
        cuts: Vec::new(),
        wanted: Vec::new(),
    };
    for (message, raw) in messages.into_iter().enumerate() {
        let blocks = blocks_of(raw).map(|(blocks, _)| blocks).unwrap_or_default();
        for (part, block) in blocks.into_iter().enumerate() {
            sources.block(block, Place { message, part })?;
        }
    }
    if sources.wanted.is_empty() {
        Ok(sources.cuts)
    } else {
        Err(Unencodable::NeedsMedia(sources.wanted))
    }
}

/// The sources of a body, as they are found.
struct Sources<'b> {
    document: &'b str,
    media: &'b MediaLibrary,
    cuts: Vec<Cut>,
    wanted: Vec<Wanted>,
}

/// A block that may show something, or hold blocks that do.
#[derive(Deserialize)]
struct Showing<'b> {
    #[serde(borrow, default)]
    r#type: Option<Cow<'b, str>>,
    #[serde(borrow, default)]
    source: Option<&'b RawValue>,
    #[serde(borrow, default)]
    content: Option<&'b RawValue>,
}

/// Where a block has from what it shows.
#[derive(Deserialize)]
struct Source<'b> {
    #[serde(borrow, default)]
    r#type: Option<Cow<'b, str>>,
    #[serde(borrow, default)]
    url: Option<Cow<'b, str>>,
    #[serde(borrow, default)]
    content: Option<&'b RawValue>,
}

impl<'b> Sources<'b> {
    /// Looks at a block, and at those inside it: results of tools show pictures, too.
    fn block(&mut self, raw: &'b RawValue, place: Place) -> Result<(), InvalidRequest> {
        let Ok(block) = serde_json::from_str::<Showing<'b>>(raw.get()) else {
            return Ok(());
        };
        let kind = match block.r#type.as_deref() {
            Some("image") => Some(MediaKind::Image),
            Some("document") => Some(MediaKind::Document),
            _ => None,
        };
        if let (Some(kind), Some(source)) = (kind, block.source) {
            self.source(source, kind, place)?;
        }
        self.within(block.content, place)
    }

    fn within(&mut self, content: Option<&'b RawValue>, place: Place) -> Result<(), InvalidRequest> {
        let blocks: Option<Vec<&'b RawValue>> = content.and_then(|raw| serde_json::from_str(raw.get()).ok());
        blocks
            .unwrap_or_default()
            .into_iter()
            .try_for_each(|block| self.block(block, place))
    }

    fn source(&mut self, raw: &'b RawValue, kind: MediaKind, place: Place) -> Result<(), InvalidRequest> {
        let Ok(source) = serde_json::from_str::<Source<'b>>(raw.get()) else {
            return Ok(());
        };
        let (Some("url"), Some(url)) = (source.r#type.as_deref(), source.url) else {
            // A document may be made of blocks, pictures among them.
            return self.within(source.content, place);
        };
        match self.media.get(&url) {
            Some(fetched) => {
                let inline = encode::source(kind, &fetched.media_type, &fetched.data)
                    .map_err(|problem| encode::refused(place.to_string(), problem))?;
                self.cuts
                    .push((cuts::span(self.document, raw), inline.to_string().into()));
            }
            None => self.wanted.push(Wanted {
                url: url.into_owned(),
                kind,
                place,
            }),
        }
        Ok(())
    }
}

/// What puts the mark of the whole request where Anthropic's own API would: onto the last block that can be cached. `None`
/// where there is no such mark.
///
/// # Source
/// "Automatic caching" of "Prompt caching", <https://platform.claude.com/docs/en/build-with-claude/prompt-caching>, which
/// other hosts have not.
fn placed_mark(body: &Bytes) -> Option<Vec<Cut>> {
    memchr::memmem::find(body, b"\"cache_control\"")?;
    let document = std::str::from_utf8(body).ok()?;
    let Members(members) = serde_json::from_str(document).ok()?;
    let value = |wanted: &str| members.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value);
    let mark = value("cache_control")?;
    let ends: Vec<(usize, bool)> = members
        .iter()
        .map(|(name, value)| (cuts::span(document, value).end, name != "cache_control"))
        .collect();
    let open = memchr::memchr(b'{', body)?;
    let gone = cuts::without(document, open, &ends);
    let mut placed: Vec<Cut> = gone.into_iter().map(|range| (range, Bytes::new())).collect();
    if mark.get() != "null" {
        let messages: Vec<&RawValue> = serde_json::from_str(value("messages")?.get()).ok()?;
        let on_last = messages
            .into_iter()
            .rev()
            .find_map(|message| marked(document, message, mark.get()));
        placed.extend(on_last.unwrap_or_default());
    }
    Some(placed)
}

/// What marks the last block of a message that can be marked, if it has one. Nothing has to change where that is marked.
fn marked(document: &str, message: &RawValue, mark: &str) -> Option<Vec<Cut>> {
    let Members(members) = serde_json::from_str(message.get()).ok()?;
    let (_, content) = members.into_iter().find(|(name, _)| name == "content")?;
    let at = cuts::span(document, content);
    if let Ok(text) = serde_json::from_str::<Cow<'_, str>>(content.get()) {
        let end = format!(",\"cache_control\":{mark}}}]");
        let block = vec![
            (at.start..at.start, Bytes::from_static(b"[{\"type\":\"text\",\"text\":")),
            (at.end..at.end, end.into()),
        ];
        return (!text.trim().is_empty()).then_some(block);
    }
    let blocks: Vec<&RawValue> = serde_json::from_str(content.get()).ok()?;
    blocks
        .into_iter()
        .rev()
        .find_map(|block| marked_block(document, block, mark))
}

/// What marks a block; `None` where it must have no mark: a thought, or a text that says nothing.
fn marked_block(document: &str, block: &RawValue, mark: &str) -> Option<Vec<Cut>> {
    let Members(members) = serde_json::from_str(block.get()).ok()?;
    let value = |wanted: &str| members.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value);
    let text = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).unwrap_or_default();
    match text(value("type")?).as_str() {
        "thinking" | "redacted_thinking" => return None,
        "text" if value("text").is_none_or(|said| text(said).trim().is_empty()) => return None,
        _ => {}
    }
    let start = cuts::span(document, block).start + 1;
    Some(match value("cache_control") {
        None => vec![(start..start, format!("\"cache_control\":{mark},").into())],
        Some(none) if none.get() == "null" => {
            vec![(cuts::span(document, none), Bytes::copy_from_slice(mark.as_bytes()))]
        }
        Some(_) => Vec::new(),
    })
}

/// Understands the answer to a request that was forwarded: it goes back as it came.
#[derive(Clone, Copy, Debug)]
pub struct Forwarded;

/// What is read of a whole answer, and of an event of a stream.
#[derive(Deserialize)]
struct Passing<'a> {
    #[serde(borrow, default)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content_block: Option<&'a RawValue>,
    #[serde(borrow, default)]
    stop_reason: Option<Cow<'a, str>>,
}

/// The texts of a block or a delta.
#[derive(Deserialize)]
struct Texts<'a> {
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow, default)]
    partial_json: Option<&'a RawValue>,
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

/// Counts what a block or a delta says. One that is odd inside is not counted.
fn count(raw: &RawValue, tally: &mut TextTally) {
    let Ok(texts) = serde_json::from_str::<Texts<'_>>(raw.get()) else {
        return;
    };
    let strings = [texts.text, texts.thinking, texts.partial_json, texts.name];
    for text in strings.into_iter().flatten() {
        let inside = text.get().strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        tally.add_json_escaped(inside.unwrap_or_default().as_bytes());
    }
    if let Some(input) = texts.input.filter(|input| input.get() != "{}") {
        tally.add_json_escaped(input.get().as_bytes());
    }
}

fn malformed(problem: &str) -> Failure {
    Failure::new(ErrorClass::Malformed, problem)
}

impl Reader for Forwarded {
    fn whole(self: Box<Self>, answers: Vec<WireAnswer>) -> Result<WholeAnswer, Failure> {
        let body = answers.into_iter().next().map(|answer| answer.body).unwrap_or_default();
        // As text: of what is not looked at, the parser alone would let bytes through that are none.
        let answer: Passing<'_> = std::str::from_utf8(&body)
            .ok()
            .and_then(|text| serde_json::from_str(text).ok())
            .ok_or_else(|| malformed("answered 200 with a body that is not a JSON object"))?;
        if let Some(error) = answer.error {
            return Err(failure::reported(error.get()));
        }
        let blocks: Option<Vec<&RawValue>> = answer.content.and_then(|raw| serde_json::from_str(raw.get()).ok());
        let Some(blocks) = blocks else {
            return Err(malformed("answered 200 without content"));
        };
        let mut generated = TextTally::default();
        for block in blocks {
            count(block, &mut generated);
        }
        let usage = answer.usage.and_then(|raw| Usage::read(raw.get())?.tokens());
        let withheld = answer.stop_reason.as_deref() == Some(REFUSAL) && generated.tokens() == 0;
        Ok(WholeAnswer {
            usage,
            generated,
            withheld,
            body,
        })
    }

    fn decoder(self: Box<Self>, limits: StreamLimits) -> Box<dyn Decoder> {
        Box::new(PassingStream {
            records: Records::new(limits.max_event_bytes),
            held: BytesMut::new(),
            begun: false,
            usage: None,
            counted: false,
            generated: TextTally::default(),
            refused: false,
            complete: false,
        })
    }
}

/// A stream that passes.
struct PassingStream {
    records: Records,
    /// The start, until something follows it: handing it over commits to this provider, and some begin before they find
    /// out that they are overloaded.
    held: BytesMut,
    begun: bool,
    usage: Option<Usage>,
    /// Whether the end said how much was generated.
    counted: bool,
    generated: TextTally,
    /// Whether it ended because of the provider's policy.
    refused: bool,
    complete: bool,
}

impl PassingStream {
    fn drain(&mut self, out: &mut Relayed) -> Result<(), Failure> {
        while !self.complete {
            match self.records.take() {
                Ok(Some(record)) => self.record(&record, out)?,
                Ok(None) => return Ok(()),
                Err(TooLarge) => return Err(malformed("sent an event larger than the gateway accepts")),
            }
        }
        Ok(())
    }

    fn record(&mut self, record: &[u8], out: &mut Relayed) -> Result<(), Failure> {
        let Some(data) = sse::data(record) else { return Ok(()) };
        if data.trim_ascii().is_empty() {
            return Ok(());
        }
        let event: Passing<'_> = std::str::from_utf8(&data)
            .ok()
            .and_then(|text| serde_json::from_str(text).ok())
            .ok_or_else(|| malformed("sent an event that is not a JSON object"))?;
        let kind = event.r#type.as_deref().unwrap_or_default();
        if kind == "error" || event.error.is_some() {
            return Err(failure::reported(event.error.map_or("", RawValue::get)));
        }
        match kind {
            "message_start" => {
                let message = event
                    .message
                    .and_then(|raw| serde_json::from_str::<Passing<'_>>(raw.get()).ok());
                self.usage = message.and_then(|message| Usage::read(message.usage?.get()));
            }
            "content_block_start" => {
                if let Some(block) = event.content_block {
                    count(block, &mut self.generated);
                }
            }
            "content_block_delta" => {
                if let Some(delta) = event.delta {
                    count(delta, &mut self.generated);
                }
            }
            "message_delta" => {
                let delta = event.delta.and_then(|raw| serde_json::from_str::<Passing<'_>>(raw.get()).ok());
                let reason = delta.and_then(|delta| delta.stop_reason);
                self.refused |= reason.as_deref() == Some(REFUSAL);
                if let Some(later) = event.usage.and_then(|raw| Usage::read(raw.get())) {
                    self.counted |= self.usage.get_or_insert_default().update(later);
                }
            }
            "message_stop" => self.complete = true,
            _ => {}
        }
        let opening = !self.begun && matches!(kind, "message_start" | "ping");
        if opening && self.held.len() + record.len() <= MAX_HELD_BYTES {
            self.held.extend_from_slice(record);
        } else {
            self.begun = true;
            out.bytes.extend_from_slice(&self.held.split());
            out.bytes.extend_from_slice(record);
        }
        Ok(())
    }
}

impl Decoder for PassingStream {
    fn feed(&mut self, bytes: Bytes, out: &mut Relayed) -> Result<(), Failure> {
        if self.complete {
            return Ok(());
        }
        self.records.push(bytes);
        self.drain(out)
    }

    fn end(&mut self, out: &mut Relayed) -> Result<(), Failure> {
        let cut = || Failure::new(ErrorClass::Cut, "ended its stream before the answer was complete");
        if !self.complete && !self.records.rest().is_empty() {
            // Some servers leave out the last empty line; half a record is what a cut looks like.
            self.records.push(Bytes::from_static(b"\n\n"));
            self.drain(out).map_err(|failure| match failure.class {
                ErrorClass::Malformed => cut(),
                _ => failure,
            })?;
        }
        if self.complete { Ok(()) } else { Err(cut()) }
    }

    fn is_complete(&self) -> bool {
        self.complete
    }

    fn usage(&self) -> Option<TokenUsage> {
        // A complete answer that never said how much it was is for us to count.
        if self.complete && !self.counted {
            return None;
        }
        self.usage.as_ref()?.tokens()
    }

    fn generated(&self) -> TextTally {
        self.generated
    }

    fn is_withheld(&self) -> bool {
        self.refused && !self.has_said()
    }
}
