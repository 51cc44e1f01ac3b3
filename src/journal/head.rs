//! The journal as it stands in memory: what is where, what waits, and what is still to be written to the disk. No effects.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::disk::Medium;
use super::format::{self, FRAME_BYTES, HEADER_BYTES, Header};
use super::position::Position;
use crate::domain::ids::{KeyId, RequestId};
use crate::domain::money::NanoUsd;
use crate::domain::record::UsageRecord;

/// Bytes of a page, as systems cache files.
pub(super) const PAGE_BYTES: u64 = 4_096;

/// A file with entries.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its identity.
    pub header: Header,
    /// Its bytes.
    pub file: Arc<dyn Medium>,
    /// Bytes that are known to have a place on the disk.
    pub capacity: u64,
    /// Where the next entry goes. Past the capacity the file grows, if the disk lets it.
    pub end: u64,
    /// Records in it that are over and not in the database.
    pub waiting: usize,
    /// How many of these are not in memory.
    pub spilled: usize,
    /// What must have been synced before it can go; set once nothing waits in it.
    pub trim_after: Option<u64>,
    /// Whether records in it could not be read back: then its file is kept under another name.
    pub damaged: bool,
}

impl Segment {
    /// Bytes it takes on the disk.
    pub fn bytes(&self) -> u64 {
        self.capacity.max(self.end)
    }
}

/// A file that is ready to be used as a segment.
#[derive(Debug)]
pub(super) struct Spare {
    /// The place it will have in the order of segments; its name has it already.
    pub sequence: u64,
    /// Its bytes.
    pub file: Arc<dyn Medium>,
    /// How many there are.
    pub capacity: u64,
}

/// Bytes on their way to a file.
#[derive(Debug)]
pub(super) struct Chunk {
    /// The segment.
    pub header: Header,
    /// Its file.
    pub file: Arc<dyn Medium>,
    /// Where they go.
    pub at: u64,
    /// What they are.
    pub bytes: Vec<u8>,
    /// How far the file has blocks.
    pub capacity: u64,
}

impl Chunk {
    /// How many bytes are written for it: zeros are added up to the end of the last page. A page that is only written in
    /// part, and that the system has let go of since it was prepared, would have to be read from the disk first.
    pub fn padded(&self) -> usize {
        let end = self.at + self.bytes.len() as u64;
        let whole = end.next_multiple_of(PAGE_BYTES);
        let added = if whole <= self.capacity { whole - end } else { 0 };
        self.bytes.len() + usize::try_from(added).unwrap_or(0)
    }
}

/// The entry of a request under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Open {
    /// Where it is.
    pub at: Position,
    /// Its bytes, with the frame.
    pub length: usize,
}

/// Records that wait and are on the disk alone.
#[derive(Default, Debug)]
pub(super) struct Spill {
    /// How many.
    pub count: usize,
    /// Where the first of them is, or something before it that is none of them.
    pub cursor: Position,
    /// The sum of their known costs, by key.
    pub costs: HashMap<KeyId, i64>,
    /// How often some of them were brought back into memory.
    pub loads: u64,
    /// How often in a row the disk gave an error instead of them.
    pub failures: u32,
}

impl Spill {
    fn add(&mut self, key: KeyId, cost: Option<NanoUsd>) {
        if let Some(NanoUsd(cost)) = cost.filter(|cost| cost.0 != 0) {
            let sum = self.costs.entry(key).or_default();
            *sum = sum.saturating_add(cost);
        }
    }

    /// Takes one out of the sums.
    pub fn remove(&mut self, record: &UsageRecord) {
        let key = record.owner.key;
        if let Some(NanoUsd(cost)) = record.cost()
            && let Some(sum) = self.costs.get_mut(&key)
        {
            *sum = sum.saturating_sub(cost);
            if *sum == 0 {
                self.costs.remove(&key);
            }
        }
    }
}

/// Records on their way to the database.
#[derive(Debug)]
pub(super) struct Writing {
    /// What they are.
    pub records: Arc<Vec<UsageRecord>>,
    /// Where the first of them is.
    pub first: Position,
}

/// Everything that is known of the journal.
#[derive(Debug)]
pub(super) struct Head {
    /// The segments, oldest first; entries go into the last.
    pub segments: VecDeque<Segment>,
    /// What comes after it, in order.
    pub spares: VecDeque<Spare>,
    /// The place of the next file.
    pub next_sequence: u64,
    /// What is to be written, in order.
    pub pending: Vec<Chunk>,
    /// Counts entries.
    pub ticket: u64,
    /// Requests under way that have an entry.
    pub opens: HashMap<RequestId, Open>,
    /// The oldest records that wait, with their places.
    pub window: VecDeque<(UsageRecord, Position)>,
    /// Batches on their way to the database.
    pub writing: Vec<Writing>,
    /// The newer ones, if there are more than the window takes.
    pub spill: Spill,
    /// Records the window takes.
    pub window_max: usize,
    /// Whether a spare has been taken since somebody looked.
    pub begun: bool,
}

impl Head {
    /// Appends an entry. It has its place from now on, and its bytes wait to be written.
    pub fn append(&mut self, body: &[u8], body_crc: u32) -> Position {
        let length = (FRAME_BYTES + body.len()) as u64;
        let full = self
            .segments
            .back()
            .is_none_or(|active| active.end + length > active.capacity);
        if full && let Some(spare) = self.spares.pop_front() {
            self.begin(spare);
        }
        let active = self.segments.back_mut().expect("there is always a segment to write to");
        let at = active.end;
        active.end += length;
        let header = active.header;
        let fits = |chunk: &&mut Chunk| chunk.header == header && chunk.at + chunk.bytes.len() as u64 == at;
        let bytes = match self.pending.last_mut().filter(fits) {
            Some(chunk) => &mut chunk.bytes,
            None => {
                self.pending.push(Chunk {
                    header,
                    file: active.file.clone(),
                    at,
                    bytes: Vec::with_capacity(1_024),
                    capacity: active.capacity,
                });
                &mut self.pending.last_mut().expect("it was just put there").bytes
            }
        };
        format::frame(bytes, header.nonce, at, body, body_crc);
        self.ticket += 1;
        Position {
            sequence: header.sequence,
            offset: at,
        }
    }

    /// Makes a spare the segment that entries go into.
    pub fn begin(&mut self, spare: Spare) {
        let header = Header {
            sequence: spare.sequence,
            nonce: rand::random(),
        };
        self.pending.push(Chunk {
            header,
            file: spare.file.clone(),
            at: 0,
            bytes: header.encode().to_vec(),
            capacity: spare.capacity,
        });
        self.begun = true;
        self.segments.push_back(Segment {
            header,
            file: spare.file,
            capacity: spare.capacity,
            end: HEADER_BYTES as u64,
            waiting: 0,
            spilled: 0,
            trim_after: None,
            damaged: false,
        });
    }

    /// A record is over and waits from now on. Older ones come first.
    pub fn wait(&mut self, record: UsageRecord, at: Position) {
        let room = self.spill.count == 0 && self.window.len() < self.window_max;
        let active = self.segments.back_mut().expect("it was just written to");
        active.waiting += 1;
        if room {
            self.window.push_back((record, at));
            return;
        }
        active.spilled += 1;
        if self.spill.count == 0 {
            self.spill.cursor = at;
        }
        self.spill.count += 1;
        self.spill.add(record.owner.key, record.cost());
    }

    /// Notes a record that was found on the disk at a start.
    pub fn found(&mut self, segment: &mut Segment, key: KeyId, cost: Option<NanoUsd>) {
        segment.waiting += 1;
        segment.spilled += 1;
        self.spill.count += 1;
        self.spill.add(key, cost);
    }

    /// The records of these places wait no more.
    pub fn over(&mut self, places: &[Position]) {
        for group in places.chunk_by(|a, b| a.sequence == b.sequence) {
            if let Some(segment) = self.segment(group[0].sequence) {
                segment.waiting = segment.waiting.saturating_sub(group.len());
            }
        }
    }

    /// The segment of this place in the order.
    pub fn segment(&mut self, sequence: u64) -> Option<&mut Segment> {
        let at = self
            .segments
            .partition_point(|segment| segment.header.sequence < sequence);
        self.segments
            .get_mut(at)
            .filter(|segment| segment.header.sequence == sequence)
    }

    /// Every record that is over and lies before this place is in the database.
    pub fn front(&self) -> Position {
        let end = self.segments.back().map_or(Position::default(), |active| Position {
            sequence: active.header.sequence,
            offset: active.end,
        });
        let spilled = (self.spill.count > 0).then_some(self.spill.cursor);
        let window = self.window.front().map(|&(_, at)| at);
        let writing = self.writing.iter().map(|writing| writing.first);
        writing.chain(window).chain(spilled).min().unwrap_or(end)
    }

    /// Bytes that entries may still take without the disk being asked.
    pub fn free(&self) -> u64 {
        let active = self
            .segments
            .back()
            .map_or(0, |active| active.capacity.saturating_sub(active.end));
        active + self.spares.iter().map(|spare| spare.capacity).sum::<u64>()
    }

    /// Bytes on the disk.
    pub fn bytes(&self) -> u64 {
        let segments: u64 = self.segments.iter().map(Segment::bytes).sum();
        segments + self.spares.iter().map(|spare| spare.capacity).sum::<u64>()
    }

    /// Records that wait and are not on their way to the database.
    pub fn depth(&self) -> usize {
        self.window.len() + self.spill.count
    }
}
