//! Records come back into memory when their turn comes.

use std::io;
use std::sync::Arc;

use super::Journal;
use super::disk::{self, Medium};
use super::entry::{self, Brief};
use super::format::{self, FRAME_BYTES, HEADER_BYTES, Header, MAX_BODY_BYTES, Step};
use super::keep::damaged_name_of;
use super::position::Position;
use crate::domain::record::UsageRecord;

/// How often in a row the disk may give an error before what it has there is given up. The ledger asks several times a
/// second, so that is minutes.
const MAX_FAILURES: u32 = 1_000;
/// Bytes that are read at a time; any entry fits.
const PIECE: usize = MAX_BODY_BYTES + FRAME_BYTES;

/// A part of a segment with records that are not in memory.
struct Part {
    header: Header,
    file: Arc<dyn Medium>,
    end: u64,
    spilled: usize,
    /// Whether there is more of it that the system does not have yet.
    unwritten: bool,
}

impl Journal {
    /// Brings up to `max` records back into memory, oldest first. Reads the disk.
    pub(super) fn load(&self, max: usize) {
        let _turn = self.loader.lock();
        self.flush();
        let (mut cursor, parts) = self.spilled_parts();
        let mut loaded: Vec<(UsageRecord, Position)> = Vec::new();
        for part in parts {
            let from = if part.header.sequence == cursor.sequence {
                cursor.offset
            } else {
                HEADER_BYTES as u64
            };
            cursor = Position {
                sequence: part.header.sequence,
                offset: from,
            };
            let before = loaded.len();
            let whole = read_part(&part, &mut cursor, max, &mut loaded);
            let read = whole.is_ok();
            let whole = match whole {
                Ok(whole) => whole,
                Err(error) => !self.is_given_up(part.header.sequence, &error),
            };
            let found = loaded.len() - before;
            let missing = read && loaded.len() < max && found < part.spilled;
            let over = !part.unwritten;
            if over && (missing || !whole) {
                self.lost(part.header.sequence, part.spilled - found.min(part.spilled));
                cursor.offset = part.end;
            }
            if let Some(segment) = self.head.lock().segment(part.header.sequence) {
                segment.spilled -= found.min(segment.spilled);
            }
            // What is not written yet, or what the disk did not give, is read the next time, from here on.
            if loaded.len() >= max || !over || (whole && !read) {
                break;
            }
        }
        let head = &mut *self.head.lock();
        head.spill.count -= loaded.len().min(head.spill.count);
        loaded.iter().for_each(|(record, _)| head.spill.remove(record));
        head.spill.cursor = cursor;
        head.spill.loads += 1;
        if !loaded.is_empty() {
            head.spill.failures = 0;
        }
        if head.spill.count == 0 {
            head.spill.costs.clear();
        }
        head.window.extend(loaded);
    }

    /// Where the records are that are not in memory, as far as the system has them.
    fn spilled_parts(&self) -> (Position, Vec<Part>) {
        // Nothing is half written while this is held.
        let _writer = self.writer.lock();
        let head = self.head.lock();
        let cursor = head.spill.cursor;
        let written = |header: Header, end: u64| {
            let pending = head.pending.iter().find(|chunk| chunk.header == header);
            pending.map_or(end, |chunk| chunk.at)
        };
        let segments = head.segments.iter();
        let parts = segments
            .filter(|segment| segment.header.sequence >= cursor.sequence && segment.spilled > 0)
            .map(|segment| Part {
                header: segment.header,
                file: segment.file.clone(),
                end: written(segment.header, segment.end),
                spilled: segment.spilled,
                unwritten: written(segment.header, segment.end) < segment.end,
            });
        (cursor, parts.collect())
    }

    /// The disk gave an error. It may do better the next time; says whether it had enough of these.
    fn is_given_up(&self, sequence: u64, error: &io::Error) -> bool {
        let failures = {
            let head = &mut *self.head.lock();
            head.spill.failures += 1;
            head.spill.failures
        };
        self.metrics.journal_error("read");
        tracing::error!(%error, segment = sequence, failures, "a segment of the journal cannot be read");
        failures >= MAX_FAILURES
    }

    /// Records cannot be read back. Nothing waits for them any more; it is said how many there are, and their file is kept.
    fn lost(&self, sequence: u64, count: usize) {
        if count == 0 {
            return;
        }
        let head = &mut *self.head.lock();
        if let Some(segment) = head.segment(sequence) {
            segment.spilled -= count.min(segment.spilled);
            segment.waiting -= count.min(segment.waiting);
            segment.damaged = true;
        }
        head.spill.count -= count.min(head.spill.count);
        head.spill.failures = 0;
        self.used.fetch_sub(count, std::sync::atomic::Ordering::AcqRel);
        self.metrics.journal_error("read");
        tracing::error!(
            segment = sequence,
            records = count,
            kept_as = damaged_name_of(sequence),
            "usage records cannot be read back from the journal, they are missing in the ledger"
        );
    }
}

/// Reads records from `cursor` on, and moves it behind the last one. Says whether the part is whole as far as it was read.
fn read_part(
    part: &Part,
    cursor: &mut Position,
    max: usize,
    loaded: &mut Vec<(UsageRecord, Position)>,
) -> io::Result<bool> {
    while cursor.offset < part.end && loaded.len() < max {
        let count = usize::try_from(part.end - cursor.offset).map_or(PIECE, |left| left.min(PIECE));
        let bytes = disk::read(&*part.file, cursor.offset, count)?;
        let mut at = 0;
        while loaded.len() < max {
            match format::step(&bytes[at..], part.header.nonce, cursor.offset) {
                Step::Body(body, whole) => {
                    if let Ok(Brief::Done { .. }) = entry::brief(body) {
                        let Ok(record) = entry::decode(body) else {
                            return Ok(false);
                        };
                        loaded.push((record, *cursor));
                    }
                    at += whole;
                    cursor.offset += whole as u64;
                }
                Step::Short if at > 0 || cursor.offset >= part.end => break,
                Step::Short | Step::End => return Ok(false),
            }
            if cursor.offset >= part.end {
                break;
            }
        }
    }
    Ok(true)
}
