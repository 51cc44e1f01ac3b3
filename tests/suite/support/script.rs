//! Programs beside the gateway, run to their end: the suites of real clients, examples, checks of what it is installed with.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Runs a program of the project's, by its path in it, as `with` has it. It must succeed in time; what it wrote is returned.
pub async fn run(path: &str, patience: Duration, with: impl FnOnce(&mut Command)) -> String {
    let mut program = Command::new(format!("{}/{path}", env!("CARGO_MANIFEST_DIR")));
    with(&mut program);
    program
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = tokio::time::timeout(patience, program.output())
        .await
        .unwrap_or_else(|_| panic!("{path} does not end"))
        .unwrap_or_else(|error| panic!("{path} does not run: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}
