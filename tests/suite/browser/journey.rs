//! A new admin, from what the first start prints to the bill, by pages alone and without the manual.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::process::Command;

use super::rig::Browser;
use super::world::PASSWORD;
use crate::support::ScriptedProvider;
use crate::support::process::Installation;
use crate::support::receiver::Receiver;

/// How long something may take that is done in the background.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the first start prints: where the dashboard is, who can sign in there, and with which password.
async fn printed(installation: &Installation) -> (String, String, String) {
    let began = Instant::now();
    loop {
        let printed = installation.printed();
        let mut lines = printed.lines().map(str::trim);
        let dashboard = lines.find_map(|line| line.strip_prefix("dashboard "));
        lines.find(|line| line.starts_with("Your sign-in"));
        let sign_in = lines.find_map(|line| line.split_once("  "));
        if let (Some(dashboard), Some((email, password))) = (dashboard, sign_in) {
            return [dashboard, email, password].map(|word| word.trim().to_owned()).into();
        }
        assert!(began.elapsed() < PATIENCE, "nobody can sign in: {printed}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What comes of a command that was copied from a page, pasted into a shell.
async fn pasted(command: &str) -> Value {
    assert!(command.starts_with("curl "), "{command}");
    let output = Command::new("sh")
        .args(["-c", command])
        .output()
        .await
        .expect("there is a shell");
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
}

/// What an answer cost, in nano-dollars: 2.5 and 10 USD a million tokens.
fn cost_of(answer: &Value) -> i64 {
    let tokens = |kind: &str| answer["usage"][kind].as_i64().unwrap_or_else(|| panic!("{answer}"));
    tokens("prompt_tokens") * 2_500 + tokens("completion_tokens") * 10_000
}

/// The text behind a link for an export, as the browser gets it.
async fn exported(browser: &Browser, link: &str) -> String {
    browser.until(&format!("document.querySelector({})", json!(link))).await;
    let script = "const done = arguments[arguments.length - 1]; \
        fetch(document.querySelector(arguments[0]).href).then(async answer => done([answer.status, await answer.text()]), \
            error => done([0, String(error)]))";
    let answer = browser
        .client
        .execute_async(script, vec![json!(link)])
        .await
        .expect("the page answers");
    assert_eq!(answer[0], 200, "{answer}");
    answer[1].as_str().expect("it is text").to_owned()
}

/// The rows of a table of commas, by the names of its columns. Nothing in these tables has a comma of its own.
fn rows(table: &str) -> Vec<Value> {
    let mut lines = table.lines().map(|line| line.trim_end().split(',').collect::<Vec<_>>());
    let names = lines.next().expect("there is a head");
    lines
        .map(|cells| {
            assert_eq!(cells.len(), names.len(), "{table}");
            let row = names.iter().zip(cells);
            row.map(|(name, cell)| ((*name).to_owned(), json!(cell)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        })
        .collect()
}

#[tokio::test]
async fn a_new_admin_gets_from_the_first_sign_in_to_the_bill_by_pages_alone() {
    let (provider, receiver) = (ScriptedProvider::start().await, Receiver::start().await);
    let mut installation = Installation::new(&provider).await;
    installation.set("BONITO_FETCH_PORTS", format!("443,{}", receiver.port));
    installation.set("BONITO_FETCH_ALLOWED_NETWORKS", "127.0.0.1/32");
    installation.set("BONITO_WEBHOOKS_ALLOW_HTTP", "true");
    installation.first_key_as_made = true;
    let process = installation.start().await;
    let (dashboard, email, password) = printed(&installation).await;

    // Signs in with what was printed, and chooses a password.
    let browser = Browser::open(&process.api).await;
    let page = dashboard.strip_prefix(&process.api).expect("the dashboard is here");
    browser.open_page(page).await;
    browser.until_at("/login").await;
    browser.fill("#email", &email).await;
    browser.fill("#password", &password).await;
    browser.click("button[type=submit]").await;
    browser.until_at("/gateway/password").await;
    browser.choose_password(&password, PASSWORD, PASSWORD).await;
    browser.until_at("/gateway").await;
    browser.until_reads("Getting started").await;
    browser.assert_quiet("signing in").await;

    // The overview says what to do next, and leads there: a key for one model at one provider.
    let step = |title: &str| {
        format!(
            "[...document.querySelectorAll('.checklist li')].find(step => step.innerText.includes({}))",
            json!(title)
        )
    };
    browser
        .value(&format!("{}.querySelector('a').click()", step("Create a key")))
        .await;
    browser.until("document.querySelector('#new-key')?.open").await;
    browser.fill("#new-name", "search service").await;
    browser.fill("#new-models", "mock-chat").await;
    browser.fill("#new-providers", "openai").await;
    browser.assert_accessible("the dialog of a new key").await;
    browser.click("#new-key button[type=submit]").await;
    browser.until("document.querySelector('#secret').open").await;
    browser
        .until("document.querySelector('#secret-snippet').textContent.includes('mock-chat')")
        .await;
    browser.assert_accessible("the secret and how to try it").await;
    browser.keep_picture("key-secret-desktop-light").await;
    let snippet = browser
        .value("document.querySelector('#secret-snippet').textContent")
        .await;
    let snippet = snippet.as_str().expect("it is text").to_owned();
    browser.click("[data-go-on]").await;
    browser
        .until("document.querySelector('h1')?.textContent === 'search service'")
        .await;

    // Pastes what was shown, and watches the request arrive.
    browser.click("#sidebar a[href='/gateway']").await;
    browser.until_at("/gateway").await;
    browser.until("document.querySelector('[data-live-dot].on')").await;
    browser.until_reads("No requests yet").await;
    let first = pasted(&snippet).await;
    assert!(first["choices"][0]["message"]["content"].is_string(), "{first}");
    let first_cost = cost_of(&first);
    assert!(first_cost > 0, "{first}");
    browser
        .until("document.querySelector('[data-live=recent] tbody tr')?.innerText.includes('mock-chat')")
        .await;
    browser
        .until(&format!("{}.classList.contains('done')", step("Send a request")))
        .await;
    browser
        .until(&format!("{}.classList.contains('done')", step("Create a key")))
        .await;

    // Finds it in the log, with where it went, why, and what it cost.
    browser.click("#sidebar a[href='/gateway/logs']").await;
    browser.until_at("/gateway/logs").await;
    browser.until_reads("search service").await;
    browser.click("#requests tbody tr a.name").await;
    browser.until("document.querySelector('#reasons')").await;
    browser.until_reads("openai/mock-chat").await;
    browser.until_reads("serves the requested model").await;
    browser.until_reads("reported by the provider").await;
    let shown = browser
        .value("document.querySelector('#cost [data-cost]').dataset.cost")
        .await;
    assert_eq!(shown, json!(first_cost.to_string()));
    browser.assert_accessible("the first request").await;

    // Is told of events.
    browser.click("#sidebar a[href='/gateway/webhooks']").await;
    browser.click("main [data-opens='new-webhook']").await;
    browser.fill("#new-url", &format!("{}/hook", receiver.url)).await;
    browser.click("#new-webhook button[type=submit]").await;
    browser.until("document.querySelector('#once').open").await;
    browser.click("[data-once-done]").await;
    browser
        .until("location.pathname.startsWith('/gateway/webhooks/')")
        .await;
    let webhook = browser.value("location.pathname").await;
    let webhook = webhook.as_str().expect("it is text").to_owned();

    // Sets a budget that the next request uses half of, and is told.
    browser.click("#sidebar a[href='/gateway']").await;
    browser.until_at("/gateway").await;
    browser
        .value(&format!("{}.querySelector('a').click()", step("Set a budget")))
        .await;
    browser.until_at("/gateway/budgets").await;
    browser.until("document.querySelector('#new-budget')?.open").await;
    browser.choose("#budget-scope", "key").await;
    browser.fill("#budget-key", "search service").await;
    let chosen = "document.querySelector('#new-budget [data-picks] input[type=hidden]').value";
    browser.until(chosen).await;
    let key = browser.value(chosen).await;
    let key = key.as_str().expect("it can be chosen").to_owned();
    let amount = first_cost * 3;
    browser.fill("#budget-amount", &format!("0.{amount:09}")).await;
    browser.choose("#budget-enforcement", "soft").await;
    browser.assert_accessible("the dialog of a new budget").await;
    browser.click("#new-budget button[type=submit]").await;
    browser
        .until("document.querySelector('#budgets tbody tr')?.innerText.includes('search service')")
        .await;
    let second = pasted(&snippet).await;
    let spent = first_cost + cost_of(&second);
    assert!(spent * 2 >= amount && spent < amount, "{spent} of {amount}");
    let told = receiver.until("/hook", 1);
    let told = tokio::time::timeout(PATIENCE, told).await.expect("the event arrives");
    let event: Value = serde_json::from_str(&told[0].body).expect("an event is JSON");
    assert_eq!(
        (&event["type"], &event["data"]["threshold_percent"]),
        (&json!("budget.threshold"), &json!(50)),
        "{event}"
    );
    browser.open_page(&webhook).await;
    browser.until_reads("budget.threshold").await;
    browser
        .until("document.querySelector('[data-live=deliveries] .pill')?.textContent === 'delivered'")
        .await;
    browser.assert_accessible("a delivery").await;
    browser.click("#sidebar a[href='/gateway/budgets']").await;
    browser.until_at("/gateway/budgets").await;
    browser
        .until("document.querySelector('#budgets .chip.reached')?.innerText.includes('50%')")
        .await;
    browser.assert_accessible("a budget whose threshold is reached").await;
    browser.keep_picture("budget-threshold-desktop-light").await;

    // Takes the figures away: each request with what it cost, and the sums by model.
    browser.click("#sidebar a[href='/gateway/logs']").await;
    browser.until_at("/gateway/logs").await;
    let requests = rows(&exported(&browser, "[data-export=logs]").await);
    assert_eq!(requests.len(), 2, "{requests:?}");
    for request in &requests {
        assert_eq!(
            (
                &request["model"],
                &request["provider"],
                &request["key_id"],
                &request["status"]
            ),
            (&json!("mock-chat"), &json!("openai"), &json!(key), &json!("200")),
            "{request}"
        );
    }
    let costs = requests.iter().map(|request| {
        request["cost_nanousd"]
            .as_str()
            .and_then(|cost| cost.parse::<i64>().ok())
    });
    assert_eq!(costs.map(|cost| cost.expect("it is known")).sum::<i64>(), spent);
    browser.click("#sidebar a[href='/gateway/usage']").await;
    browser.until_at("/gateway/usage").await;
    let usage = rows(&exported(&browser, "[data-export=groups]").await);
    let sum = |name: &str| -> i64 {
        let cells = usage
            .iter()
            .filter(|row| row["group_name"] == "mock-chat")
            .filter_map(|row| row[name].as_str());
        cells.map(|cell| cell.parse::<i64>().unwrap_or(0)).sum()
    };
    assert_eq!((sum("requests"), sum("cost_nanousd")), (2, spent), "{usage:?}");

    // All is done, and nobody is told to begin any more but with a provider of their own.
    browser.click("#sidebar a[href='/gateway']").await;
    browser.until_at("/gateway").await;
    browser.until("!document.querySelector('.checklist')").await;
    browser.assert_quiet("the whole way").await;
    browser.close().await;
    assert_eq!(process.terminate().await, 0);
}
