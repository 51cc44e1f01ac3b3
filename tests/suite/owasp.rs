//! The OWASP API Security Top 10 (2023): that the threat model names a test for each of them, and the one risk that has no
//! test of its own elsewhere, which is what a surface shows by being set up carelessly.

use std::path::Path;

use bonito::domain::role::Role;
use serde_json::json;

use crate::support::TestGateway;

/// The table of risks and tests, by rows.
fn risks() -> Vec<Vec<String>> {
    let page = include_str!("../../docs/threat-model.md");
    let rows = page.lines().filter(|line| line.starts_with("| API"));
    rows.map(|row| {
        row.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    })
    .collect()
}

/// The file of a module of this suite.
fn source(module: &str) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/suite")
        .join(module.replace("::", "/"));
    let files = [path.with_extension("rs"), path.join("mod.rs")];
    files.iter().find_map(|file| std::fs::read_to_string(file).ok())
}

#[test]
fn every_risk_has_tests_and_they_exist() {
    let risks = risks();
    let names: Vec<&str> = risks.iter().map(|row| row[0].split(' ').next().unwrap()).collect();
    assert_eq!(
        names,
        [
            "API1", "API2", "API3", "API4", "API5", "API6", "API7", "API8", "API9", "API10"
        ]
    );
    for row in risks {
        let tests: Vec<&str> = row[2].split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{row:?}");
        for test in tests {
            let (module, name) = test.rsplit_once("::").unwrap_or_else(|| panic!("{test} has no module"));
            let source = source(module).unwrap_or_else(|| panic!("{test}: there is no such module"));
            assert!(source.contains(&format!("fn {name}(")), "there is no test {test}");
        }
    }
}

#[tokio::test]
async fn no_surface_tells_of_the_inside_or_lets_other_sites_in() {
    let gateway = TestGateway::builder().start().await;
    let admin = gateway.token(Role::Admin);
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    for (path, token) in [
        ("/v1/models", gateway.key.as_str()),
        ("/v1/models", "bn-wrong"),
        ("/v1/nowhere", gateway.key.as_str()),
        ("/api/gateway/keys", admin.as_str()),
        ("/api/gateway/keys", "wrong"),
        ("/api/nowhere", admin.as_str()),
        ("/docs", ""),
        ("/gateway", ""),
        ("/gateway/nowhere", ""),
        ("/.env", ""),
        ("/.git/config", ""),
        ("/metrics", ""),
        ("/debug/pprof", ""),
    ] {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND"] {
            let request = client
                .request(method.parse().unwrap(), format!("{}{path}", gateway.api))
                .bearer_auth(token)
                // A page of another site asks on behalf of whoever looks at it.
                .header("origin", "https://evil.example")
                .header("access-control-request-method", "POST")
                .header("access-control-request-headers", "authorization")
                .header("x-canary", "canary-of-the-request");
            let answer = request.send().await.unwrap();
            let (status, headers) = (answer.status(), answer.headers().clone());
            let place = format!("{method} {path}: {status}");
            assert!(!status.is_server_error(), "{place}");
            assert!(
                headers.keys().all(|name| !name.as_str().starts_with("access-control-")),
                "{place}"
            );
            for name in ["server", "x-powered-by", "via"] {
                assert!(!headers.contains_key(name), "{place} has {name}");
            }
            let body = answer.text().await.unwrap();
            if !["GET", "HEAD"].contains(&method) {
                assert!(!status.is_success(), "{place}");
            }
            assert!(!body.contains("canary-of-the-request"), "{place} echoes a header");
            if !status.is_success() {
                for inside in [".rs:", "src/", "panicked", "sqlx", "sea_orm", "SELECT ", "stack"] {
                    assert!(!body.contains(inside), "{place} tells of {inside}: {body}");
                }
            }
        }
    }
    // What an admin reads is kept by no cache, and is never taken for a page.
    let keys = gateway.manage("GET", "/api/gateway/keys", &admin, None).await;
    assert_eq!(
        (keys.header("cache-control"), keys.header("x-content-type-options")),
        ("no-store", "nosniff")
    );
    // Nor is what somebody uploaded, whatever it looks like.
    let file = reqwest::multipart::Part::text("{\"custom_id\":\"<script>alert(1)</script>\"}\n").file_name("a.html");
    let form = reqwest::multipart::Form::new()
        .text("purpose", "batch")
        .part("file", file);
    let upload = gateway
        .client
        .post(format!("{}/v1/files", gateway.api))
        .bearer_auth(&gateway.key);
    let uploaded: serde_json::Value = upload.multipart(form).send().await.unwrap().json().await.unwrap();
    let content = format!("/v1/files/{}/content", uploaded["id"].as_str().unwrap());
    let content = gateway.get(&content, &gateway.key).await;
    assert_eq!(
        (content.status, content.header("x-content-type-options")),
        (200, "nosniff")
    );
    assert!(!content.header("content-type").contains("html"));
    // What a page of another site can send without asking is not taken from it.
    let simple = gateway
        .client
        .post(format!("{}/api/gateway/keys", gateway.api))
        .bearer_auth(&admin);
    let simple = simple
        .header("content-type", "text/plain")
        .body(json!({"name": "k"}).to_string());
    assert!(simple.send().await.unwrap().status().is_client_error());
    gateway.finish().await;
}
