//! The management API as its document says it is: Schemathesis asks everything the document allows, and much it does not.

use std::time::Duration;

use bonito::domain::role::Role;

use crate::support::{TestGateway, script};

/// Installing it on a fresh machine takes a part of this.
const PATIENCE: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_management_api_does_what_its_document_says() {
    let gateway = TestGateway::builder().start().await;
    script::run("tests/clients/run", PATIENCE, |run| {
        run.args(["schemathesis", "--max-examples", "3"])
            .env("BONITO_MANAGEMENT_URL", &gateway.api)
            .env("BONITO_MANAGEMENT_TOKEN", gateway.token(Role::PlatformAdmin));
    })
    .await;
    gateway.finish().await;
}
