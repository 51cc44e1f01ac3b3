//! Opening the database: schema, master key, and on the very first start an organization with a key and somebody who may
//! manage it.

use std::path::Path;

use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use crate::config::Settings;
use crate::domain::api_key::ApiKey;
use crate::domain::ids::{KeyId, UserId};
use crate::domain::key::{KeyHash, NewKey};
use crate::domain::limit::DEFAULT_KEY_REQUESTS;
use crate::domain::role::Role;
use crate::domain::scope::Scope;
use crate::domain::user::{Email, NewUser};
use crate::secrets::master_key::{MasterKey, MasterKeyError, MasterKeySources, new_api_key};
use crate::secrets::password::{self, PasswordError, Passwords};
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
    /// The first user's password cannot be hashed.
    #[error("the first user cannot be made: {0}")]
    Password(#[from] PasswordError),
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
    /// Who was just made the installation's first user: on the very first start, and where there are no users.
    pub first_owner: Option<FirstOwner>,
}

/// The first user, with what they sign in with. It is nowhere else.
pub struct FirstOwner {
    /// Their address.
    pub email: Email,
    /// Their password, which they must change.
    pub password: SecretString,
}

impl Opened {
    /// What was made and is shown this once, in lines.
    pub fn shown_once(&self) -> Vec<String> {
        let key = self
            .first_key
            .as_ref()
            .map(|key| format!("the first key: {}", key.expose()));
        let owner = self.first_owner.as_ref().map(|owner| {
            let password = owner.password.expose_secret();
            format!("the first sign-in: {} with the password {password}", owner.email)
        });
        key.into_iter().chain(owner).collect()
    }
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
        min_connections: settings.database.min_connections,
        acquire_timeout: settings.database.acquire_timeout,
        statement_timeout: settings.database.statement_timeout,
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
    let first_owner = first_owner(settings, &store).await?;
    Ok(Opened {
        store,
        master_key,
        first_key: created.then_some(key),
        first_owner,
    })
}

/// Makes somebody who may do everything, if there is nobody who may do anything.
async fn first_owner(settings: &Settings, store: &Store) -> Result<Option<FirstOwner>, OpenError> {
    if store.has_users().await? {
        return Ok(None);
    }
    let (email, password) = (settings.auth.owner_email.clone(), password::generated());
    let hash = Passwords::default().hash(password.clone()).await?;
    let created = store
        .create_first_user(|organization| NewUser {
            id: UserId(Uuid::now_v7()),
            organization,
            team: None,
            email: email.clone(),
            name: "Owner".into(),
            // Whoever sets a gateway up may do everything with it.
            role: Role::PlatformAdmin,
            password_hash: Some(hash),
            must_change_password: true,
        })
        .await?;
    Ok(created.then_some(FirstOwner { email, password }))
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
