//! `[providers.gcp]` (Vertex AI) and the variables of Google's own libraries.
//!
//! Credentials are a document that the table or GOOGLE_APPLICATION_CREDENTIALS names. The metadata service is asked
//! only where the table says `credentials = "metadata"`, because every machine in Google Cloud has one. The file that
//! `gcloud auth application-default login` leaves in the home directory is read only when it is named.

use std::path::Path;

use http::Uri;

use super::ProviderKind;
use super::form::Form;
use super::google::{GcpAuth, GoogleCredentials, WrittenBy};
use super::hosts;
use crate::config::checks;
use crate::config::faults::Fault;

/// The document's file.
pub(super) const CREDENTIALS_VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
/// The location. Together with the document it says that this provider is meant, because Vertex AI alone has it.
pub(super) const LOCATION_VARIABLE: &str = "GOOGLE_CLOUD_LOCATION";

const PROJECT_VARIABLES: [&str; 2] = ["GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT"];
const METADATA_VARIABLE: &str = "GCE_METADATA_HOST";
const METADATA_URL: &str = "http://metadata.google.internal";

pub(super) const KEYS: [&str; 7] = [
    "base_url",
    "project_id",
    "region",
    "credentials",
    "service_account_env",
    "service_account_file",
    "metadata_url",
];

pub(super) fn read(form: &mut Form<'_>) -> Option<ProviderKind> {
    let location = location(form);
    let stated = form.url("base_url", &["GOOGLE_VERTEX_BASE_URL"]);
    let credentials = credentials(form);
    let project_id = project_id(form, credentials.as_ref());
    let location = location?;
    let base_url = stated.ok()?.or_else(|| hosts::vertex(&location))?;
    form.warn_if_in_the_clear(&base_url);
    Some(ProviderKind::Gcp {
        base_url,
        project_id: project_id?,
        location,
        auth: credentials?.auth,
    })
}

fn location(form: &mut Form<'_>) -> Option<String> {
    let faults_before = form.faults.len();
    let Some(found) = form.text("region", &[LOCATION_VARIABLE, "GOOGLE_CLOUD_REGION"]) else {
        if form.faults.len() == faults_before {
            let fault = Fault::new(form.at("region"), "Vertex AI's location is missing");
            let hint = format!("write global, us, eu or a region such as europe-west4, or set {LOCATION_VARIABLE}");
            form.missing.push(fault.hint(hint));
        }
        return None;
    };
    if hosts::is_region(&found.value) {
        return Some(found.value);
    }
    let problem = format!("{} is not a location", checks::shown(&found.value));
    let hint = "write global, us, eu or a region such as europe-west4";
    form.faults.push(Fault::new(found.at, problem).hint(hint));
    None
}

/// The project: as written, or else the one the credentials belong to.
fn project_id(form: &mut Form<'_>, credentials: Option<&GoogleCredentials>) -> Option<String> {
    let faults_before = form.faults.len();
    let (at, project) = match form.text("project_id", &PROJECT_VARIABLES) {
        Some(found) => (found.at, found.value),
        None if form.faults.len() > faults_before => return None,
        None => match credentials.map(|credentials| credentials.project_id.clone()) {
            Some(Some(project)) => (form.at("service_account_file"), project),
            Some(None) => {
                let fault = Fault::new(form.at("project_id"), "the project is missing");
                let hint = format!("write its id, or set {}", PROJECT_VARIABLES[0]);
                form.missing.push(fault.hint(hint));
                return None;
            }
            // Without credentials nothing can be said about it yet.
            None => return None,
        },
    };
    let good = |c: char| c.is_ascii_alphanumeric() || "-.:_".contains(c);
    // It becomes part of a path.
    if project.chars().all(good) && project.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Some(project);
    }
    let problem = "is not the id of a project: letters, digits and - . : only";
    form.faults.push(Fault::new(at, problem));
    None
}

fn credentials(form: &mut Form<'_>) -> Option<GoogleCredentials> {
    let faults_before = form.faults.len();
    let named = form.text("credentials", &[]);
    let by_document = form.states(&["service_account_env", "service_account_file"]);
    let by_metadata = form.states(&["metadata_url"]);
    if form.faults.len() > faults_before || form.states(&["service_account"]) {
        // `refuse_unknown` reports a document that is written into the table.
        return None;
    }
    match named.as_ref().map(|found| found.value.as_str()) {
        Some("metadata") if by_document => {
            let problem = "is written besides credentials = \"metadata\"";
            let key = if form.states(&["service_account_env"]) {
                "service_account_env"
            } else {
                "service_account_file"
            };
            form.faults
                .push(Fault::new(form.at(key), problem).hint("keep one of the two"));
            None
        }
        Some("metadata") => Some(GoogleCredentials {
            auth: GcpAuth::Metadata { url: metadata(form)? },
            project_id: None,
        }),
        Some("file") | None if by_metadata => {
            let problem = "goes with credentials = \"metadata\", which is not written";
            form.faults.push(Fault::new(form.at("metadata_url"), problem));
            None
        }
        Some("file") | None => document(form),
        Some(other) => {
            let problem = format!("{} is no source of credentials", checks::shown(other));
            let fault = Fault::new(form.at("credentials"), problem);
            form.faults.push(fault.hint("write file or metadata"));
            None
        }
    }
}

/// The metadata service's address. The variable holds a host alone.
fn metadata(form: &mut Form<'_>) -> Option<Uri> {
    let stated = form.url("metadata_url", &[]).ok()?;
    if stated.is_some() {
        return stated;
    }
    let Some((name, host)) = form.peek(&[METADATA_VARIABLE]) else {
        return Some(Uri::from_static(METADATA_URL));
    };
    form.used_variables.push(name);
    let url = checks::base_url(&format!("http://{}", host.trim())).ok();
    if url.is_none() {
        form.faults.push(Fault::new(name, "is not a host"));
    }
    url
}

fn document(form: &mut Form<'_>) -> Option<GoogleCredentials> {
    let faults_before = form.faults.len();
    let variable = form.text("service_account_env", &[]);
    let usual: &[&str] = if variable.is_some() {
        &[]
    } else {
        &[CREDENTIALS_VARIABLE]
    };
    let file = form.text("service_account_file", usual);
    if form.faults.len() > faults_before {
        return None;
    }
    let (at, text) = match (variable, file) {
        (Some(_), Some(file)) => {
            let fault = Fault::new(file.at, "is written besides service_account_env");
            form.faults.push(fault.hint("keep one of the two"));
            return None;
        }
        (Some(variable), None) => match form.surroundings.environment.get(&variable.value) {
            Some(text) => {
                form.named_variables.insert(variable.value);
                (variable.at, text.to_owned())
            }
            None => {
                // The name is not repeated: it may be the document itself, written by mistake.
                let fault = Fault::new(variable.at, "names a variable that is not set");
                let hint = "write the name of the variable here, and the JSON document into the variable";
                form.missing.push(fault.hint(hint));
                return None;
            }
        },
        (None, Some(file)) => match (form.surroundings.read_file)(Path::new(&file.value)) {
            Ok(text) => (file.at, text),
            Err(error) => {
                let problem = format!("the file it names cannot be read: {error}");
                form.missing.push(Fault::new(file.at, problem));
                return None;
            }
        },
        (None, None) => {
            let fault = Fault::new(form.at("service_account_file"), "this provider has no credential");
            form.missing.push(fault.hint(format!(
                "set {CREDENTIALS_VARIABLE}, or in Google Cloud write credentials = \"metadata\""
            )));
            return None;
        }
    };
    GoogleCredentials::from_json(&text, WrittenBy::Operator)
        .map_err(|problem| form.faults.push(Fault::new(at, problem)))
        .ok()
}
