//! What the gateway is installed with: `tests/packaging`, run with the binary that was just built.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Installing what the checks need, on a fresh machine, takes most of this.
const PATIENCE: Duration = Duration::from_secs(420);

#[tokio::test]
async fn the_packaging_is_what_helm_kubernetes_compose_and_systemd_take() {
    let child = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/packaging/run"))
        .arg(env!("CARGO_BIN_EXE_bonito"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, child)
        .await
        .expect("it ends")
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains(" passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
