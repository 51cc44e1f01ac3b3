//! Usage records between the request and the database, on disk.
//!
//! A request takes a [`Slot`] before a cent is spent, writes an entry when it may cost money and again when a provider has
//! it, and completes the slot at its end. Before the caller is handed anything of an answer, the entries that are due have
//! been given to the system ([`Written`]): from then on they survive `kill -9`. A thread syncs them, so that within
//! `journal.sync_interval_ms` they survive the machine too; with `journal.sync = "record"` callers wait for that as well.
//!
//! The ledger's actor takes records out in batches and puts them back if the database refuses. The oldest ones that wait
//! are in memory, the rest is read back from the disk when its turn comes, so a database that is down costs disk. Bounded:
//! without room, or while the disk fails, a request is refused rather than served unmetered.
//!
//! Start with `head` (what is known), then `flush` (how bytes reach the disk), `keep` (room and tidying up) and `replay`
//! (what a start finds). `format` and `entry` are the bytes.

mod aside;
mod disk;
mod entry;
mod flush;
mod format;
mod head;
mod keep;
mod position;
mod read;
mod replay;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::SyncMode;
use crate::domain::ids::{KeyId, RequestId};
use crate::domain::money::NanoUsd;
use crate::domain::record::UsageRecord;
use crate::telemetry::metrics::Metrics;

use aside::Aside;
use disk::{Directory, Disk};
use entry::Kind;
use head::{Head, Open, Writing};
use position::Position;

pub use disk::DirectoryError;

/// Bytes that are kept free for each request under way: what it writes until its end, several times over.
const RESERVED_BYTES: u64 = 2_048;
/// The largest segment. Small enough to be prepared in no time, large enough to be rare.
const MAX_SEGMENT_BYTES: u64 = 8 << 20;
const MIN_SEGMENT_BYTES: u64 = 64 << 10;
/// Segments that the bound on bytes is made of.
const SEGMENTS: u64 = 32;
/// Records that wait in memory; more are left on the disk until their turn.
const WINDOW: usize = 4_096;

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// Its directory.
    pub dir: PathBuf,
    /// Requests under way and records that wait, together.
    pub max_records: usize,
    /// Bytes on the disk.
    pub max_bytes: u64,
    /// When it is synced.
    pub sync: SyncMode,
    /// How long an entry may wait for that.
    pub sync_interval: Duration,
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The disk fails.
    #[error("the journal cannot be read or written: {0}")]
    Io(#[from] std::io::Error),
    /// It was written by another version of the program.
    #[error(
        "segment {name} of the journal has the form {version}, and this program knows form {known}: start the version \
         that wrote it, and let it stop in an orderly way, which empties the journal",
        known = format::VERSION
    )]
    Version {
        /// The file.
        name: String,
        /// Its version.
        version: u16,
    },
}

/// The records between the request and the database.
#[derive(Debug)]
pub struct Journal {
    options: JournalOptions,
    segment_bytes: u64,
    disk: Arc<dyn Disk>,
    aside: Aside,
    metrics: Arc<Metrics>,
    head: Mutex<Head>,
    /// Held by whoever writes.
    writer: Mutex<flush::Writer>,
    /// Held by whoever brings records back into memory.
    loader: Mutex<()>,
    /// Whether there is something to write.
    has_pending: AtomicBool,
    /// Whether somebody will write at the end of a runtime's turn.
    turn_under_way: AtomicBool,
    /// Entries the system has.
    written: AtomicU64,
    /// Entries the disk has.
    durable: AtomicU64,
    /// What [`Head::free`] last was.
    free: AtomicU64,
    /// Slots in use: requests under way, records that wait, and records that are being written.
    used: AtomicUsize,
    /// Requests under way.
    under_way: AtomicUsize,
    state: State,
    /// Told when entries were written or synced, or when that fails.
    progress: Notify,
    threads: OnceLock<Threads>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default, Debug)]
struct State {
    /// A sync is under way; who writes now may have to wait for it.
    syncing: AtomicBool,
    /// The last write failed.
    write_failing: AtomicBool,
    /// The last sync failed.
    sync_failing: AtomicBool,
    /// The disk gave no room when it was last asked.
    no_space: AtomicBool,
    closed: AtomicBool,
}

/// Who is woken up for what.
#[derive(Debug)]
struct Threads {
    writer: Thread,
    syncer: Thread,
    keeper: Thread,
}

/// The place of one record, taken before the request is served.
#[derive(Debug)]
#[must_use = "a slot that is dropped gives its place back without a record"]
pub struct Slot {
    journal: Option<Arc<Journal>>,
}

/// An entry that was handed in.
#[derive(Clone, Debug)]
#[must_use = "what a caller is told may have to wait for it"]
pub struct Written {
    journal: Arc<Journal>,
    ticket: u64,
}

/// How a request will stand when a provider has it, for whoever sees that happen.
#[derive(Debug)]
pub struct Update {
    journal: Arc<Journal>,
    id: RequestId,
    body: Vec<u8>,
}

/// Records on their way to the database. Those that are not committed go back to where they were.
#[derive(Debug)]
pub struct Batch<'j> {
    journal: &'j Journal,
    records: Arc<Vec<UsageRecord>>,
    places: Vec<Position>,
}

/// What of a key is not known to be in the database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outstanding {
    /// Records, with their costs where those are known. They may get into the database at any moment.
    pub records: Vec<(RequestId, Option<NanoUsd>)>,
    /// The known costs of further records, which stay out of it as long as `moment` is the same.
    pub spilled: NanoUsd,
    /// Changes when records that were among the further ones may get into the database.
    pub moment: u64,
}

impl Journal {
    /// Opens the journal in its directory, with everything a process left behind in it. What was under way when that
    /// process ended becomes a record that says so.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(options: JournalOptions, metrics: Arc<Metrics>) -> Result<Arc<Self>, OpenError> {
        let disk = Directory::lock(&options.dir)?;
        let aside = Aside::new(Some(options.dir.join("set-aside").join("records.jsonl")));
        Self::open_on(Arc::new(disk), options, aside, WINDOW, metrics)
    }

    /// Takes a slot; `None` when all are in use, or when the disk has no room or fails.
    pub fn admit(self: &Arc<Self>) -> Option<Slot> {
        let (taken, under_way) = (
            self.used.fetch_add(1, Ordering::AcqRel),
            self.under_way.fetch_add(1, Ordering::AcqRel) as u64,
        );
        let room = self.free.load(Ordering::Acquire) >= (under_way + 1) * RESERVED_BYTES;
        if taken < self.options.max_records && room && !self.is_failing() && !self.is_closed() {
            return Some(Slot {
                journal: Some(self.clone()),
            });
        }
        self.used.fetch_sub(1, Ordering::AcqRel);
        self.under_way.fetch_sub(1, Ordering::AcqRel);
        if !room {
            self.wake(|threads| &threads.keeper);
        }
        None
    }

    /// Takes up to `max` records out, oldest first; `None` when there are none.
    pub async fn batch(self: &Arc<Self>, max: usize) -> Option<Batch<'_>> {
        if self.must_load() {
            let journal = self.clone();
            // The runtime is going down if it fails; then the records wait where they are.
            let _ = tokio::task::spawn_blocking(move || journal.load(WINDOW.max(max))).await;
        }
        self.take(max)
    }

    fn must_load(&self) -> bool {
        let head = self.head.lock();
        head.window.is_empty() && head.spill.count > 0
    }

    fn take(&self, max: usize) -> Option<Batch<'_>> {
        let head = &mut *self.head.lock();
        let count = head.window.len().min(max);
        let (records, places): (Vec<_>, Vec<_>) = head.window.drain(..count).unzip();
        let first = *places.first()?;
        let records = Arc::new(records);
        head.writing.push(Writing {
            records: records.clone(),
            first,
        });
        Some(Batch {
            journal: self,
            records,
            places,
        })
    }

    /// Records that wait for the database.
    pub fn depth(&self) -> usize {
        self.head.lock().depth()
    }

    /// Bytes it takes on the disk.
    pub fn bytes(&self) -> u64 {
        self.head.lock().bytes()
    }

    /// How long the record that waits longest has waited.
    pub fn oldest(&self, now: DateTime<Utc>) -> Duration {
        let head = self.head.lock();
        let writing = head.writing.iter().filter_map(|writing| writing.records.first());
        let oldest = writing
            .chain(head.window.front().map(|(record, _)| record))
            .map(|record| {
                let waited = now.signed_duration_since(record.admitted_at).to_std();
                waited.unwrap_or_default().saturating_sub(record.latency)
            });
        oldest.max().unwrap_or_default()
    }

    /// The records of a key that are not known to be in the database.
    pub fn outstanding(&self, key: KeyId) -> Outstanding {
        let head = self.head.lock();
        let writing = head.writing.iter().flat_map(|writing| writing.records.iter());
        let all = writing.chain(head.window.iter().map(|(record, _)| record));
        Outstanding {
            records: all
                .filter(|record| record.owner.key == key)
                .map(|record| (record.id, record.cost()))
                .collect(),
            spilled: NanoUsd(head.spill.costs.get(&key).copied().unwrap_or(0)),
            moment: head.spill.loads,
        }
    }

    /// Slots in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// What is wrong with it, for those who run the gateway.
    pub fn degraded(&self) -> Vec<&'static str> {
        let State {
            write_failing,
            sync_failing,
            no_space,
            ..
        } = &self.state;
        let mut reasons = Vec::new();
        if write_failing.load(Ordering::Acquire) {
            reasons.push("it cannot be written; requests are refused");
        }
        if sync_failing.load(Ordering::Acquire) {
            reasons.push("it cannot be synced; requests are refused");
        }
        if self.free.load(Ordering::Acquire) < (self.under_way.load(Ordering::Acquire) as u64 + 1) * RESERVED_BYTES {
            reasons.push("it is full; requests are refused");
        } else if self.used() >= self.options.max_records {
            reasons.push("it has journal.max_records records; requests are refused");
        } else if no_space.load(Ordering::Acquire) {
            reasons.push("the disk gives no more room; requests are refused when what there is has been used");
        }
        reasons
    }

    /// Keeps a record that the database does not take, in `set-aside` in the journal's directory.
    ///
    /// # Errors
    /// It cannot be written there.
    pub fn set_aside(&self, record: &UsageRecord, class: &str) -> std::io::Result<()> {
        self.aside.keep(record, class)
    }

    /// Ends the journal's threads. If nothing waits any more its files are removed; otherwise they are synced and the next
    /// start finds them. No request may be under way.
    pub fn close(&self) {
        self.state.closed.store(true, Ordering::Release);
        self.wake_all();
        for handle in std::mem::take(&mut *self.handles.lock()) {
            if handle.join().is_err() {
                tracing::error!("a thread of the journal panicked");
            }
        }
        self.sync_rest();
        self.remove_if_empty();
    }

    fn is_failing(&self) -> bool {
        self.state.write_failing.load(Ordering::Acquire) || self.state.sync_failing.load(Ordering::Acquire)
    }

    fn is_closed(&self) -> bool {
        self.state.closed.load(Ordering::Acquire)
    }

    /// Appends the entry of a request under way; `first` is false for one that only counts if the request still is.
    fn append_open(&self, id: RequestId, body: &[u8], first: bool) -> u64 {
        let body_crc = crc32fast::hash(body);
        let head = &mut *self.head.lock();
        if first || head.opens.contains_key(&id) {
            let at = head.append(body, body_crc);
            let length = format::FRAME_BYTES + body.len();
            head.opens.insert(id, Open { at, length });
            self.appended(head);
        }
        head.ticket
    }

    fn append_done(&self, record: UsageRecord) -> u64 {
        let body = entry::encode(Kind::Done, &record);
        let body_crc = crc32fast::hash(&body);
        let head = &mut *self.head.lock();
        let at = head.append(&body, body_crc);
        head.opens.remove(&record.id);
        head.wait(record, at);
        self.appended(head);
        head.ticket
    }

    fn appended(&self, head: &mut Head) {
        self.free.store(head.free(), Ordering::Release);
        self.has_pending.store(true, Ordering::Release);
        // Room for what comes next is made before it is needed.
        if std::mem::take(&mut head.begun) {
            self.wake(|threads| &threads.keeper);
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.wake_all();
    }
}

impl Slot {
    /// Says that the request may cost money from now on.
    pub fn open(&self, record: &UsageRecord) -> Option<Written> {
        let journal = self.journal.as_ref()?;
        let ticket = journal.append_open(record.id, &entry::encode(Kind::Open, record), true);
        Some(Written {
            journal: journal.clone(),
            ticket,
        })
    }

    /// Prepares to say how the request stands once a provider has it.
    pub fn update(&self, record: &UsageRecord) -> Option<Update> {
        Some(Update {
            journal: self.journal.clone()?,
            id: record.id,
            body: entry::encode(Kind::Open, record),
        })
    }

    /// Hands the record in.
    pub fn complete(mut self, record: UsageRecord) -> Option<Written> {
        let journal = self.journal.take()?;
        let ticket = journal.append_done(record);
        journal.under_way.fetch_sub(1, Ordering::AcqRel);
        journal.hand_in();
        Some(Written { journal, ticket })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(journal) = self.journal.take() {
            journal.used.fetch_sub(1, Ordering::AcqRel);
            journal.under_way.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Update {
    /// Says it. After the request's end it says nothing.
    pub fn write(&self) {
        self.journal.append_open(self.id, &self.body, false);
        self.journal.hand_in();
    }
}

impl Written {
    /// Whether the entry survives what `journal.sync` says it has to survive before a caller hears.
    pub fn is_reached(&self) -> bool {
        self.journal.reached(self.ticket)
    }

    /// Waits for that, but not for a disk that fails: no new request is let in while it does, and this one's record waits
    /// in memory.
    pub async fn reached(&self) {
        let journal = &self.journal;
        if self.is_reached() {
            return;
        }
        journal.hand_in();
        loop {
            let mut progress = std::pin::pin!(journal.progress.notified());
            progress.as_mut().enable();
            if self.is_reached() || journal.is_failing() || journal.is_closed() {
                return;
            }
            progress.await;
        }
    }
}

impl Batch<'_> {
    /// The records.
    pub fn records(&self) -> &[UsageRecord] {
        &self.records
    }

    /// The records are in the database.
    pub fn commit(mut self) {
        let journal = self.journal;
        let head = &mut *journal.head.lock();
        self.end(head);
        head.over(&self.places);
        let body = entry::committed(head.front());
        head.append(&body, crc32fast::hash(&body));
        journal.appended(head);
        journal.used.fetch_sub(self.places.len(), Ordering::AcqRel);
        self.places.clear();
        if head.segments.len() > 1 && head.segments[0].waiting == 0 {
            journal.wake(|threads| &threads.keeper);
        }
    }

    /// The batch is under way no more. Gives its records to whoever ends it.
    fn end(&mut self, head: &mut Head) -> Arc<Vec<UsageRecord>> {
        head.writing
            .retain(|writing| !Arc::ptr_eq(&writing.records, &self.records));
        std::mem::take(&mut self.records)
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.places.is_empty() {
            return;
        }
        let head = &mut *self.journal.head.lock();
        // Nobody else holds it once it is off the list.
        let records = Arc::unwrap_or_clone(self.end(head));
        for waiting in records.into_iter().zip(self.places.drain(..)).rev() {
            head.window.push_front(waiting);
        }
    }
}
