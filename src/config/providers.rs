//! Which providers there are, and everything needed to call each of them.
//!
//! A provider exists because `[providers.<id>]` says so, because the secret store has a credential for it, or because
//! the variables that usually configure it are set (OPENAI_API_KEY and the like). Where they say different things the
//! file is followed first, then the store, and the usual variables fill what both leave out. `form` has that rule; one
//! file each has what is particular to a provider and to the compatible endpoints; `hosts` knows which host serves a
//! region, `google` reads Google's credential files, and `deployments` has the models and prices people write themselves.
//!
//! Nothing here knows a provider's wire format or whether a credential works.

mod anthropic;
mod aws;
mod azure;
mod compatible;
mod deployments;
mod form;
mod gcp;
mod gemini;
mod google;
mod hosts;
mod openai;
mod own;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use http::Uri;
use secrecy::SecretString;
use toml::{Table, Value};

use super::faults::Fault;
#[cfg(test)]
use super::faults::Faults;
use super::layers::{ProviderTables, join, type_name};
use super::stored::{CredentialPath, Fields, Stored};
use super::{Environment, KnownDialect, ReadFile, checks, read_secret_file};
use form::Form;

pub use aws::{AwsAuth, AwsKeys, AwsRole, AwsSource, ContainerToken};
pub use deployments::{
    DeploymentMode, DeploymentSettings, KEYS as DEPLOYMENT_KEYS, OwnPrice, read_one as read_deployment,
};
pub use google::{
    AuthorizedUser, AwsIdentity, ExternalAccount, GcpAuth, GoogleCredentials, Impersonation, ServiceAccountKey,
    SubjectFormat, SubjectSource, WrittenBy,
};
pub use own::{ORIGIN_FIELD, OwnEndpoint, OwnFault, origin_of};

/// Providers that may be asked for in a store that does not tell what it has.
const WELL_KNOWN: [&str; 6] = ["anthropic", "aws", "azure", "gcp", "gemini", "openai"];
/// Other names of providers, and the id each stands for.
const SYNONYMS: [(&str, &str); 2] = [("bedrock", "aws"), ("vertex", "gcp")];
/// Providers with a [`ProviderKind`] of their own; every other id is a compatible endpoint.
const NATIVE: [&str; 7] = ["anthropic", "aws", "azure", "echo", "gcp", "gemini", "openai"];
/// The provider that needs no credential, because it is built in.
const ECHO: &str = "echo";
/// The longest provider id, in characters.
const MAX_ID_CHARS: usize = 32;
/// What every provider may set.
const COMMON_KEYS: [&str; 4] = ["enabled", "unlisted_models", "deployments", "max_concurrent"];

/// One provider, ready to be called.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// As in scopes, headers, logs and metrics: `[a-z0-9][a-z0-9_-]{0,31}`.
    pub id: String,
    /// Whether requests may use it.
    pub enabled: bool,
    /// Who asked for it.
    pub origin: Origin,
    /// How it is called with the first of its credentials.
    pub kind: ProviderKind,
    /// Every credential there is for it, shared ones first. Never empty.
    pub credentials: Vec<CredentialSettings>,
    /// What becomes of models that no deployment lists.
    pub unlisted_models: Unlisted,
    /// The models that were written down for it.
    pub deployments: Vec<DeploymentSettings>,
}

/// One credential of a provider, and how the provider is called with it.
#[derive(Debug, Clone)]
pub struct CredentialSettings {
    /// Where it is, or would be, in the secret store: its name.
    pub path: CredentialPath,
    /// How much of the traffic it takes beside the provider's others; 0: only what they cannot.
    pub weight: u32,
    /// How many requests may be under way with it; `None`: any number.
    pub max_concurrent: Option<u32>,
    /// How requests are made with it.
    pub kind: ProviderKind,
    /// Alike as long as nothing about it changes.
    pub fingerprint: Fingerprint,
}

/// Tells whether two readings of a credential are alike. Its `Debug` form says nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint")
    }
}

/// Why a provider exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The defaults have it.
    Default,
    /// The secret store has a credential for it.
    Secrets,
    /// These variables configured it by themselves.
    Environment(Vec<&'static str>),
    /// The configuration file mentions it.
    File,
    /// Only the command line mentions it.
    CommandLine,
}

/// How a provider is called. URLs are `http` or `https`, with a host, and without user, query or last slash.
#[derive(Debug, Clone)]
pub enum ProviderKind {
    /// The built-in one that answers by itself.
    Echo,
    /// OpenAI.
    OpenAi {
        /// With its `/v1`.
        base_url: Uri,
        /// The bearer token.
        api_key: SecretString,
        /// For the header `OpenAI-Organization`.
        organization: Option<String>,
        /// For the header `OpenAI-Project`.
        project: Option<String>,
    },
    /// Azure OpenAI.
    Azure {
        /// The resource, without `/openai`.
        base_url: Uri,
        /// Which of its two URL shapes.
        surface: AzureSurface,
        /// How requests are signed.
        auth: AzureAuth,
    },
    /// Anthropic.
    Anthropic {
        /// Without its `/v1`.
        base_url: Uri,
        /// For the header `x-api-key`.
        api_key: SecretString,
    },
    /// Amazon Bedrock.
    Aws {
        /// Its runtime.
        base_url: Uri,
        /// Part of every signature.
        region: String,
        /// How requests are authorized.
        auth: AwsAuth,
        /// AWS's token service, for roles.
        sts_url: Uri,
    },
    /// Vertex AI.
    Gcp {
        /// Without its `/v1`.
        base_url: Uri,
        /// Part of every path.
        project_id: String,
        /// Part of every path: a region, `us`, `eu` or `global`.
        location: String,
        /// How requests are authorized.
        auth: GcpAuth,
    },
    /// The Gemini Developer API.
    Gemini {
        /// Without its `/v1beta`.
        base_url: Uri,
        /// For the header `x-goog-api-key`.
        api_key: SecretString,
    },
    /// Any endpoint that speaks OpenAI's format.
    Compatible {
        /// What paths are appended to.
        base_url: Uri,
        /// One of the known dialects.
        dialect: String,
        /// Local endpoints may have none.
        api_key: Option<SecretString>,
        /// Whether an organization chose the address, so that it is connected to only where a stranger's may be.
        guarded: bool,
    },
}

impl ProviderKind {
    /// The region of AWS, or the location of Google, that is asked.
    pub fn region(&self) -> Option<&str> {
        match self {
            Self::Aws { region, .. } => Some(region),
            Self::Gcp { location, .. } => Some(location),
            Self::Echo
            | Self::OpenAi { .. }
            | Self::Azure { .. }
            | Self::Anthropic { .. }
            | Self::Gemini { .. }
            | Self::Compatible { .. } => None,
        }
    }
}

/// The URL shape of Azure OpenAI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AzureSurface {
    /// `/openai/v1/…`, the deployment in the body.
    V1,
    /// `/openai/deployments/{deployment}/…?api-version=…`.
    Deployments {
        /// `YYYY-MM-DD`, perhaps with `-preview`.
        api_version: String,
    },
}

/// How requests to Azure OpenAI are signed: one way, because sending both is ambiguous.
#[derive(Debug, Clone)]
pub enum AzureAuth {
    /// The resource's key.
    ApiKey(SecretString),
    /// Tokens of Entra ID for an application.
    ClientCredentials {
        /// The directory: an id or a domain.
        tenant_id: String,
        /// The application.
        client_id: String,
        /// The application's secret.
        client_secret: SecretString,
        /// What the token is for.
        scope: String,
        /// Where tokens come from.
        authority: Uri,
    },
    /// Tokens of Entra ID for an application that a Kubernetes service account stands for.
    WorkloadIdentity {
        /// The directory: an id or a domain.
        tenant_id: String,
        /// The application.
        client_id: String,
        /// Holds the service account's token; read again for each exchange, because it is renewed.
        token_file: PathBuf,
        /// What the token is for.
        scope: String,
        /// Where tokens come from.
        authority: Uri,
    },
    /// Tokens of the identity that Azure gave the machine or the container.
    ManagedIdentity {
        /// Who hands them out.
        service: IdentityService,
        /// Which identity, where there are several.
        client_id: Option<String>,
        /// What the token is for.
        resource: String,
    },
}

/// Who hands out the tokens of a managed identity.
#[derive(Debug, Clone)]
pub enum IdentityService {
    /// The metadata service of a virtual machine.
    Machine {
        /// Its address.
        url: Uri,
    },
    /// The endpoint of App Service and Container Apps.
    App {
        /// Its address.
        url: Uri,
        /// What the question carries.
        header: SecretString,
    },
}

/// What becomes of a request for a model that no deployment of a provider lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlisted {
    /// The provider is not asked.
    Refuse,
    /// The name is passed on as it is.
    Forward,
}

/// What providers are read against, besides their tables.
pub(super) struct Surroundings<'a> {
    pub environment: &'a Environment<'a>,
    pub dialects: &'a [KnownDialect],
    pub read_file: &'a ReadFile<'a>,
    /// What the secret store holds.
    pub stored: &'a Stored,
}

/// What came of reading the providers.
#[derive(Debug, Default)]
pub struct Reading {
    /// Those that can be used, in the order of their ids.
    pub providers: Vec<ProviderSettings>,
    /// How organizations' own endpoints are called: each with one of its credentials, or with none.
    pub own: Vec<CredentialSettings>,
    /// What is wrong, and with what.
    pub problems: Vec<Problem>,
    /// What works but is probably not what was meant.
    pub warnings: Vec<String>,
}

/// Something that keeps a provider or one of its credentials from being used.
#[derive(Debug)]
pub struct Problem {
    /// The credential; `None` where the provider's table is at fault, or no provider at all.
    pub credential: Option<CredentialPath>,
    /// Whether a credential is missing, as opposed to something being wrong.
    pub missing: bool,
    /// Where and what.
    pub fault: Fault,
}

/// Reads the providers again when the secret store has something new. The configuration itself stays as it was at the
/// start, but for the files it names credentials in: those may have been replaced too.
#[derive(Clone, Default)]
pub struct ProviderReader(Arc<ReadAgain>);

#[derive(Default)]
struct ReadAgain {
    tables: ProviderTables,
    env: Vec<(String, String)>,
    dialects: Vec<KnownDialect>,
}

impl ProviderReader {
    pub(super) fn new(tables: ProviderTables, env: Vec<(String, String)>, dialects: &[KnownDialect]) -> Self {
        Self(Arc::new(ReadAgain {
            tables,
            env,
            dialects: dialects.to_vec(),
        }))
    }

    /// The providers with what the store holds now, and organizations' own endpoints.
    ///
    /// A credential of an organization at an endpoint of its own is that endpoint's alone. One that was entered for an
    /// endpoint which is not there any more is left alone: it goes nowhere.
    pub fn read(&self, stored: &Stored, endpoints: &[OwnEndpoint]) -> Reading {
        let (own, stored) = own::split(stored, endpoints);
        let mut reading = self.read_shared(&stored);
        reading.own = own;
        reading
    }

    /// What keeps an id from being that of an organization's own endpoint, and a dialect from being one.
    pub fn fault_of_own(&self, id: &str, dialect: &str) -> Option<own::OwnFault> {
        own::fault(id, dialect, &self.0.dialects)
    }

    fn read_shared(&self, stored: &Stored) -> Reading {
        let surroundings = Surroundings {
            environment: &Environment::new(&self.0.env),
            dialects: &self.0.dialects,
            read_file: &read_secret_file,
            stored,
        };
        read(&self.0.tables, &surroundings)
    }

    /// Providers that may be asked for in a store that does not tell what it has.
    pub fn expected(&self) -> Vec<String> {
        let tables = [&self.0.tables.file, &self.0.tables.command_line];
        let written = tables.into_iter().flat_map(|table| table.keys().map(String::as_str));
        let ids: BTreeSet<&str> = written.map(canonical).chain(WELL_KNOWN).collect();
        ids.into_iter()
            .filter(|id| *id != ECHO && CredentialPath::is_part(id))
            .map(ToOwned::to_owned)
            .collect()
    }
}

impl fmt::Debug for ProviderReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProviderReader")
    }
}

/// All providers of `tables`, of the secret store and of the environment.
pub(super) fn read(tables: &ProviderTables, surroundings: &Surroundings<'_>) -> Reading {
    let mut reading = Reading::default();
    let mentioned = gather(tables, &mut reading);

    // A variable that a table names or was filled from is spoken for: it does not make a second provider by itself.
    let mut claimed = BTreeSet::new();
    for (id, mention) in &mentioned {
        if let Some(fault) = wrong_id(id, &mention.path) {
            reading.problem(None, false, fault);
            continue;
        }
        let written = Written {
            id,
            path: mention.path.clone(),
            table: &mention.table,
            origin: Some(mention.origin.clone()),
        };
        claimed.extend(read_one(&written, surroundings, &mut reading));
    }
    let nothing = Table::new();
    let stored: BTreeSet<&str> = surroundings.stored.providers().map(canonical).collect();
    for id in stored.iter().copied().filter(|id| !mentioned.contains_key(*id)) {
        let place = CredentialPath::shared(id).to_string();
        if let Some(fault) = wrong_id(id, &place) {
            reading.problem(Some(CredentialPath::shared(id)), false, fault);
            continue;
        }
        let written = Written {
            id,
            path: join("providers", id),
            table: &nothing,
            origin: Some(Origin::Secrets),
        };
        claimed.extend(read_one(&written, surroundings, &mut reading));
    }
    for (id, triggers) in usual_providers(surroundings.dialects) {
        let fires = |trigger: &&str| !claimed.contains(*trigger) && surroundings.environment.get(trigger).is_some();
        let made = |provider: &ProviderSettings| provider.id == id;
        if mentioned.contains_key(id)
            || stored.contains(id)
            || !triggers.iter().all(fires)
            || reading.providers.iter().any(made)
        {
            continue;
        }
        let written = Written {
            id,
            path: join("providers", id),
            table: &nothing,
            origin: None,
        };
        claimed.extend(read_one(&written, surroundings, &mut reading));
    }
    if surroundings.environment.get(azure::API_KEY_VARIABLE).is_some()
        && !mentioned.contains_key("azure")
        && !stored.contains("azure")
        && !claimed.contains(azure::API_KEY_VARIABLE)
    {
        reading.warnings.push(format!(
            "{} is set but {} is not, so Azure is not used",
            azure::API_KEY_VARIABLE,
            azure::ENDPOINT_VARIABLE
        ));
    }

    reading.providers.sort_by(|a, b| a.id.cmp(&b.id));
    reading
}

impl Reading {
    fn problem(&mut self, credential: Option<CredentialPath>, missing: bool, fault: Fault) {
        self.problems.push(Problem {
            credential,
            missing,
            fault,
        });
    }
}

/// A provider's table, laid over each other from the sources that mention it.
struct Mention {
    /// The strongest of them, but for the command line, which only changes what another one asked for.
    origin: Origin,
    /// `providers.<name>`, as it is written.
    path: String,
    table: Table,
}

/// One provider as it is written, or not written.
struct Written<'a> {
    id: &'a str,
    /// `providers.<name>`, as it is written.
    path: String,
    table: &'a Table,
    /// Who mentions it; `None` when variables alone configure it.
    origin: Option<Origin>,
}

/// The id a name stands for.
fn canonical(name: &str) -> &str {
    SYNONYMS
        .iter()
        .find(|(synonym, _)| *synonym == name)
        .map_or(name, |(_, id)| id)
}

/// Providers that variables configure by themselves, and the variables that must all be set for it.
///
/// What is found on many machines for other purposes is not enough: a region alone is not Bedrock, and access keys
/// alone are not either.
fn usual_providers(dialects: &[KnownDialect]) -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    let keys_in = |region| vec![aws::ACCESS_KEY_VARIABLE, aws::SECRET_KEY_VARIABLE, region];
    let native = [
        ("openai", vec![openai::API_KEY_VARIABLE]),
        ("azure", vec![azure::ENDPOINT_VARIABLE]),
        ("anthropic", vec![anthropic::API_KEY_VARIABLE]),
        ("aws", vec![aws::BEARER_VARIABLE]),
        ("aws", keys_in(aws::REGION_VARIABLES[0])),
        ("aws", keys_in(aws::REGION_VARIABLES[1])),
        ("gcp", vec![gcp::CREDENTIALS_VARIABLE, gcp::LOCATION_VARIABLE]),
        ("gemini", vec![gemini::API_KEY_VARIABLE]),
    ];
    let compatible = dialects.iter().filter_map(|dialect| {
        let usable = !NATIVE.contains(&dialect.name) && wrong_id(dialect.name, dialect.name).is_none();
        Some((dialect.name, vec![dialect.api_key_variable?])).filter(|_| usable)
    });
    native.into_iter().chain(compatible)
}

/// The providers' tables by id.
fn gather(tables: &ProviderTables, reading: &mut Reading) -> BTreeMap<String, Mention> {
    let mut gathered: BTreeMap<String, Mention> = BTreeMap::new();
    let sources = [
        (Origin::Default, &tables.default),
        (Origin::File, &tables.file),
        (Origin::CommandLine, &tables.command_line),
    ];
    for (origin, source) in sources {
        let mut names: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, value) in source {
            let path = join("providers", name);
            let Value::Table(table) = value else {
                let problem = format!("must be a table, not {}", type_name(value));
                reading.problem(None, false, Fault::new(path, problem));
                continue;
            };
            let id = canonical(name);
            if let Some(other) = names.insert(id, name) {
                let other = join("providers", other);
                let fault = Fault::new(path, format!("is the same provider as {other}"));
                reading.problem(None, false, fault);
                continue;
            }
            let mention = gathered.entry(id.to_owned()).or_insert_with(|| Mention {
                origin: origin.clone(),
                path: path.clone(),
                table: Table::new(),
            });
            mention.table.extend(table.clone());
            if origin == Origin::File {
                mention.origin = Origin::File;
                mention.path = path;
            }
        }
    }
    gathered
}

/// What is wrong with `id`, at the place where it is written.
fn wrong_id(id: &str, at: &str) -> Option<Fault> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good = id.starts_with(plain)
        && id.chars().count() <= MAX_ID_CHARS
        && id.chars().all(|c| plain(c) || c == '_' || c == '-');
    (!good).then(|| {
        Fault::new(at, "is not a provider id").hint(format!(
            "use at most {MAX_ID_CHARS} lower-case letters, digits, _ and -, a letter or digit first"
        ))
    })
}

/// How a provider is called, and the keys of its own that its table may have.
fn kind_of(id: &str, form: &mut Form<'_>) -> (Option<ProviderKind>, &'static [&'static str]) {
    match id {
        ECHO => (Some(ProviderKind::Echo), &[]),
        "openai" => (openai::read(form), &openai::KEYS),
        "azure" => (azure::read(form), &azure::KEYS),
        "anthropic" => (anthropic::read(form), &anthropic::KEYS),
        "aws" => (aws::read(form), &aws::KEYS),
        "gcp" => (gcp::read(form), &gcp::KEYS),
        "gemini" => (gemini::read(form), &gemini::KEYS),
        _ => (compatible::read(id, form), &compatible::KEYS),
    }
}

/// Reads one provider with all its credentials, unless it is at fault or disabled without being complete. Answers the
/// variables it claims.
fn read_one(written: &Written<'_>, surroundings: &Surroundings<'_>, reading: &mut Reading) -> BTreeSet<String> {
    let id = written.id;
    let own = CredentialPath::shared(id);
    let stored = |path: &CredentialPath| path.organization.is_none() && path.name.is_none();
    let mut form = Form::new(written.path.clone(), written.table, surroundings);
    let (at_the_root, others): (Vec<_>, Vec<_>) =
        stored_for(id, surroundings.stored).partition(|(path, _)| stored(path));
    if let Some((path, fields)) = at_the_root.first() {
        form = form.with_stored(fields, path.to_string());
    }

    let enabled = form.flag("enabled").unwrap_or(true);
    let (kind, keys) = kind_of(id, &mut form);
    let usual = if id == "azure" {
        &azure::DEPLOYMENT_VARIABLES[..]
    } else {
        &[]
    };
    let (weight, max_concurrent) = (form.weight(), form.max_concurrent());
    let fingerprint = Fingerprint(form.fingerprint());
    let deployments = deployments::read(&mut form, usual);
    let whole = form.faults.is_empty() && form.missing.is_empty();
    let mut credentials: Vec<CredentialSettings> = kind
        .filter(|_| whole)
        .map(|kind| CredentialSettings {
            path: own.clone(),
            weight,
            max_concurrent,
            kind,
            fingerprint,
        })
        .into_iter()
        .collect();
    for (path, fields) in others {
        credentials.extend(read_further(written, path, fields, surroundings, reading));
    }
    let kind = credentials.first().map(|credential| credential.kind.clone());

    let compatible = matches!(kind, Some(ProviderKind::Compatible { .. }));
    let by_default = if compatible && deployments.is_empty() {
        Unlisted::Forward
    } else {
        Unlisted::Refuse
    };
    let unlisted_models = unlisted(&mut form).unwrap_or(by_default);
    form.refuse_unknown(&[&COMMON_KEYS, keys]);
    form.warn_of_unread_fields();

    if enabled && (id == "azure" || compatible) && deployments.is_empty() && unlisted_models == Unlisted::Refuse {
        form.warnings.push(format!(
            "{}: it has no deployments and refuses unlisted models, so at most the models of the built-in catalogue \
             reach it, under the catalogue's names; add [[providers.{id}.deployments]], or write \
             unlisted_models = \"forward\"",
            form.path
        ));
    }

    let sound = form.faults.is_empty();
    let credential = (!at_the_root.is_empty()).then(|| own.clone());
    let place = at_the_root
        .first()
        .map(|(path, _)| path.to_string())
        .unwrap_or_default();
    for fault in form.faults {
        reading.problem(credential.clone(), false, fault);
    }
    reading.warnings.append(&mut form.warnings);
    let missing: Vec<String> = form.missing.iter().map(Fault::to_string).collect();
    if !enabled && !missing.is_empty() {
        // Disabling a provider is also how one gets past its missing credential.
        reading.warnings.push(format!(
            "{} is disabled and left out: {}",
            form.path,
            missing.join("; ")
        ));
    } else if credentials.is_empty() || credential.is_some() {
        for fault in form.missing {
            reading.problem(credential.clone(), true, fault.under(&place));
        }
    } else if written.table.keys().any(|key| form::points_to_a_credential(key)) {
        // The others serve, but what the table points to was meant to serve too.
        reading.warnings.extend(missing);
    }
    let mut claimed = form.named_variables;
    claimed.extend(form.used_variables.iter().map(|name| (*name).to_owned()));

    if let Some(kind) = kind.filter(|_| sound) {
        reading.providers.push(ProviderSettings {
            id: id.to_owned(),
            enabled,
            origin: written
                .origin
                .clone()
                .unwrap_or(Origin::Environment(form.used_variables)),
            kind,
            credentials,
            unlisted_models,
            deployments,
        });
    }
    claimed
}

/// What the store has for a provider, under its id or another name of it.
fn stored_for<'a>(id: &'a str, stored: &'a Stored) -> impl Iterator<Item = (CredentialPath, &'a Fields)> {
    let synonyms = SYNONYMS.iter().filter(move |(_, of)| *of == id).map(|(name, _)| *name);
    std::iter::once(id)
        .chain(synonyms)
        .flat_map(|name| stored.of(name))
        .map(move |(path, fields)| {
            let path = CredentialPath {
                provider: id.to_owned(),
                ..path.clone()
            };
            (path, fields)
        })
}

/// A further credential of a provider: a named one, or an organization's own.
///
/// The provider's table holds for it too, but for where the table finds the provider's own credential. Variables are not
/// asked for an organization's credential: it must not travel to an address, or be completed by a value, that was meant
/// for the shared one.
fn read_further(
    written: &Written<'_>,
    path: CredentialPath,
    fields: &Fields,
    surroundings: &Surroundings<'_>,
    reading: &mut Reading,
) -> Option<CredentialSettings> {
    let mut table = written.table.clone();
    table.retain(|key, _| !form::points_to_a_credential(key));
    let empty = Environment::default();
    let environment = if path.organization.is_some() {
        &empty
    } else {
        surroundings.environment
    };
    let surroundings = Surroundings {
        environment,
        ..*surroundings
    };
    let mut form = Form::new(written.path.clone(), &table, &surroundings).with_stored(fields, path.to_string());
    let (kind, _) = kind_of(written.id, &mut form);
    let (weight, max_concurrent) = (form.weight(), form.max_concurrent());
    let fingerprint = Fingerprint(form.fingerprint());
    form.warn_of_unread_fields();
    for warning in form.warnings {
        if !reading.warnings.contains(&warning) {
            reading.warnings.push(warning);
        }
    }
    let whole = form.faults.is_empty() && form.missing.is_empty();
    let faults = form.faults.into_iter().map(|fault| (false, fault));
    for (missing, fault) in faults.chain(form.missing.into_iter().map(|fault| (true, fault))) {
        // The table's own place says nothing about which of its credentials is meant.
        let fault = fault.under(&path.to_string());
        reading.problem(Some(path.clone()), missing, fault);
    }
    kind.filter(|_| whole).map(|kind| CredentialSettings {
        path,
        weight,
        max_concurrent,
        kind,
        fingerprint,
    })
}

fn unlisted(form: &mut Form<'_>) -> Option<Unlisted> {
    let found = form.text("unlisted_models", &[])?;
    match found.value.as_str() {
        "refuse" => Some(Unlisted::Refuse),
        "forward" => Some(Unlisted::Forward),
        other => {
            let problem = format!("{} is neither refuse nor forward", checks::shown(other));
            form.faults.push(Fault::new(found.at, problem));
            None
        }
    }
}

#[cfg(test)]
mod tests;
