//! The management API as its document says it is: Schemathesis asks everything the document allows, and much it does not.

use std::process::Stdio;
use std::time::Duration;

use bonito::domain::role::Role;
use tokio::process::Command;

use crate::support::TestGateway;

/// Installing it on a fresh machine takes a part of this.
const PATIENCE: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_management_api_does_what_its_document_says() {
    let gateway = TestGateway::builder().start().await;
    let child = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/run"))
        .args(["schemathesis", "--max-examples", "3"])
        .env("BONITO_MANAGEMENT_URL", &gateway.api)
        .env("BONITO_MANAGEMENT_TOKEN", gateway.token(Role::PlatformAdmin))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, child)
        .await
        .expect("it ends")
        .expect("it runs");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    gateway.finish().await;
}
