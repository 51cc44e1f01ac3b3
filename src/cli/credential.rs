//! `bonito credential …`: credentials of providers in the encrypted local store, and who may use the shared ones.
//!
//! A value is read from standard input or a file, never from the command line, which other users can see and shells
//! remember. Where Vault has the credentials, writing names the path to write to instead.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::key::find;
use super::say;
use crate::config::{CredentialPath, Settings};
use crate::domain::audit::{Author, Deed};
use crate::domain::error::BoxError;
use crate::domain::scope::canonical_provider;
use crate::domain::tenancy::{OrganizationChange, OrganizationChanged};
use crate::secrets::source::SecretSource;
use crate::store::Store;
use crate::store::organizations::FIRST_SLUG;

/// The largest value, in bytes: a service account's JSON is a tenth of it.
const MAX_VALUE_BYTES: u64 = 64 * 1024;

/// What can be done with credentials.
#[derive(Subcommand)]
pub enum Command {
    /// Store one value of a credential, read from standard input or a file. Running gateways use it within
    /// secrets.refresh_ms.
    Set {
        #[command(flatten)]
        which: Which,
        /// Which of its values: api_key, region, weight, …
        #[arg(long, default_value = "api_key")]
        field: String,
        /// Read the value from this file instead of standard input.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// List the stored credentials with the names of their values, never the values.
    List,
    /// Take a credential away, or one value of it.
    Delete {
        #[command(flatten)]
        which: Which,
        /// Only this value.
        #[arg(long)]
        field: Option<String>,
    },
    /// Let an organization use the shared credentials.
    Grant {
        /// The organization, by its short name.
        organization: String,
    },
    /// Let an organization use the shared credentials no longer.
    Withdraw {
        /// The organization, by its short name.
        organization: String,
    },
}

/// Which credential.
#[derive(Args)]
pub struct Which {
    /// The provider's id.
    provider: String,
    /// Which of several of this provider; none: the one without a name.
    #[arg(long)]
    name: Option<String>,
    /// The organization whose own it is, by its short name; none: it is shared.
    #[arg(long)]
    organization: Option<String>,
}

impl Which {
    fn path(self) -> Result<CredentialPath, BoxError> {
        let path = CredentialPath {
            organization: self.organization,
            provider: canonical_provider(&self.provider).to_owned(),
            name: self.name,
        };
        if path.is_plain() {
            return Ok(path);
        }
        Err("provider, --name and --organization may hold lower-case letters, digits, _ and - only".into())
    }
}

/// Runs one of them.
pub async fn run(command: Command, settings: &Settings) -> Result<ExitCode, BoxError> {
    let opened = super::open(settings).await?;
    let source = SecretSource::open(settings, &opened.master_key)?;
    match command {
        Command::Set { which, field, file } => {
            let path = which.path()?;
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if field.is_empty() || !field.chars().all(plain) {
                return Err("--field must be a name such as api_key".into());
            }
            if matches!(source, SecretSource::Vault(_)) {
                // Said before a secret is asked for.
                source.change(&path, |_| ())?;
            }
            let value = value(file)?;
            source.change(&path, |fields| fields.set(field.as_str(), value))?;
            let state = json!({"path": path.to_string(), "fields": [field]});
            let deed = Deed::new("credential.set", &path).after(state);
            record(&opened.store, &path, "bonito credential set", deed).await?;
            say(&format!("stored {field} of {path}"));
        }
        Command::List => {
            let contents = source.read(&settings.reader.expected()).await?;
            let mut text = format!("{:<48}  {}", "CREDENTIAL", "VALUES");
            for (path, fields) in &contents.stored.credentials {
                let names: Vec<&str> = fields.names().collect();
                write!(text, "\n{:<48}  {}", path.to_string(), names.join(", "))?;
            }
            say(&text);
        }
        Command::Delete { which, field } => {
            let path = which.path()?;
            let there = source.change(&path, |fields| match &field {
                Some(field) => fields.remove(field),
                None => !std::mem::take(fields).is_empty(),
            })?;
            if !there {
                return Err(format!("there is nothing at {path}").into());
            }
            let mut state = json!({"path": path.to_string()});
            if let Some(field) = &field {
                state["fields"] = json!([field]);
            }
            let deed = Deed::new("credential.delete", &path).before(state);
            record(&opened.store, &path, "bonito credential delete", deed).await?;
            say(&format!(
                "deleted {}{path}",
                field.map(|f| f + " of ").unwrap_or_default()
            ));
        }
        Command::Grant { organization } => grant(&opened.store, &organization, true).await?,
        Command::Withdraw { organization } => grant(&opened.store, &organization, false).await?,
    }
    opened.store.close().await;
    Ok(ExitCode::SUCCESS)
}

async fn grant(store: &Store, slug: &str, granted: bool) -> Result<(), BoxError> {
    let organization = find(store, slug).await?;
    let different = OrganizationChange {
        shared_credentials: Some(granted),
        ..OrganizationChange::default()
    };
    let command = match granted {
        true => "bonito credential grant",
        false => "bonito credential withdraw",
    };
    let by = Author::system(command);
    if let OrganizationChanged::NoSuchOrganization = store.change_tenant(organization, &different, &by).await? {
        return Err(format!("the organization {slug:?} is not there any more").into());
    }
    say(&format!(
        "{slug} may {} the shared credentials",
        if granted { "use" } else { "no longer use" }
    ));
    Ok(())
}

/// Writes down what was done to a credential, in the audit log of whose it is. That of a shared one, or of one for an
/// organization that is yet to be created, is the first organization's, which is that of whoever set the gateway up.
async fn record(store: &Store, path: &CredentialPath, command: &str, deed: Deed) -> Result<(), BoxError> {
    let own = match &path.organization {
        Some(slug) => store.organization_by_slug(slug).await?,
        None => None,
    };
    let organization = match own {
        Some(own) => Some(own),
        None => store.organization_by_slug(FIRST_SLUG).await?,
    };
    match organization {
        Some(organization) => store.append_audit(organization, &Author::system(command), deed).await?,
        None => super::complain(&format!(
            "there is no organization {FIRST_SLUG:?} whose audit log could say what was done"
        )),
    }
    Ok(())
}

/// The value, without the line's end that editors and `echo` add.
fn value(file: Option<PathBuf>) -> Result<String, BoxError> {
    let mut text = String::new();
    match &file {
        Some(path) => std::fs::File::open(path)
            .and_then(|file| file.take(MAX_VALUE_BYTES + 1).read_to_string(&mut text))
            .map_err(|error| format!("{}: {error}", path.display()))?,
        None => std::io::stdin()
            .take(MAX_VALUE_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(|error| format!("standard input: {error}"))?,
    };
    let value = text.trim_end_matches(['\n', '\r']);
    if value.trim().is_empty() {
        return Err("the value is empty; write it to standard input, or name a file with --file".into());
    }
    if text.len() as u64 > MAX_VALUE_BYTES {
        return Err(format!("the value is longer than {MAX_VALUE_BYTES} bytes").into());
    }
    Ok(value.to_owned())
}
