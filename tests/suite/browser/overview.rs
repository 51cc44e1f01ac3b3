//! The overview, which is kept up to date while somebody looks at it.

use bonito::domain::role::Role;
use serde_json::{Value, json};

use super::world::{EVIL, browser_of, person};
use crate::support::{Answer, ScriptedProvider, TestGateway};

#[tokio::test]
async fn a_provider_that_fails_is_seen_to_be_ejected_and_until_when() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat"])
        .set("health.failures_in_a_row", 2)
        .set("health.eject_ms", 600_000)
        .set("health.max_eject_ms", 600_000)
        .start()
        .await;
    let viewer = person(&gateway, "viewer", None).await;
    let browser = browser_of(&gateway, &viewer).await;
    let state = |word: &str| {
        format!(
            "[...document.querySelectorAll('[data-live=health] li')].some(row => row.textContent.includes('openai') && \
             row.querySelector('.pill').textContent === {})",
            json!(word)
        )
    };
    browser.until(&state("passing")).await;
    browser.until("document.querySelector('[data-live-dot].on')").await;
    provider.always(Answer::error(500, &json!({"message": "down"})));
    for _ in 0..3 {
        assert!(gateway.chat("mock-chat", "hello").await.status >= 500);
    }
    // Nobody has loaded the page anew.
    browser.until(&state("ejected")).await;
    let until = "document.querySelector('[data-live=health] time')?.textContent.startsWith('in ')";
    browser.until(until).await;
    browser
        .until("document.querySelector('[data-live=recent] .pill.bad')")
        .await;
    browser.assert_accessible("the overview with an ejected provider").await;
    browser.assert_quiet("the overview with an ejected provider").await;
    browser.close().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_platform_admin_looks_at_another_organization_and_nobody_else_does() {
    let gateway = TestGateway::builder().start().await;
    let token = gateway.token(Role::PlatformAdmin);
    let other = json!({"slug": "other", "name": format!("Other {EVIL}")});
    let made = gateway.manage("POST", "/api/organizations", &token, Some(&other)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let chosen = format!("document.querySelector('#organization')?.value === {}", json!(id));
    let admin = person(&gateway, "platform_admin", None).await;
    let browser = browser_of(&gateway, &admin).await;
    browser.value("window.stale = true").await;
    browser.choose("#organization", &id).await;
    browser.until(&format!("!window.stale && {chosen}")).await;
    browser.open_page("/gateway/keys").await;
    browser.until_reads("No keys yet").await;
    assert_eq!(browser.value(&chosen).await, json!(true));
    // What the page changes is in that organization, too.
    browser.click("main [data-opens='new-key']").await;
    browser.fill("#new-name", "theirs").await;
    browser.click("#new-key button[type=submit]").await;
    browser.until("document.querySelector('#secret').open").await;
    let header = [("x-bonito-organization", id.as_str())];
    let theirs = gateway
        .manage_with("GET", "/api/gateway/keys", &token, None, &header)
        .await;
    assert_eq!(theirs.json()["data"][0]["name"], "theirs", "{}", theirs.text);
    browser.assert_quiet("another organization").await;
    browser.close().await;

    // Somebody else's cookie of that name changes nothing.
    let owner = person(&gateway, "owner", None).await;
    let browser = browser_of(&gateway, &owner).await;
    assert_eq!(
        browser.value("document.querySelector('#organization')").await,
        Value::Null
    );
    let cookie = format!("document.cookie = 'bonito_organization={id}; path=/'");
    browser.value(&cookie).await;
    browser.open_page("/gateway/keys").await;
    browser.until_reads("first key").await;
    browser.close().await;
    gateway.finish().await;
}
