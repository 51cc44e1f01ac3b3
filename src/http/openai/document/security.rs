//! The two ways to show a key.

use std::collections::HashMap;

use poem_openapi::registry::{MetaSecurityScheme, Registry};

/// The scheme that clients are shown first.
pub const BEARER: &str = "bearer";
const API_KEY_HEADER: &str = "apiKeyHeader";

/// Adds both schemes.
pub fn register(registry: &mut Registry) {
    registry.create_security_scheme(
        BEARER,
        MetaSecurityScheme {
            description: Some("Authorization: Bearer bn-…, as OpenAI's SDKs send it."),
            scheme: Some("bearer"),
            bearer_format: Some("bn- followed by 46 letters and digits"),
            ..scheme("http")
        },
    );
    registry.create_security_scheme(
        API_KEY_HEADER,
        MetaSecurityScheme {
            description: Some(
                "x-api-key: bn-…, the same key for clients that cannot set Authorization, which comes first.",
            ),
            name: Some("x-api-key"),
            key_in: Some("header"),
            ..scheme("apiKey")
        },
    );
}

/// One of the two, whichever the client likes better: alternatives are separate entries of the list.
pub fn requirement() -> Vec<HashMap<&'static str, Vec<&'static str>>> {
    [BEARER, API_KEY_HEADER]
        .map(|name| HashMap::from([(name, vec![])]))
        .into()
}

fn scheme(ty: &'static str) -> MetaSecurityScheme {
    MetaSecurityScheme {
        ty,
        description: None,
        name: None,
        key_in: None,
        scheme: None,
        bearer_format: None,
        flows: None,
        openid_connect_url: None,
    }
}
