//! Serves a batch: reads its file, serves its lines at the key's limits and budgets, and writes what came of them.
//!
//! What came of a line is kept, sealed, the moment it is known; a worker that takes the job over serves only lines of which
//! nothing is kept. When all are served, or it is cancelled, or its time is over, the results become files.
//!
//! A line that a limit holds up waits for it, and one that providers fail at is tried again a few times. One that fails all
//! the same is an error of its own and no failure of the job. While all lines under way wait for a limit the job gives its
//! place to others and comes back: a key with few requests per minute may take a day for its batch, and other keys of the
//! organization have batches too.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::files::{Files, Writing};
use crate::domain::batch::{Batch, BatchStatus, Holder, LineFault, Lines, StoredFile, operation, read_line};
use crate::domain::call::Operation;
use crate::domain::ids::{KeyId, OrganizationId};
use crate::domain::job::JobKind;
use crate::gates::inference::{Inference, Served};
use crate::queue::{Job, JobFailure, Outcome, Run};

/// Faults of a file that are told; the first ones.
const MAX_FAULTS: usize = 100;
/// Results that are read at a time when files are written.
const AT_ONCE: u64 = 64;
/// How long to wait before a line is tried again that providers failed at, in seconds. Nobody waits for it.
const LATER: [u64; 4] = [1, 5, 20, 60];
/// How long to wait before a database that failed is given a line's result again, in milliseconds. The line was served and
/// paid for; shorter in all than a worker's lease, after which somebody else has the batch.
const KEEP_AGAIN_MS: [u64; 6] = [100, 300, 1_000, 2_000, 3_000, 4_000];
/// How often a batch that only waits looks whether it was cancelled.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The least time for which a place is given to others.
const LEAST_AWAY: Duration = Duration::from_secs(1);

/// The job.
pub(super) struct ServeBatch {
    pub(super) files: Files,
    pub(super) inference: Arc<dyn Inference>,
    pub(super) rules: BatchRules,
}

/// Bounds on batches.
#[derive(Clone, Copy, Debug)]
pub struct BatchRules {
    /// Lines of one at the same time.
    pub concurrency: usize,
    /// Lines of one at most.
    pub max_requests: u32,
    /// Bytes of a line.
    pub max_line_bytes: usize,
}

#[derive(Deserialize)]
struct Payload {
    batch: Uuid,
    key: Uuid,
}

/// Reads a file line by line.
struct Reader<'f> {
    files: &'f Files,
    file: &'f StoredFile,
    piece: u32,
    lines: Option<Lines>,
    ready: std::vec::IntoIter<Vec<u8>>,
    number: u32,
    max_line_bytes: usize,
}

/// The lines under way that wait for a limit, and when each is asked for again.
#[derive(Default)]
struct Waiting {
    until: Mutex<HashMap<u32, Instant>>,
    changed: Notify,
}

/// One of them, as long as it waits.
struct Waits<'w>(&'w Waiting, u32);

impl Waiting {
    fn begin(&self, line: u32, until: Instant) -> Waits<'_> {
        self.until.lock().insert(line, until);
        self.changed.notify_one();
        Waits(self, line)
    }

    /// How long it is until the first of them is asked for again, if all lines under way wait.
    fn of_all(&self, under_way: usize, now: Instant) -> Option<Duration> {
        let until = self.until.lock();
        let soonest = until.values().min().filter(|_| until.len() == under_way)?;
        Some(soonest.saturating_duration_since(now))
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.until.lock().remove(&self.1);
    }
}

/// Why reading a file ended early.
enum Unread {
    /// A line is longer than it may be.
    TooLong(u32),
    /// The file cannot be read.
    Failed(JobFailure),
}

impl<'f> Reader<'f> {
    fn new(files: &'f Files, file: &'f StoredFile, max_line_bytes: usize) -> Self {
        Self {
            files,
            file,
            piece: 0,
            lines: Some(Lines::default()),
            ready: Vec::new().into_iter(),
            number: 0,
            max_line_bytes,
        }
    }

    /// The next line that is not empty, with its number.
    async fn next(&mut self) -> Result<Option<(u32, Vec<u8>)>, Unread> {
        loop {
            if let Some(line) = self.ready.next() {
                self.number += 1;
                if !line.iter().all(u8::is_ascii_whitespace) {
                    return Ok(Some((self.number, line)));
                }
                continue;
            }
            let Some(lines) = self.lines.as_mut() else {
                return Ok(None);
            };
            let piece = self.files.piece(self.file, self.piece).await;
            match piece.map_err(|error| Unread::Failed(JobFailure::new(error.to_string())))? {
                Some(piece) => {
                    self.piece += 1;
                    let cut = lines.push(&piece, self.max_line_bytes);
                    self.ready = cut.map_err(|_| Unread::TooLong(self.number + 1))?.into_iter();
                }
                None => {
                    let rest = self.lines.take().map(Lines::finish).unwrap_or_default();
                    self.ready = vec![rest].into_iter();
                }
            }
        }
    }
}

#[async_trait::async_trait]
impl Job for ServeBatch {
    fn kind(&self) -> JobKind {
        JobKind::Batch
    }

    async fn run(&self, run: &Run) -> Result<Outcome, JobFailure> {
        let Payload { batch: id, key } = run.told()?;
        let organization = run
            .organization
            .ok_or_else(|| JobFailure::for_good("the job has no organization"))?;
        let holder = Holder {
            organization: OrganizationId(organization.0),
            key: KeyId(key),
        };
        let outcome = self.steps(holder, id, run).await;
        if let Err(failure) = &outcome
            && failure.is_the_end_of(run)
        {
            self.files.store.batch_failed(id).await?;
        }
        outcome
    }
}

impl ServeBatch {
    /// Each step notes what it did, so whoever comes next begins where this one was.
    async fn steps(&self, holder: Holder, id: Uuid, run: &Run) -> Result<Outcome, JobFailure> {
        let store = &self.files.store;
        loop {
            let Some(batch) = store.batch(holder, id).await? else {
                return Ok(Outcome::Done);
            };
            match batch.status {
                status if status.is_over() => return Ok(Outcome::Done),
                BatchStatus::Validating => self.validate(&batch).await?,
                BatchStatus::InProgress => {
                    if let Some(outcome) = self.serve(&batch, run).await? {
                        return Ok(outcome);
                    }
                }
                BatchStatus::Cancelling => {
                    store.batch_finalizing(id, BatchStatus::Cancelled).await?;
                }
                _ => self.finalize(&batch).await?,
            }
        }
    }

    /// Reads the whole file once, and finds everything that is wrong with it.
    async fn validate(&self, batch: &Batch) -> Result<(), JobFailure> {
        let store = &self.files.store;
        let mut faults: Vec<LineFault> = Vec::new();
        let mut total = 0_u32;
        let fault = |code, line, message: String| LineFault {
            code,
            line,
            message,
            param: None,
        };
        if let Some(file) = store.file(batch.holder, batch.input_file).await? {
            let mut reader = Reader::new(&self.files, &file, self.rules.max_line_bytes);
            let mut seen: HashSet<String> = HashSet::new();
            loop {
                let (number, line) = match reader.next().await {
                    Ok(Some(line)) => line,
                    Ok(None) => break,
                    Err(Unread::Failed(failure)) => return Err(failure),
                    Err(Unread::TooLong(number)) => {
                        let most = self.rules.max_line_bytes;
                        faults.push(fault(
                            "line_too_long",
                            Some(number),
                            format!("this line is longer than {most} bytes"),
                        ));
                        break;
                    }
                };
                total += 1;
                if total > self.rules.max_requests {
                    let most = self.rules.max_requests;
                    faults.push(fault(
                        "too_many_requests",
                        Some(number),
                        format!("a batch may have {most} requests"),
                    ));
                    break;
                }
                match std::str::from_utf8(&line) {
                    Err(_) => faults.push(fault(
                        "invalid_json_line",
                        Some(number),
                        "this line is not UTF-8".into(),
                    )),
                    Ok(text) => match read_line(text, number, &batch.endpoint) {
                        Err(wrong) => faults.push(wrong),
                        Ok(line) => {
                            if !seen.insert(line.custom_id.into_owned()) {
                                let message = "custom_id was used by a line before";
                                faults.push(fault("duplicate_custom_id", Some(number), message.into()));
                            }
                        }
                    },
                }
                if faults.len() >= MAX_FAULTS {
                    break;
                }
            }
            if total == 0 && faults.is_empty() {
                faults.push(fault("empty_file", None, "the input file has no requests".into()));
            }
        } else {
            faults.push(fault("invalid_input_file", None, "the input file is gone".into()));
        }
        let faults = (!faults.is_empty()).then(|| json!({"object": "list", "data": faults}));
        let total = if faults.is_some() { 0 } else { total };
        store.batch_validated(batch.id, total, faults).await?;
        Ok(())
    }

    /// Serves the lines of which nothing is kept. `None`: look again how the batch is.
    async fn serve(&self, batch: &Batch, run: &Run) -> Result<Option<Outcome>, JobFailure> {
        let store = &self.files.store;
        let Some(file) = store.file(batch.holder, batch.input_file).await? else {
            return Err(JobFailure::for_good("the input file is gone"));
        };
        let Some(operation) = operation(&batch.endpoint) else {
            return Err(JobFailure::for_good("the endpoint is none"));
        };
        let done: HashSet<u32> = store.lines_done(batch.id).await?.into_iter().collect();
        let mut reader = Reader::new(&self.files, &file, self.rules.max_line_bytes);
        let (stopping, waiting) = (run.stopping.clone(), Waiting::default());
        let mut under_way = FuturesUnordered::new();
        let (mut more, mut status) = (true, BatchStatus::InProgress);
        // What went wrong first. Lines under way are served and paid for by then, so they end before the attempt does.
        let mut failure: Option<JobFailure> = None;
        loop {
            let goes_on = failure.is_none()
                && status == BatchStatus::InProgress
                && !stopping.is_cancelled()
                && Utc::now() < batch.expires_at;
            while more && goes_on && under_way.len() < self.rules.concurrency {
                match reader.next().await {
                    Ok(Some((number, line))) if !done.contains(&number) => {
                        under_way.push(self.line(batch, operation, (number, line), run, &waiting));
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => more = false,
                    Err(Unread::Failed(why)) => {
                        failure = Some(why);
                        break;
                    }
                    Err(Unread::TooLong(_)) => {
                        failure = Some(JobFailure::for_good("the input file has changed"));
                        break;
                    }
                }
            }
            if let Some(wait) = waiting.of_all(under_way.len(), Instant::now()) {
                match failure.take() {
                    Some(failure) => return Err(failure),
                    None if goes_on => return Ok(Some(Outcome::Again(wait.max(LEAST_AWAY)))),
                    None => {}
                }
            }
            tokio::select! {
                ended = under_way.next(), if !under_way.is_empty() => {
                    match ended {
                        Some(Ok(Some(now))) => status = now,
                        Some(Err(why)) => {
                            failure.get_or_insert(why);
                        }
                        Some(Ok(None)) | None => {}
                    }
                }
                () = waiting.changed.notified(), if !under_way.is_empty() => {}
                () = sleep(LOOK_EVERY), if !under_way.is_empty() => {
                    // They may all take long.
                    match store.batch(batch.holder, batch.id).await {
                        Ok(now) => status = now.map_or(BatchStatus::Cancelled, |batch| batch.status),
                        // It may answer again before a line ends.
                        Err(error) => tracing::warn!(batch = %batch.id, %error, "a batch could not be looked at"),
                    }
                }
                else => break,
            }
            if status != BatchStatus::InProgress && status != BatchStatus::Cancelling {
                return Ok(None);
            }
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        if status != BatchStatus::InProgress {
            return Ok(None);
        }
        if stopping.is_cancelled() && more {
            return Ok(Some(Outcome::Again(Duration::ZERO)));
        }
        let ending = if more {
            BatchStatus::Expired
        } else {
            BatchStatus::Completed
        };
        if ending == BatchStatus::Completed {
            // A line that gave up because of the time, a stop or a cancellation has no result.
            let kept = u32::try_from(store.lines_done(batch.id).await?.len()).unwrap_or(u32::MAX);
            if kept < batch.total && stopping.is_cancelled() {
                return Ok(Some(Outcome::Again(Duration::ZERO)));
            }
            let in_time = Utc::now() < batch.expires_at;
            if kept < batch.total && in_time {
                return Ok(None);
            }
            if kept < batch.total {
                store.batch_finalizing(batch.id, BatchStatus::Expired).await?;
                return Ok(None);
            }
        }
        store.batch_finalizing(batch.id, ending).await?;
        Ok(None)
    }

    /// Serves one line, waiting where a limit holds it up, and keeps what came of it. Gives how the batch is afterwards,
    /// if something came of it.
    async fn line(
        &self,
        batch: &Batch,
        operation: Operation,
        (number, text): (u32, Vec<u8>),
        run: &Run,
        waiting: &Waiting,
    ) -> Result<Option<BatchStatus>, JobFailure> {
        let store = &self.files.store;
        let text = String::from_utf8(text)?;
        let line = read_line(&text, number, &batch.endpoint)
            .map_err(|_| JobFailure::for_good("the input file has changed"))?;
        let body = Bytes::copy_from_slice(line.body.get().as_bytes());
        let mut later = LATER.into_iter();
        let (id, status, answer) = loop {
            let served = self.inference.serve(batch.holder, operation, body.clone()).await;
            let served = served.map_err(|error| JobFailure::new(error.to_string()))?;
            let limited = matches!(served, Served::Wait(_));
            let again = match &served {
                Served::Answered { may_pass: true, .. } => later.next().map(Duration::from_secs),
                Served::Answered { .. } => None,
                Served::Wait(wait) => Some(*wait),
            };
            match (served, again) {
                (Served::Answered { id, status, body, .. }, None) => break (id, status, body),
                (_, wait) => {
                    let wait = wait.unwrap_or(LOOK_EVERY);
                    {
                        let _waits = limited.then(|| waiting.begin(number, Instant::now() + wait));
                        tokio::select! {
                            () = sleep(wait) => {}
                            () = run.stopping.cancelled() => return Ok(None),
                        }
                    }
                    if Utc::now() >= batch.expires_at {
                        return Ok(None);
                    }
                    let now = store.batch(batch.holder, batch.id).await?;
                    let now = now.map_or(BatchStatus::Cancelled, |batch| batch.status);
                    if now != BatchStatus::InProgress {
                        return Ok(Some(now));
                    }
                }
            }
        };
        let answer: Option<&RawValue> = serde_json::from_slice(&answer).ok();
        let result = json!({
            "id": format!("batch_req_{}", id.0.simple()),
            "custom_id": line.custom_id,
            "response": {"status_code": status, "request_id": id.header(), "body": answer},
            "error": null,
        });
        let sealed = self.files.seal_result(batch.id, number, result.to_string().as_bytes());
        self.keep(batch.id, number, status == 200, sealed).await
    }

    /// Keeps what came of a line, a few times over if the database fails: a line that is not kept is served and paid for
    /// again.
    async fn keep(
        &self,
        batch: Uuid,
        number: u32,
        ok: bool,
        sealed: Vec<u8>,
    ) -> Result<Option<BatchStatus>, JobFailure> {
        let mut again = KEEP_AGAIN_MS.into_iter().map(Duration::from_millis);
        loop {
            match self.files.store.line_done(batch, number, ok, sealed.clone()).await {
                Ok(status) => return Ok(status),
                Err(error) => {
                    let Some(wait) = again.next() else {
                        return Err(error.into());
                    };
                    tracing::warn!(%batch, line = number, %error, wait_ms = wait.as_millis(), "a line's result could not be kept, it is tried again");
                    sleep(wait).await;
                }
            }
        }
    }

    /// Writes the files.
    async fn finalize(&self, batch: &Batch) -> Result<(), JobFailure> {
        let ending = batch.ending.unwrap_or(BatchStatus::Completed);
        let failed = |error: crate::domain::error::BoxError| JobFailure::new(error.to_string());
        let output = self.write(batch, true, None).await?;
        // Lines that were never served are errors of a batch whose time was over.
        let unserved = (ending == BatchStatus::Expired).then_some(batch.expires_at);
        let errors = self.write(batch, false, unserved).await?;
        let mut files = [None, None];
        for (slot, writing) in files.iter_mut().zip([output, errors]) {
            if let Some(writing) = writing {
                *slot = Some(writing.finish().await.map_err(failed)?);
            }
        }
        let [output, errors] = files;
        let over = self
            .files
            .store
            .batch_over(batch.id, ending, output.as_ref(), errors.as_ref());
        over.await?;
        Ok(())
    }

    /// Writes what came of lines, well or not, into a file; `None` where there are none.
    async fn write(
        &self,
        batch: &Batch,
        ok: bool,
        unserved: Option<DateTime<Utc>>,
    ) -> Result<Option<Writing>, JobFailure> {
        let failed = |error: crate::domain::error::BoxError| JobFailure::new(error.to_string());
        let name = format!(
            "batch_{}_{}.jsonl",
            batch.id.simple(),
            if ok { "output" } else { "errors" }
        );
        let mut writing: Option<Writing> = None;
        let mut after = 0;
        loop {
            let results = self.files.store.results(batch.id, ok, after, AT_ONCE).await?;
            let Some((last, _)) = results.last() else { break };
            after = *last;
            for (line, sealed) in results {
                let plain = self.files.open_result(batch.id, line, &sealed).map_err(failed)?;
                let writing = self.begun(&mut writing, batch, &name).await?;
                writing.write(&plain).await.map_err(failed)?;
                writing.write(b"\n").await.map_err(failed)?;
            }
        }
        if unserved.is_some()
            && let Some(file) = self.files.store.file(batch.holder, batch.input_file).await?
        {
            let done: HashSet<u32> = self.files.store.lines_done(batch.id).await?.into_iter().collect();
            let mut reader = Reader::new(&self.files, &file, self.rules.max_line_bytes);
            while let Ok(Some((number, line))) = reader.next().await {
                let Ok(text) = String::from_utf8(line) else { continue };
                let Ok(line) = read_line(&text, number, &batch.endpoint) else {
                    continue;
                };
                if done.contains(&number) {
                    continue;
                }
                let result = json!({
                    "id": format!("batch_req_{}", Uuid::now_v7().simple()),
                    "custom_id": line.custom_id,
                    "response": null,
                    "error": {"code": "batch_expired", "message": "the batch's time was over before this request was served"},
                });
                let writing = self.begun(&mut writing, batch, &name).await?;
                writing.write(format!("{result}\n").as_bytes()).await.map_err(failed)?;
            }
        }
        Ok(writing)
    }

    async fn begun<'w>(
        &self,
        writing: &'w mut Option<Writing>,
        batch: &Batch,
        name: &str,
    ) -> Result<&'w mut Writing, JobFailure> {
        if writing.is_none() {
            let begun = self.files.begin(batch.holder, "batch_output", name).await;
            *writing = Some(begun.map_err(|error| JobFailure::new(error.to_string()))?);
        }
        Ok(writing.as_mut().expect("it was just put there"))
    }
}
