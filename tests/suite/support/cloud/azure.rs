//! Entra ID for applications of Kubernetes, and the two endpoints of managed identities.

use serde_json::json;

use super::{Arrived, CANARY, LIFETIME_S, Reply, Stage};

/// What a cluster's token file holds.
pub const FEDERATED_TOKEN: &str = "hunter2-federated";
/// What an app's container shows.
pub const IDENTITY_HEADER: &str = "hunter2-identity-header";

pub(super) fn answer(stage: &Stage, asked: &Arrived) -> Option<Reply> {
    let resource = asked.parameter("resource").as_deref() == Some("https://cognitiveservices.azure.com");
    let token = || format!("{CANARY}-azure-{}", stage.next());
    match asked.uri.path() {
        "/contoso/oauth2/v2.0/token" => {
            let proves = asked.field("client_assertion").as_deref() == Some(FEDERATED_TOKEN)
                && asked
                    .field("client_assertion_type")
                    .is_some_and(|kind| kind.ends_with(":jwt-bearer"))
                && asked.field("client_secret").is_none();
            Some(if proves {
                Reply::json(
                    200,
                    &json!({"token_type": "Bearer", "expires_in": LIFETIME_S, "access_token": token()}),
                )
            } else {
                Reply::json(401, &json!({"error": "invalid_client", "error_description": CANARY}))
            })
        }
        "/metadata/identity/oauth2/token" => {
            let good = asked.header("metadata") == "true"
                && resource
                && asked.parameter("api-version").as_deref() == Some("2018-02-01")
                && asked.parameter("client_id").as_deref() == Some("identity-1");
            // Numbers are text here.
            Some(if good {
                Reply::json(
                    200,
                    &json!({"access_token": token(), "expires_in": LIFETIME_S.to_string(), "token_type": "Bearer"}),
                )
            } else {
                Reply::json(400, &json!({"error": "invalid_request", "error_description": CANARY}))
            })
        }
        "/msi/token" => {
            let good = asked.header("x-identity-header") == IDENTITY_HEADER && resource;
            let end = (chrono::Utc::now().timestamp() + LIFETIME_S).to_string();
            Some(if good {
                Reply::json(
                    200,
                    &json!({"access_token": token(), "expires_on": end, "token_type": "Bearer"}),
                )
            } else {
                Reply::json(403, &json!({"statusCode": 403, "message": CANARY}))
            })
        }
        _ => None,
    }
}
