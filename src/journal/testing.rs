//! A disk in memory that does as it is told, and journals on it.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::aside::Aside;
use super::disk::{Disk, Medium};
use super::{Journal, JournalOptions};
use crate::config::SyncMode;
use crate::telemetry::metrics::Metrics;

/// The disk.
#[derive(Clone, Default, Debug)]
pub(crate) struct MemoryDisk {
    files: Arc<Mutex<BTreeMap<String, Arc<MemoryFile>>>>,
    /// What it does wrong.
    pub faults: Arc<Faults>,
}

/// What a disk does wrong.
#[derive(Debug)]
pub(crate) struct Faults {
    /// Writes fail.
    pub writes: AtomicBool,
    /// Syncs fail, and what was written since the last one never reaches the disk unless it is written again.
    pub syncs: AtomicBool,
    /// Reads fail.
    pub reads: AtomicBool,
    /// No file can be made.
    pub creation: AtomicBool,
    /// Bytes of all files together.
    pub capacity: AtomicU64,
    /// Syncs that were asked for.
    pub synced: AtomicUsize,
    /// Writes that were asked for.
    pub written: AtomicUsize,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            writes: AtomicBool::default(),
            syncs: AtomicBool::default(),
            reads: AtomicBool::default(),
            creation: AtomicBool::default(),
            capacity: AtomicU64::new(u64::MAX),
            synced: AtomicUsize::default(),
            written: AtomicUsize::default(),
        }
    }
}

#[derive(Debug)]
struct MemoryFile {
    /// What a read gives.
    seen: Mutex<Vec<u8>>,
    /// What is there after the machine died.
    kept: Mutex<Vec<u8>>,
    /// The parts that were written since the last sync.
    dirty: Mutex<Vec<(usize, Vec<u8>)>>,
    disk: MemoryDisk,
}

impl MemoryDisk {
    /// The disk as it is after the process was killed.
    pub fn after_a_kill(&self) -> Self {
        self.copy(|file| file.seen.lock().clone())
    }

    /// The disk as it is after the machine died: what was not synced is gone.
    pub fn after_a_crash(&self) -> Self {
        self.copy(|file| file.kept.lock().clone())
    }

    fn copy(&self, bytes: impl Fn(&MemoryFile) -> Vec<u8>) -> Self {
        let copy = Self::default();
        for (name, file) in &*self.files.lock() {
            copy.put(name, bytes(file));
        }
        copy
    }

    /// Puts a file there.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let file = MemoryFile {
            seen: Mutex::new(bytes.clone()),
            kept: Mutex::new(bytes),
            dirty: Mutex::default(),
            disk: self.clone_without_files(),
        };
        self.files.lock().insert(name.to_owned(), Arc::new(file));
    }

    fn clone_without_files(&self) -> Self {
        Self {
            files: Arc::default(),
            faults: self.faults.clone(),
        }
    }

    /// The bytes of a file.
    pub fn bytes_of(&self, name: &str) -> Vec<u8> {
        self.files.lock()[name].seen.lock().clone()
    }

    fn total(&self) -> u64 {
        let files = self.files.lock();
        files.values().map(|file| file.seen.lock().len() as u64).sum()
    }
}

impl Disk for MemoryDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Medium>> {
        if self.faults.creation.load(Ordering::Acquire) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let file = Arc::new(MemoryFile {
            seen: Mutex::default(),
            kept: Mutex::default(),
            dirty: Mutex::default(),
            disk: self.clone(),
        });
        self.files.lock().insert(name.to_owned(), file.clone());
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Medium>> {
        let files = self.files.lock();
        let file = files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(file.clone())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.lock().remove(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Medium for MemoryFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let faults = &self.disk.faults;
        faults.written.fetch_add(1, Ordering::AcqRel);
        if faults.writes.load(Ordering::Acquire) {
            return Err(io::Error::other("the disk fails"));
        }
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let grows = (at + bytes.len()).saturating_sub(self.seen.lock().len());
        if grows > 0 && self.disk.total() + grows as u64 > faults.capacity.load(Ordering::Acquire) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        put(&mut self.seen.lock(), at, bytes);
        self.dirty.lock().push((at, bytes.to_vec()));
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.disk.faults.reads.load(Ordering::Acquire) {
            return Err(io::Error::other("the disk fails"));
        }
        let seen = self.seen.lock();
        let at = usize::try_from(offset).map_err(io::Error::other)?.min(seen.len());
        let count = bytes.len().min(seen.len() - at);
        bytes[..count].copy_from_slice(&seen[at..at + count]);
        Ok(count)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.faults.synced.fetch_add(1, Ordering::AcqRel);
        let dirty = std::mem::take(&mut *self.dirty.lock());
        if self.disk.faults.syncs.load(Ordering::Acquire) {
            // As Linux does it: the error is told once, and the pages count as clean.
            return Err(io::Error::other("the disk fails"));
        }
        let kept = &mut *self.kept.lock();
        dirty.iter().for_each(|(at, bytes)| put(kept, *at, bytes));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.seen.lock().len() as u64)
    }
}

fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Options for so many records, synced every few milliseconds.
pub(crate) fn options(max_records: usize) -> JournalOptions {
    JournalOptions {
        dir: PathBuf::new(),
        max_records,
        max_bytes: 64 << 20,
        sync: SyncMode::Interval,
        sync_interval: Duration::from_millis(5),
    }
}

/// A journal on such a disk, with so many records in memory.
pub(crate) fn on(disk: &MemoryDisk, options: JournalOptions, window: usize) -> Arc<Journal> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Journal::open_on(disk, options, Aside::new(None), window, Arc::new(Metrics::default())).unwrap()
}

/// A journal for so many records that nobody else looks at.
pub(crate) fn in_memory(max_records: usize) -> Arc<Journal> {
    on(&MemoryDisk::default(), options(max_records), 4_096)
}
