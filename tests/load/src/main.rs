//! The load rig: what the gateway costs, next to nginx and next to nothing at all.
//!
//! `run` makes the whole table; `mock` and `drive` are its two ends, to be used by hand. The tests of the suite ask
//! whether the gateway is right; this asks how fast, and is not part of them, because a busy machine would fail it.
//! `tests/load/README.md` says what each figure means.

mod client;
mod drive;
mod gateway;
mod goals;
mod histogram;
mod mock;
mod nginx;
mod phase;
mod process;
mod results;
mod run;
mod table;
mod target;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

pub type BoxError = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
#[command(
    name = "bonito-load",
    about = "Measures Bonito Gateway next to nginx and next to no proxy"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve as an upstream that answers from prebuilt bytes
    Mock(mock::MockArgs),
    /// Put load on one base URL and print what came of it as JSON
    Drive(drive::DriveArgs),
    /// Start mock, nginx and gateway, measure them all and print the table
    Run(run::RunArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    // Dropping the unfinished command ends the processes it started.
    let result = tokio::select! {
        result = execute(Cli::parse().command) => result,
        name = interruption() => Err(name),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bonito-load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(command: Command) -> Result<(), BoxError> {
    match command {
        Command::Mock(args) => Ok(mock::serve(args).await?),
        Command::Drive(args) => {
            let figures = drive::drive(args).await?;
            println!("{}", serde_json::to_string_pretty(&figures)?);
            Ok(())
        }
        Command::Run(args) => run::run(args).await,
    }
}

/// Waits until somebody asks this process to stop, and says so.
async fn interruption() -> BoxError {
    let listen = |kind| signal(kind).expect("a tokio runtime with I/O can listen for signals");
    let mut interrupt = listen(SignalKind::interrupt());
    let mut terminate = listen(SignalKind::terminate());
    let mut hangup = listen(SignalKind::hangup());
    tokio::select! {
        _ = interrupt.recv() => "interrupted".into(),
        _ = terminate.recv() => "terminated".into(),
        _ = hangup.recv() => "hung up on".into(),
    }
}
