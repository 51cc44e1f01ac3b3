//! The command line.

mod budget;
mod credential;
mod health;
mod import;
mod inspect;
mod key;
mod limit;
mod prices;
mod serve;
mod token;
mod user;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::app::config_file;
pub use crate::app::config_file::known_dialects;
use crate::app::first_start::{self, MasterKeyInput, Opened};
use crate::config::{self, Loaded, Settings, Sources};
use crate::domain::error::BoxError;

/// The OpenAI-compatible gateway in front of every model provider.
#[derive(Parser)]
#[command(name = "bonito", version, about, max_term_width = 120)]
struct Arguments {
    /// Configuration file; BONITO_CONFIG names one too.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, stronger than everything else: --set server.listen=127.0.0.1:9000.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway (the default).
    Serve,
    /// Run jobs in a process of its own that serves nobody: webhooks, batches, housekeeping.
    Work,
    /// Bring the database's schema up to date and leave.
    Migrate,
    /// Check the configuration without connecting to anything; reports all faults at once.
    CheckConfig,
    /// Ask the gateway that runs here with the same settings how it is.
    Health(health::Arguments),
    /// Translate the configuration of another gateway.
    Import {
        #[command(subcommand)]
        command: import::Command,
    },
    /// Create, list and revoke keys.
    Key {
        #[command(subcommand)]
        command: key::Command,
    },
    /// Set, list and delete budgets.
    Budget {
        #[command(subcommand)]
        command: budget::Command,
    },
    /// Set, list and delete rate limits.
    Limit {
        #[command(subcommand)]
        command: limit::Command,
    },
    /// Store, list and delete providers' credentials in the encrypted local store.
    Credential {
        #[command(subcommand)]
        command: credential::Command,
    },
    /// Create, list and disable the people who manage the gateway, and give them passwords.
    User {
        #[command(subcommand)]
        command: user::Command,
    },
    /// Make a token for the management API.
    Token(token::Arguments),
    /// Print the OpenAPI document of an API.
    Openapi {
        /// Which one.
        #[arg(value_enum, default_value_t = Surface::Inference)]
        surface: Surface,
    },
    /// Print what each kind of provider takes, parameter by parameter, as Markdown.
    Capabilities,
    /// The prices and models in use.
    Prices {
        #[command(subcommand)]
        command: prices::Command,
    },
    /// What is configured.
    Providers {
        #[command(subcommand)]
        command: ProvidersCommand,
    },
}

/// An API with a document.
#[derive(clap::ValueEnum, Clone, Copy)]
enum Surface {
    /// What applications call.
    Inference,
    /// What admins call.
    Management,
}

#[derive(Subcommand)]
enum ProvidersCommand {
    /// List the configured providers, where each comes from, and how many models it serves.
    List,
}

/// Runs the command line. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // rustls must be told which of its backends to use before anybody connects.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let storing = matches!(arguments.command, Some(Command::Credential { .. }));
    let (loaded, sources) = match load(arguments.config, &arguments.overrides, storing) {
        Ok(read) => read,
        Err(faults) => {
            complain(&faults);
            return ExitCode::from(2);
        }
    };
    // Requests are served on threads of their own; this runtime has the actors, the database and operations.
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("the runtime does not start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match arguments.command.unwrap_or(Command::Serve) {
            Command::Serve => serve::run(loaded, sources).await,
            Command::Work => serve::work(loaded, sources).await,
            Command::Migrate => serve::migrate(&loaded.settings).await,
            Command::CheckConfig => inspect::check_config(&loaded),
            Command::Health(arguments) => health::run(arguments, &loaded.settings).await,
            Command::Import { command } => import::run(command, &loaded.settings).await,
            Command::Key { command } => key::run(command, &loaded.settings).await,
            Command::Budget { command } => budget::run(command, &loaded.settings).await,
            Command::Limit { command } => limit::run(command, &loaded.settings).await,
            Command::Credential { command } => credential::run(command, &loaded.settings).await,
            Command::User { command } => user::run(command, &loaded.settings).await,
            Command::Token(arguments) => token::run(arguments, &loaded.settings).await,
            Command::Openapi { surface } => inspect::openapi(surface, &loaded.settings),
            Command::Capabilities => inspect::capabilities(),
            Command::Prices { command } => prices::run(&command, &loaded.settings),
            Command::Providers {
                command: ProvidersCommand::List,
            } => inspect::providers(&loaded.settings),
        }
    });
    match result {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Opens the database for a command that works on it.
async fn open(settings: &Settings) -> Result<Opened, BoxError> {
    let opened = first_start::open(settings, &master_key_input()).await?;
    // The database was empty: what every first start makes must not be lost.
    for shown in opened.shown_once() {
        complain(&format!("this was the first start; shown this once, {shown}"));
    }
    Ok(opened)
}

/// The configuration of this process, and what it was made from.
fn load(file: Option<PathBuf>, overrides: &[String], storing_credentials: bool) -> Result<(Loaded, Sources), String> {
    let mut sources = Sources::from_process(file).map_err(|faults| faults.to_string())?;
    for text in overrides {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| format!("--set {text}: write KEY=VALUE"))?;
        sources.overrides.push((key.trim().to_owned(), value.to_owned()));
    }
    let loaded = if storing_credentials {
        config::load_without_credentials(&sources, &known_dialects()).and_then(config_file::checked)
    } else {
        config_file::check(&sources)
    };
    Ok((loaded.map_err(|faults| faults.to_string())?, sources))
}

/// What the environment says about the master key.
fn master_key_input() -> MasterKeyInput {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    MasterKeyInput {
        value: variable("BONITO_MASTER_KEY"),
        file: variable("BONITO_MASTER_KEY_FILE"),
    }
}

/// Writes a result to standard output.
fn say(text: &str) {
    // Whoever reads may have seen enough and closed the pipe, which is no error of ours.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Writes a complaint to standard error.
#[expect(
    clippy::print_stderr,
    reason = "complaints about the command line come before logging is set up"
)]
fn complain(text: &dyn std::fmt::Display) {
    eprintln!("bonito: {text}");
}
