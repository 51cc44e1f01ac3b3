//! Usage records between the request and the database.
//!
//! A request takes a [`Slot`] before a cent is spent and completes it at its end; the ledger's actor takes records out in
//! batches and puts them back if the database refuses. Bounded: without a free slot a request is refused rather than
//! served unmetered.
//!
//! Records wait in memory: they survive a database that is down, and an orderly stop writes them all. They do not survive
//! the process being killed; that is what the durable form behind this same interface is for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::domain::ids::{KeyId, RequestId};
use crate::domain::money::NanoUsd;
use crate::domain::record::UsageRecord;

/// The records that wait for the database.
#[derive(Debug)]
pub struct Journal {
    records: Mutex<Records>,
    /// Slots in use: requests under way, records that wait, and records that are being written.
    used: AtomicUsize,
    max: usize,
}

#[derive(Default, Debug)]
struct Records {
    waiting: VecDeque<UsageRecord>,
    /// Batches on their way to the database.
    writing: Vec<Arc<Vec<UsageRecord>>>,
}

/// The place of one record, taken before the request is served.
#[derive(Debug)]
#[must_use = "a slot that is dropped gives its place back without a record"]
pub struct Slot {
    journal: Option<Arc<Journal>>,
}

/// Records on their way to the database. Those that are not committed go back to where they were.
#[derive(Debug)]
pub struct Batch<'j> {
    journal: &'j Journal,
    records: Arc<Vec<UsageRecord>>,
}

impl Journal {
    /// An empty journal for so many records.
    pub fn new(max: usize) -> Self {
        Self {
            records: Mutex::default(),
            used: AtomicUsize::new(0),
            max,
        }
    }

    /// Takes a slot; `None` when all are in use.
    pub fn admit(self: &Arc<Self>) -> Option<Slot> {
        let taken = self.used.fetch_add(1, Ordering::AcqRel);
        if taken >= self.max {
            self.used.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Slot {
            journal: Some(self.clone()),
        })
    }

    /// Takes up to `max` records out, oldest first; `None` when there are none.
    pub fn batch(&self, max: usize) -> Option<Batch<'_>> {
        let Records { waiting, writing } = &mut *self.records.lock();
        let count = waiting.len().min(max);
        let batch: Arc<Vec<UsageRecord>> = Arc::new(waiting.drain(..count).collect());
        // A burst must not keep its memory for ever.
        if waiting.is_empty() && waiting.capacity() > 4_096 {
            *waiting = VecDeque::new();
        }
        if batch.is_empty() {
            return None;
        }
        writing.push(batch.clone());
        Some(Batch {
            journal: self,
            records: batch,
        })
    }

    /// Records that wait for the database.
    pub fn depth(&self) -> usize {
        self.records.lock().waiting.len()
    }

    /// The records of a key that are not known to be in the database, with their costs where those are known.
    pub fn waiting_of(&self, key: KeyId) -> Vec<(RequestId, Option<NanoUsd>)> {
        let Records { waiting, writing } = &*self.records.lock();
        let all = writing.iter().flat_map(|batch| batch.iter()).chain(waiting);
        all.filter(|record| record.owner.key == key)
            .map(|record| (record.id, record.cost()))
            .collect()
    }

    /// Slots in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }
}

impl Slot {
    /// Hands the record in.
    pub fn complete(mut self, record: UsageRecord) {
        if let Some(journal) = self.journal.take() {
            journal.records.lock().waiting.push_back(record);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(journal) = self.journal.take() {
            journal.used.fetch_sub(1, Ordering::AcqRel);
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
        self.journal.used.fetch_sub(self.records.len(), Ordering::AcqRel);
        let journal = self.journal;
        self.end(&mut journal.records.lock());
    }

    /// The batch is under way no more. Gives its records to whoever ends it first.
    fn end(&mut self, records: &mut Records) -> Arc<Vec<UsageRecord>> {
        records.writing.retain(|batch| !Arc::ptr_eq(batch, &self.records));
        std::mem::take(&mut self.records)
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.records.is_empty() {
            return;
        }
        let journal = self.journal;
        let records = &mut *journal.records.lock();
        let batch = self.end(records);
        // Nobody else holds it once it is off the list.
        for record in Arc::unwrap_or_clone(batch).into_iter().rev() {
            records.waiting.push_front(record);
        }
    }
}
