//! What an organization adds by pages: endpoints, models and prices of its own, and past calls at other prices.

use bonito::domain::role::Role;
use serde_json::{Value, json};

use super::rig::Browser;
use super::world::World;
use crate::support::ScriptedProvider;
use crate::support::gateway::Builder;

/// A gateway whose organizations may have endpoints on this machine.
fn with_endpoints(provider: &ScriptedProvider) -> impl FnOnce(Builder) -> Builder {
    let port = provider
        .origin()
        .rsplit(':')
        .next()
        .expect("it has a port")
        .trim_end_matches('/')
        .to_owned();
    move |builder| {
        builder
            .set("fetch.ports", format!("443,{port}"))
            .set("fetch.allowed_networks", "127.0.0.1/32")
            .set("upstream.endpoints_allow_http", true)
    }
}

/// What is said to be wrong at a field.
async fn fault_at(browser: &Browser, field: &str) -> String {
    browser
        .until(&format!(
            "document.querySelector('{field}').getAttribute('aria-invalid') === 'true'"
        ))
        .await;
    let said = format!("document.querySelector('{field}').closest('.field').querySelector('[data-fault]').textContent");
    browser.value(&said).await.as_str().expect("it is text").to_owned()
}

#[tokio::test]
async fn an_endpoint_and_its_model_live_their_whole_lives_on_pages() {
    let provider = ScriptedProvider::start().await;
    let world = World::with(with_endpoints(&provider)).await;
    let owner = world.person("owner", None).await;
    let browser = world.browser_of(&owner).await;

    // An endpoint: what is wrong is said at its field.
    browser.open_page("/gateway/providers").await;
    browser.click("[data-opens='new-endpoint']").await;
    browser.until("document.querySelector('#new-endpoint').open").await;
    browser.fill("#endpoint-id", "openai").await;
    browser.fill("#endpoint-url", "https://10.0.0.1/v1").await;
    browser.fill("#endpoint-most", "many").await;
    browser.assert_accessible("the dialog of a new endpoint").await;
    browser.click("#new-endpoint button[type=submit]").await;
    assert_eq!(fault_at(&browser, "#endpoint-id").await, "This is taken.");
    browser.fill("#endpoint-id", "house").await;
    browser.click("#new-endpoint button[type=submit]").await;
    assert_eq!(fault_at(&browser, "#endpoint-most").await, "This must be a number.");
    browser.fill("#endpoint-most", "5").await;
    browser.click("#new-endpoint button[type=submit]").await;
    assert!(!fault_at(&browser, "#endpoint-url").await.is_empty());
    browser.keep_picture("endpoint-new-fault-desktop-light").await;
    // An id that only the gateway knows to be taken.
    browser.fill("#endpoint-url", &provider.base_url()).await;
    browser.fill("#endpoint-id", "azure").await;
    browser.click("#new-endpoint button[type=submit]").await;
    assert!(!fault_at(&browser, "#endpoint-id").await.is_empty());
    browser.fill("#endpoint-id", "house").await;
    browser.click("#new-endpoint button[type=submit]").await;
    browser.until_at("/gateway/providers/house").await;
    browser.until_reads("This endpoint is not used yet").await;
    browser.until_reads("at most 5 per credential").await;
    for (width, height, dark, name) in [(1440, 900, false, "desktop-light"), (390, 844, true, "phone-dark")] {
        browser.look(width, height, dark).await;
        browser.assert_accessible("an endpoint without a credential").await;
        browser.keep_picture(&format!("endpoint-{name}")).await;
    }
    browser.look(1440, 900, false).await;
    browser.click("[data-opens='credential-house']").await;
    browser.fill("#house-api_key", "sk-of-the-house").await;
    browser.click("#credential-house button[type=submit]").await;
    browser
        .until("document.querySelector('main') && !document.querySelector('main').innerText.includes('This endpoint is not used yet') && document.readyState === 'complete'")
        .await;

    // A model there.
    browser.open_page("/gateway/providers/catalogue").await;
    browser.click("[data-opens='new-model']").await;
    browser.until("document.querySelector('#new-model').open").await;
    browser.choose("#model-provider", "house").await;
    browser.fill("#model-model", "butler").await;
    browser.fill("#model-name", "butler-v2").await;
    browser.fill("#model-aliases", "james,").await;
    browser.fill("#model-context", "32000").await;
    browser.fill("#model-input", "a lot").await;
    browser.fill("#model-output", "1.5").await;
    browser.assert_accessible("the dialog of a new model").await;
    browser.keep_picture("model-new-desktop-light").await;
    browser.click("#new-model button[type=submit]").await;
    assert!(!fault_at(&browser, "#model-input").await.is_empty());
    browser.fill("#model-input", "0.5").await;
    browser.click("#new-model button[type=submit]").await;
    let row = "#own-models tr[data-model='house/butler/butler-v2']";
    browser.until(&format!("document.querySelector(\"{row}\")")).await;
    browser.until_reads("james").await;
    let body = json!({"model": "james", "messages": [{"role": "user", "content": "hello"}]});
    let reply = world.gateway.post("/v1/chat/completions", &body).await;
    assert_eq!(
        (reply.status, reply.header("x-bonito-provider")),
        (200, "house"),
        "{}",
        reply.text
    );

    // Changed: the dialog begins with what was written, and keeps what it does not show at once.
    browser.click(&format!("{row} [data-opens='edit-model']")).await;
    browser.until("document.querySelector('#edit-model').open").await;
    let begins = browser
        .value("['name', 'context_tokens', 'input_usd', 'output_usd'].map(name => document.querySelector('#edit-model form').elements[name].value)")
        .await;
    assert_eq!(begins, json!(["butler-v2", "32000", "0.5", "1.5"]));
    browser.click("#edit-model .more-fields summary").await;
    browser.choose("#change-model-vision", "true").await;
    browser.fill("#change-model-most", "4000").await;
    browser.assert_accessible("the dialog that changes a model").await;
    browser.click("#edit-model button[type=submit]").await;
    browser.until("!document.querySelector('#edit-model').open").await;
    let token = world.gateway.token(Role::Owner);
    let path = "/api/gateway/models/house%2Fbutler%2Fbutler-v2";
    let written = world.gateway.manage("GET", path, &token, None).await.json();
    assert_eq!(
        (
            &written["max_output_tokens"],
            &written["capabilities"],
            &written["aliases"]
        ),
        (&json!(4_000), &json!({"vision": true}), &json!(["james"])),
        "{written}"
    );

    // What is still needed is not taken away; then it is.
    browser.open_page("/gateway/providers/house").await;
    browser
        .click("main [data-api='DELETE /api/gateway/providers/house']")
        .await;
    browser.click("[data-confirm-yes]").await;
    browser.until_reads("the config still names what is at house").await;
    browser.open_page("/gateway/providers/catalogue").await;
    browser.click(&format!("{row} [data-api^=DELETE]")).await;
    browser.click("[data-confirm-yes]").await;
    browser.until(&format!("!document.querySelector(\"{row}\")")).await;
    browser.open_page("/gateway/providers/house").await;
    browser
        .click("main [data-api='DELETE /api/gateway/providers/house']")
        .await;
    browser.click("[data-confirm-yes]").await;
    browser.until_at("/gateway/providers").await;
    browser
        .until("!document.querySelector('#providers').innerText.includes('house')")
        .await;
    let complaints = browser.complaints(&["status of 4"]).await;
    assert!(complaints.is_empty(), "{complaints:?}");
    world.finish([browser]).await;
}

#[tokio::test]
async fn prices_hold_from_a_moment_on_and_past_calls_follow_them_after_a_dry_run() {
    let world = World::new().await;
    let owner = world.person("owner", None).await;
    let token = world.gateway.token(Role::Owner);
    let browser = world.browser_of(&owner).await;
    let config = async || {
        world
            .gateway
            .manage("GET", "/api/gateway/config", &token, None)
            .await
            .json()
    };

    // A price from a moment on stands beside the one from the beginning.
    let opens = "[data-opens='price'][data-deployment='openai/gpt-5-mini']";
    browser
        .open_page("/gateway/providers/catalogue?search=gpt-5-mini")
        .await;
    browser.click(opens).await;
    browser.until("document.querySelector('#price').open").await;
    browser.fill("#price-input", "much").await;
    browser.click("#price button[type=submit]").await;
    assert!(!fault_at(&browser, "#price-input").await.is_empty());
    browser.fill("#price-input", "3").await;
    browser.fill("#price-output", "12").await;
    browser.click("#price button[type=submit]").await;
    browser.until_reads("custom; list").await;
    browser.click(opens).await;
    browser
        .until("document.querySelectorAll('[data-price-list] li').length === 1")
        .await;
    browser
        .value("document.querySelector('#price-from').value = '2026-11-20T00:00'")
        .await;
    browser.fill("#price-input", "4").await;
    browser.assert_accessible("the dialog of prices").await;
    browser.keep_picture("price-own-desktop-light").await;
    browser.click("#price button[type=submit]").await;
    browser
        .until("document.querySelector('#catalogue') && !document.querySelector('#price').open")
        .await;
    let prices = config().await["prices"].clone();
    assert_eq!(
        (&prices[0]["input_usd"], &prices[0]["from"], &prices[1]["input_usd"]),
        (&json!("3"), &Value::Null, &json!("4")),
        "{prices}"
    );
    browser.click(opens).await;
    browser
        .until("document.querySelectorAll('[data-price-list] li').length === 2")
        .await;
    browser.click("[data-price-list] li:nth-child(2) button").await;
    browser.until("!document.querySelector('#price').open").await;
    assert_eq!(config().await["prices"].as_array().map(Vec::len), Some(1));

    // What would change is found out first, and done for good only then.
    browser.open_page("/gateway/providers/repricing").await;
    browser.until_reads("No re-pricings yet").await;
    let set = |from: &str, to: &str| {
        format!(
            "document.querySelector('#reprice-from').value = '{from}'; document.querySelector('#reprice-to').value = '{to}'"
        )
    };
    browser
        .client
        .execute(&set("2026-11-02T00:00", "2026-11-01T00:00"), Vec::new())
        .await
        .unwrap();
    browser.fill("#reprice-provider", "nobody").await;
    browser.click("form[data-api$='/reprice'] button[type=submit]").await;
    assert_eq!(fault_at(&browser, "#reprice-to").await, "This must be later than from.");
    browser
        .client
        .execute(&set("2020-01-01T00:00", ""), Vec::new())
        .await
        .unwrap();
    browser.click("form[data-api$='/reprice'] button[type=submit]").await;
    assert!(fault_at(&browser, "#reprice-provider").await.contains("nobody"));
    browser.fill("#reprice-provider", "openai").await;
    browser.fill("#reprice-model", "gpt-5-mini").await;
    browser.click("form[data-api$='/reprice'] button[type=submit]").await;
    browser
        .until("document.querySelector('[data-live=repricings] .pill')?.textContent === 'dry run done'")
        .await;
    let cost = "SELECT CAST(COALESCE(SUM(cost_nanousd), 0) AS bigint) AS n FROM gateway_requests";
    let before = world.gateway.number(cost).await;
    browser
        .until("document.querySelector('[data-live=repricings] details').open")
        .await;
    browser.until_reads("Would change").await;
    for (width, height, dark, name) in [(1440, 900, false, "desktop-light"), (390, 844, true, "phone-dark")] {
        browser.look(width, height, dark).await;
        browser.assert_accessible("a dry run").await;
        browser.keep_picture(&format!("repricing-done-{name}")).await;
    }
    browser.look(1440, 900, false).await;
    assert_eq!(world.gateway.number(cost).await, before, "a dry run changes nothing");
    browser
        .click("[data-live=repricings] button[data-api$='/reprice']")
        .await;
    browser.until_reads("Prices at the time you confirm are used").await;
    browser.click("[data-confirm-yes]").await;
    browser
        .until("document.querySelector('[data-live=repricings] .pill')?.textContent === 'done'")
        .await;
    let list = "/api/gateway/prices/reprice";
    let done = world.gateway.manage("GET", list, &token, None).await.json();
    let difference = done["data"][0]["difference_nanousd"].as_i64().expect("it is known");
    assert_eq!(done["data"][0]["dry_run"], false);
    assert!(difference != 0, "{done}");
    assert_eq!(world.gateway.number(cost).await, before + difference);
    let complaints = browser.complaints(&["status of 4"]).await;
    assert!(complaints.is_empty(), "{complaints:?}");
    browser.close().await;

    // Whoever only looks sees all of it, and changes nothing.
    let viewer = world.person("viewer", None).await;
    let browser = world.browser_of(&viewer).await;
    for (path, ready) in [
        ("/gateway/providers/repricing", "[data-live=repricings] details"),
        ("/gateway/providers/catalogue", "#catalogue tbody tr"),
        ("/gateway/providers", "#providers tbody tr"),
    ] {
        browser.open_page(path).await;
        browser.until(&format!("document.querySelector('{ready}')")).await;
        for what in ["main [data-api]", "main [data-opens]", "#new-model", "#new-endpoint"] {
            let found = browser.value(&format!("document.querySelector('{what}')")).await;
            assert_eq!(found, Value::Null, "{what} at {path}");
        }
    }
    browser.assert_quiet("prices to look at").await;
    world.finish([browser]).await;
}
