//! Routing by pages: a draft with its faults at their places, what it would do, saved against what its author saw, and
//! versions that can be compared and restored.

use bonito::domain::role::Role;
use serde_json::{Value, json};

use super::world::World;

#[tokio::test]
async fn a_config_is_drafted_tried_saved_compared_and_restored() {
    let world = World::new().await;
    world.ask_around().await;
    let owner = world.person("owner", None).await;
    let browser = world.browser_of(&owner).await;
    browser.open_page("/gateway/routing").await;
    browser
        .until_reads("No rules. The strategy applies to all requests.")
        .await;

    // What is no JSON is pointed at, and cannot be saved.
    let set = |text: &str| {
        format!(
            "(() => {{ const area = document.querySelector('#document'); area.value = {}; area.dispatchEvent(new Event('input', {{bubbles: true}})); return true; }})()",
            json!(text)
        )
    };
    browser
        .value(&set("{\n  \"strategy\": \"failover\",\n  \"rules\" []\n}"))
        .await;
    browser.until_reads("Line 3").await;
    browser.until_reads("a colon is missing here").await;
    assert_eq!(
        browser.value("document.querySelector('[data-save]').disabled").await,
        json!(true)
    );
    browser.assert_accessible("a draft that is no JSON").await;
    browser.keep_picture("routing-fault-desktop-light").await;
    browser.click("[data-faults] button").await;
    let at = browser.value("document.querySelector('#document').value.slice(document.querySelector('#document').selectionStart).startsWith('[]')").await;
    assert_eq!(at, json!(true));
    browser.click("[data-discard]").await;

    // A rule whose condition is wrong is found out by the gateway, with the place.
    browser.click("[data-rule-new]").await;
    browser.until("document.querySelector('#rule').open").await;
    browser.fill("#rule-name", "big <b>prompts</b>").await;
    browser.fill("#rule-when", "input_tokens > ").await;
    browser.fill("#rule-route", "claude-sonnet-5,").await;
    browser.assert_accessible("the dialog of a rule").await;
    browser.keep_picture("routing-rule-desktop-light").await;
    browser.click("#rule button[type=submit]").await;
    browser.until_reads("/rules/0/when").await;
    browser.until_reads("big <b>prompts</b>").await;
    browser.click("[aria-label='Edit big <b>prompts</b>']").await;
    browser.fill("#rule-when", "input_tokens > 2000").await;
    browser.click("#rule button[type=submit]").await;
    browser
        .until("document.querySelector('[data-faults]').hidden && !document.querySelector('#rule').open")
        .await;

    // A strategy and a fallback.
    browser.click("[data-strategy][value='cost-optimized']").await;
    browser.click("[data-opens=fallback]").await;
    browser.fill("#fallback-model", "gpt-5").await;
    browser.fill("#fallback-others", "claude-sonnet-5,").await;
    browser.click("#fallback button[type=submit]").await;
    browser.until_reads("gpt-5 → claude-sonnet-5").await;
    browser.until_reads("Unsaved changes").await;

    // What it would do with one request, and with those that there were.
    browser.fill("#explain-model", "gpt-5-mini").await;
    browser.fill("#explain-input", "9000").await;
    browser.click("[data-explain] button[type=submit]").await;
    browser.until_reads("Matching rule: big <b>prompts</b>.").await;
    browser
        .until("document.querySelector('[data-explained]').innerText.includes('anthropic/claude-sonnet-5')")
        .await;
    browser.click("[data-simulate] button[type=submit]").await;
    browser
        .until("document.querySelector('[data-simulated] .main-svg')")
        .await;
    browser.until_reads("Routed differently").await;
    // The long prompts would go to another model, and no longer all where they go now.
    let moved = browser
        .value("Number(document.querySelector('[data-simulated] .tile-value').textContent.replaceAll(',', ''))")
        .await;
    assert!(
        moved.as_i64().is_some_and(|moved| (50..900).contains(&moved)),
        "{moved}"
    );
    browser.assert_accessible("a draft that was simulated").await;
    for (width, height, dark, name) in [
        (1440, 900, false, "desktop-light"),
        (1440, 900, true, "desktop-dark"),
        (390, 844, false, "phone-light"),
    ] {
        browser.look(width, height, dark).await;
        browser.until_drawn().await;
        browser.assert_accessible(name).await;
        browser.keep_picture(&format!("routing-draft-{name}")).await;
    }
    browser.look(1440, 900, false).await;

    // Saved.
    browser.click("[data-check]").await;
    browser.until_reads("No problems found").await;
    browser.click("[data-save]").await;
    browser.until_reads("Version 1, saved by").await;
    let config = world
        .gateway
        .manage("GET", "/api/gateway/config", &world.gateway.token(Role::Owner), None)
        .await
        .json();
    assert_eq!(config["strategy"], "cost-optimized");
    assert_eq!(config["rules"][0]["then"], json!({"route": ["claude-sonnet-5"]}));
    assert_eq!(
        config["fallback_models"],
        json!({"generic": {"gpt-5": ["claude-sonnet-5"]}})
    );

    // Somebody else is faster: nothing of theirs is overwritten, and nothing of the draft is lost.
    world.gateway.configure(&json!({"strategy": "failover"})).await;
    browser.click("[data-strategy][value='latency-optimized']").await;
    browser.click("[data-save]").await;
    browser.until_reads("Someone else saved a newer version").await;
    assert_eq!(
        browser
            .value("document.querySelector('#document').value.includes('latency-optimized')")
            .await,
        json!(true)
    );
    browser.click("[data-discard]").await;

    // Versions: what is different, and back again.
    browser.open_page("/gateway/routing/versions").await;
    browser
        .until("document.querySelectorAll('#versions tbody tr').length === 2")
        .await;
    browser.assert_accessible("the versions").await;
    browser.keep_picture("routing-versions-two-desktop-light").await;
    browser.open_page("/gateway/routing/versions/1?against=2").await;
    browser.until_reads("/fallback_models").await;
    browser.assert_accessible("a version").await;
    browser.keep_picture("routing-version-desktop-light").await;
    browser.click("[data-api*='/versions/1/restore']").await;
    browser.click("[data-confirm-yes]").await;
    browser.until_reads("Version 3, saved by").await;
    browser.until_reads("gpt-5 → claude-sonnet-5").await;
    let complaints = browser.complaints(&["status of 4"]).await;
    assert!(complaints.is_empty(), "{complaints:?}");
    world.finish([browser]).await;
}

#[tokio::test]
async fn a_viewer_tries_a_draft_and_cannot_save_it() {
    let world = World::new().await;
    let viewer = world.person("viewer", None).await;
    let browser = world.browser_of(&viewer).await;
    browser.open_page("/gateway/routing").await;
    browser.until_reads("you cannot save it").await;
    assert_eq!(
        browser.value("document.querySelector('[data-save]')").await,
        Value::Null
    );
    browser.click("[data-strategy][value='failover']").await;
    browser.fill("#explain-model", "no-such-model").await;
    browser.click("[data-explain] button[type=submit]").await;
    browser.until_reads("Would be refused").await;
    let member = world.person("member", Some(world.team)).await;
    let other = world.browser_of(&member).await;
    other.open_page("/gateway/routing").await;
    other.until("document.querySelector('[data-error=\"403\"]')").await;
    world.finish([browser, other]).await;
}
