//! Providers by pages: credentials that nobody reads again, a test call, switching off, and prices of one's own.

use bonito::domain::health::{HealthChange, Reason, Word};
use bonito::domain::watched::{Spot, SpotId};
use serde_json::{Value, json};

use super::world::{EVIL, World};

#[tokio::test]
async fn a_credential_is_stored_tried_and_taken_away_by_pages_and_never_shown() {
    let world = World::new().await;
    let owner = world.person("owner", None).await;
    let browser = world.browser_of(&owner).await;
    browser.open_page("/gateway/providers").await;
    browser.until_reads("passing").await;
    browser.click(".page-actions [data-opens='connect']").await;
    browser.until("document.querySelector('#connect').open").await;
    browser.assert_accessible("the choice of a provider").await;
    browser.keep_picture("provider-choice-desktop-light").await;

    // Each provider takes fields of its own, and what is wrong is said at them.
    browser.click("#connect [data-opens='credential-azure']").await;
    browser.until("document.querySelector('#credential-azure').open").await;
    browser.fill("#azure-endpoint", "https://evil.example").await;
    browser.fill("#azure-api_key", "canary-of-azure").await;
    browser.assert_accessible("the dialog of a credential").await;
    browser.keep_picture("credential-desktop-light").await;
    browser.click("#credential-azure button[type=submit]").await;
    browser
        .until("document.querySelector('#azure-endpoint').getAttribute('aria-invalid') === 'true'")
        .await;
    browser.click("#credential-azure [data-closes]").await;
    browser.click("#connect [data-opens='credential-openai']").await;
    browser.fill("#openai-api_key", "sk-canary-of-a-page").await;
    browser.click("#credential-openai button[type=submit]").await;
    browser.until_at("/gateway/providers/openai").await;
    browser.until_reads("this organization only").await;
    assert_eq!(
        browser
            .value("document.documentElement.outerHTML.includes('canary')")
            .await,
        json!(false)
    );

    // A test call, and what came of it.
    browser.choose("#test-model", "gpt-5-mini").await;
    browser.click("form[data-test] button[type=submit]").await;
    browser
        .until("document.querySelector('[data-test-result] .notice.good')")
        .await;
    browser.until_reads("openai/gpt-5-mini answered in").await;
    browser.assert_accessible("a provider that was tested").await;
    browser.keep_picture("provider-tested-desktop-light").await;

    // Switched off, it serves nobody; switched on, it does.
    browser.click(".page-actions [data-api^=PATCH]").await;
    browser.click("[data-confirm-yes]").await;
    browser
        .until("document.querySelector('[data-live=state]').innerText.trim() === 'off'")
        .await;
    let body = json!({"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hello"}]});
    let reply = world.gateway.post("/v1/chat/completions", &body).await;
    assert_ne!(reply.status, 200, "{}", reply.text);
    browser.click(".page-actions [data-api^=PATCH]").await;
    browser
        .until("document.querySelector('[data-live=state]').innerText.trim() === 'passing'")
        .await;

    // Taken away, the one from before is used again.
    browser
        .click("[data-api^='DELETE /api/gateway/providers/openai/credentials']")
        .await;
    browser.click("[data-confirm-yes]").await;
    browser.until_at("/gateway/providers").await;
    let complaints = browser.complaints(&["status of 4"]).await;
    assert!(complaints.is_empty(), "{complaints:?}");

    let viewer = world.person("viewer", None).await;
    let other = world.browser_of(&viewer).await;
    other.open_page("/gateway/providers/openai").await;
    other.until_reads("Credentials").await;
    assert_eq!(
        other
            .value("document.querySelector('main [data-api], main [data-opens], form[data-test]')")
            .await,
        Value::Null
    );
    other.open_page("/gateway/providers/nobody").await;
    other.until("document.querySelector('[data-error=\"404\"]')").await;
    world.finish([browser, other]).await;
}

#[tokio::test]
async fn an_own_price_is_set_shown_beside_the_list_price_and_taken_back() {
    let world = World::new().await;
    let owner = world.person("owner", None).await;
    let browser = world.browser_of(&owner).await;
    browser.open_page("/gateway/providers/catalogue?provider=openai").await;
    browser.until("document.querySelector('#catalogue tbody tr')").await;
    let opens = "[data-opens=price][data-deployment='openai/gpt-5-mini']";
    browser.click(opens).await;
    browser.until("document.querySelector('#price').open").await;
    browser.fill("#price-input", "cheap").await;
    browser.fill("#price-output", "3").await;
    browser.assert_accessible("the dialog of a price").await;
    browser.click("#price button[type=submit]").await;
    browser.until("document.querySelector('#price-input').getAttribute('aria-invalid') === 'true' || !document.querySelector('#price [data-form-fault]').hidden").await;
    browser.keep_picture("price-fault-desktop-light").await;
    browser.fill("#price-input", "0.75").await;
    browser.click("#price button[type=submit]").await;
    browser
        .until("document.querySelector('#catalogue')?.innerText.includes('custom')")
        .await;
    let row = browser
        .value(&format!("document.querySelector(\"{opens}\").closest('tr').innerText"))
        .await;
    assert!(
        row.as_str().unwrap().contains("$0.75") && row.as_str().unwrap().contains("$3.00"),
        "{row}"
    );
    let config = world
        .gateway
        .manage(
            "GET",
            "/api/gateway/config",
            &world.gateway.token(bonito::domain::role::Role::Owner),
            None,
        )
        .await;
    assert_eq!(
        config.json()["prices"].as_array().map(Vec::len),
        Some(1),
        "{}",
        config.text
    );

    browser.open_page("/gateway/providers/catalogue?price=own").await;
    browser
        .until("document.querySelectorAll('#catalogue tbody tr').length === 1")
        .await;
    browser.click(opens).await;
    browser.click("[data-price-reset]").await;
    browser.until_reads("No matching models").await;
    browser
        .open_page("/gateway/providers/catalogue?search=no-such-model")
        .await;
    browser.until_reads("No matching models").await;
    let complaints = browser.complaints(&["status of 4"]).await;
    assert!(complaints.is_empty(), "{complaints:?}");
    world.finish([browser]).await;
}

#[tokio::test]
async fn what_became_of_a_provider_is_drawn_on_its_page() {
    let world = World::new().await;
    let owner = world.person("owner", None).await;
    let browser = world.browser_of(&owner).await;
    browser.open_page("/gateway/providers/openai").await;
    browser.until_reads("Attempts by result").await;
    browser
        .until_reads("It has not been out of rotation in the last 30 days")
        .await;
    let (store, now) = (&world.gateway.store, chrono::Utc::now());
    let spot = Spot {
        id: SpotId(1),
        provider: "openai".into(),
        owner: None,
        credential: Some(EVIL.to_owned()),
        region: Some("eu-west-1".to_owned()),
        host: None,
        own_endpoint: false,
    };
    for (minutes, from, to, reason) in [
        (90, Word::Passing, Word::Ejected, Reason::FailuresInARow),
        (60, Word::Ejected, Word::Probing, Reason::TimeOver),
        (59, Word::Probing, Word::Passing, Reason::ProbeAnswered),
    ] {
        let at = now - chrono::TimeDelta::minutes(minutes);
        let change = HealthChange {
            from,
            to,
            until: (to == Word::Ejected).then(|| at + chrono::TimeDelta::minutes(30)),
            reason,
            at,
        };
        store
            .write_health_change(Some(world.gateway.organization), &spot, &change)
            .await
            .unwrap();
    }
    for (width, height) in [(1440, 900), (390, 844)] {
        browser.look(width, height, false).await;
        browser.open_page("/gateway/providers/openai").await;
        browser
            .until("document.querySelectorAll('#health-history tbody tr').length === 3")
            .await;
        browser.until_reads("several failures in a row").await;
        assert_eq!(
            browser
                .value("document.querySelectorAll('#health-strips rect.health-ejected').length")
                .await,
            json!(1)
        );
        browser.assert_accessible("a provider that was out").await;
    }
    assert_eq!(
        browser.value("document.querySelectorAll('img[src=x]').length").await,
        json!(0)
    );
    browser.assert_quiet("a provider that was out").await;
    world.finish([browser]).await;
}
