//! What a start finds: the records of a process that was ended, and its requests that were under way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::aside::Aside;
use super::disk::{self, Disk};
use super::entry::{self, Brief};
use super::flush::Writer;
use super::format::{Bodies, HEADER_BYTES, Header, HeaderFault};
use super::head::{Head, PAGE_BYTES, Segment, Spill};
use super::keep::{name_of, sequence_of};
use super::position::Position;
use super::{Journal, JournalOptions, MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES, OpenError, SEGMENTS, State, WINDOW};
use crate::domain::call::ErrorClass;
use crate::domain::ids::{KeyId, RequestId};
use crate::domain::money::NanoUsd;
use crate::domain::record::UsageRecord;
use crate::telemetry::metrics::Metrics;

/// The status of a request whose process was ended under it; what its caller saw is not known.
const INTERRUPTED_STATUS: u16 = 500;

/// What was found on the disk.
#[derive(Default)]
struct Found {
    segments: Vec<(Segment, Vec<Done>)>,
    /// The last entries of requests that have no end.
    opens: HashMap<RequestId, Box<[u8]>>,
    /// The database has everything done before this.
    committed: Position,
    keys: Keys,
    next_sequence: u64,
}

/// A record that is over, as far as the books need it.
struct Done {
    offset: u64,
    key: u32,
    cost: Option<NanoUsd>,
}

/// Keys by number, because there are few of them and many records.
#[derive(Default)]
struct Keys {
    numbers: HashMap<KeyId, u32>,
    keys: Vec<KeyId>,
}

impl Keys {
    fn number(&mut self, key: KeyId) -> u32 {
        *self.numbers.entry(key).or_insert_with(|| {
            self.keys.push(key);
            u32::try_from(self.keys.len() - 1).expect("there are fewer keys than records, and fewer records than that")
        })
    }
}

impl Journal {
    /// The journal on any disk, with a window of so many records.
    pub(super) fn open_on(
        disk: Arc<dyn Disk>,
        options: JournalOptions,
        aside: Aside,
        window_max: usize,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, OpenError> {
        let began = Instant::now();
        let found = find(&*disk, &metrics)?;
        let segment_bytes = (options.max_bytes / SEGMENTS).clamp(MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES);
        let segment_bytes = segment_bytes.next_multiple_of(PAGE_BYTES);
        let head = Head {
            segments: Default::default(),
            spares: Default::default(),
            next_sequence: found.next_sequence + 1,
            pending: Vec::new(),
            ticket: 0,
            opens: HashMap::new(),
            window: Default::default(),
            writing: Vec::new(),
            spill: Spill::default(),
            window_max,
            begun: false,
        };
        let journal = Arc::new(Self {
            options,
            segment_bytes,
            disk,
            aside,
            metrics,
            head: Mutex::new(head),
            writer: Mutex::new(Writer::default()),
            loader: Mutex::default(),
            has_pending: AtomicBool::new(false),
            turn_under_way: AtomicBool::new(false),
            written: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            free: AtomicU64::new(0),
            used: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            state: State::default(),
            progress: Notify::new(),
            threads: OnceLock::new(),
            handles: Mutex::default(),
        });
        let first = journal.first_spare(found.next_sequence)?;
        let interrupted = journal.take_over(found, first);
        journal.start_threads()?;
        journal.metrics.journal_interrupted.inc_by(interrupted as u64);
        let records = journal.depth();
        if records > 0 {
            // What the database has and the journal does not know of yet is counted once if it is in memory.
            journal.load(WINDOW);
            tracing::info!(
                records,
                interrupted,
                elapsed_ms = began.elapsed().as_millis(),
                "the journal of an earlier process is taken over"
            );
        }
        Ok(journal)
    }

    /// Makes what was found this journal's own. Gives the number of requests that were under way.
    fn take_over(&self, found: Found, first: super::head::Spare) -> usize {
        let mut interrupted = 0;
        let head = &mut *self.head.lock();
        for (mut segment, done) in found.segments {
            let sequence = segment.header.sequence;
            for Done { offset, key, cost } in done {
                let at = Position { sequence, offset };
                if at < found.committed {
                    continue;
                }
                if head.spill.count == 0 {
                    head.spill.cursor = at;
                }
                head.found(&mut segment, found.keys.keys[key as usize], cost);
            }
            head.segments.push_back(segment);
        }
        head.begin(first);
        let mut opens: Vec<_> = found.opens.into_iter().collect();
        opens.sort_unstable_by_key(|&(id, _)| id);
        for (id, body) in opens {
            let Ok(record) = entry::decode(&body) else {
                self.metrics.journal_error("read");
                tracing::error!(request = %id, "the entry of a request that was under way cannot be read");
                continue;
            };
            let record = ended(record);
            let body = entry::encode(entry::Kind::Done, &record);
            let at = head.append(&body, crc32fast::hash(&body));
            head.wait(record, at);
            interrupted += 1;
        }
        self.used.store(head.depth(), Ordering::Release);
        self.appended(head);
        interrupted
    }
}

/// The record of a request whose process was ended. What is known of its cost stands in it: what earlier attempts cost, and
/// the prompt, if a provider had it.
fn ended(mut record: UsageRecord) -> UsageRecord {
    record.status = INTERRUPTED_STATUS;
    record.error = Some(ErrorClass::Interrupted);
    if let Some(last) = record.attempts.last_mut()
        && last.error.is_none()
    {
        last.error = Some(ErrorClass::Interrupted);
    }
    record
}

/// Reads every segment there is.
fn find(disk: &dyn Disk, metrics: &Metrics) -> Result<Found, OpenError> {
    let mut sequences: Vec<u64> = disk.names()?.iter().filter_map(|name| sequence_of(name)).collect();
    sequences.sort_unstable();
    let mut found = Found {
        next_sequence: sequences.last().map_or(1, |last| last + 1),
        ..Found::default()
    };
    for sequence in sequences {
        let name = name_of(sequence);
        let file = disk.open(&name)?;
        let length = file.len()?;
        let bytes = disk::read(&*file, 0, usize::try_from(length).unwrap_or(usize::MAX))?;
        let header = match Header::decode(&bytes) {
            Ok(header) if header.sequence == sequence => header,
            // Prepared, or prepared again, and never used.
            Ok(_) | Err(HeaderFault::Blank) => {
                disk.remove(&name)?;
                continue;
            }
            Err(HeaderFault::Damaged) => {
                metrics.journal_error("read");
                tracing::error!(
                    segment = name,
                    "a segment of the journal is damaged from its beginning, it is kept aside"
                );
                disk.rename(&name, &format!("{name}.damaged"))?;
                continue;
            }
            Err(HeaderFault::Version(version)) => return Err(OpenError::Version { name, version }),
        };
        let mut done = Vec::new();
        let mut bodies = Bodies::of(&bytes, header.nonce);
        for (offset, body) in bodies.by_ref() {
            match entry::brief(body) {
                Ok(Brief::Open(id)) => {
                    found.opens.insert(id, body.into());
                }
                Ok(Brief::Done { id, key, cost }) => {
                    found.opens.remove(&id);
                    let key = found.keys.number(key);
                    done.push(Done { offset, key, cost });
                }
                Ok(Brief::Committed(before)) => found.committed = found.committed.max(before),
                Err(entry::Unreadable) => {
                    metrics.journal_error("read");
                    tracing::error!(segment = name, offset, "an entry of the journal cannot be understood");
                }
            }
        }
        let end = bodies.at;
        // Nobody can tell an entry that was torn when the machine died from what an earlier life of the file left behind.
        if bytes[end.min(bytes.len())..].iter().any(|&byte| byte != 0) {
            tracing::debug!(
                segment = name,
                end,
                "the segment ends before its file does, the rest is cut off"
            );
        }
        debug_assert!(end >= HEADER_BYTES);
        found.segments.push((
            Segment {
                header,
                file,
                capacity: length,
                end: end as u64,
                waiting: 0,
                spilled: 0,
                trim_after: None,
                damaged: false,
            },
            done,
        ));
    }
    Ok(found)
}

/// How many records that are over a start would find.
#[cfg(test)]
pub(super) fn tests_only_done(disk: &dyn Disk) -> usize {
    let found = find(disk, &Metrics::default()).expect("the disk can be read");
    found.segments.iter().map(|(_, done)| done.len()).sum()
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::super::testing::{MemoryDisk, on, options};
    use super::super::tests::{record, slot};
    use super::*;

    /// A disk that was cut off or damaged behind a point has exactly the entries before it: 2,000 points.
    #[test]
    fn what_lies_before_a_torn_or_flipped_byte_is_found_and_nothing_else() {
        let disk = MemoryDisk::default();
        let journal = on(&disk, options(10_000), 4_096);
        let ids: Vec<_> = (0..300).map(|number| record(number).id).collect();
        for (number, &id) in ids.iter().enumerate() {
            let slot = slot(&journal);
            let _ = slot.open(&UsageRecord { id, ..record(number) });
            if number % 10 != 9 {
                let _ = slot.complete(UsageRecord { id, ..record(number) });
            } else {
                std::mem::forget(slot);
            }
        }
        journal.flush_after_others();
        let name = name_of(1);
        let whole = disk.bytes_of(&name);
        let nonce = Header::decode(&whole).unwrap().nonce;
        // Each entry with its end: the request, and whether it is over.
        let mut entries = Vec::new();
        let mut bodies = Bodies::of(&whole, nonce);
        while let Some((_, body)) = bodies.next() {
            match entry::brief(body).unwrap() {
                Brief::Open(id) => entries.push((bodies.at, id, false)),
                Brief::Done { id, .. } => entries.push((bodies.at, id, true)),
                Brief::Committed(_) => {}
            }
        }
        assert_eq!(entries.len(), 300 + 270);
        let end = bodies.at;
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        for round in 0..2_000 {
            let at = random.random_range(0..end);
            let mut bytes = whole[..end].to_vec();
            match round % 3 {
                0 => bytes.truncate(at),
                1 => bytes[at] ^= 1_u8 << random.random_range(0..8),
                // Torn: the machine wrote something else, or nothing, from here on.
                _ => bytes[at..].iter_mut().for_each(|byte| *byte = !*byte),
            }
            let damaged = MemoryDisk::default();
            damaged.put(&name, bytes);
            let found = find(&damaged, &Metrics::default()).unwrap();
            let before = entries.iter().take_while(|&&(end, ..)| end <= at && at >= HEADER_BYTES);
            let mut open = std::collections::HashSet::new();
            let mut over = 0;
            for &(_, id, done) in before {
                if done {
                    open.remove(&id);
                    over += 1;
                } else {
                    open.insert(id);
                }
            }
            let done: usize = found.segments.iter().map(|(_, done)| done.len()).sum();
            assert_eq!(done, over, "round {round}, byte {at}");
            assert_eq!(
                found.opens.keys().copied().collect::<std::collections::HashSet<_>>(),
                open
            );
        }
    }

    #[test]
    fn a_journal_of_another_version_is_refused() {
        let disk = MemoryDisk::default();
        let mut header = Header { sequence: 1, nonce: 2 }.encode();
        header[8] = 7;
        let checksum = crc32fast::hash(&header[..60]);
        header[60..].copy_from_slice(&checksum.to_le_bytes());
        disk.put(&name_of(1), header.to_vec());
        let refused = find(&disk, &Metrics::default()).err().unwrap();
        assert!(refused.to_string().contains("form 7"), "{refused}");
    }
}
