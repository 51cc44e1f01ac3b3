//! What the gateway is installed with: `tests/packaging`, run with the binary that was just built.

use std::time::Duration;

use crate::support::script;

/// Installing what the checks need, on a fresh machine, takes most of this.
const PATIENCE: Duration = Duration::from_secs(420);

#[tokio::test]
async fn the_packaging_is_what_helm_kubernetes_compose_and_systemd_take() {
    let said = script::run("tests/packaging/run", PATIENCE, |run| {
        run.arg(env!("CARGO_BIN_EXE_bonito"));
    })
    .await;
    assert!(said.contains(" passed"), "{said}");
}
