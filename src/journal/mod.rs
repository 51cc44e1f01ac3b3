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

use crate::domain::record::UsageRecord;

/// The records that wait for the database.
#[derive(Debug)]
pub struct Journal {
    waiting: Mutex<VecDeque<UsageRecord>>,
    /// Slots in use: requests under way, records that wait, and records that are being written.
    used: AtomicUsize,
    max: usize,
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
    records: Vec<UsageRecord>,
}

impl Journal {
    /// An empty journal for so many records.
    pub fn new(max: usize) -> Self {
        Self {
            waiting: Mutex::default(),
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
        let mut waiting = self.waiting.lock();
        let count = waiting.len().min(max);
        let records: Vec<UsageRecord> = waiting.drain(..count).collect();
        // A burst must not keep its memory for ever.
        if waiting.is_empty() && waiting.capacity() > 4_096 {
            *waiting = VecDeque::new();
        }
        drop(waiting);
        (!records.is_empty()).then_some(Batch { journal: self, records })
    }

    /// Records that wait for the database.
    pub fn depth(&self) -> usize {
        self.waiting.lock().len()
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
            journal.waiting.lock().push_back(record);
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
        self.records.clear();
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.records.is_empty() {
            return;
        }
        let mut waiting = self.journal.waiting.lock();
        for record in self.records.drain(..).rev() {
            waiting.push_front(record);
        }
    }
}
