//! Single requests by pages: found, paged through, exported, and explained to the last nano-dollar.

use bonito::domain::ids::RequestId;
use bonito::domain::role::Role;
use serde_json::json;

use super::world::{EVIL, World};

const ROWS: &str = "document.querySelectorAll('#requests tbody tr').length";

#[tokio::test]
async fn a_request_is_found_and_the_log_is_paged_and_exported() {
    let world = World::new().await;
    let owner = world.person("owner", None).await;
    let browser = world.browser_of(&owner).await;
    browser.open_page("/gateway/logs").await;
    browser.until(&format!("{ROWS} === 50")).await;
    browser.until_reads(EVIL).await;
    let first = "document.querySelector('#requests tbody tr').dataset.key";
    let newest = browser.value(first).await;
    browser.click("nav[aria-label=Pages] a[rel=next]").await;
    browser.until("location.search.includes('cursor=req_')").await;
    browser.until(&format!("{ROWS} === 50 && {first} !== {newest}")).await;
    browser.until_reads("Newest").await;

    // By its id, in whichever form somebody has it.
    let id = world.tried_twice().await;
    browser.open_page("/gateway/logs").await;
    browser.fill("#request_id", &id.header()).await;
    browser.click(".log-filters button[type=submit]").await;
    browser.until(&format!("{ROWS} === 1")).await;
    browser.until(&format!("{first} === '{}'", id.0)).await;
    browser.fill("#request_id", "req_nothing").await;
    browser.click(".log-filters button[type=submit]").await;
    browser.until_reads("is not a request ID").await;
    browser.until_reads("No matching requests").await;

    // Filters, and an export by the same ones.
    browser
        .open_page("/gateway/logs?outcome=error&error_class=timeout")
        .await;
    browser.until(&format!("{ROWS} > 2")).await;
    let failed = browser
        .value("[...document.querySelectorAll('#requests tbody td:nth-child(2)')].every(cell => cell.innerText.includes('504') && cell.innerText.includes('timeout'))")
        .await;
    assert_eq!(failed, json!(true));
    let token = world.gateway.token(Role::Owner);
    let path = "/api/gateway/logs?outcome=error&error_class=timeout&limit=200";
    let listed = world.gateway.manage("GET", path, &token, None).await.json();
    let count = |link: &str| {
        format!(
            "const done = arguments[arguments.length - 1]; \
            fetch(document.querySelector('[data-export={link}]').href).then(async answer => \
                done([answer.status, (await answer.text()).trim().split(/\\r?\\n/).length - 1])).catch(error => done(String(error)))"
        )
    };
    let all_of_them = json!([200, listed["data"].as_array().unwrap().len()]);
    let exported = browser.client.execute_async(&count("logs"), Vec::new()).await.unwrap();
    assert_eq!(exported, all_of_them);
    // The same, written in the background and fetched when it is whole.
    browser.click("button[data-api='POST /api/gateway/exports']").await;
    browser.until_at("/gateway/jobs/exports").await;
    browser.until("document.querySelector('[data-export=written]')").await;
    browser.assert_accessible("an export").await;
    let written = browser
        .client
        .execute_async(&count("written"), Vec::new())
        .await
        .unwrap();
    assert_eq!(written, all_of_them);
    browser.open_page("/gateway/logs?min_cost=a+lot&status=teapot").await;
    browser.until_reads("Filter ignored: the cost").await;
    browser.until_reads("the status must be a whole number").await;
    browser.until("document.querySelector('.more-filters').open").await;
    browser.assert_accessible("filters that are none").await;
    // By what was asked for, and who was tried; the table to take away is the same.
    browser
        .open_page("/gateway/logs?requested_model=gpt-5-mini&attempted_provider=openai")
        .await;
    browser.until(&format!("{ROWS} > 5")).await;
    assert_eq!(
        browser.value("document.querySelector('.more-filters').open").await,
        json!(true)
    );
    let export = browser
        .value("document.querySelector('a[href*=\"export.csv\"]').getAttribute('href')")
        .await;
    let export = export.as_str().unwrap().to_owned();
    assert!(
        export.contains("requested_model=gpt-5-mini") && export.contains("attempted_provider=openai"),
        "{export}"
    );
    let tag = json!(format!("env={EVIL}"));
    let tagged = browser
        .value(&format!("'/gateway/logs?tag=' + encodeURIComponent({tag})"))
        .await;
    browser.open_page(tagged.as_str().unwrap()).await;
    browser.until(&format!("{ROWS} > 5")).await;
    let keys = browser
        .value("[...new Set([...document.querySelectorAll('#requests tbody td:nth-child(3)')].map(cell => cell.textContent))]")
        .await;
    assert_eq!(keys, json!([EVIL]));
    browser.assert_quiet("the log").await;
    world.finish([browser]).await;
}

#[tokio::test]
async fn a_request_is_told_step_by_step_with_its_reasons_and_its_cost() {
    let world = World::new().await;
    let owner = world.person("owner", None).await;
    let browser = world.browser_of(&owner).await;
    // One that failed once: what happened when.
    let twice = world.tried_twice().await;
    browser.open_page(&format!("/gateway/logs/{}", twice.header())).await;
    browser
        .until("document.querySelectorAll('#waterfall li').length === 5")
        .await;
    let steps = browser
        .value("[...document.querySelectorAll('#waterfall li')].map(step => step.querySelector('.strong').textContent)")
        .await;
    assert_eq!(
        steps,
        json!(["Admission", "Attempt 1", "Attempt 2", "First token", "End"])
    );
    browser.until_reads("overloaded (529)").await;
    // Nothing of it lies after its end.
    let ends = browser
        .value("[...document.querySelectorAll('#waterfall rect:not(.step-back)')].every(bar => parseFloat(bar.getAttribute('x')) + parseFloat(bar.getAttribute('width')) <= 100.01) && parseFloat([...document.querySelectorAll('#waterfall rect')].at(-1).getAttribute('x')) > 99")
        .await;
    assert_eq!(ends, json!(true));
    browser.until_reads("serves the requested model").await;
    browser.until("document.querySelector('#cost [data-cost]')").await;
    // One of long ago, as far as prices are concerned.
    let earlier = world.little_known().await;
    browser.open_page(&format!("/gateway/logs/{}", earlier.header())).await;
    browser.until_reads("This price is no longer in effect").await;
    browser.until_reads("No routing decision was recorded.").await;

    // One that was just made: why it went there, and what it cost.
    let created = json!({"name": "priced", "team_id": world.team, "metadata": {"env": EVIL}});
    let token = world.gateway.token(Role::Owner);
    let key = world
        .gateway
        .manage("POST", "/api/gateway/keys", &token, Some(&created))
        .await;
    let secret = key.json()["secret"].as_str().expect("it has a secret").to_owned();
    let body = json!({"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hello"}]});
    let reply = world
        .gateway
        .send("/v1/chat/completions", &secret, body.to_string())
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let row = world.gateway.row(&reply).await;
    let cost = row.cost_nanousd.expect("its price is known");
    browser.open_page(&format!("/gateway/logs/{}", row.id)).await;
    browser.until_reads("Deployments ordered").await;
    browser.until_reads("openai/gpt-5-mini").await;
    browser.until_reads("serves the requested model").await;
    let shown = browser
        .value("Number(document.querySelector('#cost [data-cost]').dataset.cost)")
        .await;
    assert_eq!(shown, json!(cost));
    let kinds = browser
        .value("[...document.querySelectorAll('#cost [data-tokens]')].reduce((sum, cell) => sum + Number(cell.dataset.tokens), 0)")
        .await;
    assert_eq!(kinds, json!(row.input_tokens + row.output_tokens));
    let sum = browser
        .value("[...document.querySelectorAll('#cost tbody td:last-child')].reduce((sum, cell) => sum + Number(cell.textContent.replace('= $', '')), 0)")
        .await;
    let (sum, exact) = (sum.as_f64().unwrap() * 1e9, cost as f64);
    assert!(sum > exact - 1.0 && sum < exact + 0.01, "{sum} of {exact}");
    browser.until_reads("Not stored").await;
    // Its sums are still shown when it costs something else, and to whoever may see the request.
    let prices = json!({"prices": [{"deployment": "openai/gpt-5-mini", "input_usd": "99", "output_usd": "100"}]});
    let any = [("if-match", "*")];
    let reply = world
        .gateway
        .manage_with("PUT", "/api/gateway/prices", &token, Some(&prices), &any)
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let lead = world.person("team_admin", Some(world.team)).await;
    let theirs = world.browser_of(&lead).await;
    for looking in [&browser, &theirs] {
        looking.open_page(&format!("/gateway/logs/{}", row.id)).await;
        let cost = "Number(document.querySelector('#cost [data-cost]')?.dataset.cost)";
        looking
            .until(&format!("{cost} === {}", row.cost_nanousd.unwrap()))
            .await;
        looking.assert_quiet("a request at an earlier price").await;
    }
    theirs.close().await;
    browser.assert_accessible("a request").await;
    browser.keep_picture("log-priced-desktop-light").await;
    browser.open_page("/gateway/logs/req_nothing").await;
    browser.until("document.querySelector('[data-error=\"404\"]')").await;
    let complaints = browser.complaints(&["404"]).await;
    assert!(complaints.is_empty(), "{complaints:?}");
    browser.close().await;

    // Others see what their role lets them, and nothing besides.
    let viewer = world.person("viewer", None).await;
    let browser = world.browser_of(&viewer).await;
    browser.open_page(&format!("/gateway/logs/{}", row.id)).await;
    browser.until_reads("No permission").await;
    browser.close().await;
    let member = world.person("member", Some(world.team)).await;
    let browser = world.browser_of(&member).await;
    browser
        .open_page(&format!("/gateway/logs/{}", RequestId(row.id).header()))
        .await;
    browser.until("document.querySelector('[data-error=\"404\"]')").await;
    browser.open_page("/gateway/logs").await;
    browser.until_reads("No requests yet").await;
    let complaints = browser.complaints(&["404"]).await;
    assert!(complaints.is_empty(), "{complaints:?}");
    world.finish([browser]).await;
}

#[tokio::test]
async fn a_payload_is_read_where_it_is_kept_and_stays_text() {
    let world = World::new().await;
    let token = world.gateway.token(Role::Owner);
    let config = json!({"logging": {"payloads": true}});
    let reply = world
        .gateway
        .manage_with(
            "PUT",
            "/api/gateway/config",
            &token,
            Some(&config),
            &[("if-match", "*")],
        )
        .await;
    assert!(reply.status < 300, "{}", reply.text);
    let reply = world.gateway.chat("gpt-5-mini", EVIL).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let row = world.gateway.row(&reply).await;
    let path = format!("/api/gateway/logs/{}/payload", row.id);
    while world.gateway.manage("GET", &path, &token, None).await.status != 200 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let owner = world.person("owner", None).await;
    let browser = world.browser_of(&owner).await;
    browser.open_page(&format!("/gateway/logs/{}", row.id)).await;
    browser.click("#payload details summary").await;
    browser.until_reads("<img src=x onerror=alert(1)>").await;
    assert_eq!(
        browser.value("document.querySelectorAll('main img').length").await,
        json!(0)
    );
    browser.assert_quiet("a payload").await;
    world.finish([browser]).await;
}
