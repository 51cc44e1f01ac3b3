//! Files in the database: cut into pieces, each sealed for its place, so that no replica needs a disk that others see.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::domain::batch::{Holder, StoredFile};
use crate::domain::error::BoxError;
use crate::secrets::sealing::Sealer;
use crate::store::Store;

/// Bytes of a piece.
const PIECE: usize = 256 * 1024;
/// What files are sealed for.
pub const PURPOSE: &str = "files";

/// Reads and writes files.
#[derive(Clone)]
pub struct Files {
    /// Where the pieces are.
    pub store: Store,
    /// Seals them.
    pub sealer: Sealer,
    /// How long files are kept.
    pub keep: std::time::Duration,
}

/// A file that is being written. One that is not finished is forgotten after a day.
pub struct Writing {
    files: Files,
    /// The file so far.
    pub file: StoredFile,
    rest: Vec<u8>,
}

impl Files {
    /// Begins a file.
    ///
    /// # Errors
    /// The database fails.
    pub async fn begin(&self, holder: Holder, purpose: &str, filename: &str) -> Result<Writing, BoxError> {
        let now = Utc::now();
        let file = StoredFile {
            id: Uuid::now_v7(),
            holder,
            purpose: purpose.to_owned(),
            filename: filename.to_owned(),
            bytes: 0,
            chunks: 0,
            created_at: now,
            expires_at: self.expiry(now),
        };
        self.store.begin_file(&file).await?;
        Ok(Writing {
            files: self.clone(),
            file,
            rest: Vec::new(),
        })
    }

    fn expiry(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        now + TimeDelta::from_std(self.keep).unwrap_or(TimeDelta::days(3_650))
    }

    /// A piece of a file; `None` past its end.
    ///
    /// # Errors
    /// The database fails, or the piece is not what was sealed.
    pub async fn piece(&self, file: &StoredFile, number: u32) -> Result<Option<Vec<u8>>, BoxError> {
        if number >= file.chunks {
            return Ok(None);
        }
        let sealed = self.store.chunk(file.id, number).await?;
        let sealed = sealed.ok_or("a piece of a file is missing")?;
        Ok(Some(self.sealer.open(&place(file.id, number), &sealed)?))
    }

    /// Seals what came of a line of a batch.
    pub fn seal_result(&self, batch: Uuid, line: u32, plain: &[u8]) -> Vec<u8> {
        self.sealer.seal(&place(batch, line), plain)
    }

    /// Opens it.
    ///
    /// # Errors
    /// It is not what was sealed.
    pub fn open_result(&self, batch: Uuid, line: u32, sealed: &[u8]) -> Result<Vec<u8>, BoxError> {
        Ok(self.sealer.open(&place(batch, line), sealed)?)
    }
}

/// Ids are never used twice, so a piece of a file and a line of a batch have no place in common.
fn place(of: Uuid, number: u32) -> [u8; 20] {
    let mut place = [0; 20];
    place[..16].copy_from_slice(of.as_bytes());
    place[16..].copy_from_slice(&number.to_be_bytes());
    place
}

impl Writing {
    /// Adds bytes.
    ///
    /// # Errors
    /// The database fails.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), BoxError> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.rest.len()));
            self.rest.extend_from_slice(now);
            bytes = later;
            if self.rest.len() == PIECE {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), BoxError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let sealed = self
            .files
            .sealer
            .seal(&place(self.file.id, self.file.chunks), &self.rest);
        self.files
            .store
            .add_chunk(self.file.id, self.file.chunks, sealed)
            .await?;
        self.file.chunks += 1;
        self.file.bytes += self.rest.len() as u64;
        self.rest.clear();
        Ok(())
    }

    /// Writes what is left. The file is seen when whoever asked makes it complete.
    ///
    /// # Errors
    /// The database fails.
    pub async fn finish(mut self) -> Result<StoredFile, BoxError> {
        self.flush().await?;
        Ok(self.file)
    }

    /// Forgets what was written.
    ///
    /// # Errors
    /// The database fails; then it is forgotten later.
    pub async fn abort(self) -> Result<(), BoxError> {
        self.files.store.delete_file(self.file.holder, self.file.id).await?;
        Ok(())
    }
}
