//! Which providers there are, and everything needed to call each of them.
//!
//! A provider exists because `[providers.<id>]` says so, or because the variables that usually configure it are set
//! (OPENAI_API_KEY and the like). The file is the more deliberate of the two: where it speaks, it is followed, and the
//! usual variables fill what it leaves out. `form` has that rule; one file each has what is particular to a provider
//! and to the compatible endpoints; `hosts` knows which host serves a region, `google` reads Google's credential files,
//! and `deployments` has the models and prices people write themselves.
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

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use http::Uri;
use secrecy::SecretString;
use toml::{Table, Value};

use super::faults::{Fault, Faults};
use super::layers::{ProviderTables, join, type_name};
use super::{Environment, KnownDialect, ReadFile, checks};
use form::Form;

pub use aws::{AwsAuth, AwsKeys, AwsRole, AwsSource, ContainerToken};
pub use deployments::{DeploymentMode, DeploymentSettings};
pub use google::{
    AuthorizedUser, ExternalAccount, GcpAuth, GoogleCredentials, Impersonation, ServiceAccountKey, SubjectFormat,
    SubjectSource, WrittenBy,
};

/// Other names of providers, and the id each stands for.
const SYNONYMS: [(&str, &str); 2] = [("bedrock", "aws"), ("vertex", "gcp")];
/// Providers with a [`ProviderKind`] of their own; every other id is a compatible endpoint.
const NATIVE: [&str; 7] = ["anthropic", "aws", "azure", "echo", "gcp", "gemini", "openai"];
/// The longest provider id, in characters.
const MAX_ID_CHARS: usize = 32;
/// What every provider may set.
const COMMON_KEYS: [&str; 3] = ["enabled", "unlisted_models", "deployments"];

/// One provider, ready to be called.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// As in scopes, headers, logs and metrics: `[a-z0-9][a-z0-9_-]{0,31}`.
    pub id: String,
    /// Whether requests may use it.
    pub enabled: bool,
    /// Who asked for it.
    pub origin: Origin,
    /// How it is called.
    pub kind: ProviderKind,
    /// What becomes of models that no deployment lists.
    pub unlisted_models: Unlisted,
    /// The models that were written down for it.
    pub deployments: Vec<DeploymentSettings>,
}

/// Why a provider exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The defaults have it.
    Default,
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
    },
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
}

/// All providers of `tables` and of the environment, in the order of their ids.
pub(super) fn read(
    tables: &ProviderTables,
    surroundings: &Surroundings<'_>,
    faults: &mut Faults,
    warnings: &mut Vec<String>,
) -> Vec<ProviderSettings> {
    let mut providers = Vec::new();
    let mut findings = Findings { faults, warnings };
    let mentioned = gather(tables, findings.faults);

    // A variable that a table names or was filled from is spoken for: it does not make a second provider by itself.
    let mut claimed = BTreeSet::new();
    for (id, mention) in &mentioned {
        if let Some(fault) = wrong_id(id, &mention.path) {
            findings.faults.push(fault);
            continue;
        }
        let form = Form::new(mention.path.clone(), &mention.table, surroundings);
        let origin = Some(mention.origin.clone());
        let (provider, used) = read_one(id, form, origin, &mut findings);
        claimed.extend(used);
        providers.extend(provider);
    }
    let nothing = Table::new();
    for (id, triggers) in usual_providers(surroundings.dialects) {
        let fires = |trigger: &&str| !claimed.contains(*trigger) && surroundings.environment.get(trigger).is_some();
        let made = |provider: &ProviderSettings| provider.id == id;
        if mentioned.contains_key(id) || !triggers.iter().all(fires) || providers.iter().any(made) {
            continue;
        }
        let form = Form::new(join("providers", id), &nothing, surroundings);
        let (provider, used) = read_one(id, form, None, &mut findings);
        claimed.extend(used);
        providers.extend(provider);
    }
    if surroundings.environment.get(azure::API_KEY_VARIABLE).is_some()
        && !mentioned.contains_key("azure")
        && !claimed.contains(azure::API_KEY_VARIABLE)
    {
        findings.warnings.push(format!(
            "{} is set but {} is not, so Azure is not used",
            azure::API_KEY_VARIABLE,
            azure::ENDPOINT_VARIABLE
        ));
    }

    providers.sort_by(|a, b| a.id.cmp(&b.id));
    providers
}

/// A provider's table, laid over each other from the sources that mention it.
struct Mention {
    /// The strongest of them, but for the command line, which only changes what another one asked for.
    origin: Origin,
    /// `providers.<name>`, as it is written.
    path: String,
    table: Table,
}

/// Where faults and warnings of all providers are collected.
struct Findings<'a> {
    faults: &'a mut Faults,
    warnings: &'a mut Vec<String>,
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
fn gather(tables: &ProviderTables, faults: &mut Faults) -> BTreeMap<String, Mention> {
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
                faults.push(Fault::new(path, problem));
                continue;
            };
            let synonym = SYNONYMS.iter().find(|(synonym, _)| synonym == name);
            let id = synonym.map_or(name.as_str(), |(_, id)| id);
            if let Some(other) = names.insert(id, name) {
                let other = join("providers", other);
                faults.push(Fault::new(path, format!("is the same provider as {other}")));
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

/// One provider, unless it is at fault or disabled without being complete; and the variables it claims.
///
/// `mentioned` is who mentions it; `None` when variables alone configure it.
fn read_one(
    id: &str,
    mut form: Form<'_>,
    mentioned: Option<Origin>,
    findings: &mut Findings<'_>,
) -> (Option<ProviderSettings>, BTreeSet<String>) {
    let enabled = form.flag("enabled").unwrap_or(true);
    let (kind, keys): (_, &[&str]) = match id {
        "echo" => (Some(ProviderKind::Echo), &[]),
        "openai" => (openai::read(&mut form), &openai::KEYS),
        "azure" => (azure::read(&mut form), &azure::KEYS),
        "anthropic" => (anthropic::read(&mut form), &anthropic::KEYS),
        "aws" => (aws::read(&mut form), &aws::KEYS),
        "gcp" => (gcp::read(&mut form), &gcp::KEYS),
        "gemini" => (gemini::read(&mut form), &gemini::KEYS),
        _ => (compatible::read(id, &mut form), &compatible::KEYS),
    };
    let usual = if id == "azure" {
        &azure::DEPLOYMENT_VARIABLES[..]
    } else {
        &[]
    };
    let deployments = deployments::read(&mut form, usual);
    let compatible = matches!(kind, Some(ProviderKind::Compatible { .. }));
    let by_default = if compatible && deployments.is_empty() {
        Unlisted::Forward
    } else {
        Unlisted::Refuse
    };
    let unlisted_models = unlisted(&mut form).unwrap_or(by_default);
    form.refuse_unknown(&[&COMMON_KEYS, keys]);

    if enabled && (id == "azure" || compatible) && deployments.is_empty() && unlisted_models == Unlisted::Refuse {
        form.warnings.push(format!(
            "{}: it has no deployments and refuses unlisted models, so at most the models of the built-in catalogue \
             reach it, under the catalogue's names; add [[providers.{id}.deployments]], or write \
             unlisted_models = \"forward\"",
            form.path
        ));
    }

    let complete = form.faults.is_empty() && form.missing.is_empty();
    findings.faults.extend(form.faults);
    findings.warnings.append(&mut form.warnings);
    if enabled {
        findings.faults.extend(form.missing);
    } else if !form.missing.is_empty() {
        // Disabling a provider is also how one gets past its missing credential.
        let missing: Vec<String> = form.missing.iter().map(Fault::to_string).collect();
        findings.warnings.push(format!(
            "{} is disabled and left out: {}",
            form.path,
            missing.join("; ")
        ));
    }
    let mut claimed = form.named_variables;
    claimed.extend(form.used_variables.iter().map(|name| (*name).to_owned()));

    let provider = kind.filter(|_| complete).map(|kind| ProviderSettings {
        id: id.to_owned(),
        enabled,
        origin: mentioned.unwrap_or(Origin::Environment(form.used_variables)),
        kind,
        unlisted_models,
        deployments,
    });
    (provider, claimed)
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
