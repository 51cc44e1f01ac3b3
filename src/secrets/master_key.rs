//! The master key: where it comes from, and what derives from it.
//!
//! For the embedded database it is generated into the data directory. With Postgres it must be given, because all replicas
//! need the same one and none of their disks is the right place for it.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use rand::RngCore as _;
use sha2::Sha256;
use uuid::Uuid;

use crate::domain::api_key::ApiKey;
use crate::domain::ids::OrganizationId;
use crate::domain::key::hex;

type HmacSha256 = Hmac<Sha256>;

/// Name of the file in the data directory.
pub const FILE_NAME: &str = "master.key";
pub(super) const KEY_BYTES: usize = 32;

/// The key itself. Its `Debug` form says nothing.
#[derive(Clone)]
pub struct MasterKey([u8; KEY_BYTES]);

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey")
    }
}

/// Why there is no usable master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// None was given, and none may be generated.
    #[error(
        "Postgres needs a master key that is the same on every replica: set BONITO_MASTER_KEY or BONITO_MASTER_KEY_FILE to \
         32 random bytes in base64 (`head -c 32 /dev/urandom | base64` makes one), or vault.master_key_path to where Vault \
         has it"
    )]
    Missing,
    /// It is not 32 bytes in base64.
    #[error("{place} must hold exactly 32 bytes in base64 (`head -c 32 /dev/urandom | base64` makes one)")]
    Malformed {
        /// Where it was found.
        place: String,
    },
    /// Vault was to have it.
    #[error("vault.master_key_path: {0}")]
    Vault(#[from] super::source::SourceError),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: io::Error,
    },
}

/// What the process was told about its master key.
#[derive(Clone, Copy, Default)]
pub struct MasterKeySources<'a> {
    /// The value of `BONITO_MASTER_KEY`.
    pub value: Option<&'a str>,
    /// The value of `BONITO_MASTER_KEY_FILE`.
    pub file: Option<&'a str>,
    /// What Vault has, and where.
    pub vault: Option<(&'a str, &'a str)>,
    /// The data directory, where a key may be kept and generated.
    pub generate_in: Option<&'a Path>,
}

impl MasterKey {
    /// Finds the master key, or generates it where that is allowed.
    ///
    /// # Errors
    /// See [`MasterKeyError`].
    pub fn find(sources: &MasterKeySources<'_>) -> Result<Self, MasterKeyError> {
        if let Some(text) = sources.value {
            return Self::decode(text).ok_or_else(|| MasterKeyError::Malformed {
                place: "BONITO_MASTER_KEY".into(),
            });
        }
        if let Some(path) = sources.file {
            return Self::read(Path::new(path));
        }
        if let Some((text, place)) = sources.vault {
            return Self::decode(text).ok_or_else(|| MasterKeyError::Malformed { place: place.into() });
        }
        let path = sources.generate_in.ok_or(MasterKeyError::Missing)?.join(FILE_NAME);
        if path.exists() {
            Self::read(&path)
        } else {
            Self::generate(&path)
        }
    }

    fn decode(text: &str) -> Option<Self> {
        BASE64.decode(text.trim()).ok()?.try_into().ok().map(Self)
    }

    fn read(path: &Path) -> Result<Self, MasterKeyError> {
        let place = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|source| MasterKeyError::File {
            path: place.clone(),
            source,
        })?;
        Self::decode(&text).ok_or(MasterKeyError::Malformed { place })
    }

    /// Makes a key and keeps it. If another process made one in the meantime, that one counts.
    fn generate(path: &Path) -> Result<Self, MasterKeyError> {
        let mut bytes = [0; KEY_BYTES];
        rand::rngs::OsRng.fill_bytes_infallible(&mut bytes);
        match keep(path, BASE64.encode(bytes).as_bytes()) {
            Ok(()) => Ok(Self(bytes)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::read(path),
            Err(source) => Err(MasterKeyError::File {
                path: path.display().to_string(),
                source,
            }),
        }
    }

    /// A key of its own for each purpose, so that no use of one says anything about another.
    fn derive(&self, purpose: &str) -> HmacSha256 {
        let mut mac = HmacSha256::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(purpose.as_bytes());
        HmacSha256::new_from_slice(&mac.finalize().into_bytes()).expect("HMAC takes keys of any length")
    }

    /// What signs and hashes for a purpose of a neighbour's.
    pub(super) fn purpose(&self, purpose: &str) -> HmacSha256 {
        self.derive(purpose)
    }

    /// What hashes gateway keys.
    pub fn key_hasher(&self) -> KeyHasher {
        KeyHasher(self.derive("bonito gateway key hash v1"))
    }

    /// The key that seals the local store of credentials.
    pub fn credential_sealing_key(&self) -> [u8; KEY_BYTES] {
        self.derive("bonito local credentials v1")
            .finalize()
            .into_bytes()
            .into()
    }

    /// The key that seals an organization's prompts and answers.
    pub fn payload_sealing_key(&self, organization: OrganizationId) -> [u8; KEY_BYTES] {
        let mut mac = self.derive("bonito payloads v1");
        mac.update(organization.0.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// The key that seals what the database keeps of a purpose, such as `webhook secrets`.
    pub(super) fn sealing_key(&self, purpose: &str) -> [u8; KEY_BYTES] {
        self.derive(&format!("bonito sealed {purpose} v1"))
            .finalize()
            .into_bytes()
            .into()
    }

    /// The key that signs the tokens of the management API.
    pub fn management_token_key(&self) -> [u8; KEY_BYTES] {
        self.derive("bonito management token v1").finalize().into_bytes().into()
    }

    /// A value that tells this master key from any other without giving it away.
    pub fn check_value(&self) -> String {
        hex(&self.derive("bonito master key check v1").finalize().into_bytes())
    }
}

/// Writes a private file that is there as a whole or not at all, whenever the machine dies, and replaces nobody else's.
///
/// Whatever is encrypted or hashed with the key is lost without it, so it is on disk before it is used.
fn keep(path: &Path, text: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let draft = directory.join(format!(".{FILE_NAME}.{}", Uuid::now_v7().simple()));
    let kept = (|| {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&draft)?;
        file.write_all(text)?;
        file.sync_all()?;
        // A link takes a name only if it is free; a rename would take it from whoever was faster.
        match fs::hard_link(&draft, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !path.exists() => {
                // Some file systems have no links.
                fs::rename(&draft, path)
            }
            linked => linked,
        }
    })();
    let _ = fs::remove_file(&draft);
    kept?;
    // The name itself is on disk only when its directory is.
    #[cfg(unix)]
    fs::File::open(directory)?.sync_all()?;
    Ok(())
}

/// Hashes gateway keys: a stolen database cannot confirm a guessed key without the master key.
#[derive(Clone)]
pub struct KeyHasher(HmacSha256);

impl KeyHasher {
    /// The keyed hash of a key.
    pub fn hash(&self, key: &ApiKey) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(key.expose().as_bytes());
        mac.finalize().into_bytes().into()
    }
}

/// `OsRng` as a source that either works or means that the machine is unusable.
trait FillBytes {
    fn fill_bytes_infallible(self, bytes: &mut [u8]);
}

impl FillBytes for rand::rngs::OsRng {
    fn fill_bytes_infallible(mut self, bytes: &mut [u8]) {
        use rand::TryRngCore as _;
        self.try_fill_bytes(bytes)
            .expect("the operating system gives random bytes");
    }
}

/// A new key out of the operating system's randomness.
pub fn new_api_key() -> ApiKey {
    let mut rng = rand::rng();
    ApiKey::generate(move || {
        let mut byte = [0];
        rng.fill_bytes(&mut byte);
        byte[0]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_is_private_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let sources = MasterKeySources {
            generate_in: Some(dir.path()),
            ..MasterKeySources::default()
        };
        let made = MasterKey::find(&sources).unwrap();
        assert_eq!(made.check_value(), MasterKey::find(&sources).unwrap().check_value());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(dir.path().join(FILE_NAME)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn processes_that_start_together_keep_one_key_and_leave_nothing_else_behind() {
        let dir = tempfile::tempdir().unwrap();
        let start = std::sync::Barrier::new(8);
        let found: Vec<String> = std::thread::scope(|scope| {
            let find = || {
                start.wait();
                MasterKey::generate(&dir.path().join(FILE_NAME)).unwrap().check_value()
            };
            let finding: Vec<_> = (0..8).map(|_| scope.spawn(find)).collect();
            finding.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "{found:?}");
        let files: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|file| file.unwrap().file_name())
            .collect();
        assert_eq!(files, [FILE_NAME]);
    }

    #[test]
    fn without_a_place_to_keep_it_a_key_must_be_given_and_be_whole() {
        assert!(matches!(
            MasterKey::find(&MasterKeySources::default()),
            Err(MasterKeyError::Missing)
        ));
        for bad in ["", "short", &BASE64.encode([1; 31]), "!!!!"] {
            let sources = MasterKeySources {
                value: Some(bad),
                ..MasterKeySources::default()
            };
            let Err(error) = MasterKey::find(&sources) else {
                panic!("{bad:?} is not a master key")
            };
            assert!(matches!(error, MasterKeyError::Malformed { .. }));
        }
    }

    #[test]
    fn different_master_keys_hash_alike_keys_differently() {
        let master = |byte: u8| MasterKey([byte; KEY_BYTES]);
        let key = new_api_key();
        assert_ne!(master(1).key_hasher().hash(&key), master(2).key_hasher().hash(&key));
        assert_eq!(master(1).key_hasher().hash(&key), master(1).key_hasher().hash(&key));
        assert_ne!(master(1).check_value(), master(2).check_value());
    }
}
