//! The sealed copy on the disk: private, there as a whole or not at all, whenever the machine dies.
//!
//! What seals it is the app's: it binds the file to the master key and to the database it is a copy of, so that a data
//! directory that came to another installation opens nothing there.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use secrecy::zeroize::Zeroizing;

use super::Draft;

/// Its name in the data directory.
pub const FILE_NAME: &str = "snapshot";
/// What it begins with, before the seal.
const MAGIC: &[u8] = b"bonito snapshot 1\n";
/// Larger ones are nobody's: ten million keys are not kept.
const MOST_BYTES: u64 = 4 << 30;

/// Seals a snapshot and opens it.
pub trait Seal: Send + Sync {
    /// The bytes, sealed.
    fn seal(&self, plain: &[u8]) -> Vec<u8>;
    /// What was sealed; `None`: it is damaged, or of another installation.
    fn open(&self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>>;
}

/// The file.
#[derive(Clone)]
pub struct SnapshotFile {
    path: PathBuf,
    seal: Arc<dyn Seal>,
    /// The number of the last draft that was written. Held while one is.
    written: Arc<Mutex<u64>>,
}

/// Why it cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system does not let us.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is no snapshot, or one of another version.
    #[error("it is no snapshot of this version")]
    Foreign,
    /// The seal does not open.
    #[error("it is damaged, or belongs to another master key or another database")]
    Sealed,
}

impl SnapshotFile {
    /// The file in a directory.
    pub fn new(dir: &Path, seal: Arc<dyn Seal>) -> Self {
        Self {
            path: dir.join(FILE_NAME),
            seal,
            written: Arc::default(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it; `None`: there is no file.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, ReadError> {
        let length = match fs::metadata(&self.path) {
            Ok(file) => file.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if length > MOST_BYTES {
            return Err(ReadError::Foreign);
        }
        let bytes = fs::read(&self.path)?;
        let sealed = bytes.strip_prefix(MAGIC).ok_or(ReadError::Foreign)?;
        self.seal.open(sealed).map(Some).ok_or(ReadError::Sealed)
    }

    /// Puts a draft in the place of what is in it, unless a later one is there already. Takes as long as the disk does; gives
    /// how long the processor was needed for it.
    ///
    /// # Errors
    /// The system does not let us; then what was there stays.
    pub fn write(&self, draft: &Draft) -> io::Result<Duration> {
        let mut written = self.written.lock();
        let began = Instant::now();
        if draft.number <= *written {
            return Ok(Duration::ZERO);
        }
        let sealed = self.seal.seal(&draft.written_out());
        let took = began.elapsed();
        self.replace(&sealed)?;
        *written = draft.number;
        Ok(took)
    }

    fn replace(&self, sealed: &[u8]) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        private_dir(dir)?;
        // Always the same name, so that what a killed process left is not left for ever.
        let draft = dir.join(format!(".{FILE_NAME}.draft"));
        let written = (|| {
            let mut options = fs::OpenOptions::new();
            options.write(true).create(true).truncate(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&draft)?;
            file.write_all(MAGIC)?;
            file.write_all(sealed)?;
            file.sync_all()?;
            fs::rename(&draft, &self.path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        written?;
        // The name itself is on disk only when its directory is.
        #[cfg(unix)]
        fs::File::open(dir)?.sync_all()?;
        Ok(())
    }
}

fn private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}
