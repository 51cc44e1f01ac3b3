//! Opening the database: schema, master key, and on the very first start an organization with a key and somebody who may
//! manage it. While the database is away, a process that serves goes on from its last good snapshot instead
//! ([`open_to_serve`]), and [`catch_up`] does what was left out when there is a database again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;
use url::Url;
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
use crate::secrets::sealing::Sealer;
use crate::secrets::source::Wait;
use crate::secrets::source::vault::VaultSource;
use crate::snapshot::file::{Seal, SnapshotFile};
use crate::snapshot::{Moment, Rules, Snapshot};
use crate::store::{Store, StoreError, StoreOptions, is_outage, within};

/// Connections to the embedded database: one writes, and each costs a thread and a page cache.
const MAX_SQLITE_CONNECTIONS: u32 = 3;

/// What the snapshot is sealed for.
const SNAPSHOT_PURPOSE: &str = "snapshot";
/// How often a database is tried that was away at the start.
const CATCH_UP_EVERY: Duration = Duration::from_secs(1);
/// How long each of these tries waits for it to answer at all.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(5);

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
    /// The last good snapshot.
    pub snapshot: LastGood,
}

/// The last good snapshot of a process, and what it was good for.
#[derive(Clone)]
pub struct LastGood {
    /// What is known.
    pub snapshot: Arc<Snapshot>,
    /// Where it is kept; `None`: nowhere.
    pub file: Option<SnapshotFile>,
    /// Whether the start goes on from it, because the database is away.
    pub is_start: bool,
}

impl LastGood {
    /// There is none, and none is made.
    pub fn none() -> Self {
        Self {
            snapshot: Arc::new(Snapshot::off()),
            file: None,
            is_start: false,
        }
    }
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
        lazy: false,
    }
}

/// Opens the database, brings its schema up to date, checks the master key and sets up what is missing. Doing it again
/// changes nothing.
///
/// # Errors
/// See [`OpenError`].
pub async fn open(settings: &Settings, master_key: &MasterKeyInput) -> Result<Opened, OpenError> {
    let options = store_options(settings);
    prepare_data_dir(&options, &settings.data.dir)?;
    let master_key = find_master_key(settings, &options, master_key).await?;
    let store = Store::connect(&options).await?;
    set_up(settings, store, master_key, LastGood::none()).await
}

/// The same for a process that serves: if the database is away and there is a snapshot that may be used, from that.
///
/// # Errors
/// See [`OpenError`]. A database that refuses us is no database that is away.
pub async fn open_to_serve(settings: &Settings, master_key: &MasterKeyInput) -> Result<Opened, OpenError> {
    let options = store_options(settings);
    prepare_data_dir(&options, &settings.data.dir)?;
    let master_key = find_master_key(settings, &options, master_key).await?;
    let last_good = last_good(settings, &options, &master_key).await;
    if !last_good.snapshot.can_start(Instant::now()) {
        let store = Store::connect(&options).await?;
        return set_up(settings, store, master_key, last_good).await;
    }
    // Only whether it is there has to be known soon; bringing its schema up to date may take as long as it takes.
    let limit = settings.snapshot.start_wait;
    let reached = within(limit, async {
        let store = Store::connect(&options).await?;
        match store.is_behind().await {
            Err(error) if is_outage(&error) => Err(error),
            // A database without any schema says that it has no table of its steps.
            behind => Ok((store, behind.unwrap_or(true))),
        }
    });
    let error = match reached.await {
        Ok((store, behind)) => {
            let set_up = set_up(settings, store, master_key.clone(), last_good.clone());
            // Without steps these are a few questions, and a database that is too slow for them is as good as away.
            let set_up = match behind {
                true => set_up.await,
                false => within(limit, set_up).await,
            };
            match set_up {
                Err(OpenError::Store(error)) if is_outage(&error) => error,
                opened => return opened,
            }
        }
        Err(error) if is_outage(&error) => error,
        Err(error) => return Err(error.into()),
    };
    let age_s = last_good.snapshot.age(Instant::now()).as_secs();
    tracing::error!(
        %error, age_s, keys = last_good.snapshot.known_keys(),
        "the database cannot be reached; starting from the last good snapshot"
    );
    last_good.snapshot.lost();
    Ok(Opened {
        store: Store::connect(&StoreOptions { lazy: true, ..options }).await?,
        master_key,
        first_key: None,
        first_owner: None,
        snapshot: LastGood {
            is_start: true,
            ..last_good
        },
    })
}

/// Brings the schema of a database up to date that was away at the start, and checks that it is ours, as soon as it is
/// there. What a very first start makes is not made here: nobody would be shown it.
///
/// # Errors
/// It is there, and belongs to another master key.
pub async fn catch_up(store: &Store, master_key: &MasterKey) -> Result<(), OpenError> {
    loop {
        let caught_up = async {
            within(CATCH_UP_PATIENCE, store.ping()).await?;
            store.migrate().await?;
            check_master_key(store, master_key).await
        };
        match caught_up.await {
            Ok(()) => {
                tracing::info!("the database is there, and its schema is up to date");
                return Ok(());
            }
            Err(error @ OpenError::WrongMasterKey) => return Err(error),
            Err(error) => tracing::debug!(%error, "the database is still away"),
        }
        tokio::time::sleep(CATCH_UP_EVERY).await;
    }
}

async fn find_master_key(
    settings: &Settings,
    options: &StoreOptions,
    given: &MasterKeyInput,
) -> Result<MasterKey, OpenError> {
    let in_vault = master_key_in_vault(settings, given).await?;
    let in_vault = in_vault
        .as_ref()
        .map(|(key, place)| (key.expose_secret(), place.as_str()));
    let sources = MasterKeySources {
        value: given.value.as_deref(),
        file: given.file.as_deref(),
        vault: in_vault,
        generate_in: options.is_sqlite().then_some(settings.data.dir.as_path()),
    };
    Ok(MasterKey::find(&sources)?)
}

async fn check_master_key(store: &Store, master_key: &MasterKey) -> Result<(), OpenError> {
    let ours = master_key.check_value();
    match store.remember("master_key_check", &ours).await? == ours {
        true => Ok(()),
        false => Err(OpenError::WrongMasterKey),
    }
}

/// Sets up what is missing in a database.
async fn set_up(
    settings: &Settings,
    store: Store,
    master_key: MasterKey,
    snapshot: LastGood,
) -> Result<Opened, OpenError> {
    store.migrate().await?;
    check_master_key(&store, &master_key).await?;
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
            max_output_tokens: None,
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
        snapshot,
    })
}

/// The snapshot that an earlier process left, as far as it may be used.
async fn last_good(settings: &Settings, options: &StoreOptions, master_key: &MasterKey) -> LastGood {
    let snapshot = &settings.snapshot;
    let rules = Rules {
        max_age: snapshot.max_age,
        write: snapshot.write,
        // The embedded database is on the same disk.
        max_keys: if options.is_sqlite() { 0 } else { snapshot.max_keys },
        // The local store of credentials too.
        credentials: snapshot.credentials && settings.vault.address.is_some(),
    };
    if !snapshot.enabled || (rules.max_keys == 0 && !rules.credentials) {
        return LastGood::none();
    }
    let seal = SnapshotSeal {
        sealer: Sealer::new(master_key, SNAPSHOT_PURPOSE),
        place: place_of(&options.url),
    };
    let file = SnapshotFile::new(&settings.data.dir, Arc::new(seal));
    let snapshot = Arc::new(Snapshot::new(rules));
    let reading = file.clone();
    let read = tokio::task::spawn_blocking(move || reading.read()).await;
    let not_used = match read {
        Ok(Ok(Some(bytes))) => snapshot
            .take_over(&bytes, Moment::now())
            .err()
            .map(|why| why.to_string()),
        Ok(Ok(None)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(why) = not_used {
        let path = file.path().display().to_string();
        tracing::warn!(path, why, "the last good snapshot is not used");
    }
    LastGood {
        snapshot,
        file: Some(file),
        is_start: false,
    }
}

/// Seals a snapshot for the database it is a copy of.
struct SnapshotSeal {
    sealer: Sealer,
    place: Vec<u8>,
}

impl Seal for SnapshotSeal {
    fn seal(&self, plain: &[u8]) -> Vec<u8> {
        self.sealer.seal(&self.place, plain)
    }

    fn open(&self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.sealer.open(&self.place, sealed).ok().map(Zeroizing::new)
    }
}

/// Where a database is, without how one gets in: a password may change.
fn place_of(url: &str) -> Vec<u8> {
    let place = match Url::parse(url) {
        Ok(url) if url.has_host() => format!(
            "{}:{}{}",
            url.host_str().unwrap_or_default(),
            url.port().unwrap_or_default(),
            url.path()
        ),
        _ => "embedded".to_owned(),
    };
    place.into_bytes()
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
    let store = Store::connect(&options).await?;
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
