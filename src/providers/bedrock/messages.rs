//! What was said, as Converse takes it: the system's text apart, users and assistants in turns, and of each message only
//! what the model has a place for.

use std::borrow::Cow;
use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::encode::{MAX_NAME_BYTES, Tools, Writer, refused, tool_name};
use super::reasoning::Plan;
use super::wire::{Block, Message, Reasoning, Source};
use crate::chat::conversation::{
    CacheMark, Media, MediaKind, MediaSource, Part, Role, Text, Thinking, ToolCall, ToolResult,
};
use crate::chat::media::{self, MediaType};
use crate::chat::{history, ids};
use crate::domain::error::InvalidRequest;
use crate::domain::model::Family;
use crate::providers::adapter::Wanted;

/// What stands for a tool's result that says nothing: blank text is refused.
const NOTHING: &str = "(empty)";
/// What the user says where the conversation would end with the assistant and the model does not go on from there.
const GO_ON: &str = "Continue.";
/// A document is refused without a text beside it.
const SEE_DOCUMENT: &str = "See the document.";
/// Bytes of a document's name. The service takes 200.
const MAX_DOCUMENT_NAME: usize = 64;

/// The system's text and the messages.
///
/// # Errors
/// A medium that the model does not take.
pub(super) fn write<'c>(
    writer: &mut Writer<'c>,
    tools: &Tools<'c>,
    thinking: &Plan,
) -> Result<(Vec<Block<'c>>, Vec<Message<'c>>), InvalidRequest> {
    let conversation = writer.conversation;
    let (late, turns) = history::without_system_turns(&conversation.turns);
    let mut system = Vec::new();
    for text in conversation.system.iter().chain(late) {
        if !text.is_blank() {
            system.push(Block::Text(Cow::Borrowed(&text.text)));
        }
        // A point must stand behind something.
        if !system.is_empty() {
            system.extend(writer.cache_point(text.cache).map(Block::CachePoint));
        }
    }
    let instructions = std::mem::take(&mut writer.instructions);
    system.extend(instructions.into_iter().map(Block::Text));
    let mut content = Content {
        writer,
        in_words: tools.in_words,
        documents: BTreeSet::new(),
    };
    let mut messages: Vec<Message<'c>> = Vec::with_capacity(turns.len());
    for (role, parts) in turns {
        let (role, blocks) = match role {
            Role::Assistant => ("assistant", content.assistant(parts)),
            Role::User | Role::System => ("user", content.user(parts)?),
        };
        match messages.last_mut() {
            _ if blocks.is_empty() => {}
            // A turn that came to nothing leaves its neighbours side by side.
            Some(last) if last.role == role => last.content.extend(blocks),
            _ => messages.push(Message { role, content: blocks }),
        }
    }
    end_well(&mut messages, writer, thinking);
    if let Some(point) = writer.cache_point(conversation.cache)
        && let Some(last) = messages.last_mut()
        && !matches!(last.content.last(), Some(Block::CachePoint(_)))
    {
        last.content.push(Block::CachePoint(point));
    }
    if !writer.target.traits.bedrock.system_prompt && !system.is_empty() {
        let first = messages.iter_mut().find(|message| message.role == "user");
        if let Some(first) = first {
            first.content.splice(0..0, system.drain(..));
        }
    }
    Ok((system, messages))
}

/// The last message is the user's, unless the model goes on with what the assistant began.
fn end_well(messages: &mut Vec<Message<'_>>, writer: &Writer<'_>, thinking: &Plan) {
    let Some(last) = messages.last_mut().filter(|last| last.role == "assistant") else {
        return;
    };
    let goes_on = match writer.target.traits.family {
        Family::Claude => writer.target.traits.claude.prefill && !thinking.thinks,
        Family::Nova => true,
        _ => false,
    };
    if !goes_on {
        messages.push(Message {
            role: "user",
            content: vec![Block::Text(GO_ON.into())],
        });
    } else if let Some(Block::Text(text)) = last.content.last_mut() {
        // White space at the end is refused.
        let kept = text.trim_end().len();
        match text {
            Cow::Borrowed(borrowed) => *text = Cow::Borrowed(&borrowed[..kept]),
            Cow::Owned(owned) => owned.truncate(kept),
        }
    }
}

struct Content<'w, 'c> {
    writer: &'w mut Writer<'c>,
    in_words: bool,
    /// Names of documents so far: they must differ.
    documents: BTreeSet<String>,
}

impl<'c> Content<'_, 'c> {
    fn user(&mut self, parts: Vec<&'c Part>) -> Result<Vec<Block<'c>>, InvalidRequest> {
        let mut blocks = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Part::Text(text) => self.text(text, &mut blocks),
                Part::Media(media) => {
                    blocks.extend(self.media(media)?);
                    self.cache(media.cache, &mut blocks);
                }
                Part::Result(result) => self.result(result, &mut blocks)?,
                Part::Call(_) | Part::Thinking(_) => {}
            }
        }
        let has = |kind: fn(&Block<'_>) -> bool| blocks.iter().any(kind);
        let document = has(|block| matches!(block, Block::Document { .. }));
        if document && !has(|block| matches!(block, Block::Text(_))) {
            blocks.push(Block::Text(SEE_DOCUMENT.into()));
        }
        Ok(blocks)
    }

    fn assistant(&mut self, parts: Vec<&'c Part>) -> Vec<Block<'c>> {
        let mut blocks = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Part::Thinking(thinking) => blocks.extend(self.thinking(thinking)),
                Part::Text(text) => self.text(text, &mut blocks),
                Part::Call(call) => {
                    blocks.push(self.call(call));
                    self.cache(call.cache, &mut blocks);
                }
                // Only users show things.
                Part::Media(media) => self.writer.notes.add(media.place.to_string()),
                Part::Result(_) => {}
            }
        }
        // Nothing but the point of a cache says nothing.
        if blocks.iter().all(|block| matches!(block, Block::CachePoint(_))) {
            blocks.clear();
        }
        blocks
    }

    fn text(&mut self, text: &'c Text, blocks: &mut Vec<Block<'c>>) {
        if !text.is_blank() {
            blocks.push(Block::Text(Cow::Borrowed(&text.text)));
        }
        self.cache(text.cache, blocks);
    }

    fn cache(&mut self, mark: Option<CacheMark>, blocks: &mut Vec<Block<'c>>) {
        // A point must stand behind something.
        if !blocks.is_empty() {
            blocks.extend(self.writer.cache_point(mark).map(Block::CachePoint));
        }
    }

    /// A thought goes back to whoever thought it, and to nobody else.
    fn thinking(&self, thinking: &'c Thinking) -> Option<Block<'c>> {
        let traits = self.writer.target.traits;
        if self.writer.is_claude() && traits.claude.thinking.is_empty() {
            return None;
        }
        let ours = self.writer.issuer();
        match thinking {
            Thinking::Words {
                text,
                signature: Some(signature),
            } if signature.issuer == ours => Some(Block::ReasoningContent(Reasoning::ReasoningText {
                text,
                signature: &signature.value,
            })),
            Thinking::Redacted { data, issuer } if *issuer == ours => {
                Some(Block::ReasoningContent(Reasoning::RedactedContent(data)))
            }
            Thinking::Words { .. } | Thinking::Redacted { .. } => None,
        }
    }

    fn call(&self, call: &'c ToolCall) -> Block<'c> {
        if self.in_words {
            let words = format!("(called the tool {} with {})", call.name, call.arguments);
            return Block::Text(words.into());
        }
        Block::ToolUse {
            tool_use_id: call_id(&call.id),
            name: tool_name(&call.name),
            input: call.embedded_arguments(),
        }
    }

    fn result(&mut self, result: &'c ToolResult, blocks: &mut Vec<Block<'c>>) -> Result<(), InvalidRequest> {
        let family = self.writer.target.traits.family;
        let takes_status = matches!(family, Family::Claude | Family::Nova | Family::Nova2);
        let failed_in_words = result.is_error && (self.in_words || !takes_status);
        let mut content = Vec::with_capacity(result.content.len());
        let mut marks = Vec::new();
        for part in &result.content {
            match part {
                Part::Text(text) => {
                    if !text.is_blank() {
                        content.push(Block::Text(Cow::Borrowed(&text.text)));
                    }
                    marks.push(text.cache);
                }
                Part::Media(media) => {
                    content.extend(self.media(media)?);
                    marks.push(media.cache);
                }
                Part::Call(_) | Part::Result(_) | Part::Thinking(_) => {}
            }
        }
        if content.is_empty() {
            content.push(Block::Text(NOTHING.into()));
        }
        if failed_in_words {
            content.insert(0, Block::Text("Error:".into()));
        }
        if self.in_words {
            let name = result.name.as_deref().unwrap_or("tool");
            blocks.push(Block::Text(format!("(the result of {name} follows)").into()));
            blocks.extend(content);
        } else {
            blocks.push(Block::ToolResult {
                tool_use_id: call_id(&result.id),
                content,
                status: (result.is_error && takes_status).then_some("error"),
            });
        }
        marks.push(result.cache);
        self.cache(marks.into_iter().flatten().next_back(), blocks);
        Ok(())
    }

    /// A medium; `None` where it has to be fetched first.
    fn media(&mut self, media: &'c Media) -> Result<Option<Block<'c>>, InvalidRequest> {
        let traits = &self.writer.target.traits.bedrock;
        let place = media.place.to_string();
        let taken = match media.kind {
            MediaKind::Image => traits.images,
            MediaKind::Document => traits.documents,
            MediaKind::Audio => return Err(refused(place, "is a recording, which this model does not take")),
        };
        if let MediaSource::Text(text) = &media.source
            && !taken
        {
            return Ok(Some(Block::Text(Cow::Borrowed(text))));
        }
        if !taken {
            let noun = if media.kind == MediaKind::Image {
                "an image"
            } else {
                "a document"
            };
            return Err(refused(place, format!("is {noun}, which this model does not take")));
        }
        if media.detail.as_deref().is_some_and(|detail| detail != "auto") {
            self.writer.notes.add(format!("{place}.image_url.detail"));
        }
        let (media_type, data): (&str, Cow<'c, str>) = match &media.source {
            MediaSource::Base64 { media_type, data } => (media_type, Cow::Borrowed(data)),
            MediaSource::Text(text) => ("text/plain", Cow::Owned(STANDARD.encode(text))),
            MediaSource::FileId(_) => {
                return Err(refused(
                    place,
                    "names a file that only another provider has; send its bytes",
                ));
            }
            MediaSource::Url(url) => match self.writer.target.media.get(url) {
                Some(fetched) => (&fetched.media_type, Cow::Borrowed(&fetched.data)),
                None => {
                    self.writer.wanted.push(Wanted {
                        url: url.clone(),
                        kind: media.kind,
                        place: media.place,
                    });
                    return Ok(None);
                }
            },
        };
        if media.kind == MediaKind::Image {
            let Some(format) = image_format(media_type, &data) else {
                return Err(refused(place, "must be a PNG, JPEG, GIF or WebP image"));
            };
            let source = Source { bytes: data };
            return Ok(Some(Block::Image { format, source }));
        }
        let Some(format) = document_format(media_type) else {
            let problem = format!(
                "is a document of a kind that is not taken ({media_type:.60}); PDF, CSV, HTML, Markdown, plain text, Word \
                 and Excel are"
            );
            return Err(refused(place, problem));
        };
        Ok(Some(Block::Document {
            format,
            name: self.document_name(media.name.as_deref()),
            source: Source { bytes: data },
        }))
    }

    /// A name that the service takes, and that no other document of the request has.
    fn document_name(&mut self, given: Option<&str>) -> String {
        let base = given.map(neutral).filter(|name| !name.is_empty());
        let base = base.unwrap_or_else(|| "document".to_owned());
        let mut name = base.clone();
        let mut number = 2;
        while !self.documents.insert(name.clone()) {
            name = format!("{base} {number}");
            number += 1;
        }
        name
    }
}

/// A file's name without its ending and with nothing but letters, digits, single spaces, hyphens, parentheses and brackets.
fn neutral(name: &str) -> String {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let mut kept = String::with_capacity(stem.len().min(MAX_DOCUMENT_NAME));
    for c in stem.chars() {
        let c = if c.is_ascii_alphanumeric() || "-()[]".contains(c) {
            c
        } else {
            ' '
        };
        if c != ' ' || !(kept.is_empty() || kept.ends_with(' ')) {
            kept.push(c);
        }
        if kept.len() == MAX_DOCUMENT_NAME {
            break;
        }
    }
    kept.trim_end().to_owned()
}

/// The format of a picture: as it begins, or else as it was called.
fn image_format(media_type: &str, data: &str) -> Option<&'static str> {
    // Sixteen characters are twelve bytes.
    let start = data.get(..16).and_then(|start| STANDARD.decode(start).ok());
    let kind = start
        .and_then(|start| media::sniff(&start))
        .or_else(|| MediaType::named(media_type))?;
    match kind {
        MediaType::Png => Some("png"),
        MediaType::Jpeg => Some("jpeg"),
        MediaType::Gif => Some("gif"),
        MediaType::Webp => Some("webp"),
        MediaType::Pdf | MediaType::Text => None,
    }
}

fn document_format(media_type: &str) -> Option<&'static str> {
    Some(match media_type.split(';').next().unwrap_or_default().trim() {
        "application/pdf" => "pdf",
        "text/csv" => "csv",
        "application/msword" => "doc",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document" => "docx",
        "application/vnd.ms-excel" => "xls",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" => "xlsx",
        "text/html" => "html",
        "text/markdown" | "text/x-markdown" => "md",
        kind if kind.starts_with("text/") => "txt",
        _ => return None,
    })
}

/// An id that the service takes, the same for the call and for its result.
fn call_id(id: &str) -> Cow<'_, str> {
    ids::fitting(id, MAX_NAME_BYTES, |byte| {
        byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte)
    })
}
