//! How entries reach the disk.
//!
//! A thread that serves requests writes what was handed in when all of its tasks have had their turn, so that the entries
//! of everything it did in between go out together: each write costs some microseconds, whatever its size. Without a
//! runtime, whoever handed an entry in writes at once. If somebody is at it already, that one takes it along. The write
//! goes into the page cache, into a file whose blocks are there; giving it to another thread would cost more than the write
//! itself in being woken up, at both ends. While the file is being synced a write might have to wait for the disk, so
//! then, and while writes fail, a thread of the journal's own does it.
//!
//! Nothing but that thread, the syncer and the keeper ever waits for the disk.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::disk::{self, Medium};
use super::format::{self, HEADER_BYTES, Header, Step};
use super::head::Chunk;
use super::{Journal, Threads};
use crate::config::SyncMode;

/// How long after a failure the disk is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// So many times somebody writes what others have handed in meanwhile.
const MAX_TURNS: usize = 8;
/// Nothing to do until somebody says so.
const UNTIL_WOKEN: Duration = Duration::from_secs(3_600);

/// What the writer remembers.
#[derive(Default, Debug)]
pub(super) struct Writer {
    /// What was written and not synced, in order.
    dirty: Vec<Dirty>,
}

/// A part of a segment.
#[derive(Debug)]
struct Dirty {
    header: Header,
    file: Arc<dyn Medium>,
    from: u64,
    to: u64,
}

impl Writer {
    fn wrote(&mut self, chunk: &Chunk) {
        let to = chunk.at + chunk.bytes.len() as u64;
        match self.dirty.last_mut() {
            Some(last) if last.header == chunk.header && last.to == chunk.at => last.to = to,
            _ => self.dirty.push(Dirty {
                header: chunk.header,
                file: chunk.file.clone(),
                from: chunk.at,
                to,
            }),
        }
    }
}

impl Journal {
    /// Sees to it that what was appended gets written, at the end of this turn of the runtime's if there is one. Never
    /// waits for the disk.
    pub(super) fn hand_in(self: &Arc<Self>) {
        let Ok(runtime) = Handle::try_current() else {
            return self.write_soon();
        };
        if !self.turn_under_way.swap(true, Ordering::AcqRel) {
            let turn = Turn(self.clone());
            runtime.spawn(async move { drop(turn) });
        }
    }

    /// Writes what was appended, or has it written.
    fn write_soon(&self) {
        let busy = self.state.syncing.load(Ordering::Acquire) || self.state.write_failing.load(Ordering::Acquire);
        if busy {
            self.wake(|threads| &threads.writer);
        } else {
            self.flush();
        }
        if self.options.sync == SyncMode::Record {
            self.wake(|threads| &threads.syncer);
        }
    }

    /// Writes what there is, unless somebody is at it, who then takes it along.
    pub(super) fn flush(&self) {
        // Looked at again after the lock was let go: who came meanwhile found it taken and went away.
        for _ in 0..MAX_TURNS {
            if !self.has_pending.load(Ordering::Acquire) {
                return;
            }
            let Some(mut writer) = self.writer.try_lock() else {
                return;
            };
            if !self.write_pending(&mut writer) {
                return;
            }
        }
        // Nobody writes for the others for ever.
        self.wake(|threads| &threads.writer);
    }

    /// Writes what there is, after whoever is at it.
    pub(super) fn flush_after_others(&self) {
        if self.has_pending.load(Ordering::Acquire) {
            self.write_pending(&mut self.writer.lock());
        }
        self.flush();
    }

    /// Writes what there is. What the disk does not take is kept for the next try, and says so.
    fn write_pending(&self, writer: &mut Writer) -> bool {
        let (mut chunks, ticket) = {
            let mut head = self.head.lock();
            self.has_pending.store(false, Ordering::Release);
            (std::mem::take(&mut head.pending), head.ticket)
        };
        for number in 0..chunks.len() {
            let chunk = &mut chunks[number];
            let length = chunk.bytes.len();
            chunk.bytes.resize(chunk.padded(), 0);
            let tried = chunk.file.write_at(&chunk.bytes, chunk.at);
            chunk.bytes.truncate(length);
            if let Err(error) = tried {
                let mut head = self.head.lock();
                let newer = std::mem::take(&mut head.pending);
                head.pending = chunks.into_iter().skip(number).chain(newer).collect();
                self.has_pending.store(true, Ordering::Release);
                drop(head);
                self.metrics.journal_error("write");
                if !self.state.write_failing.swap(true, Ordering::AcqRel) {
                    tracing::error!(%error, "the journal cannot be written, requests are refused until it can");
                }
                self.progress.notify_waiters();
                self.wake(|threads| &threads.writer);
                return false;
            }
            if self.options.sync != SyncMode::Off {
                writer.wrote(chunk);
            }
        }
        self.written.store(ticket, Ordering::Release);
        if self.state.write_failing.load(Ordering::Acquire) {
            self.state.write_failing.store(false, Ordering::Release);
            tracing::info!("the journal can be written again");
        }
        self.progress.notify_waiters();
        true
    }

    /// Whether an entry has got as far as callers wait for.
    pub(super) fn reached(&self, ticket: u64) -> bool {
        let reached = match self.options.sync {
            SyncMode::Record => &self.durable,
            SyncMode::Interval | SyncMode::Off => &self.written,
        };
        reached.load(Ordering::Acquire) >= ticket
    }

    /// Whether an entry survives as much as any does.
    pub(super) fn is_safe(&self, ticket: u64) -> bool {
        let safe = match self.options.sync {
            SyncMode::Off => &self.written,
            SyncMode::Interval | SyncMode::Record => &self.durable,
        };
        safe.load(Ordering::Acquire) >= ticket
    }

    /// Writes and syncs what there is. Says whether that worked.
    pub(super) fn sync(&self) -> bool {
        self.flush_after_others();
        let (dirty, ticket) = {
            let mut writer = self.writer.lock();
            (std::mem::take(&mut writer.dirty), self.written.load(Ordering::Acquire))
        };
        if dirty.is_empty() {
            return !self.is_failing();
        }
        let failed_before = self.state.sync_failing.load(Ordering::Acquire);
        self.state.syncing.store(true, Ordering::Release);
        let began = Instant::now();
        let mut failed = Vec::new();
        let mut error = None;
        for part in dirty {
            let synced = if failed_before {
                part.rewrite().and_then(|()| part.file.sync())
            } else {
                part.file.sync()
            };
            if let Err(failure) = synced {
                error = Some(failure);
                failed.push(part);
            }
        }
        self.state.syncing.store(false, Ordering::Release);
        self.metrics.journal_sync.observe(began.elapsed().as_secs_f64());
        if let Some(error) = error {
            self.writer.lock().dirty.splice(0..0, failed);
            self.metrics.journal_error("sync");
            if !self.state.sync_failing.swap(true, Ordering::AcqRel) {
                tracing::error!(%error, "the journal cannot be synced, requests are refused until it can");
            }
            self.progress.notify_waiters();
            return false;
        }
        self.durable.store(ticket, Ordering::Release);
        if self.state.sync_failing.swap(false, Ordering::AcqRel) {
            tracing::info!("the journal can be synced again");
        }
        self.progress.notify_waiters();
        true
    }

    /// Starts the journal's threads.
    pub(super) fn start_threads(self: &Arc<Self>) -> io::Result<()> {
        let writer = spawn(self, "journal-write", |journal| {
            journal.flush_after_others();
            if journal.has_pending.load(Ordering::Acquire) {
                RETRY
            } else {
                UNTIL_WOKEN
            }
        })?;
        let syncer = spawn(self, "journal-sync", |journal| {
            let began = Instant::now();
            if journal.options.sync == SyncMode::Off {
                journal.flush_after_others();
            } else if !journal.sync() {
                return RETRY;
            }
            let more = journal.written.load(Ordering::Acquire) > journal.durable.load(Ordering::Acquire);
            match journal.options.sync {
                SyncMode::Record if more => Duration::ZERO,
                _ => journal.options.sync_interval.saturating_sub(began.elapsed()),
            }
        })?;
        let keeper = spawn(self, "journal-keep", Journal::keep)?;
        let _ = self.threads.set(Threads {
            writer: writer.thread().clone(),
            syncer: syncer.thread().clone(),
            keeper: keeper.thread().clone(),
        });
        self.handles.lock().extend([writer, syncer, keeper]);
        Ok(())
    }

    pub(super) fn wake(&self, whom: impl FnOnce(&Threads) -> &Thread) {
        if let Some(threads) = self.threads.get() {
            whom(threads).unpark();
        }
    }

    pub(super) fn wake_all(&self) {
        if let Some(Threads { writer, syncer, keeper }) = self.threads.get() {
            [writer, syncer, keeper].into_iter().for_each(Thread::unpark);
        }
        self.progress.notify_waiters();
    }

    /// The last sync, when the threads are gone.
    pub(super) fn sync_rest(&self) {
        if self.options.sync == SyncMode::Off {
            self.flush_after_others();
        } else if !self.sync() && !self.sync() {
            tracing::error!("the journal's last entries could not be synced");
        }
    }
}

/// The turn in which entries gather. They are written at its end, also when it ends with the runtime.
struct Turn(Arc<Journal>);

impl Drop for Turn {
    fn drop(&mut self) {
        // Whoever comes from here on begins another one.
        self.0.turn_under_way.store(false, Ordering::Release);
        self.0.write_soon();
    }
}

impl Dirty {
    /// Writes the same bytes once more. After a sync that failed the system may take pages for clean that never reached
    /// the disk, and a sync that succeeds would say nothing about them.
    fn rewrite(&self) -> io::Result<()> {
        let count = usize::try_from(self.to - self.from).map_err(io::Error::other)?;
        let bytes = disk::read(&*self.file, self.from, count)?;
        let mut at = 0;
        if self.from == 0 {
            let header = Header::decode(&bytes);
            at = HEADER_BYTES;
            if header != Ok(self.header) {
                return Err(io::Error::other("the beginning of a segment was lost"));
            }
        }
        while at < count {
            match format::step(&bytes[at..], self.header.nonce, self.from + at as u64) {
                Step::Body(_, whole) => at += whole,
                Step::Short | Step::End => {
                    // What cannot be read any more cannot be written either. Its records are in memory or in the database,
                    // and whatever follows is not held up by it.
                    tracing::error!(
                        segment = self.header.sequence,
                        bytes = count - at,
                        "entries of the journal did not survive a sync that failed"
                    );
                    break;
                }
            }
        }
        self.file.write_at(&bytes, self.from)
    }
}

/// Runs `work` until the journal is closed or gone, each time after the pause it asked for, or earlier when woken up.
fn spawn(
    journal: &Arc<Journal>,
    name: &str,
    work: impl Fn(&Journal) -> Duration + Send + 'static,
) -> io::Result<std::thread::JoinHandle<()>> {
    let journal: Weak<Journal> = Arc::downgrade(journal);
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        loop {
            let pause = match journal.upgrade() {
                Some(journal) if !journal.is_closed() => {
                    let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&journal)));
                    worked.unwrap_or_else(|_panic| {
                        tracing::error!("a thread of the journal panicked, it goes on");
                        RETRY
                    })
                }
                _ => return,
            };
            std::thread::park_timeout(pause);
        }
    })
}
