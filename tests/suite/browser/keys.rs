//! Keys by pages: found, created with everything that bounds them, shown once, used, changed, rotated and revoked.

use bonito::domain::role::Role;
use serde_json::{Value, json};

use super::rig::{ENTER, ESCAPE};
use super::world::{EVIL, World};
use crate::support::database::on_postgres;

#[tokio::test]
async fn a_key_lives_its_whole_life_on_its_pages() {
    let world = World::new().await;
    let owner = world.person("owner", None).await;
    let browser = world.browser_of(&owner).await;
    browser.open_page("/gateway/keys").await;
    browser.until_reads(EVIL).await;
    browser.until_reads("support-bot").await;

    // Found by a part of its name, in whatever letters.
    browser.fill("#search", "SUPPORT").await;
    browser
        .client
        .active_element()
        .await
        .unwrap()
        .send_keys("\u{e007}")
        .await
        .unwrap();
    browser.until("location.search.includes('search=SUPPORT')").await;
    browser
        .until("document.querySelectorAll('#keys tbody tr').length === 2")
        .await;
    browser.open_page("/gateway/keys?search=100%25_nobody").await;
    browser.until_reads("No matching keys").await;
    browser.keep_picture("keys-none-desktop-light").await;
    browser.open_page("/gateway/keys").await;
    // The slash goes to the search, from anywhere.
    browser
        .value("document.body.dispatchEvent(new KeyboardEvent('keydown', {key: '/', bubbles: true}))")
        .await;
    browser.until("document.activeElement.id === 'search'").await;
    // Sorted by what it cost.
    browser.click("#keys th:nth-child(4) button.sort").await;
    let dearest = browser
        .value("[...document.querySelectorAll('#keys tbody td:nth-child(4)')].map(cell => Number(cell.dataset.value))")
        .await;
    let spent: Vec<i64> = dearest.as_array().unwrap().iter().filter_map(Value::as_i64).collect();
    assert!(
        spent.len() >= 6 && spent.is_sorted_by(|a, b| a >= b) && spent[0] > 0,
        "{spent:?}"
    );

    // Created; what is wrong is said where it is wrong, and nothing that was typed is lost.
    browser.click("main [data-opens='new-key']").await;
    browser.until("document.querySelector('#new-key').open").await;
    browser.fill("#new-name", "pages & <i>keys</i>").await;
    browser.fill("#new-models", "gpt-5-*,").await;
    browser.fill("#new-providers", "openai").await;
    browser.fill("#new-budget", "a lot").await;
    browser.fill("#new-rate", "0").await;
    browser.assert_accessible("the dialog of a new key").await;
    browser.click("#new-key button[type=submit]").await;
    browser
        .until("document.querySelector('#new-rate').getAttribute('aria-invalid') === 'true'")
        .await;
    browser.until_reads("This must be at least 1.").await;
    browser.keep_picture("key-new-fault-desktop-light").await;
    browser.fill("#new-rate", "90").await;
    browser.click("#new-key button[type=submit]").await;
    browser
        .until("document.querySelector('#new-budget').getAttribute('aria-invalid') === 'true'")
        .await;
    browser.fill("#new-budget", "12.50").await;
    browser.choose("#new-team", &world.team.to_string()).await;
    browser.click("#new-key .more-fields summary").await;
    browser.fill("#new-tags", "env=test").await;
    browser.fill("#new-concurrency", "4").await;
    browser.click("#new-key button[type=submit]").await;
    browser.until("document.querySelector('#secret').open").await;
    let secret = browser
        .value("document.querySelector('[data-secret]').textContent")
        .await;
    let secret = secret.as_str().unwrap().to_owned();
    assert!(secret.starts_with("bn-") && secret.len() == 49, "{secret}");
    browser.assert_accessible("the dialog of the secret").await;
    let complaints = browser.complaints(&["status of 4"]).await;
    assert!(complaints.is_empty(), "{complaints:?}");

    // It is the key that was asked for.
    let models = world.gateway.get("/v1/models", &secret).await;
    let names: Vec<String> = models.json()["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].as_str().unwrap().to_owned())
        .collect();
    assert!(
        !names.is_empty() && names.iter().all(|name| name.starts_with("gpt-5")),
        "{names:?}"
    );
    let own = world.gateway.get("/v1/key", &secret).await.json();
    assert_eq!(own["name"], "pages & <i>keys</i>", "{own}");

    // It has a page with what applies to it, and its requests arrive there.
    browser.click("[data-go-on]").await;
    browser.until("location.pathname.startsWith('/gateway/keys/')").await;
    browser.until_reads("Effective policy").await;
    browser.until_reads("the whole organization combined").await;
    browser.until_reads("90 requests per minute").await;
    browser.until_reads("4 concurrent requests").await;
    browser.until_reads("Not used yet").await;
    let body = json!({"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hello"}]});
    let reply = world
        .gateway
        .send("/v1/chat/completions", &secret, body.to_string())
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    world.gateway.row(&reply).await;
    let path = browser.value("location.pathname").await.as_str().unwrap().to_owned();
    browser.open_page(&path).await;
    browser
        .until("[...document.querySelectorAll('main table')].at(-1).textContent.includes('gpt-5-mini')")
        .await;

    // Changed.
    browser.click("[data-opens='edit-key']").await;
    browser.fill("#edit-name", "renamed").await;
    browser.click("#edit-key .token button").await;
    browser.fill("#edit-models", "claude-*,nobodys-model").await;
    browser.click("#edit-key button[type=submit]").await;
    browser
        .until("document.querySelector('h1').textContent === 'renamed'")
        .await;
    browser.until_reads("claude-*").await;
    // What may be a slip is said, on the page that comes after.
    browser
        .until_reads("No model that is configured is called \"nobodys-model\"")
        .await;
    browser.assert_accessible("a key with a warning").await;
    browser.click("[data-warned] button").await;
    browser.until("!document.querySelector('[data-warned]')").await;
    assert_eq!(
        browser
            .value("document.querySelector('main').innerText.includes('gpt-5-*')")
            .await,
        json!(false)
    );

    // Rotated: both secrets work for a while.
    browser.click("[data-opens='rotate-key']").await;
    browser.until("document.querySelector('#rotate-key').open").await;
    browser.click("#rotate-key button[type=submit]").await;
    browser.until("document.querySelector('#secret').open").await;
    let rotated = browser
        .value("document.querySelector('[data-secret]').textContent")
        .await;
    let rotated = rotated.as_str().unwrap().to_owned();
    assert_ne!(rotated, secret);
    for working in [&rotated, &secret] {
        assert_eq!(world.gateway.get("/v1/key", working).await.status, 200);
    }
    browser.click("[data-go-on]").await;
    browser.until_reads("The previous secret works until").await;

    // Revoked, once it is meant.
    browser.click("[data-api^=DELETE]").await;
    browser.until("document.querySelector('#confirmation').open").await;
    browser.until_reads("This cannot be undone").await;
    browser.click("#confirmation button[value=no]").await;
    assert_eq!(world.gateway.get("/v1/key", &rotated).await.status, 200);
    browser.click("[data-api^=DELETE]").await;
    browser.click("[data-confirm-yes]").await;
    browser
        .until("document.querySelector('main .pill.bad')?.textContent === 'revoked'")
        .await;
    assert_eq!(world.gateway.get("/v1/key", &rotated).await.status, 401);
    assert_eq!(
        browser.value("document.querySelector('[data-opens=rotate-key]')").await,
        Value::Null
    );
    browser.assert_quiet("the page of a key").await;
    world.finish([browser]).await;
}

#[tokio::test]
async fn a_member_sees_and_creates_keys_of_their_own_alone() {
    let world = World::new().await;
    let member = world.person("member", Some(world.team)).await;
    let browser = world.browser_of(&member).await;
    browser.open_page("/gateway/keys").await;
    browser.until_reads("No keys yet").await;
    let other = world.keys[1];
    browser.open_page(&format!("/gateway/keys/{other}")).await;
    browser.until("document.querySelector('[data-error=\"404\"]')").await;
    // What they can choose from is what their team may use.
    let narrowed = json!({"allowed_models": {"models": ["gpt-5*"], "providers": ["openai"]}});
    let (path, token) = (format!("/api/teams/{}", world.team), world.gateway.token(Role::Owner));
    let reply = world.gateway.manage("PATCH", &path, &token, Some(&narrowed)).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let options = async |list: &str| {
        let script = format!("[...document.querySelectorAll('#{list} option')].map(option => option.value).sort()");
        browser.value(&script).await
    };
    for page in ["usage", "logs"] {
        browser.open_page(&format!("/gateway/{page}")).await;
        browser.until("document.querySelector('#model-offered')").await;
        assert_eq!(options("model-offered").await, json!(["gpt-5", "gpt-5-mini"]), "{page}");
        assert_eq!(options("provider-offered").await, json!(["openai"]), "{page}");
    }
    browser.open_page("/gateway/keys?new=1").await;
    browser.until("document.querySelector('#new-key').open").await;
    assert_eq!(options("models").await, json!(["gpt-5", "gpt-5-mini"]));
    assert_eq!(options("providers").await, json!(["openai"]));
    // They are bound to their team, and are not asked for one.
    assert_eq!(browser.value("document.querySelector('#new-team')").await, Value::Null);
    browser.fill("#new-name", "mine").await;
    browser.click("#new-key button[type=submit]").await;
    browser.until("document.querySelector('#secret').open").await;
    browser.click("[data-go-on]").await;
    browser
        .until("document.querySelector('h1')?.textContent === 'mine'")
        .await;
    // What applies to it they see, whosever it is: the organization's budget, too.
    browser.until_reads("Effective policy").await;
    browser
        .until(
            "[...document.querySelectorAll('#policy tr')].some(row => row.textContent.includes('Budget') \
             && row.textContent.includes('the whole organization combined') && row.textContent.includes('$20'))",
        )
        .await;
    let complaints = browser.complaints(&["404"]).await;
    assert!(complaints.is_empty(), "{complaints:?}");
    world.finish([browser]).await;
}

#[tokio::test]
async fn a_key_is_created_without_a_mouse_and_the_focus_is_always_seen_and_comes_back() {
    let world = World::new().await;
    let owner = world.person("owner", None).await;
    let browser = world.browser_of(&owner).await;
    browser.open_page("/gateway/keys").await;
    let opener = ".page-actions [data-opens='new-key']";
    let has_focus = |selector: &str| format!("document.activeElement.matches({})", json!(selector));

    // From the top of the page to the button, which opens the dialog with its first field ready.
    browser.tab_to(opener, "body").await;
    browser.press(ENTER).await;
    browser.until("document.querySelector('#new-key').open").await;
    browser.until(&has_focus("#new-name")).await;
    // Escape closes it, and the focus is where it was.
    browser.press(ESCAPE).await;
    browser.until("!document.querySelector('#new-key').open").await;
    browser.until(&has_focus(opener)).await;

    // Again, and with a name; what is wrong takes the focus to where it is.
    browser.press(ENTER).await;
    browser.until(&has_focus("#new-name")).await;
    for letter in "without-a-mouse".chars() {
        browser.press(letter).await;
    }
    browser.tab_to("#new-budget", "#new-key").await;
    for letter in "a lot".chars() {
        browser.press(letter).await;
    }
    browser.tab_to("#new-key button[type=submit]", "#new-key").await;
    browser.press(ENTER).await;
    browser.until(&has_focus("#new-budget[aria-invalid='true']")).await;
    for letter in "\u{e003}\u{e003}\u{e003}\u{e003}\u{e003}12.50".chars() {
        browser.press(letter).await;
    }
    browser.tab_to("#new-key button[type=submit]", "#new-key").await;
    browser.press(ENTER).await;

    // The secret is not closed by mistake; it can be copied and left by keys as well.
    browser.until("document.querySelector('#secret').open").await;
    browser.until("document.activeElement.closest('#secret')").await;
    browser.press(ESCAPE).await;
    assert_eq!(
        browser.value("document.querySelector('#secret').open").await,
        json!(true)
    );
    browser
        .tab_to("#secret [data-copy-from='#secret-text']", "#secret")
        .await;
    browser.press(ENTER).await;
    browser.until_reads("Copied").await;
    browser.until(&has_focus("[data-copy-from='#secret-text']")).await;
    browser.tab_to("#secret [data-go-on]", "#secret").await;
    browser.press(ENTER).await;
    browser
        .until("document.querySelector('h1')?.textContent === 'without-a-mouse'")
        .await;
    browser.until_reads("$12.50").await;
    let complaints = browser.complaints(&["status of 4"]).await;
    assert!(complaints.is_empty(), "{complaints:?}");
    world.finish([browser]).await;
}

#[tokio::test]
async fn the_budget_of_a_key_is_on_its_pages_however_many_others_there_are() {
    let world = World::new().await;
    // 2,500 budgets of other keys, all of them newer.
    let (id, hex) = match on_postgres() {
        true => (
            "('ffffffff-ffff-7fff-8fff-' || lpad(to_hex(n), 12, '0'))::uuid",
            "lpad(to_hex(n), 8, '0')",
        ),
        false => ("unhex(printf('ffffffffffff7fff8fff%012x', n))", "printf('%08x', n)"),
    };
    world
        .gateway
        .sql(&format!(
            "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 2500) \
             INSERT INTO gateway_budgets (id, organization_id, scope_kind, scope_reference, amount_nanousd, period, \
             time_zone, enforcement, unpriced, thresholds, enabled, counts_from, created_at, updated_at, revision) \
             SELECT {id}, organization_id, 'key', {hex} || '-0000-7000-8000-000000000000', amount_nanousd, period, \
             time_zone, enforcement, unpriced, thresholds, enabled, counts_from, created_at, updated_at, revision \
             FROM numbers CROSS JOIN (SELECT * FROM gateway_budgets WHERE scope_kind = 'organization') AS one"
        ))
        .await;
    let owner = world.person("owner", None).await;
    let browser = world.browser_of(&owner).await;
    browser.open_page("/gateway/keys").await;
    browser
        .until(
            "[...document.querySelectorAll('#keys tbody tr')].some(row => row.textContent.includes('search-production') \
             && row.textContent.includes('of $6'))",
        )
        .await;
    browser.open_page(&format!("/gateway/keys/{}", world.keys[1])).await;
    browser
        .until(
            "[...document.querySelectorAll('#policy tr')].some(row => row.textContent.includes('of $6') \
             && row.textContent.includes('this key'))",
        )
        .await;
    browser
        .assert_quiet("the page of a key among thousands of budgets")
        .await;
    world.finish([browser]).await;
}

#[tokio::test]
async fn a_keys_owner_cache_and_parameters_are_set_shown_and_changed_by_pages() {
    let world = World::new().await;
    let admin = world.person("admin", None).await;
    world.person("member", Some(world.team)).await;
    let token = world.gateway.token(Role::Owner);
    let users = world.gateway.manage("GET", "/api/users", &token, None).await.json();
    let users = users["data"].as_array().unwrap();
    let member = users.iter().find(|user| user["role"] == "member").unwrap()["id"]
        .as_str()
        .unwrap();
    let browser = world.browser_of(&admin).await;
    browser.open_page("/gateway/keys?new=1").await;
    browser.until("document.querySelector('#new-key').open").await;
    browser.fill("#new-name", "of a member").await;
    browser.click("#new-key .more-fields summary").await;
    browser.choose("#new-owner", member).await;
    browser.choose("#new-parameters", "warn").await;
    browser.fill("#new-cache", "a while").await;
    browser.click("#new-key button[type=submit]").await;
    browser
        .until("document.querySelector('#new-cache').getAttribute('aria-invalid') === 'true'")
        .await;
    browser.fill("#new-cache", "90").await;
    browser
        .assert_accessible("the dialog of a new key with everything")
        .await;
    browser.click("#new-key button[type=submit]").await;
    browser.until("document.querySelector('#secret').open").await;
    browser.click("[data-go-on]").await;
    browser.until("location.pathname.startsWith('/gateway/keys/')").await;
    browser.until_reads("member@example.com").await;
    browser.until_reads("drops them and names them in a header").await;
    let path = browser.value("location.pathname").await.as_str().unwrap().to_owned();
    let stored = async || {
        let key = world
            .gateway
            .manage("GET", &format!("/api{path}"), &token, None)
            .await
            .json();
        let member = |name: &str| key.get(name).cloned().unwrap_or_default();
        (member("owner_id"), member("cache_seconds"), member("parameter_policy"))
    };
    assert_eq!(stored().await, (json!(member), json!(90), json!("warn")));

    // What is not touched stays; what is emptied is as everywhere.
    browser.click("[data-opens='edit-key']").await;
    browser.fill("#edit-name", "still a member's").await;
    browser.click("#edit-key button[type=submit]").await;
    browser.until_reads("still a member's").await;
    assert_eq!(stored().await, (json!(member), json!(90), json!("warn")));
    browser.click("[data-opens='edit-key']").await;
    browser.choose("#edit-owner", "").await;
    browser.choose("#edit-parameters", "").await;
    browser.fill("#edit-cache", "0").await;
    browser.click("#edit-key button[type=submit]").await;
    browser
        .until("[...document.querySelectorAll('dl.facts dd')].some(fact => fact.textContent.trim() === 'disabled')")
        .await;
    assert_eq!(stored().await, (Value::Null, json!(0), Value::Null));

    // Found by whose they are.
    let reply = world
        .gateway
        .manage(
            "PATCH",
            &format!("/api{path}"),
            &token,
            Some(&json!({"owner_id": member})),
        )
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    browser.open_page("/gateway/keys").await;
    browser.choose("#owner", member).await;
    browser
        .until("location.search.includes('owner=') && document.querySelectorAll('#keys tbody tr').length === 1")
        .await;
    browser.until_reads("still a member's").await;
    let complaints = browser.complaints(&[]).await;
    assert!(complaints.is_empty(), "{complaints:?}");
    world.finish([browser]).await;
}
