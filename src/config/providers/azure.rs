//! `[providers.azure]` and the variables of Azure's own SDKs.
//!
//! The one real choice is how requests are signed. The file decides it by what it writes; where it writes nothing, a
//! resource key in the environment wins over an Entra ID application, because the application's variables are set in
//! many Azure hosts for other purposes. An application proves itself by a secret, or in Kubernetes by the token of a
//! service account. A managed identity is used only where the file says so.

use std::path::PathBuf;

use http::Uri;

use super::form::{API_KEY, Form, Secret, SecretKeys};
use super::{AzureAuth, AzureSurface, IdentityService, ProviderKind};
use crate::config::checks;
use crate::config::faults::Fault;

/// Set, it says that this provider is meant.
pub(super) const ENDPOINT_VARIABLE: &str = "AZURE_OPENAI_ENDPOINT";
/// The resource's key.
pub(super) const API_KEY_VARIABLE: &str = "AZURE_OPENAI_API_KEY";
/// Deployments, separated by commas.
pub(super) const DEPLOYMENT_VARIABLES: [&str; 2] = ["AZURE_OPENAI_DEPLOYMENT", "AZURE_OPENAI_DEPLOYMENT_NAME"];

pub(super) const KEYS: [&str; 16] = [
    "base_url",
    "surface",
    "api_version",
    "api_key_env",
    "api_key_file",
    "tenant_id",
    "client_id",
    "client_secret_env",
    "client_secret_file",
    "federated_token_file",
    "scope",
    "authority",
    "managed_identity",
    "managed_identity_url",
    "identity_header_env",
    "identity_header_file",
];

const API_VERSION_VARIABLES: [&str; 2] = ["OPENAI_API_VERSION", "AZURE_OPENAI_API_VERSION"];
const TENANT_VARIABLE: &str = "AZURE_TENANT_ID";
const CLIENT_VARIABLE: &str = "AZURE_CLIENT_ID";
const SECRET_VARIABLE: &str = "AZURE_CLIENT_SECRET";
const FEDERATED_VARIABLE: &str = "AZURE_FEDERATED_TOKEN_FILE";
const IDENTITY_VARIABLE: &str = "IDENTITY_ENDPOINT";
const IDENTITY_HEADER_VARIABLE: &str = "IDENTITY_HEADER";
const MACHINE_VARIABLE: &str = "AZURE_POD_IDENTITY_AUTHORITY_HOST";
const APPLICATION_VARIABLES: [&str; 3] = [TENANT_VARIABLE, CLIENT_VARIABLE, SECRET_VARIABLE];

const CLIENT_SECRET: SecretKeys = SecretKeys {
    inline: "client_secret",
    variable: "client_secret_env",
    file: "client_secret_file",
};
const IDENTITY_HEADER: SecretKeys = SecretKeys {
    inline: "identity_header",
    variable: "identity_header_env",
    file: "identity_header_file",
};
const API_KEY_KEYS: [&str; 3] = [API_KEY.inline, API_KEY.variable, API_KEY.file];
const APPLICATION_KEYS: [&str; 8] = [
    "tenant_id",
    "client_id",
    CLIENT_SECRET.inline,
    CLIENT_SECRET.variable,
    CLIENT_SECRET.file,
    FEDERATED_TOKEN,
    "scope",
    "authority",
];
/// What an application has and a managed identity has not.
const PROOF_KEYS: [&str; 6] = [
    "tenant_id",
    CLIENT_SECRET.inline,
    CLIENT_SECRET.variable,
    CLIENT_SECRET.file,
    FEDERATED_TOKEN,
    "authority",
];
const FEDERATED_TOKEN: &str = "federated_token_file";
const MANAGED: &str = "managed_identity";

/// The last dated version that is generally available.
const API_VERSION: &str = "2024-10-21";
const SCOPE: &str = "https://cognitiveservices.azure.com/.default";
const AUTHORITY: &str = "https://login.microsoftonline.com";
/// The metadata service of a virtual machine.
const MACHINE_URL: &str = "http://169.254.169.254";

pub(super) fn read(form: &mut Form<'_>) -> Option<ProviderKind> {
    let base_url = base_url(form);
    let surface = surface(form);
    let auth = auth(form);
    if let Some(base_url) = &base_url {
        form.warn_if_in_the_clear(base_url);
    }
    Some(ProviderKind::Azure {
        base_url: base_url?,
        surface: surface?,
        auth: auth?,
    })
}

/// The resource's URL. The portal and the SDKs show it with `/openai` or `/openai/v1`, which our paths bring along.
fn base_url(form: &mut Form<'_>) -> Option<Uri> {
    let usual = [ENDPOINT_VARIABLE];
    let Some(url) = form.url("base_url", &usual).ok()? else {
        let fault = Fault::new(form.at("base_url"), "the resource's URL is missing");
        let hint = format!("write one such as https://contoso.openai.azure.com, or set {ENDPOINT_VARIABLE}");
        form.missing.push(fault.hint(hint));
        return None;
    };
    let path = url.path().trim_end_matches('/');
    if path.contains("/deployments/") {
        let at = if form.states(&["base_url"]) {
            form.at("base_url")
        } else {
            ENDPOINT_VARIABLE.to_owned()
        };
        let hint = "end it at the host, and list the model under deployments";
        form.faults
            .push(Fault::new(at, "goes past the resource, into one deployment").hint(hint));
        return None;
    }
    let resource = path.strip_suffix("/openai/v1").or_else(|| path.strip_suffix("/openai"));
    let Some(resource) = resource.map(str::to_owned) else {
        return Some(url);
    };
    let mut parts = url.into_parts();
    let path = if resource.is_empty() { "/".to_owned() } else { resource };
    parts.path_and_query = Some(path.parse().expect("the beginning of a path is a path"));
    Some(Uri::from_parts(parts).expect("a URL with a shorter path is a URL"))
}

/// The URL shape: as written, or else the deployments' one if a version is given, or else v1.
fn surface(form: &mut Form<'_>) -> Option<AzureSurface> {
    let version_is_stated = form.states(&["api_version"]);
    let surface = form.text("surface", &[]);
    let named = surface.as_ref().map(|found| found.value.as_str());
    if named == Some("v1") {
        if version_is_stated {
            let fault = Fault::new(form.at("api_version"), "the v1 surface has no dated versions");
            form.faults
                .push(fault.hint("remove it, or write surface = \"deployments\""));
            return None;
        }
        if let Some((name, _)) = form.peek(&API_VERSION_VARIABLES) {
            form.warnings.push(format!(
                "{name} is set, but {} is \"v1\", which has no dated versions",
                form.at("surface")
            ));
        }
        return Some(AzureSurface::V1);
    }
    if let Some(found) = &surface
        && found.value != "deployments"
    {
        let shown = checks::shown(&found.value);
        let problem = format!("{shown} is neither \"v1\" nor \"deployments\"");
        form.faults.push(Fault::new(&found.at, problem));
        return None;
    }
    match form.text("api_version", &API_VERSION_VARIABLES) {
        Some(found) if is_dated(&found.value) => Some(AzureSurface::Deployments {
            api_version: found.value,
        }),
        Some(found) => {
            let problem = format!("{} is not a version", checks::shown(&found.value));
            let hint = format!("write one such as {API_VERSION} or 2025-04-01-preview");
            form.faults.push(Fault::new(found.at, problem).hint(hint));
            None
        }
        None if surface.is_some() => Some(AzureSurface::Deployments {
            api_version: API_VERSION.to_owned(),
        }),
        None => Some(AzureSurface::V1),
    }
}

/// `YYYY-MM-DD`, perhaps with `-preview`.
fn is_dated(version: &str) -> bool {
    let date = version.strip_suffix("-preview").unwrap_or(version);
    date.len() == 10
        && date.bytes().enumerate().all(|(place, byte)| match place {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

fn auth(form: &mut Form<'_>) -> Option<AzureAuth> {
    let faults_before = form.faults.len();
    let managed = form.flag(MANAGED).unwrap_or_default();
    if form.faults.len() > faults_before {
        return None;
    }
    if managed {
        return managed_identity(form);
    }
    for key in ["managed_identity_url", IDENTITY_HEADER.variable, IDENTITY_HEADER.file] {
        if form.states(&[key]) {
            let problem = format!("goes with {MANAGED} = true, which is not written");
            form.faults.push(Fault::new(form.at(key), problem));
            return None;
        }
    }
    match (form.states(&API_KEY_KEYS), form.states(&APPLICATION_KEYS)) {
        (true, true) => {
            let problem = "both an API key and an Entra ID application are written";
            let hint = "keep api_key_env or api_key_file, or keep tenant_id, client_id and client_secret_env";
            form.faults.push(Fault::new(&form.path, problem).hint(hint));
            None
        }
        (true, false) => api_key(form, &[]),
        (false, true) => application(form),
        (false, false) => auth_of_variables(form),
    }
}

fn auth_of_variables(form: &mut Form<'_>) -> Option<AzureAuth> {
    let is_set = |form: &Form<'_>, name| form.peek(&[name]).is_some();
    let unset: Vec<&str> = APPLICATION_VARIABLES
        .into_iter()
        .filter(|name| !is_set(form, name))
        .collect();
    if is_set(form, API_KEY_VARIABLE) {
        if unset.is_empty() {
            form.warnings.push(format!(
                "{API_KEY_VARIABLE} is used for Azure; {}, {} and {} are set too and ignored",
                APPLICATION_VARIABLES[0], APPLICATION_VARIABLES[1], APPLICATION_VARIABLES[2]
            ));
        }
        return api_key(form, &[API_KEY_VARIABLE]);
    }
    let federated = unset == [SECRET_VARIABLE] && is_set(form, FEDERATED_VARIABLE);
    if unset.is_empty() || federated {
        return application(form);
    }
    let at = if form.is_blank() && is_set(form, ENDPOINT_VARIABLE) {
        ENDPOINT_VARIABLE.to_owned()
    } else {
        form.at("api_key_env")
    };
    let instead = if unset.len() == APPLICATION_VARIABLES.len() {
        unset.join(" + ")
    } else {
        format!("{}, which would complete the Entra ID application", unset.join(" and "))
    };
    let fault = Fault::new(at, "the Azure resource has no credential");
    form.missing
        .push(fault.hint(format!("set {API_KEY_VARIABLE}, or {instead}")));
    None
}

fn api_key(form: &mut Form<'_>, usual: &[&'static str]) -> Option<AzureAuth> {
    match form.secret(&API_KEY, usual) {
        Secret::Found(key) => Some(AzureAuth::ApiKey(key)),
        Secret::Faulty => None,
        // Written, but empty.
        Secret::Absent => {
            let fault = Fault::new(form.at("api_key_env"), "this provider has no credential");
            form.missing
                .push(fault.hint("write the name of the variable that holds the key"));
            None
        }
    }
}

fn application(form: &mut Form<'_>) -> Option<AzureAuth> {
    let tenant_id = identifier(form, "tenant_id", TENANT_VARIABLE);
    let client_id = identifier(form, "client_id", CLIENT_VARIABLE);
    let secret_is_stated = form.states(&[CLIENT_SECRET.inline, CLIENT_SECRET.variable, CLIENT_SECRET.file]);
    let token_file = if form.states(&[FEDERATED_TOKEN]) {
        if secret_is_stated {
            let problem = "is written besides the application's secret";
            form.faults
                .push(Fault::new(form.at(FEDERATED_TOKEN), problem).hint("keep one of the two"));
            return None;
        }
        form.text(FEDERATED_TOKEN, &[FEDERATED_VARIABLE])
    } else if secret_is_stated || form.peek(&[SECRET_VARIABLE]).is_some() {
        None
    } else {
        form.text(FEDERATED_TOKEN, &[FEDERATED_VARIABLE])
    };
    if let Some(token_file) = token_file {
        let (scope, authority) = scope_and_authority(form);
        return Some(AzureAuth::WorkloadIdentity {
            tenant_id: tenant_id?,
            client_id: client_id?,
            token_file: PathBuf::from(token_file.value),
            scope,
            authority: authority?,
        });
    }
    let client_secret = match form.secret(&CLIENT_SECRET, &[SECRET_VARIABLE]) {
        Secret::Found(secret) => Some(secret),
        Secret::Faulty => None,
        Secret::Absent => {
            let at = form.at(CLIENT_SECRET.variable);
            let fault = Fault::new(at, "the Entra ID application's secret is missing");
            let hint = format!("set {SECRET_VARIABLE}, or write client_secret_env or client_secret_file");
            form.missing.push(fault.hint(hint));
            None
        }
    };
    let (scope, authority) = scope_and_authority(form);
    Some(AzureAuth::ClientCredentials {
        tenant_id: tenant_id?,
        client_id: client_id?,
        client_secret: client_secret?,
        scope,
        authority: authority?,
    })
}

fn scope_and_authority(form: &mut Form<'_>) -> (String, Option<Uri>) {
    let scope = form.plain_text("scope", &[]);
    let authority = form.url_or("authority", &["AZURE_AUTHORITY_HOST"], AUTHORITY);
    if let Some(authority) = &authority {
        form.warn_if_in_the_clear(authority);
    }
    (scope.map_or_else(|| SCOPE.to_owned(), |found| found.value), authority)
}

/// The identity of the machine, or that of the app where its endpoint is given.
fn managed_identity(form: &mut Form<'_>) -> Option<AzureAuth> {
    if form.states(&API_KEY_KEYS) || form.states(&PROOF_KEYS) {
        let problem = "another credential is written besides managed_identity";
        let hint = "keep one of them; client_id and scope may stay with managed_identity";
        form.faults.push(Fault::new(&form.path, problem).hint(hint));
        return None;
    }
    // The variable AZURE_CLIENT_ID may belong to an application; it is taken for the identity's where it is written.
    let client_id = if form.states(&["client_id"]) {
        Some(identifier(form, "client_id", CLIENT_VARIABLE)?)
    } else {
        None
    };
    let scope = form.plain_text("scope", &[]);
    let scope = scope.map_or_else(|| SCOPE.to_owned(), |found| found.value);
    let of_app = form.states(&[IDENTITY_HEADER.variable, IDENTITY_HEADER.file])
        || (!form.states(&["managed_identity_url"]) && form.peek(&[IDENTITY_VARIABLE]).is_some());
    let service = if of_app {
        let url = form.url("managed_identity_url", &[IDENTITY_VARIABLE]).ok()?;
        if url.is_none() {
            let fault = Fault::new(form.at("managed_identity_url"), "the identity's endpoint is missing");
            form.missing
                .push(fault.hint(format!("write it, or set {IDENTITY_VARIABLE}")));
        }
        let header = match form.secret(&IDENTITY_HEADER, &[IDENTITY_HEADER_VARIABLE]) {
            Secret::Found(header) => Some(header),
            Secret::Faulty => None,
            Secret::Absent => {
                let fault = Fault::new(form.at(IDENTITY_HEADER.variable), "the endpoint's header is missing");
                form.missing
                    .push(fault.hint(format!("write it, or set {IDENTITY_HEADER_VARIABLE}")));
                None
            }
        };
        IdentityService::App {
            url: url?,
            header: header?,
        }
    } else {
        IdentityService::Machine {
            url: form.url_or("managed_identity_url", &[MACHINE_VARIABLE], MACHINE_URL)?,
        }
    };
    Some(AzureAuth::ManagedIdentity {
        service,
        client_id,
        resource: scope.strip_suffix("/.default").unwrap_or(&scope).to_owned(),
    })
}

/// An id of Entra ID: a UUID or, for a tenant, a domain. It becomes part of a path, so nothing else is let through.
fn identifier(form: &mut Form<'_>, key: &'static str, usual: &'static str) -> Option<String> {
    let faults_before = form.faults.len();
    let Some(found) = form.text(key, &[usual]) else {
        if form.faults.len() == faults_before {
            let problem = "the Entra ID application is incomplete without it";
            let fault = Fault::new(form.at(key), problem);
            form.missing.push(fault.hint(format!("write it, or set {usual}")));
        }
        return None;
    };
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if found.value.chars().all(good) {
        return Some(found.value);
    }
    let problem = "is not an id: letters, digits, - and . only";
    form.faults.push(Fault::new(found.at, problem));
    None
}
