//! `bonito health`: asks the gateway on this machine, for images without a shell or curl.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::say;
use crate::config::Settings;
use crate::domain::error::BoxError;

/// How long the whole question may take; the database alone is given a second.
const PATIENCE: Duration = Duration::from_secs(3);
/// What is read of an answer at most.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

/// What to ask for.
#[derive(clap::Args)]
pub struct Arguments {
    /// Ask whether requests should come here (/readyz) rather than whether the process lives (/livez).
    #[arg(long)]
    ready: bool,
}

/// Prints the answer; exits with 0 if it is good, and with 1 if it is not or none comes.
pub async fn run(arguments: Arguments, settings: &Settings) -> Result<ExitCode, BoxError> {
    let address = reachable(settings.operations.listen);
    let path = if arguments.ready { "/readyz" } else { "/livez" };
    let (status, body) = match tokio::time::timeout(PATIENCE, ask(address, path)).await {
        Ok(answer) => answer.map_err(|error| format!("http://{address}{path}: {error}"))?,
        Err(_) => return Err(format!("http://{address}{path} does not answer within {PATIENCE:?}").into()),
    };
    say(&body);
    Ok(if status == 200 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Where a listener at `listen` is reached from this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen {
        SocketAddr::V4(at) if at.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, at.port()).into(),
        SocketAddr::V6(at) if at.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, at.port()).into(),
        other => other,
    }
}

/// Status and body of a GET.
async fn ask(address: SocketAddr, path: &str) -> Result<(u16, String), BoxError> {
    let mut connection = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.take(MAX_ANSWER_BYTES).read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("this is no answer")?;
    let status = head.split(' ').nth(1).ok_or("this is no answer")?;
    Ok((status.parse()?, body.trim().to_owned()))
}
