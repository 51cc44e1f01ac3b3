//! Room for what comes, and an end for what is over.
//!
//! Segments are prepared before they are needed: every block of them has been written once. So an entry always has a place
//! when its request was let in, a disk that is full is noticed before anything was promised, and a sync has no blocks to
//! allocate. A segment goes when nothing in it waits for the database. Requests that are under way for so long that
//! their entry is in such a segment get it written again, so that one slow stream does not hold the whole journal.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::disk;
use super::format::{self, HEADER_BYTES, Step};
use super::head::{Open, Segment, Spare};
use super::{Journal, RESERVED_BYTES};
use crate::config::SyncMode;

/// Segments that are ready when nothing is going on.
const SPARE_SEGMENTS: u64 = 2;
/// The first segment of a process is small, so that it starts at once.
const FIRST_SEGMENT_BYTES: u64 = 1 << 20;
/// Zeros are written in pieces of this size.
const PIECE: usize = 256 << 10;
/// How long until it is looked at again: after something went wrong, while something is to be done, and otherwise.
const SOON: Duration = Duration::from_millis(100);
const LATER: Duration = Duration::from_secs(1);

/// The name of a segment's file.
pub(super) fn name_of(sequence: u64) -> String {
    format!("{sequence:012}.segment")
}

/// The name under which a segment's file is kept whose records could not all be read back.
pub(super) fn damaged_name_of(sequence: u64) -> String {
    format!("{sequence:012}.damaged")
}

/// The place of a file in the order of segments, if it is one.
pub(super) fn sequence_of(name: &str) -> Option<u64> {
    name.strip_suffix(".segment")?.parse().ok()
}

impl Journal {
    /// What the keeper does, and how long it may rest afterwards.
    pub(super) fn keep(&self) -> Duration {
        let trimmed = self.trim();
        let made = self.make_room();
        if trimmed && made { LATER } else { SOON }
    }

    /// Prepares segments. Says whether there are enough.
    fn make_room(&self) -> bool {
        let under_way = self.under_way.load(Ordering::Acquire) as u64;
        let wanted = SPARE_SEGMENTS * self.segment_bytes + 2 * under_way * RESERVED_BYTES;
        loop {
            let sequence = {
                let mut head = self.head.lock();
                let ready: u64 = head.spares.iter().map(|spare| spare.capacity).sum();
                if ready >= wanted {
                    break;
                }
                if head.bytes() + self.segment_bytes > self.options.max_bytes {
                    // As large as it may be; room comes when something is over.
                    self.state.no_space.store(false, Ordering::Release);
                    return false;
                }
                head.next_sequence += 1;
                head.next_sequence - 1
            };
            match self.prepare(sequence, self.segment_bytes) {
                Ok(spare) => self.add_spare(spare),
                Err(error) => {
                    self.metrics.journal_error("space");
                    if !self.state.no_space.swap(true, Ordering::AcqRel) {
                        tracing::error!(%error, "the disk gives the journal no room");
                    }
                    return false;
                }
            }
        }
        if self.state.no_space.swap(false, Ordering::AcqRel) {
            tracing::info!("the disk gives the journal room again");
        }
        true
    }

    fn add_spare(&self, spare: Spare) {
        let mut head = self.head.lock();
        head.spares.push_back(spare);
        self.free.store(head.free(), Ordering::Release);
    }

    /// The segment that a process begins with. On a full disk it has no room, and nothing is let in; what is on the disk can
    /// go to the database all the same, and makes room.
    pub(super) fn first_spare(&self, sequence: u64) -> io::Result<Spare> {
        let prepared = self.prepare(sequence, self.segment_bytes.min(FIRST_SEGMENT_BYTES));
        prepared.or_else(|error| {
            let file = self.disk.create(&name_of(sequence))?;
            self.metrics.journal_error("space");
            self.state.no_space.store(true, Ordering::Release);
            tracing::error!(%error, "the disk gives the journal no room, requests are refused until it does");
            Ok(Spare {
                sequence,
                file,
                capacity: 0,
            })
        })
    }

    /// Makes a file of which every block has been written once. Nothing is left of one that cannot be made.
    fn prepare(&self, sequence: u64, bytes: u64) -> io::Result<Spare> {
        let name = name_of(sequence);
        let file = self.disk.create(&name)?;
        let fill = || {
            let zeros = vec![0; PIECE];
            let mut at = 0;
            while at < bytes {
                let piece = usize::try_from(bytes - at).map_or(PIECE, |left| left.min(PIECE));
                file.write_at(&zeros[..piece], at)?;
                at += piece as u64;
            }
            if self.options.sync != SyncMode::Off {
                file.sync()?;
                self.disk.sync_names()?;
            }
            Ok(())
        };
        match fill() {
            Ok(()) => Ok(Spare {
                sequence,
                file,
                capacity: bytes,
            }),
            Err(error) => {
                if let Err(error) = self.disk.remove(&name) {
                    tracing::warn!(%error, name, "a segment that could not be made cannot be removed");
                }
                Err(error)
            }
        }
    }

    /// Takes segments away in which nothing waits. Says whether there is nothing left to do.
    fn trim(&self) -> bool {
        loop {
            let (opens, sequence) = {
                let head = &mut *self.head.lock();
                let ticket = head.ticket;
                let [first, _, ..] = head.segments.make_contiguous() else {
                    return true;
                };
                if first.waiting > 0 {
                    return true;
                }
                let sequence = first.header.sequence;
                let opens = head.opens.iter().filter(|(_, open)| open.at.sequence == sequence);
                let opens: Vec<_> = opens.map(|(&id, &open)| (id, open)).collect();
                if opens.is_empty() {
                    // Whatever tells that the requests in it are over must be as safe as it is. But on a disk without room
                    // that can take until this very segment is gone.
                    let after = *first.trim_after.get_or_insert(ticket);
                    let stuck = self.state.write_failing.load(Ordering::Acquire);
                    if !self.is_safe(after) && !stuck {
                        self.wake(|threads| &threads.syncer);
                        return false;
                    }
                    let segment = head.segments.pop_front().expect("it is there");
                    self.free.store(head.free(), Ordering::Release);
                    (None, Ok(segment))
                } else {
                    (Some(opens), Err(sequence))
                }
            };
            match (opens, sequence) {
                (None, Ok(segment)) => self.let_go(segment),
                (Some(opens), Err(sequence)) => {
                    if let Err(error) = self.carry_over(sequence, &opens) {
                        self.metrics.journal_error("read");
                        tracing::error!(%error, segment = sequence, "entries of the journal cannot be read");
                        return false;
                    }
                }
                _ => return true,
            }
        }
    }

    /// Writes the entries of requests under way once more, behind all others.
    fn carry_over(&self, sequence: u64, opens: &[(crate::domain::ids::RequestId, Open)]) -> io::Result<()> {
        self.flush_after_others();
        if self.has_pending.load(Ordering::Acquire) && self.is_failing() {
            return Err(io::Error::other("the journal cannot be written"));
        }
        let Some((file, nonce)) = self
            .head
            .lock()
            .segment(sequence)
            .map(|segment| (segment.file.clone(), segment.header.nonce))
        else {
            return Ok(());
        };
        for &(id, open) in opens {
            let bytes = disk::read(&*file, open.at.offset, open.length)?;
            let Step::Body(body, _) = format::step(&bytes, nonce, open.at.offset) else {
                // Its end will say everything.
                tracing::error!(request = %id, "an entry of the journal was lost");
                self.metrics.journal_error("read");
                self.head.lock().opens.remove(&id);
                continue;
            };
            let head = &mut *self.head.lock();
            if head.opens.get(&id) == Some(&open) {
                let at = head.append(body, crc32fast::hash(body));
                head.opens.insert(id, Open { at, ..open });
                self.appended(head);
            }
        }
        self.flush();
        Ok(())
    }

    /// Uses a file again, or removes it.
    fn let_go(&self, segment: Segment) {
        let name = name_of(segment.header.sequence);
        if segment.damaged {
            let kept = damaged_name_of(segment.header.sequence);
            if let Err(error) = self.disk.rename(&name, &kept) {
                self.metrics.journal_error("space");
                tracing::warn!(%error, name, "a damaged segment of the journal cannot be renamed");
            }
            return;
        }
        let sequence = {
            let mut head = self.head.lock();
            let ready: u64 = head.spares.iter().map(|spare| spare.capacity).sum();
            let of_use = segment.capacity == self.segment_bytes && segment.end <= segment.capacity;
            (of_use && ready < SPARE_SEGMENTS * self.segment_bytes).then(|| {
                head.next_sequence += 1;
                head.next_sequence - 1
            })
        };
        let renamed = sequence.filter(|&sequence| self.disk.rename(&name, &name_of(sequence)).is_ok());
        if let Some(sequence) = renamed
            && (self.options.sync == SyncMode::Off || self.disk.sync_names().is_ok())
        {
            return self.add_spare(Spare {
                sequence,
                file: segment.file,
                capacity: segment.capacity,
            });
        }
        let name = renamed.map_or(name, name_of);
        if let Err(error) = self.disk.remove(&name) {
            self.metrics.journal_error("space");
            tracing::warn!(%error, name, "a segment of the journal cannot be removed");
        }
    }

    /// Removes everything if nothing waits.
    pub(super) fn remove_if_empty(&self) {
        let head = self.head.lock();
        let empty = head.depth() == 0 && head.writing.is_empty() && head.opens.is_empty();
        if !empty {
            return;
        }
        let segments = head.segments.iter().map(|segment| segment.header.sequence);
        let spares = head.spares.iter().map(|spare| spare.sequence);
        for sequence in segments.chain(spares) {
            if let Err(error) = self.disk.remove(&name_of(sequence)) {
                tracing::warn!(%error, sequence, "a segment of the journal cannot be removed");
            }
        }
    }
}

const _: () = assert!(HEADER_BYTES < PIECE);
