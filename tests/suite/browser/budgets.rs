//! Budgets and rate limits by pages: created for every scope, with their faults at the fields, changed and deleted.

use bonito::domain::role::Role;
use serde_json::{Value, json};

use super::world::{EVIL, World};

#[tokio::test]
async fn a_budget_lives_its_whole_life_on_the_page() {
    let world = World::new().await;
    let owner = world.person("owner", None).await;
    let token = world.gateway.token(Role::Owner);
    let of = async |path: &str| world.gateway.manage("GET", path, &token, None).await.json();
    let browser = world.browser_of(&owner).await;
    browser.open_page("/gateway/budgets").await;
    browser
        .until("document.querySelectorAll('#budgets tbody tr').length === 5")
        .await;
    browser.until_reads("search-production").await;
    browser.until_reads("used up").await;

    // Created; what is wrong is said at its field, and nothing that was typed is lost.
    browser.click("main [data-opens='new-budget']").await;
    browser.until("document.querySelector('#new-budget').open").await;
    browser.choose("#budget-scope", "tag").await;
    let shown = browser
        .value("[...document.querySelectorAll('#new-budget [data-scope-for]:not([hidden])')].map(part => part.dataset.scopeFor)")
        .await;
    assert_eq!(shown, json!(["tag"]));
    browser.fill("#budget-tag", "no tag").await;
    browser.fill("#budget-amount", "a lot").await;
    browser.fill("#budget-zone", "Middle of Nowhere").await;
    browser.assert_accessible("the dialog of a new budget").await;
    browser.click("#new-budget button[type=submit]").await;
    for field in ["#budget-amount", "#budget-zone", "#budget-tag"] {
        browser
            .until(&format!(
                "document.querySelector('{field}').getAttribute('aria-invalid') === 'true'"
            ))
            .await;
        let said = browser
            .value(&format!(
                "document.querySelector('{field}').closest('.field').querySelector('[data-fault]').textContent"
            ))
            .await;
        assert!(!said.as_str().unwrap().is_empty(), "{field}");
    }
    browser.keep_picture("budget-new-fault-desktop-light").await;
    browser.fill("#budget-tag", &format!("env={EVIL}")).await;
    browser.fill("#budget-amount", "30").await;
    browser.fill("#budget-zone", "Europe/Berlin").await;
    browser.fill("#budget-thresholds", "90, 50").await;
    browser.click("#new-budget button[type=submit]").await;
    browser
        .until("document.querySelector('#budget-thresholds').getAttribute('aria-invalid') === 'true'")
        .await;
    browser.fill("#budget-thresholds", "50, 90").await;
    browser.choose("#budget-period", "weekly").await;
    browser.click("#new-budget button[type=submit]").await;
    browser.until_reads(&format!("env={EVIL}")).await;
    let found = of("/api/gateway/budgets?scope=tag").await;
    let budget = &found["data"][0];
    assert_eq!(budget["reference"], format!("env={EVIL}"), "{found}");
    assert_eq!(budget["thresholds"], json!([50, 90]));
    assert_eq!(
        (&budget["period"], &budget["time_zone"], &budget["enforcement"]),
        (&json!("weekly"), &json!("Europe/Berlin"), &json!("hard"))
    );
    let id = budget["id"].as_str().unwrap().to_owned();
    let row = format!("#budgets tr[data-id='{id}']");

    // A scope has one for a period, which is said.
    browser.click("main [data-opens='new-budget']").await;
    browser.fill("#budget-amount", "10").await;
    browser.click("#new-budget button[type=submit]").await;
    browser.until_reads("this scope has a budget already").await;
    browser.click("#new-budget [data-closes]").await;

    // Changed: the dialog begins with what there is.
    browser.click(&format!("{row} [data-opens='edit-budget']")).await;
    browser.until("document.querySelector('#edit-budget').open").await;
    let begins = browser
        .value("['amount', 'thresholds', 'enforcement'].map(field => document.querySelector(`#change-budget-${field}`).value)")
        .await;
    assert_eq!(begins, json!(["30", "50, 90", "hard"]));
    browser.until_reads(&format!("tag env={EVIL}")).await;
    browser.assert_accessible("the dialog that changes a budget").await;
    browser.keep_picture("budget-edit-desktop-light").await;
    browser.fill("#change-budget-amount", "0").await;
    browser.click("#edit-budget button[type=submit]").await;
    browser
        .until("document.querySelector('#change-budget-amount').getAttribute('aria-invalid') === 'true'")
        .await;
    browser.fill("#change-budget-amount", "45.50").await;
    browser.choose("#change-budget-enforcement", "soft").await;
    browser.click("#edit-budget button[type=submit]").await;
    browser.until_reads("$45.50").await;
    let changed = of(&format!("/api/gateway/budgets/{id}")).await;
    assert_eq!(
        (&changed["amount_usd"], &changed["enforcement"]),
        (&json!("45.5"), &json!("soft"))
    );

    // Found by its scope, and deleted once it is meant.
    browser.choose("#scope", "tag").await;
    browser.until("location.search.includes('scope=tag')").await;
    browser
        .until("document.querySelectorAll('#budgets tbody tr').length === 1")
        .await;
    browser.click(&format!("{row} [data-api^=DELETE]")).await;
    browser.until("document.querySelector('#confirmation').open").await;
    browser.click("#confirmation button[value=no]").await;
    browser.click(&format!("{row} [data-api^=DELETE]")).await;
    browser.click("[data-confirm-yes]").await;
    browser.until_reads("No matching budgets").await;
    let gone = world
        .gateway
        .manage("GET", &format!("/api/gateway/budgets/{id}"), &token, None)
        .await;
    assert_eq!(gone.status, 404);
    let complaints = browser.complaints(&["status of 4"]).await;
    assert!(complaints.is_empty(), "{complaints:?}");
    world.finish([browser]).await;
}

#[tokio::test]
async fn a_rate_limit_lives_its_whole_life_on_the_page() {
    let world = World::new().await;
    let owner = world.person("owner", None).await;
    let token = world.gateway.token(Role::Owner);
    let browser = world.browser_of(&owner).await;
    browser.open_page("/gateway/budgets?new=limit").await;
    browser.until("document.querySelector('#new-limit').open").await;
    browser.click("#new-limit button[type=submit]").await;
    browser.until_reads("must limit something").await;
    browser.choose("#limit-scope", "team").await;
    browser.choose("#limit-team", &world.team.to_string()).await;
    browser.fill("#limit-only", "gpt-5*").await;
    browser.fill("#limit-requests", "0").await;
    browser.click("#new-limit button[type=submit]").await;
    browser
        .until("document.querySelector('#limit-requests').getAttribute('aria-invalid') === 'true'")
        .await;
    browser.fill("#limit-requests", "120").await;
    browser.fill("#limit-tokens", "50000").await;
    browser.assert_accessible("the dialog of a new limit").await;
    browser.click("#new-limit button[type=submit]").await;
    browser
        .until("[...document.querySelectorAll('#limits tbody tr')].some(row => row.textContent.includes('gpt-5*'))")
        .await;
    browser.until_reads(EVIL).await;
    let found = world
        .gateway
        .manage("GET", "/api/gateway/rate-limits?scope=team", &token, None)
        .await
        .json();
    let limit = &found["data"][0];
    assert_eq!(
        (
            &limit["requests_per_minute"],
            &limit["tokens_per_minute"],
            &limit["model"]
        ),
        (&json!(120), &json!(50_000), &json!("gpt-5*")),
        "{found}"
    );
    let id = limit["id"].as_str().unwrap().to_owned();
    let row = format!("#limits tr[data-id='{id}']");

    // What is emptied is not limited any more.
    browser.click(&format!("{row} [data-opens='edit-limit']")).await;
    browser
        .until("document.querySelector('#change-limit-requests').value === '120'")
        .await;
    browser
        .value("document.querySelector('#change-limit-requests').value = ''")
        .await;
    browser.fill("#change-limit-concurrency", "7").await;
    browser.click("#change-limit-enabled").await;
    browser.click("#edit-limit button[type=submit]").await;
    browser
        .until(&format!(
            "document.querySelector(\"{row} .pill.quiet\")?.textContent === 'off'"
        ))
        .await;
    let path = format!("/api/gateway/rate-limits/{id}");
    let changed = world.gateway.manage("GET", &path, &token, None).await.json();
    assert_eq!(
        (
            &changed["requests_per_minute"],
            &changed["concurrency"],
            &changed["enabled"]
        ),
        (&Value::Null, &json!(7), &json!(false))
    );
    browser.click(&format!("{row} [data-api^=DELETE]")).await;
    browser.click("[data-confirm-yes]").await;
    browser.until(&format!("!document.querySelector(\"{row}\")")).await;
    assert_eq!(world.gateway.manage("GET", &path, &token, None).await.status, 404);
    let complaints = browser.complaints(&["status of 4"]).await;
    assert!(complaints.is_empty(), "{complaints:?}");
    world.finish([browser]).await;
}

#[tokio::test]
async fn whoever_may_only_look_changes_nothing() {
    let world = World::new().await;
    let viewer = world.person("viewer", None).await;
    let browser = world.browser_of(&viewer).await;
    browser.open_page("/gateway/budgets?new=budget").await;
    browser
        .until("document.querySelectorAll('#budgets tbody tr').length === 5")
        .await;
    for what in ["[data-opens]", "main [data-api]", "#new-budget"] {
        assert_eq!(
            browser.value(&format!("document.querySelector('{what}')")).await,
            Value::Null
        );
    }
    browser.assert_quiet("budgets to look at").await;
    browser.close().await;
    // A team's admin is offered what is theirs.
    let admin = world.person("team_admin", Some(world.team)).await;
    let browser = world.browser_of(&admin).await;
    browser.open_page("/gateway/budgets").await;
    browser.until_reads("No budgets yet").await;
    let scopes = browser
        .value("[...document.querySelectorAll('#budget-scope option')].map(option => option.value)")
        .await;
    assert_eq!(scopes, json!(["team", "key"]));
    browser.look(390, 844, true).await;
    browser.assert_accessible("budgets of a team's admin").await;
    browser.assert_quiet("budgets of a team's admin").await;
    world.finish([browser]).await;
}
