//! `bonito import …`: the configuration of other gateways in our words.
//!
//! `litellm` translates and knows nothing of files or databases; here the result is checked as a start would check it,
//! written, and applied where that is asked for.

mod litellm;
mod report;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::Value;

use self::litellm::Imported;
use self::report::{Fate, Report};
use super::key::find;
use super::{known_dialects, say};
use crate::config::{self, Settings, Sources};
use crate::domain::audit::Author;
use crate::domain::budget::refusal::dollars;
use crate::domain::config::{NewConfig, Saved};
use crate::domain::error::BoxError;
use crate::routing::aliases;
use crate::routing::catalog::Catalog;
use crate::routing::document;
use crate::routing::strategy::Strategy;
use crate::store::organizations::FIRST_SLUG;

/// The largest file that is read.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// Stands for a secret that is not here, so that everything else can be checked. It is sent nowhere.
const PLACEHOLDER: &str = "a-secret-that-is-set-where-the-gateway-starts";
/// The same for Google's credential documents.
const DOCUMENT_PLACEHOLDER: &str =
    r#"{"type":"authorized_user","client_id":"none","client_secret":"none","refresh_token":"none"}"#;

/// What can be imported.
#[derive(Subcommand)]
pub enum Command {
    /// Translate LiteLLM's config.yaml into a configuration file, an organization's config and budgets.
    ///
    /// Writes bonito.toml, gateway-config.json (where there is something for it) and report.md, which says what became of
    /// everything in the file. Secrets that are written in it are neither copied nor printed.
    Litellm {
        /// LiteLLM's configuration.
        file: PathBuf,
        /// The directory to write to. Nothing in it is replaced.
        #[arg(long, value_name = "DIRECTORY", default_value = "imported")]
        into: PathBuf,
        /// Also put the organization's config and budgets into the database.
        #[arg(long)]
        apply: bool,
        /// The organization they are for, by its short name.
        #[arg(long, default_value = FIRST_SLUG)]
        organization: String,
    },
}

/// Runs one of them.
pub async fn run(command: Command, settings: &Settings) -> Result<ExitCode, BoxError> {
    let Command::Litellm {
        file,
        into,
        apply,
        organization,
    } = command;
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let size = fs::metadata(&file).map_err(|error| named(&error))?.len();
    if size > MAX_FILE_BYTES {
        return Err(named(&format!("it has {size} bytes; at most {MAX_FILE_BYTES} are read")).into());
    }
    let text = fs::read_to_string(&file).map_err(|error| named(&error))?;
    let env = Sources::from_process(None)?.env;
    let mut imported = litellm::import(&text, &env).map_err(|error| named(&error))?;
    let toml = rendered(&imported)?;
    let sound = check(&toml, &mut imported, env);
    let written = write(&into, &toml, &imported)?;
    say(&imported.report.to_string());
    say(&summary(&imported.report, &written));
    if !sound {
        return Err("the gateway does not start with what came of it as it is: see \"To be done by you\"".into());
    }
    if apply {
        put_into_force(imported, &organization, settings).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The configuration file as text.
fn rendered(imported: &Imported) -> Result<String, BoxError> {
    let mut text = String::from(
        "# Made by `bonito import litellm`; report.md beside it says what became of everything. What is not written here has\n\
         # its default. Secrets are in the variables that are named.\n\n",
    );
    text.push_str(&toml::to_string_pretty(&imported.file)?);
    Ok(text)
}

/// Looks at what came of it as a start and a management call would; what they would refuse goes into the report.
fn check(toml: &str, imported: &mut Imported, mut env: Vec<(String, String)>) -> bool {
    for name in &imported.variables {
        let value = if imported.is_document(name) {
            DOCUMENT_PLACEHOLDER
        } else {
            PLACEHOLDER
        };
        env.push((name.clone(), value.to_owned()));
    }
    let sources = Sources {
        file: Some((PathBuf::from("bonito.toml"), toml.to_owned())),
        env,
        overrides: Vec::new(),
    };
    let report = &mut imported.report;
    let loaded = match config::load(&sources, &known_dialects()) {
        Ok(loaded) => loaded,
        Err(faults) => {
            report.add(
                Fate::ToDo,
                "bonito.toml",
                format!("the gateway does not take it: {faults}"),
            );
            return false;
        }
    };
    for warning in &loaded.warnings {
        report.add(Fate::ToDo, "bonito.toml", warning.clone());
    }
    let catalog = Catalog::build(&loaded.settings);
    let (faults, warnings) = aliases::check(&loaded.settings, &catalog);
    for warning in warnings {
        report.add(Fate::ToDo, "bonito.toml", warning);
    }
    if !faults.is_empty() {
        report.add(
            Fate::ToDo,
            "bonito.toml",
            format!("the gateway does not take it: {faults}"),
        );
        return false;
    }
    let Some(document) = &imported.document else {
        return true;
    };
    let found =
        document::read(document, Strategy::Balanced).and_then(|policy| document::check_references(&policy, &catalog));
    let Err(faults) = found else { return true };
    for fault in faults {
        report.add(Fate::ToDo, "gateway-config.json", fault.to_string());
    }
    false
}

/// Writes what came of it, and replaces nothing. Returns the names.
fn write(into: &Path, toml: &str, imported: &Imported) -> Result<Vec<PathBuf>, BoxError> {
    let mut files = vec![("bonito.toml", toml.to_owned())];
    if let Some(document) = &imported.document {
        files.push(("gateway-config.json", pretty(document)?));
    }
    let budgets: Vec<String> = imported
        .budgets
        .iter()
        .map(|(scope, terms)| {
            let what = match scope.reference().as_str() {
                "" => scope.kind().to_owned(),
                reference => format!("{}={reference}", scope.kind()),
            };
            let (amount, period) = (dollars(terms.amount), terms.period.as_str());
            format!("bonito budget set --for {what} --amount {amount} --period {period} --allow-unpriced")
        })
        .collect();
    let mut said = format!("# What became of the file\n\n{}", imported.report);
    if !budgets.is_empty() {
        said.push_str(&format!("## Budgets\n\n```sh\n{}\n```\n", budgets.join("\n")));
    }
    files.push(("report.md", said));
    fs::create_dir_all(into).map_err(|error| format!("{}: {error}", into.display()))?;
    let paths: Vec<PathBuf> = files.iter().map(|(name, _)| into.join(name)).collect();
    if let Some(there) = paths.iter().find(|path| path.exists()) {
        return Err(format!("{} is there already; name another directory by --into", there.display()).into());
    }
    for (path, (_, text)) in paths.iter().zip(&files) {
        let file = fs::OpenOptions::new().write(true).create_new(true).open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(paths)
}

fn pretty(document: &Value) -> Result<String, BoxError> {
    Ok(serde_json::to_string_pretty(document)? + "\n")
}

fn summary(report: &Report, written: &[PathBuf]) -> String {
    let written: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
    format!(
        "{} carried over, {} different here, {} not carried over, {} to be done by you; written to {}",
        report.count(Fate::Carried),
        report.count(Fate::Changed),
        report.count(Fate::Left),
        report.count(Fate::ToDo),
        written.join(", ")
    )
}

/// Puts the organization's config and its budgets into the database, as the management API and `bonito budget` do.
async fn put_into_force(imported: Imported, slug: &str, settings: &Settings) -> Result<(), BoxError> {
    let opened = super::open(settings).await?;
    let store = &opened.store;
    let organization = find(store, slug).await?;
    if let Some(document) = &imported.document {
        let new = NewConfig {
            organization,
            document: document.to_string(),
            by: Author::system("bonito import litellm"),
            action: "config.replace",
            // What somebody has written is not replaced by what another gateway had.
            replaces: Some(0),
        };
        match store.save_config(new).await? {
            Saved::Saved(version) => say(&format!(
                "the config of {slug} is in force, version {}",
                version.version
            )),
            Saved::Changed { version } => {
                return Err(format!(
                    "{slug} has a config already, version {version}: put gateway-config.json together with it by \
                     /api/gateway/config; nothing was applied"
                )
                .into());
            }
            Saved::NoSuchOrganization => return Err(format!("there is no organization {slug:?}").into()),
        }
    }
    for (scope, terms) in &imported.budgets {
        let by = Author::system("bonito import litellm");
        let id = store.set_budget(organization, scope, terms, &by).await?;
        let id = id.ok_or_else(|| format!("the organization has no such {}", scope.kind()))?;
        say(&format!(
            "budget {id}: {} USD {}",
            dollars(terms.amount),
            terms.period.spoken()
        ));
    }
    opened.store.close().await;
    Ok(())
}
