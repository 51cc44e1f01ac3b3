//! Commands that look at the configuration and connect to nothing.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::{Surface, say};
use crate::config::{Loaded, Origin, Settings};
use crate::domain::error::BoxError;
use crate::http::management;
use crate::http::openai::document;
use crate::providers::matrix;
use crate::routing::catalog::Catalog;

/// `bonito check-config`: faults were reported before this is reached.
pub fn check_config(loaded: &Loaded) -> Result<ExitCode, BoxError> {
    let mut text = String::from("the configuration is valid");
    for warning in &loaded.warnings {
        write!(text, "\nwarning: {warning}")?;
    }
    say(&text);
    Ok(ExitCode::SUCCESS)
}

/// `bonito openapi`.
pub(super) fn openapi(surface: Surface, settings: &Settings) -> Result<ExitCode, BoxError> {
    let listen = || format!("http://{}", settings.server.listen);
    let url = settings.server.public_url.clone().unwrap_or_else(listen);
    say(&match surface {
        Surface::Inference => document::specification(&url),
        Surface::Management => management::specification(&url),
    });
    Ok(ExitCode::SUCCESS)
}

/// `bonito capabilities`: the page `docs/capabilities.md`.
pub fn capabilities() -> Result<ExitCode, BoxError> {
    say(matrix::markdown().trim_end());
    Ok(ExitCode::SUCCESS)
}

/// `bonito providers list`.
pub fn providers(settings: &Settings) -> Result<ExitCode, BoxError> {
    let catalog = Catalog::build(settings);
    let mut text = format!("{:<16} {:<9} {:>6}  {}", "PROVIDER", "STATE", "MODELS", "CONFIGURED BY");
    for provider in &settings.providers {
        let models = catalog
            .deployments()
            .filter(|d| d.provider.as_str() == provider.id)
            .count();
        let state = if provider.enabled { "enabled" } else { "disabled" };
        let from = match &provider.origin {
            Origin::Default => "built in".to_owned(),
            Origin::Secrets => "secret store".to_owned(),
            Origin::Environment(names) => names.join(", "),
            Origin::File => "configuration file".to_owned(),
            Origin::CommandLine => "command line".to_owned(),
        };
        write!(text, "\n{:<16} {state:<9} {models:>6}  {from}", provider.id)?;
    }
    say(&text);
    Ok(ExitCode::SUCCESS)
}
