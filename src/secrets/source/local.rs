//! The encrypted local store: one file in the data directory, for a gateway without Vault.
//!
//! The file is sealed with AES-256-GCM under a key that derives from the master key, so a copy of it says nothing
//! without that. Each change writes a new file beside the old one and puts it in its place, so a reader sees one or the
//! other; writers of several processes take turns by a lock.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use super::SourceError;
use crate::config::{CredentialPath, Fields, LOCAL_STORE_FILE, Stored};
use crate::secrets::master_key::MasterKey;

/// The first line of the file: what it is, and in which form.
const HEAD: &str = "bonito credentials v1";
/// The file writers lock.
const LOCK_FILE: &str = "credentials.lock";

/// The store.
pub struct LocalStore {
    dir: PathBuf,
    key: Zeroizing<[u8; 32]>,
}

/// What the seal holds: fields by path.
type Plain = BTreeMap<String, BTreeMap<String, SecretString>>;

impl LocalStore {
    /// The store in a data directory. It need not be there yet.
    pub fn new(dir: &Path, master_key: &MasterKey) -> Self {
        Self {
            dir: dir.to_owned(),
            key: Zeroizing::new(master_key.credential_sealing_key()),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(LOCAL_STORE_FILE)
    }

    /// Everything in it; nothing where there is no file.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or was sealed with another master key.
    pub fn read(&self) -> Result<Stored, SourceError> {
        let text = match fs::read_to_string(self.path()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Stored::default()),
            Err(error) => return Err(self.file_error(error)),
        };
        let unreadable = |problem| SourceError::Unreadable {
            path: self.path().display().to_string(),
            problem,
        };
        let sealed = text
            .strip_prefix(HEAD)
            .ok_or_else(|| unreadable("it does not begin as a store of credentials does"))?;
        let mut sealed = BASE64.decode(sealed.trim()).map_err(|_| unreadable("it is damaged"))?;
        if sealed.len() < NONCE_LEN {
            return Err(unreadable("it is damaged"));
        }
        let mut body = Zeroizing::new(sealed.split_off(NONCE_LEN));
        let nonce = Nonce::try_assume_unique_for_key(&sealed).map_err(|_| unreadable("it is damaged"))?;
        let opened = self
            .cipher()
            .open_in_place(nonce, Aad::from(HEAD), &mut body)
            .map_err(|_| unreadable("it is damaged, or was sealed with another master key"))?;
        let plain: Plain =
            serde_json::from_slice(opened).map_err(|_| unreadable("its inside is not what it should be"))?;
        let mut stored = Stored::default();
        for (path, fields) in plain {
            let path = CredentialPath::parse(&path).ok_or_else(|| unreadable("one of its paths is none"))?;
            stored.credentials.insert(path, fields.into_iter().collect());
        }
        Ok(stored)
    }

    /// Changes one credential and writes the store. A credential left without fields is taken away.
    ///
    /// # Errors
    /// The store cannot be read or written; then it is as it was.
    pub fn change<T>(&self, path: &CredentialPath, change: impl FnOnce(&mut Fields) -> T) -> Result<T, SourceError> {
        let lock = fs::File::create(self.dir.join(LOCK_FILE)).map_err(|error| self.file_error(error))?;
        lock.lock().map_err(|error| self.file_error(error))?;
        let mut stored = self.read()?;
        let mut fields = stored.credentials.remove(path).unwrap_or_default();
        let result = change(&mut fields);
        if !fields.is_empty() {
            stored.credentials.insert(path.clone(), fields);
        }
        self.write(&stored).map_err(|error| self.file_error(error))?;
        Ok(result)
    }

    fn write(&self, stored: &Stored) -> io::Result<()> {
        let plain: BTreeMap<String, BTreeMap<&str, &str>> = stored
            .credentials
            .iter()
            .map(|(path, fields)| {
                let fields = fields.iter().map(|(name, value)| (name, value.expose_secret()));
                (path.to_string(), fields.collect())
            })
            .collect();
        let mut body = Zeroizing::new(serde_json::to_vec(&plain)?);
        let nonce = self
            .cipher()
            .seal_in_place_append_tag(Aad::from(HEAD), &mut *body)
            .map_err(|_| io::Error::other("sealing failed"))?;
        let sealed = [nonce.as_ref().as_slice(), body.as_slice()].concat();
        let new = self.dir.join(format!("{LOCAL_STORE_FILE}.new"));
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&new)?;
        writeln!(file, "{HEAD}\n{}", BASE64.encode(sealed))?;
        // On disk before it takes the old one's place; otherwise a crash could leave neither.
        file.sync_all()?;
        fs::rename(&new, self.path())?;
        fs::File::open(&self.dir)?.sync_all()
    }

    fn cipher(&self) -> RandomizedNonceKey {
        RandomizedNonceKey::new(&AES_256_GCM, &*self.key).expect("the key has the length the cipher wants")
    }

    fn file_error(&self, source: io::Error) -> SourceError {
        SourceError::File {
            path: self.path().display().to_string(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::master_key::MasterKeySources;

    fn master_key(byte: u8) -> MasterKey {
        let sources = MasterKeySources {
            value: Some(&BASE64.encode([byte; 32])),
            ..MasterKeySources::default()
        };
        MasterKey::find(&sources).unwrap()
    }

    fn with_a_key(dir: &Path) -> LocalStore {
        let store = LocalStore::new(dir, &master_key(1));
        store
            .change(&CredentialPath::shared("openai"), |fields| {
                fields.set("api_key", "sk-hunter2")
            })
            .unwrap();
        store
    }

    #[test]
    fn what_was_stored_is_read_again_and_the_file_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = with_a_key(dir.path());
        let read = store.read().unwrap();
        assert_eq!(
            read.credentials[&CredentialPath::shared("openai")].get("api_key"),
            Some("sk-hunter2")
        );
        let file = dir.path().join(LOCAL_STORE_FILE);
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("hunter2") && !text.contains("openai"), "{text}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn another_master_key_or_a_changed_byte_opens_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = with_a_key(dir.path());
        let other = LocalStore::new(dir.path(), &master_key(2));
        assert!(matches!(other.read(), Err(SourceError::Unreadable { .. })));
        // Refused for writing too: what cannot be read must not be replaced.
        let path = CredentialPath::shared("groq");
        assert!(other.change(&path, |fields| fields.set("api_key", "x")).is_err());

        let file = dir.path().join(LOCAL_STORE_FILE);
        let text = fs::read_to_string(&file).unwrap();
        let (head, body) = text.trim().split_once('\n').unwrap();
        let mut body = BASE64.decode(body).unwrap();
        for at in [0, NONCE_LEN, body.len() - 1] {
            body[at] ^= 1;
            fs::write(&file, format!("{head}\n{}\n", BASE64.encode(&body))).unwrap();
            assert!(store.read().is_err(), "byte {at}");
            body[at] ^= 1;
        }
    }

    #[test]
    fn a_credential_without_fields_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let store = with_a_key(dir.path());
        assert!(
            store
                .change(&CredentialPath::shared("openai"), |fields| fields.remove("api_key"))
                .unwrap()
        );
        assert!(store.read().unwrap().credentials.is_empty());
    }
}
