//! The settings of one process: read from their layers, checked, and given types.
//!
//! Start with [`load`]: it lays the sources over each other (`layers`), gives every setting its type and range
//! (`settings`, through `reader`), resolves the providers (`providers`), and answers either settings that can be used
//! as they are or every fault at once. It is pure but for the files that hold keys: the process's environment and the
//! configuration file are read in [`Sources::from_process`] and nowhere else, so a test states its own.
//!
//! It opens no connection and knows no provider's format; the names of the OpenAI-compatible dialects are handed in.
//! What organizations change at run time (routing, budgets, prices) lives in the database, not here.

mod aliases;
mod checks;
mod faults;
mod layers;
mod people;
mod providers;
mod reader;
mod settings;
mod stored;
mod tracing;
mod vault;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fmt, io};

pub use checks::base_url;
pub use faults::{Fault, Faults, did_you_mean};
pub use people::{AuthSettings, OidcSettings};
pub use providers::{
    AuthorizedUser, AwsAuth, AwsIdentity, AwsKeys, AwsRole, AwsSource, AzureAuth, AzureSurface, ContainerToken,
    CredentialSettings, DEPLOYMENT_KEYS, DeploymentMode, DeploymentSettings, ExternalAccount, Fingerprint, GcpAuth,
    GoogleCredentials, IdentityService, Impersonation, ORIGIN_FIELD, Origin, OwnEndpoint, OwnFault, OwnPrice, Problem,
    ProviderKind, ProviderReader, ProviderSettings, Reading, ServiceAccountKey, SubjectFormat, SubjectSource, Unlisted,
    WrittenBy, origin_of, read_deployment,
};
pub use settings::{
    DataSettings, DatabaseSettings, FailoverSettings, FetchSettings, HealthSettings, JournalSettings, KeysSettings,
    LedgerSettings, LimitsSettings, LogFormat, ModelTimeouts, OperationsSettings, ProbeBy, ProbeSettings,
    SecretsSettings, ServerSettings, Settings, SnapshotSettings, StreamSettings, SyncMode, TelemetrySettings, Timeouts,
    UpstreamSettings, UsageSettings,
};
pub use stored::{CredentialPath, Fields, Stored};
pub use tracing::{Propagation, Sampler, TracingSettings};
pub use vault::{KvVersion, VaultAuth, VaultLogin, VaultMount, VaultSettings};

/// `config/default.toml`: every setting with its default, its unit and the reason.
pub const DEFAULT_TOML: &str = include_str!("../../config/default.toml");

/// Names the configuration file when the command line does not.
const CONFIG_VARIABLE: &str = "BONITO_CONFIG";

/// The largest file that can hold a credential; anything longer is some other file, named by mistake.
const MAX_SECRET_FILE_BYTES: u64 = 64 * 1024;

/// Name of the encrypted local store in the data directory.
pub const LOCAL_STORE_FILE: &str = "credentials.sealed";

/// Everything a configuration is made from, besides the defaults.
///
/// `Debug` shows names only, because the environment holds keys.
#[derive(Clone, Default)]
pub struct Sources {
    /// The configuration file: its name, for messages, and its text.
    pub file: Option<(PathBuf, String)>,
    /// The environment, as name and value. An empty value counts as unset.
    pub env: Vec<(String, String)>,
    /// Settings given on the command line, as dotted path and value; strongest of all.
    pub overrides: Vec<(String, String)>,
}

/// An OpenAI-compatible dialect, as far as the configuration needs to know it.
#[derive(Debug, Clone, Copy)]
pub struct KnownDialect {
    /// What `dialect = "…"` says.
    pub name: &'static str,
    /// Where this vendor is reached, unless a `base_url` is written.
    pub base_url: Option<&'static str>,
    /// The variable that usually holds this vendor's key; set, it configures a provider with the dialect's name.
    pub api_key_variable: Option<&'static str>,
}

/// A configuration without faults.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings, ready to use.
    pub settings: Settings,
    /// What works but is probably not what was meant; for the log of a start and for `check-config`.
    pub warnings: Vec<String>,
}

/// Settings from `sources`, with `dialects` as the OpenAI-compatible endpoints this build knows.
///
/// Besides its arguments it reads only the files that `api_key_file` and `client_secret_file` name.
///
/// # Errors
/// Every fault there is, at once.
pub fn load(sources: &Sources, dialects: &[KnownDialect]) -> Result<Loaded, Faults> {
    load_with(sources, dialects, &read_secret_file)
}

/// [`load`] for the command that stores credentials: it must run before they are there, so none is missed.
///
/// # Errors
/// Every other fault there is, at once.
pub fn load_without_credentials(sources: &Sources, dialects: &[KnownDialect]) -> Result<Loaded, Faults> {
    load_missing(sources, dialects, &read_secret_file, true)
}

/// [`load`] with the reading of secrets' files handed in.
fn load_with(sources: &Sources, dialects: &[KnownDialect], read_file: &ReadFile<'_>) -> Result<Loaded, Faults> {
    load_missing(sources, dialects, read_file, false)
}

fn load_missing(
    sources: &Sources,
    dialects: &[KnownDialect],
    read_file: &ReadFile<'_>,
    credentials_may_be_missing: bool,
) -> Result<Loaded, Faults> {
    let mut faults = Faults::default();
    let mut warnings = Vec::new();
    let environment = Environment::new(&sources.env);

    let layers = layers::lay(sources, &environment, &mut faults);
    let mut settings = Settings::read(&layers, &mut faults);
    vault::read_login(&mut settings, &layers, &environment, &mut faults, &mut warnings);
    let surroundings = providers::Surroundings {
        environment: &environment,
        dialects,
        read_file,
        stored: &Stored::default(),
    };
    let reading = providers::read(&layers.providers, &surroundings);
    settings.providers = reading.providers;
    warnings.extend(reading.warnings);
    // What is missing here may be in the secret store, which is asked later.
    let store_may_have_it = credentials_may_be_missing
        || settings.vault.address.is_some()
        || local_store_exists(&settings.data.dir, read_file);
    for problem in reading.problems {
        if !(problem.missing && store_may_have_it) {
            faults.push(problem.fault);
        }
    }
    settings.reader = ProviderReader::new(layers.providers, sources.env.clone(), dialects);

    if faults.is_empty() {
        Ok(Loaded { settings, warnings })
    } else {
        Err(faults)
    }
}

/// What differs between two configurations without faults and takes effect only after a restart, as dotted paths: every
/// setting but the providers, the models' times and the aliases.
pub fn needs_restart(before: &Sources, now: &Sources) -> Vec<String> {
    let [before, now] = [before, now].map(|sources| {
        let environment = Environment::new(&sources.env);
        layers::lay(sources, &environment, &mut Faults::default()).leaves
    });
    let differs = |path: &&String| before.get(*path).map(|leaf| &leaf.value) != now.get(*path).map(|leaf| &leaf.value);
    now.keys().filter(differs).cloned().collect()
}

impl Sources {
    /// The sources of this process: its environment, and the file named by `config_flag` or else by `BONITO_CONFIG`.
    ///
    /// `overrides` is left empty; the command line fills it.
    ///
    /// # Errors
    /// The file cannot be read, or a variable of ours is not text.
    pub fn from_process(config_flag: Option<PathBuf>) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let mut env = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            // A value that is not text may be a path mangled beyond use, so ours are refused. A key that is not text
            // is kept in mangled form: the check of what a header can carry names the variable if a provider uses it.
            if value.to_str().is_none() && (name.starts_with(layers::PREFIX) || name == layers::DATABASE_VARIABLE) {
                faults.push(Fault::new(name, "its value is not UTF-8 text"));
                continue;
            }
            env.push((name, value.to_string_lossy().into_owned()));
        }

        let from_flag = config_flag.map(|path| (path, "--config"));
        let named = from_flag.or_else(|| {
            let path = Environment::new(&env).get(CONFIG_VARIABLE)?;
            Some((PathBuf::from(path), CONFIG_VARIABLE))
        });
        let mut file = None;
        if let Some((path, named_by)) = named {
            match std::fs::read_to_string(&path) {
                Ok(text) => file = Some((path, text)),
                Err(error) => faults.push(
                    Fault::new(
                        path.display().to_string(),
                        format!("the configuration file cannot be read: {error}"),
                    )
                    .hint(format!("it was named by {named_by}")),
                ),
            }
        }

        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self {
            file,
            env,
            overrides: Vec::new(),
        })
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            |pairs: &[(String, String)]| -> Vec<String> { pairs.iter().map(|(name, _)| name.clone()).collect() };
        f.debug_struct("Sources")
            .field("file", &self.file.as_ref().map(|(path, _)| path))
            .field("env", &names(&self.env))
            .field("overrides", &names(&self.overrides))
            .finish()
    }
}

/// How the file of a credential is read.
type ReadFile<'a> = dyn Fn(&Path) -> io::Result<String> + 'a;

/// The text of a file that holds a credential, refusing what is too long to be one.
fn read_secret_file(path: &Path) -> io::Result<String> {
    use io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_SECRET_FILE_BYTES + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MAX_SECRET_FILE_BYTES {
        return Err(io::Error::other("it is too long to be a credential"));
    }
    Ok(text)
}

/// Whether there is an encrypted local store in the data directory.
fn local_store_exists(dir: &Path, read_file: &ReadFile<'_>) -> bool {
    // Only that it is there matters; whether it can be read is found out by whoever has the key to it.
    match read_file(&dir.join(LOCAL_STORE_FILE)) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// The environment, where an empty variable is the same as none: that is how compose files and charts unset one.
#[derive(Default)]
struct Environment<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Environment<'a> {
    fn new(env: &'a [(String, String)]) -> Self {
        Self(
            env.iter()
                .filter(|(_, value)| !value.trim().is_empty())
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }

    fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + '_ {
        self.0.iter().map(|(name, value)| (*name, *value))
    }
}

#[cfg(test)]
mod tests;
