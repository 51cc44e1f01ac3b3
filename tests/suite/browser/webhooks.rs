//! Webhooks by pages: created with a secret that is shown once, tested, looked into, sent again, rotated and deleted.

use serde_json::{Value, json};

use super::world::World;
use crate::support::receiver::{Behaviour, Receiver};

#[tokio::test]
async fn a_webhook_lives_its_whole_life_on_its_pages() {
    let receiver = Receiver::start().await;
    let world = World::with(|builder| {
        builder
            .set("fetch.ports", format!("443,{}", receiver.port))
            .set("fetch.allowed_networks", "127.0.0.1/32")
            .set("webhooks.allow_http", true)
    })
    .await;
    let owner = world.person("owner", None).await;
    let browser = world.browser_of(&owner).await;
    browser.open_page("/gateway/webhooks").await;
    browser.until_reads("No webhooks yet").await;
    browser.click("main [data-opens='new-webhook']").await;
    browser.fill("#new-url", &format!("{}/hook", receiver.url)).await;
    browser.fill("#new-description", "<script>alert(1)</script>").await;
    browser.fill("#new-events", "no.such.event,").await;
    browser.assert_accessible("the dialog of a new webhook").await;
    browser.click("#new-webhook button[type=submit]").await;
    browser
        .until("document.querySelector('#new-events').getAttribute('aria-invalid') === 'true'")
        .await;
    browser.keep_picture("webhook-new-desktop-light").await;
    browser.click("#new-webhook .token button").await;
    browser.fill("#new-events", "key.created,").await;
    browser.click("#new-webhook button[type=submit]").await;
    browser.until("document.querySelector('#once').open").await;
    let secret = browser.value("document.querySelector('#once-text').textContent").await;
    assert!(secret.as_str().unwrap().starts_with("whsec_"), "{secret}");
    browser.click("[data-once-done]").await;
    browser
        .until("location.pathname.length > '/gateway/webhooks/'.length")
        .await;
    browser.until_reads("No deliveries yet").await;
    browser.until_reads("<script>alert(1)</script>").await;
    assert_eq!(
        browser
            .value(&format!("document.documentElement.outerHTML.includes({secret})"))
            .await,
        json!(false)
    );

    // A test arrives, and the page says so by itself.
    browser.click(".page-actions [data-api$='/test']").await;
    receiver.until("/hook", 1).await;
    browser
        .until("document.querySelector('.audit .pill.good')?.textContent === 'delivered'")
        .await;
    browser.click(".audit summary").await;
    browser.until_reads("status 204").await;
    browser.until_reads("webhook.test").await;
    for (width, height, dark, name) in [(1440, 900, false, "desktop-light"), (390, 844, true, "phone-dark")] {
        browser.look(width, height, dark).await;
        browser.assert_accessible("the deliveries of a webhook").await;
        browser.keep_picture(&format!("webhook-{name}")).await;
    }
    browser.look(1440, 900, false).await;

    // Sent again.
    browser.click("[data-api$='/replay']").await;
    receiver.until("/hook", 2).await;
    browser
        .until("document.querySelectorAll('.audit .pill.good').length === 2")
        .await;
    // What is not taken is said, and waits for another try.
    receiver.behave("/hook", Behaviour::Status(500));
    browser.click(".page-actions [data-api$='/test']").await;
    receiver.until("/hook", 3).await;
    browser
        .until("document.querySelector('.audit')?.innerText.includes('status 500')")
        .await;
    browser
        .open_page(&format!(
            "{}?state=waiting",
            browser.value("location.pathname").await.as_str().unwrap()
        ))
        .await;
    browser
        .until("document.querySelectorAll('.audit > li').length === 1")
        .await;

    // Rotated, switched off, deleted.
    browser.click("[data-opens='rotate-webhook']").await;
    browser.click("#rotate-webhook button[type=submit]").await;
    browser.until("document.querySelector('#once').open").await;
    assert_ne!(
        browser.value("document.querySelector('#once-text').textContent").await,
        secret
    );
    browser.click("[data-once-done]").await;
    browser.until_reads("Previous secret").await;
    browser.click(".page-actions [data-body*=enabled]").await;
    browser.until("document.querySelector('.lead .pill.quiet')").await;
    browser.click(".page-actions [data-api^=DELETE]").await;
    browser.click("[data-confirm-yes]").await;
    browser.until_reads("No webhooks yet").await;
    let complaints = browser.complaints(&["status of 4"]).await;
    assert!(complaints.is_empty(), "{complaints:?}");

    let viewer = world.person("viewer", None).await;
    let other = world.browser_of(&viewer).await;
    other.open_page("/gateway/webhooks").await;
    other.until_reads("No webhooks yet").await;
    assert_eq!(
        other.value("document.querySelector('main [data-opens]')").await,
        Value::Null
    );
    world.finish([browser, other]).await;
}
