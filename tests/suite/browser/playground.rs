//! The playground: a key that is made for an hour, two models side by side, and their cost from the ledger.

use serde_json::{Value, json};

use super::world::World;

#[tokio::test]
async fn two_models_answer_side_by_side_on_a_key_that_is_made_for_it_and_are_metered() {
    let world = World::new().await;
    let owner = world.person("owner", None).await;
    let browser = world.browser_of(&owner).await;
    browser.open_page("/gateway/playground").await;

    // A key that is none is said to be none.
    browser.fill("#key", "bn-nothing").await;
    browser
        .value("document.querySelector('#key').dispatchEvent(new Event('change'))")
        .await;
    browser.until_reads("The key is not good").await;
    assert_eq!(
        browser.value("document.querySelector('[data-send]').disabled").await,
        json!(true)
    );

    browser.click("[data-make-key]").await;
    browser
        .until("document.querySelector('[data-key-words]').innerText.includes('It ends at')")
        .await;
    browser.click("[data-both]").await;
    browser.fill("#model-a", "gpt-5-mini").await;
    browser.fill("#model-b", "gpt-5").await;
    browser.fill("#system", "Answer <b>briefly</b>.").await;
    browser.fill("#prompt", "Hello <img src=x onerror=alert(1)>").await;
    browser.click("[data-send]").await;
    browser.until("document.querySelectorAll('.bubble.model .said').length === 2 && !document.querySelector('[data-send]').disabled || document.querySelectorAll('.bubble.model').length === 2 && document.querySelector('[data-stop]').hidden").await;
    browser
        .until("[...document.querySelectorAll('.bubble.model .said')].every(said => said.textContent.length > 0)")
        .await;
    browser
        .until(
            "[...document.querySelectorAll('[data-figure=cost]')].every(figure => figure.textContent.startsWith('$'))",
        )
        .await;
    browser
        .until(
            "[...document.querySelectorAll('[data-figure=tokens]')].every(figure => figure.textContent.includes('→'))",
        )
        .await;
    for (width, height, dark, name) in [
        (1440, 900, false, "desktop-light"),
        (1440, 900, true, "desktop-dark"),
        (390, 844, false, "phone-light"),
    ] {
        browser.look(width, height, dark).await;
        browser.assert_accessible("a conversation with two models").await;
        browser.keep_picture(&format!("playground-both-{name}")).await;
    }
    browser.look(1440, 900, false).await;

    // What is wrong is said in the panel that it is about, and the conversation goes on.
    browser.fill("#model-b", "no-such-model").await;
    browser.fill("#prompt", "And again").await;
    browser.click("[data-send]").await;
    browser.until("document.querySelector('[data-panel=b] [data-panel-fault]:not([hidden])')?.innerText.includes('no-such-model')").await;
    browser
        .until("document.querySelectorAll('[data-panel=a] .bubble.model').length === 2")
        .await;
    browser.click("[data-clear]").await;
    assert_eq!(
        browser.value("document.querySelectorAll('.bubble').length").await,
        json!(0)
    );

    // The key's secret is nowhere in the page, and nothing of it is kept.
    assert_eq!(
        browser
            .value(
                "/bn-[A-Za-z0-9]{20}/.test(document.documentElement.outerHTML + document.querySelector('#key').value)"
            )
            .await,
        json!(false)
    );
    assert_eq!(
        browser
            .value("Object.values({...localStorage, ...sessionStorage}).some(value => value.includes('bn-'))")
            .await,
        json!(false)
    );
    assert_eq!(
        browser.value("document.querySelectorAll('main img').length").await,
        json!(0)
    );
    let complaints = browser.complaints(&["status of 4"]).await;
    assert!(complaints.is_empty(), "{complaints:?}");

    let viewer = world.person("viewer", None).await;
    let other = world.browser_of(&viewer).await;
    other.open_page("/gateway/playground").await;
    other.until("document.querySelector('#key')").await;
    assert_eq!(
        other.value("document.querySelector('[data-make-key]')").await,
        Value::Null
    );
    world.finish([browser, other]).await;
}
