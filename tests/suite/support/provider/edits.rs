//! How one answer is turned into another. Every edit is a plain function from answer to answer, so they compose:
//! `answer.crlf().drip(pause).cut_after_bytes(90)`. Edits of the head alone are in `answer`.

use std::{iter, time::Duration};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_ENCODING;
use serde_json::{Value, json};

use super::{
    answer::{Answer, DONE, Step, record},
    record::Tokens,
};

/// Edits of what happens when. In a faithful stream one piece is one event.
impl Answer {
    /// Sends the first `count` pieces and then does `steps` instead of the rest.
    pub fn after_events(self, count: usize, steps: impl IntoIterator<Item = Step>) -> Self {
        let mut answer = self.keeping_length();
        let end = answer.position_after(count);
        answer.steps.truncate(end);
        answer.steps.extend(steps);
        answer
    }

    /// Sends the first `count` bytes of the body and then does `steps` instead of the rest.
    pub fn after_bytes(self, count: usize, steps: impl IntoIterator<Item = Step>) -> Self {
        let mut answer = self.keeping_length();
        let mut left = count;
        let mut kept = Vec::new();
        for step in answer.steps {
            match step {
                Step::Send { bytes, .. } if bytes.len() > left => {
                    kept.extend((left > 0).then(|| Step::send(bytes.slice(..left))));
                    break;
                }
                Step::Send { bytes, billed } => {
                    left -= bytes.len();
                    kept.push(Step::Send { bytes, billed });
                }
                other => kept.push(other),
            }
        }
        kept.extend(steps);
        answer.steps = kept;
        answer
    }

    pub fn cut_after_events(self, count: usize) -> Self {
        self.after_events(count, [Step::Cut])
    }

    pub fn reset_after_events(self, count: usize) -> Self {
        self.after_events(count, [Step::Reset])
    }

    pub fn cut_after_bytes(self, count: usize) -> Self {
        self.after_bytes(count, [Step::Cut])
    }

    pub fn reset_after_bytes(self, count: usize) -> Self {
        self.after_bytes(count, [Step::Reset])
    }

    pub fn stall_after_events(self, count: usize) -> Self {
        self.after_events(count, [Step::Stall])
    }

    /// Puts an error record after the first `count` events of a stream and ends it there, without `[DONE]`.
    pub fn error_after_events(self, count: usize, error: &Value) -> Self {
        self.after_events(count, [Step::event(&json!({ "error": error })), Step::Finish])
    }

    /// Puts `step` after the first `count` pieces and goes on.
    pub fn insert_after_events(mut self, count: usize, step: Step) -> Self {
        let position = self.position_after(count);
        self.steps.insert(position, step);
        self
    }

    /// Waits between any two pieces.
    pub fn paced(mut self, pause: Duration) -> Self {
        let mut paced = Vec::with_capacity(self.steps.len() * 2);
        for step in self.steps {
            if step.sent_bytes().is_some() && !paced.is_empty() {
                paced.push(Step::Pause(pause));
            }
            paced.push(step);
        }
        self.steps = paced;
        self
    }

    /// One byte at a time, with a pause before each but the first.
    pub fn drip(self, pause: Duration) -> Self {
        self.sliced(&[1]).paced(pause)
    }

    /// How many pieces it has.
    pub fn pieces(&self) -> usize {
        self.steps.iter().filter(|step| step.sent_bytes().is_some()).count()
    }

    /// Where the steps after the first `count` pieces begin.
    fn position_after(&self, count: usize) -> usize {
        let pieces = self
            .steps
            .iter()
            .enumerate()
            .filter(|(_, step)| step.sent_bytes().is_some());
        pieces.take(count).last().map_or(0, |(index, _)| index + 1)
    }
}

/// Edits of the bytes.
impl Answer {
    /// Cuts the body at other places: pieces as long as `lengths` say, over and over, across the boundaries of events.
    /// Tokens go with the piece that completes what they were billed for, pauses stay where they were.
    ///
    /// # Panics
    /// When a length is 0.
    pub fn sliced(mut self, lengths: &[usize]) -> Self {
        assert!(!lengths.is_empty() && !lengths.contains(&0), "a piece needs a length");
        let mut wanted = lengths.iter().copied().cycle();
        let mut length = wanted.next().expect("it is a cycle");
        let mut piece = BytesMut::new();
        let mut owed = Tokens::default();
        let mut steps = Vec::new();
        for step in self.steps {
            let Step::Send { mut bytes, billed } = step else {
                steps.extend(take_piece(&mut piece, &mut owed));
                steps.push(step);
                continue;
            };
            while !bytes.is_empty() {
                let taken = bytes.split_to(bytes.len().min(length - piece.len()));
                piece.extend_from_slice(&taken);
                if bytes.is_empty() {
                    owed += billed;
                }
                if piece.len() == length {
                    steps.extend(take_piece(&mut piece, &mut owed));
                    length = wanted.next().expect("it is a cycle");
                }
            }
        }
        steps.extend(take_piece(&mut piece, &mut owed));
        self.steps = steps;
        self
    }

    /// Ends the lines of an event stream with CRLF.
    pub fn crlf(self) -> Self {
        self.map_pieces(|bytes| {
            let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
            lines.join(&b"\r\n"[..]).into()
        })
    }

    /// Puts a comment before every record of an event stream.
    pub fn with_comments(mut self) -> Self {
        let steps = self.steps.into_iter();
        self.steps = steps
            .flat_map(|step| {
                let comment = step.sent_bytes().map(|_| Step::send(": still here\n\n"));
                comment.into_iter().chain(iter::once(step))
            })
            .collect();
        self
    }

    /// Leaves out `[DONE]`; the stream still ends in good order.
    pub fn without_done(mut self) -> Self {
        self.steps
            .retain(|step| step.sent_bytes().is_none_or(|bytes| *bytes != DONE));
        self
    }

    /// Leaves out every mention of usage; the tokens are billed nonetheless.
    pub fn without_usage(self) -> Self {
        self.map_json(|mut body| {
            let fields = body.as_object_mut()?;
            let usage = fields.remove("usage").unwrap_or_default();
            let only_usage = !usage.is_null() && fields.get("choices") == Some(&json!([]));
            (!only_usage).then_some(body)
        })
    }

    /// Compresses the body, asked for or not. Events stay together no longer: it becomes one piece.
    pub fn gzipped(mut self) -> Self {
        let mut body = BytesMut::new();
        let mut billed = Tokens::default();
        for step in &self.steps {
            if let Step::Send { bytes, billed: tokens } = step {
                body.extend_from_slice(bytes);
                billed += *tokens;
            }
        }
        self.steps = vec![Step::billed(gzip(&body), billed)];
        self.header(CONTENT_ENCODING.as_str(), "gzip")
    }

    /// Replaces `needle` by `bytes`, which need not be UTF-8, wherever a piece contains it.
    pub fn replacing(self, needle: &str, replacement: &[u8]) -> Self {
        self.map_pieces(|bytes| {
            let mut replaced = BytesMut::with_capacity(bytes.len());
            let mut rest: &[u8] = &bytes;
            while let Some(found) = rest
                .windows(needle.len())
                .position(|window| window == needle.as_bytes())
            {
                replaced.extend_from_slice(&rest[..found]);
                replaced.extend_from_slice(replacement);
                rest = &rest[found + needle.len()..];
            }
            replaced.extend_from_slice(rest);
            replaced.freeze()
        })
    }

    /// Changes the JSON of a whole answer, or of each record of a stream; `None` drops the piece.
    pub fn map_json(mut self, change: impl Fn(Value) -> Option<Value>) -> Self {
        let steps = self.steps.into_iter();
        self.steps = steps
            .filter_map(|step| {
                let Step::Send { bytes, billed } = step else {
                    return Some(step);
                };
                let in_record = bytes.strip_prefix(b"data: ");
                let Ok(value) = serde_json::from_slice(in_record.unwrap_or(&bytes)) else {
                    return Some(Step::Send { bytes, billed });
                };
                let changed = change(value)?;
                let bytes = if in_record.is_some() {
                    record(&changed)
                } else {
                    changed.to_string().into()
                };
                Some(Step::Send { bytes, billed })
            })
            .collect();
        self
    }

    fn map_pieces(mut self, change: impl Fn(Bytes) -> Bytes) -> Self {
        self.steps = self.steps.into_iter().map(|step| step.map_bytes(&change)).collect();
        self
    }
}

fn take_piece(piece: &mut BytesMut, owed: &mut Tokens) -> Option<Step> {
    let bytes = piece.split().freeze();
    (!bytes.is_empty()).then(|| Step::billed(bytes, std::mem::take(owed)))
}

/// A gzip member of stored blocks: legal, and needs no compressor.
fn gzip(body: &[u8]) -> Bytes {
    const LONGEST_BLOCK: usize = u16::MAX as usize;
    let mut member = BytesMut::from(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255][..]);
    let blocks: Vec<&[u8]> = if body.is_empty() {
        vec![body]
    } else {
        body.chunks(LONGEST_BLOCK).collect()
    };
    for (index, block) in blocks.iter().enumerate() {
        let length = u16::try_from(block.len()).expect("blocks are cut to fit");
        member.extend_from_slice(&[u8::from(index + 1 == blocks.len())]);
        member.extend_from_slice(&length.to_le_bytes());
        member.extend_from_slice(&(!length).to_le_bytes());
        member.extend_from_slice(block);
    }
    member.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    // The trailer holds the length modulo 2^32, so cutting it down is what the format asks for.
    member.extend_from_slice(&(body.len() as u32).to_le_bytes());
    member.freeze()
}
