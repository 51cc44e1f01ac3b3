//! What the journal asks of a disk. A trait, so that tests can have one that is full, that fails, or that loses what was
//! not synced.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory of segments.
pub(super) trait Disk: Send + Sync + Debug {
    /// The names of its files.
    fn names(&self) -> io::Result<Vec<String>>;
    /// A new file; one of the same name is emptied.
    fn create(&self, name: &str) -> io::Result<Arc<dyn Medium>>;
    /// A file that is there.
    fn open(&self, name: &str) -> io::Result<Arc<dyn Medium>>;
    /// Gives a file another name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes names last: a file that was created or renamed is found again after the machine died.
    fn sync_names(&self) -> io::Result<()>;
}

/// A file.
pub(super) trait Medium: Send + Sync + Debug {
    /// Writes all bytes at a place.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reads what is there, fewer bytes than asked for at the end.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Makes what was written last.
    fn sync(&self) -> io::Result<()>;
    /// Its length.
    fn len(&self) -> io::Result<u64>;
}

/// Reads up to `count` bytes, fewer at the end of the file.
pub(super) fn read(medium: &dyn Medium, offset: u64, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    let mut have = 0;
    while have < count {
        match medium.read_at(&mut bytes[have..], offset + have as u64) {
            Ok(0) => break,
            Ok(more) => have += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(have);
    Ok(bytes)
}

/// A directory of the file system, held against every other process.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Somebody else has it.
    #[error(
        "the journal {dir} is in use by another process. Each gateway needs one of its own: set journal.dir (or data.dir) \
         to another directory, or stop the other process"
    )]
    InUse {
        /// The directory.
        dir: String,
    },
    /// The system refuses.
    #[error("the journal {dir} cannot be used: {source}")]
    Io {
        /// The directory.
        dir: String,
        /// Why.
        source: io::Error,
    },
}

impl Directory {
    /// Makes the directory if it is not there, and locks it.
    pub fn lock(path: &Path) -> Result<Self, DirectoryError> {
        let failed = |source| DirectoryError::Io {
            dir: path.display().to_string(),
            source,
        };
        make_private(path).map_err(failed)?;
        let lock = private()
            .create(true)
            .truncate(false)
            .open(path.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(DirectoryError::InUse {
                dir: path.display().to_string(),
            }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

impl Disk for Directory {
    fn names(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Medium>> {
        let file = private().create(true).truncate(true).open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Medium>> {
        Ok(Arc::new(private().open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        #[cfg(unix)]
        File::open(&self.path)?.sync_all()?;
        Ok(())
    }
}

impl Medium for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::write_all_at(self, bytes, offset);
        #[cfg(windows)]
        {
            let mut written = 0;
            while written < bytes.len() {
                let at = offset + written as u64;
                match std::os::windows::fs::FileExt::seek_write(self, &bytes[written..], at)? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    more => written += more,
                }
            }
            Ok(())
        }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::read_at(self, bytes, offset);
        #[cfg(windows)]
        std::os::windows::fs::FileExt::seek_read(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// Files that are nobody else's to read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn make_private(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}
