//! Opening the database: schema, master key, and on the very first start an organization with a key.

use std::path::Path;

use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use crate::config::Settings;
use crate::domain::api_key::ApiKey;
use crate::domain::ids::KeyId;
use crate::domain::key::{KeyHash, NewKey};
use crate::domain::limit::DEFAULT_KEY_REQUESTS;
use crate::domain::scope::Scope;
use crate::secrets::master_key::{MasterKey, MasterKeyError, MasterKeySources, new_api_key};
use crate::secrets::source::Wait;
use crate::secrets::source::vault::VaultSource;
use crate::store::{Store, StoreError, StoreOptions};

/// Connections to the embedded database: one writes, and each costs a thread and a page cache.
const MAX_SQLITE_CONNECTIONS: u32 = 3;

/// Why the gateway cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory cannot be made.
    #[error("the data directory {dir} cannot be made: {source}")]
    DataDir {
        /// The directory.
        dir: String,
        /// Why.
        source: std::io::Error,
    },
    /// There is no usable master key.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// The database belongs to another master key.
    #[error(
        "this database was set up with another master key: keys in it could not be recognised. Start with the master key \
         it was set up with, or with another database"
    )]
    WrongMasterKey,
    /// The database fails.
    #[error("database: {0}")]
    Store(#[from] StoreError),
}

/// An opened gateway: its database and its master key.
pub struct Opened {
    /// The database.
    pub store: Store,
    /// The master key.
    pub master_key: MasterKey,
    /// The key that was just created, on the very first start alone.
    pub first_key: Option<ApiKey>,
}

/// What the process was told about its master key, taken from the environment by the caller.
#[derive(Clone, Default)]
pub struct MasterKeyInput {
    /// The value of `BONITO_MASTER_KEY`.
    pub value: Option<String>,
    /// The value of `BONITO_MASTER_KEY_FILE`.
    pub file: Option<String>,
}

/// The options of the configured database.
pub fn store_options(settings: &Settings) -> StoreOptions {
    let embedded = || StoreOptions::embedded_url(&settings.data.dir);
    let url = settings.database.url.clone().unwrap_or_else(embedded);
    let most = if url.starts_with("sqlite:") {
        MAX_SQLITE_CONNECTIONS
    } else {
        u32::MAX
    };
    StoreOptions {
        url,
        // One holds the turn while another migrates.
        max_connections: settings.database.max_connections.clamp(2, most),
        acquire_timeout: settings.database.acquire_timeout,
    }
}

/// Opens the database, brings its schema up to date, checks the master key and sets up what is missing. Doing it again
/// changes nothing.
///
/// # Errors
/// See [`OpenError`].
pub async fn open(settings: &Settings, master_key: &MasterKeyInput) -> Result<Opened, OpenError> {
    let options = store_options(settings);
    let data_dir = settings.data.dir.as_path();
    prepare_data_dir(&options, data_dir)?;
    let in_vault = master_key_in_vault(settings, master_key).await?;
    let in_vault = in_vault
        .as_ref()
        .map(|(key, place)| (key.expose_secret(), place.as_str()));
    let master_key = MasterKey::find(&MasterKeySources {
        value: master_key.value.as_deref(),
        file: master_key.file.as_deref(),
        vault: in_vault,
        generate_in: options.is_sqlite().then_some(data_dir),
    })?;
    let store = connect(&options).await?;
    if store.remember("master_key_check", &master_key.check_value()).await? != master_key.check_value() {
        return Err(OpenError::WrongMasterKey);
    }
    let key = new_api_key();
    let hasher = master_key.key_hasher();
    let created = store
        .create_first_organization(|organization| NewKey {
            id: KeyId(Uuid::now_v7()),
            organization,
            team: None,
            owner: None,
            name: "first key".into(),
            prefix: key.display_prefix().to_owned(),
            hash: KeyHash(hasher.hash(&key)),
            scope: Scope::default(),
            rate_limit: DEFAULT_KEY_REQUESTS,
            parameter_policy: None,
            cache_ttl: None,
            metadata: serde_json::json!({}),
            allowed_ips: Vec::new(),
            expires_at: None,
        })
        .await?;
    Ok(Opened {
        store,
        master_key,
        first_key: created.then_some(key),
    })
}

/// The master key that Vault has, with its place, where Vault is to have it. A Vault that is down is waited for: nothing
/// can start without the key.
async fn master_key_in_vault(
    settings: &Settings,
    given: &MasterKeyInput,
) -> Result<Option<(SecretString, String)>, MasterKeyError> {
    let Some(path) = settings.vault.master_key_path.as_deref() else {
        return Ok(None);
    };
    if given.value.is_some() || given.file.is_some() {
        return Ok(None);
    }
    let Some(vault) = VaultSource::open(settings)? else {
        return Ok(None);
    };
    let wait = Wait::new(settings.secrets.start_wait);
    let found = wait.until(async || vault.master_key(path).await).await?;
    Ok(Some(found))
}

/// Connects to the configured database and brings its schema up to date.
///
/// # Errors
/// See [`OpenError`].
pub async fn migrated(settings: &Settings) -> Result<Store, OpenError> {
    let options = store_options(settings);
    prepare_data_dir(&options, &settings.data.dir)?;
    connect(&options).await
}

async fn connect(options: &StoreOptions) -> Result<Store, OpenError> {
    let store = Store::connect(options).await?;
    store.migrate().await?;
    Ok(store)
}

fn prepare_data_dir(options: &StoreOptions, dir: &Path) -> Result<(), OpenError> {
    if !options.is_sqlite() {
        return Ok(());
    }
    make_private_dir(dir).map_err(|source| OpenError::DataDir {
        dir: dir.display().to_string(),
        source,
    })
}

/// A directory that is nobody else's to read: it holds the master key and what derives from it.
fn make_private_dir(dir: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}
