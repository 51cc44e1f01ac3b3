//! The dashboard as people see it: every page in Debian's Chromium, in two sizes and two themes.
//!
//! A page fails its test by anything the browser complains about, by a request to anywhere else, by what axe-core finds, and
//! by being wider than the window. `BONITO_SCREENSHOTS=1` keeps pictures of all of them in `docs/screenshots`.

mod budgets;
mod jobs;
mod journey;
mod keys;
mod logs;
mod models;
mod overview;
mod playground;
mod providers;
mod rig;
mod routing;
mod settings;
mod sign_in;
mod usage;
mod webhooks;
mod world;

use serde_json::json;

use rig::SIZES;
use world::World;

/// Every page that can be looked at without doing anything: its path (with `{key}` and `{request}` in the place of ids), what
/// of it is waited for, and its picture's name.
const PAGES: &[(&str, &str, &str)] = &[
    ("/gateway", "[data-live=recent] table", "overview"),
    (
        "/gateway?range=30d&by=provider",
        "[data-live=recent] table",
        "overview-30d",
    ),
    ("/gateway/keys", "#keys tbody tr", "keys"),
    ("/gateway/keys/{key}", "[data-chart]", "key"),
    ("/gateway/providers", "#providers tbody tr", "providers"),
    ("/gateway/providers/openai", "[data-live=measured]", "provider"),
    ("/gateway/providers/catalogue", "#catalogue tbody tr", "catalogue"),
    ("/gateway/providers/repricing", "[data-live=repricings]", "repricing"),
    ("/gateway/routing", "[data-rules] li", "routing"),
    ("/gateway/routing/versions", ".empty", "routing-versions"),
    ("/gateway/playground", "[data-ask]", "playground"),
    ("/gateway/webhooks", ".empty", "webhooks"),
    ("/gateway/jobs", "[data-live=jobs]", "jobs"),
    ("/gateway/jobs/batches", "#batches tbody tr", "batches"),
    ("/gateway/jobs/exports", "[data-live=exports] .empty", "exports"),
    ("/gateway/settings", "#org-name", "settings"),
    ("/gateway/settings/members", "#members tbody tr", "members"),
    ("/gateway/settings/teams", "#teams tbody tr", "teams"),
    ("/gateway/settings/audit", ".audit li", "audit"),
    ("/gateway/password", "#current", "password"),
    ("/gateway/usage", "#breakdown tbody tr", "usage"),
    (
        "/gateway/usage?range=7d&by=tag&bars=grouped",
        "#breakdown tbody tr",
        "usage-tags",
    ),
    ("/gateway/logs", "#requests tbody tr", "logs"),
    ("/gateway/logs/{request}", "#waterfall li", "log"),
    ("/gateway/budgets", "#budgets tbody tr", "budgets"),
    ("/gateway/nothing-here", "[data-error='404']", "not-found"),
];

#[tokio::test]
async fn every_page_is_quiet_accessible_and_fits_in_both_sizes_and_themes() {
    let world = World::new().await;
    let owner = world.person("owner", None).await;
    let browser = world.browser_of(&owner).await;
    browser.assert_quiet("signing in").await;
    world.ask_around().await;
    world.leave_jobs().await;
    world.find_out_what_would_be_repriced().await;
    let (key, request) = (world.keys[2].to_string(), world.tried_twice().await.header());
    for (path, ready, name) in PAGES {
        for (width, height, size) in SIZES {
            browser.look(width, height, false).await;
            browser
                .open_page(&path.replace("{key}", &key).replace("{request}", &request))
                .await;
            browser
                .until(&format!("document.querySelector({})", json!(ready)))
                .await;
            browser.until_drawn().await;
            for (dark, theme) in [(false, "light"), (true, "dark")] {
                browser.look(width, height, dark).await;
                let page = format!("{path} at {width} px, {theme}");
                browser.until_drawn().await;
                if dark {
                    browser.assert_colours(&page).await;
                } else {
                    browser.assert_accessible(&page).await;
                }
                browser.keep_picture(&format!("{name}-{size}-{theme}")).await;
            }
            let meant: &[&str] = if *name == "not-found" { &["404"] } else { &[] };
            let complaints = browser.complaints(meant).await;
            assert!(complaints.is_empty(), "{path} at {width} px: {complaints:#?}");
            // A name that is markup is shown as it is, and nothing of it has come to be.
            assert_eq!(
                browser.value("document.querySelectorAll('img[src=x]').length").await,
                json!(0)
            );
        }
    }
    world.finish([browser]).await;
}
